"""Every form of ``arena_schema`` and ``arena_seed``, and what a build may not leave behind."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pytest_arena._databases._builders import schema_builder, suggested_schema
from pytest_arena._values import Stage
from pytest_arena.errors import ConfigError, TemplateError
from tests.example import APP
from tests.template.project import SEED, Project

if TYPE_CHECKING:
    from pathlib import Path

BASE = APP.partition("engine =")[0]

FUNCTIONS = """
from sqlalchemy import text

CREATE = text("create table dancers (id integer primary key, name text)")

def sync(connection):
    connection.execute(CREATE)

async def asynchronous(connection):
    await connection.execute(CREATE)

def broken(connection):
    connection.execute(text("create tabel dancers"))

async def broken_async(connection):
    await connection.execute(text("create tabel dancers"))

def two(connection, other):
    pass

def generator(connection):
    yield

def nothing(connection):
    pass

def leaves(connection):
    raise SystemExit("no configuration")
"""

SCRIPT = """
-- a remark; with a semicolon
CREATE TABLE dancers (
    id INTEGER PRIMARY KEY,
    name TEXT
);
CREATE TRIGGER shout AFTER INSERT ON dancers BEGIN
    UPDATE dancers SET name = upper(name);
END;
"""


def tables(file: Path) -> set[str]:
    with closing(sqlite3.connect(file)) as connection:
        return {name for (name,) in connection.execute("select name from sqlite_master")}


@pytest.mark.parametrize(
    "value", ["base:Base", "base:Base.metadata", "forms:sync", "forms:asynchronous", "all.sql"]
)
def test_each_form_of_a_schema_makes_the_tables(project: Project, value: str) -> None:
    (project.root / "all.sql").write_text(SCRIPT)
    project.write(base=BASE, forms=FUNCTIONS)
    project.schema = value
    assert "dancers" in tables(project.ensure())
    assert project.names() == (["SAND"] if value == "all.sql" else ["Sand"])


ASYNC_SEED = """
from sqlalchemy import text

async def seed(session):
    await session.execute(text("insert into dancers (name) values (:n)"), {"n": helper.NAME})
"""


@pytest.mark.parametrize(
    "value,says",
    [
        ("forms:two", "and is called with (connection)"),
        ("forms:generator", "is a generator function, and is called with (connection)"),
        ("forms:CREATE", "is of type TextClause, and is called with (connection)"),
        ("forms:cync", "has no attribute 'cync'"),
        ("all.sql", "there is no file"),
        ("alembic.ini", "there is no file"),
    ],
)
def test_a_schema_that_cannot_be_right_is_a_mistake_of_configuration(
    project: Project, value: str, says: str
) -> None:
    """It comes out at collection, where the function stands."""
    project.write(forms=FUNCTIONS)
    with pytest.raises(ConfigError) as caught:
        schema_builder(value, project.root, source="pytest.ini:3")
    assert says in str(caught.value)
    assert "pytest.ini:3" in caught.value.cause or "forms.py:" in caught.value.cause


@pytest.mark.parametrize(
    "value,says,line",
    [
        ("forms:broken", 'near "tabel": syntax error', "forms.py:13"),
        ("forms:broken_async", 'near "tabel": syntax error', "forms.py:16"),
        ("forms:leaves", "SystemExit: no configuration", "forms.py:28"),
        ("forms:nothing", "created no table", "models are not imported"),
        ("bad.sql", 'near "SCHEME": syntax error', "bad.sql"),
        ("models:metadata", "can't render element of type INET", "models:metadata"),
    ],
)
def test_a_build_that_fails_says_where(project: Project, value: str, says: str, line: str) -> None:
    """In the builder's own line; nothing is left that could be taken for a template."""
    (project.root / "bad.sql").write_text("-- one\nCREATE TABLE a (id);\nCREATE SCHEME b;\n")
    inet = "from sqlalchemy.dialects.postgresql import INET\n"
    project.write(
        forms=FUNCTIONS,
        models=inet + "from sqlalchemy import *\nmetadata = MetaData()\n"
        "Table('dancers', metadata, Column('id', Integer), Column('ip', INET))\n",
    )
    project.schema = value
    for _ in range(2):
        with pytest.raises(TemplateError) as caught:
            project.ensure(stage=Stage.SCHEMA)
        assert says in caught.value.what
        assert line in caught.value.cause
        assert ("with_variant" in caught.value.fix) == ("INET" in says)
    assert not list(project.cache.rglob("*.json")) + list(project.cache.rglob("*.sqlite"))


