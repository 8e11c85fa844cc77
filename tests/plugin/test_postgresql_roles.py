"""As whom does the app work on PostgreSQL, and do its policies, grants and ownership act?"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql._control import open_control
from tests.plugin.private_server import PrivateServer, on_postgresql, private_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.example import Example, Run

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
FORCED = TABLES + "ALTER TABLE docs FORCE ROW LEVEL SECURITY;"
GRANTED = TABLES + (
    "GRANT SELECT, INSERT ON docs TO shop_app; GRANT USAGE ON SEQUENCE docs_id_seq TO shop_app;"
    "GRANT SELECT ON docs TO shop_reader;"
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


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    """One for all tests here."""
    with private_server() as found:
        yield found


def shop(
    example: Example, schema: str, tests: str, *, url: str = URL, replica: str = ""
) -> Example:
    """An app of two engines, whose tables a script makes."""
    app = APP.replace("URL", url).replace("READER", replica or url)
    options = ("arena_schema = app:Base\narena_seed = seed:seed", "arena_schema = schema.sql")
    files = {"app.py": app, "schema.sql": schema, "test_it.py": tests}
    return example.change("pytest.ini", *options).with_paths(files)


def run(project: Example, server: PrivateServer, *words: str, **env: str) -> Run:
    """Run its tests on the server."""
    return project.run("test_it.py", *words, env={**server.env, **env})


@pytest.mark.slow
def test_policies_that_do_not_act_are_told(example: Example, server: PrivateServer) -> None:
    """Whoever sees all may not be taken for somebody whose policy hides nothing; under -q too."""
    tests = "async def test_it(client):\n    await client.post('/sql?statement=SELECT 1')\n"
    as_superuser = shop(example, FORCED, tests, url=URL.replace("shop_app", "postgres"))
    told = "policies do not act on docs: the app works as postgres, which is a superuser"
    run(as_superuser, server, "-q").expect(passed=1).says(told)
    without = FORCED.partition("ALTER")[0]
    as_superuser = as_superuser.with_paths({"schema.sql": without})
    run(as_superuser, server).expect(passed=1).never_says("do not act")
    reader = FORCED + "GRANT USAGE ON SCHEMA public TO shop_reader;"
    reads_no_docs = URL.replace("shop_app", "shop_reader")
    url = URL.replace("shop_app", "postgres")
    beside_a_reader = shop(example, reader, tests, url=url, replica=reads_no_docs)
    run(beside_a_reader, server).expect(passed=1).says(told)


BY_ADMINISTRATOR = """
async def test_it(client):
    sql = {"statement": "SELECT title FROM docs ORDER BY id"}
    found = await client.post("/sql", params={**sql, "by": "replica"})
    assert found.json() == [["A1"], ["B1"]]
    assert (await client.post("/sql", params=sql)).json() == []
"""


@pytest.mark.slow
@pytest.mark.parametrize("schema", [FORCED, GRANTED], ids=["owner", "grants"])
def test_an_administrators_engine_beside_the_apps_is_not_told(
    example: Example, server: PrivateServer, schema: str
) -> None:
    """Its role may pass all policies by: they act on what the app's other engine does."""
    administrator = URL.replace("shop_app", "postgres")
    # No engine of this app names the role that reads.
    schema = schema.replace("GRANT SELECT ON docs TO shop_reader;", "")
    project = shop(example, schema, BY_ADMINISTRATOR, replica=administrator)
    run(project, server, "-q").expect(passed=1).never_says("policies do not act")


