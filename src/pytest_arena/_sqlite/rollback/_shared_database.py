"""A database whose connections share one real connection."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from pytest_arena._product import Held
from pytest_arena._sqlite import _messages as messages
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._restore import FileSnapshot, MemorySnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import TypeAlias

    from pytest_arena._values import CodeLine

    Register: TypeAlias = Callable[[sqlite3.Connection], object]

# Reading a database of this size takes 0.1 ms, so pytest-arena reads it before each request.
_SMALL = 1024 * 1024
_ENABLE_FOREIGN_KEYS = getattr(sqlite3, "SQLITE_DBCONFIG_ENABLE_FKEY", 0)
_numbers = count(1)
_WRITER = "arena_writer"  # the savepoint of the transaction that writes
_JOURNAL_MODES = frozenset({"delete", "truncate", "persist", "memory", "wal", "off"})


# The methods and arguments that remove a callback of the app. SQLite keeps functions.
RESETS: dict[str, tuple[Any, ...]] = {
    "set_progress_handler": (None, 1),
    "set_trace_callback": (None,),
}


class _Image(MemorySnapshot):
    """A snapshot in memory. If a comparison has created its file, the file ends with it."""

    def __del__(self) -> None:
        self.remove()


@dataclass(slots=True, eq=False)
class Writer:
    """A transaction of the app that may have written.

    This object does not keep its connection alive. The garbage collector may delete the connection
    in any thread. Then the connection only marks this transaction as abandoned.
    """

    line: CodeLine | None  # the line that began to write
    is_abandoned: bool = False
    is_cut_off: bool = False  # it was rolled back with its level

    @property
    def shown(self) -> str:
        """The line that began to write, for messages."""
        return str(self.line or "a line that cannot be seen")

    def abandon(self) -> None:
        """Note that the connection was deleted without a commit."""
        self.is_abandoned = True

    def cut_off(self) -> None:
        """Note that the transaction was rolled back with its level."""
        self.is_cut_off = True


@dataclass(eq=False, slots=True)
class SharedLevel:
    """An open level. ``leave`` restores the snapshot and the journal mode."""

    name: str
    state: int
    snapshot: FileSnapshot
    journal_mode: str  # "" if it is still unknown

    def start_with_mode(self, journal_mode: str) -> None:
        """Note the journal mode in which the level began."""
        self.journal_mode = journal_mode


class RealConnection(sql.OwnConnection):
    """A connection to the database, which has the functions of one connection of the app."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._user: object = None  # identifies the app's connection
        self._functions: dict[object, Register] = {}

    def arena_apply(
        self, user: object, functions: Mapping[object, Register], text_factory: Any
    ) -> None:
        """Use the functions and the ``text_factory`` of a connection of the app from now on."""
        self.text_factory = text_factory
        if self._user is user:
            return
        for method, arguments in RESETS.items():
            if self._functions.pop((method,), None) is not None:
                getattr(self, method)(*arguments)
        for key, register in functions.items():
            if self._functions.get(key) is not register:
                # SQLite registers no function while an R-tree has a blob open. A savepoint closes
                # the blob.
                self.execute("SAVEPOINT arena_functions")
                self.execute("RELEASE arena_functions")
                register(self)
                self._functions[key] = register
        self._user = user


