"""An app's own cursors are called as the app calls them, whatever is looked at before."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._dialects import _sqlite_attach
from pytest_arena._gate._guarded import GuardedConnection

if TYPE_CHECKING:
    from collections.abc import Iterator


class Django(sqlite3.Cursor):
    """Whether parameters are None decides what a percent sign is."""

    def execute(self, query: str, params: Any = None) -> Any:
        """As it is called."""
        if params is None:
            return super().execute(query)
        return super().execute(query % tuple("?" for _ in params), params)


class Bare(sqlite3.Cursor):
    """No parameters at all."""

    def execute(self, sql: str) -> Any:  # type: ignore[override]  # an app may do that
        """As it is called."""
        return super().execute(sql)

    def executescript(self, sql: str) -> Any:
        """As it is called."""
        return super().executescript(sql)


class Tagged(sqlite3.Cursor):
    """More than sqlite3's own cursor takes."""

    tag = ""

    def execute(self, sql: str, values: Any = (), *, tag: str = "") -> Any:
        """As it is called."""
        self.tag = tag
        return super().execute(sql, values)

    def executemany(self, sql: str, rows: Any = (), *, tag: str = "") -> Any:
        """As it is called."""
        self.tag = tag
        return super().executemany(sql, rows)


@pytest.fixture(name="connection")
def _connection() -> Iterator[GuardedConnection]:
    with closing(sqlite3.connect(":memory:", factory=GuardedConnection)) as connection:
        connection.execute("CREATE TABLE t (a)")
        yield connection


def test_arguments_are_handed_on_as_they_came(connection: GuardedConnection) -> None:
    """None stays None, a name a name, and nothing is added."""
    django, bare, tagged = (connection.cursor(one) for one in (Django, Bare, Tagged))
    assert django.execute("SELECT '50%'").fetchone() == ("50%",)
    assert django.execute("SELECT '50%'", None).fetchone() == ("50%",)
    assert django.execute("SELECT '50%%', %s", [7]).fetchone() == ("50%", 7)
    assert bare.execute(sql="SELECT 1").fetchone() == (1,)
    bare.executescript(sql="INSERT INTO t VALUES (1)")
    assert tagged.execute("SELECT ?", (2,), tag="two").fetchone() == (2,)
    tagged.executemany("INSERT INTO t VALUES (?)", [(2,)], tag="many")
    assert tagged.tag == "many"
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (2,)
    with pytest.raises(TypeError):
        bare.execute("SELECT ?", (1,))


def test_arguments_of_an_attach_are_handed_on_too(connection: GuardedConnection) -> None:
    """As those of any other statement."""
    connection.cursor(Bare).execute(sql="ATTACH '' AS one")
    connection.cursor(Tagged).execute("ATTACH ? AS two", values=("",), tag="attached")
    connection.cursor(Django).execute("ATTACH '' AS three")
    names = [row[1] for row in connection.execute("PRAGMA database_list")]
    assert names == ["main", "one", "two", "three"]


def test_a_table_of_attachments_is_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has one has many statements of it."""

    def never(_: str) -> Iterator[Any]:
        pytest.fail("the statement was tokenized")

    monkeypatch.setattr(_sqlite_attach, "_token_lists", never)
    assert not _sqlite_attach.may_attach("SELECT id FROM attachments WHERE attach_id = 1")
