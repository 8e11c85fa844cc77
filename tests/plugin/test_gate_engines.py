"""Engines that are made late, for one test, of another product, or with a will of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.developer import small_example, untouched
from tests.plugin.test_guard_words import FAKE

if TYPE_CHECKING:
    from pathlib import Path

FOUND = """
import gc
import logging
import sqlite3
from unittest import mock
import pytest
from app import Base, Dancer, add, create_engine, engine, names, text
from pytest_arena._gate._known_engines import known_engines
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

def test_engines_are_found_by_their_age_and_let_go_of():
    made = [create_engine("sqlite://") for _ in range(3)]
    assert known_engines.find()[0] is engine and known_engines.find()[-3:] == made
    made.clear()
    gc.collect()
    assert known_engines.find().count(engine) == 1 and known_engines.find()[-1].url.database != ""

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

def test_a_mock_of_connect_is_not_in_arenas_way():
    made = create_engine("sqlite:///other.db")
    with mock.patch("sqlite3.connect") as connect, made.begin() as connection:
        connection.execute(text("CREATE TABLE t (a)"))
    assert not connect.called
    made.dispose()
"""


def test_engines_are_known_and_what_is_beside_them_is_let_be(tmp_path: Path) -> None:
    """From the moment they are made, however the garbage collector and tracers are set up."""
    example = small_example(tmp_path, test_found=FOUND)
    with untouched(example, "dev.db", "late.db"):
        example.run("-p", "no:randomly").expect(passed=4)


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


@pytest.mark.slow
def test_sessions_begin_and_translate_as_the_apps_engine_does(tmp_path: Path) -> None:
    """SQLAlchemy's recipe for real transactions on SQLite, and its execution options."""
    example = small_example(tmp_path, test_begin=OWN_BEGIN)
    example = example.change("app.py", 'engine = create_engine("sqlite:///dev.db")', "")
    for name in ("late", "alate"):
        example.run("-k", f"{'sync' if name == 'alate' else 'translate or nobody'}").expect(
            passed=1
        )


EACH = """
import gc
import tempfile
from pathlib import Path
import pytest
from app import Base, add, create_engine, engine, names
from pytest_arena._gate import _listeners
from sqlalchemy import create_pool_from_url
from sqlalchemy.pool import StaticPool

gc.disable()  # so that nothing here is collected by chance

def provisioned():
    return _listeners._gates[-1].core.provisioned()

@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize("same", [True, False])
def test_an_engine_on_a_file_for_each_test(turn, same):
    add(engine, "Ruby")
    made = create_engine(f"sqlite:///{'same' if same else turn}.db")
    Base.metadata.create_all(made)
    add(made, "Ruby")
    assert names(made) == ["Ruby"]
    made.dispose()
    assert len(provisioned()) == 2

@pytest.fixture(scope="class")
def filled():
    made = create_engine("sqlite:///wide.db")
    Base.metadata.create_all(made)
    add(made, "Ruby")
    made.dispose()

@pytest.mark.parametrize("turn", [1, 2])
class TestWide:
    def test_what_a_wide_fixture_wrote_stays_though_its_engine_is_gone(self, filled, turn):
        made = create_engine("sqlite:///wide.db")
        assert names(made) == ["Ruby"]
        made.dispose()

pool = create_pool_from_url("sqlite:///pooled.db")
gc.collect()  # its engine

@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_pool_whose_engine_is_gone_lands_where_the_next_engine_does(turn):
    made = create_engine("sqlite:///pooled.db")
    Base.metadata.create_all(made)
    add(made, "Ruby")
    connection = pool.connect()
    assert connection.cursor().execute("SELECT name FROM dancers").fetchall() == [("Ruby",)]
    connection.close()
    made.dispose()

@pytest.fixture
def memory():
    made = create_engine(
        "sqlite://", connect_args={"check_same_thread": False}, poolclass=StaticPool
    )
    Base.metadata.create_all(made)
    return made

@pytest.mark.parametrize("turn", range(40))
def test_an_engine_in_memory_for_each_test_that_nobody_disposes_of(memory, turn):
    add(memory, "Ruby")
    assert names(memory) == ["Ruby"]
    with memory.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "memory"
    assert not memory._has_events  # each statement would pay for it
    assert len(provisioned()) <= 5

KEPT = []

@pytest.mark.parametrize("turn", range(40))
def test_an_engine_in_memory_for_each_test_that_somebody_keeps(memory, turn):
    KEPT.append(memory)
    for kept in KEPT[-3:]:
        Base.metadata.create_all(kept)
        add(kept, f"Ruby {turn}")
        assert names(kept) == [f"Ruby {turn}"]
    assert len(provisioned()) <= 8
"""


@pytest.mark.slow
def test_databases_of_engines_that_are_made_for_one_test_do_not_pile_up(tmp_path: Path) -> None:
    """In memory and on files, disposed of or left to the garbage collector."""
    example = small_example(tmp_path, test_each=EACH)
    with untouched(example, "dev.db", "same.db", "wide.db", "pooled.db"):
        # From Python 3.13 on an engine that nobody disposes of is complained of.
        run = example.run("-W", "ignore").expect(passed=93)
    run.says("database dev and 1", " databases in memory on SQLite")


MANY = """
import pytest
from sqlalchemy import create_engine, text

engines = [create_engine(f"sqlite:///shop{number}.db") for number in range(11)]


@pytest.mark.parametrize("number", range(11))
def test_many(number):
    with engines[number].connect() as connection:
        connection.execute(text("SELECT 1"))
"""


@pytest.mark.slow
def test_of_many_databases_the_summary_names_eight(tmp_path: Path) -> None:
    """A suite may have one for each test."""
    run = small_example(tmp_path, test_many=MANY).run().expect(passed=11)
    names = ", ".join(f"shop{number}" for number in range(8))
    run.says(f"database {names} and 3 more on SQLite")


FOREIGN = """
import fake
from sqlalchemy import create_engine, text
engine = create_engine("fake://me:s3cret@db.example.com:5432/shop")

def test_session(db_session):
    db_session.execute(text("SELECT 1"))
"""


@pytest.mark.slow
def test_an_app_on_another_product_has_no_session_on_sqlite(tmp_path: Path) -> None:
    """A test on a database of its own would be green and prove nothing."""
    example = small_example(tmp_path, test_foreign=FOREIGN, fake=FAKE)
    example = example.change("app.py", 'engine = create_engine("sqlite:///dev.db")', "")
    run = example.run().expect(1, errors=1)
    run.says("the app's engines are on fake://db.example.com:5432/shop", "[A101]")
    run.never_says("s3cret")
    example.run("--arena-database=sqlite").expect(passed=1)


CACHED = """
import sqlite3
from app import add, create_engine, engine, names

def test_a_file_beside_the_templates_is_the_apps(arena):
    add(engine, "Ruby")
    assert names(engine) == ["Ruby"]
    with arena.expect_refusal():
        sqlite3.connect("data/dev.db")
"""


def test_a_cache_folder_does_not_switch_the_guard_off(tmp_path: Path) -> None:
    """What lies beside arena's own files is the app's; the project itself is no cache."""
    example = small_example(tmp_path, test_cached=CACHED)
    example = example.change("app.py", "sqlite:///dev.db", "sqlite:///data/dev.db")
    with untouched(example, "data/dev.db"):
        example.run(env={"ARENA_CACHE": "data"}).expect(passed=1)
        for folder in (".", ".."):
            run = example.run(env={"ARENA_CACHE": folder})
            assert run.status == 4, run.output
            run.says("the project is in this folder", "[A101]")
