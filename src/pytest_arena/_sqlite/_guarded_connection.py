"""Connections whose statements pytest-arena reads."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, cached_property, lru_cache, partial, wraps
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pytest_arena import _process
from pytest_arena._origin import user_line
from pytest_arena._product import RawWrites
from pytest_arena._sqlite import _messages as messages
from pytest_arena._sqlite import _sql as sql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._product import Core
    from pytest_arena._values import CodeLine
    from pytest_arena.errors import RefusedError

    Run = Callable[..., object]
    Runner = Callable[
        ["GuardedConnection", Run, tuple[object, ...], dict[str, object]], object
    ]

__tracebackhide__ = True  # a traceback ends at a line of the app or of the test

_MOST_ATTACHED = 125  # SQLite uses its own maximum if that is lower
# An app repeats a few statements. A long statement contains data, so it is not cached.
_CACHED_STATEMENTS = 500
_LONG_STATEMENT = 5_000

_ATTACH_OR_VACUUM = re.compile(r"\b(attach|vacuum)\b", re.IGNORECASE)
_MAKES = re.compile(r"\s*CREATE\s", re.IGNORECASE)


def _in_turn(method: Callable[..., object], turn: str = "arena_turn") -> Any:
    """Lock the connection during a call. Costs 0.2 µs.

    SQLite locks statements itself. But if one thread closes a connection just before another thread
    uses it, the process crashes.
    """
    turn_of = attrgetter(turn)

    @wraps(method)
    def call(self: object, *args: object, **kwargs: object) -> object:
        with turn_of(self):
            return method(self, *args, **kwargs)

    return call


def _noting_change(method: Callable[..., object]) -> Any:
    """Return a method that also notes a change of the connection that no attribute shows."""

    @wraps(method)
    def change(self: GuardedConnection, *args: object, **kwargs: object) -> object:
        self.arena_note_change()
        return method(self, *args, **kwargs)

    return change


class GuardedConnection(sqlite3.Connection):
    """The connection that ``sqlite3.connect`` returns. Its cursors read each statement.

    pytest-arena refuses ATTACH of a file of the app. A statement of another cursor cannot attach
    files, because SQLite's limit of attached files is 0.
    """

    # The defaults are for a connection that was opened before the gate.
    arena_core: Core | None = None
    # A lock that is held during each call. `arena_guard` sets one for each connection.
    arena_turn = threading.RLock()
    # The real path of a file that no engine used when the connection was opened.
    arena_outside: str | None = None
    arena_made_table: Callable[[float, float], None] | None = None
    arena_is_on_test = False  # whether the connection is open on a test's database
    arena_authorizer: Callable[..., int] | None = None  # the app's callback
    # Rare settings when last read. None: the connection is new. (): a statement may have set one.
    arena_settings: tuple[object, ...] | None = None

    # The number of functions, callbacks, limits and unreadable settings that the app has set.
    arena_changes = 0
    arena_has_made = False  # a `connect` listener has created a table

    arena_notes_writes = False
    # The line that began the open transaction, if pytest-arena notes the writes.
    arena_begun: CodeLine | None = None

    commit = _in_turn(sqlite3.Connection.commit)
    rollback = _in_turn(sqlite3.Connection.rollback)
    create_function = _noting_change(sqlite3.Connection.create_function)
    create_aggregate = _noting_change(sqlite3.Connection.create_aggregate)
    create_window_function = _noting_change(sqlite3.Connection.create_window_function)
    create_collation = _noting_change(sqlite3.Connection.create_collation)
    set_trace_callback = _noting_change(sqlite3.Connection.set_trace_callback)
    set_progress_handler = _noting_change(sqlite3.Connection.set_progress_handler)
    setlimit = _noting_change(sqlite3.Connection.setlimit)

    @_in_turn
    def close(self) -> None:
        """Roll back and close. If a cursor still exists, SQLite alone would keep the locks."""
        with suppress(sqlite3.Error):
            sqlite3.Connection.rollback(self)
        sqlite3.Connection.close(self)

    def arena_watch_writes(self, file: str) -> None:
        """Note the writes of each transaction from now on. ``file`` is the test's file.

        The connection gets another class, so that this costs nothing for an engine's connection.
        """
        kind: Any = type(self)
        self.__class__ = _noting_class(kind)
        _noting_connections[self] = file, os.stat(file).st_ino  # noqa: PTH116 - pathlib is slower

    def arena_guard(self, core: Core) -> None:
        """Guard the statements of this connection from now on."""
        self.arena_core = core
        self.arena_turn = threading.RLock()
        sqlite3.Connection.setlimit(self, sqlite3.SQLITE_LIMIT_ATTACHED, 0)

    def arena_serve(
        self, made_table: Callable[[float, float], None] | None = None
    ) -> None:
        """Note that the connection is open on a test's database."""
        self.arena_is_on_test = True
        self.arena_made_table = made_table

    def arena_note_settings(self, settings: tuple[object, ...]) -> None:
        """Note the rare settings that were read now. (): a statement may have set one."""
        self.arena_settings = settings

    def arena_note_change(self) -> None:
        """Note that the app sets a function, a callback, a limit or an unreadable setting."""
        self.arena_changes += 1

    def arena_note_made(self) -> None:
        """Note a statement that creates a table, if a `connect` listener sends it."""
        if self.arena_settings is None:
            self.arena_has_made = True

    def arena_watch(self, file: str) -> None:
        """Refuse statements as soon as an engine uses this file."""
        self.arena_outside = file

    def arena_check(self) -> None:
        """Raise an error if the connection may no longer send a statement.

        Raises:
            RefusedError: the file belongs to the app. An engine has used it since it was opened.
        """
        core = self.arena_core
        if core is None:
            return
        outside = self.arena_outside
        if outside is not None and core.files.is_replaced(outside):
            raise core.ledger.refused(messages.production_file(outside))

    def cursor(self, factory: Any = sqlite3.Cursor) -> Any:
        """As ``sqlite3.Connection.cursor``."""
        if isinstance(factory, type):
            factory = _guarded_cursor(factory)
        return super().cursor(factory)

    # In sqlite3 these three methods create a cursor without `cursor()`.

    def execute(self, *args: object, **kwargs: object) -> Any:
        """As ``sqlite3.Connection.execute``."""
        return self.cursor().execute(*args, **kwargs)

    def executemany(self, *args: object, **kwargs: object) -> Any:
        """As ``sqlite3.Connection.executemany``."""
        return self.cursor().executemany(*args, **kwargs)

    def executescript(self, *args: object, **kwargs: object) -> Any:
        """As ``sqlite3.Connection.executescript``."""
        return self.cursor().executescript(*args, **kwargs)

    def set_authorizer(self, authorizer_callback: Any) -> None:
        """As ``sqlite3.Connection.set_authorizer``."""
        self.arena_authorizer = authorizer_callback
        self.arena_note_change()
        super().set_authorizer(authorizer_callback)


