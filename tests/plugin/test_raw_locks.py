"""A transaction that `sqlite3` holds open on a test's file."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

"""


def test_a_lock_that_outlives_its_test_is_named_in_the_summary(example: Example) -> None:
    """With the test. A new file replaces the locked one. A request waits shortly for the lock."""
    project = example.change("pytest.ini", "    error\n", "").with_files(test_it=TESTS)
    run = project.run("-p", "no:randomly", "-oarena_lock_timeout=0.1").expect(passed=2)
    run.says("test_it.py::test_left_open: dev: ", "a new file has replaced it")
