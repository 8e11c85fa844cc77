"""A test that nobody has used a database in pays for none; and who may have used one is known."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_arena.testing import Example

COUNTS = """
from pytest_arena._sqlite._copy import Copy

entered = Copy.entered = []
enter = Copy.enter

def counted(self):
    entered.append(self)
    enter(self)

Copy.enter = counted
"""

ASKS_FOR_NOTHING = """
from pytest_arena._sqlite._copy import Copy

seen = []

def test_uses_the_database(test_client):
    assert test_client.post("/dancers/Ruby").is_success

def test_asks_for_nothing():
    seen.append(len(Copy.entered))

def test_asks_for_nothing_either():
    seen.append(len(Copy.entered))

def test_nobody_has_looked():
    assert seen == [len(Copy.entered)] * 2

def test_starts_as_ever(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
    assert len(Copy.entered) == seen[0]

def test_so_does_this():
    assert len(Copy.entered) == seen[0]
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the file cannot be seen elsewhere")
def test_who_asks_for_nothing_pays_for_nothing(example: Example) -> None:
    """Also right after a test that has written."""
    example.with_files(counts=COUNTS, test_it=ASKS_FOR_NOTHING).run("-p", "counts").expect(passed=6)


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

def test_opens_one(test_client):
    kept.append({way}())
    assert test_client.get("/dancers").json() == ["Sand"]

def test_asks_for_nothing():
    pass

def test_begins_to_write():
    kept[-1].execute("BEGIN IMMEDIATE")
    kept[-1].execute("INSERT INTO dancers (name) VALUES ('Ruby')")

def test_commits_too_late(test_client):
    with suppress(sqlite3.Error):
        kept[-1].execute("COMMIT")
    assert test_client.get("/dancers").json() == ["Sand"]
"""


@pytest.mark.parametrize(
    "way",
    ["opened", "made_from_the_class", "made_from_the_class_by_its_name", "detached"],
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


def test_what_a_hook_writes_at_the_end_of_an_unused_test_is_taken_back(example: Example) -> None:
    """It is the first to connect, when the test is over."""
    example.with_files(conftest=HOOKED, test_it=AFTER_A_HOOK).run().expect(passed=3)
