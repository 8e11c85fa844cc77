"""Endpoints that are wrong or right when requests come at once, side by side.

An async engine runs them by ``run_sync``, so that sync and async apps have the same statements.
"""

import os

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from sqlalchemy import String, create_engine, func, make_url, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

URL = make_url(os.environ["DATABASE_URL"])
PRODUCT, _, DRIVER = URL.drivername.partition("+")
IS_SYNC = DRIVER in {"psycopg2", "pymysql", "pysqlite"}
engine = create_engine(URL) if IS_SYNC else create_async_engine(URL)
maker = (sessionmaker if IS_SYNC else async_sessionmaker)(engine, expire_on_commit=False)
app = FastAPI()
PAID = []


class Base(DeclarativeBase):
    pass


class Seat(Base):
    __tablename__ = "seats"
    id: Mapped[int] = mapped_column(primary_key=True)
    who: Mapped[str] = mapped_column(String(50))


class Account(Base):
    __tablename__ = "accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    money: Mapped[int]
    version: Mapped[int] = mapped_column(default=1)


class Code(Base):
    __tablename__ = "codes"
    name: Mapped[str] = mapped_column(String(50), primary_key=True)


class Job(Base):
    __tablename__ = "jobs"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(50), default="new")


def seed(session):
    session.add_all([Account(id=1, money=10), Account(id=2, money=10), Job(id=1)])


def endpoint(function, **options):
    """Add an endpoint whose path is the name of the function."""
    path = f"/{function.__name__}"
    if IS_SYNC:

        def get_db():
            with maker() as session:
                yield session

        def answer(number: int = 1, db=Depends(get_db)):
            return function(db, number)

    else:

        async def get_db():
            async with maker() as session:
                yield session

        async def answer(number: int = 1, db=Depends(get_db)):
            return await db.run_sync(function, number)

    app.post(path, **options)(answer)
    return function


def refuse(condition, status=409):
    if condition:
        raise HTTPException(status)


def lock(db):
    """Lock a row until the end of the transaction. SQLite locks the file."""
    db.execute(update(Account).where(Account.id == 1).values(version=Account.version + 1))


def take_seat(db):
    refuse(db.scalar(select(func.count()).select_from(Seat)))
    db.add(Seat(who="Dune"))
    db.commit()


@endpoint
def check_then_act(db, _):
    take_seat(db)


@endpoint
def check_then_act_locked(db, _):
    lock(db)
    take_seat(db)


@endpoint
def check_then_act_advisory(db, _):
    db.execute(text("SELECT pg_advisory_xact_lock(1)"))
    take_seat(db)


def spend(db, **options):
    account = db.get(Account, 1, **options)
    refuse(account.money < 7)
    account.money -= 7
    db.commit()


@endpoint
def lost_update(db, _):
    spend(db)


@endpoint
def lost_update_for_update(db, _):
    spend(db, with_for_update=True)


@endpoint
def lost_update_one_statement(db, _):
    enough = update(Account).where(Account.id == 1, Account.money >= 7)
    done = db.execute(enough.values(money=Account.money - 7))
    db.commit()
    refuse(not done.rowcount)


@endpoint
def lost_update_versioned(db, _, lost=409):
    account = db.get(Account, 1)
    refuse(account.money < 7)
    same = update(Account).where(Account.id == 1, Account.version == account.version)
    done = db.execute(same.values(money=account.money - 7, version=account.version + 1))
    db.commit()
    refuse(not done.rowcount, lost)


@endpoint
def try_again(db, _):
    lost_update_versioned(db, _, lost=503)


@endpoint
def add_if_none(db, _):
    if db.scalar(select(func.count()).select_from(Seat)) == 0:
        db.add(Seat(who="Dune"))
    db.commit()


@endpoint
def get_or_create(db, _):
    if db.get(Code, "SAND") is None:
        db.add(Code(name="SAND"))
    db.commit()


@endpoint
def get_or_create_again(db, _):
    if db.get(Code, "SAND") is None:
        db.add(Code(name="SAND"))
        try:
            db.commit()
        except IntegrityError:
            db.rollback()


@endpoint
def unique(db, _):
    db.add(Code(name="SAND"))
    try:
        db.commit()
    except IntegrityError:
        raise HTTPException(409) from None


def withdraw(db, number):
    refuse(db.scalar(select(func.sum(Account.money))) < 15)
    db.execute(update(Account).where(Account.id == number).values(money=Account.money - 15))
    db.commit()


@endpoint
def write_skew(db, number):
    withdraw(db, number)


@endpoint
def write_skew_serializable(db, number):
    for _ in range(3):
        db.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        try:
            return withdraw(db, number)
        except DBAPIError:  # another transaction was first
            db.rollback()
    raise HTTPException(503)


def move(db, amounts):
    for number, amount in amounts:
        money = Account.money + amount
        db.execute(update(Account).where(Account.id == number).values(money=money))
    db.commit()


@endpoint
def transfer(db, number):
    move(db, [(number, -1), (3 - number, 1)])


@endpoint
def transfer_in_order(db, number):
    move(db, sorted([(number, -1), (3 - number, 1)]))


def work(db, jobs):
    job = db.scalar(jobs)
    refuse(job is None)
    job.state = "done"
    db.commit()


@endpoint
def queue(db, _):
    work(db, select(Job).where(Job.state == "new"))


@endpoint
def queue_skip_locked(db, _):
    work(db, select(Job).where(Job.state == "new").with_for_update(skip_locked=True))


@endpoint
def idempotency_key(db, _):
    refuse(db.get(Code, "key") is not None)
    lock(db)
    db.commit()
    db.merge(Code(name="key"))
    db.commit()


@endpoint
def idempotency_key_first(db, _):
    db.add(Code(name="key"))
    try:
        db.flush()
    except IntegrityError:
        raise HTTPException(409) from None
    lock(db)
    db.commit()


@endpoint
def forgotten(db, _):
    lock(db)


@app.post("/in_memory")
async def in_memory():
    refuse(PAID)
    PAID.append(1)


@app.post("/login/{name}")
async def log_in(name: str, response: Response):
    async with maker() as session:  # no step of a race
        await session.get(Account, 1)
    response.set_cookie("user", name)


@app.post("/me")
async def me(request: Request):
    return request.cookies.get("user")


def login(client, role):
    return client.post(f"/login/{role}")
