"""Functions of the app that change the session: what they leave belongs to the test alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.private_server import on_postgresql
from tests.servers.postgresql import URL, rows

if TYPE_CHECKING:
    from tests.example import Example

SERVER = URL.render_as_string(hide_password=False)
SEED = """
from sqlalchemy import text

FUNCTIONS = '''
CREATE FUNCTION set_tenant(name text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN PERFORM set_config('app.tenant', name, false); END $$;
CREATE FUNCTION limit_here(longest text) RETURNS text LANGUAGE sql AS
    $$ SELECT set_config('statement_timeout', longest, true) $$;
CREATE FUNCTION "Log in"(name text) RETURNS void LANGUAGE sql AS $$ SELECT set_tenant(name) $$;
CREATE FUNCTION slowly() RETURNS void LANGUAGE plpgsql AS $$
    BEGIN IF true THEN SET statement_timeout = '7s'; END IF; END $$;
CREATE FUNCTION in_parts() RETURNS void LANGUAGE plpgsql AS $$
    BEGIN EXECUTE 'SET statement_timeout = 7000'; END $$;
CREATE FUNCTION local_table() RETURNS void LANGUAGE plpgsql AS $$
    BEGIN CREATE /* x */ LOCAL TEMPORARY TABLE locks (a int); END $$;
CREATE FUNCTION temporary_table() RETURNS void LANGUAGE sql AS
    $$ CREATE TEMPORARY TABLE locks AS SELECT 1 $$;
CREATE PROCEDURE lock_it(number int) LANGUAGE sql AS $$ SELECT pg_advisory_lock(number) $$;
CREATE FUNCTION prepares() RETURNS void LANGUAGE plpgsql AS $$
    BEGIN EXECUTE 'PREPARE kept AS SELECT 1'; END $$;
CREATE FUNCTION locks() RETURNS int8 LANGUAGE sql AS $$ SELECT count(*) FROM pg_locks l
    JOIN pg_database d ON d.oid = l.database
    WHERE l.locktype = 'advisory' AND d.datname = current_database() $$
'''


def seed(session):
    for function in FUNCTIONS.split(";\\nCREATE"):
        create = function if function.lstrip().startswith("CREATE") else f"CREATE{function}"
        session.execute(text(create.replace(":", "\\\\:")))
    session.execute(text("INSERT INTO dancers (name) VALUES ('Sand')"))
"""
TESTS = """
import pytest
from sqlalchemy import text
from app import engine

STATES = [
    "SELECT set_tenant('acme')",
    "SELECT public.\\"Log in\\"('acme')",
    "SELECT slowly()",
    "SELECT in_parts()",
    "CALL lock_it(7)",
]
LOOK = text(
    "SELECT coalesce(current_setting('app.tenant', true), ''), "
    "current_setting('statement_timeout'), locks()"
)


async def state():
    async with engine.connect() as connection:
        return tuple((await connection.execute(LOOK)).one())


@pytest.mark.parametrize("statement", STATES, scope="class")
class TestSession:
    async def test_changes_it(self, statement):
        async with engine.begin() as connection:
            await connection.execute(text(statement))
        assert await state() != ("", "0", 0)

    async def test_finds_it_as_it_was(self, statement):
        assert await state() == ("", "0", 0)


pids = set()


@pytest.mark.parametrize("turn", range(2))
async def test_what_ends_with_the_transaction_leaves_the_connection_alone(turn):
    async with engine.begin() as connection:
        await connection.execute(text("SELECT limit_here('7s')"))
        pids.add(await connection.scalar(text("SELECT pg_backend_pid()")))
    assert len(pids) == 1
"""


@pytest.mark.parametrize("isolation", ["undo", pytest.param("clone", marks=pytest.mark.slow)])
@pytest.mark.parametrize("driver", ["asyncpg", pytest.param("psycopg", marks=pytest.mark.slow)])
def test_what_a_function_sets_ends_with_the_test(
    example: Example, driver: str, isolation: str
) -> None:
    """The statement shows a name alone, so the texts of the functions are read."""
    app = on_postgresql(example, test_it=TESTS, seed=SEED).change("app.py", "asyncpg", driver)
    app = app.change("pytest.ini", "[pytest]", f"[pytest]\narena_database = {SERVER}")
    run = app.run(f"--arena-isolation={isolation}", "-oarena_roles=off", "-p", "no:randomly")
    run.expect(passed=12)


SPELLINGS = """
    "SELECT prepares()",
    "SELECT \\"set_config\\"('app.tenant', 'acme', false)",
    "SELECT U&\\"set\\\\005fconfig\\"('app.tenant', 'acme', false)",
    "/* a /* b */ c */ SET statement_timeout = '7s'",
    "UPDATE pg_settings SET setting = '7000' WHERE name = 'statement_timeout'",
    "EXPLAIN ANALYZE CREATE TEMP TABLE locks AS SELECT 1",
    "CREATE /* x */ TEMP TABLE locks (a int)",
    "SET -- x\\n SESSION statement_timeout = '7s'",
    "SELECT slowly /* x */ ()",
    "SELECT local_table()",
    "SELECT temporary_table()",
