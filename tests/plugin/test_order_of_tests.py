"""A test has one verdict alone, in its suite, and in each order: what `db_session` is like."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.plugin.private_server import on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

APP = """
from contextlib import asynccontextmanager
from functools import lru_cache
import sqlmodel  # noqa: F401 - its sessions are not the app's
from fastapi import FastAPI
from sqlalchemy import ForeignKey, create_engine, event, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

class Base(DeclarativeBase): ...

class Part(Base):
    __tablename__ = "parts"
    id: Mapped[int] = mapped_column(primary_key=True)
    of: Mapped[int | None] = mapped_column(ForeignKey("parts.id"))

maker = async_sessionmaker()

def checking(engine):
    event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA foreign_keys = ON"))

@lru_cache
def get_command_engine():
    return create_engine("sqlite:///shop.db")

def count():
    with Session(get_command_engine()) as session:
        return session.scalar(select(func.count(Part.id)))
"""
# The engine exists when a request is made, at the start of the app, or from the import on.
LAZY = """
@lru_cache
def get_engine():
    engine = create_async_engine("sqlite+aiosqlite:///shop.db")
    checking(engine.sync_engine)
    return engine

@asynccontextmanager
async def lifespan(app):
    get_engine()
    yield
    await get_engine().dispose()

app = FastAPI()
"""
STARTED = LAZY.replace("FastAPI()", "FastAPI(lifespan=lifespan)")
LISTENER = """
engine = create_async_engine("sqlite+aiosqlite:///shop.db")

def get_engine():
    return engine

@asynccontextmanager
async def lifespan(app):
    checking(engine.sync_engine)
    yield

app = FastAPI(lifespan=lifespan)
"""
ROUTE = """
@app.get("/parts")
async def parts() -> int:
    async with maker(bind=get_engine()) as session:
        return await session.scalar(select(func.count(Part.id)))
"""
TESTS = """
import pytest
from app import Part, count, get_engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

def test_the_command():
    assert count() == 0

def test_the_engine():
    get_engine()

async def test_no_statement(client):
    await client.get("/docs")

@pytest.mark.parametrize("turn", [1, 2])
async def test_a_request(client, turn):
    assert (await client.get("/parts")).json() == 0

@pytest.mark.parametrize("turn", [1, 2])
async def test_an_orphan(db_session, client, arena, turn):
    async with arena.fresh():
        assert type(db_session) is AsyncSession
        db_session.add(Part(of=99))
        assert (await client.get("/parts")).json() == 1

@pytest.mark.parametrize("turn", [1, 2])
def test_an_orphan_of_a_sync_session(db_session, test_client, turn):
    db_session.add(Part(of=99))
    assert test_client.get("/parts").json() == 1

@pytest.mark.parametrize("turn", [1, 2])
async def test_an_orphan_without_the_app(db_session, turn):
    db_session.add(Part(of=99))
    await db_session.commit()
"""
NAMES = ["no_statement", "the_command", "the_engine"]
for name in ("a_request", "an_orphan", "an_orphan_of_a_sync_session", "an_orphan_without_the_app"):
    NAMES += [f"{name}[1]", f"{name}[2]"]


@pytest.mark.parametrize(
    "engine, left_out, failed",
    # A test function that creates the engine, and a listener of an earlier start, stay.
    [(LAZY, "no test", 0), (STARTED, "the_engine", 4), (LISTENER, "without_the_app", 4)],
)
def test_the_order_of_tests_decides_nothing(
    example: Example, engine: str, left_out: str, failed: int
) -> None:
    """Where the engine exists in each order, its PRAGMA refuses a row without its parent."""
    project = example.with_files(app=APP + engine + ROUTE, test_it=TESTS)
    project = project.change("pytest.ini", "arena_seed = seed:seed", "arena_database = sqlite")
    names = [name for name in NAMES if left_out not in name]
    outcomes = {"failed": failed} if failed else {}
    orders = [names, names[::-1], random.sample(names, len(names)), names]
    for options, order in zip(["", "", "", "-pxdist.plugin -n2"], orders, strict=True):
        nodes = [f"test_it.py::test_{name}" for name in order]
        run = project.run("-pno:randomly", "-pno:cacheprovider", *options.split(), *nodes)
        run.expect(int(bool(failed)), passed=len(names) - failed, **outcomes)
    alone = project.run("-pno:randomly", "test_it.py::test_an_orphan[1]")
    alone.expect(int(bool(failed)), **({"failed": 1} if failed else {"passed": 1}))


def test_an_engine_that_a_start_returns_and_a_shutdown_disposes_of_unused(example: Example) -> None:
    """It names the database of the next test."""
    project = example.with_files(app=APP + STARTED + ROUTE, test_it=TESTS, seed="seed = print")
    project.run("-k", "no_statement or without_the_app").expect(passed=3)


LATE = """
from app import Dancer, engine
from sqlalchemy.ext.asyncio import create_async_engine

other = create_async_engine(engine.url)

async def test_without_a_session(client):
    assert (await client.post("/dancers/Dune")).status_code == 201
    async with other.connect():  # such as that of migrations
        pass

async def test_with_the_first_session(client, db_session):
    db_session.add(Dancer(name="Lyra"))
    await db_session.flush()
    assert (await client.post("/dancers/Dune")).status_code == 201
"""


def test_the_first_session_in_a_loop_that_has_outlived_a_test(example: Example) -> None:
    """Connections of the app live there. One of pytest-arena for sync code does not."""
    project = on_postgresql(example, test_it=LATE)
    scopes = [f"-oasyncio_default_{kind}_loop_scope=session" for kind in ("test", "fixture")]
    project.run(*scopes).expect(passed=2)
