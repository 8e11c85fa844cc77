"""Connections of drivers, opened without an engine by fixtures that outlive their tests."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from tests.example import Example

if TYPE_CHECKING:
    from pathlib import Path

APP = """
import psycopg
from contextlib import asynccontextmanager
from fastapi import FastAPI
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine

engine = create_engine("postgresql+psycopg://me:s3cret@db.example.org/shop")
URL = "postgresql://me:s3cret@db.example.org/shop"

@asynccontextmanager
async def lifespan(app):
    with ConnectionPool(URL, min_size=1, open=False) as app.state.pool:
        yield

app = FastAPI(lifespan=lifespan)

@app.post("/dancers/{name}")
def add(name: str):
    app.state.kept = app.state.pool.getconn()
    app.state.kept.execute("INSERT INTO dancers (name) VALUES (%s)", [name])  # no commit
"""
INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = session
asyncio_default_test_loop_scope = session
pythonpath = .
arena_app = app:app
arena_drivers = redirect
arena_schema = schema.sql
"""
SCHEMA = "CREATE TABLE dancers (name text PRIMARY KEY);\n"
HEADER = """
import asyncio
import asyncpg, psycopg, psycopg2, psycopg2.pool, psycopg_pool
import pytest
from sqlalchemy import text
from app import URL
"""
HOWS = ("undo", pytest.param("clone", marks=pytest.mark.slow))


@pytest.fixture
def raw(tmp_path: Path) -> Example:
    """An app with an engine, and tests that connect by drivers too."""
    files = {"app.py": APP, "schema.sql": SCHEMA, "pytest.ini": INI}
    return Example(tmp_path, files, {"ARENA_DATABASE": os.environ["TESTS_POSTGRESQL"]})


# Several classes, because the old database may be dropped at any time.
REPLACED = f"""{HEADER}
@pytest.fixture(scope="class")
def wide(arena):
    with psycopg.connect(URL, autocommit=True) as connection:
        yield connection

class Pair:
    def test_one(self, wide):
        wide.execute("INSERT INTO dancers VALUES ('Ada')")
        wide.execute("ALTER TABLE dancers ADD COLUMN note text")
    def test_next(self, wide):
        assert wide.execute("SELECT name, note FROM dancers").fetchall() == [("Ada", None)]

class TestFirst(Pair): ...
class TestSecond(Pair): ...
class TestThird(Pair): ...

@pytest.fixture(scope="module")
async def pool(arena):
    async with asyncpg.create_pool(URL, min_size=1, max_size=2) as pool:
        yield pool

@pytest.mark.parametrize("turn", range(3))
async def test_pool_of_asyncpg(pool, turn):
    assert await pool.fetchval("SELECT count(*) FROM dancers") == 0
    await pool.execute("INSERT INTO dancers VALUES ('Ada')")
    await pool.execute("ALTER TABLE dancers ADD COLUMN note text")
"""


def test_no_test_works_on_the_database_of_an_earlier_one(raw: Example) -> None:
    """A replaced database ends the wider connections to it; a pool of asyncpg connects again."""
    run = raw.with_files(test_it=REPLACED).run("-p", "no:randomly")
    run.expect(passed=6, failed=3, status=1)
    assert run.output.count("its database was replaced; opened: test_it.py:10") >= 3
    assert 'next: open it in a fixture of scope="function"' in run.output
    assert "lifespan, and close it there" not in run.output


SESSION = f"""{HEADER}
TEMPORARY = "CREATE TEMP TABLE mine (x int)"
CHANGES = ["SET app.tenant = 'acme'", "SELECT pg_advisory_lock(7)", TEMPORARY]
STATE = '''SELECT concat(
    (SELECT name FROM pg_prepared_statements WHERE from_sql), current_setting('app.tenant', true),
    current_setting('app.kept', true), to_regclass('mine'),
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())))'''

@pytest.fixture(scope="session", params=["psycopg", "psycopg2"])
def wide(arena, request):
    connection = {{"psycopg": psycopg, "psycopg2": psycopg2}}[request.param].connect(URL)
    connection.autocommit = True
    yield connection
    connection.close()

def ask(connection, statement):
    cursor = connection.cursor()
    cursor.execute(statement)
    return cursor.fetchone()[0] if cursor.description else None

@pytest.mark.parametrize("change", [*CHANGES, "PREPARE kept AS SELECT 1", "LISTEN news"])
def test_changes(wide, change):
    assert ask(wide, STATE) == "0"
    ask(wide, change)

def test_sees_no_change(wide):
    assert ask(wide, STATE) == "0"

@pytest.fixture(scope="class")
def set_up(arena):
    with psycopg.connect(URL, autocommit=True) as connection:
        connection.execute("SET app.kept = 'kept'")
        yield connection

class TestSetUp:
    def test_reads(self, set_up):
        assert ask(set_up, STATE) == "kept0"
    def test_reads_again_and_changes(self, set_up):
        assert ask(set_up, STATE) == "kept0"
        ask(set_up, "SET app.tenant = 'acme'")
    def test_is_ended(self, set_up):
        ask(set_up, STATE)

@pytest.fixture(scope="class")
async def of_asyncpg(arena):
    connection = await asyncpg.connect(URL)
    yield connection
    await connection.close()

class TestAsyncpg:
    async def test_changes(self, of_asyncpg):
        await of_asyncpg.execute("SET app.tenant = 'acme'")
    async def test_is_ended(self, of_asyncpg):
        await of_asyncpg.fetchval("SELECT 1")

@pytest.fixture(scope="class")
async def pool(arena):
    async with asyncpg.create_pool(URL, min_size=1, max_size=1) as pool:
        yield pool

class TestPool:
    @pytest.mark.parametrize("change", [*CHANGES, "SELECT 1"])
    async def test_changes(self, pool, change):
        assert await pool.fetchval(STATE) == "0"
        await pool.execute(change)
"""


