"""The connections that the app gets under ``rollback``. They share one real connection.

BEGIN and COMMIT of the app become a savepoint, which is opened at the first write. Only one
transaction of the app writes at a time. Other writers wait for it, as for SQLite's write lock.
Readers do not wait. Rows are fetched at once, because a rollback would end a reader.
"""

from __future__ import annotations

import os
import re
import sqlite3
import sys
import threading
from contextlib import closing
from functools import cache, lru_cache, wraps
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_arena import _process
from pytest_arena._origin import user_line
from pytest_arena._sqlite import _messages as messages
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._guarded_connection import GuardedConnection, split_script
from pytest_arena._sqlite.rollback._shared_database import (
    RESETS,
    find_shared,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._sqlite.rollback._shared_database import (
        RealConnection,
        Register,
        SharedDatabase,
        Writer,
    )

__tracebackhide__ = True  # a traceback ends at a line of the app or of the test

_CACHED = 500
# SQLite skips empty statements and a byte order mark.
_FIRST_WORD = re.compile(r"(?:[\s;\ufeff]|--[^\n]*|/\*.*?(?:\*/|\Z))*+(\w+)", re.DOTALL)
_COMMENTS = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_NAME = r"""(?P<name>"(?:[^"]|"")+"|'(?:[^']|'')+'|`[^`]+`|\[[^\]]+\]|\w+)"""
_CONTROL = {
    "BEGIN": r"BEGIN(?:\s+(?P<name>DEFERRED|IMMEDIATE|EXCLUSIVE))?(?:\s+TRANSACTION)?",
    "COMMIT": r"COMMIT(?:\s+TRANSACTION)?",
    "END": r"END(?:\s+TRANSACTION)?",
    "ROLLBACK": rf"ROLLBACK(?:\s+TRANSACTION)?(?:\s+TO(?:\s+SAVEPOINT)?\s+{_NAME})?",
    "SAVEPOINT": rf"SAVEPOINT\s+{_NAME}",
    "RELEASE": rf"RELEASE(?:\s+SAVEPOINT)?\s+{_NAME}",
}
_PRAGMA = r"PRAGMA\s+(?:\w+\s*\.\s*)?(?P<name>\w+)\s*(?:=\s*(?P<value>.+)|\((?P<called>.*)\))?"
_FORMS = {
    keyword: re.compile(form, re.IGNORECASE | re.DOTALL)
    for keyword, form in {**_CONTROL, "PRAGMA": _PRAGMA}.items()
}
# Python begins a transaction before these statements.
_DML = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE"})
_COUNTED = _DML | {"WITH"}  # SQLite counts the rows that these statements change
_INSERTS = frozenset({"INSERT", "REPLACE", "WITH"})
_READS = frozenset({"SELECT", "VALUES", "EXPLAIN", ""})
_WRITES_IN_WITH = re.compile(r"\b(?:INSERT|UPDATE|DELETE|REPLACE)\b", re.IGNORECASE)
# Settings of a connection or a file that do not change the results of statements.
_WITHOUT_EFFECT = frozenset(
    {
        "analysis_limit",
        "auto_vacuum",
        "automatic_index",
        "busy_timeout",
        "cache_size",
        "cache_spill",
        "cell_size_check",
        "checkpoint_fullfsync",
        "foreign_keys",
        "fullfsync",
        "hard_heap_limit",
        "incremental_vacuum",
        "journal_size_limit",
        "locking_mode",
        "mmap_size",
        "page_size",
        "query_only",
        "read_uncommitted",
        "secure_delete",
        "shrink_memory",
        "soft_heap_limit",
        "synchronous",
        "temp_store",
        "threads",
        "trusted_schema",
        "wal_autocheckpoint",
    }
)
_NUMBERS = frozenset({"application_id", "schema_version", "user_version"})
# Settings of a connection that change the results of statements.
_OF_ONE_CONNECTION = frozenset(
    {
        "case_sensitive_like",
        "count_changes",
        "defer_foreign_keys",
        "full_column_names",
        "ignore_check_constraints",
        "legacy_alter_table",
        "max_page_count",
        "recursive_triggers",
        "reverse_unordered_selects",
        "short_column_names",
        "writable_schema",
    }
)
_DEFERRED = "SELECT 1 FROM sqlite_master WHERE sql LIKE '%INITIALLY%DEFERRED%' LIMIT 1"
_INTO = re.compile(r"\bINTO\b", re.IGNORECASE)
_TEMPORARY = re.compile(r"\bCREATE\s+TEMP(?:ORARY)?\b", re.IGNORECASE)
_LOCKING = frozenset({"immediate", "exclusive"})  # modes of BEGIN
_NOTHING = "PRAGMA arena_nothing"  # an unknown PRAGMA has no effect
_LEGACY = getattr(sqlite3, "LEGACY_TRANSACTION_CONTROL", -1)
_STEP = 0.1  # seconds between two checks for an interruption
_ISOLATION_LEVEL: Any = sqlite3.Connection.isolation_level
_OWN_CHANGES: Any = sqlite3.Connection.total_changes.__get__
# The reasons why a feature does not work on a shared connection.
_DETECT_TYPES = "all connections of the database have the same converters"
_ATTACH = "the other file would have a separate transaction"
_WHOLE = "it would replace the database of all connections"
_BLOB = "pytest-arena does not see when the blob is written"
_AUTHORIZER = "the callback would get the savepoints of all connections"
_SETTING = "all connections have the same setting"


class ParsedStatement(NamedTuple):
    """The parts of a statement that pytest-arena needs."""

    keyword: str
    may_write: bool
    # The mode of a BEGIN, or the name of a savepoint or a PRAGMA, in lower case.
    name: str = ""
    value: str | None = None  # the value of a PRAGMA, in lower case


def _parse(text: str) -> ParsedStatement:
    match = _FIRST_WORD.match(text)
    keyword = match[1].upper() if match else ""
    may_write = keyword not in _READS
    if keyword == "WITH":
        may_write = _WRITES_IN_WITH.search(text) is not None
    form = _FORMS.get(keyword)
    if form is None:
        return ParsedStatement(keyword, may_write)
    bare = _COMMENTS.sub(" ", text).strip("; \t\r\n\f\ufeff")
    match = form.fullmatch(bare)
    if match is None:
        return ParsedStatement(keyword, may_write)
    groups = {name: _unquoted(part) for name, part in match.groupdict("").items()}
    value = groups.get("value") or groups.get("called") or None
    return ParsedStatement(keyword, may_write, groups.get("name", ""), value)


def _unquoted(text: str) -> str:
    return text.strip(" \"'`[]").lower()


_parsed = lru_cache(_CACHED)(_parse)
_LONG = 5_000


def read_statement(text: object) -> ParsedStatement:
    """Read a statement. Results for long statements, which contain data, are not cached."""
    if not isinstance(text, str):
        return ParsedStatement("", may_write=False)  # sqlite3 raises its own error
    if len(text) > _LONG:
        return _parse(text)
    return _parsed(text)


def _error(
    text: str, name: str, kind: type[sqlite3.Error] = sqlite3.OperationalError
) -> sqlite3.Error:
    """Return an error with SQLite's name and code."""
    error = kind(text)
    error.sqlite_errorname = name
    error.sqlite_errorcode = getattr(sqlite3, name)
    return error


def _registering(method: str, names: int = 0) -> Any:
    """Return a method that registers a function for one connection.

    Its first ``names`` arguments identify the function.
    """
    original = getattr(sqlite3.Connection, method)

    @wraps(original)
    def register(self: SharingConnection, *args: Any, **kwargs: Any) -> None:
        def apply(real: sqlite3.Connection) -> None:
            original(real, *args, **kwargs)

        if method not in RESETS:
            apply(self)  # the database in memory checks the arguments
        values = (*args, *kwargs.values())
        self.arena_register((method, *values[:names]), apply)

    return register


class SharingConnection(GuardedConnection):
    """A connection of the app that shares the real connection.

    It is open on an empty memory database, which keeps the connection's settings: threads,
    ``isolation_level``, ``row_factory``, PRAGMAs without an effect on results.
    """

    arena_shared: SharedDatabase
    arena_last_row: int | None = 0  # the id of the last inserted row

    def __init__(self, database: Any, *args: Any, **kwargs: Any) -> None:
        shared = find_shared(_file_of(database))
        if shared is None:
            raise _error("unable to open database file", "SQLITE_CANTOPEN")
        self.arena_shared = shared
        self.arena_turn = threading.RLock()
        detects = args[1] if len(args) > 1 else kwargs.get("detect_types", 0)
        if detects:
            raise messages.not_shared("detect_types", _DETECT_TYPES)
        self._is_read_only = sql.is_read_only(os.fsdecode(database), uri=True)
        self._identity = object()
        self._writer: Writer | None = None
        self._savepoints: list[str] = []
        self._is_interrupted = False
        self._running: RealConnection | None = None
        self._changes = 0
        self._changes_before = 0
        self._has_changed_more = (
            False  # has changed the schema, which SQLite does not count
        )
        self._functions: dict[object, Register] = {}
        self._violations: set[object] = set()
        super().__init__(sql.MEMORY, *args, **kwargs)

    @property
    def _is_writer(self) -> bool:
        return self._writer is not None and self._writer is self.arena_shared.writer

    @property
    def _was_cut_off(self) -> bool:
        return self._writer is not None and self._writer.is_cut_off

    def arena_check_open(self) -> None:
        """Raise sqlite3's error if the connection is closed or belongs to another thread."""
        sqlite3.Connection.getlimit(self, sqlite3.SQLITE_LIMIT_LENGTH)

    def arena_note_row(self, number: int | None) -> None:
        """Note the id of the last inserted row."""
        self.arena_last_row = number

    # The transaction of the app.

    def _run_control(self, statement: ParsedStatement, cursor: SharingCursor) -> None:
        """Run a statement about transactions or savepoints.

        The memory database runs it first. It knows whether a transaction is open, and refuses a
        wrong statement.
        """
        keyword = statement.keyword
        name = statement.name
        if name in _LOCKING and not self.in_transaction:
            self._become_writer()
        if keyword in {"COMMIT", "END"}:
            self._check_commit()
        cursor.arena_send(self)
        if keyword == "SAVEPOINT":
            self._savepoints.append(name)
            self._run_if_writer(f'SAVEPOINT "app {name}"')
        elif keyword == "ROLLBACK" and name:
            del self._savepoints[self._savepoint(name) + 1 :]
            self._run_if_writer(f'ROLLBACK TO "app {name}"')
        elif keyword == "ROLLBACK":
            self._roll_back_writer()
        elif keyword == "RELEASE" and not self.in_transaction:
            self._commit_by_release(name)
        elif not self.in_transaction:
            self._commit_writer()
        elif keyword == "RELEASE":
            del self._savepoints[self._savepoint(name) :]
            self._run_if_writer(f'RELEASE "app {name}"')

    def _commit_by_release(self, name: str) -> None:
        """Commit, because the outermost savepoint is released."""
        try:
            self._check_commit()
        except sqlite3.IntegrityError:
            self._run_own(f'SAVEPOINT "{name}"')
            raise
        self._commit_writer()

    def _savepoint(self, name: str) -> int:
        """Return the position of the last savepoint of a name."""
        return max(n for n, known in enumerate(self._savepoints) if known == name)

    def _run_if_writer(self, statement: str) -> None:
        if self._is_writer:
            self.arena_shared.real.execute(statement)

    def _become_writer(self) -> None:
        """Wait until no other transaction writes, and open the savepoints of this transaction.

        Raises:
            sqlite3.OperationalError: another transaction has written, and does not end.
        """
        if self._is_writer:
            return
        shared = self.arena_shared
        self._wait_for_writer()
        if self._is_read_only or self._setting("query_only"):
            raise _error("attempt to write a readonly database", "SQLITE_READONLY")
        shared.peek()
        shared.use_foreign_keys(bool(self._setting("foreign_keys")))
        self._writer = shared.begin_writer(user_line())
        for name in self._savepoints:
            shared.real.execute(f'SAVEPOINT "app {name}"')
        self._changes_before = self._changes
        self._has_changed_more = False
        self._violations = set()
        if self._checks_at_commit():
            self._violations = self._foreign_key_violations()

    def _setting(self, name: str) -> int:
        """Return a setting of this connection, which its memory database has."""
        with closing(_PlainCursor(self)) as cursor:
            value: int = cursor.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    def _wait_for_writer(self) -> None:
        shared = self.arena_shared
        end = _process.seconds() + self._setting("busy_timeout") / 1000
        self._is_interrupted = False
        while True:
            writer = shared.open_writer()
            if writer is None:
                return
            left = end - _process.seconds()
            if left <= 0:
                raise _error(
                    f"database is locked: {user_line() or 'a statement'} waits for the transaction "
                    f"that began to write at {writer.shown}",
                    "SQLITE_BUSY",
                )
            shared.lock.wait(min(left, _STEP))
            if self._is_interrupted:
                raise _error("interrupted", "SQLITE_INTERRUPT")

    def _check_commit(self) -> None:
        """Raise the error of a COMMIT that SQLite would refuse."""
        if self._was_cut_off:
            raise messages.cut_off()
        if self._is_writer and self._checks_at_commit():
            self._check_foreign_keys()

    def _commit_writer(self) -> None:
        """Keep the writes of the transaction."""
        if self._is_writer:
            is_counted = self._changes != self._changes_before
            is_changed = is_counted or self._has_changed_more
            self.arena_shared.commit_writer(is_changed=is_changed)
        self._forget_transaction()

    def _roll_back_writer(self) -> None:
        """Roll back the writes of the transaction."""
        if self._is_writer:
            self.arena_shared.roll_back_writer()
        self._forget_transaction()

    def _forget_transaction(self) -> None:
        self._writer = None
        self._savepoints.clear()

    def _checks_at_commit(self) -> bool:
        """Return whether a COMMIT may fail because of a violated foreign key."""
        shared = self.arena_shared
        if not shared.has_foreign_keys:
            return False
        return shared.real.execute(_DEFERRED).fetchone() is not None

    def _check_foreign_keys(self) -> None:
        """Raise the error of a COMMIT if the transaction violates a foreign key."""
        if self._foreign_key_violations() <= self._violations:
            return
        raise _error(
            "FOREIGN KEY constraint failed",
            "SQLITE_CONSTRAINT_FOREIGNKEY",
            sqlite3.IntegrityError,
        )

    def _foreign_key_violations(self) -> set[object]:
        return set(self.arena_shared.real.execute("PRAGMA foreign_key_check"))

    # Statements.

    def arena_run(
        self, statement: ParsedStatement, cursor: SharingCursor, *, may_begin: bool
    ) -> None:
        """Run a statement of a cursor.

        ``may_begin``: Python begins a transaction before a statement that changes rows, depending
        on ``isolation_level``.
        """
        self.arena_check_open()
        with self.arena_shared.lock:
            if self._was_cut_off and statement.keyword != "ROLLBACK":
                raise messages.cut_off()
            if statement.keyword in _CONTROL:
                self._run_control(statement, cursor)
            elif statement.keyword == "PRAGMA":
                self._run_pragma(statement, cursor)
            elif statement.keyword == "VACUUM":
                self._run_vacuum(cursor)
            elif statement.keyword in {"ATTACH", "DETACH"}:
                raise messages.not_shared(statement.keyword, _ATTACH)
            elif statement.may_write:
                self._run_write(statement, cursor, may_begin=may_begin)
            else:
                self._use(cursor.arena_send, self._readable(statement))

    def _run_write(
        self, statement: ParsedStatement, cursor: SharingCursor, *, may_begin: bool
    ) -> None:
        is_dml = statement.keyword in _DML
        if is_dml and may_begin and self._begins_by_itself():
            level = self.isolation_level or ""
            if level.lower() in _LOCKING:
                self._become_writer()
            self._run_own(f"BEGIN {level}")
        if _TEMPORARY.search(cursor.arena_statement):
            self.arena_shared.note(messages.TEMPORARY_TABLE)
        self._write(statement, cursor)

    def _begins_by_itself(self) -> bool:
        is_legacy = getattr(self, "autocommit", _LEGACY) == _LEGACY
        return (
            is_legacy and self.isolation_level is not None and not self.in_transaction
        )

    def _readable(self, statement: ParsedStatement) -> RealConnection:
        """Return the connection for a read. Another transaction may have uncommitted writes."""
        shared = self.arena_shared
        writer = shared.open_writer()
        is_of_real = statement.keyword == "" or statement.name == "database_list"
        if writer is None or self._is_writer or is_of_real:
            return shared.real
        view = shared.committed_view()
        if view is None:
            shared.note(messages.dirty_read(writer.shown))
            return shared.real
        return view

    def _write(self, statement: ParsedStatement, cursor: SharingCursor) -> None:
        """Run a statement that may write. If no transaction is open, run it in a new one."""
        is_alone = not self.in_transaction
        self._become_writer()
        if statement.keyword not in _COUNTED:
            self._has_changed_more = True
        try:
            self._use(cursor.arena_send, self.arena_shared.real)
            if is_alone:
                self._check_commit()
                self._commit_writer()
        except BaseException:
            if is_alone:
                self._roll_back_writer()
            raise

    def _use(
        self, run: Callable[[RealConnection], object], real: RealConnection
    ) -> None:
        """Run a statement with this connection's functions and settings."""
        real.arena_apply(self._identity, self._functions, self.text_factory)
        before = real.total_changes
        self._running = real
        try:
            run(real)
        finally:
            self._running = None
            self._changes += real.total_changes - before
            if not self.arena_shared.real.in_transaction:
                self._recover()

    def _recover(self) -> None:
        """Begin again after a statement has rolled back the real transaction."""
        shared = self.arena_shared
        shared.end_writer()
        self._end_own("ROLLBACK")
        self._forget_transaction()
        shared.recover()

    # PRAGMA and VACUUM.

    def _run_pragma(self, statement: ParsedStatement, cursor: SharingCursor) -> None:
        name = statement.name
        value = statement.value
        if name in _OF_ONE_CONNECTION and value is not None:
            raise messages.not_shared(f"PRAGMA {name}", _SETTING)
        if name == "journal_mode":
            is_new = self.arena_settings is None
            mode = self.arena_shared.use_journal_mode(value, is_new=is_new)
            cursor.arena_answer("SELECT ? AS journal_mode", (mode,))
        elif name == "wal_checkpoint":
            cursor.arena_answer("SELECT 0 AS busy, 0 AS log, 0 AS checkpointed")
        elif name == "auto_vacuum" and value is not None:
            # If tables exist, SQLite ignores it until a VACUUM, which has no effect here.
            cursor.arena_answer(_NOTHING)
        elif name in _WITHOUT_EFFECT:
            cursor.arena_send(self)
        elif name == "optimize" or (name in _NUMBERS and value is not None):
            self._write(statement, cursor)
        else:
            self._use(cursor.arena_send, self._readable(statement))

    def _run_vacuum(self, cursor: SharingCursor) -> None:
        """Write a copy for VACUUM INTO. Skip a VACUUM in place, which changes no row."""
        is_copy = _INTO.search(cursor.arena_statement) is not None
        if is_copy and not self.in_transaction:
            # The guard's authorizer is set on the memory database.
            sqlite3.Connection.deserialize(self, self.arena_shared.image())
        try:
            cursor.arena_send(self)
        finally:
            if is_copy and not self.in_transaction:
                empty = self.arena_shared.empty_image()
                sqlite3.Connection.deserialize(self, empty)
        if not is_copy:
            self.arena_shared.note(messages.NO_VACUUM)

    # The methods of sqlite3.Connection.

    @property
    def total_changes(self) -> int:
        """As ``sqlite3.Connection.total_changes``."""
        _OWN_CHANGES(self)  # raises an error if the connection is closed
        return self._changes

    @property
    def isolation_level(self) -> Any:
        """As ``sqlite3.Connection.isolation_level``."""
        return _ISOLATION_LEVEL.__get__(self)

    @isolation_level.setter
    def isolation_level(self, level: Any) -> None:
        if level is None and self.in_transaction:
            self.commit()
        _ISOLATION_LEVEL.__set__(self, level)

    if sys.version_info >= (3, 12):

        @property
        def autocommit(self) -> Any:
            """As ``sqlite3.Connection.autocommit``."""
            return sqlite3.Connection.autocommit.__get__(self)

        @autocommit.setter
        def autocommit(self, value: Any) -> None:
            with self.arena_shared.lock:
                if value is True and self.in_transaction:
                    self._check_commit()
                    self._commit_writer()
                sqlite3.Connection.autocommit.__set__(self, value)

    def cursor(self, factory: Any = sqlite3.Cursor) -> Any:
        """As ``sqlite3.Connection.cursor``."""
        if isinstance(factory, type):
            factory = _sharing_cursor(factory)
        return super().cursor(factory)

    def commit(self) -> None:
        """As ``sqlite3.Connection.commit``."""
        self.arena_check_open()
        if getattr(self, "autocommit", None) is True:
            return
        with self.arena_turn, self.arena_shared.lock:
            if self.in_transaction:
                self._check_commit()
                self._end_own("COMMIT")
                self._commit_writer()

    def _end_own(self, verb: str) -> None:
        """End the memory database's transaction. With autocommit=False begin the next one."""
        if self.in_transaction:
            self._run_own(verb)
        if getattr(self, "autocommit", None) is False:
            self._run_own("BEGIN")

    def _run_own(self, statement: str) -> None:
        """Run a statement on the memory database."""
        with closing(_PlainCursor(self)) as cursor:
            cursor.execute(statement)

    def rollback(self) -> None:
        """As ``sqlite3.Connection.rollback``."""
        if getattr(self, "autocommit", None) is not True:
            self.arena_roll_back()

    def arena_roll_back(self) -> None:
        """Roll back. Methods that an app's class overrides are not called."""
        self.arena_check_open()
        with self.arena_turn, self.arena_shared.lock:
            self._end_own("ROLLBACK")
            self._roll_back_writer()

    def arena_close(self) -> None:
        """Close. Methods that an app's class overrides are not called."""
        with self.arena_turn, self.arena_shared.lock:
            self._roll_back_writer()
            sqlite3.Connection.close(self)

    def __exit__(self, kind: object, *error: object) -> Any:
        """As ``sqlite3.Connection.__exit__``."""
        if kind is not None:
            self.rollback()
            return False
        try:
            self.commit()
        except BaseException:
            self.rollback()
            raise
        return False

    def __del__(self) -> None:
        """Abandon the transaction when the garbage collector deletes the connection."""
        writer = getattr(self, "_writer", None)
        if writer is not None:
            writer.abandon()
        finalize = getattr(super(), "__del__", None)  # Python has it since 3.13
        if finalize is not None:
            finalize()

    def interrupt(self) -> None:
        """As ``sqlite3.Connection.interrupt``."""
        self._is_interrupted = True
        running = self._running
        if running is not None:
            running.interrupt()

    create_function: Any = _registering("create_function", 2)
    create_aggregate: Any = _registering("create_aggregate", 2)
    create_window_function: Any = _registering("create_window_function", 2)
    create_collation: Any = _registering("create_collation", 1)
    if hasattr(sqlite3.Connection, "load_extension"):  # a build of Python may lack it
        load_extension: Any = _registering("load_extension", 1)
    set_trace_callback: Any = _registering("set_trace_callback")
    set_progress_handler: Any = _registering("set_progress_handler")

    def set_authorizer(self, authorizer_callback: Any) -> None:
        """As ``sqlite3.Connection.set_authorizer``, if it removes the callback."""
        if authorizer_callback is not None:
            raise messages.not_shared("set_authorizer()", _AUTHORIZER)

    def arena_register(self, key: object, register: Register) -> None:
        """Note a function that only this connection has. The next statement registers it."""
        self._functions[key] = register
        self.arena_note_change()
        self._identity = object()

    def serialize(self, **kwargs: Any) -> bytes:
        """As ``sqlite3.Connection.serialize``."""
        self.arena_check_open()
        with self.arena_shared.lock:
            return self.arena_shared.real.serialize(**kwargs)

    def backup(self, target: Any, **kwargs: Any) -> None:
        """As ``sqlite3.Connection.backup``."""
        self.arena_check_open()
        with self.arena_shared.lock:
            image = self.arena_shared.image()
        with closing(sql.open_memory()) as memory:
            memory.deserialize(image)
            super(sql.OwnConnection, memory).backup(target, **kwargs)

    def deserialize(self, *_args: Any, **_kwargs: Any) -> None:
        """As ``sqlite3.Connection.deserialize``, which would replace the shared database."""
        raise messages.not_shared("deserialize()", _WHOLE)

    def blobopen(self, *_args: Any, **_kwargs: Any) -> Any:
        """As ``sqlite3.Connection.blobopen``."""
        raise messages.not_shared("blobopen()", _BLOB)


class _PlainCursor(sqlite3.Cursor):
    """A cursor whose rows are tuples. The app's ``row_factory`` has no effect."""

    def __init__(self, connection: sqlite3.Connection, /) -> None:
        super().__init__(connection)
        self.row_factory = None


class SharingCursor(sqlite3.Cursor):
    """A cursor of the real connection. ``execute`` fetches all rows before it returns."""

    def __init__(self, connection: SharingConnection, /) -> None:
        self._sharing = connection
        self._rows: Iterator[Any] = iter(())
        self._is_closed = False
        self._lastrowid: int | None = None
        self._send: Callable[..., object] = super().execute
        self.arena_arguments: tuple[Any, ...] = ()
        with connection.arena_shared.lock:
            self._real: sqlite3.Connection = connection.arena_shared.real
            super().__init__(self._real)

    @property
    def connection(self) -> Any:
        """As ``sqlite3.Cursor.connection``."""
        return self._sharing

    @property
    def arena_statement(self) -> Any:
        """The text of the statement."""
        return self.arena_arguments[0]

    def _bind(self, real: sqlite3.Connection) -> None:
        """Make the cursor use ``real``. A restore may have opened the real connection again."""
        if self._real is real:
            return
        factory = self.row_factory
        size = self.arraysize
        super().__init__(real)
        self.row_factory = factory
        self.arraysize = size
        self._real = real

    def arena_send(self, real: sqlite3.Connection) -> None:
        """Run the statement, and fetch its rows."""
        self._bind(real)
        self._send(*self.arena_arguments)
        self._fetch()

    def arena_answer(self, statement: str, parameters: Any = ()) -> None:
        """Answer with the rows of another statement."""
        self._bind(self._sharing.arena_shared.real)
        super().execute(statement, parameters)
        self._fetch()

    def _fetch(self) -> None:
        rows: list[Any] = []
        if self.description is not None:
            rows = super().fetchall()
        self._rows = iter(rows)

    def execute(self, *args: Any) -> Any:
        """As ``sqlite3.Cursor.execute``."""
        return self._run(super().execute, args, may_begin=True)

    def executemany(self, *args: Any) -> Any:
        """As ``sqlite3.Cursor.executemany``."""
        return self._run(super().executemany, args, may_begin=True)

    def executescript(self, script: str, /) -> Any:
        """As ``sqlite3.Cursor.executescript``."""
        sharing = self._sharing
        if getattr(sharing, "autocommit", _LEGACY) == _LEGACY:
            sharing.commit()
        last_row = self._lastrowid
        for statement in split_script(script):
            if _FIRST_WORD.match(statement):
                self._run(super().execute, (statement,), may_begin=False)
        self._run(super().execute, (_NOTHING,), may_begin=False)
        self._lastrowid = last_row
        return self

    def _run(
        self, send: Callable[..., object], args: tuple[Any, ...], *, may_begin: bool
    ) -> Any:
        if self._is_closed:
            super().fetchone()  # raises
        self._rows = iter(())
        self._send = send
        self.arena_arguments = args
        statement = read_statement(args[0] if args else None)
        sharing = self._sharing
        before = sharing.total_changes
        sharing.arena_run(statement, self, may_begin=may_begin)
        if statement.keyword in _INSERTS and sharing.total_changes != before:
            sharing.arena_note_row(super().lastrowid)
        if send.__name__ == "execute" and statement.keyword:
            self._lastrowid = sharing.arena_last_row
        self.arena_arguments = ()
        return self

    @property
    def lastrowid(self) -> Any:
        """As ``sqlite3.Cursor.lastrowid``, for this connection alone."""
        return self._lastrowid

    def _check_open(self) -> None:
        """Raise sqlite3's error if the cursor or its connection is closed."""
        self._sharing.arena_check_open()
        if self._is_closed:
            super().fetchone()  # raises

    def fetchone(self) -> Any:
        """As ``sqlite3.Cursor.fetchone``."""
        self._check_open()
        return next(self._rows, None)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """As ``sqlite3.Cursor.fetchmany``."""
        self._check_open()
        return list(islice(self._rows, self.arraysize if size is None else size))

    def fetchall(self) -> list[Any]:
        """As ``sqlite3.Cursor.fetchall``."""
        self._check_open()
        return list(self._rows)

    def __iter__(self) -> Any:
        """As ``sqlite3.Cursor.__iter__``."""
        return self

    def __next__(self) -> Any:
        """As ``sqlite3.Cursor.__next__``."""
        self._check_open()
        return next(self._rows)

    def close(self) -> None:
        """As ``sqlite3.Cursor.close``."""
        self._rows = iter(())
        self._is_closed = True
        # A restore or a commit may have closed the real connection.
        self._bind(self._sharing)
        super().close()


@cache
def _sharing_cursor(base: Any) -> Any:
    """Return a cursor class for the real connection. It keeps the methods of an app's class."""
    if issubclass(base, SharingCursor):
        return base
    bases: tuple[Any, ...] = (base, SharingCursor)
    if base is sqlite3.Cursor:
        bases = (SharingCursor,)
    return type(base.__name__, bases, {"__module__": base.__module__})


@cache
def sharing_class(base: Any) -> Any:
    """Return a subclass of an app's connection class that shares the real connection.

    If the app's ``factory`` is a function, the result is a subclass of sqlite3's class.
    """
    is_class = isinstance(base, type) and issubclass(base, sqlite3.Connection)
    if not is_class or base in {sqlite3.Connection, GuardedConnection}:
        return SharingConnection
    if issubclass(base, SharingConnection):
        return base
    bases = (base, SharingConnection)
    return type(base.__name__, bases, {"__module__": base.__module__})


def _file_of(database: Any) -> str:
    return sql.file_of(os.fsdecode(database))
