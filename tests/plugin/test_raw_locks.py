"""A transaction that `sqlite3` holds open on a test's file: is its test named, and its line?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

TESTS = """
import sqlite3

KEPT = []


def connect(arena):
    connection = sqlite3.connect(arena.url.partition("///")[2])
    KEPT.append(connection)
    return connection


def test_left_open(arena):
    connect(arena).execute("BEGIN IMMEDIATE")  # left open


def test_next(test_client):
    assert test_client.post("/dancers/Ruby").status_code == 201


def test_begun(arena, test_client):
    connect(arena).execute("BEGIN IMMEDIATE")  # begun
    test_client.post("/dancers/Ruby")


def test_written(arena, test_client):
    connect(arena).execute("INSERT INTO dancers (name) VALUES ('Flow')")  # written
    test_client.post("/dancers/Ruby")


def test_script(arena, test_client):
    script = "BEGIN IMMEDIATE; INSERT INTO dancers (name) VALUES ('Flow')"
    connect(arena).executescript(script)  # by a script
    test_client.post("/dancers/Ruby")


def test_over(arena, test_client):
    over = connect(arena)
    over.execute("BEGIN IMMEDIATE")
    over.commit()
    closed = connect(arena)
    closed.execute("BEGIN IMMEDIATE")
    closed.close()
    rows = connect(arena).execute("SELECT id FROM dancers UNION ALL SELECT 2")
    next(rows)
    KEPT.append(rows)
    test_client.post("/dancers/Ruby")
"""
# A request waits only shortly for the lock.
CONFIG = "arena_lock_timeout = 0.1\n"


@pytest.fixture
def locking(example: Example) -> Example:
    """Tests that lock the file."""
    config = example.files["pytest.ini"].replace("    error\n", "")
    files = example.with_paths({"pytest.ini": config + CONFIG})
    return files.with_files(test_it=TESTS)


def place(comment: str) -> str:
    """Return the line of the test file that ends with a comment, as a message shows it."""
    for number, line in enumerate(TESTS.splitlines(), 1):
        if line.endswith(f"# {comment}"):
            return f"test_it.py:{number}  {line.strip()}"
    raise LookupError(comment)


def test_a_lock_that_outlives_its_test_is_named_in_the_summary(locking: Example) -> None:
    """With the test, and the line that has begun the transaction."""
    run = locking.run("-p", "no:randomly", "-k", "left_open or next").expect(passed=2)
    run.says(
        "test_it.py::test_left_open: dev: locked by a connection that no engine has opened "
        f"({place('left open')}); a new file has replaced it"
    )
    run.never_says("does not know or cannot end")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,comment",
    [("test_begun", "begun"), ("test_written", "written"), ("test_script", "by a script")],
)
def test_a_request_that_waits_for_such_a_lock_names_its_line(
    locking: Example, name: str, comment: str
) -> None:
    """The next step is to commit there."""
    run = locking.run("-k", name)
    assert run.status == 1
    run.says(
        "sqlite3.OperationalError: database is locked",
        f"a connection that no engine has opened is in a transaction: {place(comment)}",
        "next: commit it first: connection.commit(), or close the connection",
    )
    run.never_says("A result that was not read to its end")


@pytest.mark.slow
def test_transactions_that_are_over_are_not_named(locking: Example) -> None:
    """One was committed, one has ended with its connection, and one is on a replaced file."""
    run = locking.run("-p", "no:randomly", "-k", "left_open or over").expect(1, passed=1, failed=1)
    run.says("A result that was not read to its end").never_says("is in a transaction")


CLOSED = """
import sqlite3

KEPT = []


def test_closed(arena, test_client):
    connection = sqlite3.connect(arena.url.partition("///")[2])
    connection.execute("INSERT INTO dancers (name) VALUES ('Flow')")
    rows = connection.execute("SELECT 1 UNION SELECT 2")
    next(rows)
    KEPT.append(rows)
    connection.close()
    assert test_client.post("/dancers/Ruby").status_code == 201
"""


def test_a_closed_connection_holds_no_lock_while_a_cursor_exists(locking: Example) -> None:
    """SQLite alone keeps the transaction, for example of a request that was cancelled."""
    locking.with_files(test_it=CLOSED).run().expect(passed=1)