class _NotingConnection(GuardedConnection):
    """A connection to a test's file that no engine has opened. It notes writes that it loses."""

    arena_notes_writes = True
    # The request that sends the next statement to a thread of aiosqlite.
    arena_request: object = None
    _rows_before = 0  # SQLite's count of changed rows before the first write

    @cached_property
    def _writes(self) -> RawWrites:
        """Return the writes of the open transaction."""
        return RawWrites()

    def commit(self) -> None:
        """As ``sqlite3.Connection.commit``."""
        super().commit()
        self._end_writes()

    def rollback(self) -> None:
        """As ``sqlite3.Connection.rollback``."""
        super().rollback()
        self._end_writes()

    def __exit__(self, *error: Any) -> Any:  # noqa: PYI036 - passed on unchanged
        """As ``sqlite3.Connection.__exit__``."""
        answer = super().__exit__(*error)
        self._end_writes()
        return answer

    def close(self) -> None:
        """As ``sqlite3.Connection.close``."""
        self.arena_give_up()
        super().close()

    def __del__(self) -> None:
        """Note lost writes when the garbage collector deletes the connection."""
        self.arena_give_up(is_collected=True)
        finalize = getattr(super(), "__del__", None)  # Python has it since 3.13
        if finalize is not None:
            finalize()

    def arena_serve_request(self, request: object) -> None:
        """Note the request that sends the next statement to a thread of aiosqlite."""
        self.arena_request = request

    def arena_note_statement(self, statement: str) -> None:
        """Note a statement that may write, before it runs."""
        if not self.in_transaction:
            self._end_writes()
            self.arena_begun = user_line()
        self._note(statement)

    def arena_note_script(self, script: str) -> None:
        """Note the statements of a script. Python first commits the open transaction."""
        self._end_writes()
        self.arena_begun = user_line()
        for statement in split_script(script):
            self._note(statement)

    def arena_give_up(self, *, is_collected: bool = False) -> None:
        """Note the writes of an open transaction, before the connection closes."""
        if self.arena_core is None or not self._writes.statements:
            return
        # A closed connection has no transaction.
        with suppress(sqlite3.ProgrammingError):
            if self.in_transaction and self.total_changes != self._rows_before:
                self.arena_core.lost_raw(self._writes, is_collected=is_collected)
        self._end_writes()

    def _note(self, statement: str) -> None:
        if self.arena_core is None:
            return
        if not self._writes.statements:
            self._rows_before = self.total_changes
        self._writes.note(statement, self.arena_core.serial(), self.arena_request)

    def _end_writes(self) -> None:
        """Forget the writes of a transaction that has ended."""
        self._writes.statements.clear()


