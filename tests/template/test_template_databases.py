"""Templates that are databases: every form and driver, found again, killed, waited for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from pytest_arena._postgresql._control import ControlFailure
from pytest_arena._values import Stage
from pytest_arena.errors import ServerError, TemplateError
from tests.template.test_template_builders import ASYNC_SEED, BASE, FUNCTIONS

if TYPE_CHECKING:
    from tests.template.server_project import ServerProject

FORMS = f"""{FUNCTIONS.replace("integer", "serial")}
def writes_on(connection):
    connection.execute(CREATE)
    left = connection.engine.connect()
    left.execute(text("create table left_open (id int)"))
    LEFT.append(left)

LEFT = []
"""

SCRIPT = "create table dancers (id serial primary key, name text);"


@pytest.mark.parametrize(
    "driver,schema,seed",
    [("psycopg2", "base:Base", "later:seed"), ("asyncpg", "all.sql", "seed:seed")],
)
def test_each_form_makes_the_tables_by_each_driver(
    on_server: ServerProject, driver: str, schema: str, seed: str
) -> None:
    """An async driver does for sync functions; a sync one's app may have async functions."""
    (on_server.root / "all.sql").write_text(SCRIPT)
    on_server.write(base=BASE, forms=FORMS, later=f"import helper\n{ASYNC_SEED}")
    on_server.driver, on_server.schema, on_server.seed = driver, schema, seed
    assert on_server.names() == ["Sand"]


def test_a_build_that_leaves_a_transaction_open_leaves_nothing_on_the_server(
    on_server: ServerProject,
) -> None:
    """The error names the builder's line, and what to do."""
    on_server.write(forms=FORMS)
    on_server.schema = "forms:writes_on"
    with pytest.raises(TemplateError, match="left a transaction open") as caught:
        on_server.ensure(stage=Stage.SCHEMA)
    assert "def writes_on" in caught.value.cause
    assert "commit and close" in caught.value.fix
    assert on_server.databases() == []


def test_a_server_that_is_gone_is_named(
    on_server: ServerProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> str:
        raise ControlFailure("server closed the connection unexpectedly")

    monkeypatch.setattr(on_server.own.control, "_execute", gone)
    with pytest.raises(ServerError, match="has stopped or is restarting") as caught:
        on_server.ensure()
    assert on_server.own.address_of("").server in caught.value.what


ENUM = """
from sqlalchemy import ARRAY, Column, Enum, Integer, MetaData, String, Table
metadata = MetaData()
kind = Enum("tango", "vals", name="kind")
Table("dancers", metadata, Column("id", Integer, primary_key=True), Column("name", String),
      Column("kind", kind), Column("all", ARRAY(kind)), schema="stage")
Table("dancers", metadata, Column("id", Integer, primary_key=True), Column("name", String))
"""


def test_an_enum_type_is_there_and_create_all_makes_no_second_one(on_server: ServerProject) -> None:
    """In a copy, as often as an app or a test calls it; its schema was made as well."""
    on_server.write(models=ENUM)
    on_server.seed = ""
    with on_server.on_a_copy() as engine:
        metadata = importlib.import_module("models").metadata
        metadata.create_all(engine)
        metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(text("insert into stage.dancers (kind) values ('tango')"))
            types = text("select count(*) from pg_type where typname = 'kind'")
            assert connection.scalar(types) == 1
            assert connection.scalar(text("select kind from stage.dancers")) == "tango"


def test_a_listener_of_ones_own_makes_its_schema_itself(on_server: ServerProject) -> None:
    on_server.write(
        models=ENUM + "from sqlalchemy import DDL, event\n"
        "event.listen(metadata, 'before_create', DDL('create schema stage'))\n"
    )
    on_server.seed = ""
    assert on_server.ensure()


SETTINGS = """
from sqlalchemy import text
def build(connection):
    connection.execute(text("create table dancers (id serial primary key, name text)"))
    connection.execute(text("create schema shop"))
    connection.execute(text("create extension citext schema shop"))
    connection.execute(text(
        "do $$ begin execute format('alter database %I set timezone = ''Asia/Tokyo''', "
        "current_database()); end $$"))
"""


def test_settings_and_extensions_of_the_database_are_in_each_copy(on_server: ServerProject) -> None:
    on_server.write(settings=SETTINGS)
    on_server.schema = "settings:build"
    asked = "select current_setting('timezone'), 'A'::shop.citext operator(shop.=) 'a'"
    assert on_server.rows(asked) == [("Asia/Tokyo", True)]
