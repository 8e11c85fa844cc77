"""A shared connection answers as a connection of ``sqlite3`` does: rows, errors, states.

Each script runs twice: on connections of ``sqlite3`` to a file, and on shared ones.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._sqlite.rollback._sharing_connection import SharingConnection

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_arena._sqlite.rollback._rollback import Rollback

Connect = Callable[..., sqlite3.Connection]


class Watch:
    """Runs calls on connections, and records what they answer."""

    def __init__(self, connect: Connect) -> None:
        self.connect = connect
        self.answers: list[object] = []
        self._opened: list[sqlite3.Connection] = []

    def open(self, **options: Any) -> sqlite3.Connection:
        """Open a connection, which does not wait for locks."""
        self._opened.append(self.connect(**{"timeout": 0, **options}))
        return self._opened[-1]

    def close(self) -> None:
        """Close the connections."""
        for connection in self._opened:
            connection.close()

    def note(self, connection: sqlite3.Connection, call: Callable[[], Any]) -> None:
        """Record the answer of a call, or its error, and the state of the connection."""
        try:
            answer = call()
            if isinstance(answer, sqlite3.Cursor):
                rows = answer.fetchall()
                row = answer.lastrowid if answer.rowcount > 0 else None
                answer = (rows, answer.description, answer.rowcount, row)
        except (sqlite3.Error, sqlite3.Warning) as error:
            text = str(error).partition(": ")[0] if "locked" in str(error) else str(error)
            code = getattr(error, "sqlite_errorname", None)
            answer = (type(error).__name__, text, code)
        self.answers.append((answer, connection.in_transaction, connection.total_changes))

    def run(self, connection: sqlite3.Connection, *statements: str) -> None:
        """Record the answers to statements."""
        for statement in statements:
            self.note(connection, partial(connection.execute, statement))


ALL = "SELECT name FROM items ORDER BY id"


def legacy(watch: Watch) -> None:
    """Python begins before INSERT, UPDATE, DELETE and REPLACE alone."""
    here, there = watch.open(), watch.open()
    watch.run(here, "SELECT 1", "CREATE TABLE more (a)", "INSERT INTO more VALUES (1)")
    here.commit()
    watch.run(there, "SELECT * FROM more")
    watch.run(here, "UPDATE items SET name = 'x' WHERE id = 1", ALL)
    here.rollback()
    watch.run(here, ALL, "DELETE FROM items WHERE id = 2 RETURNING name")
    watch.run(
        here, "REPLACE INTO items VALUES (7, 'seven')", "/* c */ INSERT INTO items VALUES (9, 'n')"
    )
    here.commit()
    watch.run(there, ALL)


def none(watch: Watch) -> None:
    """With ``isolation_level=None`` each statement commits, until the app begins."""
    here, there = watch.open(isolation_level=None), watch.open(isolation_level=None)
    watch.run(here, "INSERT INTO items (name) VALUES ('a')")
    watch.run(there, ALL)
    watch.run(
        here, "BEGIN", "BEGIN", "INSERT INTO items (name) VALUES ('b')", "ROLLBACK", "ROLLBACK"
    )
    watch.run(there, ALL)
    watch.run(here, "BEGIN IMMEDIATE", "INSERT INTO items (name) VALUES ('c')", "COMMIT;", "COMMIT")
    watch.run(here, "begin exclusive transaction -- words", "end", "END")
    watch.run(here, "BEGIN WORK", "COMMIT NOW", "COMMIT; SELECT 1", "; COMMIT", ALL)


def savepoints(watch: Watch) -> None:
    """Names in any case, twice, quoted, unknown, and of a savepoint that is gone."""
    here = watch.open(isolation_level=None)
    add = "INSERT INTO items (name) VALUES (hex(randomblob(8)))"
    count = "SELECT count(*) FROM items"
    watch.run(here, "SAVEPOINT a", add, "SAVEPOINT A", add, "ROLLBACK TO a", count)
    watch.run(
        here, "RELEASE a", 'ROLLBACK TRANSACTION TO SAVEPOINT "a"', count, "RELEASE SAVEPOINT a"
    )
    watch.run(here, "RELEASE a", "ROLLBACK TO a", count)
    watch.run(
        here, "BEGIN", "SAVEPOINT s1", "SAVEPOINT s2", add, "RELEASE s1", "ROLLBACK TO s2", count
    )
    watch.run(here, "SAVEPOINT s3", add, "ROLLBACK", "RELEASE s3", count)
    watch.run(here, "RELEASE arena_level_1", "ROLLBACK TO arena_writer")
    watch.run(here, "BEGIN", add, "SAVEPOINT x", add, "ROLLBACK TO x", "RELEASE x", "COMMIT", count)
    watch.run(here, "BEGIN", add, "SAVEPOINT arena_writer", add, "ROLLBACK", count)
    watch.run(here, "SAVEPOINT outer", "SAVEPOINT inner", add, "RELEASE outer", count, "ROLLBACK")


def errors(watch: Watch) -> None:
    """A failed statement fails alone. Its transaction goes on."""
    here = watch.open()
    watch.run(
        here, "INSERT INTO items (name) VALUES ('a')", "INSERT INTO items (name) VALUES ('one')"
    )
    watch.run(
        here, "INSERT INTO nothing VALUES (1)", "SELEC 1", "SELECT ?", "SELECT 1; SELECT 2", ""
    )
    watch.run(here, "INSERT INTO items (name) VALUES ('b'), ('two')", ALL)
    here.commit()
    watch.run(here, ALL)


def or_rollback(watch: Watch) -> None:
    """A conflict that rolls back its transaction leaves what was committed before."""
    here = watch.open()
    watch.run(here, "INSERT INTO items (name) VALUES ('kept')")
    here.commit()
    watch.run(here, "INSERT INTO items (name) VALUES ('lost')")
    watch.run(here, "INSERT OR ROLLBACK INTO items (name) VALUES ('one')", ALL)
    watch.run(here, "INSERT INTO items (name) VALUES ('after')")
    here.commit()
    watch.run(here, ALL)


def waiting_writers(watch: Watch) -> None:
    """A second writer does not get the lock. A reader needs none."""
    here, there = watch.open(), watch.open()
    watch.run(here, "INSERT INTO items (name) VALUES ('here')")
    watch.run(there, "INSERT INTO items (name) VALUES ('there')")
    here.commit()
    watch.run(there, "INSERT INTO items (name) VALUES ('there')")
    watch.run(here, "BEGIN IMMEDIATE", "CREATE TABLE t (a)")
    there.close()
    watch.run(here, "BEGIN IMMEDIATE", "CREATE TABLE t (a)", ALL)


def schema(watch: Watch) -> None:
    """DDL is part of a transaction."""
    here = watch.open(isolation_level=None)
    watch.run(
        here, "BEGIN", "CREATE TABLE t (a)", "DROP TABLE parts", "ALTER TABLE items ADD COLUMN c"
    )
    watch.run(here, "SELECT * FROM items", "ROLLBACK", "SELECT * FROM t", "SELECT * FROM items")
    watch.run(
        here, "PRAGMA user_version = 4", "PRAGMA user_version", "BEGIN", "PRAGMA user_version = 5"
    )
    watch.run(here, "ROLLBACK", "PRAGMA user_version", "PRAGMA table_info(items)")


def foreign_keys(watch: Watch) -> None:
    """Each connection has its own setting. A deferred key is checked at the commit."""
    on, off = watch.open(), watch.open()
    watch.run(on, "PRAGMA foreign_keys", "PRAGMA foreign_keys = ON", "PRAGMA foreign_keys")
    watch.run(on, "INSERT INTO parts VALUES (1, 1)", "INSERT INTO parts VALUES (2, 9)")
    watch.run(on, "PRAGMA foreign_keys = OFF", "PRAGMA foreign_keys")
    on.commit()
    watch.run(off, "PRAGMA foreign_keys", "INSERT INTO parts VALUES (3, 9)")
    off.commit()
    watch.run(on, "DELETE FROM items WHERE id = 1", "SELECT * FROM parts")
    on.commit()
    watch.run(on, "INSERT INTO later VALUES (5)")
    watch.note(on, on.commit)
    watch.run(on, "INSERT INTO items VALUES (5, 'five')")
    watch.note(on, on.commit)
    watch.run(on, "SELECT * FROM later", "BEGIN", "PRAGMA foreign_keys = OFF")
    watch.run(on, "INSERT INTO parts VALUES (4, 77)", "PRAGMA foreign_keys")
    on.rollback()
    watch.run(on, "INSERT INTO parts VALUES (6, 78)", "SELECT * FROM parts")
    on.commit()
    on.isolation_level = None
    watch.run(on, "SAVEPOINT outer", "INSERT INTO later VALUES (55)", "RELEASE outer")
    watch.run(on, "INSERT INTO items VALUES (55, 'x')", "RELEASE outer", "SELECT * FROM later")


def scripts(watch: Watch) -> None:
    """``executescript`` commits first, and begins no transaction."""
    here = watch.open()
    watch.run(here, "INSERT INTO items (name) VALUES ('before')")
    script = "INSERT INTO items (name) VALUES ('; in a text'); -- a comment\nDELETE FROM parts;;"
    watch.note(here, lambda: here.executescript(script))
    here.rollback()
    watch.run(here, ALL)
    trigger = "CREATE TRIGGER t AFTER INSERT ON parts BEGIN SELECT 1; SELECT 2; END; SELECT 1"
    watch.note(here, lambda: here.executescript(trigger))
    watch.note(
        here,
        lambda: here.executescript("BEGIN; DELETE FROM items; ROLLBACK; WRONG; DELETE FROM items"),
    )
    watch.run(here, ALL)
    watch.note(here, lambda: here.executescript("BEGIN; DELETE FROM items"))
    here.rollback()
    watch.run(here, ALL)


def many(watch: Watch) -> None:
    """``executemany``, rows by parts, ``lastrowid`` and ``rowcount``."""
    here = watch.open()
    add = "INSERT INTO items (name) VALUES (?)"
    watch.note(here, lambda: here.executemany(add, [("a",), ("b",)]))
    watch.note(here, lambda: here.executemany(add, ((name,) for name in "cd")))
    watch.note(here, lambda: here.executemany("SELECT ?", [(1,)]))
    watch.note(here, lambda: here.executemany(add, [("e",), ("a",)]))
    watch.note(here, lambda: here.execute("SELECT * FROM items WHERE id > ?", [1]).fetchmany(2))
    watch.note(
        here, lambda: here.execute("SELECT * FROM items WHERE id > :id", {"id": 1}).fetchone()
    )
    watch.note(here, lambda: list(here.execute(ALL)))
    cursor = here.execute(ALL)
    for call in (
        cursor.fetchone,
        cursor.fetchmany,
        cursor.fetchall,
        cursor.fetchone,
        cursor.fetchall,
    ):
        watch.note(here, call)
    cursor.close()
    watch.note(here, cursor.fetchone)
    cursor.arraysize = 3
    watch.note(here, lambda: next(cursor))


def factories(watch: Watch) -> None:
    """Row factories, text factories, classes of cursors."""

    class Cursor(sqlite3.Cursor):
        def execute(self, *args: Any) -> Any:
            return super().execute(args[0].replace("THINGS", "items"), *args[1:])

    here = watch.open()
    here.row_factory = sqlite3.Row
    watch.note(here, lambda: [dict(row) for row in here.execute("SELECT * FROM items")])
    here.row_factory = lambda cursor, row: [cursor.description[0][0], *row]
    watch.run(here, ALL)
    here.row_factory = None
    here.text_factory = bytes
    watch.run(here, ALL)
    here.text_factory = str
    watch.note(here, lambda: here.cursor(Cursor).execute("SELECT * FROM THINGS").fetchall())
    watch.run(watch.open(), ALL)


def functions(watch: Watch) -> None:
    """A connection calls the functions and collations that it has registered.

    They are not removed. One that a connection has not registered may be another's.
    """

    class Total:
        def __init__(self) -> None:
            self.total = 0

        def step(self, value: int) -> None:
            self.total += value

        def finalize(self) -> int:
            return self.total

    here, there = watch.open(), watch.open()
    here.create_function("twice", 1, lambda value: value * 2, deterministic=True)
    here.create_aggregate("total_of", 1, Total)
    here.create_collation("backwards", lambda a, b: (a < b) - (a > b))
    there.create_function("twice", 1, lambda value: value * 20)
    for connection in (here, there, here):
        watch.run(connection, "SELECT twice(2)")
    watch.run(here, "SELECT name FROM items ORDER BY name COLLATE backwards")
    watch.run(here, "SELECT total_of(id) FROM items")
    here.create_function("fails", 0, lambda: 1 / 0)
    watch.run(here, "SELECT fails()", "SELECT twice(4)")


def settings(watch: Watch) -> None:
    """PRAGMAs of one connection do not reach another one."""
    here, there = watch.open(isolation_level=None), watch.open(isolation_level=None)
    watch.run(here, "PRAGMA recursive_triggers", "PRAGMA trusted_schema = OFF")
    watch.run(here, "PRAGMA synchronous = NORMAL", "PRAGMA synchronous", "PRAGMA busy_timeout = 7")
    watch.run(here, "PRAGMA cache_size = 77", "PRAGMA cache_size", "PRAGMA temp_store = 2")
    watch.run(here, "PRAGMA auto_vacuum = FULL", "PRAGMA auto_vacuum")
    watch.run(here, "PRAGMA query_only = ON", "DELETE FROM items", "PRAGMA query_only")
    watch.run(
        there, "DELETE FROM items WHERE id = 1", "PRAGMA nonsense", "PRAGMA foreign_key_list(parts)"
    )
    watch.run(here, "PRAGMA journal_mode", "PRAGMA journal_mode = MEMORY", "PRAGMA journal_mode")
    watch.run(
        there, "PRAGMA main.journal_mode(TRUNCATE)", "PRAGMA integrity_check", "PRAGMA encoding"
    )


def context_managers(watch: Watch) -> None:
    """``with connection`` commits, or rolls back after an error."""
    here = watch.open()
    with here:
        watch.run(here, "INSERT INTO items (name) VALUES ('a')")
    watch.run(here, "SELECT 1")
    watch.note(here, lambda: here.__exit__(None, None, None))
    watch.run(here, "INSERT INTO items (name) VALUES ('b')")
    watch.note(here, lambda: here.__exit__(LookupError, LookupError(), None))
    watch.run(here, ALL)
    watch.run(here, "INSERT INTO items (name) VALUES ('c')")
    here.isolation_level = None
    watch.run(
        here,
        "INSERT INTO items (name) VALUES ('d')",
        "BEGIN",
        "INSERT INTO items (name) VALUES ('e')",
    )
    here.isolation_level = "IMMEDIATE"
    here.rollback()
    watch.run(here, ALL, "DELETE FROM items")
    here.close()
    watch.run(watch.open(), ALL)


def closed(watch: Watch) -> None:
    """A closed cursor or connection says so."""
    here = watch.open()
    cursor = here.execute(ALL)
    cursor.fetchall()
    closed_cursor = here.cursor()
    closed_cursor.close()
    for call in (
        lambda: closed_cursor.execute("SELECT 1"),
        lambda: closed_cursor.executemany("DELETE FROM items WHERE name = ?", [("x",)]),
        closed_cursor.fetchone,
    ):
        watch.note(here, call)
    other = watch.open()
    watch.run(here, "DELETE FROM items")
    here.close()
    for call in (
        here.commit,
        here.rollback,
        here.cursor,
        cursor.fetchone,
        lambda: here.execute("SELECT 1"),
    ):
        watch.note(other, call)
    here.close()
    watch.run(other, ALL, "DELETE FROM items")


def copies(watch: Watch) -> None:
    """``iterdump``, ``backup`` and ``serialize``."""
    here = watch.open()
    watch.run(here, "INSERT INTO items (name) VALUES ('a')")
    here.commit()
    watch.note(here, lambda: list(here.iterdump()))
    with closing(sqlite3.connect(":memory:")) as memory:
        here.backup(memory)
        watch.note(here, lambda: memory.execute(ALL).fetchall())
    with closing(sqlite3.connect(":memory:")) as memory:
        memory.deserialize(here.serialize())
        watch.note(here, lambda: memory.execute(ALL).fetchall())


def with_queries(watch: Watch) -> None:
    """WITH reads or writes."""
    here = watch.open(isolation_level=None)
    watch.run(here, "WITH n AS (SELECT 1 AS a) SELECT * FROM n")
    watch.run(
        here,
        "WITH n AS (SELECT 'w' AS a) INSERT INTO items (name) SELECT a FROM n RETURNING id",
        ALL,
    )
    watch.run(here, "EXPLAIN QUERY PLAN SELECT 1", "VALUES (1), (2)", "ANALYZE", "REINDEX", ALL)


def autocommit(watch: Watch) -> None:
    """``autocommit`` of Python 3.12: a transaction is always open, or none by itself."""
    if not hasattr(sqlite3, "LEGACY_TRANSACTION_CONTROL"):
        return
    here: Any = watch.open(autocommit=False)
    there: Any = watch.open(autocommit=True)
    watch.run(here, "INSERT INTO items (name) VALUES ('a')", ALL)
    watch.run(there, ALL)
    here.commit()
    watch.run(there, ALL, "INSERT INTO items (name) VALUES ('b')")
    watch.note(there, there.rollback)
    watch.run(there, ALL, "BEGIN", "INSERT INTO items (name) VALUES ('c')")
    watch.note(there, there.commit)
    watch.run(there, "ROLLBACK", ALL)
    watch.run(here, "INSERT INTO items (name) VALUES ('d')")
    here.rollback()
    watch.run(here, ALL, "DELETE FROM items WHERE id = 1")
    here.autocommit = True
    watch.run(here, ALL, "INSERT INTO items (name) VALUES ('e')")
    here.autocommit = sqlite3.LEGACY_TRANSACTION_CONTROL
    watch.run(here, "INSERT INTO items (name) VALUES ('f')")
    here.rollback()
    here.autocommit = False
    watch.run(here, ALL, "DELETE FROM items")
    here.close()
    watch.run(there, ALL)


SCRIPTS = (
    autocommit,
    legacy,
    none,
    savepoints,
    errors,
    or_rollback,
    waiting_writers,
    schema,
    foreign_keys,
    scripts,
    many,
    factories,
    functions,
    settings,
    context_managers,
    closed,
    copies,
    with_queries,
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_same_answers(
    script: Callable[[Watch], None], base: Path, isolation: Rollback, tmp_path: Path
) -> None:
    """Each answer equals that of a connection to a file, and nothing is left."""
    real = tmp_path / "real.db"
    real.write_bytes(base.read_bytes())
    expected = Watch(lambda **options: sqlite3.connect(real, **options))
    shared = Watch(lambda **options: SharingConnection(isolation.live, **options))
    before = isolation.content()
    with closing(expected), closing(shared):
        script(expected)
        script(shared)
    for number, (answer, other) in enumerate(zip(expected.answers, shared.answers, strict=True)):
        assert other == answer, f"answer {number}"
    isolation.leave()
    assert isolation.content() == before


@pytest.mark.parametrize(
    "method, arguments",
    [
        ("execute", ("PRAGMA case_sensitive_like = ON",)),
        ("execute", ("PRAGMA defer_foreign_keys(1)",)),
        ("execute", ("PRAGMA max_page_count = 9",)),
        ("blobopen", ("parts", "item", 1)),
        ("deserialize", (b"",)),
        ("set_authorizer", (print,)),
    ],
)
def test_what_one_connection_cannot_have_is_refused(
    isolation: Rollback, method: str, arguments: tuple[Any, ...]
) -> None:
    """The error says what to do."""
    with (
        closing(SharingConnection(isolation.live)) as hand,
        pytest.raises(sqlite3.NotSupportedError, match="arena_isolation = copy"),
    ):
        getattr(hand, method)(*arguments)
