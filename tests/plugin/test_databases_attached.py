"""Files that an app attaches to each other: each is a database of the arena's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.parameters import slow_except
from tests.plugin.developer import small_example, untouched

if TYPE_CHECKING:
    from pathlib import Path

# An app whose connections have a second file. `{execute}` attaches it.
SHOP = """
import sqlite3
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

FILE = "analytics.db"

class Base(DeclarativeBase):
    pass

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)

def attach(connection, _):
    {execute}
    {mode}

engine = create_engine("sqlite:///shop.db"{options})
async_engine = create_async_engine("sqlite+aiosqlite:///shop.db"{options})
event.listen(engine, "connect", attach)
event.listen(async_engine.sync_engine, "connect", attach)
reports = create_engine("sqlite:///analytics.db")

def analytics(connection):
    connection.execute(text("CREATE TABLE visits (page TEXT)"))

def seed_shop(session):
    session.add(Order(id=1))

def seed_analytics(session):
    session.execute(text("INSERT INTO visits VALUES ('home')"))
"""

CONFIG = """
[pytest]
arena_schema =
    shop = app:Base
    analytics = app:analytics
arena_seed =
    shop = app:seed_shop
    analytics = app:seed_analytics
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
pythonpath = .
"""

TESTS = """
import sqlite3
from contextlib import closing
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
import app
from app import async_engine, engine, reports

VISIT = text("INSERT INTO analytics.visits VALUES ('shop')")
COUNT = text("SELECT (SELECT count(*) FROM orders) || ' ' || count(*) FROM analytics.visits")

HAS_VACUUM_INTO = sqlite3.sqlite_version_info >= (3, 27)

def count():
    with engine.connect() as connection:
        return connection.scalar(COUNT)

@pytest.mark.parametrize("turn", [1, 2])
def test_both_are_seeded_and_whole_again(turn):
    assert count() == "1 1"
    with engine.begin() as connection:
        connection.execute(VISIT)
        connection.execute(text("DELETE FROM orders"))
    assert count() == "0 2"
    with reports.connect() as connection:  # the same database
        assert connection.scalar(text("SELECT count(*) FROM visits")) == 2

@pytest.mark.parametrize("turn", [1, 2])
async def test_the_async_engine_sees_the_same(turn):
    async with async_engine.begin() as connection:
        assert await connection.scalar(COUNT) == "1 1"
        await connection.execute(VISIT)
    assert count() == "1 2"
    await async_engine.dispose()

def test_a_transaction_over_both_is_taken_back_in_both():
    with engine.connect() as connection:
        connection.execute(VISIT)
        connection.execute(text("DELETE FROM orders"))
        connection.rollback()
    assert count() == "1 1"

@pytest.fixture(scope="class")
def busy():
    with reports.begin() as connection:
        connection.execute(text("INSERT INTO visits VALUES ('a'), ('b')"))

class TestWide:
    @pytest.mark.parametrize("turn", [1, 2])
    def test_what_a_wide_fixture_wrote_is_there(self, busy, turn):
        assert count() == "1 3"
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM analytics.visits"))

def test_and_gone_after_it():
    assert count() == "1 1"

def test_a_raw_connection_to_the_arenas_file_is_led_as_well(arena):
    with closing(sqlite3.connect(arena.url.partition(":///")[2])) as raw:
        raw.execute("ATTACH 'analytics.db' AS x")
        assert raw.execute("SELECT page FROM x.visits").fetchall() == [("home",)]

def test_what_is_nobodys_is_as_it_was(tmp_path):
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        raw.execute("ATTACH ':memory:' AS m")
        raw.execute("CREATE TABLE m.t (a)")
        raw.execute("ATTACH ? AS own", (str(tmp_path / "own.db"),))
        raw.execute("CREATE TABLE own.t (a)")
        files = [row[2] for row in raw.execute("PRAGMA database_list")]
        assert files[-2:] == ["", str(tmp_path / "own.db")]
        raw.execute("VACUUM")
        if HAS_VACUUM_INTO:
            raw.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
            assert (tmp_path / "copy.db").exists()
    assert (tmp_path / "own.db").exists()

def test_detached_and_attached_anew():
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        for _ in range(2):
            raw.execute("DETACH analytics")
            raw.executescript("SELECT 1; ATTACH 'analytics.db' AS analytics;")
        assert connection.scalar(COUNT) == "1 1"

def test_a_file_that_nobody_else_names_is_a_database_of_its_own():
    with engine.begin() as connection:
        connection.exec_driver_sql("ATTACH 'third.db' AS third")
        connection.exec_driver_sql("CREATE TABLE third.t (a)")

