"""As which role does the app work on PostgreSQL, and do its policies and grants act?"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import open_control

if TYPE_CHECKING:
    from tests.example import Example, Run
    from tests.plugin.private_server import PrivateServer

URL = "postgresql+asyncpg://shop_app:s3cret@db.example.org/shop"

APP = """
from fastapi import Depends, FastAPI, Header
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

engine = create_async_engine("URL")
replica = create_async_engine("READER")
app = FastAPI()


async def tenant_db(tenant: str = Header()):
    async with AsyncSession(engine) as db:
        await db.execute(text("SELECT set_config('app.tenant', :t, true)"), {"t": tenant})
        yield db


@app.get("/docs-of-all")
async def titles(db=Depends(tenant_db)):
    return list(await db.scalars(text("SELECT title FROM docs ORDER BY id")))


@app.post("/docs-of-all/{title}", status_code=201)
async def add(title: str, tenant: str = Header(), db=Depends(tenant_db)):
    await db.execute(text("INSERT INTO docs (tenant, title) VALUES (:n, :t)"),
        {"n": tenant, "t": title})
    await db.commit()


@app.post("/sql")
async def sql(statement: str, by: str = "engine"):
    async with AsyncSession(globals()[by]) as db:
        found = await db.execute(text(statement))
        rows = [list(row) for row in found] if found.returns_rows else []
        await db.commit()
    return rows
"""

TABLES = """
CREATE TABLE docs (id serial PRIMARY KEY, tenant text NOT NULL, title text NOT NULL);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON docs USING (tenant = current_setting('app.tenant', true));
INSERT INTO docs (tenant, title) VALUES ('a', 'A1'), ('b', 'B1');
"""
FORCED = (
    TABLES
    + "ALTER TABLE docs FORCE ROW LEVEL SECURITY;"
    + (
        "CREATE FUNCTION number() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS "
        "'SELECT count(*) FROM docs';"
        "CREATE VIEW titles AS SELECT title FROM docs;"
    )
)
GRANTED = TABLES + (
    "GRANT SELECT, INSERT ON docs TO shop_app; GRANT USAGE ON SEQUENCE docs_id_seq TO shop_app;"
    "GRANT SELECT ON docs TO shop_group;"
)


TENANTS = """
import pytest


@pytest.mark.parametrize("turn", range(3))
async def test_one_tenant_does_not_see_another(client, turn):
    async def seen(tenant):
        return (await client.get("/docs-of-all", headers={"tenant": tenant})).json()

    assert await seen("c") == []
    assert await seen("a") == ["A1"]
    assert (await client.post("/docs-of-all/A2", headers={"tenant": "a"})).status_code == 201
    assert await seen("a") == ["A1", "A2"]
    assert await seen("b") == ["B1"]
    whose = "SELECT current_user, session_user"
    assert (await client.post("/sql", params={"statement": whose})).json() == [["shop_app"] * 2]
"""


def shop(
    example: Example, schema: str, tests: str, *, url: str = URL, replica: str = ""
) -> Example:
    app = APP.replace("URL", url).replace("READER", replica or url)
    options = ("arena_schema = app:Base\narena_seed = seed:seed", "arena_schema = schema.sql")
    files = {"app.py": app, "schema.sql": schema, "test_it.py": tests}
    return example.change("pytest.ini", *options).with_paths(files)


def run(project: Example, server: PrivateServer, *words: str, **env: str) -> Run:
    return project.run("test_it.py", *words, env={**server.env, **env})


GRANTS = """
from sqlalchemy import text

READ, WRITE = "SELECT title FROM docs", "INSERT INTO docs (tenant, title) VALUES ('a', 'A2')"


async def sql(client, statement, **by):
    return await client.post("/sql", params={"statement": statement, **by})


async def test_each_engine_may_do_what_it_was_granted(client):
    assert (await sql(client, "SELECT current_user", by="replica")).json() == [["shop_reader"]]
    assert (await sql(client, READ, by="replica")).json() == []
    assert "permission denied for table docs" in (await sql(client, WRITE, by="replica")).text
    assert "row-level security" in (await sql(client, WRITE)).text
    assert "permission denied for schema public" in (await sql(client, "CREATE TABLE t ()")).text


async def test_a_role_that_was_set_ends_with_the_test(client):
    assert (await sql(client, "SET ROLE shop_group")).status_code == 200
    assert (await sql(client, "SELECT current_user")).json() == [["shop_group"]]


