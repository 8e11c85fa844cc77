"""Where rollback by one shared connection is known to fail: it works here, or the run names it.

The list is that of pytest-sqla's documentation, with the complaints about SQLAlchemy's recipe and
about other plugins that share a connection. Each limit is a module of tests. All modules run in
one run.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from tests.example import fastapi_example

if TYPE_CHECKING:
    from tests.example import Example, Run

HEAD = """
import asyncio
import os
import subprocess
import sys
import threading

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, StaticPool
from app import Dancer, app, engine, maker

SYNC_URL = engine.url.set(drivername="postgresql+psycopg")


async def names():
    async with maker() as session:
        return list(await session.scalars(select(Dancer.name).order_by(Dancer.id)))


async def test_before():
    assert await names() == ["Sand"]
"""
AFTER = """

async def test_starts_clean():
    assert await names() == ["Sand"]
"""
URL = "postgresql+asyncpg://me:s3cret@db.example.org/shop"


@dataclass(frozen=True)
class Limit:
    """A limit of other plugins, and a module that meets it.

    ``says`` are the words of the run that name it. Without them it is no limit here.
    """

    test: str
    says: str = ""


LIMITS = {
    "code_with_an_engine_of_its_own": Limit("""
@pytest.mark.parametrize("pool", [NullPool, StaticPool, None])
async def test_it(client, pool):
    own = create_async_engine(engine.url, poolclass=pool)
    async with async_sessionmaker(own)() as session:
        session.add(Dancer(name="own"))
        await session.commit()
    await own.dispose()
    assert (await client.get("/dancers")).json() == ["Sand", "own"]
"""),
    "a_second_connection_that_commits": Limit("""
async def test_it(client):
    async with engine.connect() as first, engine.begin() as second:
        await first.execute(text("SELECT 1"))
        await second.execute(text("INSERT INTO dancers (name) VALUES ('second')"))
    assert await names() == ["Sand", "second"]
"""),
    "sessions_at_once": Limit("""
async def test_it(client):
    async def add(number):
        async with maker() as session:
            session.add(Dancer(name=f"{number}"))
            await session.commit()
            return await session.scalar(select(Dancer.name).where(Dancer.name == f"{number}"))

    assert await asyncio.gather(*map(add, range(5))) == ["0", "1", "2", "3", "4"]
    answers = await asyncio.gather(*[client.post(f"/dancers/r{n}") for n in range(5)])
    assert {answer.status_code for answer in answers} == {201}
    assert len(await names()) == 11
"""),
    "another_thread_and_event_loop": Limit("""
async def test_it(client):
    def work():
        sync = create_engine(SYNC_URL)
        with Session(sync) as session:
            session.add(Dancer(name="thread"))
            session.commit()
        sync.dispose()
        asyncio.run(engine_of_another_loop())

    async def engine_of_another_loop():
        own = create_async_engine(engine.url)
        async with own.begin() as connection:
            await connection.execute(text("INSERT INTO dancers (name) VALUES ('loop')"))
        await own.dispose()

    await asyncio.to_thread(work)
    assert await names() == ["Sand", "thread", "loop"]


def test_a_sync_client(test_client):
    test_client.post("/dancers/sync")
    assert test_client.get("/dancers").json() == ["Sand", "sync"]
"""),
    "a_fixture_of_another_context": Limit("""
@pytest.fixture
async def session():
    async with maker() as session:
        session.add(Dancer(name="fixture"))
        await session.commit()
        yield session


async def test_it(session, client):
    assert (await client.get("/dancers")).json() == ["Sand", "fixture"]
    session.add(Dancer(name="test"))
    await session.commit()
    assert await names() == ["Sand", "fixture", "test"]
"""),
    "a_rollback_after_an_integrity_error": Limit("""
async def test_it(client):
    await client.post("/dancers/seeded")
    async with maker() as session:
        session.add(Dancer(name="Sand"))
        with pytest.raises(IntegrityError):
            await session.commit()
        await session.rollback()
        session.add(Dancer(name="again"))
        await session.commit()
    assert await names() == ["Sand", "seeded", "again"]
"""),
    "savepoints_of_the_app": Limit("""
async def test_it(client):
    async with maker() as session:
        session.add(Dancer(name="first"))
        await session.flush()
        async with session.begin_nested():
            session.add(Dancer(name="released"))
        nested = await session.begin_nested()
        session.add(Dancer(name="undone"))
        await session.flush()
        await nested.rollback()
        assert await session.scalar(text("SELECT count(*) FROM dancers")) == 3
        await session.rollback()
    assert await names() == ["Sand"]
"""),
    "a_commit_on_the_connection_itself": Limit("""
async def test_it(client):
    async with maker() as session:
        session.add(Dancer(name="connection"))
        await session.flush()
        await (await session.connection()).exec_driver_sql("COMMIT")
    assert await names() == ["Sand", "connection"]
"""),
    "ids": Limit("""
@pytest.mark.parametrize("turn", range(3))
async def test_it(client, turn):
    async with maker() as session:
        session.add(lost := Dancer(name="lost"))
        await session.flush()
        await session.rollback()
        session.add(dancer := Dancer(name="new"))
        await session.flush()
        assert dancer.id == 3
        await session.commit()
