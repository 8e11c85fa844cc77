"""PostgreSQL: what another process writes by ``arena.url`` is seen, whoever started it, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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


def answer(asked):
    ask, dsn = asked
    return {"add": add, "names": names}[ask](dsn)


def main():
    for line in sys.stdin:
        print(answer(line.split()), flush=True)


if __name__ == "__main__":
    main()
"""

CONFTEST = """
import multiprocessing
import subprocess
import sys

import pytest
import worker


class ByPipe:
    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "worker.py"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )

    def __call__(self, *asked):
        print(*asked, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def close(self):
        self.process.communicate()


class ByPool:
    def __init__(self, how):
        self.pool = multiprocessing.get_context(how).Pool(1)

    def __call__(self, *asked):
        return str(self.pool.apply(worker.answer, (asked,)))

    def close(self):
        self.pool.close()
        self.pool.join()


@pytest.fixture(scope="session")
def elsewhere(arena):
    arena.url  # a forked worker knows the databases that were there when it was forked
    works = ByPipe() if "HOW" == "pipe" else ByPool("HOW")
    yield works
    works.close()
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


@pytest.mark.parametrize(
    "how",
    [
        "forkserver",
        pytest.param("spawn", marks=pytest.mark.slow),
        pytest.param("fork", marks=pytest.mark.slow),
        pytest.param("pipe", marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_writes_by_the_url_pitfall_128(example: Example, how: str) -> None:
    """The test's own process does not touch the database: no counter of ours has moved."""
    run = workers(example, how).run("-W", "ignore")
    run.expect(passed=7).says("7 of 7 tests had a separate database, and 4 changed it")


@pytest.mark.slow
def test_a_worker_that_writes_under_clone_pitfall_128(example: Example) -> None:
    """Likewise; each test has asked for the URL, as another one may have another database."""
    run = workers(example, "spawn").run("-k", "touches or after", "--arena-isolation=clone")
    run.expect(passed=4)


def workers(example: Example, how: str) -> Example:
    """The project, with a worker of this kind."""
    conftest = CONFTEST.replace("HOW", how)
    return on_postgresql(example, conftest=conftest, worker=WORKER, test_it=TESTS)


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


@pytest.mark.slow
def test_a_fork_has_no_database_of_its_own(example: Example) -> None:
    """It would fill one that no test sees, and nobody takes back."""
    run = on_postgresql(example, test_it=FORKED).run("-W", "ignore").expect(1, passed=4, failed=1)
    run.says("refused: a connection to shop in a process that was forked before", "test_it.py:11")
