"""What every isolation must do: plain functions, each of which is given a world of its own.

A world is one database under one isolation, in one journal mode, and whoever connects to it. A
function asserts; what it leaves open, the world closes.

Most checks look at the database on connections that stay open, since what is hard is not to bring
a file back, but to have everybody notice.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import pytest

from pytest_arena._product import Held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_arena._product import Isolation

    class Make(Protocol):
        """How an isolation is made: from a live file that is not there yet, and a template."""

        def __call__(self, live: Path, base: Path | None) -> Isolation:
            """Make it."""


@runtime_checkable
class Hand(Protocol):
    """A connection to a database on a server, which says itself what is in it."""

    def dump(self) -> list[object]:
        """Return all that it sees."""


__all__ = ["CHECKS", "ROLLING_BACK", "World", "dump", "new_world"]

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

PYTHON = (sys.executable, "-I", "-S", "-c")  # only the standard library: it starts in no time
# A process of its own, connected over levels: statements a line, and the last one's rows back.
OTHER = """
import json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
for line in sys.stdin:
    try:
        rows = [connection.execute(statement).fetchall() for statement in json.loads(line)][-1]
    except sqlite3.Error as error:
        rows = str(error)
    print(json.dumps(rows), flush=True)
"""


class Process:
    """Another process, which keeps its connection until it is told to end, or killed."""

    def __init__(self, live: Path) -> None:
        self._process = subprocess.Popen(
            [*PYTHON, OTHER, str(live)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, *statements: str) -> object:
        """Run statements; returns the rows of the last one, or the error's text."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(statements) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def kill(self) -> None:
        """End it in the middle of what it does. Idempotent."""
        self._process.kill()
        self._process.communicate()


@dataclass(eq=False)
class World:
    """One database, its isolation, and its connections."""

    isolation: Isolation
    live: Path
    mode: str = "delete"
    _open: list[sqlite3.Connection] = field(default_factory=list)
    _processes: list[Process] = field(default_factory=list)

    @property
    def has_wal(self) -> bool:
        """Whether the app has turned the write-ahead log on."""
        return self.mode == "wal"

    def connect(self) -> sqlite3.Connection:
        """Open a connection that stays open over the levels, as the gate would."""
        connection = sqlite3.connect(
            self.live, isolation_level=None, timeout=0, check_same_thread=False
        )
        self._open.append(connection)
        connection.execute("PRAGMA wal_autocheckpoint = 0").fetchone()
        with suppress(sqlite3.OperationalError):  # somebody has the file to itself
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(f"PRAGMA journal_mode = {self.mode}").fetchone()
        return connection

    def dump(self) -> list[object]:
        """Return all that a new connection sees."""
        with closing(sqlite3.connect(self.live, isolation_level=None)) as fresh:
            assert fresh.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return dump(fresh)

    def other_process(self, script: str) -> None:
        """Run statements in a process of its own, which commits and ends."""
        code = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])"
        subprocess.run([*PYTHON, code, str(self.live), script], check=True)

    def process(self) -> Process:
        """Start a process that stays connected."""
        self._processes.append(Process(self.live))
        return self._processes[-1]

    def disconnect(self) -> None:
        """Close all connections of the app's, in this process."""
        for connection in self._open:
            with suppress(sqlite3.Error):
                connection.close()
        self._open.clear()

    def close(self) -> None:
        """Close all."""
        for process in self._processes:
            process.kill()
        self.disconnect()
        self.isolation.close()


def new_world(make: Make, folder: Path, mode: str, *, layout: str = "") -> World:
    """Make a database from a template; ``layout`` is what makes its pages differ from usual."""
    base, live = folder / "base.db", folder / "live.db"
    with closing(sqlite3.connect(base, isolation_level=None)) as template:
        template.execute("PRAGMA synchronous = OFF")
        template.executescript(layout + SCHEMA)
    world = World(make(live, base), live, mode)
    if not live.exists():  # it is the app that makes it
        shutil.copyfile(base, live)
    first = world.connect()
    assert first.execute("PRAGMA journal_mode").fetchone() == (mode,)
    return world


def dump(connection: sqlite3.Connection | Hand) -> list[object]:
    """Return all rows of all tables, the schema, the sequences, the version; checks the file."""
    if isinstance(connection, Hand):
        return connection.dump()
    faults = connection.execute("PRAGMA integrity_check").fetchall()
    # Since SQLite 3.44, FTS5 complains on a connection of what another one has written, whoever
    # else is there. A new connection says whether there is something in it.
    assert [fault for fault in faults if "notes" not in fault[0]] in ([], [("ok",)])
    schema = sorted(connection.execute("SELECT type, name, sql FROM sqlite_master"), key=repr)
    names = [name for kind, name, _ in schema if kind == "table"]
    rows = [sorted(connection.execute(f'SELECT * FROM "{name}"'), key=repr) for name in names]
    return [schema, rows, connection.execute("PRAGMA user_version").fetchone()]


