"""The few lines at the end: which databases, what they cost, what was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.example import Example

TESTS = """
async def test_reads(client):
    await client.get("/dancers")

async def test_writes(client):
    await client.post("/dancers/Dune")

def test_neither():
    pass
"""

OUTSIDE = """
import sqlite3

def pytest_sessionfinish():
    try:
        sqlite3.connect("dev.db")
    except Exception:
        pass
"""


def test_the_summary_explains_the_run(example: Example) -> None:
    run = example.with_files(test_sum=TESTS).run().expect(passed=3)
    run.says("test databases in place of dev (app:Base, seed:seed) on SQLite", "template built in")
    run.says("for each other test", "2 of 3 tests used a database of their own, and 1 changed it")


def test_quiet_says_only_what_made_the_run_fail(example: Example) -> None:
    """Nothing at all, or each refusal outside of any test in full: it makes the exit status 1."""
    project = example.with_files(test_sum=TESTS)
    project.run("-q").expect(passed=3).never_says("database", "arena")
    run = project.with_files(conftest=OUTSIDE).run("-q").expect(status=1, passed=3)
    assert run.output.count("arena:") == 1
    run.says("arena: outside of any test: refused: a connection to", "conftest.py:6", "[A201]")
