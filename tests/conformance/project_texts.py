"""The app of the stories, as people write it, and what all stories share.

Written once, for coroutines; `_project` makes the twin for sync engines and sync tests of it.
"""

from __future__ import annotations

__all__ = ["APP", "CONFTEST", "HAND", "SEED"]

APP = """
import product
import setting
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import CheckConstraint, ForeignKey, String, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.orm.exc import StaleDataError


class Base(DeclarativeBase):
    type_annotation_map = {str: String(200)}


class Dancer(Base):
    __tablename__ = "dancers"
    __table_args__ = {"sqlite_autoincrement": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    style: Mapped[str] = mapped_column(default="toprock")
    version: Mapped[int] = mapped_column(nullable=False)
    __mapper_args__ = {"version_id_col": version}


class Score(Base):
    __tablename__ = "scores"
    __table_args__ = (CheckConstraint("points >= 0"),)
    dancer_id: Mapped[int] = mapped_column(ForeignKey("dancers.id"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    points: Mapped[int]


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(String(8000))


# The app's own, on the developer's own database. The second one is a worker's or an admin's.
engine = create_async_engine(setting.URL, **setting.OPTIONS)
other_engine = create_async_engine(setting.URL, **setting.OPTIONS)
product.prepare(getattr(engine, "sync_engine", engine))
product.prepare(getattr(other_engine, "sync_engine", other_engine))
maker = async_sessionmaker(engine, expire_on_commit=False)
other_maker = async_sessionmaker(other_engine, expire_on_commit=False)


async def get_db():
    async with maker() as session:
        yield session


app = FastAPI()


@app.get("/dancers")
async def dancers(db: AsyncSession = Depends(get_db)):
    return [dancer.name for dancer in await db.scalars(select(Dancer).order_by(Dancer.id))]


@app.post("/dancers/{name}", status_code=201)
async def add(name: str, db: AsyncSession = Depends(get_db)):
    dancer = Dancer(name=name)
    db.add(dancer)
    try:
        await db.commit()
    except IntegrityError:
        await db.rollback()
        raise HTTPException(409)
    return dancer.id


@app.post("/forgetful/{name}")
async def forgetful(name: str, db: AsyncSession = Depends(get_db)):
    db.add(Dancer(name=name))
    await db.flush()  # and no commit


@app.delete("/dancers/{name}", status_code=204)
async def remove(name: str, db: AsyncSession = Depends(get_db)):
    await db.delete(await db.scalar(select(Dancer).where(Dancer.name == name)))
    await db.commit()
"""

SEED = """
from app import Dancer, Score

NAMES = ["Sand", "Dune", "Grain"]


def seed(session):
    session.add_all([Dancer(name=name, style="power") for name in NAMES])
    session.flush()
    session.add_all([Score(dancer_id=1, round=1, points=9), Score(dancer_id=2, round=1, points=8)])
"""

# What the stories do with the database, through the app's own engines.
HAND = """
import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import product
import pytest
import setting
from app import Dancer, engine, maker, other_maker
from sqlalchemy import select, text, update

SEEDED = ["Sand", "Dune", "Grain"]

# What stood when each wider fixture that is alive now had been set up, the last one on top.
ALIVE = []


async def names(maker=maker):
    async with maker() as session:
        return list(await session.scalars(select(Dancer.name).order_by(Dancer.id)))


async def add(name, maker=maker):
    async with maker() as session:
        dancer = Dancer(name=name)
        session.add(dancer)
        await session.commit()
        return dancer.id


async def change(name, /, maker=maker, **values):
    async with maker() as session:
        await session.execute(update(Dancer).where(Dancer.name == name).values(**values))
        await session.commit()


async def run(*statements):
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def in_the_middle(then):
    async with maker() as session:
        session.add(Dancer(name="in the middle"))
        await session.flush()
        then()


KEPT = []


async def leave_a_transaction():
    session = maker()
    KEPT.append(session)
    session.add(Dancer(name="left"))
    await session.flush()  # taken here


async def leave_a_connection():
    KEPT.append(await engine.connect())  # taken here


@contextmanager
def living(name, arena):
    state = (name, product.dump(arena.url))
    ALIVE.append(state)
    yield name
    ALIVE.remove(state)


def standing():
    '''The names that a test finds before it has done anything.'''
    wide = [row for row in (ALIVE[-1][1]["dancers"] if ALIVE else BASE["dancers"])]
    return [row[1] for row in sorted(wide)]


BASE = {}


def broken(promise, what):
    raise AssertionError(f"broken: {promise}: {what}")


def check(promise, arena, when):
    found, expected = product.dump(arena.url), ALIVE[-1][1] if ALIVE else BASE
    if found == expected:
        return
    differs = {name for name in {*found, *expected} if found.get(name) != expected.get(name)}
    lines = [f"{name}: {expected.get(name)} -> {found.get(name)}" for name in sorted(differs)]
    rows = {row[1] for row in {*expected["dancers"]} ^ {*found.get("dancers", ())}}
    is_wide = any(str(name).startswith("wide") for name in rows)
    broken("P6" if is_wide else promise, f"{when}: " + "; ".join(lines))
"""