async def test_which_it_has(client, db_session, arena):
    assert (await sql(client, "SELECT current_user")).json() == [["shop_app"]]
    assert await db_session.scalar(text("SELECT current_user")) == "shop_app"
    assert arena.url.split("://")[1].startswith("shop_app@")
"""


# What the server says is the answer.
RESCUED = """try:
        return await said(statement, by)
    except Exception as error:
        return str(error)


async def said(statement, by):
    async with AsyncSession(globals"""


READER = URL.replace("shop_app", "shop_reader")


def test_policies_and_grants_act_as_in_production(example: Example, server: PrivateServer) -> None:
    """Each engine has the role of its URL, the second one by its group, which an option names."""
    schema = GRANTED + "CREATE POLICY none ON docs TO shop_group USING (false);"
    schema += "GRANT shop_group TO shop_app, shop_reader;"
    project = shop(example, schema, TENANTS + GRANTS, replica=READER)
    project = project.change("app.py", "async with AsyncSession(globals", RESCUED)
    missing = run(project, server).expect(1, failed=6)
    missing.says('role "shop_group" does not exist', "arena_roles = shop_group")
    found = run(project, server, "-oarena_roles=shop_group").expect(passed=6)
    found.never_says("do not act", "grants nothing")
    server.check_clean(found.output)


PAST_POLICIES = """
import pytest
from sqlalchemy import event, text
from app import engine

ADD = text("INSERT INTO docs (tenant, title) VALUES ('a', 'A2'), ('b', 'B2')")
TITLES = text("SELECT title FROM docs ORDER BY id")


@event.listens_for(engine.sync_engine, "connect")
def limited(connection, _entry):
    connection.cursor().execute("SET app.tenant = 'nobody'")


async def seen(client, tenant):
    return (await client.get("/docs-of-all", headers={"tenant": tenant})).json()


@pytest.fixture
def docs(arena):
    with arena.session(past_policies=True) as session:
        session.execute(ADD)
        session.commit()


@pytest.fixture(scope="module")
def wide(arena):
    with arena.session(past_policies=True) as session:
        session.execute(text("INSERT INTO docs (tenant, title) VALUES ('b', 'Wide')"))
        session.commit()


async def test_a_fixture_puts_rows_of_all_tenants_in_place(docs, client):
    assert await seen(client, "a") == ["A1", "A2"]
    assert await seen(client, "b") == ["B1", "B2"]


async def test_an_async_session_reads_what_each_request_has_written(arena, client, db_session):
    async with arena.session(past_policies=True) as session:
        await client.post("/docs-of-all/A3", headers={"tenant": "a"})
        assert (await session.scalars(TITLES)).all() == ["A1", "B1", "A3"]
        await session.execute(ADD)
        assert await seen(client, "b") == ["B1", "B2"]
    assert (await db_session.scalars(TITLES)).all() == []
    assert await db_session.scalar(text("SELECT current_user")) == "shop_app"


async def test_a_wide_one_too(wide, client):
    assert await seen(client, "b") == ["B1", "Wide"]


async def test_functions_and_views_have_the_rights_of_the_tables_owner(client):
    for number in ("number()", "count(*) FROM titles"):
        answer = await client.post("/sql", params={"statement": f"SELECT {number}"})
        assert answer.json() == [[0]]
    await client.post("/sql", params={"statement": "ALTER SEQUENCE docs_id_seq RESTART"})
"""


def test_policies_act_on_the_owner_that_they_are_forced_on(
    example: Example, server: PrivateServer
) -> None:
    """A session past the policies sees all rows. The owner may change the schema."""
    found = run(shop(example, FORCED, TENANTS + PAST_POLICIES), server).expect(passed=7)
    found.never_says("do not act", "arena_past_policies")
    found.says("owner: undo cannot restore a database after ALTER SEQUENCE public.docs_id_seq.")


CHANGES_A_ROLE = """
from sqlalchemy import text


def build(connection):
    connection.execute(text("ALTER ROLE postgres SET work_mem = '8MB'"))
"""


def test_a_schema_that_changes_a_role_is_refused(example: Example, server: PrivateServer) -> None:
    """The role has other databases, too."""
    tests = "async def test_it(client):\n    await client.post('/sql?statement=SELECT 1')\n"
    project = shop(example, "", tests).with_files(build=CHANGES_A_ROLE)
    project = project.change("pytest.ini", "schema.sql", "build:build")
    run(project, server).expect(1, failed=1).says("refused: ALTER ROLE", "build.py:6")


def test_policies_that_do_not_act_are_named(example: Example, server: PrivateServer) -> None:
    tests = "async def test_it(client):\n    await client.post('/sql?statement=SELECT 1')\n"
    line = "policies do not act on docs: the app works as postgres, which is a superuser"
    as_superuser = shop(example, FORCED, tests, url=URL.replace("shop_app:s3cret@", ""))
    found = run(as_superuser, server, "-q", "--arena-keep=always").expect(passed=1)
    found.says(line, "kept: psql 'postgresql://")


OWN_TABLES = """
from sqlalchemy import text


async def test_it_makes_what_it_needs_by_itself(client, arena):
    for statement in (
        "CREATE TABLE docs (id serial PRIMARY KEY, tenant text)",
        "CREATE SCHEMA acme",
        "CREATE TABLE acme.notes AS SELECT 1 AS id",
        "INSERT INTO docs (tenant) VALUES ('a')",
        "TRUNCATE docs RESTART IDENTITY",
        "DROP SCHEMA public CASCADE",
        "CREATE SCHEMA public",
    ):
        assert (await client.post("/sql", params={"statement": statement})).status_code == 200
    by = {"statement": "SELECT current_user", "by": "replica"}
    assert (await client.post("/sql", params=by)).json() == [["shop_app"]]


async def test_and_nothing_of_it_stays(client):
    found = "SELECT to_regclass('docs')::text, to_regnamespace('acme')::text"
    assert (await client.post("/sql", params={"statement": found})).json() == [[None, None]]
"""


def test_a_role_that_is_granted_nothing_owns_the_database(
    example: Example, server: PrivateServer
) -> None:
    """The app creates its tables. Another login without grants works as the owner."""
    project = shop(example, "", OWN_TABLES, replica=URL.replace("shop_app", "shop_stranger"))
    project = project.change("pytest.ini", "arena_schema = schema.sql", "")
    found = run(project, server).expect(passed=2)
    found.says("grants nothing to shop_stranger, which works as shop_app")


WHERE = """
async def test_where(client):
    for engine, role in (("replica", "shop_reader"), ("stock", "shop_app")):
        answer = await client.post(f"/sql?statement=SELECT current_user&by={engine}")
        assert answer.json() == [[role]]
"""


def test_each_database_grants_something_to_a_login_or_nothing(
    example: Example, server: PrivateServer
) -> None:
    """The reader works by its role in one database, and as the owner in the other one."""
    granted = "CREATE TABLE docs (id int); GRANT SELECT ON docs TO shop_reader;"
    project = shop(example, granted, WHERE, replica=READER)
    owner, reader = (f'create_async_engine("{url[:-4]}stock")' for url in (URL, READER))
    engines = f"owner = {owner}\nstock = {reader}\napp = FastAPI()"
    project = project.change("app.py", "app = FastAPI()", engines)
    project = project.change("pytest.ini", "schema.sql", "\n    shop = schema.sql")
    run(project, server).expect(passed=1)


WHO = """
async def test_who(client):
    assert (await client.post("/sql?statement=SELECT current_user")).json() == [["EXPECTED"]]
"""


def test_on_another_server_existing_roles_are_used(example: Example, server: PrivateServer) -> None:
    """None is created or changed. A line says why grants and policies do not act."""
    run(shop(example, FORCED, WHO.replace("EXPECTED", "shop_app")), server).expect(passed=1)
    with closing(open_control(server.address())) as control:
        control.run("CREATE ROLE there LOGIN; CREATE ROLE granter LOGIN CREATEDB")
    named = {"ARENA_DATABASE": server.url}
    for user, expected in (("there", "there"), ("missing", "postgres")):
        url = URL.replace("shop_app", user)
        project = shop(example, FORCED, WHO.replace("EXPECTED", expected), url=url)
        found = run(project, server, **named).expect(passed=1)
    found.says("policies do not act on docs", "It cannot work as missing: there is no role missing")
    lacking = run(project, server, "--arena-rebuild", "-oarena_roles=nobodys", **named)
    lacking.expect(1, failed=1).says(
        "arena_roles names nobodys: there is no role nobodys", "ARENA_DATABASE=own"
    )
    assert server.rows("SELECT FROM pg_roles WHERE rolname IN ('missing', 'nobodys')") == []
    table = "CREATE TABLE docs (id int); GRANT SELECT ON docs TO there;"
    url = URL.replace("shop_app", "there")
    project = shop(example, table, WHO.replace("EXPECTED", "granter"), url=url)
    limited = {"ARENA_DATABASE": server.url.replace("postgres@", "granter@")}
    told = run(project, server, "-q", **limited).expect(passed=1)
    told.says("grants to there do not act", "granter is no superuser, and cannot give it rights")
