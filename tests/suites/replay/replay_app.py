"""More endpoints beside those of `shop_app`: wrong or right when interrupted, or without a login.

A name says what is special. Each has a POST of its own.
"""

import secrets
import time
import uuid
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime

from fastapi import BackgroundTasks, Depends, Form, Header, HTTPException
from shop_app import (
    IS_SYNC,
    PRODUCT,
    URL,
    Account,
    Base,
    Code,
    Job,
    Seat,
    app,
    endpoint,
    lock,
    maker,
    refuse,
)
from sqlalchemy import DateTime, String, func, select, update
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Mapped, mapped_column

__all__ = ["app"]
HELD = []
LOGIN = ContextVar("login")


class Note(Base):
    """A row with what differs by chance."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str | None] = mapped_column(String(200))
    at: Mapped[datetime | None] = mapped_column(DateTime())
    seconds: Mapped[int | None]


class Named(Base):
    __tablename__ = "named"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    number: Mapped[int]


# Right, though a value differs in each run


def writing(name, row, after=lambda: None, **options):
    def write(db, _):
        db.add(row())
        db.commit()
        after()

    write.__name__ = name
    endpoint(write, **options)


writing("time_of_the_app", lambda: Note(at=datetime.now(UTC).replace(tzinfo=None)))
writing("whole_seconds", lambda: Note(seconds=int(time.time())))
writing("time_of_the_database", lambda: Note(at=func.now()))
writing("random_token", lambda: Note(text=secrets.token_hex()))
writing("key_of_the_app", lambda: Named(id=str(uuid.uuid4()), number=1))


@endpoint
def updated_at(db, _):
    db.execute(update(Job).where(Job.id == 1).values(state=f"{time.time():.0f}"))
    db.commit()


@endpoint
def savepoint_first(db, _):
    for row in (Account(id=1), Seat(who="Dune")):
        with suppress(IntegrityError), db.begin_nested():
            db.add(row)
    db.commit()


@endpoint
def soft_delete(db, _):
    alive = update(Job).where(Job.id == 1, Job.state != "deleted")
    done = db.execute(alive.values(state="deleted"))
    db.commit()
    refuse(not done.rowcount, 404)


@endpoint
def removal(db, _):
    job = db.get(Job, 1)
    refuse(job is None, 404)
    db.delete(job)
    db.commit()


@endpoint
def two_tables(db, number):
    db.add_all([Note(text="paid"), Named(id=f"order {secrets.token_hex(4)}", number=number)])
    db.commit()


@endpoint
def upsert(db, _):
    made = {"sqlite": sqlite, "postgresql": postgresql, "mysql": mysql}[PRODUCT].insert(Named)
    made = made.values(id="visits", number=1)
    more = {"number": Named.number + 1}
    if PRODUCT == "mysql":
        db.execute(made.on_duplicate_key_update(more))
    else:
        db.execute(made.on_conflict_do_update(index_elements=["id"], set_=more))
    db.commit()


@endpoint
def locked_counter(db, _):
    lock(db)
    db.add(Note(seconds=db.scalar(select(func.count()).select_from(Note))))
    db.commit()


@endpoint
def completed_when_sent_again(db, _):
    db.execute(update(Job).where(Job.id == 1).values(state="seen"))
    db.commit()
    db.execute(update(Account).where(Account.id == 1).values(money=7))
    db.commit()


# Wrong when two come at once


@endpoint
def increment(db, _):
    db.get(Account, 1).money += 1
    db.commit()


@endpoint
def next_number(db, _):
    db.add(Note(seconds=(db.scalar(select(func.max(Note.seconds))) or 0) + 1))
    db.commit()


@endpoint
def quota(db, _):
    refuse(db.scalar(select(func.count()).select_from(Seat)) >= 2)
    db.add(Seat(who="Dune"))
    db.commit()
    db.add(Note(seconds=db.scalar(select(func.count()).select_from(Seat))))
    db.commit()


@endpoint
def toggle(db, _):
    job = db.get(Job, 1)
    job.state = "off" if job.state == "on" else "on"
    db.commit()


@endpoint
def unique_after_a_look(db, _):
    refuse(db.scalar(select(Code).where(Code.name == "NEW")))
    db.add(Code(name="NEW"))
    db.commit()


@endpoint
def unique_after_a_look_with_an_answer_of_500(db, _):
    refuse(db.scalar(select(Code).where(Code.name == "NEW")))
    db.add(Code(name="NEW"))
    try:
        db.commit()
    except SQLAlchemyError as error:
        raise HTTPException(500) from error


# Wrong when interrupted


@endpoint
def two_commits(db, _):
    db.add(Code(name="used"))
    db.commit()
    db.add(Seat(who="Dune"))
    db.commit()


@endpoint
def commit_before_a_check(db, _):
    lock(db)
    db.commit()
    refuse(db.get(Job, 1) is None)
    db.add(Note(text="checked"))
    db.commit()


@endpoint
def replaced_in_two_steps(db, _):
    db.delete(db.get(Job, 1))
    db.commit()
    db.add(Job(id=1, state="replaced"))
    db.commit()


@endpoint
def swallowed(db, _):
    try:
        db.add(Note(text="swallowed"))
        db.commit()
    except SQLAlchemyError:
        db.rollback()


@endpoint
def swallowed_and_said_otherwise(db, _):
    try:
        db.execute(update(Account).where(Account.id == 1).values(money=1))
        db.commit()
    except SQLAlchemyError:
        return {"ok": False}
    return {"ok": True}


@endpoint
def torn_and_accepted(db, _):
    db.execute(update(Job).where(Job.id == 1).values(state="seen"))
    db.commit()
    try:
        db.execute(update(Account).where(Account.id == 1).values(money=7))
        db.commit()
    except SQLAlchemyError:
        db.rollback()


@endpoint
def lock_in_memory(db, _):
    refuse(HELD)
    HELD.append(1)
    db.add(Note(text="held"))
    db.commit()
    HELD.clear()


if not IS_SYNC:
    one_at_a_time = create_async_engine(URL, pool_size=1, max_overflow=0, pool_timeout=0.1)
    makes_one = async_sessionmaker(one_at_a_time)
    leaked = []

    @app.post("/leaked_connection")
    async def leaked_connection():
        session = makes_one()
        leaked.append(session)
        session.add(Note(text="leaked"))
        await session.commit()
        leaked.clear()
        await session.close()

    shared = maker()

    @app.post("/shared_session")
    async def shared_session():
        shared.add(Note(text="shared"))
        await shared.commit()

    @app.post("/in_the_background")
    async def in_the_background(tasks: BackgroundTasks):
        async with maker() as db:
            db.add(Note(text="now"))
            await db.commit()
        tasks.add_task(in_background)

    async def in_background():
        async with maker() as db:
            db.add(Note(text="later"))
            await db.commit()


# Beside a test double


def post_letter():
    raise ConnectionError


@endpoint
def only_a_letter(_db, _):
    post_letter()


@endpoint
def after_a_letter(db, _):
    db.add(Code(name="letter"))
    db.commit()
    db.add(Seat(who="Dune"))
    db.commit()


# Logins


def user_of(authorization: str = Header("")):
    return authorization.removeprefix("Bearer ")


def required(user: str = Depends(user_of)):
    refuse(not user, 401)
    return user


def secured(name, dependency):
    writing(name, lambda: Note(text=name), dependencies=[Depends(dependency)])


def only_if_given(user: str = Depends(user_of)):
    if user == "guest":
        raise HTTPException(403)


def api_key(x_api_key: str = Header()):
    refuse(x_api_key != "key", 403)


def secret_in_the_body(body: dict):
    refuse(body["token"] != "key", 403)


def secret_in_the_path(token: str):
    refuse(token != "key", 403)


def secret_in_a_form(password: str = Form()):
    refuse(password != "key", 403)


def ignored_api_key(x_api_key: str = Header("")):
    return x_api_key


secured("with_login", required)
secured("with_api_key", api_key)
secured("without_login", user_of)
secured("of_another_role", only_if_given)
secured("ignores_the_api_key", ignored_api_key)
secured("with_a_token_in_the_body", secret_in_the_body)
secured("with_a_password_in_a_form", secret_in_a_form)
secured("with_a_password_in_an_upload", secret_in_a_form)
secured("reset/{token}", secret_in_the_path)
secured("tokens/{token_id}", user_of)


async def remember(authorization: str = Header("")):
    LOGIN.set(authorization)


LATE = {"after": lambda: refuse(not LOGIN.get(), 401), "dependencies": [Depends(remember)]}
writing("writes_before_its_check", lambda: Note(text="paid"), **LATE)
writing("names_who_is_refused", lambda: Note() if LOGIN.get() else Named(id="he", number=1), **LATE)
