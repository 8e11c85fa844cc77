"""What a wider fixture sets in a pooled connection is there for its tests, and no longer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.plugin.developer import small_example
from tests.plugin.test_leaks_scoped import SERVER

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Run

ASKED = """
import pytest
from app import engine
from sqlalchemy import text

def asked():
    with engine.connect() as connection:
        one = connection.scalar(text({shown!r}))
        return one, connection.scalar(text("SELECT count(*) FROM {tables} WHERE name = 'kept'"))

def send(*statements):
    with engine.begin() as connection:
        for each in statements:
            connection.execute(text(each))
"""
KEPT = (
    ASKED
    + """
@pytest.fixture(scope="module")
def settings():
    send({set!r}, "CREATE TEMPORARY TABLE kept (id INTEGER)")

@pytest.fixture(scope="module")
def another(settings):
    assert asked() == ({on!r}, 1)

@pytest.mark.parametrize("turn", range(3))
def test_it_is_there(settings, another, turn):
    assert asked() == ({on!r}, 1)
"""
)
OVER = (
    ASKED
    + """
def test_it_is_over():
    assert asked() == ({off!r}, 0)
"""
)
CHANGES = (
    KEPT
    + """
    if turn == 2:
        send("CREATE TEMPORARY TABLE own (id INTEGER)")

def test_one_that_comes_later(settings):
    assert asked() == ({off!r}, 0)
"""
)
WIDER = """
@pytest.fixture(scope="session")
def wider():
    send("CREATE TEMPORARY TABLE wider (id INTEGER)")
"""
LITE = {
    "set": "PRAGMA foreign_keys = ON",
    "shown": "PRAGMA foreign_keys",
    "off": 0,
    "on": 1,
    "tables": "sqlite_temp_master",
}
SERVERS = {
    "set": "SET work_mem = 4321",
    "shown": "SHOW work_mem",
    "off": "4MB",
    "on": "4321kB",
    "tables": "(SELECT relname AS name FROM pg_class WHERE relnamespace = pg_my_temp_schema()) t",
}
TOLD = "a pooled connection has lost a setting of a wider fixture"
IN_PLACE = ["copy", pytest.param("undo", marks=pytest.mark.slow)]


def run_on(isolation: str, folder: Path, names: str = "", **files: str) -> Run:
    """Run these tests on a file, or on a server; all of them, or those with these names."""
    words = LITE if isolation == "copy" else SERVERS
    project = small_example(folder, **{name: text.format(**words) for name, text in files.items()})
    env = {"PYTEST_ADDOPTS": f"--arena-verify --arena-isolation={isolation}"}
    if isolation != "copy":
        project = project.change("app.py", "sqlite:///dev.db", SERVER)
        env["ARENA_DATABASE"] = os.environ["TESTS_POSTGRESQL"]
    return project.run("-p", "no:randomly", "-k", names, env=env)


@pytest.mark.parametrize("isolation", IN_PLACE)
def test_what_a_wide_fixture_sets_lasts_as_long_as_it_pitfall_132(
    tmp_path: Path, isolation: str
) -> None:
    """P6: the first test's end took it away, and no line told; the next module begins anew."""
    run = run_on(isolation, tmp_path, test_1=KEPT, test_2=OVER).expect(passed=4)
    run.never_says(TOLD)


@pytest.mark.parametrize("isolation", IN_PLACE)
def test_a_test_that_changes_the_same_connection_is_named_pitfall_132(
    tmp_path: Path, isolation: str
) -> None:
    """It is given up, as what a test has set is not to stay; what was below it goes with it."""
    run = run_on(isolation, tmp_path, test_1=CHANGES, test_2=OVER).expect(passed=5)
    run.says(TOLD)


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["copy", "undo"])
def test_a_fixture_that_changes_it_as_well_is_named_pitfall_132(
    tmp_path: Path, isolation: str
) -> None:
    """It ends first, and the connection with it: what the wider one had set is lost, and told."""
    text = KEPT.replace("settings():", "settings(wider):") + WIDER
    run_on(isolation, tmp_path, test_1=text, test_2=text).says(TOLD)


@pytest.mark.slow
def test_where_each_test_has_another_database_it_is_told_pitfall_132(tmp_path: Path) -> None:
    """A connection to a server's database lands nowhere else."""
    run_on("clone", tmp_path, test_1=KEPT, test_2=OVER).says(TOLD)


HOLDS = (
    ASKED
    + """
@pytest.fixture(scope="module")
def held():
    with engine.connect() as connection:
        connection.execute(text({set!r}))
        connection.commit()
        yield connection

def test_that_writes(held):
    send("INSERT INTO dancers VALUES ('Sand')")

def test_after_it(held):
    held.commit()
"""
)