# Connections that no engine has opened, each with the test's file and its inode number.
_noting_connections: WeakKeyDictionary[GuardedConnection, tuple[str, int]] = (
    WeakKeyDictionary()
)


def raw_transactions() -> list[str]:
    """Return the lines that began the open transactions of connections without an engine.

    A connection to a file that another file has replaced holds no lock on the new file.
    """
    lines = []
    for connection in _process.alive(_noting_connections):
        file, inode = _noting_connections[connection]
        # The connection may be closed, or the file deleted.
        with suppress(sqlite3.Error, OSError):
            is_live = os.stat(file).st_ino == inode  # noqa: PTH116 - pathlib is slower
            if is_live and connection.in_transaction:
                line = connection.arena_begun or "in a line that cannot be seen"
                lines.append(str(line))
    return lines


@cache
def _noting_class(kind: Any) -> Any:
    """Return a subclass that notes writes. It keeps the methods of an app's class."""
    return type(
        kind.__name__, (_NotingConnection, kind), {"__module__": kind.__module__}
    )


@cache
def guarded_class(factory: Any) -> Any:
    """Return a guarded subclass of an app's connection class. It keeps the app's methods."""
    is_class = isinstance(factory, type) and issubclass(factory, sqlite3.Connection)
    if not is_class or issubclass(factory, GuardedConnection):
        return factory
    if factory is sqlite3.Connection:
        bases: tuple[type, ...] = (GuardedConnection,)
    else:
        bases = (factory, GuardedConnection)
    return type(factory.__name__, bases, {"__module__": factory.__module__})


class _GuardedCursor:
    """A cursor of a guarded connection. Costs 1-2 µs a statement.

    A cursor class of the app may take any parameters, so this passes all of them on.
    """

    connection: Any  # a guarded connection

    def execute(self, *args: object, **kwargs: object) -> object:
        connection = self.connection
        connection.arena_check()
        statement = _statement(args, kwargs)
        if connection.arena_notes_writes:
            connection.arena_note_statement(statement)
        if len(statement) > _LONG_STATEMENT:
            runner = _find_runner(statement)
        else:
            runner = _cached_runner(statement)
        run = super().execute  # type: ignore[misc]  # of the cursor class beside this one
        if runner is not None:
            return runner(connection, run, args, kwargs)
        with connection.arena_turn:
            return run(*args, **kwargs)

    def executemany(self, *args: object, **kwargs: object) -> object:
        # sqlite3 refuses an ATTACH here.
        self.connection.arena_check()
        if self.connection.arena_notes_writes:
            self.connection.arena_note_statement(_statement(args, kwargs))
        with self.connection.arena_turn:
            return super().executemany(*args, **kwargs)  # type: ignore[misc]  # as above

    def executescript(self, *args: object, **kwargs: object) -> object:
        self.connection.arena_check()
        run = super().executescript  # type: ignore[misc]  # as above
        runner: Runner = _run_setting
        script = _statement(args, kwargs)
        if self.connection.arena_notes_writes:
            self.connection.arena_note_script(script)
        if _MAKES.search(script):
            self.connection.arena_note_made()
        if _ATTACH_OR_VACUUM.search(script):
            runner = _run_attaching
        return runner(self.connection, run, args, kwargs)


@cache
def _guarded_cursor(base: type[sqlite3.Cursor]) -> type[sqlite3.Cursor]:
    methods = {
        name: _in_turn(getattr(base, name), "connection.arena_turn")
        for name in ("fetchone", "fetchmany", "fetchall", "__next__")
    }
    return type(f"Guarded{base.__name__}", (_GuardedCursor, base), methods)