@pytest.mark.parametrize(
    "isolation",
    [
        "undo",
        pytest.param("clone", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "schema", [pytest.param(FORCED, marks=pytest.mark.slow), GRANTED], ids=["owner", "grants"]
)
def test_a_policy_hides_the_other_tenant_s_rows(
    example: Example, server: PrivateServer, schema: str, isolation: str
) -> None:
    """Whether the app's role owns the table, or was granted it: as in production."""
    project = shop(example, schema, TENANTS, replica=URL.replace("shop_app", "shop_reader"))
    found = run(project, server, f"--arena-isolation={isolation}").expect(passed=3)
    found.never_says("policies do not act")
    server.check_clean(found.output)


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


@pytest.mark.slow
def test_each_engine_has_the_grants_of_its_own_login(
    example: Example, server: PrivateServer
) -> None:
    """Roles of groups are named by an option, where nothing but the schema names them."""
    schema = GRANTED + "CREATE POLICY none ON docs TO shop_group USING (false);"
    schema += "GRANT shop_group TO shop_app;"
    project = shop(example, schema, GRANTS, replica=URL.replace("shop_app", "shop_reader"))
    project = project.change("app.py", "async with AsyncSession(globals", RESCUED)
    missing = run(project, server).expect(1, failed=3)
    missing.says('role "shop_group" does not exist', "arena_roles = shop_group")
    found = run(project, server, "-oarena_roles=shop_group").expect(passed=3)
    found.never_says("do not act", "grants nothing")


OTHER_ROLES = """
import pytest


async def sql(client, statement):
    return await client.post("/sql", params={"statement": statement})


@pytest.mark.parametrize("statement", [
    "SET ROLE NONE",
    "SET role TO DEFAULT",
    "SET SESSION AUTHORIZATION DEFAULT",
    "SELECT set_config('role', 'none', false)",
    "DO $$ BEGIN RESET ROLE; END $$",
])
async def test_the_app_keeps_its_role(client, statement):
    assert (await sql(client, statement)).status_code == 200
    roles = await sql(client, "SELECT current_user, session_user")
    assert roles.json() == [["shop_app", "shop_app"]]
    assert (await sql(client, "SELECT title FROM docs")).json() == []


@pytest.mark.parametrize("role", ["postgres", "shop_reader"])
async def test_the_app_gets_no_role_without_membership(client, role):
    for statement in (f"SET ROLE {role}", f"DO $$ BEGIN SET LOCAL ROLE {role}; END $$"):
        assert "permission denied to set role" in (await sql(client, statement)).text
    assert (await sql(client, "SELECT title FROM docs")).json() == []
"""


@pytest.mark.slow
def test_the_app_cannot_leave_its_role(example: Example, server: PrivateServer) -> None:
    """Its statements that would set another role are refused by the server."""
    project = shop(example, GRANTED, OTHER_ROLES, replica=URL.replace("shop_app", "shop_reader"))
    project = project.change("app.py", "async with AsyncSession(globals", RESCUED)
    run(project, server).expect(passed=7)


@pytest.mark.slow
def test_an_owner_whose_groups_are_granted_something_is_told(
    example: Example, server: PrivateServer
) -> None:
    """It may set their roles; what they may not is no limit to it, nor are its own policies."""
    schema = TABLES + "GRANT SELECT ON docs TO shop_clerk; GRANT shop_clerk TO shop_owner;"
    url = URL.replace("shop_app", "shop_owner")
    project = shop(example, schema, WHO.replace("EXPECTED", "shop_owner"), url=url)
    found = run(project, server, "-q", "-oarena_roles=shop_clerk").expect(passed=1)
    found.says(
        "shop_owner owns the objects of the schema, whatever its groups are granted. Next: GRANT",
        "policies do not act on docs: the app works as shop_owner, which owns the tables",
    )


@pytest.mark.slow
def test_a_superuser_is_in_no_group(example: Example, server: PrivateServer) -> None:
    """It has the rights of all roles: what they are granted is no limit to be told of."""
    schema = "CREATE TABLE docs (); GRANT SELECT ON docs TO shop_clerk;"
    url = URL.replace("shop_app", "shop_boss")
    project = shop(example, schema, WHO.replace("EXPECTED", "shop_boss"), url=url)
    words = ("-q", "-oarena_roles=shop_clerk")
    run(project, server, *words).expect(passed=1)
    with closing(open_control(server.address())) as control:
        control.run("ALTER ROLE shop_boss SUPERUSER")
    run(project, server, *words).expect(passed=1).never_says("owns the objects of the schema")


# What the server says is the answer.
RESCUED = """try:
        return await said(statement, by)
    except Exception as error:
        return str(error)


async def said(statement, by):
    async with AsyncSession(globals"""

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


@pytest.mark.parametrize("isolation", ["undo", "clone"])
@pytest.mark.slow
def test_who_is_granted_nothing_owns_the_database_or_works_as_its_owner(
    example: Example, server: PrivateServer, isolation: str
) -> None:
    """As in a production where the app makes its own tables; a line tells of the other login."""
    project = shop(example, "", OWN_TABLES, replica=URL.replace("shop_app", "shop_stranger"))
    project = project.change("pytest.ini", "arena_schema = schema.sql", "")
    found = run(project, server, f"--arena-isolation={isolation}").expect(passed=2)
    found.says("grants nothing to shop_stranger, which works as shop_app")


WHO = """
async def test_who(client):
    assert (await client.post("/sql?statement=SELECT current_user")).json() == [["EXPECTED"]]
"""


DEFAULTS = """DO $$ BEGIN
  EXECUTE format('ALTER ROLE shop_app IN DATABASE %I SET statement_timeout = 7000',
    current_database());
END $$;"""
KEEPS_DEFAULTS = """
import pytest

@pytest.mark.parametrize("turn", range(3))
async def test_the_roles_default_acts(client, turn):
    await client.post("/docs-of-all/A2", headers={"tenant": "a"})
    shown = await client.post("/sql", params={"statement": "SHOW statement_timeout"})
    assert shown.json() == [["7s"]]
"""


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["undo", "clone"])
def test_defaults_of_the_role_act(example: Example, server: PrivateServer, isolation: str) -> None:
    """Those of this database: the server's, and whose they are besides, are not the template's."""
    project = shop(example, FORCED + DEFAULTS, KEEPS_DEFAULTS)
    how = f"--arena-isolation={isolation}"
    run(project, server, how).expect(passed=3)
    of_the_server = {"schema.sql": FORCED + "ALTER ROLE shop_app SET statement_timeout = 7000;"}
    refused = run(project.with_paths(of_the_server), server, how)
    refused.expect(status=1, failed=3).says("ALTER ROLE reaches beyond", "ALTER ROLE … IN DATABASE")


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["psycopg", pytest.param("asyncpg", marks=pytest.mark.slow)])
def test_a_worker_of_xdist_has_the_same_roles(
    example: Example, server: PrivateServer, driver: str
) -> None:
    """Made by whoever comes first; each driver names its user in its own way."""
    tests = WHO.replace("EXPECTED", "shop_twin") + "\n\n" + WHO.replace("EXPECTED", "shop_twin")
    url = URL.replace("shop_app", "shop_twin").replace("asyncpg", driver)
    project = shop(example, FORCED, tests.replace("test_who", "test_too", 1), url=url)
    run(project, server, "-p", "xdist.plugin", "-n", "2").expect(passed=2).never_says(
        "do not act", "grants nothing"
    )


