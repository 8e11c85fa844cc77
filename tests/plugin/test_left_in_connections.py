"""Settings and snapshots that a test leaves in a connection of a wider fixture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.private_server import private_server
from tests.plugin.test_postgresql_story import on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

ON_A_SERVER = """
import pytest
import pytest_asyncio
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

URL = "postgresql+DRIVER://me@db.example.org/shop"
engine = create_engine(URL.replace("DRIVER", "psycopg"))
fixed = engine.execution_options(isolation_level="REPEATABLE READ")
async_engine = create_async_engine(
    URL.replace("DRIVER", "asyncpg"), isolation_level="SERIALIZABLE"
)
NAMES = text("SELECT name FROM dancers ORDER BY name")
INSERT = text("INSERT INTO dancers (name) VALUES ('Storm')")


def add():
    with engine.begin() as connection:
        connection.execute(INSERT)


@pytest.fixture(scope="module")
def session(arena):
    with Session(fixed) as session:
        yield session


@pytest.mark.parametrize("turn", range(2))
def test_a_session(session, turn):
    add()
    assert session.scalars(NAMES).all() == ["Sand", "Storm"]


def test_after_the_sessions(session):
    assert session.scalars(NAMES).all() == ["Sand"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def async_session(arena):
    async with AsyncSession(async_engine) as session:
        yield session


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("turn", range(2))
async def test_an_async_session(async_session, turn):
    add()
    assert (await async_session.scalars(NAMES)).all() == ["Sand", "Storm"]


@pytest.fixture(scope="module")
def connection(arena):
    with engine.connect() as connection:
        connection.execute(text("SET app.kept = 'kept'"))
        connection.commit()
        yield connection


STATE = text('''SELECT concat(
    to_regclass('pg_temp.mine'), current_setting('statement_timeout'),
    (SELECT count(*) FROM pg_listening_channels()),
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()))''')
CHANGES = [
    "CREATE TEMP TABLE mine (x int)",
    "SET statement_timeout = 5000",
    "LISTEN news",
    "SELECT pg_advisory_lock(7)",
]


def test_a_setting_of_the_fixture(connection):
    assert connection.scalar(text("SELECT current_setting('app.kept')")) == "kept"
    connection.rollback()


@pytest.mark.parametrize("change", CHANGES)
def test_a_setting_of_a_test(connection, change):
    assert connection.scalar(STATE) == "000"
    connection.execute(text(change))
    connection.commit()


def test_after_the_settings(connection):
    assert connection.scalar(STATE) == "000"
    connection.rollback()


@pytest.fixture(scope="module")
def suites_transaction(arena):
    with engine.connect() as connection, connection.begin() as transaction:
        connection.execute(INSERT)
        yield connection
        transaction.rollback()


@pytest.mark.parametrize("turn", range(2))
def test_savepoints_in_a_fixtures_transaction(suites_transaction, turn):
    with suites_transaction.begin_nested() as savepoint:
        suites_transaction.execute(text("SET LOCAL statement_timeout = 5000"))
        suites_transaction.execute(text("DELETE FROM dancers WHERE name = 'Storm'"))
        savepoint.rollback()
    assert suites_transaction.scalars(NAMES).all() == ["Sand", "Storm"]
"""


ROW_OF_A_SESSION = """
import pytest
import pytest_asyncio
from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from app import Dancer

engine = create_async_engine("postgresql+asyncpg://me@db.example.org/shop")
NAMES = select(Dancer.name).order_by(Dancer.name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def row_of_a_session(arena):
    async with async_sessionmaker(engine, expire_on_commit=False)() as session:
        row = Dancer(name="Wide")
        session.add(row)
        await session.commit()
        yield session, row


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("turn", range(2))
async def test_a_row_stays_loaded(row_of_a_session, turn):
    session, row = row_of_a_session
    assert row.name == "Wide"
    session.add(Dancer(name="Narrow"))
    await session.commit()
    assert (await session.scalars(NAMES)).all() == ["Narrow", "Sand", "Wide"]
"""


@pytest.mark.slow
def test_a_connection_of_a_wide_fixture_opens_again(example: Example) -> None:
    """A session reads the rows of its test, and a later test finds no setting of an earlier one."""
    project = on_postgresql(example, test_it=ON_A_SERVER, test_row=ROW_OF_A_SESSION)
    project.run("-p", "no:randomly", "-W", "ignore").expect(passed=15)


NAMED = """
import pytest
from sqlalchemy import text
from warm_engine import engine


@pytest.fixture(scope="module")
def connection(arena):
    with engine.connect() as connection:
        yield connection


def test_leaves(connection):
    CHANGE


def test_next(connection):
    connection.rollback()
"""
IN_A_TRANSACTION = "connection.execute(text('SET statement_timeout = 5000'))"


@pytest.mark.parametrize(
    "change",
    [
        "connection.execute(text('PRAGMA recursive_triggers = ON'))",
        pytest.param(IN_A_TRANSACTION, marks=pytest.mark.slow),
    ],
    ids=["of a file", "in a transaction"],
)
def test_a_connection_that_cannot_open_again_is_named(example: Example, change: str) -> None:
    """The next use of a Core connection whose transaction was ended would be an error."""
    url = "sqlite:///dev.db"
    if change == IN_A_TRANSACTION:
        url = "postgresql+psycopg://me@db.example.org/shop"
        example = on_postgresql(example)
    project = example.with_files(
        warm_engine=f"from sqlalchemy import create_engine\n\nengine = create_engine({url!r})\n",
        test_it=NAMED.replace("CHANGE", change),
    )
    run = project.run("-p", "no:randomly", "-W", "ignore").expect(passed=2)
    run.says("test_it.py::test_leaves left a setting, a temporary table or an open snapshot in a")


TOLD = """
import pytest
from sqlalchemy import create_engine, text

engine = create_engine("postgresql+psycopg://me@db.example.org/shop")
INSERT = text("INSERT INTO dancers (name) VALUES ('Storm')")


@pytest.fixture(scope="module")
def raw(arena):
    raw = engine.raw_connection()
    yield raw
    raw.close()


@pytest.mark.parametrize("turn", range(2))
def test_uses_it(raw, turn):
    raw.cursor().execute(INSERT.text)
    raw.commit()


@pytest.fixture(scope="module")
def connection(arena):
    with engine.connect() as connection, connection.begin() as transaction:
        yield connection
        transaction.rollback()


def test_writes_in_it(connection):
    connection.execute(INSERT)
"""


@pytest.mark.slow
def test_the_summary_names_what_cannot_work(example: Example) -> None:
    """Each test has a separate database under `clone`.

    The server is this test's. If others write on it, `clone` may replace the module's database.
    """
    project = on_postgresql(example, test_it=TOLD)
    with private_server() as server:
        env = {**server.env, "PYTEST_ADDOPTS": "--arena-isolation=clone"}
        run = project.run("-p", "no:randomly", "-W", "ignore", env=env)
    run.expect(1, passed=2, failed=1, errors=1)
    run.says("a fixture keeps a raw connection during its tests (test_it.py:11", "AssertionError")
    run.says("For a wider fixture: begin the transaction in a function fixture")


READS = """
import pytest
from sqlalchemy import create_engine, text

engine = create_engine("postgresql+psycopg://me@db.example.org/shop")
NAMES = text("SELECT name FROM dancers ORDER BY name")


@pytest.fixture(scope="module")
def connection(arena):
    with engine.connect() as connection:
        yield connection


@pytest.mark.parametrize("turn", range(2))
def test_reads(connection, turn):
    with engine.begin() as other:
        other.execute(text("INSERT INTO dancers (name) VALUES ('Storm')"))
    assert connection.scalars(NAMES).all() == ["Sand", "Storm"]
"""


@pytest.mark.slow
def test_a_connection_on_which_a_test_only_read_opens_again(example: Example) -> None:
    """The fixture has begun no transaction that its tests could lose."""
    project = on_postgresql(example, test_it=READS)
    run = project.run(
        "-p", "no:randomly", env={"PYTEST_ADDOPTS": "--arena-isolation=clone"}
    ).expect(passed=2)
    run.never_says("a fixture keeps a transaction open")


SAVEPOINT = """
import pytest
from sqlalchemy import select
from app import Dancer


@pytest.fixture(scope="module")
def session(arena):
    with arena.session() as session:
        session.add(Dancer(name="Wide"))
        session.commit()
        yield session


def names(session):
    return session.scalars(select(Dancer.name).order_by(Dancer.id)).all()


def test_reads(session):
    assert names(session) == ["Sand", "Wide"]


def test_leaves_a_savepoint(session):
    session.begin_nested()
    session.add(Dancer(name="Lost"))
    session.flush()


def test_next(session):
    assert names(session) == ["Sand", "Wide"]


def test_writes(session):
    session.add(Dancer(name="New"))
    session.commit()
    assert names(session) == ["Sand", "Wide", "New"]
"""


@pytest.mark.parametrize("server", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_a_session_can_be_used_after_a_test_that_left_a_savepoint(
    example: Example, server: str
) -> None:
    """Also if the session has checked out its connection in an earlier test."""
    project = example if server == "sqlite" else on_postgresql(example)
    run = project.with_files(test_it=SAVEPOINT).run("-p", "no:randomly")
    run.expect(1, passed=4, errors=1).says("[A602]")
