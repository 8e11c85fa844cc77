"""Shared connections in threads, interrupted, deleted, and above a large database."""

from __future__ import annotations

import gc
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._sqlite.rollback._sharing_connection import SharingConnection
from pytest_arena.errors import IsolationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._sqlite.rollback._rollback import Rollback

NAMES = "SELECT name FROM items ORDER BY id"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT begun() UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
LARGE = """
INSERT INTO large WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
SELECT zeroblob(1000) FROM n
"""


@pytest.fixture(autouse=True)
def _closes() -> Iterator[None]:
    """Close the connections that are left."""
    yield
    while _opened:
        _opened.pop().close()


_opened: list[sqlite3.Connection] = []


def connect(isolation: Rollback, **options: Any) -> sqlite3.Connection:
    """Open a connection for any thread, which does not wait."""
    chosen = {"timeout": 0, "check_same_thread": False, **options}
    hand = SharingConnection(isolation.live, **chosen)
    _opened.append(hand)
    return hand


def begun_by(connection: sqlite3.Connection) -> threading.Event:
    """Return an event that the function ``begun()`` sets."""
    event = threading.Event()

    def begun() -> int:
        event.set()
        return 1

    connection.create_function("begun", 0, begun)
    return event


def test_an_interrupted_write_loses_itself_alone(isolation: Rollback) -> None:
    """SQLite rolls the whole real transaction back. What was committed is restored."""
    hand = connect(isolation, isolation_level=None)
    hand.execute("INSERT INTO items (name) VALUES ('kept')")
    begun = begun_by(hand)

    def interrupt() -> None:
        begun.wait()
        hand.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        hand.execute(f"INSERT INTO items (name) {ENDLESS}")
    thread.join()
    assert hand.execute(NAMES).fetchall() == [("one",), ("two",), ("kept",)]
    hand.execute("INSERT INTO items (name) VALUES ('after')")
    isolation.leave()
    assert hand.execute(NAMES).fetchall() == [("one",), ("two",)]


def test_a_waiting_writer_is_interrupted(isolation: Rollback) -> None:
    """It waits without a statement in SQLite."""
    holder, waiter = connect(isolation), connect(isolation, timeout=60)
    holder.execute("DELETE FROM parts")
    errors: list[str] = []

    def wait() -> None:
        try:
            waiter.execute("DELETE FROM items")
        except sqlite3.OperationalError as error:
            errors.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    while thread.is_alive():  # it may not wait yet
        waiter.interrupt()
        thread.join(0.01)
    assert errors == ["interrupted"]


@pytest.mark.filterwarnings("ignore:unclosed database")
def test_a_deleted_connection_is_rolled_back(isolation: Rollback) -> None:
    """The garbage collector finds it in its transaction."""
    hand: sqlite3.Connection = SharingConnection(isolation.live)
    hand.execute("DELETE FROM items")
    del hand
    gc.collect()
    other = connect(isolation)
    other.execute("INSERT INTO items (name) VALUES ('x')")
    other.commit()
    assert other.execute(NAMES).fetchall() == [("one",), ("two",), ("x",)]


def test_a_function_that_reads_by_another_connection(isolation: Rollback) -> None:
    """It runs inside of a statement."""
    hand, other = connect(isolation), connect(isolation)
    count = "SELECT count(*) FROM items"
    hand.create_function("ask", 0, lambda: other.execute(count).fetchone()[0])
    assert hand.execute("SELECT ask() FROM items").fetchall() == [(2,), (2,)]


def test_moments_while_a_transaction_is_open(isolation: Rollback) -> None:
    """Uncommitted rows are no change."""
    hand = connect(isolation)
    before = isolation.moment()
    hand.execute("INSERT INTO items (name) VALUES ('x')")
    assert isolation.moment() is before
    assert isolation.rows_changed() == []
    hand.commit()
    [rows] = isolation.rows_changed(before, isolation.moment())
    assert (rows.table, rows.removed, rows.added) == ("items", (), ((3, "x"),))


def test_threads_that_write_at_once(isolation: Rollback) -> None:
    """Each waits for the others."""
    hands = [connect(isolation, timeout=60) for _ in range(6)]

    def work(hand: sqlite3.Connection, number: int) -> None:
        for turn in range(10):
            hand.execute("INSERT INTO items (name) VALUES (?)", (f"{number}-{turn}",))
            hand.execute(NAMES).fetchall()
            hand.commit()

    threads = [threading.Thread(target=work, args=(hand, n)) for n, hand in enumerate(hands)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hands[0].execute("SELECT count(*) FROM items").fetchone() == (62,)


@pytest.mark.slow
def test_a_level_is_left_by_force_while_a_statement_runs(isolation: Rollback) -> None:
    """The statement is interrupted."""
    hand = connect(isolation)
    begun = begun_by(hand)
    errors: list[str] = []

    def run() -> None:
        try:
            hand.execute(f"SELECT count(*) FROM ({ENDLESS})")
        except sqlite3.OperationalError as error:
            errors.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait()
    isolation.leave_by_force()
    thread.join()
    assert errors == ["interrupted"]


def test_a_transaction_that_was_cut_off(isolation: Rollback) -> None:
    """It says so until it is rolled back."""
    hand = connect(isolation)
    hand.execute("DELETE FROM items")
    isolation.leave_by_force()
    for call in (lambda: hand.execute(NAMES), hand.commit):
        with pytest.raises(sqlite3.OperationalError, match="rolled back at the end of the test"):
            call()
    hand.rollback()
    assert hand.execute(NAMES).fetchall() == [("one",), ("two",)]


def test_a_large_database(isolation: Rollback, told: list[str]) -> None:
    """It is not copied for each transaction. A line says what a reader may see."""
    hand, writer = connect(isolation, isolation_level=None), connect(isolation)
    hand.execute("CREATE TABLE large (a)")
    hand.execute(LARGE)
    assert isolation.moment() is None
    writer.execute("INSERT INTO items (name) VALUES ('x')")
    assert hand.execute(NAMES).fetchall() == [("one",), ("two",), ("x",)]
    assert "may read uncommitted rows of another connection" in told[0]
    with pytest.raises(IsolationError, match="cannot be read now"):
        isolation.rows_changed()
    writer.rollback()
    isolation.enter()
    hand.execute("DELETE FROM large")
    assert isolation.leave()
    assert hand.execute("SELECT count(*) FROM large").fetchone() == (3000,)


def test_levels_before_the_first_connection(isolation: Rollback) -> None:
    """They have no savepoint until the real connection is opened."""
    isolation.forget()
    isolation.enter()
    isolation.enter()
    isolation.forget()
    hand = connect(isolation, isolation_level=None)
    isolation.enter()
    hand.execute("DELETE FROM items")
    assert isolation.leave()
    assert hand.execute(NAMES).fetchall() == [("one",), ("two",)]
    assert not isolation.leave()


def test_a_cursor_whose_rows_another_transaction_replaces(isolation: Rollback) -> None:
    """It has its rows, and is closed without an error."""
    reader, writer = connect(isolation), connect(isolation)
    cursors = []
    for name in "xyz":
        writer.execute("INSERT INTO items (name) VALUES (?)", name)
        cursors.append(reader.execute(NAMES))
        writer.commit()
    isolation.leave_by_force()  # opens the real connection again
    for number, cursor in enumerate(cursors):
        assert len(cursor.fetchall()) == 2 + number
        assert cursor.fetchone() is None
        cursor.close()
        with pytest.raises(sqlite3.ProgrammingError, match="closed cursor"):
            cursor.fetchone()
