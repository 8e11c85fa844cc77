"""What every isolation must do: plain functions, each of which is given a world of its own.

A world is one database under one isolation, in one journal mode, and whoever connects to it. A
function asserts; what it leaves open, the world closes.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import pytest

from pytest_arena._isolation import Held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_arena._isolation import Isolation

    class Make(Protocol):
        """How an isolation is made: from a live file that is not there yet, and a template."""

        def __call__(self, live: Path, base: Path | None) -> Isolation:
            """Make it."""


__all__ = ["CHECKS", "World", "dump", "new_world"]

SCHEMA = """
CREATE TABLE dancers (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, style TEXT);
CREATE TABLE scores (judge TEXT, round INTEGER, points REAL, PRIMARY KEY (judge, round))
    WITHOUT ROWID;
CREATE TABLE plain (a);
CREATE INDEX by_style ON dancers (style);
CREATE VIRTUAL TABLE notes USING fts5(text);
INSERT INTO dancers (name, style) VALUES ('Sand', 'toprock'), ('Dune', 'power');
INSERT INTO scores VALUES ('x', 1, 9.5);
INSERT INTO plain VALUES (1), (1), (NULL);
INSERT INTO notes VALUES ('raked clean');
PRAGMA user_version = 7;
"""


@dataclass(eq=False)
class World:
    """One database, its isolation, and its connections."""

    isolation: Isolation
    live: Path
    _open: list[sqlite3.Connection] = field(default_factory=list)

    def connect(self) -> sqlite3.Connection:
        """Open a connection that stays open over the levels."""
        connection = sqlite3.connect(
            self.live, isolation_level=None, timeout=0, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous = OFF")
        self._open.append(connection)
        return connection

    def dump(self) -> list[object]:
        """Return all that a new connection sees."""
        with closing(sqlite3.connect(self.live, isolation_level=None)) as fresh:
            return dump(fresh)

    def other_process(self, script: str) -> None:
        """Run statements in a process of its own, which commits and ends."""
        code = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])"
        subprocess.run([sys.executable, "-c", code, str(self.live), script], check=True)

    def close(self) -> None:
        """Close all."""
        for connection in self._open:
            with suppress(sqlite3.Error):
                connection.close()
        self.isolation.close()


def new_world(make: Make, folder: Path, mode: str) -> World:
    """Make a database from a template that is in this journal mode."""
    base, live = folder / "base.db", folder / "live.db"
    with closing(sqlite3.connect(base, isolation_level=None)) as template:
        template.execute("PRAGMA synchronous = OFF")
        template.executescript(SCHEMA)
    world = World(make(live, base), live)
    assert world.connect().execute(f"PRAGMA journal_mode = {mode}").fetchone() == (mode,)
    return world


def dump(connection: sqlite3.Connection) -> list[object]:
    """Return all rows of all tables, the schema, the sequences, the version; checks the file."""
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    schema = sorted(connection.execute("SELECT type, name, sql FROM sqlite_master"), key=repr)
    names = [name for kind, name, _ in schema if kind == "table"]
    rows = [sorted(connection.execute(f'SELECT * FROM "{name}"'), key=repr) for name in names]
    return [schema, rows, connection.execute("PRAGMA user_version").fetchone()]


def _undone(world: World, *scripts: str) -> None:
    """Each script runs in a level of its own, and nothing is left of it on any connection."""
    kept, idle = world.connect(), world.connect()
    before = dump(kept)
    assert dump(idle) == before
    for script in scripts:
        world.isolation.enter()
        kept.executescript(script)
        assert not world.isolation.is_clean()
        assert world.isolation.leave()
        assert [dump(idle), dump(kept), world.dump()] == [before] * 3, script


def rows(world: World) -> None:
    """Inserted, changed and deleted rows; equal rows; a deleted seed."""
    _undone(
        world,
        "INSERT INTO dancers (name) VALUES ('Grain')",
        "UPDATE dancers SET name = name || '!', style = NULL",
        "DELETE FROM dancers; DELETE FROM plain WHERE a = 1; DELETE FROM scores",
        "UPDATE dancers SET id = id + 1 WHERE id = 2; INSERT INTO plain VALUES (1)",
        "REPLACE INTO dancers (id, name) VALUES (1, 'Dust')",
        "UPDATE scores SET points = 1; INSERT INTO scores VALUES ('y', 1, 0)",
    )


def sequences(world: World) -> None:
    """AUTOINCREMENT gives the same numbers in each test."""
    kept = world.connect()
    for _ in range(3):
        world.isolation.enter()
        kept.execute("INSERT INTO dancers (name) VALUES ('Grain')")
        kept.execute("DELETE FROM dancers WHERE name = 'Grain'")
        row = kept.execute("INSERT INTO dancers (name) VALUES ('Grain') RETURNING id").fetchone()
        assert row == (4,)
        world.isolation.leave()
    _undone(world, "DELETE FROM sqlite_sequence", "UPDATE sqlite_sequence SET seq = 99")


def schema_changes(world: World) -> None:
    """DDL, also where another connection sleeps through it and next makes as many changes."""
    _undone(
        world,
        "CREATE TABLE new (a); INSERT INTO new VALUES (1)",
        "DROP TABLE dancers",
        "ALTER TABLE dancers ADD COLUMN age",
        "ALTER TABLE dancers ADD COLUMN height",
        "ALTER TABLE dancers RENAME TO b_boys",
        "DROP INDEX by_style; CREATE VIEW v AS SELECT 1",
        "CREATE TRIGGER t AFTER INSERT ON plain BEGIN DELETE FROM dancers; END; "
        "INSERT INTO plain VALUES (3)",
        "DROP TABLE notes",
        "PRAGMA user_version = 8",
    )


def full_text(world: World) -> None:
    """FTS5 keeps its index in shadow tables."""
    kept, words = world.connect(), "SELECT count(*) FROM notes WHERE notes MATCH 'sand OR raked'"
    _undone(
        world,
        "INSERT INTO notes VALUES ('sand'); DELETE FROM notes WHERE notes MATCH 'raked'",
        "INSERT INTO notes (notes) VALUES ('optimize'); INSERT INTO notes VALUES ('sand sand')",
    )
    assert kept.execute(words).fetchone() == (1,)


def whole_file(world: World) -> None:
    """VACUUM, REINDEX, ANALYZE, a page size and an auto_vacuum of the test's own."""
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) "
    _undone(
        world,
        "INSERT INTO plain VALUES (5); VACUUM",
        "REINDEX; ANALYZE",
        f"INSERT INTO plain {many} SELECT i FROM n",
        f"INSERT INTO plain {many} SELECT i FROM n; DELETE FROM plain; VACUUM",
        "PRAGMA auto_vacuum = FULL; VACUUM; INSERT INTO plain VALUES (6)",
        f"PRAGMA auto_vacuum = INCREMENTAL; VACUUM; INSERT INTO plain {many} SELECT i FROM n; "
        "DELETE FROM plain; PRAGMA incremental_vacuum",
        "PRAGMA auto_vacuum = NONE; VACUUM; INSERT INTO plain VALUES (6)",
        "PRAGMA page_size = 8192; VACUUM; INSERT INTO plain VALUES (6)",
        "PRAGMA page_size = 1024; VACUUM; INSERT INTO plain VALUES (6)",
    )