@pytest.mark.slow
def test_no_test_sees_the_session_of_an_earlier_one(raw: Example) -> None:
    """Reset if the driver can be used here and no fixture has changed it, else ended."""
    run = raw.with_files(test_it=SESSION).run("-p", "no:randomly")
    run.expect(passed=19, failed=2, status=1)
    assert "its session was changed (test_it.py:25  cursor.execute(statement))" in run.output
    assert "its session was changed (test_it.py:59  await of_asyncpg.execute(" in run.output
    assert "database was replaced" not in run.output


LOST = f"""{HEADER}
kept = []

@pytest.fixture
def by_psycopg(arena):
    kept.append(psycopg.connect(URL))
    kept[-1].execute("INSERT INTO dancers VALUES ('Ada')")  # psycopg

def test_fixture(by_psycopg, db_session):
    assert db_session.execute(text("SELECT count(*) FROM dancers")).scalar() == 0

def test_psycopg2():
    kept.append(psycopg2.connect(URL))
    kept[-1].cursor().execute("INSERT INTO dancers VALUES ('Ada')")  # psycopg2

async def test_asyncpg():
    kept.append(await asyncpg.connect(URL))
    await kept[-1].transaction().start()
    await kept[-1].execute("INSERT INTO dancers VALUES ('Ada')")  # asyncpg

def test_request(test_client):
    test_client.post("/dancers/Ada")

def test_committed_or_rolled_back(arena):
    for end in "commit", "rollback":
        connection = psycopg.connect(URL)
        connection.execute("INSERT INTO dancers VALUES (%s)", [end])
        getattr(connection, end)()
        connection.execute("SELECT 1")
        kept.append(connection)
"""


@pytest.mark.parametrize("how", HOWS)
def test_a_forgotten_commit_fails_its_test(raw: Example, how: str) -> None:
    """With the line that has written; an ended transaction, or one that has read, is no leak."""
    run = raw.with_files(test_it=LOST).run("-p", "no:randomly", f"--arena-isolation={how}")
    run.expect(passed=5, errors=4, status=1)
    assert run.output.count("[A602]") == 4
    for line in ("# psycopg", "# psycopg2", "# asyncpg", "# no commit"):
        assert re.search(f"cause: .*{line}\n", run.output), line
    assert "locked by" not in run.output


LOST_ON_WIDE = f"""{HEADER}
@pytest.fixture(scope="module")
def wide(arena):
    yield psycopg.connect(URL)

def test_wide(wide):
    wide.execute("INSERT INTO dancers VALUES ('Ada')")  # wide

def test_next(db_session):
    assert db_session.execute(text("SELECT count(*) FROM dancers")).scalar() == 0
"""


@pytest.mark.slow
def test_a_forgotten_commit_on_a_fixtures_connection_fails_the_test(raw: Example) -> None:
    """The test that has written; and nothing has to be replaced."""
    run = raw.with_files(test_it=LOST_ON_WIDE).run("-p", "no:randomly")
    run.expect(passed=2, errors=1, status=1)
    assert re.search("cause: .*# wide\n", run.output)
    assert "replaced" not in run.output


