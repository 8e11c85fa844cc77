"""Random histories over cascades and triggers, in step with a comparison of all content."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pymysql
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.mysql.journal.world import MySQLWorld

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._values import TableRows

pytestmark = pytest.mark.slow

SCHEMA = (
    "CREATE TABLE a (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(5) NOT NULL UNIQUE, v INT)",
    (
        "CREATE TABLE b (id INT AUTO_INCREMENT PRIMARY KEY, a INT, s VARCHAR(5), "
        "FOREIGN KEY (a) REFERENCES a (id) ON DELETE CASCADE ON UPDATE CASCADE)"
    ),
    (
        "CREATE TABLE c (name VARCHAR(5), n INT, "
        "FOREIGN KEY (name) REFERENCES a (name) ON DELETE SET NULL ON UPDATE CASCADE)"
    ),
    (
        "CREATE TABLE d (b INT, n INT, v INT, PRIMARY KEY (b, n), "
        "FOREIGN KEY (b) REFERENCES b (id) ON DELETE CASCADE ON UPDATE CASCADE)"
    ),
    (
        "CREATE TABLE e (id INT PRIMARY KEY, up INT, b INT, n INT, "
        "FOREIGN KEY (up) REFERENCES e (id) ON DELETE CASCADE, "
        "FOREIGN KEY (b, n) REFERENCES d (b, n) ON DELETE SET NULL ON UPDATE CASCADE)"
    ),
    (
        "CREATE TABLE f (k VARCHAR(5) COLLATE utf8mb4_unicode_nopad_ci PRIMARY KEY, a INT, "
        "FOREIGN KEY (a) REFERENCES a (id))"
    ),
    "CREATE TABLE g (what VARCHAR(20), n INT)",
    "CREATE TRIGGER a_changed AFTER UPDATE ON a FOR EACH ROW INSERT INTO g VALUES (NEW.name, 9)",
    "CREATE TRIGGER e_gone BEFORE DELETE ON e FOR EACH ROW UPDATE c SET n = n + 1",
    "CREATE TRIGGER f_new BEFORE INSERT ON f FOR EACH ROW DELETE FROM g LIMIT 1",
    "INSERT INTO a VALUES (1, 'a', 1), (2, 'b', 2), (3, 'ö', 3), (4, 'b c', NULL)",
    "INSERT INTO b VALUES (1, 1, 'x'), (2, 1, 'y'), (3, 2, NULL), (4, NULL, 'z')",
    "INSERT INTO c VALUES ('a', 1), ('a', 1), ('b', 2), (NULL, 3)",
    "INSERT INTO d VALUES (1, 1, 1), (1, 2, 2), (2, 1, 3), (3, 1, 4)",
    "INSERT INTO e VALUES (1, NULL, 1, 1), (2, 1, 1, 1), (3, 2, 2, 1), (4, 4, NULL, NULL)",
    "INSERT INTO f VALUES ('k', NULL), ('k ', NULL)",
    "INSERT INTO g VALUES ('seed', 1), ('seed', 1)",
)
_COLUMNS = {
    "a": ("id", "name", "v"),
    "b": ("id", "a", "s"),
    "c": ("name", "n"),
    "d": ("b", "n", "v"),
    "e": ("id", "up", "b", "n"),
    "f": ("k", "a"),
    "g": ("what", "n"),
}
_TEXTS = ("name", "s", "k", "what")
_numbers = st.sampled_from(["1", "2", "3", "4", "7", "NULL"])
_texts = st.sampled_from(["'a'", "'A'", "'b'", "'b '", "'ö'", "'k'", "'k '", "'n'", "NULL"])


def _value(column: str) -> st.SearchStrategy[str]:
    return _texts if column in _TEXTS else _numbers


@st.composite
def _statements(draw: st.DrawFn) -> str:
    table = draw(st.sampled_from(sorted(_COLUMNS)))
    columns = _COLUMNS[table]
    column = draw(st.sampled_from(columns))
    where = draw(st.sampled_from([*columns, ""]))
    condition = f" WHERE {where} <=> {draw(_value(where))}" if where else ""
    kind = draw(
        st.sampled_from(["insert", "update", "delete", "insert", "update", "delete", "two"])
    )
    if kind == "insert":
        verb = draw(st.sampled_from(["INSERT INTO", "INSERT IGNORE INTO", "REPLACE INTO"]))
        values = ", ".join(draw(_value(name)) for name in columns)
        statement = f"{verb} {table} VALUES ({values})"
        if verb == "INSERT INTO" and draw(st.booleans()):
            statement += f" ON DUPLICATE KEY UPDATE {column} = {draw(_value(column))}"
        return statement
    if kind == "update":
        ignore = draw(st.sampled_from(["", "IGNORE "]))
        return f"UPDATE {ignore}{table} SET {column} = {draw(_value(column))}{condition}"
    if kind == "delete":
        return f"DELETE FROM {table}{condition}"
    return draw(
        st.sampled_from(
            [
                "UPDATE a, b SET a.v = a.v + 1, b.s = 'm' WHERE b.a = a.id",
                "DELETE b, d FROM b JOIN d ON d.b = b.id WHERE d.n = 1",
                "UPDATE a SET id = id + 10 ORDER BY id DESC",
                "UPDATE a SET name = UPPER(name)",
                "UPDATE b SET id = id + 10 ORDER BY id DESC",
                "INSERT INTO g SELECT name, v FROM a",
                "INSERT INTO a (name) VALUES ('new'), ('newer')",
                "TRUNCATE g",
                "TRUNCATE c",
                "TRUNCATE e",
            ]
        )
    )


_WORDS = ("enter", "leave", "moment", "begin", "commit", "rollback", "forget")
_work = st.lists(_statements(), min_size=1, max_size=4)
_step = st.one_of(_work, st.sampled_from(_WORDS)).map(lambda step: [step])
# A test above a level that goes on afterwards.
_level = st.tuples(_work, st.just("enter"), _work, st.just("leave")).map(list)
HISTORIES = st.lists(st.one_of(_step, _step, _step, _level), max_size=12).map(
    lambda parts: [step for part in parts for step in part]
)


@pytest.fixture(scope="module")
def world(mysql_socket: str) -> Iterator[MySQLWorld]:
    """One database for all histories: each ends with the content of its start."""
    MySQLWorld.socket = mysql_socket
    yield MySQLWorld(*SCHEMA)
    MySQLWorld.drop_all()


def _rows(world: MySQLWorld) -> dict[str, Counter[str]]:
    with world.connect() as connection:
        return {
            table: Counter(map(repr, world.run(f"SELECT * FROM {table}", connection=connection)))
            for table in _COLUMNS
        }


def _net(changed: list[TableRows]) -> dict[str, Counter[str]]:
    net: dict[str, Counter[str]] = {}
    for rows in changed:
        net[rows.table] = Counter(map(repr, rows.added))
        net[rows.table].subtract(Counter(map(repr, rows.removed)))
    return net


def _difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Counter[str]]:
    differences: dict[str, Counter[str]] = {}
    for table, rows in after.items():
        difference = Counter(rows)
        difference.subtract(before[table])
        changed = Counter({row: count for row, count in difference.items() if count})
        if changed:
            differences[table] = changed
    return differences


class _History:
    """A history in step with the content at the start of each level."""

    def __init__(self, world: MySQLWorld) -> None:
        self.world = world
        self.starts: list[tuple[Any, Any]] = []
        self.moments: list[tuple[Any, Any]] = []

    def step(self, step: str | list[str]) -> None:
        """Take a step."""
        if isinstance(step, list):
            for statement in step:
                try:
                    self.world.run(statement)
                except pymysql.err.MySQLError:
                    continue
        elif step in ("begin", "commit", "rollback"):
            self.world.run(step)
        elif step == "moment":
            self.moments.append((self.world.journal.moment(), _rows(self.world)))
            self.compare_moments()
        else:
            self.world.run("COMMIT")
            if step == "enter":
                self.enter()
            elif step == "leave" and len(self.starts) > 1:
                self.leave()
            elif step == "forget" and len(self.starts) > 1:
                self.world.journal.cut_to(self.world.journal.depth - 1)
                self.starts.pop()
                self.moments.clear()

    def enter(self) -> None:
        """Open a level."""
        self.world.journal.enter()
        self.starts.append((self.world.content(), _rows(self.world)))
        self.moments.clear()

    def leave(self) -> None:
        """Compare the net changes, then the content after the level."""
        content, rows = self.starts.pop()
        assert _net(self.world.journal.rows_changed()) == _difference(rows, _rows(self.world))
        was_untouched = self.world.journal.is_untouched()
        was_changed = self.world.content() != content
        assert not (was_untouched and _rows(self.world) != rows)
        assert self.world.journal.leave() or not was_changed or was_untouched
        assert self.world.content() == content
        self.moments.clear()

    def compare_moments(self) -> None:
        """Compare the changes between the last two moments."""
        if len(self.moments) < 2:
            return
        (since, before), (until, after) = self.moments[-2:]
        changed = self.world.journal.rows_changed(since, until)
        if not any("TRUNCATE" in statement for statement in self.world.ran):
            assert _net(changed) == _difference(before, after)


def run_history(world: MySQLWorld, steps: list[str | list[str]]) -> None:
    """Take steps in a level, and leave it."""
    world.ran.clear()
    history = _History(world)
    try:
        history.enter()
        for step in steps:
            history.step(step)
        world.run("COMMIT")
        while history.starts:
            history.leave()
    finally:
        world.run("ROLLBACK")
        while world.journal.depth:
            world.journal.leave()


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=HISTORIES)
def test_random_histories(world: MySQLWorld, steps: list[str | list[str]]) -> None:
    """Each level restores its start, and reports exactly what has changed."""
    run_history(world, steps)