def _statement(args: tuple[object, ...], kwargs: dict[str, object]) -> str:
    first = args[0] if args else next(iter(kwargs.values()), "")
    return first if isinstance(first, str) else ""


def _find_runner(statement: str) -> Runner | None:
    """Return the function that runs a statement which needs more than the connection's lock."""
    if _ATTACH_OR_VACUUM.search(statement):
        return _run_attaching
    if "PRAGMA" in statement or "pragma" in statement:
        return _run_setting
    if _MAKES.match(statement):
        return _run_making
    return None


_cached_runner = lru_cache(_CACHED_STATEMENTS)(_find_runner)


def _run_making(
    connection: GuardedConnection, run: Run, args: Any, kwargs: Any
) -> object:
    """Run a statement that creates a table or an index, and report its time."""
    connection.arena_note_made()
    started = _process.seconds()
    try:
        with connection.arena_turn:
            return run(*args, **kwargs)
    finally:
        if connection.arena_made_table is not None:
            connection.arena_made_table(started, _process.seconds())


def _run_setting(
    connection: GuardedConnection, run: Run, args: Any, kwargs: Any
) -> object:
    """Run a statement that may change a setting, and note that unless the connection is new."""
    if connection.arena_settings is not None:
        statement = _statement(args, kwargs)
        connection.arena_note_settings(())
        if "case_sensitive_like" in statement.lower():  # SQLite cannot read it back
            connection.arena_note_change()
    with connection.arena_turn:
        return run(*args, **kwargs)


def _run_attaching(
    connection: GuardedConnection, run: Run, args: Any, kwargs: Any
) -> object:
    """Run statements that may attach files. SQLite's authorizer gets each file before.

    VACUUM INTO also attaches the file that it writes.
    """
    core = connection.arena_core
    if core is None:
        return run(*args, **kwargs)
    own = connection.arena_authorizer
    refusals: list[RefusedError] = []

    def authorize(action: int, name: str | None, *rest: object) -> int:
        if action == sqlite3.SQLITE_ATTACH:
            # SQLite has not evaluated a parameter or an expression yet.
            names = _texts_of(args) if name is None else [name]
            for refusal in _refusals_of(core, connection, names):
                refusals.append(core.ledger.refused(refusal))
                return sqlite3.SQLITE_DENY
        if own:
            return own(action, name, *rest)
        return sqlite3.SQLITE_OK

    sqlite3.Connection.set_authorizer(connection, authorize)
    limit = partial(
        sqlite3.Connection.setlimit, connection, sqlite3.SQLITE_LIMIT_ATTACHED
    )
    limit(_MOST_ATTACHED)
    try:
        with connection.arena_turn:
            return run(*args, **kwargs)
    except sqlite3.Error:
        if refusals:
            raise refusals[0] from None  # instead of SQLite's "not authorized"
        raise
    finally:
        limit(0)
        sqlite3.Connection.set_authorizer(connection, own)


def _texts_of(args: Any) -> list[str]:
    """Return the texts among the parameters of a statement, none if they have names."""
    parameters = args[1] if len(args) > 1 else ()
    if isinstance(parameters, Mapping):
        return []
    return [value for value in parameters if isinstance(value, str)]


def _refusals_of(
    core: Core, connection: GuardedConnection, names: list[str]
) -> Iterator[RefusedError]:
    """Yield why a connection may not attach one of these files."""
    if not names:
        yield messages.attached_unread("")
    for name in names:
        file = sql.file_of(name)
        if core.files.is_of_earlier_run(file):
            core.files.register_opened(file)
        if not file or core.is_inside(file):
            continue
        if core.files.belongs_to_app(file) or (
            connection.arena_is_on_test and not core.files.is_free(file)
        ):
            yield messages.attached(file)


def split_script(script: str) -> Iterator[str]:
    """Split a script into its statements. SQLite finds their ends."""
    statement = ""
    for part in re.findall(r"[^;]*;|[^;]+", script):
        statement += part
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    yield statement


def is_outside(core: Core, file: str) -> bool:
    """Return whether a file is neither a test's database nor another file that tests may open."""
    return bool(file) and not core.is_inside(file) and not core.files.is_free(file)