MANY = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) "


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
        "INSERT INTO places VALUES (2, 1, 1); UPDATE places SET x1 = 9 WHERE id = 1",
        "UPDATE scores SET points = 1; INSERT INTO scores VALUES ('y', 1, 0)",
    )


def sequences(world: World) -> None:
    """AUTOINCREMENT gives the same numbers in each test."""
    kept = world.connect()
    for _ in range(3):
        world.isolation.enter()
        kept.execute("INSERT INTO dancers (name) VALUES ('Grain')")
        kept.execute("DELETE FROM dancers WHERE name = 'Grain'")
        added = kept.execute("INSERT INTO dancers (name) VALUES ('Grain')")
        assert added.lastrowid == 4
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
    _undone(
        world,
        "INSERT INTO plain VALUES (5); VACUUM",
        "REINDEX; ANALYZE",
        f"INSERT INTO plain {MANY} SELECT i FROM n",
        f"INSERT INTO plain {MANY} SELECT i FROM n; DELETE FROM plain; VACUUM",
        "PRAGMA auto_vacuum = FULL; VACUUM; INSERT INTO plain VALUES (6)",
        f"PRAGMA auto_vacuum = INCREMENTAL; VACUUM; INSERT INTO plain {MANY} SELECT i FROM n; "
        "DELETE FROM plain; PRAGMA incremental_vacuum",
        "PRAGMA auto_vacuum = NONE; VACUUM; INSERT INTO plain VALUES (6)",
        "PRAGMA page_size = 8192; VACUUM; INSERT INTO plain VALUES (6)",
        "PRAGMA page_size = 1024; VACUUM; INSERT INTO plain VALUES (6)",
    )


def pages_and_a_log(world: World) -> None:
    """Pages of another size under a log that is new, which no backup can write to."""
    hand = world.connect()
    before = dump(hand)
    world.isolation.enter()
    hand.executescript("PRAGMA page_size = 8192; VACUUM; DELETE FROM dancers")
    assert hand.execute("PRAGMA journal_mode = wal").fetchone() == ("wal",)
    hand.close()
    world.isolation.leave()
    assert world.dump() == before
    world.isolation.enter()
    world.connect().execute("DELETE FROM dancers")
    world.isolation.leave()
    assert world.dump() == before


def checkpoints(world: World) -> None:
    """A checkpoint of any kind, in the level and between levels."""
    for kind in ("PASSIVE", "FULL", "RESTART", "TRUNCATE"):
        script = f"INSERT INTO plain VALUES (5); PRAGMA wal_checkpoint({kind})"
        _undone(world, script, f"{script}; DELETE FROM dancers", "DELETE FROM plain")


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
    """A reader holds the level, or does not stop it; what it reads stays what it was."""
    reader, kept = world.connect(), world.connect()
    reader.execute("PRAGMA cache_size = 2")
    before = dump(kept)
    world.isolation.enter()
    kept.execute(f"INSERT INTO plain {MANY} SELECT i FROM n")
    reader.execute("BEGIN")
    seen = reader.execute("SELECT count(a), sum(a) FROM plain").fetchall()
    held = False
    try:
        world.isolation.leave()
    except Held:
        held = True
    assert reader.execute("SELECT count(a), sum(a) FROM plain").fetchall() == seen
    assert reader.execute("SELECT count(*) FROM dancers").fetchall() == [(2,)]
    reader.execute("COMMIT")
    if held:
        world.isolation.leave()
    assert [dump(kept), dump(reader), world.dump()] == [before] * 3


def half_read_cursors(world: World) -> None:
    """So does a cursor that was not read to its end."""
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
    first = world.dump()
    world.isolation.enter()
    world.connect().executescript("INSERT INTO plain VALUES (7); CREATE TABLE t (a)")
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
    assert world.isolation.leave()
    assert world.dump() == first


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


def sleepers(world: World) -> None:
    """A connection that sleeps through the undo does not read what it cached of the undone test.

    Each test makes as many commits as the one before, and the sleeper looks in each test, but
    never after a leave. It is not to know a page, or a schema, of a test that is over.
    """
    _sleeps_through(world, "UPDATE dancers SET style = {0}; INSERT INTO plain VALUES ({0})")
    _sleeps_through(world, "ALTER TABLE plain ADD COLUMN c{0}")
    _sleeps_through(world, "INSERT INTO plain VALUES ({0}); CREATE TABLE t{0} (a{0})")