def test_a_seed_without_a_table_says_which_option_makes_it(project: Project) -> None:
    """The app may make its tables itself, but the seed comes before it."""
    project.schema = ""
    project.load("models")
    with pytest.raises(TemplateError) as caught:
        project.ensure()
    assert "no such table: dancers" in caught.value.what
    assert caught.value.fix.startswith("arena_schema = models:metadata")
    assert "seed.py:" in caught.value.cause


def test_a_schema_is_suggested_where_there_is_one_and_no_other(project: Project) -> None:
    """What is suggested can be pasted: a base of the user's, or migrations."""
    assert suggested_schema(project.root) == ""
    late = "from models import *\nclass Late(Dancer): ...\n"
    project.write(models=BASE, importing="from models import Base\n", late=late, second=BASE)
    project.load("models", "importing")
    assert suggested_schema(project.root) == "models:Base"
    project.load("models", "late")
    assert suggested_schema(project.root) == "late:Base"  # it imports all models
    project.load("models", "second")
    assert suggested_schema(project.root) == ""
    (project.root / "alembic.ini").write_text("# ours\n[alembic]\n")
    assert suggested_schema(project.root) == "alembic.ini"


WAL = SEED + "    session.execute(text('pragma user_version = 7'))\n"


def test_a_builder_that_switches_to_wal_loses_nothing(project: Project) -> None:
    """The template is one file, without side files."""
    project.write(
        forms="from sqlalchemy import text\n"
        "def wal(connection):\n"
        "    connection.connection.dbapi_connection.execute('pragma journal_mode = wal')\n"
        "    connection.execute(text('create table dancers (id int, name text)'))\n",
        seed=WAL,
    )
    project.schema = "forms:wal"
    assert project.names() == ["Sand"]
    assert not [file for file in project.cache.rglob("*") if file.name.endswith(("-wal", "-shm"))]


LOGGING = """
import asyncio, logging, logging.config
CONFIG = {
    "version": 1,
    "handlers": {"file": {"class": "logging.FileHandler", "filename": "build.log", "delay": True}},
    "root": {"handlers": ["file"], "level": "DEBUG"},
}
def seed(session):
    logging.config.dictConfig(CONFIG)
    asyncio.run(asyncio.sleep(0))
    asyncio.set_event_loop(asyncio.new_event_loop())
    asyncio.get_event_loop().close()
"""


def test_a_build_leaves_the_loggers_and_the_loop_of_the_thread(
    project: Project, tmp_path: Path
) -> None:
    """`fileConfig` of an env.py disables loggers and closes handlers."""
    project.write(seed=LOGGING)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    handler = logging.FileHandler(tmp_path / "tests.log", mode="w")
    logging.getLogger("app").addHandler(handler)
    before = (logging.root.handlers[:], logging.root.level)
    try:
        project.ensure()
        assert (logging.root.handlers, logging.root.level) == before
        assert asyncio.get_event_loop() is loop
        assert not logging.getLogger("app").disabled
        logging.getLogger("app").error("still written")
        assert "still written" in (tmp_path / "tests.log").read_text()
    finally:
        asyncio.set_event_loop(None)
        loop.close()
        handler.close()
        logging.getLogger("app").removeHandler(handler)
    assert not [one for one in threading.enumerate() if one.name == "pytest-arena-build"]


def test_a_cache_that_cannot_be_written_says_how_to_choose_another(project: Project) -> None:
    """A read-only home, as in many containers."""
    project.cache.write_text("a file, where the folder should be")
    with pytest.raises(TemplateError) as caught:
        project.ensure()
    assert "ARENA_CACHE=" in caught.value.fix
