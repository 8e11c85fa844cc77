"""Connections of sqlite3 itself: a refused one, also if the app catches the error, and a lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.plugin.developer import small_example, untouched

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

SWALLOWED = """
import sqlite3
import pytest

def swallow():
    try:
        sqlite3.connect("dev.db")  # the user's line
    except Exception:
        pass

def test_swallowed():
    swallow()
    swallow()

def test_raised():
    sqlite3.connect("dev.db")  # the user's line

def test_expected_by_pytest():
    with pytest.raises(Exception):
        sqlite3.connect("dev.db")

def test_expected(arena):
    with arena.expect_refusal():
        swallow()
"""


def test_a_refusal_fails_its_test_once(tmp_path: Path) -> None:
    """Also if the app swallows it."""
    example = small_example(tmp_path, test_it=SWALLOWED)
    with untouched(example):
        run = example.run().expect(1, failed=3, passed=1)
    run.says("the app, or a program, caught or lost this error", "# the user's line")
    run.never_says("site-packages/sqlalchemy", "src/pytest_arena/_gate")


PROGRAM = """
import subprocess, sys
code = "import psycopg; psycopg.connect('postgresql://me@db.example.org/other')"
subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
"""


def test_a_refusal_in_a_program_of_a_conftest_fails_the_first_test(tmp_path: Path) -> None:
    """The program begins before the template is built."""
    example = small_example(tmp_path, test_it="def test_it(db_session): ...", conftest=PROGRAM)
    example.run().expect(1, errors=1).says("db.example.org:5432/other")


LEFT_OPEN = """
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
    project = example.change("pytest.ini", "    error\n", "").with_files(test_it=LEFT_OPEN)
    run = project.run("-p", "no:randomly", "-oarena_lock_timeout=0.1").expect(passed=2)
    run.says("test_it.py::test_left_open: dev: ", "a new file has replaced it")
