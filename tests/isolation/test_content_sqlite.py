"""Whatever is different in a database of SQLite's has another digest, under its name."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pytest_arena._product import Held
from pytest_arena._sqlite._copy import Copy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEMA = """
CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, total, paid BLOB);
INSERT INTO orders (total, paid) VALUES (1, x'61'), (2.5, NULL), ('a', '');
CREATE TABLE plain (a);
INSERT INTO plain VALUES (1), (1), (NULL);
CREATE TABLE pairs (a, b, PRIMARY KEY (a, b)) WITHOUT ROWID;
INSERT INTO pairs VALUES (1, 2);
CREATE TABLE sums (a, twice GENERATED ALWAYS AS (a * 2));
INSERT INTO sums VALUES (1);
CREATE VIRTUAL TABLE words USING fts5(word);
INSERT INTO words VALUES ('sand');
CREATE TABLE "odd ""ü" (rowid);
INSERT INTO "odd ""ü" VALUES (7);
CREATE VIEW totals AS SELECT total FROM orders;
CREATE INDEX by_a ON plain (a);
"""

CHANGES = [
    ("INSERT INTO plain VALUES (2)", {"table plain"}),
    ("INSERT INTO plain VALUES (1)", {"table plain"}),
    ("UPDATE plain SET a = 0 WHERE a IS NULL", {"table plain"}),
    ("UPDATE plain SET rowid = 70 WHERE rowid = 1", {"table plain"}),
    ("UPDATE orders SET total = 1.0 WHERE id = 1", {"table orders"}),
    ("UPDATE orders SET total = '1' WHERE id = 1", {"table orders"}),
    ("UPDATE orders SET paid = 'a' WHERE id = 1", {"table orders"}),
    ("UPDATE orders SET paid = x'' WHERE id = 3", {"table orders"}),
    ("UPDATE orders SET total = CAST(x'ff' AS TEXT) WHERE id = 1", {"table orders"}),
    ("INSERT INTO orders (total) VALUES (1)", {"table orders", "table sqlite_sequence"}),
    ("UPDATE sqlite_sequence SET seq = 70", {"table sqlite_sequence"}),
    ("DELETE FROM sqlite_sequence", {"table sqlite_sequence"}),
    ("INSERT INTO pairs VALUES (2, 2)", {"table pairs"}),
    ("UPDATE sums SET a = 2", {"table sums"}),
    ('UPDATE "odd ""ü" SET rowid = 8', {'table odd "ü'}),
    ("CREATE TABLE notes (a)", {"table notes", "definition of table notes"}),
    ("ALTER TABLE plain ADD COLUMN b", {"table plain", "definition of table plain"}),
    ("DROP INDEX by_a", {"definition of index by_a"}),
    ("DROP VIEW totals", {"definition of view totals"}),
    ("CREATE TRIGGER t AFTER INSERT ON plain BEGIN SELECT 1; END", {"definition of trigger t"}),
    ("PRAGMA user_version = 3", {"user_version"}),
]


@pytest.fixture(name="copy")
def _copy(tmp_path: Path) -> Iterator[Copy]:
    """Something of everything."""
    with closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        connection.executescript(SCHEMA)
    with closing(Copy(tmp_path / "shop.db", None)) as copy:
        yield copy


def change(copy: Copy, *statements: str) -> None:
    """Commit these."""
    with closing(sqlite3.connect(copy.live, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize("statement, names", CHANGES, ids=[statement for statement, _ in CHANGES])
def test_a_change_is_named(copy: Copy, statement: str, names: set[str]) -> None:
    """It, and nothing else."""
    before = copy.content()
    change(copy, statement)
    after = copy.content()
    assert {name for name in {*before, *after} if before.get(name) != after.get(name)} == names


def test_what_is_the_same_has_the_same_digests(copy: Copy) -> None:
    """Other pages, another mode; and reading changes nothing."""
    before = copy.content()
    change(copy, "UPDATE plain SET a = a", "VACUUM", "PRAGMA journal_mode = WAL")
    raw = copy.live.read_bytes()
    assert copy.content() == before
    assert copy.live.read_bytes() == raw


def test_a_full_text_index_is_read_too(copy: Copy) -> None:
    """By its rows, and by the tables in its shadow."""
    before = copy.content()
    change(copy, "INSERT INTO words VALUES ('dune')")
    after = copy.content()
    assert {"table words", "table words_content"} <= {
        name for name in after if before[name] != after[name]
    }


def test_a_table_that_only_the_app_can_read_is_named_all_the_same(copy: Copy) -> None:
    """Its functions are the app's; everything else is compared."""
    with closing(sqlite3.connect(copy.live)) as app:
        app.create_function("mine", 1, lambda value: value, deterministic=True)
        app.execute("CREATE TABLE a (a, b GENERATED ALWAYS AS (mine(a)))")
        app.execute("INSERT INTO a VALUES (1)")
        app.commit()
    content = copy.content()
    assert content["table a"].startswith("not to be read: ")
    assert {"table plain", "definition of table a"} <= {*content}


def test_a_writer_in_the_middle_of_a_commit_is_not_waited_for(copy: Copy) -> None:
    """It is said that somebody is there."""
    with closing(sqlite3.connect(copy.live, isolation_level=None)) as app:
        app.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Held):
            copy.content()
        app.execute("ROLLBACK")
    assert copy.content()
