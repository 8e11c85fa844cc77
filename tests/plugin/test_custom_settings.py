"""Custom settings: PostgreSQL has '' instead of NULL for each name that a session has had."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.parameters import slow_except
from tests.plugin.private_server import on_postgresql
from tests.servers.postgresql import URL

if TYPE_CHECKING:
    from tests.example import Example, Run

SERVER = URL.render_as_string(hide_password=False)
SEED = """
from sqlalchemy import text

FUNCTIONS = '''
CREATE FUNCTION for_tenant(name text) RETURNS text LANGUAGE sql AS
    $$ SELECT set_config('app.tenant', name, true) $$;
CREATE FUNCTION as_acme() RETURNS int LANGUAGE sql SET app.tenant = 'acme' AS 'SELECT 1';
CREATE FUNCTION in_utc() RETURNS int LANGUAGE sql SET timezone = 'UTC' AS 'SELECT 1'
'''


def seed(session):
    for function in FUNCTIONS.split(";"):
        session.execute(text(function))
    session.execute(text("INSERT INTO dancers (name) VALUES ('Sand')"))
"""
ENGINES = """
import pytest
from app import engine as async_engine
from sqlalchemy import create_engine, text

NAMES = ["psycopg", "psycopg2"]
ENGINES = [create_engine(async_engine.url.set(drivername=f"postgresql+{name}")) for name in NAMES]
TENANT = text("SELECT current_setting('app.tenant', true)")
SET = [
    "SET LOCAL app.tenant = '7'",
    "set /* now */ local \\"app\\" . \\"tenant\\" TO '7'",
    "SELECT set_config('app.tenant', '7', true)",
    "SELECT \\"set_config\\" ( 'app.tenant' , '7', true )",
    "SELECT set_config(concat('app', '.tenant'), '7', true)",
    "SELECT for_tenant('7')",
    "SELECT as_acme()",
]


@pytest.mark.parametrize("statement", SET)
@pytest.mark.parametrize("engine", ENGINES, ids=NAMES)
def test_sync(engine, statement):
    with engine.connect() as connection:
        assert connection.scalar(TENANT) is None
        connection.execute(text(statement))
        connection.rollback()
        assert connection.scalar(TENANT) == ""


@pytest.mark.parametrize("statement", SET)
async def test_async(statement):
    async with async_engine.connect() as connection:
        assert await connection.scalar(TENANT) is None
        await connection.execute(text(statement))
        await connection.commit()
    async with async_engine.connect() as connection:
        assert await connection.scalar(TENANT) == ""


NAME = text("SELECT set_config(:name, :value, true)")


@pytest.mark.parametrize("turn", range(2))
async def test_a_name_in_a_parameter(turn):
    async with async_engine.connect() as connection:
        assert await connection.scalar(TENANT) is None
        await connection.execute(NAME, {"name": "app.tenant", "value": "7"})


@pytest.fixture(scope="class")
def wide():
    with ENGINES[0].connect() as connection:
        connection.execute(text("SET LOCAL app.tenant = '7'"))


@pytest.mark.parametrize("turn", range(3))
class TestWide:
    def test_it(self, wide, turn):
        with ENGINES[0].connect() as connection:
            assert connection.scalar(TENANT) is None
            connection.execute(text("SET LOCAL app.tenant = '7'"))


@pytest.fixture(scope="class")
def wide_setting():
    with ENGINES[0].connect() as connection:
        connection.execute(text("SET work_mem = 4321"))
        connection.commit()


@pytest.mark.parametrize("turn", range(3))
class TestWideSetting:
    def test_it(self, wide_setting, turn):
        with ENGINES[0].connect() as connection:
            assert connection.scalar(text("SHOW work_mem")) == "4321kB"
            connection.execute(text("SET LOCAL app.tenant = '7'"))


pids = set()
KEEPING = [
    "SELECT set_config('statement_timeout', '7s', true)",
    "SET LOCAL statement_timeout = '7s'",
    "SELECT in_utc()",
]


@pytest.mark.parametrize("statement", KEEPING)
def test_settings_of_postgresql_leave_the_connection_alone(statement):
    with ENGINES[1].connect() as connection:
        connection.execute(text(statement))
        pids.add(connection.scalar(text("SELECT pg_backend_pid()")))
    assert len(pids) == 1
"""


@pytest.mark.parametrize(
    "isolation",
    slow_except(["undo", "rollback", "clone"], "undo"),
)
def test_no_test_finds_the_name_of_a_setting_that_another_has_set(
    example: Example, isolation: str
) -> None:
    """Not after SET LOCAL either. A fixture's own setting stays, without a note of its loss."""
    app = on_postgresql(example, test_it=ENGINES, seed=SEED)
    app = app.change(
        "pytest.ini", "[pytest]", f"[pytest]\nusefixtures = arena\narena_database = {SERVER}"
    )
    arguments = [f"--arena-isolation={isolation}", "-oarena_roles=off", "-p", "no:randomly"]
    passed = 32
    if isolation == "rollback":
        # Only PostgreSQL knows the name, so the setting lasts until the test ends.
        arguments += ["-k", "not concat"]
        passed -= 3
    app.run(*arguments).expect(passed=passed).never_says("is lost")