@pytest.mark.slow
def test_on_a_server_of_ones_own_roles_are_used_that_are_there(
    example: Example, server: PrivateServer
) -> None:
    """None is made or changed: where one is missing, the tables are named whose policies rest."""
    run(shop(example, FORCED, WHO.replace("EXPECTED", "shop_app")), server).expect(passed=1)
    named = {"ARENA_DATABASE": server.url}
    with closing(open_control(server.address())) as control:
        control.run("CREATE ROLE there LOGIN")
    for user, expected in (("there", "there"), ("missing", "postgres")):
        url = URL.replace("shop_app", user)
        project = shop(example, FORCED, WHO.replace("EXPECTED", expected), url=url)
        found = run(project, server, **named).expect(passed=1)
        line = "the app works as postgres, which is a superuser. It cannot work as"
        assert (line in found.output) == (expected == "postgres"), found.output
    found.says("It cannot work as missing: there is no role missing on")
    off = run(project.change("app.py", "missing", "there"), server, "-oarena_roles=off", **named)
    off.expect(passed=1)
    lacking = run(project, server, "--arena-rebuild", "-oarena_roles=nobodys", **named)
    lacking.expect(1, failed=1).says(
        "arena_roles names nobodys", 'CREATE ROLE "nobodys";', "arena_database = own"
    )
    assert server.rows("SELECT FROM pg_roles WHERE rolname IN ('missing', 'nobodys')") == []


@pytest.mark.slow
def test_on_a_server_of_ones_own_a_role_logs_in_by_its_own_password(example: Example) -> None:
    """That of the engine's URL, also where a variable has named it, from which it is taken out."""
    with private_server() as server:
        at_first = shop(example, FORCED, WHO.replace("EXPECTED", "shop_app"))
        run(at_first, server).expect(passed=1)
        rules = server.folder.data / "pg_hba.conf"
        rules.write_text(f"local all sealed scram-sha-256\n{rules.read_text()}")
        with closing(open_control(server.address())) as control:
            control.run("CREATE ROLE sealed LOGIN PASSWORD 's3cret'; SELECT pg_reload_conf()")
        named = {"ARENA_DATABASE": server.url}
        url = URL.replace("shop_app", "sealed")
        project = shop(example, FORCED, WHO.replace("EXPECTED", "sealed"), url=url)
        run(project, server, **named).expect(passed=1).never_says("do not act")
        by_variable = project.change("app.py", f'engine("{url}")', 'engine(os.environ["WHERE"])')
        by_variable = by_variable.change("app.py", "\nfrom fastapi", "\nimport os\nfrom fastapi")
        by_variable = by_variable.change("pytest.ini", "[pytest]", "[pytest]\narena_env = WHERE")
        found = run(by_variable, server, **named, WHERE=url).expect(passed=1)
        found.never_says("do not act")
        tests, url = WHO.replace("EXPECTED", "postgres"), url.replace("s3cret", "guessed")
        wrong = shop(example, FORCED, tests, url=url)
        told = run(wrong, server, **named).expect(passed=1)
        told.says(
            "policies do not act on docs", "It cannot work as sealed:", "password authentication"
        )


UNUSABLE = """
async def test_who(client):
    asked = {"statement": "SELECT current_user"}
    assert (await client.post("/sql", params=asked)).json() == [["granter"]]
"""


