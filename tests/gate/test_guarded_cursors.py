"""An app's own cursors are called as the app calls them, whatever is looked at before."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.example import Example

CURSORS = '''
import sqlite3
from contextlib import closing

import pytest


class Django(sqlite3.Cursor):
    """Whether parameters are None decides what a percent sign is."""

    def execute(self, query, params=None):
        if params is None:
            return super().execute(query)
        return super().execute(query % tuple("?" for _ in params), params)


class Bare(sqlite3.Cursor):
    """No parameters at all."""

    def execute(self, sql):
        return super().execute(sql)

    def executescript(self, sql):
        return super().executescript(sql)


class Tagged(sqlite3.Cursor):
    """More than sqlite3's own cursor takes."""

    def execute(self, sql, values=(), *, tag=""):
        self.tag = tag
        return super().execute(sql, values)

    def executemany(self, sql, rows=(), *, tag=""):
        self.tag = tag
        return super().executemany(sql, rows)


@pytest.fixture
def connection():
    with closing(sqlite3.connect(":memory:")) as connection:
        assert type(connection) is not sqlite3.Connection  # but one that is guarded
        connection.execute("CREATE TABLE t (a)")
        yield connection


def test_arguments_are_handed_on_as_they_came(connection):
    django, bare, tagged = (connection.cursor(kind) for kind in (Django, Bare, Tagged))
    assert django.execute("SELECT '50%'").fetchone() == ("50%",)
    assert django.execute("SELECT '50%'", None).fetchone() == ("50%",)
    assert django.execute("SELECT '50%%', %s", [7]).fetchone() == ("50%", 7)
    assert bare.execute(sql="SELECT 1").fetchone() == (1,)
    bare.executescript(sql="INSERT INTO t VALUES (1)")
    assert tagged.execute("SELECT ?", (2,), tag="two").fetchone() == (2,)
    assert tagged.tag == "two"
    tagged.executemany("INSERT INTO t VALUES (?)", [(2,)], tag="many")
    assert tagged.tag == "many"
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (2,)
    with pytest.raises(TypeError):
        bare.execute("SELECT ?", (1,))


def test_arguments_of_an_attach_are_handed_on_too(connection):
    connection.cursor(Bare).execute(sql="ATTACH '' AS bare")
    connection.cursor(Tagged).execute("ATTACH '' AS tagged", tag="attached")
    connection.cursor(Django).execute("ATTACH '' AS django")
    names = [row[1] for row in connection.execute("PRAGMA database_list")]
    assert names == ["main", "bare", "tagged", "django"]
'''


def test_cursors_of_the_apps_own_classes(example: Example) -> None:
    """None stays None, a name a name, and nothing is added."""
    example.with_files(test_cursors=CURSORS).run().expect(passed=2)
