"""PostgreSQL: an unmodified app with a production URL, from the first test to the last word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

PRODUCTION = "postgresql+asyncpg://me:s3cret@db.example.org/shop"


def on_postgresql(example: Example, **files: str) -> Example:
    """The example's app, with a production URL in its code, on a private server of arena's."""
    app = example.change("app.py", "sqlite+aiosqlite:///dev.db", PRODUCTION)
    return app.change("pytest.ini", "[pytest]", "[pytest]\narena_database = own").with_files(
        **files
    )


LEFT_OPEN = """
import threading
import pytest
import sqlalchemy
from sqlalchemy import text
from app import Dancer, engine, maker

left = []


async def test_leaves_a_transaction_open():
    session = maker()
    session.add(Dancer(name="Left"))
    await session.flush()
    left.append(session)


async def test_leaves_a_reader_open():
    session = maker()
    await session.execute(text("SELECT 1"))
    left.append(session)


async def test_is_not_troubled_pitfall_044(client):
    assert (await client.get("/dancers")).json() == ["Sand"]


def test_fails_with_its_lock_pitfall_067(db_session):
    db_session.execute(text("UPDATE dancers SET name = 'Locked'"))
    left.append(db_session)
    assert False, "as wanted"


def test_a_thread_holds_a_lock_pitfall_068(arena):
    other = sqlalchemy.create_engine(arena.url.replace("+asyncpg", "+psycopg"))
    connection = other.connect()
    connection.execute(text("LOCK TABLE dancers IN ACCESS EXCLUSIVE MODE"))
    connection.execute(text("UPDATE dancers SET name = 'Locked'"))
    left.append(connection)


def test_a_statement_that_never_ends_pitfall_070(arena):
    other = sqlalchemy.create_engine(arena.url.replace("+asyncpg", "+psycopg"))
    connection = other.connect()
    connection.execute(text("UPDATE dancers SET name = 'Locked'"))

    def stuck():
        with pytest.raises(sqlalchemy.exc.DBAPIError):
            connection.execute(text("SELECT pg_sleep(400)"))

    thread = threading.Thread(target=stuck)
    thread.start()
    left.append((connection, thread))


async def test_the_last_one(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
    left[-1][1].join(60)
    assert not left[-1][1].is_alive()
"""


@pytest.mark.slow
def test_transactions_that_tests_leave_open_are_named_and_ended(example: Example) -> None:
    """Each by its last write; no tear-down waits for a lock, and no other test does."""
    run = on_postgresql(example, test_it=LEFT_OPEN).run("-W", "ignore")
    run.expect(1, passed=6, failed=1, errors=4)
    run.says("test_it.py:14", "test_it.py:20", "test_it.py:38", "test_it.py:45")
    run.says("the test ended with an open transaction", "a connection that was not returned")


DROPS = """
from sqlalchemy import text
from app import engine

left = []


async def test_drops_a_table_with_a_sequence():
    connection = await engine.connect()
    await connection.execute(text("DROP TABLE dancers"))
    left.append(connection)


async def test_the_next_one(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""


@pytest.mark.slow
def test_clone_does_not_wait_for_a_sequence_that_a_test_locks(example: Example) -> None:
    """pytest-arena reads the sequences while the connection that locks one is still open."""
    run = on_postgresql(example, test_it=DROPS).run("--arena-isolation=clone")
    run.expect(1, passed=2, errors=1)
    run.says("the test ended with an open transaction", "test_it.py:9")


@pytest.mark.slow
@pytest.mark.parametrize(
    "option,says",
    [
        ("--arena-isolation=copy", "arena_isolation = copy does not exist on PostgreSQL"),
        pytest.param(
            "--arena-database=sqlite",
            "with arena_database = sqlite, pytest-arena does not replace databases of this product",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "--arena-database=postgresql://db.example.org/shop",
            "arena_database names a database that the tests use: postgresql://db.example.org:5432/shop",
            marks=pytest.mark.slow,
        ),
        ("--arena-database=postgresql://nobody:pw@127.0.0.1:1/x", "cannot be used"),
        ("--arena-database=postgresql://nobody:pw@a:1,b:2/x", "needs a URL of one server"),
    ],
)
def test_what_cannot_be_on_postgresql_is_said_once(
    example: Example, option: str, says: str
) -> None:
    """In four parts, at the first connection. Without a server the run ends."""
    test = "async def test_one(client): await client.get('/dancers')\n"
    project = on_postgresql(example, test_it=test + test.replace("one", "two"))
    run = project.run(option).expect(1, failed=1 if "postgresql://" in option else 2)
    run.says(says, "why:", "cause:", "next:")
    run.never_says("s3cret", "nobody:pw")


WITHOUT_TABLES = """
from sqlalchemy import create_engine, text

def test_one():
    with create_engine("postgresql+{driver}://shop@db.example.com/shop").connect() as connection:
        connection.execute(text("select * from dancers"))
"""


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
@pytest.mark.slow
def test_a_table_that_is_missing_is_told_by_each_driver(example: Example, driver: str) -> None:
    """They have two names for the state that says so."""
    schema = "arena_schema = app:Base\narena_seed = seed:seed\n"
    bare = on_postgresql(example, test_it=WITHOUT_TABLES.format(driver=driver))
    run = bare.change("pytest.ini", schema, "").run().expect(1, failed=1)
    run.says("begins with an empty database", "next: arena_schema = app:Base")


@pytest.mark.slow
def test_without_psycopg_one_error_says_what_to_install(example: Example) -> None:
    """pytest-arena needs psycopg, whichever driver the app has. asyncpg and psycopg2 do not do."""
    without = on_postgresql(
        example,
        conftest='import sys\n\nsys.modules["psycopg"] = None\n',
        test_it="async def test_it(client):\n    await client.get('/dancers')\n",
    )
    run = without.run()
    run.expect(status=1, failed=1).says("ConfigError: psycopg cannot be imported").says(
        "why:", "cause:", "pip install 'pytest-arena[postgresql]'"
    )
