"""A file of SQLite under ``copy``."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_arena._sqlite._copy import Copy
from tests.isolation.world import World

if TYPE_CHECKING:
    import random
    from pathlib import Path

SCHEMA = """
CREATE TABLE dancers (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, style TEXT);
CREATE TABLE scores (judge TEXT, round INTEGER, points REAL, PRIMARY KEY (judge, round))
    WITHOUT ROWID;
CREATE TABLE plain (a);
CREATE INDEX by_style ON dancers (style);
CREATE VIRTUAL TABLE notes USING fts5(text);
CREATE VIRTUAL TABLE places USING rtree(id, x0, x1);
INSERT INTO places VALUES (1, 0, 5);
INSERT INTO dancers (name, style) VALUES ('Sand', 'toprock'), ('Dune', 'power');
INSERT INTO scores VALUES ('x', 1, 9.5);
INSERT INTO plain VALUES (1), (1), (NULL);
INSERT INTO notes VALUES ('raked clean');
PRAGMA user_version = 7;
"""
MANY = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) "
STATEMENTS = (
    "INSERT INTO dancers (name) VALUES (random())",
    "UPDATE dancers SET style = random()",
    "DELETE FROM dancers WHERE id % 2",
    "DELETE FROM sqlite_sequence",
    "INSERT INTO scores VALUES (random(), 1, 1)",
    "INSERT INTO notes VALUES ('sand ' || random())",
    "INSERT INTO places VALUES (random(), 1, 1)",
    f"INSERT INTO plain (a) {MANY} SELECT i FROM n",
    "DELETE FROM plain",
    "CREATE TABLE IF NOT EXISTS extra (a)",
    "DROP TABLE IF EXISTS extra",
    "INSERT INTO extra VALUES (random())",
    "ALTER TABLE plain ADD COLUMN b",
    "ALTER TABLE plain DROP COLUMN b",
    "CREATE INDEX IF NOT EXISTS by_name ON dancers (name, style)",
    "REINDEX",
    "PRAGMA user_version = 3",
    "PRAGMA wal_checkpoint(PASSIVE)",
    "PRAGMA wal_checkpoint(RESTART)",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA wal_autocheckpoint = 1",
    "PRAGMA journal_mode = wal",
    "PRAGMA journal_mode = delete",
    "PRAGMA journal_mode = persist",
    "PRAGMA journal_mode = memory",
    "PRAGMA cache_size = 2",
    "PRAGMA auto_vacuum = 2",
    "PRAGMA incremental_vacuum",
    "VACUUM",
    *("BEGIN", "BEGIN IMMEDIATE", "SAVEPOINT a", "ROLLBACK TO a", "COMMIT", "ROLLBACK"),
    "SELECT * FROM dancers",
    "SELECT * FROM plain",
    "(reconnect)",
)
ROWS_OF = ("dancers", "scores", "plain", "notes", "places", "extra")


class SQLiteWorld(World):
    """A file, in one of the journal modes."""

    errors: ClassVar[type[Exception]] = sqlite3.Error

    def __init__(self, folder: Path, mode: str, chance: random.Random) -> None:
        super().__init__()
        self.base = folder / "base.db"
        self.live = folder / "live.db"
        self.mode = mode
        size, vacuum = chance.choice((512, 4096, 16384)), chance.choice((0, 1, 2))
        with closing(sqlite3.connect(self.base, isolation_level=None)) as template:
            template.executescript(
                f"PRAGMA synchronous = OFF; PRAGMA page_size = {size}; "
                f"PRAGMA auto_vacuum = {vacuum}; {SCHEMA}"
            )
        self.live.write_bytes(self.base.read_bytes())  # as an app makes it
        self.isolation = Copy(self.live, self.base, self.usage, note=self.lines.append)
        self.connect().rows("SELECT 1")

    def open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.live, isolation_level=None, timeout=0, check_same_thread=False)

    def prepare(self, connection: sqlite3.Connection, number: int) -> None:
        del number
        with suppress(sqlite3.OperationalError):  # a lock
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(f"PRAGMA journal_mode = {self.mode}").fetchone()

    def is_begun(self, connection: sqlite3.Connection) -> bool:
        return connection.in_transaction

    def content_of(self, connection: sqlite3.Connection) -> dict[str, object]:
        """Check the file, and return the schema, all rows with the numbers, and the version."""
        faults = connection.execute("PRAGMA integrity_check").fetchall()
        # Since SQLite 3.44, FTS5 reports rows of another connection as faults.
        assert [fault for fault in faults if "notes" not in fault[0]] in ([], [("ok",)])
        schema = sorted(connection.execute("SELECT type, name, sql FROM sqlite_master"), key=repr)
        names = [name for kind, name, _ in schema if kind == "table"]
        version = connection.execute("PRAGMA user_version").fetchone()
        content: dict[str, object] = {"schema": schema, "version": version}
        for name in names:
            content[name] = sorted(connection.execute(f'SELECT * FROM "{name}"'), key=repr)
        return content

    def rows_of(self, connection: sqlite3.Connection) -> dict[str, Counter[str]]:
        tables = {}
        for name in ROWS_OF:
            with suppress(sqlite3.OperationalError):  # no such table
                tables[name] = Counter(map(self.shown, connection.execute(f"SELECT * FROM {name}")))
        return tables

    def statement(self, chance: random.Random) -> str:
        return chance.choice(STATEMENTS)

    def template(self) -> Path:
        return self.base


_OTHER = """
import json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
for line in sys.stdin:
    try:
        rows = [connection.execute(statement).fetchall() for statement in json.loads(line)][-1]
    except sqlite3.Error as error:
        rows = str(error)
    print(json.dumps(rows), flush=True)
"""


class OtherProcess:
    """Another process, which keeps its connection until it is killed."""

    def __init__(self, live: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _OTHER, str(live)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, *statements: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(statements) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