def sleepers_in_levels(world: World) -> None:
    """The same above a level with rows and tables of its own, and below it."""
    kept = world.connect()
    _sleeps_through(world, "CREATE TABLE t{0} (a{0})")
    before = dump(kept)
    for number in range(2):
        world.isolation.enter()
        kept.execute(f"CREATE TABLE class_{number} (a)")
        kept.execute(f"INSERT INTO class_{number} VALUES (1)")
        _sleeps_through(world, "ALTER TABLE plain ADD COLUMN c{0}")
        _sleeps_through(world, "INSERT INTO plain VALUES ({0})")
        world.isolation.leave()
    assert dump(kept) == before
    _sleeps_through(world, "ALTER TABLE plain ADD COLUMN d{0}")


def long_sleepers(world: World) -> None:
    """A connection that has last looked before the level below was what it is."""
    writer, *sleepers = (world.connect() for _ in range(3))
    for number, sleeper in enumerate(sleepers):
        dump(sleeper)
        writer.execute(f"CREATE TABLE t{number} (a)")
        world.isolation.enter()
        before = dump(writer)
        writer.execute("DELETE FROM dancers")
        assert world.isolation.leave()
        assert dump(sleeper) == dump(writer) == before


def _sleeps_through(world: World, script: str) -> None:
    writer, sleeper, other = world.connect(), world.connect(), world.process()
    before = [dump(writer), dump(sleeper)]
    for number in range(3):
        world.isolation.enter()
        writer.executescript(script.format(number))
        assert dump(sleeper) == dump(writer) == world.dump() != before[0]
        assert other.do("SELECT * FROM plain") == [
            list(row) for row in writer.execute("SELECT * FROM plain")
        ]
        world.isolation.leave()
    assert [dump(writer), dump(sleeper)] == before


def kept_processes(world: World) -> None:
    """Another process that stays connected writes, and sees each test's data and no other's."""
    other, kept = world.process(), world.connect()
    for number in range(3):
        world.isolation.enter()
        kept.execute("INSERT INTO plain VALUES (?)", [number])
        assert other.do(f"INSERT INTO plain VALUES ({number} + 10)") == []
        assert other.do("SELECT a FROM plain WHERE a >= 0") == [[1], [1], [number], [number + 10]]
        assert world.isolation.leave()
    assert other.do("PRAGMA integrity_check") == [["ok"]]


def killed_writers(world: World) -> None:
    """A process that was killed in a transaction, with half of it in the file already."""
    kept = world.connect()
    before = dump(kept)
    for is_committed in (False, True):
        world.isolation.enter()
        writer = world.process()
        if is_committed:
            writer.do("INSERT INTO plain VALUES (8)")
        writer.do("PRAGMA cache_size = 2", "BEGIN", f"INSERT INTO plain {MANY} SELECT i FROM n")
        writer.do("DELETE FROM dancers", "DELETE FROM scores")
        writer.kill()
        assert world.isolation.leave() or not is_committed
        assert [dump(kept), world.dump()] == [before] * 2


def writing_threads(world: World) -> None:
    """Four threads that write at once, each on a connection of its own."""
    hands = [world.connect() for _ in range(4)]
    before = [dump(hand) for hand in hands]

    def work(hand: sqlite3.Connection) -> None:
        hand.execute("PRAGMA busy_timeout = 10000")
        for number in range(5):
            hand.execute("BEGIN IMMEDIATE")
            hand.execute("INSERT INTO plain VALUES (?)", [number])
            hand.execute("COMMIT")

    for _ in range(2):
        world.isolation.enter()
        threads = [threading.Thread(target=work, args=[hand]) for hand in hands]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert hands[0].execute("SELECT count(*) FROM plain").fetchone() == (3 + 20,)
        assert world.isolation.leave()
        assert [dump(hand) for hand in hands] == before


def disposed_engines(world: World) -> None:
    """An app that closes its last connection, in the level and between levels."""
    before = dump(world.connect())
    for _ in range(2):
        world.isolation.enter()
        world.connect().execute("INSERT INTO plain VALUES (4)")
        world.disconnect()
        assert world.isolation.leave()
        assert dump(world.connect()) == before
        world.disconnect()