def checkpoints(world: World) -> None:
    """A checkpoint of any kind, in the level and between levels."""
    _undone(
        world,
        *(
            f"INSERT INTO plain VALUES (5); PRAGMA wal_checkpoint({kind}); DELETE FROM dancers"
            for kind in ("PASSIVE", "FULL", "RESTART", "TRUNCATE")
        ),
    )


def nested_levels(world: World) -> None:
    """Each level is whole again after whatever was above it; then it is gone itself."""
    kept, states = world.connect(), []
    for number in range(4):
        states.append(dump(kept))
        world.isolation.enter()
        kept.execute("INSERT INTO dancers (name) VALUES (?)", [f"level {number}"])
    for _ in range(3):  # tests above three fixtures
        state = dump(kept)
        world.isolation.enter()
        kept.execute("DELETE FROM dancers")
        world.isolation.leave()
        assert dump(kept) == state
    while states:
        world.isolation.leave()
        assert dump(kept) == states.pop()


def forgotten_levels(world: World) -> None:
    """A level that was forgotten leaves what stands to the level below."""
    kept = world.connect()
    before = dump(kept)
    world.isolation.enter()
    world.isolation.enter()
    assert world.isolation.is_clean()
    world.isolation.forget()
    kept.execute("INSERT INTO plain VALUES (9)")
    assert not world.isolation.is_clean()
    world.isolation.leave()
    assert dump(kept) == before