class SharedDatabase:
    """One real connection to a database, and the transaction that pytest-arena never commits.

    ``state`` is a number that identifies the committed content. Each commit of the app sets a new
    number. Leaving a level sets the earlier number again. Callers of all methods hold the ``lock``.
    """

    def __init__(
        self, live: Path, base: FileSnapshot, note: Callable[[str], None]
    ) -> None:
        self.live = live
        self.note = note
        self.lock = threading.Condition(threading.RLock())
        self.levels: list[SharedLevel] = []
        self.writer: Writer | None = None
        self.journal_mode = ""
        self.state = 0
        # The levels whose savepoints are open in the real transaction.
        self._levels_with_savepoint: set[SharedLevel] = set()
        self.has_foreign_keys = False
        self._process = os.getpid()
        self._is_closed = False
        self._states = count(1)
        self._file_state = 0  # the state that the file itself has
        self._page_size = 0  # the file's page size, which no transaction can change
        self._real: RealConnection | None = None
        # A connection to the committed content, and the state of that content.
        self._view: RealConnection | None = None
        self._view_state = 0
        self._snapshots: dict[int, FileSnapshot] = {0: base}

    @property
    def is_of_this_process(self) -> bool:
        """Whether this process may use the real connection. A forked child must not."""
        return self._process == os.getpid()

    @property
    def real(self) -> RealConnection:
        """The real connection, inside its transaction.

        Raises:
            sqlite3.ProgrammingError: the database is closed.
        """
        if self._is_closed:
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
        if self._real is None:
            self._real = self._open()
            self._begin(self._real)
        return self._real

    def _open(self) -> RealConnection:
        real = sql.open_writable(self.live, RealConnection)
        self.journal_mode = real.execute("PRAGMA journal_mode").fetchone()[0]
        for level in self.levels:
            if not level.journal_mode:
                level.start_with_mode(self.journal_mode)
        self._page_size = real.number("PRAGMA page_size")
        # With these settings SQLite writes no page to the file, and rolls back from memory.
        real.execute("PRAGMA journal_mode = MEMORY").close()
        real.execute("PRAGMA cache_spill = OFF").close()
        if hasattr(real, "enable_load_extension"):
            real.enable_load_extension(True)  # noqa: FBT003 - sqlite3's
        return real

    def _begin(self, real: RealConnection) -> None:
        """Begin the transaction, with savepoints for the levels that start with this content."""
        setting = "ON" if self.has_foreign_keys else "OFF"
        real.execute(f"PRAGMA foreign_keys = {setting}")
        real.execute("BEGIN IMMEDIATE")
        self._levels_with_savepoint.clear()
        first = len(self.levels)
        while first and self.levels[first - 1].state == self.state:
            first -= 1
        for level in self.levels[first:]:
            self.set_savepoint(level)

    def set_savepoint(self, level: SharedLevel) -> None:
        """Open the savepoint of a level, if the real connection is open."""
        if self._real is not None:
            self._real.execute(f"SAVEPOINT {level.name}")
            self._levels_with_savepoint.add(level)

    def use_foreign_keys(self, is_on: bool) -> None:  # noqa: FBT001 - one value
        """Switch the check of foreign keys on or off. SQLite allows that outside a transaction."""
        if is_on == self.has_foreign_keys:
            return
        real = self.real
        self.has_foreign_keys = is_on
        if hasattr(real, "setconfig"):  # Python 3.12
            real.setconfig(_ENABLE_FOREIGN_KEYS, is_on)
        elif self.state == self._file_state:
            real.execute("ROLLBACK")
            self._begin(real)
        else:
            self.rebuild(self.snapshot(), self.state)

    def use_journal_mode(self, mode: str | None, *, is_new: bool) -> str:
        """Note the journal mode that the app sets. Return the current mode.

        ``is_new``: a `connect` listener sets the mode, so that no level restores an earlier mode.
        """
        if mode in _JOURNAL_MODES:
            self.journal_mode = str(mode)
            for level in self.levels if is_new else []:
                level.start_with_mode(self.journal_mode)
        return self.journal_mode

    def snapshot(self) -> FileSnapshot:
        """Return the committed content.

        Raises:
            Held: an open transaction has written, so SQLite no longer has the committed content.
        """
        known = self._snapshots.get(self.state)
        if known is not None:
            return known
        self.check_no_writer()
        used = {0, *(level.state for level in self.levels)}
        for state in self._snapshots.keys() - used:
            del self._snapshots[state]
        name = f"{self.live.name}.level-{next(_numbers)}"
        taken = _Image(self.live.with_name(name), self.image())
        self._snapshots[self.state] = taken
        return taken

    def image(self) -> bytes:
        """Return the content as the bytes of a file, with the rows of open transactions."""
        if not self.real.number("PRAGMA page_count"):
            return self.empty_image()  # SQLite does not serialize an empty database
        return self.real.serialize()

    def empty_image(self) -> bytes:
        """Return the bytes of an empty database's file."""
        return sql.write_nothing(self.live.parent).read_bytes()

    def peek(self) -> FileSnapshot | None:
        """Return the committed content if that is cheap."""
        if self.state in self._snapshots:
            return self._snapshots[self.state]
        if self.open_writer() is not None:
            return None
        pages = self.real.number("PRAGMA page_count")
        if pages * self._page_size > _SMALL:
            return None
        return self.snapshot()

    def committed_view(self) -> RealConnection | None:
        """Return a connection to the committed content, for reads beside an open write transaction.

        Return None if the database is large, or has temporary tables, which only the real
        connection has.
        """
        snapshot = self._snapshots.get(self.state)
        temporary = "SELECT 1 FROM sqlite_temp_master LIMIT 1"
        if snapshot is None or self.real.execute(temporary).fetchone():
            return None
        if self._view is None or self._view_state != self.state:
            self._close_view()
            self._view = RealConnection(
                sql.unchanging(snapshot.file()),
                uri=True,
                check_same_thread=False,
                isolation_level=None,
            )
            self._view_state = self.state
        return self._view

    def _close_view(self) -> None:
        if self._view is not None:
            self._view.close()
            self._view = None

    def open_writer(self) -> Writer | None:
        """Return the transaction that writes. Roll it back if its connection was deleted."""
        if self.writer is not None and self.writer.is_abandoned:
            self.roll_back_writer()
        return self.writer

    def begin_writer(self, line: CodeLine | None) -> Writer:
        """Open the savepoint of a transaction before it writes."""
        self.real.execute(f"SAVEPOINT {_WRITER}")
        self.writer = Writer(line)
        return self.writer

    def commit_writer(self, *, is_changed: bool) -> None:
        """Keep the writes of the transaction."""
        self.real.execute(f"RELEASE {_WRITER}")
        if is_changed:
            self.state = next(self._states)
        self.end_writer()

    def roll_back_writer(self) -> None:
        """Roll back the writes of the transaction."""
        self.real.execute(f"ROLLBACK TO {_WRITER}")
        self.real.execute(f"RELEASE {_WRITER}")
        self.end_writer()

    def end_writer(self) -> None:
        """Wake the connections that wait for the transaction."""
        self.writer = None
        self.lock.notify_all()

    def check_no_writer(self) -> None:
        """Raise Held if a transaction of the app has written."""
        writer = self.open_writer()
        if writer is not None:
            raise Held(
                f"{self.live.name}: inside a transaction with changes: {writer.shown}"
            )

    def leave(self, level: SharedLevel) -> None:
        """Restore the content at the start of a level."""
        if level in self._levels_with_savepoint:
            self._levels_with_savepoint.remove(level)
            self.real.execute(f"ROLLBACK TO {level.name}")
            self.real.execute(f"RELEASE {level.name}")
            self.state = level.state
        elif self.state != level.state:
            self.rebuild(level.snapshot, level.state)
        self.journal_mode = level.journal_mode

    def forget(self, level: SharedLevel) -> None:
        """Release the savepoint of a level, and keep its content."""
        # A writer's savepoint may be open above the level's savepoint.
        if level in self._levels_with_savepoint and self.open_writer() is None:
            self._levels_with_savepoint.remove(level)
            self.real.execute(f"RELEASE {level.name}")

    def rebuild(self, snapshot: FileSnapshot, state: int) -> None:
        """Replace the file by a new file with this content, and open it."""
        self._snapshots[state] = snapshot
        with sql.whole_or_none(self.live.with_name(f"{self.live.name}.new")) as file:
            shutil.copyfile(snapshot.file(), file)
            if self._real is not None:
                self._real.close()
                self._real = None
            for ending in ("-wal", "-shm", "-journal"):
                self.live.with_name(f"{self.live.name}{ending}").unlink(missing_ok=True)
            file.replace(self.live)
        mode = self.journal_mode
        self.state = state
        self._file_state = state
        self._real = self._open()
        self.journal_mode = mode or self.journal_mode
        self._begin(self._real)

    def recover(self) -> None:
        """Continue after a statement has rolled back the whole transaction.

        ``INSERT OR ROLLBACK``, ``RAISE(ROLLBACK)`` and an interrupted write do that.
        """
        snapshot = self._snapshots.get(self.state)
        state = self.state
        if snapshot is None:
            snapshot = self._snapshots[0]
            state = 0
            if self.levels:
                snapshot = self.levels[-1].snapshot
                state = self.levels[-1].state
            self.note(messages.lost_by_rollback(self.live.name))
        self.rebuild(snapshot, state)

    def overwrite(self, file: Path | None) -> FileSnapshot:
        """Replace the content. Return its snapshot."""
        self.check_no_writer()
        snapshot = FileSnapshot(file or sql.write_nothing(self.live.parent))
        self.rebuild(snapshot, next(self._states))
        return snapshot

    def close(self) -> None:
        """Roll back, and close the real connection."""
        self._is_closed = True
        self.end_writer()
        if self._real is not None:
            self._real.close()
            self._real = None
        self._close_view()


_shared: dict[str, SharedDatabase] = {}  # by the path of the live file


def share(shared: SharedDatabase) -> None:
    """Make connections to the database's path share it."""
    _shared[str(shared.live)] = shared


def unshare(shared: SharedDatabase) -> None:
    """Open no more connections to the database."""
    _shared.pop(str(shared.live), None)


def find_shared(file: str) -> SharedDatabase | None:
    """Return the shared database of this process at a path, or None."""
    shared = _shared.get(file)
    if shared is not None and shared.is_of_this_process:
        return shared
    return None