@pytest.mark.slow
def test_grants_that_do_not_act_are_told(example: Example, server: PrivateServer) -> None:
    """The run's login may not use the app's role, to which the schema grants something."""
    run(shop(example, FORCED, UNUSABLE.replace("granter", "shop_app")), server).expect(passed=1)
    with closing(open_control(server.address())) as control:
        control.run("CREATE ROLE granter LOGIN CREATEDB; CREATE ROLE sealed_app LOGIN")
    named = {"ARENA_DATABASE": server.url.replace("postgres@", "granter@")}
    table = "CREATE TABLE docs (id serial PRIMARY KEY, title text NOT NULL);"
    url = URL.replace("shop_app", "sealed_app")
    granted = shop(example, table + "GRANT SELECT ON docs TO sealed_app;", UNUSABLE, url=url)
    line = "grants to sealed_app do not act as in production: the app works as granter"
    told = run(granted, server, "-q", **named).expect(passed=1).says(line)
    told.says("granter is no superuser", "Next: arena_database = own")
    assert told.output.count(line) == 1
    again = run(granted, server, **named).expect(passed=1).says(line)
    assert again.output.count(line) == 1
    plain = shop(example, table, UNUSABLE, url=url)
    run(plain, server, **named).expect(passed=1).never_says("do not act")


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
"""


@pytest.mark.slow
def test_a_session_past_the_policies(example: Example, server: PrivateServer) -> None:
    """It sees and writes all rows; the app, and the test's other sessions, are as limited."""
    found = run(shop(example, FORCED, PAST_POLICIES), server).expect(passed=3)
    found.never_says("do not act", "arena_past_policies")
    assert server.rows("SELECT FROM pg_roles WHERE rolname = 'arena_past_policies'") == []


@pytest.mark.slow
def test_a_session_past_the_policies_under_clone(example: Example, server: PrivateServer) -> None:
    """Likewise."""
    project = shop(example, GRANTED, PAST_POLICIES, replica=URL.replace("shop_app", "shop_reader"))
    run(project, server, "--arena-isolation=clone").expect(passed=3).never_says("do not act")


@pytest.mark.slow
def test_no_session_past_policies_that_act_on_arena_too(
    example: Example, server: PrivateServer
) -> None:
    """A login that is no superuser owns the tables, which force their policies on it."""
    run(shop(example, FORCED, WHO.replace("EXPECTED", "shop_app")), server).expect(passed=1)
    with closing(open_control(server.address())) as control:
        control.run("DROP ROLE IF EXISTS maker; CREATE ROLE maker LOGIN CREATEDB")
    test = """
def test_it(arena):
    arena.session(past_policies=True)
"""
    named = {"ARENA_DATABASE": server.url.replace("postgres@", "maker@")}
    refused = run(shop(example, FORCED, test), server, **named).expect(1, failed=1)
    refused.says("policies on docs limit it, too", "test_it.py:3", "arena_database = own")


# The seed may make roles: whoever builds the template next finds them.
SEED_WITH_A_ROLE = """
from sqlalchemy import text

def seed(session):
    session.execute(text("DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'cook') "
        "THEN CREATE ROLE cook; END IF; END $$"))
    session.execute(text("INSERT INTO dancers (name) VALUES ('Sand')"))
"""
MAKES_ROLES = """
from sqlalchemy import text
from app import engine


async def test_makes_a_role():
    async with engine.begin() as connection:
        await connection.execute(text("CREATE ROLE waiter"))


async def test_grants_it():
    async with engine.begin() as connection:
        await connection.execute(text("GRANT waiter TO cook"))


async def test_grants_a_table_to_it():
    async with engine.begin() as connection:
        await connection.execute(text("GRANT SELECT ON dancers TO cook"))
"""


@pytest.mark.parametrize("isolation", ["undo", "clone"])
@pytest.mark.slow
def test_a_role_that_a_test_leaves_on_the_server_is_named(example: Example, isolation: str) -> None:
    """No copy of a database brings it back, and a later test may pass by it alone."""
    with private_server() as server:
        project = on_postgresql(example, test_it=MAKES_ROLES, seed=SEED_WITH_A_ROLE)
        run = project.run(
            *(f"--arena-isolation={isolation}", "-oarena_roles=off"),
            *("-p", "no:randomly", "-q"),
            env=server.env,
        )
        run.expect(passed=3).says(
            "test_it.py::test_makes_a_role sends CREATE ROLE, which stays on the server",
            "test_it.py:8  await connection.execute(text(",
            "test_it.py::test_grants_it sends GRANT of a role, which stays on the server",
            "Next: arena_roles = <the role>",
        )
        assert run.output.count("stays on the server") == 2  # the seed may make roles
        server.check_clean(run.output)