OVER_WIDE_ROWS = """
import pytest
from app import engine
from sqlalchemy import text


@pytest.fixture(scope="module")
async def crew():
    async with engine.begin() as connection:
        await connection.execute(text("SELECT set_config('app.tenant', '7', true)"))
        await connection.execute(text("INSERT INTO dancers (name) VALUES ('Crew')"))


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("turn", range(2))
async def test_it(crew, turn):
    async with engine.begin() as connection:
        assert await connection.scalar(text("SELECT current_setting('app.tenant', true)")) == ""
"""


@pytest.mark.slow
def test_the_summary_names_a_setting_that_rollback_cannot_forget(example: Example) -> None:
    """A new connection would not have the rows of the wide fixture."""
    app = on_postgresql(example, test_it=OVER_WIDE_ROWS, seed=SEED)
    ini = f"[pytest]\nusefixtures = arena\narena_database = {SERVER}"
    app = app.change("pytest.ini", "[pytest]", ini)
    app = app.change("pytest.ini", "scope = function", "scope = session")
    run = app.run("--arena-isolation=rollback", "-oarena_roles=off", "-q").expect(passed=2)
    run.says("rollback: a custom setting that an earlier test or a wide fixture has set is ''")


POOLS = """
import asyncpg, psycopg_pool, pytest
from app import engine

URL = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
TENANT = "SELECT current_setting('app.tenant', true)"
SET = ["SET LOCAL app.tenant = '7'", "SET app.tenant = '7'", "SELECT 1"]


@pytest.fixture(scope="module")
async def of_asyncpg(arena):
    async with asyncpg.create_pool(URL, min_size=1, max_size=1) as pool:
        yield pool


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("statement", SET)
async def test_asyncpg(of_asyncpg, statement):
    async with of_asyncpg.acquire() as connection, connection.transaction():
        assert await connection.fetchval(TENANT) is None
        await connection.execute(statement)


@pytest.fixture(scope="module")
def of_psycopg(arena):
    with psycopg_pool.ConnectionPool(URL, min_size=1, max_size=1) as pool:
        yield pool


@pytest.mark.parametrize("statement", SET)
def test_psycopg(of_psycopg, statement):
    with of_psycopg.connection() as connection:
        assert connection.execute(TENANT).fetchone() == (None,)
        connection.execute(statement)
"""


@pytest.mark.slow
def test_nor_by_the_pool_of_a_driver(example: Example) -> None:
    """A fixture's pool opens another connection for the next test."""
    app = on_postgresql(example, test_it=POOLS, seed=SEED)
    ini = f"[pytest]\narena_database = {SERVER}\narena_drivers = redirect"
    app = app.change("pytest.ini", "[pytest]", ini)
    app = app.change("pytest.ini", "scope = function", "scope = session")
    app.run("--arena-isolation=undo", "-oarena_roles=off", "-p", "no:randomly").expect(passed=6)


BY_A_READER = """
from sqlalchemy import text


def seed(session):
    session.execute(text("INSERT INTO dancers (name) VALUES ('Sand')"))
    # No statement shows the reader. The database has it.
    make = '''DO $do$ BEGIN EXECUTE replace($text$MAKE$text$, '@', 'current_setting'); END $do$'''
    session.execute(text(make.replace(":", "\\\\:")))
"""
TURNS = """
import pytest
from app import engine
from sqlalchemy import text

pids = set()


@pytest.mark.parametrize("turn", range(3))
async def test_sets_a_name(turn):
    async with engine.begin() as connection:
        await connection.execute(text("SET LOCAL app.tenant = '7'"))
        pids.add(await connection.scalar(text("SELECT pg_backend_pid()")))
        if turn == 1:
            await connection.execute(text(READ))


def test_the_pool_has_opened():
    assert len(pids) == COUNT
"""
KEPT = "nullif(current_setting('app.tenant', true), '')"


def _run(example: Example, count: int, *, make: str = "SELECT 1", read: str = "SELECT 1") -> Run:
    """Run three tests that each set a name, and one that counts their connections.

    The second one reads the name.
    """
    tests = TURNS.replace("READ", repr(read)).replace("COUNT", str(count))
    app = on_postgresql(example, test_it=tests, seed=BY_A_READER.replace("MAKE", make))
    app = app.change(
        "pytest.ini", "[pytest]", f"[pytest]\nusefixtures = arena\narena_database = {SERVER}"
    )
    return app.run("--arena-isolation=undo", "-oarena_roles=off", "-p", "no:randomly")