def exclusive_locking(world: World) -> None:
    """A connection that never gives its lock back holds the level, until it is closed."""
    kept = world.connect()
    before = dump(kept)
    world.isolation.enter()
    holder = world.connect()
    holder.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone()
    with suppress(sqlite3.OperationalError):
        holder.execute("INSERT INTO plain VALUES (4)")
    with suppress(Held):
        world.isolation.leave()
        world.isolation.enter()
    holder.close()
    world.isolation.leave()
    assert [dump(kept), world.dump()] == [before] * 2


def own_checkpoints(world: World) -> None:
    """Connections that copy the log by themselves, in this process and in another one."""
    hand, other = world.connect(), world.process()
    before = dump(hand)
    hand.execute("PRAGMA wal_autocheckpoint = 1").fetchone()
    for number in range(3):
        world.isolation.enter()
        hand.execute("INSERT INTO plain VALUES (?)", [number])
        other.do("PRAGMA wal_autocheckpoint = 1", f"INSERT INTO plain VALUES ({number})")
        world.isolation.enter()
        other.do(f"INSERT INTO plain VALUES ({number})", "PRAGMA wal_checkpoint(RESTART)")
        hand.execute("DELETE FROM dancers")
        world.isolation.leave()
        assert hand.execute("SELECT count(*) FROM dancers").fetchone() == (2,)
        world.isolation.leave()
        assert [dump(hand), world.dump()] == [before] * 2


def checkpoints_below_levels(world: World) -> None:
    """A checkpoint above a level that has rows of its own: both are whole again."""
    hand = world.connect()
    states = []
    for script in ("INSERT INTO plain VALUES (1)", "CREATE TABLE t (a); INSERT INTO t VALUES (1)"):
        states.append(dump(hand))
        world.isolation.enter()
        hand.executescript(script)
    for kind in ("PASSIVE", "TRUNCATE", "RESTART"):
        state = dump(hand)
        world.isolation.enter()
        hand.executescript(f"DELETE FROM plain; PRAGMA wal_checkpoint({kind}); DROP TABLE t")
        world.isolation.leave()
        assert dump(hand) == state
    while states:
        world.isolation.leave()
        assert dump(hand) == states.pop()


def pictures_of_pictures(world: World) -> None:
    """A level with content, brought back as a whole once, and another one after it."""
    hand = world.connect()
    before = dump(hand)
    world.isolation.enter()
    hand.execute("INSERT INTO plain VALUES (4)")
    state = dump(hand)
    world.isolation.enter()
    hand.executescript("PRAGMA page_size = 8192; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")
    hand.execute("DELETE FROM dancers")
    world.isolation.leave()
    assert dump(hand) == state
    world.isolation.leave()
    assert dump(hand) == before
    hand.execute("DELETE FROM scores")
    state = dump(hand)
    world.isolation.enter()
    hand.execute("DELETE FROM dancers")
    assert [rows.table for rows in world.isolation.rows_changed()] == ["dancers"]
    world.isolation.leave()
    assert dump(hand) == state


def long_logs(world: World) -> None:
    """More pages than one block of the log's index has room for."""
    _undone(
        world,
        "INSERT INTO plain WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
        "WHERE i < 4500) SELECT zeroblob(3000) FROM n",
        "INSERT INTO plain VALUES (1)",
    )


def kept_locks(world: World) -> None:
    """What arena does at a boundary takes nobody's lock away."""
    writer, kept, other = world.connect(), world.connect(), world.process()
    before = dump(kept)
    world.isolation.enter()
    writer.executescript("BEGIN IMMEDIATE")
    assert not world.isolation.is_clean()
    with suppress(Held):
        world.isolation.enter()
        world.isolation.forget()
    with pytest.raises(Held):
        world.isolation.leave()
    assert other.do("INSERT INTO plain VALUES (1)") == "database is locked"
    writer.rollback()
    world.isolation.leave()
    assert dump(kept) == before


def _checks() -> Iterator[Callable[[World], None]]:
    yield from (rows, sequences, schema_changes, full_text, whole_file, checkpoints)
    yield from (nested_levels, forgotten_levels, clean_levels, other_processes, journal_modes)
    yield from (open_writers, open_readers, half_read_cursors, force, replaced_content, saved)
    yield from (sleepers, sleepers_in_levels, kept_processes, killed_writers, writing_threads)
    yield from (disposed_engines, exclusive_locking, own_checkpoints, checkpoints_below_levels)
    yield from (long_sleepers, pictures_of_pictures, long_logs, pages_and_a_log)
    yield kept_locks


CHECKS = tuple(_checks())
# Without a journal SQLite itself cannot roll back: what needs that is left out.
ROLLING_BACK = (clean_levels, open_writers, force, killed_writers, writing_threads, kept_locks)