def clean_levels(world: World) -> None:
    """Nothing written is nothing to do; work that was rolled back is nothing."""
    kept = world.connect()
    world.isolation.enter()
    kept.execute("SELECT * FROM dancers").fetchall()
    kept.executescript("BEGIN; INSERT INTO plain VALUES (2); ROLLBACK")
    assert world.isolation.is_clean()
    assert not world.isolation.leave()


def other_processes(world: World) -> None:
    """What another process has committed is taken back as well."""
    kept = world.connect()
    before = dump(kept)
    world.isolation.enter()
    world.other_process("INSERT INTO plain VALUES (4); CREATE TABLE more (a)")
    assert dump(kept) != before
    assert world.isolation.leave()
    assert dump(kept) == before


def journal_modes(world: World) -> None:
    """A test that switches the journal mode, as far as SQLite lets it."""
    kept = world.connect()
    before = dump(kept)
    for mode in ("wal", "delete", "truncate", "persist", "memory", "wal", "delete"):
        world.isolation.enter()
        with suppress(sqlite3.OperationalError):  # leaving WAL needs to be alone
            kept.execute(f"PRAGMA journal_mode = {mode}").fetchone()
        kept.execute("INSERT INTO plain VALUES (4)")
        world.isolation.leave()
        assert dump(kept) == before
        assert world.dump() == before


def open_writers(world: World) -> None:
    """A transaction that is still open holds the level, and never commits into the next."""
    writer, kept = world.connect(), world.connect()
    before = dump(kept)
    world.isolation.enter()
    writer.executescript("BEGIN; INSERT INTO plain VALUES (4)")
    assert not world.isolation.is_clean()
    with pytest.raises(Held):
        world.isolation.leave()
    writer.rollback()
    assert not world.isolation.leave()
    assert dump(kept) == before


def open_readers(world: World) -> None:
    """A half-read cursor holds the level, or does not stop it; either way it is taken back."""
    reader, kept = world.connect(), world.connect()
    before = dump(kept)
    world.isolation.enter()
    kept.execute("INSERT INTO plain VALUES (4)")
    half_read = reader.execute("SELECT * FROM plain")
    half_read.fetchone()
    with suppress(Held):
        world.isolation.leave()
        world.isolation.enter()
    half_read.close()
    world.isolation.leave()
    assert [dump(kept), dump(reader), world.dump()] == [before] * 3


def force(world: World) -> None:
    """By force it is taken back whoever holds it; who held it cannot reach the database again."""
    for script in ("BEGIN; DELETE FROM plain", "BEGIN EXCLUSIVE"):
        before, generation = world.dump(), world.isolation.generation
        world.isolation.enter()
        holder = world.connect()
        holder.executescript(script)
        with pytest.raises(Held):
            world.isolation.leave()
        world.isolation.leave_by_force()
        assert world.isolation.generation > generation
        assert world.dump() == before
        with suppress(sqlite3.Error):
            holder.execute("COMMIT")
        assert world.dump() == before
        world.isolation.enter()
        world.connect().execute("DELETE FROM dancers")
        assert world.isolation.leave()
        assert world.dump() == before


def replaced_content(world: World) -> None:
    """A level with another content, an empty one too; the level below stays what it was."""
    kept = world.connect()
    before = dump(kept)
    world.isolation.enter()
    world.isolation.replace(None)
    assert kept.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    world.isolation.enter()
    kept.execute("CREATE TABLE other (a)")
    world.isolation.leave()
    assert kept.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    world.isolation.leave()
    assert dump(kept) == before


def saved(world: World) -> None:
    """A saved file holds what stands, on its own, and can be opened by anybody."""
    kept = world.connect()
    kept.execute("INSERT INTO plain VALUES (4)")
    file = world.live.with_name("saved.db")
    world.isolation.save(file)
    assert not file.with_name("saved.db-wal").exists()
    with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as saved:
        assert dump(saved) == dump(kept)


def _checks() -> Iterator[Callable[[World], None]]:
    yield from (rows, sequences, schema_changes, full_text, whole_file, checkpoints)
    yield from (nested_levels, forgotten_levels, clean_levels, other_processes, journal_modes)
    yield from (open_writers, open_readers, force, replaced_content, saved)


CHECKS = tuple(_checks())
