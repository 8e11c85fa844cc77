"""The isolation ``copy``: one file that keeps its path, and is restored by SQLite's backup."""

# ruff: noqa: S608 - names are written by _quoted() alone

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import wraps
from hashlib import blake2b
from io import FileIO
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pytest_arena import _process
from pytest_arena._product import Held
from pytest_arena._product._level_stack import LevelStack, Look, ReadTable, Start, Undo, compared
from pytest_arena._sqlite import _sql as sql
from pytest_arena.errors import IsolationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._product import Usage
    from pytest_arena._values import TableRows

_MethodT = TypeVar("_MethodT", bound="Callable[..., Any]")

_PATIENCE = 0.2  # seconds, longer than a commit takes
# Reading a file of this size takes 0.1 ms, so pytest-arena reads it before each request.
_SMALL = 1024 * 1024
_UNKNOWN = -1  # a data version that no file has


def isolation_errors(method: _MethodT) -> _MethodT:
    """Turn a method's errors about the file into ``Held`` or an ``IsolationError``."""

    @wraps(method)
    def raising(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except (sqlite3.Error, OSError) as error:
            if sql.is_locked(error):
                raise Held(str(error)) from error
            live = self.path
            raise IsolationError(
                f"the database {live.stem!r} cannot be read or written: {error}",
                why="pytest-arena restores the database before each test",
                cause=f"a test or the app has removed, replaced or locked {live}, or the disk is "
                "full",
                fix="do not remove or replace the file: `metadata.drop_all(engine)` empties it in "
                f"place\ndf -h {live.parent}   shows the free space",
            ) from error

    return cast("_MethodT", raising)


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """The content of a database at one time, as the bytes of a file."""

    data: bytes


class LiveFile(Undo):
    """A file that tests use. It has the content of ``_now`` at the data version ``_version``."""

    @isolation_errors
    def __init__(self, path: Path, usage: Usage) -> None:
        self.path = path
        self._usage = usage
        self._control = sql.open_own(path)
        sql.be_as_in_memory(self._control)
        # Open until the release: closing any descriptor of a file ends the process's locks on it.
        self._file = FileIO(path)
        self._inode = os.stat(path).st_ino  # noqa: PTH116 - see `_data_version`

    @isolation_errors
    def begin_copy(self, base: Content) -> Start:
        """Return the start of this new file with a content."""
        self._now = Start(base)
        self._version = self._data_version()
        return self._now

    def _data_version(self) -> int:
        """Return a number that changes when another connection, of any process, commits.

        Raise an error if open connections have another file than the path. Costs 4-7 µs. The
        restores of the control connection do not change the number:
        https://sqlite.org/pragma.html#pragma_data_version
        """
        if os.stat(self.path).st_ino != self._inode:  # noqa: PTH116 - a third of Path's time
            raise FileNotFoundError("the file was replaced")
        version: int = self._control.execute("PRAGMA data_version").fetchone()[0]
        return version

    @isolation_errors
    def begin(self, now: Start) -> Start:
        """Return the committed content as a start, the last one if no connection has committed."""
        del now
        # The version is read before the content. A commit between both steps costs an
        # unnecessary copy. In the other order the commit would be missed.
        return self._content(self._data_version())

    def _content(self, version: int) -> Start:
        if self._version != version:
            self._now = Start(Content(sql.read_content(self._control, self._file)))
            self._version = version
        return self._now

    @isolation_errors
    def restore(self, start: Start, *, is_in_use: bool) -> bool:
        """Replace the content of the file, in place, for every open connection."""
        del is_in_use
        # The lock proves that no transaction of any process has uncommitted writes. Such writes
        # do not change the version, and would be committed into the next test.
        has_readers = self._usage.is_in_transaction()
        with sql.writing(self._control, excludes_readers=not has_readers):
            version = self._data_version()
        if not has_readers and sql.has_old_reader(self._control):
            raise Held("a statement that was not read to its end")
        if self._now is start and self._version == version:
            return False
        self._version = _UNKNOWN  # until the restore has ended
        self._write(start.base.data)
        self._now = start
        # The restore has not changed the version. A commit after the lock has.
        self._version = version
        return True

    def _write(self, data: bytes) -> None:
        def give_up(status: int, _remaining: int, _total: int) -> None:
            # Connection.backup() would retry for ever.
            if status == sqlite3.SQLITE_BUSY:
                raise Held("database is locked")

        with closing(sql.open_own()) as memory:
            if data:
                memory.deserialize(data)
            memory.backup(self._control, progress=give_up, sleep=0)

    def carry(self, start: Start, carried: object) -> None:
        """Note that this new file has the content of a start."""
        del carried
        self._now = start

    @isolation_errors
    def look(self, start: Start) -> Look:
        """Return whether a transaction has committed since a start, or is writing."""
        if sql.is_being_written(self._control):
            return Look(writers=_UNKNOWN_WRITER)
        return Look(self._now is not start or self._version != self._data_version())

    @isolation_errors
    def moment(self, first: Start, *, exact: bool) -> Start | None:
        """Return the present content, None if reading it is expensive."""
        if exact:
            return self._read(first)
        version = self._data_version()
        if version != self._version and self.path.stat().st_size > _SMALL:
            return None
        return self._content(version)

    @isolation_errors
    def rows_changed(self, first: Start, last: Start | None, limit: int | None) -> list[TableRows]:
        """Return the changes between two contents."""
        last = last or self._read(first)
        if first is last:
            return []
        return changed_rows(first.base.data, last.base.data, limit)

    def _read(self, first: Start) -> Start:
        """Return the present content. Wait for the end of a commit."""

        def begin() -> Start | None:
            with suppress(Held):
                return self.begin(first)
            return None

        return _process.until(begin, within=_PATIENCE) or self.begin(first)

    def release(self) -> None:
        """Close pytest-arena's connection to the file."""
        self._control.close()
        self._file.close()


_UNKNOWN_WRITER = frozenset({0})  # SQLite does not say which connection holds a lock


class Copy(LevelStack[LiveFile]):
    """The isolation for SQLite: connections, engines and other processes stay connected.

    A level that cannot be restored in place gets a new file at the same path. Other processes, and
    connections of ``sqlite3`` itself, keep using the old, unlinked file.

    Cost of enter and leave: 50 µs without a write to the file, otherwise 3 ms for each MB.
    """

    name = "copy"  # whatever the level requests

    def __init__(
        self,
        path: Path,
        template: Path | None,
        usage: Usage,
        *,
        note: Callable[[str], None],
    ) -> None:
        self.path = path
        self._usage = usage
        # Raw connections and other processes may write at any time, so each step asks the file.
        super().__init__(self._template(template), self.name, uses=count().__next__, note=note)

    @isolation_errors
    def _template(self, content: Path | None) -> Content:
        return Content(content.read_bytes() if content else b"")

    @isolation_errors
    def _open(self, base: Content) -> LiveFile:
        path = self.path
        new = Path(f"{path}.new")
        new.write_bytes(base.data)
        if self.generation > 1:  # there is a file, which `_move_to` replaces
            self.live.release()
        sql.remove_file(path)
        new.replace(path)
        return LiveFile(path, self._usage)

    def _discard(self, live: LiveFile) -> None:
        live.release()

    def close(self) -> None:
        """Close and remove the file, and its side files."""
        super().close()
        sql.remove_file(self.path)

    @isolation_errors
    def save(self, file: Path) -> None:
        """Copy the current content into a file."""
        sql.finish_file(self.path, file)

    @isolation_errors
    def content(self) -> dict[str, str]:
        """Return digests of the current content, read by a new connection."""
        return digests(self.path)


# The content of a file


def digests(file: Path) -> dict[str, str]:
    """Return a digest of each object in a database, read by a new connection."""
    with closing(sql.open_own(file)) as connection, sql.reading(connection):
        found = {}
        for name, table in _tables(connection).items():
            texts = [text for text, _ in table.rows]
            found[f"table {name}"] = f"{len(texts)} rows, {_digest(*texts)}"
        for title, definition in connection.execute(
            "SELECT type || ' ' || name, sql FROM sqlite_master"
        ):
            found[f"definition of {title}"] = _digest(definition)
        [version] = connection.execute("PRAGMA user_version").fetchone()
        if version:  # without 0, an empty file equals a missing file
            found["user_version"] = str(version)
    return found


def _digest(*texts: str | None) -> str:
    return blake2b(repr(texts).encode(), digest_size=16).hexdigest()


def changed_rows(before: bytes, after: bytes, limit: int | None) -> list[TableRows]:
    """Compare the contents of two databases. Return the net changes of each table."""
    with closing(_in_memory(before)) as first, closing(_in_memory(after)) as last:
        return compared(_tables_of_app(first), _tables_of_app(last), limit)


def _in_memory(content: bytes) -> sqlite3.Connection:
    connection = sql.open_own()
    if content:
        connection.deserialize(content)
    return connection


def _tables_of_app(connection: sqlite3.Connection) -> dict[str, ReadTable]:
    """Return the tables without those that SQLite and its modules manage."""
    tables = _tables(connection)
    for (name,) in connection.execute(
        "SELECT name FROM pragma_table_list WHERE type = 'shadow' OR name GLOB 'sqlite_*'"
    ):
        tables.pop(name, None)
    return tables


def _tables(connection: sqlite3.Connection) -> dict[str, ReadTable]:
    """Return the columns, the primary key and the rows of each table, without generated columns."""
    # An app may store text that is not UTF-8.
    connection.text_factory = lambda raw: raw.decode(errors="backslashreplace")
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    tables = {}
    for (name,) in names.fetchall():
        with suppress(sqlite3.OperationalError):  # the module of a virtual table is not loaded here
            info = connection.execute(f"PRAGMA table_info({_quoted(name)})").fetchall()
            columns = tuple(row[1] for row in info)
            key = sorted((row[5], row[1]) for row in info if row[5])
            shown = ", ".join(map(_quoted, columns))
            rows = connection.execute(f"SELECT {shown} FROM {_quoted(name)}")
            # The text has the types: 1 equals 1.0 in Python.
            read = [(repr(row), row) for row in rows]
            tables[name] = ReadTable(columns, tuple(name for _, name in key), read)
    return tables


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
