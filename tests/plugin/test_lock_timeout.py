"""Who waits for a lock of the same test's own transaction ends, and is told whose it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import env_of, shop

if TYPE_CHECKING:
    from tests.example import Example

WAITING = """
import pytest
import sqlalchemy
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from app import Stock, app, maker

sync_engine = sqlalchemy.create_engine("SYNC_URL")


@app.post("/sync/{item}")
def sync_order(item: str):
    with Session(sync_engine) as session:
        session.execute(text("UPDATE stock SET amount = 0 WHERE item = :item"), {"item": item})
        session.commit()


async def test_of_db_session(client, db_session):
    (await db_session.get(Stock, "chair")).amount = 9
    await db_session.flush()
    async with maker() as session:
        await session.execute(text("UPDATE stock SET amount = 8 WHERE item = 'chair'"))


async def test_of_the_tests_own_session(client):
    async with maker() as session:
        await session.execute(text("UPDATE stock SET amount = 9 WHERE item = 'chair'"))
        await client.post("/orders/chair")


async def test_of_a_sync_app(client):
    async with maker() as session:
        await session.execute(text("UPDATE stock SET amount = 9 WHERE item = 'chair'"))
        await client.post("/sync/chair")


async def test_whose_app_answers_500(arena):
    client = arena.client(raise_app_exceptions=False)
    async with maker() as session:
        await session.execute(text("UPDATE stock SET amount = 9 WHERE item = 'chair'"))
        assert (await client.post("/orders/chair")).status_code == 201


async def test_that_goes_on(client):
    assert (await client.post("/orders/chair")).status_code == 201


async def test_that_is_bounded_by_the_app():
    async with maker() as session:
        await session.execute(text("SET lock_timeout = '7s'"))
        assert await session.scalar(text("SHOW lock_timeout")) == "7s"
    sync = sqlalchemy.create_engine("SYNC_URL", connect_args={"options": "-c lock_timeout=3s"})
    with sync.connect() as connection:
        assert connection.scalar(text("SHOW lock_timeout")) == "3s"
    sync.dispose()


async def test_of_a_lock_without_a_write(client):
    async with maker() as session:
        await session.execute(text("SELECT * FROM stock FOR UPDATE"))
        await client.post("/orders/chair")


async def test_at_the_end_of_a_block():
    async with maker() as session:
        await session.execute(text("UPDATE stock SET amount = 9 WHERE item = 'chair'"))
        async with maker.begin() as other:
            (await other.get(Stock, "chair")).amount = 7
"""

# A schema is built with as much patience as the server has.
SCHEMA = """
from sqlalchemy import text
from app import Base


def make(connection):
    Base.metadata.create_all(connection)
    if connection.dialect.name == "postgresql":
        assert connection.scalar(text("SHOW lock_timeout")) == "0"
"""

HELD = "another connection holds 1 uncommitted row (stock), written at "
UPDATE = """await session.execute(text("UPDATE stock SET amount = 9 WHERE item = 'chair'"))"""
ROWS = f"test_it.py:{{}}  {UPDATE}"
NEXT = "next: commit it first: await session.commit()"


@pytest.mark.slow
@pytest.mark.parametrize(
    "how, driver, sync",
    [
        ("undo", "asyncpg", "psycopg2"),
        ("undo", "psycopg", "psycopg"),
    ],
)
def test_a_statement_waits_only_so_long(example: Example, how: str, driver: str, sync: str) -> None:
    """With both lines, of whoever waits and of whoever holds; by each driver."""
    env = env_of(how)
    env["DATABASE_URL"] = env["DATABASE_URL"].replace("asyncpg", driver)
    url = env["DATABASE_URL"].replace(f"+{driver}", f"+{sync}")
    project = shop(example, test_it=WAITING.replace("SYNC_URL", url), schema=SCHEMA)
    options = ("-oarena_lock_timeout=0.3", "-oarena_schema=schema:make")
    run = project.run("--tb=short", *options, env=env).expect(1, failed=6, passed=2)
    told(run.output)
    run.says("another connection has an open transaction, and was checked out at ")
    run.says('test_it.py:61  await session.execute(text("SELECT * FROM stock FOR UPDATE"))')


@pytest.mark.slow
def test_a_file_is_waited_for_as_long(example: Example) -> None:
    """SQLite locks the whole file; the same lines come out."""
    project = shop(example, test_it=WAITING.replace("SYNC_URL", "sqlite:///shop.db"))
    run = project.run("--tb=short", "-oarena_lock_timeout=0.3", "-k", "not bounded and not without")
    told(run.expect(1, failed=5, passed=1).output)


def told(output: str) -> None:
    """Each test that failed names the line that waits and the one that holds."""
    assert output.count(HELD) >= 4, output
    assert "waited too long for a lock" in output
    for waiter in ("test_it.py:23  ", "app.py:", "test_it.py:15  "):
        assert f"at {waiter}" in output or f"/{waiter}" in output, output
    for holder in (28, 34, 41):
        assert ROWS.format(holder) in output, output
    # SQLAlchemy does in a task of its own what comes at the end of such a block.
    assert "test_it.py:68  async with maker.begin() as other:" in output, output
    assert NEXT in output


UNBOUND = """
import pytest
from sqlalchemy import text
from app import engine


async def test_it(client):
    async with engine.connect() as connection:
        found = await connection.scalar(text("SHOW lock_timeout"))
    assert found == "SECONDS"