def test_and_is_empty_again():
    with engine.begin() as connection:
        connection.exec_driver_sql("ATTACH 'third.db' AS third")
        assert connection.exec_driver_sql("SELECT * FROM third.sqlite_master").fetchall() == []

def test_vacuum_into_a_file_of_the_app_is_refused(arena):
    if not HAS_VACUUM_INTO:
        return
    with engine.connect() as connection:
        with arena.expect_refusal() as refused:
            connection.exec_driver_sql("VACUUM INTO 'analytics.db'")  # here
    assert "# here" in refused.error.cause

held = []

def test_a_lock_that_nobody_knows_makes_a_new_file(arena):
    assert count() == "1 1"
    raw = sqlite3.connect(arena.url.partition(":///")[2].replace("shop", "analytics"))
    raw.execute("BEGIN IMMEDIATE")
    raw.execute("INSERT INTO visits VALUES ('never committed')")
    held.append(raw)

def test_and_connections_that_had_attached_the_old_one_are_dropped():
    with reports.begin() as connection:
        connection.execute(text("INSERT INTO visits VALUES ('new')"))
    assert count() == "1 2"
    held.pop().close()

def test_a_failed_statement_over_both_leaves_neither_changed():
    with engine.connect() as connection:
        with pytest.raises(IntegrityError):
            connection.execute(VISIT)
            connection.execute(text("INSERT INTO orders (id) VALUES (1)"))
            connection.commit()
    assert count() == "1 1"
"""

FORMS = {
    "literal": "connection.execute(\"ATTACH DATABASE 'analytics.db' AS analytics\")",
    "no space": "connection.execute(\"ATTACH('analytics.db')AS analytics\")",
    "question": 'connection.cursor().execute("ATTACH ? AS analytics", (FILE,))',
    "named": 'connection.cursor().execute("ATTACH :file AS analytics", {"file": FILE})',
    "uri": "connection.cursor().execute(\"ATTACH 'file:analytics.db?mode=rwc' AS analytics\")",
}
WAL = "connection.execute('PRAGMA journal_mode = WAL')"
# The file of the main database, the journal, and the class of the app's connections.
SETTINGS = {
    "literal": ("", ""),
    "no space": ("", ""),
    "question": (WAL, ""),
    "named": ("", ', connect_args={"factory": type("Mine", (sqlite3.Connection,), {})}'),
    "uri": (WAL, ', connect_args={"uri": True}'),
}


@pytest.mark.parametrize("name", slow_except(FORMS, "literal"))
def test_attached_files_are_led_into_the_arena_pitfall_102(tmp_path: Path, name: str) -> None:
    """In each form, with either journal: isolated, seeded, and one with the engine on the file."""
    mode, options = SETTINGS[name]
    app = SHOP.format(execute=FORMS[name], mode=mode or "pass", options=options)
    example = small_example(tmp_path, app=app, test_attached=TESTS)
    example = example.with_paths({"pytest.ini": CONFIG})
    with untouched(example, "shop.db", "analytics.db", "third.db"):
        run = example.run("-p", "no:randomly", "-v").expect(passed=17)
    run.says(
        "database shop, analytics, third on SQLite",
        "had shop, analytics; changed shop, analytics",
        "analytics: locked by a connection that no engine has opened (test_attached.py:",
    )


@pytest.mark.slow
def test_whoever_comes_first_makes_the_attached_database(tmp_path: Path) -> None:
    """An async connection, whose thread attaches the file; or the other engine, on the file."""
    app = SHOP.format(execute=FORMS["named"], mode="pass", options="")
    example = small_example(tmp_path, app=app, test_attached=TESTS)
    example = example.with_paths({"pytest.ini": CONFIG})
    with untouched(example, "shop.db", "analytics.db"):
        example.run("-k", "async").expect(passed=2)
        example.run("-k", "wide", "--arena-rebuild").expect(passed=2)


UNREAD = """
import pytest
from app import engine

@pytest.mark.parametrize("statement", ["ATTACH 'third.db' AS [a b]", "ATTACH third AS third"])
def test_unread(arena, statement):
    with engine.connect() as connection, arena.expect_refusal() as refused:
        connection.exec_driver_sql(statement)  # here
    assert "# here" in refused.error.cause
    assert refused.error.fix == "write ATTACH 'file.db' AS name, or bind the file by ? or :file"
"""


@pytest.mark.slow
def test_an_attach_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """SQLite would make the file in the project."""
    app = SHOP.format(execute=FORMS["literal"], mode="pass", options="")
    example = small_example(tmp_path, app=app, test_unread=UNREAD)
    example = example.with_paths({"pytest.ini": CONFIG})
    with untouched(example, "shop.db", "analytics.db", "third.db"):
        example.run().expect(passed=2)
    assert not (tmp_path / "third").exists()
