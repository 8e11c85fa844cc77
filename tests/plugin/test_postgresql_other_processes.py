"""PostgreSQL: what another process writes by ``arena.url`` is seen, whoever started it, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.plugin.test_postgresql_story import on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

# A worker as a queue has one: it knows nothing of arena, and lives longer than a test.
WORKER = """
import sys

import psycopg


def add(dsn):
    with psycopg.connect(dsn) as connection:
        connection.execute("INSERT INTO dancers (name) VALUES ('Worker')")


def names(dsn):
    with psycopg.connect(dsn) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM dancers ORDER BY id")]


def main():
    for line in sys.stdin:
        question, dsn = line.split()
        print({"add": add, "names": names}[question](dsn), flush=True)


if __name__ == "__main__":
    main()
"""

CONFTEST = """
import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def elsewhere():
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "worker.py"], stdin=pipe, stdout=pipe, text=True)

    def ask(*words):
        print(*words, file=process.stdin, flush=True)
        return process.stdout.readline().strip()

    yield ask
    process.communicate()
"""

TESTS = """
import pytest


@pytest.mark.parametrize("turn", range(3))
def test_nothing_but_a_worker_touches_the_database(arena, elsewhere, turn):
    url = arena.url.replace("+asyncpg", "")
    assert elsewhere("names", url) == "['Sand']"
    elsewhere("add", url)
    assert elsewhere("names", url) == "['Sand', 'Worker']"


def test_the_app_comes_after_the_worker(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]


kept = []


def test_the_address_is_given_to_a_worker(arena):
    kept.append(arena.url.replace("+asyncpg", ""))


def test_which_writes_later(elsewhere):
    elsewhere("add", kept[0])


def test_and_it_is_taken_back(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
"""


def test_a_worker_that_writes_by_the_url(example: Example) -> None:
    """The test's process does not touch the database. Its changes are restored."""
    example = on_postgresql(example, conftest=CONFTEST, worker=WORKER, test_it=TESTS)
    run = example.run("-W", "ignore").expect(passed=7)
    run.says("7 of 7 tests had a separate database, and 4 changed it")


FORKED = """
import multiprocessing

import pytest
from sqlalchemy import create_engine, text

engine = create_engine("postgresql+psycopg://me@db.example.org/shop")


def add(name):
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO dancers (name) VALUES (:name)"), {"name": name})


def new_pool():
    pool = multiprocessing.get_context("fork").Pool(1)
    pool.apply(int)
    return pool


@pytest.fixture(scope="session")
def forked():
    with new_pool() as pool:
        yield pool


@pytest.mark.parametrize("turn", range(3))
def test_a_fork_works_on_the_tests_database(forked, test_client, turn):
    forked.apply(add, ["Fork"])
    assert test_client.get("/dancers").json() == ["Sand", "Fork"]


EARLY = new_pool()


def test_a_fork_of_a_time_before_any_test():
    EARLY.apply(add, ["Nobody"])


def test_goes_nowhere(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
    EARLY.terminate()
"""


def test_a_fork_has_no_database_of_its_own(example: Example) -> None:
    """It would fill one that no test sees, and nobody takes back."""
    run = on_postgresql(example, test_it=FORKED).run("-W", "ignore").expect(1, passed=4, failed=1)
    run.says("refused: a connection to shop in a process that was forked before", "test_it.py:11")