"""


@pytest.mark.parametrize("given, seconds", [("5", "5s"), ("0", "0")])
@pytest.mark.slow
def test_the_bound_is_five_seconds_or_none_of_ours(
    example: Example, given: str, seconds: str
) -> None:
    """A role's own setting would hold then."""
    project = shop(example, test_it=UNBOUND.replace("SECONDS", seconds))
    option = () if given == "5" else ("-oarena_lock_timeout=0",)
    project.run(*option, env=env_of("undo")).expect(passed=1)


@pytest.mark.parametrize("text", ["soon", "-1"])
def test_a_bound_that_is_no_number_of_seconds(example: Example, text: str) -> None:
    """Refused before any test."""
    run = example.run(f"-oarena_lock_timeout={text}")
    run.says("arena_lock_timeout = ", "not a number of seconds", "[A101]")
    assert run.status == 4


SYNC = """
import pytest
from fastapi import FastAPI
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)


engine = create_engine("sqlite:///shop.db", connect_args={"timeout": 0})
app = FastAPI()
"""
SYNC_TEST = """
from app import Item, Session, engine


def test_it(arena):
    with Session(engine) as holder, Session(engine) as waiter:
        holder.add(Item())
        holder.flush()
        waiter.add(Item())
        waiter.flush()
"""


@pytest.mark.slow
def test_sync_code_is_told_to_commit_without_await(example: Example) -> None:
    """The timeout may be the engine's."""
    project = example.with_files(app=SYNC, test_it=SYNC_TEST)
    project = project.change("pytest.ini", "arena_seed = seed:seed\n", "")
    run = project.run("--tb=short").expect(1, failed=1)
    run.says(
        "next: commit it first: session.commit()   (or a longer", "if the engine sets no timeout"
    )


READER = """
import asyncio
import sqlite3

from app import engine, maker
from sqlalchemy import make_url, text


async def test_it(arena):
    async with maker() as session, engine.connect() as reader:
        await session.execute(text("UPDATE stock SET amount = 9"))
        rows = await reader.stream(text("SELECT item FROM stock, (SELECT 1 UNION SELECT 2)"))
        commit = asyncio.create_task(session.commit())
        while not is_locked(make_url(arena.url).database):
            await asyncio.sleep(0)
        async with engine.connect():
            pass
        assert len(await rows.all()) > 1
        await commit


def is_locked(file):
    other = sqlite3.connect(file, timeout=0)
    try:
        other.execute("SELECT * FROM stock").fetchall()
        return False
    except sqlite3.OperationalError:
        return True
    finally:
        other.close()
"""


def test_a_checkout_does_not_wait_for_the_lock_of_a_file(example: Example) -> None:
    """A commit waits for a reader, which goes on in the event loop of the checkout."""
    shop(example, test_it=READER).run("-oarena_lock_timeout=2").expect(passed=1)


DEFERRED = """
import pytest
from app import Base, engine
from sqlalchemy import ForeignKey, create_engine, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

sync = create_engine(engine.url.set(drivername="sqlite"))


@event.listens_for(sync, "connect")
def check_foreign_keys(connection, record):
    connection.execute("PRAGMA foreign_keys = ON")


class Part(Base):
    __tablename__ = "parts"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str] = mapped_column(
        ForeignKey("stock.item", deferrable=True, initially="DEFERRED")
    )


@pytest.mark.parametrize("turn", range(2))
def test_a_commit_that_fails(turn):
    with pytest.raises(IntegrityError), Session(sync) as session:
        session.add(Part(item="none"))
        session.commit()


def test_its_lock():
    test_a_commit_that_fails(0)
    other = create_engine(sync.url, connect_args={"timeout": 0.1})
    with other.begin() as connection:
        connection.execute(text("DELETE FROM stock"))


def test_after_it():
    with sync.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM parts")) == 0
"""


def test_a_commit_that_fails_on_a_file(example: Example) -> None:
    """SQLAlchemy gives the connection back inside its transaction. Its lock ends with the test."""
    project = shop(example, test_it=DEFERRED)
    run = project.run("-oarena_schema=test_it:Base").expect(1, passed=3, failed=1)
    run.says("a connection in its pool has an open transaction, as after a COMMIT that failed")
    run.never_says("a new file has replaced it")


SEARCH_SEED = """
from sqlalchemy import text


def seed(session):
    session.execute(text("CREATE VIRTUAL TABLE notes USING MODULE"))
"""
SEARCHED = """
import asyncio
import pytest
from sqlalchemy import event, text
from app import app, engine

INSERT = text("INSERT INTO notes (body) VALUES ('a')")


@event.listens_for(engine.sync_engine, "connect")
def read_bytes(connection, record):
    connection.driver_connection._conn.text_factory = bytes


@app.post("/notes")
async def note():
    async with engine.begin() as connection:
        await connection.execute(INSERT)


@pytest.mark.parametrize("turn", range(3))
async def test_at_once(client, turn):
    answers = await asyncio.gather(*[client.post("/notes") for _ in range(20)])
    assert {answer.status_code for answer in answers} == {200}
"""


@pytest.mark.parametrize(
    "module",
    ["fts5(body)", pytest.param("rtree(id, body, upper)", marks=pytest.mark.slow)],
)
def test_requests_write_to_a_virtual_table_at_once(example: Example, module: str) -> None:
    """After a restore a connection would read from the table inside of its next transaction."""
    seed = SEARCH_SEED.replace("MODULE", module)
    example.with_files(test_it=SEARCHED, seed=seed).run().expect(passed=3)
