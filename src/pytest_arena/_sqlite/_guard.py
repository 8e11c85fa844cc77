"""Refuses connections to the app's files, and ATTACH of files."""

from __future__ import annotations

import _sqlite3
import os
import re
import sqlite3
import sqlite3.dbapi2
from contextlib import contextmanager, suppress
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Any

from pytest_arena._interpreter import on_audit_events
from pytest_arena._origin import logical_stack
from pytest_arena._sqlite import _messages as messages
from pytest_arena._sqlite import _sql as sql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._product import Core
    from pytest_arena.errors import RefusedError

    CurrentCore = Callable[[], Core | None]

__tracebackhide__ = True  # a traceback ends at a line of the app or of the test

_BEFORE_FACTORY = 5  # the number of sqlite3.connect's parameters before `factory`
_MOST_ATTACHED = 125  # SQLite uses its own maximum if that is lower
_ATTACHES = re.compile(r"\b(?:attach|vacuum)\b", re.IGNORECASE)
_OF_COVERAGE = {"coverage.sqldata", "coverage.sqlitedb"}
_cores: list[CurrentCore] = []  # the last item returns the core of the current run


@cache
def watch_connections(core: CurrentCore) -> None:
    """Watch SQLite's connections until the process ends.

    An audit hook gets each file before SQLite opens it, and can refuse it. No code can remove the
    hook: https://docs.python.org/3/library/sys.html#sys.addaudithook. ``sqlite3.connect`` is
    wrapped: it sets SQLite's limit of attached files to 0, which a ``_GuardedCursor`` lifts.
    """
    _cores.append(core)
    on_audit_events({"sqlite3.connect": partial(_admit, core)})
    connect = sqlite3.connect

    @wraps(connect)
    def guarded(*args: Any, **kwargs: Any) -> object:
        if len(args) <= _BEFORE_FACTORY:
            kwargs.setdefault("factory", GuardedConnection)
        connection = connect(*args, **kwargs)
        if isinstance(connection, sqlite3.Connection):
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        return connection

    # A reload of sqlite3 takes its functions from _sqlite3.
    for module in (sqlite3, sqlite3.dbapi2, _sqlite3):
        vars(module)["connect"] = guarded


def _admit(core: CurrentCore, database: object, *_: object) -> None:
    """Refuse a connection to a file of the app. Record the state of another file."""
    now = core()
    if now is None or not isinstance(database, str | bytes | os.PathLike):
        return  # SQLite raises its own error for another type
    name = os.fsdecode(database)
    file = sql.requested(name, uri=name.startswith("file:")).file
    if not is_outside(now, file):
        now.refuse_late()
    elif now.files.belongs_to_app(file):
        raise now.ledger.refused(messages.production_file(file))
    else:
        now.files.register_opened(file)


def is_outside(core: Core, file: str) -> bool:
    """Return whether a file is neither a test's database nor another file that tests may open."""
    return bool(file) and not core.is_inside(file) and not core.files.is_free(file)


class GuardedConnection(sqlite3.Connection):
    """The connection that ``sqlite3.connect`` returns, with cursors that may attach files."""

    def cursor(self, factory: Any = None) -> Any:
        """As ``sqlite3.Connection.cursor``."""
        return super().cursor(factory or _GuardedCursor)

    # In sqlite3 these methods create a cursor without `cursor()`.

    def execute(self, *args: Any) -> Any:
        """As ``sqlite3.Connection.execute``."""
        return self.cursor().execute(*args)

    def executescript(self, *args: Any) -> Any:
        """As ``sqlite3.Connection.executescript``."""
        return self.cursor().executescript(*args)

    def close(self) -> None:
        """Roll back and close. If a cursor still exists, SQLite alone would keep the locks."""
        with suppress(sqlite3.Error):
            self.rollback()
        super().close()


class _GuardedCursor(sqlite3.Cursor):
    """A cursor that lets a statement attach a file if the test may open the file."""

    def execute(self, statement: Any, parameters: Any = (), /) -> Any:
        if not _may_attach(statement):
            return super().execute(statement, parameters)
        with _attaching(self.connection):
            return super().execute(statement, parameters)

    def executescript(self, script: Any, /) -> Any:
        if not _may_attach(script):
            return super().executescript(script)
        with _attaching(self.connection):
            return super().executescript(script)


def _may_attach(statement: object) -> bool:
    if not isinstance(statement, str):
        return False
    # Costs 0.3 µs. The regular expression alone would cost ten times as much.
    lower = statement.lower()
    is_possible = "attach" in lower or "vacuum" in lower
    return is_possible and _ATTACHES.search(statement) is not None


@contextmanager
def _attaching(connection: sqlite3.Connection) -> Iterator[None]:
    """Let statements attach files. SQLite's authorizer gets each file before.

    The authorizer is not set all the time: SQLite calls it while it holds the connection's lock.
    If two threads used one connection, the process would hang.
    """
    core = _cores[-1]()
    refusals: list[RefusedError] = []

    def authorize(action: int, name: str | None, *_: object) -> int:
        if action != sqlite3.SQLITE_ATTACH or core is None:
            return sqlite3.SQLITE_OK
        # coverage attaches its own files, by a parameter.
        callers = [frame.f_globals.get("__name__") for frame in logical_stack()]
        if not _OF_COVERAGE.isdisjoint(callers):
            return sqlite3.SQLITE_OK
        # SQLite passes None for a parameter and for an expression. VACUUM INTO attaches the file
        # that it writes, and passes its name.
        file = "" if name is None else sql.requested(name).file
        if name is not None and not is_outside(core, file):
            return sqlite3.SQLITE_OK
        refusals.append(core.ledger.refused(messages.attached(file)))
        return sqlite3.SQLITE_DENY

    connection.set_authorizer(authorize)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, _MOST_ATTACHED)
    try:
        yield
    except sqlite3.Error:
        if refusals:
            raise refusals[0] from None  # instead of SQLite's "not authorized"
        raise
    finally:
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.set_authorizer(None)
