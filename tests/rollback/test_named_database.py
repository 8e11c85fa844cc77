"""``rollback`` in a database that pytest-arena has not created, by a role without CREATEDB."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql._control import open_control
from pytest_arena._postgresql._named import IS_EMPTY, RUN_LOCK
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


def test_an_empty_database_is_built_and_left_empty(named: Named) -> None:
    """Requests, fixtures, levels, DDL and lost writes, in one transaction."""
    registries = names_on_server(beginning="arena_registry")
    ran = named.test(STORY).expect(passed=5)
    ran.says(
        f"rollback: tests use the database {named.name} on {URL.host}:{URL.port} itself, "
        f"since role {named.name} may not create databases",
        "schema or seed built in this run, and never committed",
        "POST /lost/Bob 200 wrote dancers (1 row) and never committed it",
    )
    assert names_on_server(beginning="arena_registry") == registries


FOUND = """
from sqlalchemy import text

HAS_BUILT = True
times = []


async def test_rows_as_found(client, db_session):
    times.append(await db_session.scalar(text("SELECT clock_timestamp()")))
    await client.post("/dancers/Bob")
    assert (await client.get("/dancers")).json() == ["Found", "Sand", "Bob"]
    assert await db_session.scalar(text("SELECT nextval('dancers_id_seq')")) == 4


async def test_time_moves(client, db_session):
    begin_of_transaction = await db_session.scalar(text("SELECT now()"))
    assert (begin_of_transaction < times[0]) is HAS_BUILT
    await client.post("/dancers/Bob")
    assert (await client.get("/dancers")).json() == ["Found", "Sand", "Bob"]
    assert await db_session.scalar(text("SELECT nextval('dancers_id_seq')")) == 4