"""


@pytest.mark.parametrize("isolation", ["undo", "clone"])
@pytest.mark.slow
def test_what_a_statement_sets_ends_with_the_test_however_it_is_spelled(
    example: Example, isolation: str
) -> None:
    """As a quoted name, around comments, by a view, in EXPLAIN ANALYZE, by a function."""
    start, end = TESTS.index("STATES = [") + len("STATES = ["), TESTS.index("]\nLOOK")
    tests = (TESTS[:start] + SPELLINGS + TESTS[end:]).replace(
        "locks()",
        "(SELECT count(*) FROM pg_class WHERE relname = 'locks') "
        "+ (SELECT count(*) FROM pg_prepared_statements WHERE from_sql)",
    )
    app = on_postgresql(example, test_it=tests, seed=SEED)
    app = app.change("pytest.ini", "[pytest]", f"[pytest]\narena_database = {SERVER}")
    run = app.run(f"--arena-isolation={isolation}", "-oarena_roles=off", "-p", "no:randomly")
    run.expect(passed=24)


WITH_EXTENSIONS = """
from sqlalchemy import text

LINK = "dbname=' || current_database() || ' host=HOST port=PORT user=USER"

def seed(session):
    session.execute(text("CREATE EXTENSION pg_trgm"))
    session.execute(text("CREATE EXTENSION dblink"))
    session.execute(text("CREATE FUNCTION link() RETURNS text LANGUAGE sql AS "
        f"$$ SELECT dblink_connect('link', '{LINK}') $$"))
"""
OF_EXTENSIONS = """
import pytest
from sqlalchemy import text
from app import engine

LOOK = text("SELECT show_limit()::text, dblink_get_connections()")


async def state():
    async with engine.connect() as connection:
        return tuple((await connection.execute(LOOK)).one())


async def test_the_first_connection():
    await state()


@pytest.mark.parametrize("statement", ["SELECT set_limit(0.7)", "SELECT link()"], scope="class")
class TestSession:
    async def test_changes_it(self, statement):
        async with engine.begin() as connection:
            await connection.execute(text(statement))
        assert await state() != ("0.3", None)

    async def test_finds_it_as_it_was(self, statement):
        assert await state() == ("0.3", None)
"""


@pytest.mark.slow
def test_what_a_function_of_an_extension_sets_ends_with_the_test(example: Example) -> None:
    """The threshold of pg_trgm, and a named connection of dblink."""
    if len(rows("SELECT FROM pg_available_extensions WHERE name IN ('pg_trgm', 'dblink')")) < 2:
        pytest.skip("the server has no pg_trgm or no dblink")
    seed = WITH_EXTENSIONS.replace("HOST", str(URL.host)).replace("PORT", str(URL.port))
    seed = seed.replace("USER", str(URL.username))
    app = on_postgresql(example, test_it=OF_EXTENSIONS, seed=seed)
    app = app.change("pytest.ini", "[pytest]", f"[pytest]\narena_database = {SERVER}")
    app.run("-oarena_roles=off", "-p", "no:randomly").expect(passed=5)


BY_A_TRIGGER = """
from sqlalchemy import text

def seed(session):
    session.execute(text("CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM set_config('app.tenant', NEW.name, false); RETURN NULL; END $$"))
    session.execute(text("INSERT INTO dancers (name) VALUES ('Sand')"))
    session.execute(text("CREATE TRIGGER note AFTER INSERT ON dancers FOR EACH ROW "
        "EXECUTE FUNCTION note()"))
"""
WRITES = """
import pytest
from sqlalchemy import text
from app import engine

@pytest.mark.parametrize("turn", range(2))
async def test_what_a_trigger_sets(turn):
    async with engine.begin() as connection:
        tenant = text("SELECT current_setting('app.tenant', true)")
        assert await connection.scalar(tenant) in (None, "")
        await connection.execute(text("INSERT INTO dancers (name) VALUES ('New')"))
        assert await connection.scalar(tenant) == "New"
"""


@pytest.mark.slow
def test_what_a_trigger_sets_ends_with_the_test(example: Example) -> None:
    """Every statement that writes may call it."""
    app = on_postgresql(example, test_it=WRITES, seed=BY_A_TRIGGER)
    app = app.change("pytest.ini", "[pytest]", f"[pytest]\narena_database = {SERVER}")
    app.run("--arena-isolation=undo", "-oarena_roles=off").expect(passed=2)


BY_AN_EXPRESSION = """
from sqlalchemy import text

def seed(session):
    session.execute(text("CREATE FUNCTION keep(name text) RETURNS bool LANGUAGE sql AS "
        "$$ SELECT set_config('app.tenant', name, false) IS NOT NULL $$"))
    session.execute(text("MAKES"))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "makes, uses",
    [
        ("CREATE OPERATOR !!! (FUNCTION = keep, RIGHTARG = text)", "SELECT !!! 'New'"),
        ("CREATE DOMAIN kept AS text CHECK (keep(VALUE))", "SELECT 'New'::kept"),
        ("CREATE VIEW kept AS SELECT keep('New')", "SELECT * FROM kept"),
        (
            "CREATE VIEW kept AS SELECT set_config('app.tenant', 'New', false)",
            "SELECT * FROM kept",
        ),
        (
            "CREATE TABLE kept (a text DEFAULT set_config('app.tenant', 'New', false), b int)",
            "INSERT INTO kept (b) VALUES (1)",
        ),
    ],
    ids=["operator", "domain", "view", "view without a function", "default"],
)
def test_what_an_expression_sets_ends_with_the_test(
    example: Example, makes: str, uses: str
) -> None:
    """A statement shows no name of the function."""
    tests = WRITES.replace("INSERT INTO dancers (name) VALUES ('New')", uses)
    seed = BY_AN_EXPRESSION.replace("MAKES", makes)
    app = on_postgresql(example, test_it=tests, seed=seed)
    app = app.change("pytest.ini", "[pytest]", f"[pytest]\narena_database = {SERVER}")
    app.run("--arena-isolation=undo", "-oarena_roles=off").expect(passed=2)
