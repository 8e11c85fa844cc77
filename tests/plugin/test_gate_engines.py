"""Engines that are made late, for one test, of another product, or with a will of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.plugin.developer import small_example, untouched

if TYPE_CHECKING:
    from pathlib import Path

FOUND = """
import gc
import logging
import sqlite3
from unittest import mock
import pytest
from app import Base, Dancer, add, create_engine, engine, names, text
from pytest_arena._gate._engines import known_engines
from sqlalchemy import event, select
from sqlalchemy.pool import StaticPool

def test_an_engine_counts_as_soon_as_it_is_made_pitfall_015(arena):
    late = create_engine("sqlite:///late.db", echo=False, logging_name="late")
    gc.freeze()
    try:
        with arena.expect_refusal():
            sqlite3.connect("late.db")
    finally:
        gc.unfreeze()

def test_a_log_handler_and_a_listener_open_files_of_their_own_while_a_pool_connects(caplog):
    class Handler(logging.Handler):
        def emit(self, record):
            sqlite3.connect("log.db").close()
    def token(*_):
        sqlite3.connect("tokens.db").close()
    handler, made = Handler(), create_engine("sqlite:///dev.db", echo_pool="debug")
    logging.getLogger("sqlalchemy.pool").addHandler(handler)
    event.listen(made, "do_connect", token)
    event.listen(made, "connect", token)
    try:
        add(made, "Ruby")
    finally:
        logging.getLogger("sqlalchemy.pool").removeHandler(handler)
    assert names(engine) == ["Ruby"]
    made.dispose()

"""


def test_engines_are_known_and_what_is_beside_them_is_let_be(tmp_path: Path) -> None:
    """From the moment they are made, however the garbage collector and tracers are set up."""
    example = small_example(tmp_path, test_found=FOUND)
    with untouched(example, "dev.db", "late.db"):
        example.run("-p", "no:randomly").expect(passed=2)


OWN_BEGIN = """
import pytest
from app import Base, Dancer
from sqlalchemy import create_engine, event, func, select, text
from sqlalchemy.ext.asyncio import create_async_engine

counted = []

@pytest.fixture
def late():
    made = create_engine(
        "sqlite:///late.db", execution_options={"schema_translate_map": {"shop": None}}
    )
    @event.listens_for(made, "connect")
    def leave_it(dbapi_connection, record):
        dbapi_connection.isolation_level = None
        dbapi_connection.execute("PRAGMA foreign_keys = ON")
    @event.listens_for(made, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN")
    @event.listens_for(made, "before_cursor_execute")
    def count(*_):
        counted.append(1)
    yield made
    made.dispose()

def test_db_session_is_like_the_engine_of_a_fixture_that_nobody_has_used(late, db_session):
    assert db_session.scalar(text("PRAGMA foreign_keys")) == 1
    db_session.add(Dancer(name="Ruby"))
    db_session.flush()
    db_session.rollback()
    assert db_session.scalar(select(func.count()).select_from(Dancer)) == 0
    shop = Dancer.__table__.to_metadata(type(Base.metadata)(), schema="shop")
    assert db_session.execute(select(shop)).all() == []
    assert not counted

@pytest.fixture
def alate():
    made = create_async_engine("sqlite+aiosqlite:///late.db")
    @event.listens_for(made.sync_engine, "connect")
    def leave_it(dbapi_connection, record):
        dbapi_connection.isolation_level = None
    @event.listens_for(made.sync_engine, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN")
    return made

def test_a_sync_session_begins_as_the_async_engine_does(alate, arena):
    with arena.session() as session:
        session.add(Dancer(name="Ruby"))
        session.flush()
        session.rollback()
        assert session.scalar(select(func.count()).select_from(Dancer)) == 0
"""


def test_sessions_begin_and_translate_as_the_apps_engine_does(tmp_path: Path) -> None:
    """SQLAlchemy's recipe for real transactions on SQLite, and its execution options."""
    example = small_example(tmp_path, test_begin=OWN_BEGIN)
    example = example.change("app.py", 'engine = create_engine("sqlite:///dev.db")', "")
    for name in ("late", "alate"):
        example.run("-k", f"{'sync' if name == 'alate' else 'translate or nobody'}").expect(
            passed=1
        )
