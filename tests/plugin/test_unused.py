"""A level is left as it was entered, also where no pool tells that a database was used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

KEPT = """
import sqlite3
import app
from contextlib import suppress
from sqlalchemy import create_engine

engine = create_engine("sqlite:///dev.db")
kept = []

def live():
    with engine.connect() as connection:
        return connection.exec_driver_sql("PRAGMA database_list").all()[0][2]

def opened():
    return sqlite3.connect(live(), isolation_level=None)

def made_from_the_class():
    return sqlite3.Connection(live(), isolation_level=None)

def made_from_the_class_by_its_name():
    return sqlite3.connect(live(), isolation_level=None, factory=sqlite3.Connection)

def detached():
    connection = engine.raw_connection()
    connection.detach()
    kept.append(connection)
    return connection.dbapi_connection

def attached():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute(f"ATTACH '{live()}' AS live")
    return connection

def cursor_that_outlives_its_connection():
    return engine.raw_connection().cursor()

def test_opens_one(test_client):
    kept.append({way}())
    assert test_client.get("/dancers").json() == ["Sand"]

def test_asks_for_nothing():
    pass

def test_begins_to_write():
    kept[-1].execute("BEGIN IMMEDIATE")
    kept[-1].execute("INSERT INTO dancers (name) VALUES ('Ruby')")
    assert kept[-1].execute("SELECT count(*) FROM dancers").fetchall() == [(2,)]

def test_commits_too_late(test_client):
    with suppress(sqlite3.Error):
        kept[-1].execute("COMMIT")
    assert test_client.get("/dancers").json() == ["Sand"]
"""


WAYS = (
    *("opened", "made_from_the_class", "made_from_the_class_by_its_name", "attached"),
    *("detached", "cursor_that_outlives_its_connection"),
)


@pytest.mark.parametrize(
    "way", [WAYS[0], *(pytest.param(way, marks=pytest.mark.slow) for way in WAYS[1:])]
)
def test_who_may_write_without_a_pool_is_looked_for(example: Example, way: str) -> None:
    """What he has begun is in no file yet, and no step may be taken over it."""
    example.with_files(test_it=KEPT.replace("{way}", way)).run().expect(passed=4)


HOOKED = """
from sqlalchemy import create_engine, text

engine = create_engine("sqlite:///dev.db")

def pytest_arena_leave(level):
    if level.is_test:
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO dancers (name) VALUES ('Ruby')"))
"""

AFTER_A_HOOK = """
def test_asks_for_nothing():
    pass

def test_asks_for_nothing_either():
    pass

def test_starts_as_ever(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
"""


@pytest.mark.slow
def test_what_a_hook_writes_at_the_end_of_an_unused_test_is_taken_back(example: Example) -> None:
    """It is the first to connect, when the test is over."""
    example.with_files(conftest=HOOKED, test_it=AFTER_A_HOOK).run().expect(passed=3)


CHILD = """
import os, sqlite3

def work(begun, go):
    file = os.environ["DATABASE_URL"].partition(":///")[2]
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO dancers (name) VALUES ('Child')")
    begun.set()
    go.wait(20)
    try:
        connection.execute("COMMIT")
    except sqlite3.Error:
        pass
"""

SPAWNS = """
import multiprocessing
import child

context = multiprocessing.get_context("{method}")
kept = []

def test_uses_the_database(test_client):
    assert test_client.post("/dancers/Ruby").is_success

def test_has_a_child_begin():
    begun, go = context.Event(), context.Event()
    process = context.Process(target=child.work, args=(begun, go))
    process.start()
    kept.append((process, go))
    assert begun.wait(20)

def test_starts_as_ever(test_client):
    kept[0][1].set()
    kept[0][0].join()
    assert test_client.get("/dancers").json() == ["Sand"]
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.slow
def test_a_child_that_nobody_saw_begin_is_looked_for(example: Example, method: str) -> None:
    """Python starts those without an audit event."""
    tests = example.with_files(child=CHILD, test_it=SPAWNS.replace("{method}", method))
    tests.run(env={"DATABASE_URL": "sqlite+aiosqlite:///dev.db"}).expect(passed=3)


ALTERED = """
import pytest
from sqlalchemy import create_engine, text

engine = create_engine("sqlite:///dev.db")

def keys():
    with engine.connect() as connection:
        return connection.execute(text("PRAGMA foreign_keys")).scalar()

def set_keys():
    with engine.connect() as connection:
        connection.execute(text("PRAGMA foreign_keys = ON"))

@pytest.fixture(scope="session")
def plain():
    pass

@pytest.fixture(scope="session")
def keys_on():
    set_keys()

def test_uses_the_database(test_client):
    assert test_client.post("/dancers/Ruby").is_success

def test_sets_one_below_a_wide_fixture(request):
    set_keys()
    request.getfixturevalue("plain")

def test_has_a_connection_as_it_is_when_new(request):
    assert keys() == 0

def test_has_what_a_wide_fixture_has_set(keys_on):
    assert keys() == 1

def test_has_it_as_well(keys_on):
    assert keys() == 1
"""


@pytest.mark.slow
def test_what_a_connection_was_set_to_before_a_level_is_looked_at(example: Example) -> None:
    """Nobody has used it since a level was entered in the middle of the test."""
    example.with_files(test_it=ALTERED).run().expect(passed=5)


TAKEN_TWICE = """
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

engine = create_engine(
    "sqlite:///dev.db", poolclass=StaticPool, connect_args={"check_same_thread": False}
)

def names():
    with engine.connect() as connection:
        return connection.execute(text("SELECT name FROM dancers")).scalars().all()

@pytest.fixture(scope="module")
def wide():
    session = Session(engine)
    session.execute(text("SELECT name FROM dancers"))
    return session

def test_one(wide):
    assert names() == ["Sand"]

def test_leaves_a_row_pending(wide):
    wide.execute(text("INSERT INTO dancers (name) VALUES ('Ruby')"))

def test_starts_as_ever():
    assert names() == ["Sand"]
"""


@pytest.mark.slow
def test_one_connection_that_two_have_taken_is_not_at_rest(example: Example) -> None:
    """A pool that has only one gives it to a session, too, and its return says nothing."""
    run = example.with_files(test_it=TAKEN_TWICE).run()
    assert run.outcomes["passed"] == 3, run.output
