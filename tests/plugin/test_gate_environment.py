"""The environment's database URLs lead into the arena before any of the user's code is imported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.plugin.developer import small_example, untouched

if TYPE_CHECKING:
    from pathlib import Path

VALUES = """
import os
import pytest
from sqlalchemy.engine import make_url

SERVERS = {
    "PLAIN": "postgresql+psycopg://me:s3cret@db.example.com:5432/shop?sslmode=require",
    "SOCKET": "postgresql+psycopg://me:s3cret@/shop?host=/var/run/postgresql&user=me",
    "SEVERAL": "postgresql+asyncpg:///shop?host=a.example.com:1&host=b.example.com:2",
    "MYSQL": "mysql+pymysql://me:s3cret@db/shop?unix_socket=/run/mysqld.sock&charset=utf8mb4",
    "ODBC": "mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BSERVER%3Dprod%3BPWD%3Ds3cret",
    "QUERY": "postgresql://db.example.com/shop?password=s3cret&service=prod",
}

@pytest.mark.parametrize("name", SERVERS)
def test_servers_get_a_host_that_reaches_nothing(name):
    was, now = make_url(SERVERS[name]), make_url(os.environ[name])
    assert (now.drivername, now.database) == (was.drivername, was.database)
    assert now.host == "arena.invalid"
    assert "s3cret" not in os.environ[name]
    assert {"host", "service", "unix_socket", "odbc_connect", "user"}.isdisjoint(now.query)
    assert now.query.get("sslmode") == was.query.get("sslmode")
    assert now.query.get("charset") == was.query.get("charset")

@pytest.mark.parametrize("name, value", [
    ("HALF", "sqlite://dev.db"),
    ("UNKNOWN", "sqlite:///"), ("MEMORY", "sqlite+aiosqlite://"),
    ("NAMED", "sqlite:///file:x?mode=memory&cache=shared&uri=true"),
    ("ALLOWED", "postgresql+psycopg://me:pw@ok.example.com:5432/shop"),
])
def test_what_leads_nowhere_or_is_allowed_stays_as_it_is(name, value):
    assert os.environ[name] == value

def test_a_uri_stays_a_uri():
    url = make_url(os.environ["URI"])
    assert url.database.startswith("file:/") and "dev.db" in url.database
    assert dict(url.query) == {"uri": "true", "mode": "ro"}
"""


def test_values_of_every_kind(tmp_path: Path) -> None:
    """Servers lead nowhere, also by their queries; what is allowed stays."""
    namespace: dict[str, object] = {}
    exec(VALUES, namespace)  # noqa: S102 - the text above, for the values that it expects
    servers = namespace["SERVERS"]
    assert isinstance(servers, dict)
    more = {
        "HALF": "sqlite://dev.db",
        "EMPTY": "",
        "UNKNOWN": "sqlite:///",
        "MEMORY": "sqlite+aiosqlite://",
        "NAMED": "sqlite:///file:x?mode=memory&cache=shared&uri=true",
        "ALLOWED": "postgresql+psycopg://me:pw@ok.example.com:5432/shop",
        "URI": "sqlite:///file:dev.db?mode=ro&uri=true",
    }
    env = {**servers, **more}
    options = f"[pytest]\narena_env = {', '.join(env)}\narena_allow = postgresql://ok.example.com*"
    example = small_example(tmp_path, test_values=VALUES).change("pytest.ini", "[pytest]", options)
    with untouched(example):
        example.run(env=env).expect(passed=len(servers) + 6)


READS_A_PATH = """
import os, sqlite3

def test_it():
    with sqlite3.connect(os.environ["DB_PATH"]) as connection:
        connection.execute("CREATE TABLE dancers (name)")
"""


@pytest.mark.parametrize(
    "value", ["dev.db", "/srv/me:s3cret/dev.db", "postgresql://me:s3cret@h:port/db"]
)
def test_a_value_that_is_no_url_is_refused(tmp_path: Path, value: str) -> None:
    """A path leads the app to the developer's file. The value may hold a password."""
    options = "[pytest]\narena_env = DB_PATH"
    example = small_example(tmp_path, test_it=READS_A_PATH)
    example = example.change("pytest.ini", "[pytest]", options)
    with untouched(example):
        run = example.run(env={"DB_PATH": value})
        assert run.status == 4
        run.never_says("s3cret", "Traceback")
    run.says(
        "arena_env names DB_PATH, whose value is no database URL",
        "pytest.ini names the variable",
        "DB_PATH=sqlite:///",
        "[A101]",
    )


def test_an_unset_or_empty_variable_is_allowed(tmp_path: Path) -> None:
    """The app has its URL from elsewhere then."""
    options = "[pytest]\narena_env = DB_PATH, EMPTY"
    example = small_example(tmp_path, test_it="def test_it(): pass")
    example = example.change("pytest.ini", "[pytest]", options)
    example.run(env={"EMPTY": ""}).expect(passed=1)


NAMED_BY_ARGUMENT = """
import asyncio
import os
import sys

import psycopg
import pytest
from app import Dancer, engine
from pytest_arena.errors import ProductionDatabaseError
from sqlalchemy import insert, select

READS = '''
import os, psycopg
url = os.environ["DATABASE_URL"].replace("+{driver}", "")
print(psycopg.connect(url).execute("SELECT name FROM dancers").fetchall())
'''


def write():
    if not hasattr(engine, "sync_engine"):
        with engine.begin() as connection:
            connection.execute(insert(Dancer).values(name="Sand"))
        return

    async def awrite():
        async with engine.begin() as connection:
            await connection.execute(insert(Dancer).values(name="Sand"))
        await engine.dispose()

    asyncio.run(awrite())


def test_one_database(arena):
    write()
    with arena.session(database="shop") as session:
        assert session.scalars(select(Dancer.name)).all() == ["Sand"]


def test_its_name_is_refused(arena):
    with arena.expect_refusal() as refused:
        psycopg.connect("host=db.example.org dbname=shop user=me")
    assert isinstance(refused.error, ProductionDatabaseError)


@pytest.mark.skipif("DATABASE_URL" not in os.environ, reason="the app reads no variable")
def test_a_child_reads_it(arena):
    write()
    with arena.process([sys.executable, "-c", READS], ready="('Sand',)"):
        pass
"""


@pytest.mark.parametrize(
    "driver, argument, by_variable",
    [("psycopg2", "database", False), ("asyncpg", "database", True)],
)
def test_a_database_that_only_connect_args_names(
    tmp_path: Path, driver: str, argument: str, *, by_variable: bool
) -> None:
    """It was taken for the one that a driver uses without a name: that of the user."""
    url = f"postgresql+{driver}://me:s3cret@db.example.org"
    kind = "create_async_engine" if driver == "asyncpg" else "create_engine"
    value = "os.environ['DATABASE_URL']" if by_variable else f"'{url}'"
    engine = f"import os\nengine = {kind}({value}, connect_args={{'{argument}': 'shop'}})"
    tests = NAMED_BY_ARGUMENT.replace("{driver}", driver)
    project = small_example(tmp_path, test_it=tests).change(
        "app.py", 'engine = create_engine("sqlite:///dev.db")', engine
    )
    env = {"ARENA_DATABASE": os.environ["TESTS_POSTGRESQL"]}
    if by_variable:
        env["DATABASE_URL"] = url
    found = project.run("-p", "no:randomly", env=env)
    found.says("database shop on PostgreSQL")
    if by_variable:
        found.expect(passed=3)
    else:
        found.expect(passed=2, skipped=1)