POLICY = "CREATE POLICY p ON dancers USING ({}) WITH CHECK ({})"


@pytest.mark.slow
def test_a_policy_with_nullif_keeps_the_connection(example: Example) -> None:
    """It cannot tell '' from NULL. The settings of PostgreSQL have no dot in their names."""
    kept = KEPT.replace("current_setting", "@")
    run = _run(
        example,
        1,
        make=POLICY.format(f"name = {kept}", f"name = {kept}::varchar"),
        read=f"SELECT /* x */ NULLIF  ( {KEPT[7:]}, current_setting('search_path')",
    )
    run.expect(passed=4)


READER = "@('app.tenant', true)"
EXECUTES = "EXECUTE FUNCTION suppress_redundant_updates_trigger()"


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        POLICY.format(f"name = {READER}", "true"),
        *(
            pytest.param(make, marks=pytest.mark.slow)
            for make in (
                POLICY.format("true", f"name = nullif({READER}, 'none')"),
                POLICY.format("true", "name = nullif(@('app.tenant'), '')"),
                f"CREATE VIEW mine AS SELECT * FROM dancers WHERE name = {READER}",
                f"CREATE FUNCTION mine() RETURNS text LANGUAGE sql AS $$ SELECT {READER} $$",
                f"ALTER TABLE dancers ALTER name SET DEFAULT {READER}",
                f"ALTER TABLE dancers ADD CHECK (name <> {READER})",
                f"CREATE DOMAIN tenant AS text DEFAULT {READER}",
                f"CREATE TRIGGER mine BEFORE UPDATE ON dancers WHEN ({READER} = '') {EXECUTES}",
            )
        ),
    ],
)
def test_a_database_that_reads_the_setting_otherwise_has_a_new_one_for_each_test(
    example: Example, make: str
) -> None:
    """A policy, a view, a function, a default, a check or a trigger's condition reads it."""
    _run(example, 3, make=make).expect(passed=4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "read",
    [
        "SELECT current_setting('app.tenant', true) IS NULL",
        pytest.param('SHOW "app"."tenant"', marks=pytest.mark.slow),
    ],
)
def test_a_statement_that_reads_the_setting_otherwise_counts_from_then_on(
    example: Example, read: str
) -> None:
    """The third test has another connection. The one that it replaces has the name already."""
    _run(example, 2, read=read).expect(passed=4)


SEVERAL = """
from app import engine as async_engine
from sqlalchemy import create_engine, text

sync_engine = create_engine(async_engine.url.set(drivername="postgresql+psycopg"))
SET = text("SELECT set_config('app.tenant', 'acme', false)")
TENANT = text("SELECT current_setting('app.tenant', true)")


def test_opens_several():
    sync_engine.dispose()
    with sync_engine.connect(), sync_engine.connect(), sync_engine.connect():
        pass


async def test_opens_several_async():
    await async_engine.dispose()
    async with async_engine.connect(), async_engine.connect(), async_engine.connect():
        pass


def test_leaves_its_tenant():
    with sync_engine.begin() as connection:
        connection.execute(SET)
    with sync_engine.begin() as connection:
        assert connection.scalar(TENANT) == "acme"


async def test_leaves_its_tenant_async():
    async with async_engine.begin() as connection:
        await connection.execute(SET)
    async with async_engine.begin() as connection:
        assert await connection.scalar(TENANT) == "acme"
"""


@pytest.mark.slow
def test_a_request_meets_what_the_one_before_it_left_as_it_does_alone(example: Example) -> None:
    """Earlier tests have opened more connections. A pool hands out the last one that it got."""
    app = on_postgresql(example, test_it=SEVERAL, seed=SEED)
    app = app.change(
        "pytest.ini", "[pytest]", f"[pytest]\nusefixtures = arena\narena_database = {SERVER}"
    )
    app.run("-k", "leaves", "-oarena_roles=off").expect(passed=2)
    app.run("-p", "no:randomly", "-oarena_roles=off").expect(passed=4)


BEGUN = """
from app import engine
from sqlalchemy import text


async def test_begins():
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        await raw.driver_connection.execute("BEGIN; SELECT 1")


async def test_reads():
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM dancers")) == 1
"""


def test_a_transaction_that_the_pool_does_not_know_ends_with_its_test(example: Example) -> None:
    """The driver refuses the next transaction of the pooled connection."""
    app = on_postgresql(example, test_it=BEGUN, seed=SEED)
    app = app.change(
        "pytest.ini", "[pytest]", f"[pytest]\nusefixtures = client\narena_database = {SERVER}"
    )
    app.run("-oarena_roles=off", env={"PYTEST_ADDOPTS": "--arena-isolation=undo"}).expect(passed=2)