@pytest.mark.slow
def test_a_connection_that_a_fixture_holds_is_named_pitfall_132(tmp_path: Path) -> None:
    """Its fixture has another connection after each test that wrote, without a word before."""
    run_on("clone", tmp_path, test_1=HOLDS).expect(passed=2).says(TOLD)


MADE = """
import pytest
from app import engine
from sqlalchemy import event, text


@event.listens_for(engine, "connect")
def connect(connection, record):
    connection.cursor().{how}("CREATE {kind} IF NOT EXISTS made (id INTEGER)")
    connection.commit()


def fill():
    with engine.begin() as connection:
        before = connection.scalar(text("SELECT count(*) FROM made"))
        connection.execute(text("INSERT INTO made VALUES (1)"))
    with engine.begin() as connection:
        return before, connection.scalar(text("SELECT count(*) FROM made"))


@pytest.mark.parametrize("turn", range(3))
def test_it_is_empty(turn):
    assert fill() == (0, 1)


@pytest.fixture(scope="module")
def dancer():
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO dancers VALUES ('wide')"))


@pytest.mark.parametrize("turn", range(3))
def test_beside_a_wide_fixture(dancer, turn):
    assert fill() == (0, 1)
"""


@pytest.mark.parametrize("kind", ["TEMPORARY TABLE", pytest.param("TABLE", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "isolation, how",
    [
        ("copy", "execute"),
        pytest.param("copy", "executescript", marks=pytest.mark.slow),
        pytest.param("undo", "execute", marks=pytest.mark.slow),
    ],
)
def test_a_table_of_a_connect_listener_is_there_and_empty_in_each_test(
    tmp_path: Path, isolation: str, how: str, kind: str
) -> None:
    """Its rows end with their test. If the table does too, a new connection makes it again."""
    text = MADE.replace("{how}", how).replace("{kind}", kind)
    run_on(isolation, tmp_path, test_1=text).expect(passed=6).never_says(TOLD)


BELOW = '''
import pytest
from app import engine as psycopg_engine
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine

URL = psycopg_engine.url
engine = create_async_engine(URL.set(drivername="postgresql+asyncpg"))
ENGINES = [psycopg_engine, create_engine(URL.set(drivername="postgresql+psycopg2"))]
ALTERING = {{
    "setting": "SET work_mem = 4321",
    "call": "SELECT set_config('app.tenant', 'me', false)",
    "temporary table": "CREATE TEMP TABLE left_over (id INTEGER)",
    "lock": "SELECT pg_advisory_lock(77)",
    "listener": "LISTEN orders",
}}
STATE = """
SELECT current_setting('work_mem'), coalesce(current_setting('app.tenant', true), ''),
    (SELECT count(*) FROM pg_class WHERE relname = 'left_over'),
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77),
    (SELECT count(*) FROM pg_listening_channels())
"""
CLEAN = ("4MB", "", 0, 0, 0)


@pytest.mark.parametrize("kind", [*ALTERING, "nothing"])
async def test_async(kind):
    async with engine.connect() as connection:
        assert tuple((await connection.execute(text(STATE))).one()) == CLEAN
        await connection.rollback()
        driver = (await connection.get_raw_connection()).driver_connection
        if kind == "listener":
            await driver.add_listener("orders", print)
        else:
            await driver.execute(ALTERING.get(kind, "SELECT 1"))


@pytest.mark.parametrize("kind", [*ALTERING, "nothing"])
@pytest.mark.parametrize("sync_engine", ENGINES, ids=str)
def test_sync(kind, sync_engine):
    with sync_engine.connect() as connection:
        assert tuple(connection.execute(text(STATE)).one()) == CLEAN
        driver = connection.connection.driver_connection
        driver.cursor().execute(ALTERING.get(kind, "SELECT 1"))
        driver.commit()


@event.listens_for(ENGINES[0], "checkout")
def set_tenant(dbapi_connection, *_):
    if HAS_TENANT:
        dbapi_connection.cursor().execute("SELECT set_config('app.tenant', 'me', false)")
        dbapi_connection.commit()


HAS_TENANT = []


def test_at_a_checkout():
    HAS_TENANT.append(True)
    with ENGINES[0].connect():
        HAS_TENANT.clear()


def test_after_it():
    with ENGINES[0].connect() as connection:
        assert tuple(connection.execute(text(STATE)).one()) == CLEAN
'''


@pytest.mark.slow
def test_what_is_set_below_an_engine_ends_with_its_test(tmp_path: Path) -> None:
    """By the driver's connection or cursor, which a listener of the pool may use too."""
    run_on("undo", tmp_path, test_1=BELOW).expect(passed=20)


DRIVERS = '''
import sqlite3

import pytest
from app import engine
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

URL = engine.url
if URL.drivername == "sqlite":
    SYNC = {{"sqlite3": engine}}
    ASYNC = {{"aiosqlite": create_async_engine(URL.set(drivername="sqlite+aiosqlite"))}}
else:
    import psycopg
    from psycopg import rows
    from psycopg.types.string import StrDumper
    from psycopg2 import extensions, extras

    ASYNC = {{}}
    for name in ("asyncpg", "psycopg_async"):
        ASYNC[name] = create_async_engine(URL.set(drivername=f"postgresql+{{name}}"))
    SYNC = {{
        "psycopg": engine,
        "psycopg2": create_engine(URL.set(drivername="postgresql+psycopg2")),
    }}

CHANGES = {{
    "sqlite3": [
        lambda driver: setattr(driver, "row_factory", sqlite3.Row),
        lambda driver: setattr(driver, "text_factory", bytes),
        lambda driver: setattr(driver, "isolation_level", None),
        lambda driver: driver.create_function("own", 0, lambda: 1),
        lambda driver: driver.create_aggregate("own", 0, object),
        lambda driver: driver.create_collation("own", lambda one, other: 0),
        lambda driver: driver.set_trace_callback(print),
        lambda driver: driver.set_progress_handler(lambda: 0, 100),
        lambda driver: driver.set_authorizer(lambda *_: 0),
        lambda driver: driver.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 5),
    ],
    "aiosqlite": [
        lambda driver: setattr(driver, "row_factory", sqlite3.Row),
        lambda driver: driver.create_function("own", 0, lambda: 1),
        lambda driver: driver.set_trace_callback(print),
    ],
    "psycopg": [
        lambda driver: setattr(driver, "autocommit", True),
        lambda driver: setattr(driver, "read_only", True),
        lambda driver: setattr(driver, "isolation_level", psycopg.IsolationLevel.SERIALIZABLE),
        lambda driver: setattr(driver, "deferrable", True),
        lambda driver: setattr(driver, "row_factory", rows.dict_row),
        lambda driver: setattr(driver, "cursor_factory", psycopg.ClientCursor),
        lambda driver: setattr(driver, "prepare_threshold", 1),
        lambda driver: driver.adapters.register_dumper(str, StrDumper),
        lambda driver: driver.adapters.register_loader("int4", psycopg.types.string.TextLoader),
        lambda driver: driver.add_notice_handler(print),
        lambda driver: driver.add_notify_handler(print),
    ],
    "psycopg2": [
        lambda driver: setattr(driver, "autocommit", True),
        lambda driver: driver.set_session(readonly=True),
        lambda driver: driver.set_isolation_level(extensions.ISOLATION_LEVEL_SERIALIZABLE),
        lambda driver: setattr(driver, "deferrable", True),
        lambda driver: setattr(driver, "cursor_factory", extras.DictCursor),
        lambda driver: extensions.register_type(extensions.FLOAT, driver),
        lambda driver: driver.set_client_encoding("LATIN1"),
    ],
    "asyncpg": [
        lambda driver: driver.set_type_codec(
            "int4", schema="pg_catalog", encoder=str, decoder=str, format="text"
        ),
        lambda driver: driver.reset_type_codec("json", schema="pg_catalog"),
        lambda driver: driver.add_log_listener(print),
        lambda driver: driver.add_query_logger(print),
        lambda driver: driver.add_termination_listener(print),
    ],
    "psycopg_async": [
        lambda driver: driver.set_autocommit(True),
        lambda driver: driver.set_read_only(True),
        lambda driver: setattr(driver, "row_factory", rows.dict_row),
        lambda driver: driver.adapters.register_dumper(str, StrDumper),
        lambda driver: driver.add_notice_handler(print),
    ],
}}
OF_ADAPTER = {{"asyncpg": ["autocommit", "readonly", "deferrable"]}}
OPTIONS = [{{"isolation_level": "AUTOCOMMIT"}}, {{"isolation_level": "SERIALIZABLE"}}]
if URL.drivername != "sqlite":
    OPTIONS.append({{"postgresql_readonly": True, "postgresql_deferrable": True}})
KEPT = []


def parameters(engines, values):
    parameters = []
    for name in engines:
        for number, value in enumerate(values(name)):
            parameters.append(pytest.param(name, value, id=f"{{name}}-{{number}}"))
    return parameters


def check(driver, *, is_kept):
    """Compare a connection with the one of the test before, which had changed it or not."""
    earlier = KEPT.pop()
    KEPT.append(driver)
    assert (earlier is driver) == is_kept


@pytest.mark.parametrize("name, change", parameters(SYNC, CHANGES.get), scope="class")
class TestSync:
    def test_changes(self, name, change):
        with SYNC[name].connect() as connection:
            connection.execute(text("SELECT 1"))
            connection.rollback()
            driver = connection.connection.driver_connection
            change(driver)
            KEPT.append(driver)

    def test_has_another(self, name, change):
        with SYNC[name].connect() as connection:
            connection.execute(text("SELECT 1"))
            check(connection.connection.driver_connection, is_kept=False)

    def test_keeps_it(self, name, change):
        with SYNC[name].connect() as connection:
            connection.execute(text("SELECT 1"))
            check(connection.connection.driver_connection, is_kept=True)


@pytest.mark.parametrize("name, options", parameters(SYNC, lambda name: OPTIONS), scope="class")
class TestSyncOptions:
    def test_first(self, name, options):
        with SYNC[name].connect().execution_options(**options) as connection:
            connection.execute(text("SELECT 1"))
            KEPT.append(connection.connection.driver_connection)

    def test_has_the_same(self, name, options):
        with SYNC[name].connect() as connection:
            check(connection.connection.driver_connection, is_kept=True)


async def changed(connection, change):
    raw = await connection.get_raw_connection()
    if isinstance(change, str):
        setattr(raw.dbapi_connection, change, True)
        return raw.driver_connection
    done = change(raw.driver_connection)
    if hasattr(done, "__await__"):
        await done
    return raw.driver_connection


def async_changes(name):
    return CHANGES[name] + OF_ADAPTER.get(name, [])


@pytest.mark.parametrize("name, change", parameters(ASYNC, async_changes), scope="class")
class TestAsync:
    async def test_changes(self, name, change):
        async with ASYNC[name].connect() as connection:
            await connection.execute(text("SELECT 1"))
            await connection.rollback()
            KEPT.append(await changed(connection, change))

    async def test_has_another(self, name, change):
        async with ASYNC[name].connect() as connection:
            await connection.execute(text("SELECT 1"))
            check((await connection.get_raw_connection()).driver_connection, is_kept=False)

    async def test_keeps_it(self, name, change):
        async with ASYNC[name].connect() as connection:
            await connection.execute(text("SELECT 1"))
            check((await connection.get_raw_connection()).driver_connection, is_kept=True)


@pytest.mark.parametrize("name, options", parameters(ASYNC, lambda name: OPTIONS), scope="class")
class TestAsyncOptions:
    async def test_first(self, name, options):
        async with ASYNC[name].connect() as connection:
            await connection.execution_options(**options)
            await connection.execute(text("SELECT 1"))
            KEPT.append((await connection.get_raw_connection()).driver_connection)

    async def test_has_the_same(self, name, options):
        async with ASYNC[name].connect() as connection:
            check((await connection.get_raw_connection()).driver_connection, is_kept=True)
'''


# An option, a listener, a type, a class of rows: what has an end of its own in each driver.
FEW = ("asyncpg-0", "asyncpg-5", "psycopg-4", "psycopg2-4")


@pytest.mark.parametrize(
    "isolation, names, tests",
    [
        pytest.param("copy", (), 47, id="copy-47", marks=pytest.mark.slow),
        pytest.param("undo", FEW, 14, id="undo-14"),
        pytest.param("undo", (), 117, id="undo-117", marks=pytest.mark.slow),
    ],
)
def test_what_is_set_in_a_drivers_connection_ends_with_its_test(
    tmp_path: Path, isolation: str, names: tuple[str, ...], tests: int
) -> None:
    """SQLAlchemy resets what it sets for a checkout: the connection stays."""
    run_on(isolation, tmp_path, " or ".join(names), test_1=DRIVERS).expect(passed=tests)


SANDBOX = """
import sqlite3

import pytest
from app import engine
from sqlalchemy import create_engine, event, text

sandbox = create_engine(engine.url)


def allows(action, *names):
    if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_IGNORE if action == sqlite3.SQLITE_PRAGMA else sqlite3.SQLITE_DENY


@event.listens_for(sandbox, "connect")
def protect(connection, record):
    connection.set_authorizer(allows)


@pytest.mark.parametrize("turn", range(2))
def test_it(turn):
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO dancers VALUES ('Sand')"))
    with sandbox.connect() as connection:
        assert connection.scalars(text("SELECT name FROM dancers")).all() == ["Sand"]
        with pytest.raises(Exception, match="not authorized"):
            connection.execute(text("DELETE FROM dancers"))
"""


def test_an_authorizer_of_a_sandbox_stays(tmp_path: Path) -> None:
    """It denies the statements with which pytest-arena reads the settings, too."""
    small_example(tmp_path, test_1=SANDBOX).run().expect(passed=2)