# asyncio has its own word for it, threads another.
TOGETHER_ASYNC = """

async def together(*calls):
    return await asyncio.gather(*(call() for call in calls))
"""
TOGETHER_PLAIN = """

def together(*calls):
    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result() for future in [threads.submit(call) for call in calls]]
"""

# The sync helpers of a sync app, for tests that are coroutines.
AWAITED = """

def _awaited(function):
    async def call(*args, **kwargs):
        return function(*args, **kwargs)
    return call


names, add, change, run = map(_awaited, (names, add, change, run))
in_the_middle = _awaited(in_the_middle)
leave_a_transaction = _awaited(leave_a_transaction)
leave_a_connection = _awaited(leave_a_connection)
"""

FIXTURE = """

def fixture(scope="function"):
    if setting.RUNNER.startswith("asyncio"):
        import pytest_asyncio
        loop = "session" if setting.LOOP == "session" else scope
        return pytest_asyncio.fixture(scope=scope, loop_scope=loop)
    return pytest.fixture(scope=scope)


def lacks(name):
    return pytest.mark.needs(name)
"""

CONFTEST = """
import json
import logging
import os
import random

import hand
import product
import pytest
import seed
import setting

OUT = os.environ.get("CONFORMANCE_OUT", os.devnull)


def pytest_configure(config):
    config.addinivalue_line("markers", "needs(name): what a setting may lack")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    order, _, number = os.environ.get("CONFORMANCE_ORDER", "forward").partition(":")
    if order == "reverse":
        items.reverse()
    if order == "shuffle":
        random.Random(int(number)).shuffle(items)
    for item in items:
        for marker in item.iter_markers("needs"):
            if marker.args[0] in setting.LACKS:
                reason = f"not promised: {marker.args[0]}: {setting.LACKS[marker.args[0]]}"
                item.add_marker(pytest.mark.skip(reason=reason))


def tell(**fact):
    with open(OUT, "a") as out:
        out.write(json.dumps(fact) + "\\n")


# In a run of several processes the controller hears of every test.
def pytest_runtest_logreport(report):
    if "PYTEST_XDIST_WORKER" not in os.environ:
        text = str(report.longrepr[2] if report.skipped else report.longreprtext)
        tell(test=report.nodeid, when=report.when, outcome=report.outcome, text=text)


class Loud(logging.Handler):
    records = []

    def emit(self, record):
        # unittest's loops are in debug mode, and tell which steps a busy machine takes long for.
        if not (record.name == "asyncio" and record.msg.startswith("Executing ")):
            self.records.append(self.format(record))


@pytest.fixture(scope="session", autouse=True)
def base(arena):
    logging.getLogger().addHandler(Loud(logging.WARNING))
    hand.BASE.update(product.dump(arena.url))
    tell(url=arena.url)
    found = [row[1] for row in sorted(hand.BASE["dancers"])]
    if found != seed.NAMES:
        hand.broken("P2", f"the first test begins with {found}")
    yield
    if hand.ALIVE:
        hand.broken("P6", f"still alive at the end: {[name for name, _ in hand.ALIVE]}")
    hand.check("P2", arena, "after the last test")


@pytest.fixture(autouse=True)
def looked_at(request):
    if hand.BASE:
        hand.check("P2", request.getfixturevalue("arena"), "before the test")
    yield
    if Loud.records:
        texts = [Loud.records.pop() for _ in list(Loud.records)]
        hand.broken("P5", f"logged as a warning: {texts}")


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio", {"use_uvloop": "uvloop" in setting.RUNNER}


@pytest.fixture(scope="session")
def backend(request):
    if setting.RUNNER.startswith("anyio"):
        request.getfixturevalue("anyio_backend")
"""

# Sync tests ask for the sync client by the same name.
CLIENT_PLAIN = """

@pytest.fixture
def client(test_client):
    return test_client


@pytest.fixture
def new_client(arena):
    return arena.test_client
"""
CLIENT_ASYNC = """

@pytest.fixture
def new_client(arena):
    return arena.client
"""
