"""PostgreSQL: an unmodified app with a production URL, from the first test to the last word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

PRODUCTION = "postgresql+asyncpg://me:s3cret@db.example.org/shop"

SAME_EACH_TIME = """
import asyncio, os, subprocess, sys
import pytest
from sqlalchemy import func, select, text
from app import Dancer, engine, maker


@pytest.mark.parametrize("turn", range(3))
async def test_fixture_request_and_test_see_one_database_pitfall_004(client, db_session, turn):
    db_session.add(Dancer(name="Fixture"))
    assert (await client.get("/dancers")).json() == ["Sand", "Fixture"]
    assert (await client.post("/dancers/Bob")).status_code == 201
    assert await db_session.scalar(select(func.max(Dancer.id))) == 3


async def test_of_two_gathered_requests_one_is_refused_pitfall_134(client):
    client._transport.raise_app_exceptions = False
    answers = await asyncio.gather(client.post("/dancers/Twin"), client.post("/dancers/Twin"))
    assert sorted(answer.status_code for answer in answers) == [201, 500]


@pytest.mark.parametrize("turn", range(2))
def test_the_sync_client_on_its_own_thread_pitfall_006(test_client, db_session, turn):
    db_session.add(Dancer(name="Fixture"))
    assert test_client.get("/dancers").json() == ["Sand", "Fixture"]
    assert test_client.post("/dancers/Bob").status_code == 201
    assert db_session.scalar(select(func.max(Dancer.id))) == 3


async def test_what_a_session_was_set_to_pitfall_132(client):
    async with engine.connect() as connection:
        await connection.execute(text("SET statement_timeout = 4321"))
        await connection.commit()
        assert await connection.scalar(text("SHOW statement_timeout")) == "4321ms"


async def test_is_gone_with_its_test_pitfall_132(client):
    for _ in range(3):  # whichever the pool gives
        async with engine.connect() as connection:
            assert await connection.scalar(text("SHOW statement_timeout")) == "0"
    assert (await client.get("/dancers")).json() == ["Sand"]


@pytest.mark.parametrize("turn", range(2))
async def test_a_schema_that_a_test_changes(turn):
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TYPE mood AS ENUM ('glad')"))
        await connection.execute(text("ALTER TABLE dancers ADD COLUMN mood mood"))


@pytest.mark.parametrize("turn", range(2))
def test_another_process_by_the_url_pitfall_128(arena, turn):
    code = (
        "import sys, sqlalchemy as s\\n"
        "with s.create_engine(sys.argv[1]).begin() as c:\\n"
        "    c.execute(s.text(\\"INSERT INTO dancers (name) VALUES ('Child')\\"))"
    )
    url = arena.url.replace("+asyncpg", "+psycopg")
    subprocess.run([sys.executable, "-c", code, url], check=True)
    with arena.session() as session:
        assert session.scalars(select(Dancer.name).order_by(Dancer.id)).all() == ["Sand", "Child"]


@pytest.fixture(scope="module")
def crew(arena):
    with arena.session() as session:
        session.add(Dancer(name="Crew"))
        session.commit()


@pytest.mark.parametrize("turn", range(2))
async def test_a_wide_fixture(crew, client, turn):
    assert (await client.get("/dancers")).json() == ["Sand", "Crew"]
    assert (await client.post("/dancers/Bob")).status_code == 201


def test_the_environment_leads_nowhere_and_names_the_same():
    assert os.environ["DATABASE_URL"] == "postgresql+asyncpg://me@arena.invalid/shop"
"""


def on_postgresql(example: Example, **files: str) -> Example:
    """The example's app, with a production URL in its code, on a private server of arena's."""
    app = example.change("app.py", "sqlite+aiosqlite:///dev.db", PRODUCTION)
    return app.change("pytest.ini", "[pytest]", "[pytest]\narena_database = own").with_files(
        **files
    )


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["undo", "clone", "rollback"])
def test_the_same_database_for_every_test(example: Example, isolation: str) -> None:
    """P1, P2, P3, P5, P6: with loops and threads as they come, and over workers."""
    project = on_postgresql(example, test_it=SAME_EACH_TIME)
    env = {
        "DATABASE_URL": PRODUCTION,
        "PYTEST_ADDOPTS": f"--arena-isolation={'auto' if isolation == 'undo' else isolation}",
    }
    run = project.run("-v", env=env).expect(passed=15)
    run.says("database shop on PostgreSQL", "a private server", f"isolation {isolation}")
    run.never_says("s3cret", "WARNING", "Exception terminating")
    workers = project.run("-p", "xdist.plugin", "-n", "2", env=env).expect(passed=15)
    workers.says("template from the cache")


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
    """In four parts, at the first connection; later tests refer to it."""
    test = "async def test_one(client): await client.get('/dancers')\n"
    project = on_postgresql(example, test_it=test + test.replace("one", "two"))
    run = project.run(option).expect(1, failed=2)
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
