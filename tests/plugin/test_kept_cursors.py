"""A driver's cursor or connection that a suite keeps after SQLAlchemy's pool has it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.parameters import slow_except
from tests.plugin.test_postgresql_story import on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

# The result of raw_connection() is dropped at once, and with it the connection returns to the pool.
KEPT = """
import pytest
from sqlalchemy import create_engine, text

engine = create_engine("URL", pool_pre_ping=PING)
kept = []


@pytest.fixture
def keep():
    WAY


def test_keeps_it(arena, keep):
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM dancers")) == 1


def test_writes_by_it():
    cursor = kept[0]
    cursor.execute("INSERT INTO dancers (name) VALUES ('Kept')")
    cursor.connection.commit()


@pytest.mark.parametrize("turn", range(2))
def test_sees_no_row_of_it(turn):
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM dancers")) == 1


def test_writes_once_more():
    test_writes_by_it()


def test_sees_none_of_that():
    test_sees_no_row_of_it(0)
"""
WAYS = {
    "a cursor": "kept.append(engine.raw_connection().cursor())",
    "a cursor of the driver's connection": (
        "kept.append(engine.raw_connection().driver_connection.cursor())"
    ),
}
EACH_WAY = pytest.mark.parametrize("way", slow_except(WAYS.values(), WAYS["a cursor"]), ids=WAYS)


@EACH_WAY
@pytest.mark.parametrize("driver", ["psycopg", pytest.param("psycopg2", marks=pytest.mark.slow)])
def test_what_it_writes_is_taken_back(example: Example, driver: str, way: str) -> None:
    """No pool tells of its use, so the statement itself counts as a use of the database."""
    url = f"postgresql+{driver}://me:s3cret@db.example.org/shop"
    ping = str(driver == "psycopg")
    tests = KEPT.replace("URL", url).replace("WAY", way).replace("PING", ping)
    run = on_postgresql(example, test_it=tests).run("-p", "no:randomly", "-v", "-rA")
    run.expect(passed=6)


@EACH_WAY
def test_what_it_writes_into_a_file_is_taken_back(example: Example, way: str) -> None:
    """SQLite's own count of changes tells of it."""
    tests = KEPT.replace("URL", "sqlite:///dev.db").replace("WAY", way).replace("PING", "False")
    example.with_files(test_it=tests).run("-p", "no:randomly").expect(passed=6)


ASYNC = """
import pytest
from sqlalchemy import text
from app import engine

kept = []
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_keeps_it(arena):
    async with engine.connect() as connection:
        kept.append((await connection.get_raw_connection()).driver_connection)


async def test_writes_by_it():
    await kept[0].execute("INSERT INTO dancers (name) VALUES ('Kept')")
    COMMIT


@pytest.mark.parametrize("turn", range(2))
async def test_sees_no_row_of_it(turn):
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM dancers")) == 1
"""


@pytest.mark.parametrize("driver, commit", [("asyncpg", ""), ("psycopg", "await kept[0].commit()")])
@pytest.mark.slow
def test_what_an_async_connection_writes_is_taken_back(
    example: Example, driver: str, commit: str
) -> None:
    """All tests have one event loop: a driver's connection is at home in one."""
    app = on_postgresql(example, test_it=ASYNC.replace("COMMIT", commit))
    app.change("app.py", "asyncpg", driver).run("-p", "no:randomly").expect(passed=4)


@pytest.mark.slow
def test_what_an_async_connection_writes_into_a_file_is_taken_back(example: Example) -> None:
    """As for any other."""
    tests = ASYNC.replace("COMMIT", "await kept[0].commit()")
    example.with_files(test_it=tests).run("-p", "no:randomly").expect(passed=4)
