"""The environment's database URLs lead into the arena before any of the user's code is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.plugin.developer import small_example, untouched

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

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

STAYS = {
    "HALF": "sqlite://dev.db",
    "UNKNOWN": "sqlite:///",
    "MEMORY": "sqlite+aiosqlite://",
    "NAMED": "sqlite:///file:x?mode=memory&cache=shared&uri=true",
    "ALLOWED": "postgresql+psycopg://me:pw@ok.example.com:5432/shop",
}

@pytest.mark.parametrize("name", STAYS)
def test_what_leads_nowhere_or_is_allowed_stays_as_it_is(name):
    assert os.environ[name] == STAYS[name]

def test_a_uri_stays_a_uri():
    url = make_url(os.environ["URI"])
    assert url.database.startswith("file:/") and "dev.db" in url.database
    assert dict(url.query) == {"uri": "true", "mode": "ro"}
"""


def test_values_of_every_kind(tmp_path: Path) -> None:
    """A variable may be empty or unset: the app has its URL from elsewhere then."""
    namespace: dict[str, Any] = {}
    exec(VALUES, namespace)  # noqa: S102 - the text above, for the values that it expects
    values = {**namespace["SERVERS"], **namespace["STAYS"]}
    env = {**values, "EMPTY": "", "URI": "sqlite:///file:dev.db?mode=ro&uri=true"}
    options = (
        f"[pytest]\narena_env = {', '.join(env)}, UNSET\narena_allow = postgresql://ok.example.com*"
    )
    example = small_example(tmp_path, test_values=VALUES).change("pytest.ini", "[pytest]", options)
    with untouched(example):
        example.run(env=env).expect(passed=len(values) + 1)


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
    example = small_example(tmp_path, test_it=READS_A_PATH)
    example = example.change("pytest.ini", "[pytest]", "[pytest]\narena_env = DB_PATH")
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


TWO = """
import os
from app import add, names
from sqlalchemy import create_engine

def test_each_variable_and_its_literal_url_lead_to_one_database():
    for variable, url in {"A_URL": "sqlite:///a.db", "B_URL": "sqlite:///b.db"}.items():
        engines = [create_engine(os.environ[variable]), create_engine(url)]
        add(engines[0], variable)
        assert names(engines[1]) == [variable]
        for engine in engines:
            engine.dispose()

def test_the_first_variable_names_the_first_database(arena):
    assert arena.url == os.environ["A_URL"]
"""


def test_a_worker_knows_the_original_of_each_variable(tmp_path: Path) -> None:
    """A worker inherits the redirected URLs."""
    options = "[pytest]\narena_env = A_URL, B_URL"
    example = small_example(tmp_path, test_two=TWO).change("pytest.ini", "[pytest]", options)
    env = {"A_URL": "sqlite:///a.db", "B_URL": "sqlite:///b.db"}
    example.run("-p", "xdist.plugin", "-n1", env=env).expect(passed=2)


USES_THE_APP = """
async def test_the_app_has_its_schema_and_seed(client, db_session, arena):
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert arena.url.endswith("{name}") and str(arena.engine.url) == arena.url
"""

WRITES_ANEW = """
import os
os.environ["DATABASE_URL"] = "sqlite+aiosqlite:///for_tests.db"
"""


def test_a_variable_that_a_conftest_writes_anew_names_the_first_database(
    example: Example,
) -> None:
    """Also where it named another database before, which pytest-arena had redirected."""
    tests = example.with_files(
        conftest=WRITES_ANEW, test_env=USES_THE_APP.format(name="for_tests.db")
    )
    tests.run(env={"DATABASE_URL": "sqlite+aiosqlite:///dev.db"}).expect(passed=1)


TABLES_AT_IMPORT = """
from sqlalchemy import create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase): pass

class Dancer(Base):
    __tablename__ = "dancers"
    id: Mapped[int] = mapped_column(primary_key=True)

engine = create_engine("sqlite:///dev.db")
Base.metadata.create_all(engine)
"""

COUNTS = """
import main
from sqlalchemy import text

def test_the_tables_are_there(db_session):
    assert db_session.scalar(text("SELECT count(*) FROM dancers")) == 0
"""


def test_an_app_that_makes_its_tables_while_it_is_imported(example: Example) -> None:
    """The template is built of the very module that is being imported; nobody waits for ever."""
    config = "[pytest]\npythonpath = .\narena_schema = main:Base\n"
    tests = example.with_files(main=TABLES_AT_IMPORT, test_main=COUNTS)
    tests.with_paths({"pytest.ini": config}).run().expect(passed=1)