"""


@pytest.mark.slow
def test_a_filled_database_is_used_as_it_is(named: Named) -> None:
    """Its tables are not built, the seed is. Its sequences have their numbers at the end."""
    named.build()
    ran = named.test(FOUND).expect(passed=2)
    ran.says(
        "It is not empty, so that arena_schema is not built",
        "schema or seed built in this run, and never committed",
    )
    only_found = FOUND.replace('"Sand", ', "").replace("== 4", "== 3")
    only_found = only_found.replace("HAS_BUILT = True", "HAS_BUILT = False")
    named.test(only_found, "-oarena_schema=", "-oarena_seed=").expect(passed=2)


ONE = """
async def test_one(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""


def test_a_filled_database_that_is_not_named_for_tests_is_refused(named: Named) -> None:
    """An empty one is used."""
    name = named.name.replace("test", "contest")
    run(f"ALTER DATABASE {named.name} RENAME TO {name}")
    try:
        url = named.url.removesuffix(named.name) + name
        named.of(ONE).run(env={**named.env, "ARENA_DATABASE": url}).expect(passed=1)
        run(f"SET ROLE {named.name}", *MIGRATED, database=name)
        ran = named.of(ONE).run(env={**named.env, "ARENA_DATABASE": url}).expect(1, failed=1)
    finally:
        run(f"ALTER DATABASE {name} RENAME TO {named.name}")
    ran.says(
        f"tests cannot use the database {name} on {URL.host}:{URL.port}: it is not empty",
        f"cause: role {named.name} may not create databases, and "
        f"postgresql://{named.name}:***@{URL.host}:{URL.port}/{name} is from arena_database",
        "or one named like shop_test",
    )


@pytest.mark.slow
def test_the_database_is_used_for_one_isolation(named: Named) -> None:
    """The error has the next step."""
    named.run(*MIGRATED)
    ran = named.test(ONE, "--arena-isolation=auto").expect(1, failed=1)
    ran.says(
        f"role {named.name} on {URL.host}:{URL.port} may not create databases",
        f"or arena_isolation = rollback (tests use {named.name} itself, and never commit there)",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "objects",
    [
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SEQUENCE numbers",
        "CREATE TYPE mood AS ENUM ('sad')",
        "SELECT lo_from_bytea(0, 'x')",
        "CREATE SCHEMA shop; CREATE VIEW shop.one AS SELECT 1 AS one",
    ],
)
def test_a_database_with_any_object_is_not_empty(named: Named, objects: str) -> None:
    """Also without a table. Objects of extensions do not count."""
    named.run("CREATE EXTENSION citext")
    with closing(open_control(address(named.name))) as control:
        assert control.rows(IS_EMPTY) == [(True,)]
        named.run(objects)
        assert control.rows(IS_EMPTY) == [(False,)]


REFUSED = """
import pytest


@pytest.mark.arena(isolation="clone")
async def test_of_clone(client):
    await client.get("/dancers")


@pytest.mark.arena(isolation="undo")
async def test_of_undo(client):
    await client.get("/dancers")


@pytest.mark.arena(isolation="rollback")
async def test_of_rollback(client):
    assert (await client.get("/dancers")).json() == ["Sand"]


@pytest.mark.arena(seed=False)
async def test_without_the_seed(client):
    assert (await client.get("/dancers")).json() == []


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


@pytest.mark.slow
def test_what_needs_another_database_is_refused(named: Named) -> None:
    """Also in the first test that connects. The next test has its rows."""
    ran = named.test(REFUSED, "--arena-keep=failed")
    ran.expect(1, passed=3, failed=2, errors=3)
    ran.says("isolation='clone' is not available: rollback is the isolation of all tests")
    ran.says("test_that_fails: not kept: another database is needed beside")
    without_rows = ONE.replace(
        "async def test_one", "@pytest.mark.arena(seed=False)\nasync def test_no"
    )
    ran = named.test(f"import pytest\n{without_rows}{ONE}").expect(1, passed=1, failed=1)
    ran.never_says("Traceback")


LOST = """
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from app import engine


async def test_that_ends_the_connection(client):
    await client.post("/dancers/Bob")
    with pytest.raises(DBAPIError):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


async def test_after_it(client):
    assert (await client.get("/dancers")).json() == ["Sand"]


async def test_after_both(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""


@pytest.mark.slow
def test_an_ended_connection_ends_what_was_built(named: Named) -> None:
    """Each later test says so. A filled database without a seed has all at the next test."""
    ran = named.test(LOST).expect(1, passed=1, errors=3)
    ran.says("the rows of wider fixtures, or the schema, are lost")
    named.build()
    found = LOST.replace("Sand", "Found")
    ran = named.test(found, "-oarena_schema=", "-oarena_seed=")
    ran.expect(passed=3)


@pytest.mark.slow
def test_options_that_would_let_a_commit_through_are_refused(named: Named) -> None:
    """Connections past the shared transaction, and several workers in it."""
    ran = named.test(ONE, "-oarena_drivers=redirect").expect(1, failed=1)
    ran.says("arena_drivers = redirect does not work with rollback")
    two = ONE + ONE.replace("one", "two")
    ran = named.test(ONE, f"-oarena_allow=postgresql://localhost:*/{named.name}")
    ran.expect(1, failed=1).says("arena_allow lets connections reach")
    ran = named.test(two, "-p", "xdist", "-n2")
    assert ran.status == 2
    ran.says("several workers of pytest-xdist cannot share", "pytest -n 0")
    named.test(two, "-p", "xdist", "-n1").expect(passed=2)


@pytest.mark.slow
def test_two_runs_do_not_share_a_database(named: Named) -> None:
    """The second waits for half a minute, and names the first."""
    with closing(open_control(address(named.name))) as control:
        control.run(f"SELECT pg_advisory_lock({RUN_LOCK})")
        ran = named.test(ONE).expect(1, failed=1)
        ran.says("another run uses it", "wait until the other run has ended")
    named.test(ONE).expect(passed=1)


PAST = """
import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine, text

URL = "{url}"


async def test_no_connection_goes_past_the_transaction(client, arena):
    await client.post("/dancers/Bob")
    with arena.expect_refusal():
        psycopg.connect(URL)
    with arena.expect_refusal():
        await asyncpg.connect(URL)
    direct = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(URL))
    with arena.expect_refusal():
        direct.connect()
    assert (await client.get("/dancers")).json() == ["Sand", "Bob"]
"""


@pytest.mark.slow
def test_the_apps_database_may_be_the_named_one(named: Named) -> None:
    """A connection that no engine opens is refused."""
    example = named.example.change("app.py", "sqlite+aiosqlite:///dev.db", named.async_url)
    named = replace(named, example=example)
    named.test(PAST.replace("{url}", named.url)).expect(passed=1)


COMMITS = """
from app import Base
from sqlalchemy import text


def build(connection):
    Base.metadata.create_all(connection)
    connection.commit()
    connection.execute(text("CREATE INDEX CONCURRENTLY i ON dancers (name)"))
"""


@pytest.mark.slow
def test_a_build_that_needs_a_commit_says_so(named: Named) -> None:
    """A function, and a script with its line."""
    named = replace(named, example=named.example.with_files(tables=COMMITS))
    ran = named.test(ONE, "-oarena_schema=tables:build").expect(1, failed=1)
    ran.says("CREATE INDEX CONCURRENTLY cannot run inside a transaction block", "tables.py:9")
    advice = "delete the statement, which needs a commit, or: ALTER ROLE"
    ran.says(advice)
    script = "CREATE TABLE dancers (id serial, name text);\nVACUUM dancers;\n"
    named = replace(named, example=named.example.with_paths({"tables.sql": script}))
    ran = named.test(ONE, "-oarena_schema=tables.sql").expect(1, failed=1)
    ran.says("VACUUM cannot run inside a transaction block", "tables.sql:2", advice)


@pytest.mark.slow
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


SAME = """
from sqlalchemy import create_engine, text
from app import maker, Dancer

second = create_engine("postgresql+psycopg://me@db.example.org/stats")


async def test_of_the_engine():
    async with maker() as session:
        session.add(Dancer(name="Bob"))
        await session.commit()


async def test_after_it(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
    await client.post("/dancers/Bob")


async def test_after_both(client, db_session):
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert await db_session.scalar(text("SELECT nextval('dancers_id_seq')")) == 2
"""


@pytest.mark.slow
def test_what_a_test_builds_is_built_again(named: Named) -> None:
    """Its mocks may have acted on the build. The next test has another transaction."""
    alone = SAME.replace(
        'second = create_engine("postgresql+psycopg://me@db.example.org/stats")', ""
    )
    named.test(alone).expect(passed=3)
    named.build()
    named.test(alone.replace('["Sand"]', '["Found", "Sand"]').replace("== 2", "== 3")).expect(
        passed=3
    )
