"""``rollback`` in a database that pytest-arena has not created, by a role without CREATEDB."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import open_control
from pytest_arena._postgresql._named import RUN_LOCK
from tests.rollback.named import MIGRATED
from tests.servers.postgresql import URL, address, names_on_server, run

if TYPE_CHECKING:
    from tests.rollback.named import Named

STORY = """
import pytest
from app import Dancer, app, engine, get_db
from fastapi import Depends
from sqlalchemy import text


@app.post("/lost/{name}")
async def lose(name: str, db=Depends(get_db)):
    db.add(Dancer(name=name))
    await db.flush()


@pytest.fixture(scope="class")
def crew(arena):
    with arena.session() as session:
        session.add(Dancer(name="Crew"))
        session.commit()


class TestWithACrew:
    @pytest.mark.parametrize("turn", range(2))
    async def test_requests_and_fixtures(self, crew, client, arena, turn):
        await client.post("/dancers/Bob")
        assert (await client.get("/dancers")).json() == ["Sand", "Crew", "Bob"]
        assert "Bob" in str(arena.changes())
        assert "Crew" not in str(arena.changes())


async def test_of_the_schema(client, db_session):
    db_session.add(Dancer(name="Ann"))
    assert (await client.get("/dancers")).json() == ["Sand", "Ann"]
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE dancers ADD COLUMN mood text"))
        await connection.execute(text("CREATE TYPE mood AS ENUM ('sad')"))
        await connection.execute(text("CREATE EXTENSION citext"))
        await connection.execute(text("SELECT lo_from_bytea(0, 'x')"))


async def test_numbers_begin_again(client, db_session):
    ids = "SELECT nextval('dancers_id_seq')"
    assert await db_session.scalar(text(ids)) == 2


async def test_that_loses_a_write(client):
    await client.post("/lost/Bob")
    assert (await client.get("/dancers")).json() == ["Sand"]
"""

FOUND = """
async def test_rows_as_found(client, db_session):
    await client.post("/dancers/Bob")
    assert (await client.get("/dancers")).json() == ["Found", "Sand", "Bob"]


async def test_rows_as_found_again(client):
    assert (await client.get("/dancers")).json() == ["Found", "Sand"]
"""


def test_a_filled_database_is_used_as_it_is(named: Named) -> None:
    """Its tables are not built, the seed is."""
    named.build()
    ran = named.test(FOUND).expect(passed=2)
    ran.says("schema or seed built in this run, and never committed")


ONE = """
async def test_one(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""


def test_a_filled_database_that_is_not_named_for_tests_is_refused(named: Named) -> None:
    """The error names the role and the database."""
    name = named.name.replace("test", "contest")
    run(f"ALTER DATABASE {named.name} RENAME TO {name}")
    try:
        url = named.url.removesuffix(named.name) + name
        run(f"SET ROLE {named.name}", *MIGRATED, database=name)
        ran = named.of(ONE).run(env={**named.env, "ARENA_DATABASE": url}).expect(1, failed=1)
    finally:
        run(f"ALTER DATABASE {name} RENAME TO {named.name}")
    ran.says(
        f"tests cannot use the database {name} on {URL.host}:{URL.port}: it has tables",
        f"cause: role {named.name} may not create databases, and "
        f"postgresql://{named.name}:***@{URL.host}:{URL.port}/{name} is from arena_database",
        "or one named like shop_test",
    )


REFUSED = """
import pytest


@pytest.mark.arena(isolation="clone")
async def test_of_clone(client):
    await client.get("/dancers")


@pytest.mark.arena(schema=False)
async def test_without_the_schema(client):
    await client.get("/dancers")


async def test_that_keeps(client, arena):
    await client.post("/dancers/Bob")
    with pytest.raises(Exception, match="another database is needed beside"):
        arena.keep()


async def test_that_fails(client):
    await client.post("/dancers/Bob")
    assert False


async def test_after_them(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""


def test_an_empty_database_is_built_and_left_empty(named: Named) -> None:
    """Requests, fixtures, levels, DDL and lost writes, in one transaction.

    What needs another database is refused, and the next test has its rows.
    """
    registries = names_on_server(beginning="arena_registry")
    ran = named.test(STORY + REFUSED, "--arena-keep=failed")
    ran.expect(1, passed=7, failed=1, errors=2)
    ran.says(
        f"rollback: tests use the database {named.name} on {URL.host}:{URL.port} itself, "
        f"since role {named.name} may not create databases",
        "schema or seed built in this run, and never committed",
        "POST /lost/{name} 200 wrote dancers and never committed it",
    )
    assert names_on_server(beginning="arena_registry") == registries
    ran.says("isolation='clone' is not available: rollback is the isolation of all tests")
    ran.says("test_that_fails: not kept: another database is needed beside")


COMMITS = """
import psycopg
from sqlalchemy import text
from app import engine


async def test_that_commits(client):
    await client.post("/dancers/Bob")
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        await raw.driver_connection.execute("COMMIT")


async def test_after_it(client):
    await client.get("/dancers")
"""


def test_a_commit_past_the_session_ends_the_run(named: Named) -> None:
    """The driver can send it. Each test from there on is red."""
    named.build()
    example = named.of(COMMITS).change("app.py", "+asyncpg", "+psycopg")
    ran = example.run("-oarena_schema=", "-oarena_seed=", env=named.env)
    ran.expect(1, passed=1, errors=2)
    ran.says("the transaction that all connections of the tests share has ended", "a COMMIT")


def test_several_workers_are_refused(named: Named) -> None:
    """They would wait for each other's locks."""
    two = ONE + ONE.replace("one", "two")
    ran = named.test(two, "-p", "xdist", "-n2")
    assert ran.status == 2
    ran.says("several workers of pytest-xdist cannot share", "pytest -n 0")


HASTY = """
from pytest_arena._postgresql import _named

_named._LOCK_SECONDS = 0.1
"""


def test_two_runs_do_not_share_a_database(named: Named) -> None:
    """The second names the first."""
    named = replace(named, example=named.example.with_files(hasty=HASTY))
    with closing(open_control(address(named.name))) as control:
        control.run(f"SELECT pg_advisory_lock({RUN_LOCK})")
        ran = named.test(ONE, "-p", "hasty").expect(1, failed=1)
        ran.says("another run uses it", "wait until the other run has ended")


def test_a_script_is_refused(named: Named) -> None:
    """It may need commits. A team runs it once."""
    named = replace(named, example=named.example.with_paths({"tables.sql": "SELECT 1"}))
    ran = named.test(ONE, "-oarena_schema=tables.sql").expect(1, failed=1)
    ran.says("pytest-arena runs no script in the database", "psql -f")


def test_a_second_database_is_refused(named: Named) -> None:
    """The transaction is in one database."""
    two = """
from sqlalchemy import create_engine, text

second = create_engine("postgresql+psycopg://me@db.example.org/stats")


async def test_two(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
    with second.connect() as connection:
        connection.execute(text("SELECT 1"))
"""
    options = ("-oarena_schema=shop = app:Base", "-oarena_seed=shop = seed:seed")
    ran = named.test(two, *options).expect(1, failed=1)
    ran.says("the app uses more than one database")