OF_FIXTURE = f"""{HEADER}
@pytest.fixture(scope="module")
def wide(arena):
    connection = psycopg.connect(URL)
    connection.execute("INSERT INTO dancers VALUES ('Ada')")
    yield

def test_it(wide, db_session):
    db_session.execute(text("INSERT INTO dancers VALUES ('Ben')"))
    db_session.commit()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
def test_a_fixture_that_holds_a_transaction_open_is_named(raw: Example, how: str) -> None:
    """Its lock is in the way of the test's rows, so that the database is replaced."""
    run = raw.with_files(test_it=OF_FIXTURE).run(f"--arena-isolation={how}")
    run.expect(passed=1)
    line = 'test_it.py:11  connection.execute("INSERT'
    assert f"locked by a connection that no engine has opened ({line}" in run.output


@pytest.mark.slow
def test_a_level_that_a_fixtures_transaction_holds_up_names_it(raw: Example) -> None:
    """``clone`` copies the rows that the fixture has committed before, and cannot."""
    project = raw.with_files(test_it=OF_FIXTURE)
    old = "    connection.execute("
    committed = f"{old}\"INSERT INTO dancers VALUES ('Cleo')\")\n    connection.commit()\n"
    run = project.change("test_it.py", old, committed + old).run("--arena-isolation=clone")
    run.expect(errors=1, status=1)
    assert 'cause: test_it.py:13  connection.execute("INSERT' in run.output


GROWING = f"""{HEADER}
pytestmark = pytest.mark.parametrize("turn", range(3))

@pytest.fixture(scope="session")
async def of_asyncpg(arena):
    async with asyncpg.create_pool(URL, min_size=1, max_size=4) as pool:
        yield pool

async def test_asyncpg(of_asyncpg, turn):
    insert = "INSERT INTO dancers VALUES ($1)"
    await asyncio.gather(*(of_asyncpg.execute(insert, name) for name in "abcd"))
    assert await of_asyncpg.fetchval("SELECT count(*) FROM dancers") == 4

@pytest.fixture(scope="session")
def of_psycopg2(arena):
    pool = psycopg2.pool.ThreadedConnectionPool(1, 3, URL)
    yield pool
    pool.closeall()

def test_psycopg2(of_psycopg2, turn):
    both = [of_psycopg2.getconn() for _ in "ab"]
    for connection in both:
        connection.cursor().execute("SELECT count(*) FROM dancers")
        of_psycopg2.putconn(connection)

@pytest.fixture(scope="session")
def of_psycopg(arena):
    with psycopg_pool.ConnectionPool(URL, min_size=1, max_size=3) as pool:
        yield pool

def test_psycopg(of_psycopg, turn):
    both = [of_psycopg.getconn() for _ in "ab"]
    for connection in both:
        connection.execute("SELECT count(*) FROM dancers")
        of_psycopg.putconn(connection)
"""


@pytest.mark.slow
def test_a_pool_of_a_wider_fixture_keeps_what_it_opens_in_a_test(raw: Example) -> None:
    """Its connections live as long as the pool."""
    raw.with_files(test_it=GROWING).run("-p", "no:randomly").expect(passed=9)


POOLS_OF_PSYCOPG = f"""{HEADER}
@pytest.fixture(scope="module")
def pool(arena):
    with psycopg_pool.ConnectionPool(URL, min_size=2, max_size=2) as pool:
        yield pool

@pytest.mark.parametrize("turn", range(3))
def test_pool(pool, turn):
    for name in "abc":
        with pool.connection() as connection:
            connection.execute("INSERT INTO dancers VALUES (%s)", [name])
    with pool.connection() as connection:
        connection.execute("ALTER TABLE dancers ADD COLUMN note text")
"""


@pytest.mark.slow
def test_a_pool_of_psycopg_hands_out_no_ended_connection(raw: Example) -> None:
    """Each test replaces the database, which ends the pool's connections."""
    raw.with_files(test_it=POOLS_OF_PSYCOPG).run("-p", "no:randomly").expect(passed=3)


# The package of the pool is imported first: it imports the driver, which the gate watches.
ASYNC_POOL = f"""
from psycopg_pool import AsyncConnectionPool
{HEADER}
@pytest.fixture(scope="module")
async def pool(arena):
    async with AsyncConnectionPool(URL, min_size=1, max_size=2, open=False) as pool:
        yield pool

@pytest.mark.parametrize("turn", range(3))
async def test_pool(pool, turn):
    async with pool.connection() as connection:
        await connection.execute("INSERT INTO dancers VALUES ('Sand')")
    async with pool.connection() as connection:
        rows = await connection.execute("SELECT count(*) FROM dancers")
        assert await rows.fetchone() == (1,)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
def test_an_async_pool_of_psycopg_keeps_the_tasks_of_its_fixture(raw: Example, how: str) -> None:
    """Its scheduler waits in no line of the suite, and begins tasks while a test runs."""
    run = raw.with_files(test_it=ASYNC_POOL).run("-q", f"--arena-isolation={how}")
    run.expect(passed=3).never_says("task running", "does not check the statements", "not watched")