"""),
    "changes_of_the_schema": Limit("""
async def test_it(client):
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE dancers ADD COLUMN mood text"))
        await connection.execute(text("CREATE TABLE more (a integer)"))
    await client.post("/dancers/new")


@pytest.mark.parametrize("turn", range(2))
async def test_the_next(turn):
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE more (a integer)"))
"""),
    "a_schema_of_postgresql": Limit("""
@pytest.mark.parametrize("turn", range(2))
async def test_it(turn):
    async with engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA tenant"))
        await connection.execute(text("CREATE TABLE tenant.more (a integer)"))
        await connection.execute(text("TRUNCATE dancers"))
"""),
    "an_unread_result": Limit(
        """
async def test_it(client):
    async with engine.connect() as connection:
        stream = await connection.stream(text("SELECT name FROM dancers"))
        await client.post("/dancers/beside")
        assert await stream.fetchone() == ("Sand",)
""",
        "another open transaction has a lock or an open cursor",
    ),
    "an_isolation_level_for_a_unit_of_work": Limit(
        """
async def test_it(client):
    async with maker() as session:
        await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        session.add(Dancer(name="strict"))
        await session.commit()
    assert await names() == ["Sand", "strict"]
""",
        "rollback: ISOLATION LEVEL SERIALIZABLE acts as READ COMMITTED",
    ),
    "listeners": Limit(
        """
async def test_it():
    async with engine.begin() as connection:
        await connection.execute(text("NOTIFY news"))
""",
        "rollback: NOTIFY reaches no listener",
    ),
    "another_process": Limit("""
CODE = '''
import sys
from sqlalchemy import create_engine, text
with create_engine(sys.argv[1]).connect() as connection:
    print(connection.scalar(text("SELECT count(*) FROM dancers")))
'''


async def test_it(client, arena):
    await client.post("/dancers/new")
    url = arena.url.replace("+asyncpg", "+psycopg")
    command = [sys.executable, "-c", CODE, url]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert done.stdout.strip() == "2", done.stderr
"""),
    "a_task_that_outlives_its_test": Limit("""
tasks = []


async def test_it():
    async def hold():
        async with maker() as session:
            session.add(Dancer(name="late"))
            await session.flush()
            written.set()
            await asyncio.Event().wait()

    written = asyncio.Event()
    tasks.append(asyncio.create_task(hold()))
    await written.wait()
"""),
    "a_lock_and_a_seed_of_the_session": Limit("""
LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
seeded = []


async def values_of(*queries):
    async with engine.connect() as connection:
        return [await connection.scalar(text(query)) for query in queries]


@pytest.mark.parametrize("turn", range(2))
async def test_it(turn):
    await values_of("SELECT pg_advisory_lock(7)", "SELECT setseed(0.5)")
    assert await values_of(LOCKS) == [1]
    if turn == 0:
        seeded.extend(await values_of("SELECT random()", "SELECT random()"))
        await values_of("SELECT setseed(0.5)", "SELECT random()")


async def test_the_next():
    number, locks = await values_of("SELECT random()", LOCKS)
    assert locks == 0
    assert number not in seeded
"""),
    "a_connection_with_changed_settings": Limit("""
async def test_it():
    async with engine.connect() as connection:
        await connection.execute(text("SET search_path = pg_catalog"))
        await connection.commit()


async def test_the_next(client):
    async with engine.connect() as connection:
        assert await connection.scalar(text("SHOW search_path")) != "pg_catalog"
    assert (await client.get("/dancers")).json() == ["Sand"]
"""),
}


@pytest.fixture(name="runs", scope="module")
def _runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """The run, after the first test has made it."""
    return []


def project(example: Example) -> Example:
    """Return the project with all modules."""
    files = {f"test_{name}": HEAD + limit.test + AFTER for name, limit in LIMITS.items()}
    env = {
        **example.env,
        "PYTEST_ADDOPTS": "--arena-isolation=rollback",
        "ARENA_DATABASE": os.environ["TESTS_POSTGRESQL"],
        "DATABASE_URL": URL,
    }
    return replace(example, env=env).with_files(**files)


@pytest.mark.slow
@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_of_other_plugins(name: str, example: Example, runs: list[Run]) -> None:
    """Its tests pass, those before and after it start clean, or the run says what is the matter."""
    if not runs:
        runs.append(project(example).run("-v"))
    [run] = runs
    results = re.findall(rf"test_{name}\.py::\S+ (PASSED|FAILED|ERROR)", run.output)
    limit = LIMITS[name]
    assert len(results) >= 3, run.output
    if limit.says:
        run.says(limit.says)
    else:
        assert set(results) == {"PASSED"}, run.output


SAME_NAME = """
import pytest


@pytest.mark.parametrize("turn", range(4))
async def test_it(client, turn):
    assert (await client.post("/dancers/unique")).status_code == 201
    assert (await client.get("/dancers")).json() == ["Sand", "unique"]
"""


@pytest.mark.slow
def test_two_workers_insert_the_same_unique_value(example: Example) -> None:
    """Each worker has a database, so that none waits for the other."""
    base = fastapi_example(example.folder.parent)
    run = project(base).with_files(test_it=SAME_NAME)
    run.run("test_it.py", "-n2", "-p", "xdist").expect(passed=4)
