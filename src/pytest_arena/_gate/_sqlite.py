"""SQLite's side of the gate: arguments, guarded connections, and raw ones seen by an audit hook."""

from __future__ import annotations

import os
import sqlite3
import sys
from functools import cache, partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pytest_arena._dialects import _sqlite as sql
from pytest_arena._gate import _refuse
from pytest_arena._gate._origin import an_engine_opens
from pytest_arena.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._gate._base import Aim, Resolver
    from pytest_arena.errors import ArenaError

__all__ = ["asked_database", "guard_factory", "listen_to_raw_connections", "redirect"]


def asked_database(cargs: list[Any], cparams: dict[str, Any]) -> tuple[str, str]:
    """Return the absolute file that a connect call means, or the name of a shared memory."""
    database, uri = _database(cargs, cparams)
    return sql.file_of(database, uri=uri), sql.memory_of(database, uri=uri)


def _database(cargs: list[Any], cparams: dict[str, Any]) -> tuple[str, bool]:
    database = cargs[0] if cargs else cparams.get("database", "")
    return os.fsdecode(database), bool(cparams.get("uri"))


def redirect(aim: Aim, cargs: list[Any], cparams: dict[str, Any]) -> None:
    """Put the arena's file in the place of the app's; all else stays as the app wants it."""
    database, uri = _database(cargs, cparams)
    cparams.pop("database", None)
    cargs[:1] = [aim.file]
    if uri:  # stays, for the app may attach by URI
        mode = "?mode=ro" if sql.is_read_only(database, uri=uri) else ""
        cargs[:1] = [f"file:{sql.quoted(aim.file)}{mode}"]


class _Guard:
    """Mixed into the connections that engines get: looks at each ATTACH before SQLite does."""

    _arena_admit: Callable[[str | None], None]
    _arena_made_table: Callable[[float, float], None]

    # execute() and its like ask for a cursor() themselves.
    def cursor(self, factory: Any = sqlite3.Cursor) -> sqlite3.Cursor:
        guarded = _guarded_cursor(factory) if isinstance(factory, type) else factory
        cursor: sqlite3.Cursor = super().cursor(guarded)  # type: ignore[misc]  # the mixed-in one
        return cursor


class _GuardedCursor:
    """The cursor of a guarded connection. Costs 0.3 µs a statement."""

    connection: Any

    def execute(self, statement: str, parameters: Any = ()) -> Any:
        __tracebackhide__ = True
        self._admit(statement, parameters)
        started = perf_counter()
        try:
            return super().execute(statement, parameters)  # type: ignore[misc]  # the mixed-in one
        finally:
            if sql.makes_table(statement):
                self.connection._arena_made_table(started, perf_counter())  # noqa: SLF001 - as below

    def executescript(self, script: str) -> Any:
        __tracebackhide__ = True
        self._admit(script, ())
        return super().executescript(script)  # type: ignore[misc]  # the mixed-in cursor

    def _admit(self, script: str, parameters: Any) -> None:
        __tracebackhide__ = True
        if isinstance(script, str) and "attach" in script.lower():
            for name in sql.attached_files(script, parameters):
                self.connection._arena_admit(name)  # noqa: SLF001 - of the class above


class _GuardedConnection(_Guard, sqlite3.Connection):
    """What an engine gets in the place of a plain connection."""


@cache
def _guarded_cursor(base: type[sqlite3.Cursor]) -> Any:
    return type(f"Guarded{base.__name__}", (_GuardedCursor, base), {})


def guard_factory(
    resolver: Resolver, base: Any, made: Callable[[sqlite3.Connection], None]
) -> Callable[..., sqlite3.Connection]:
    """Return what ``sqlite3.connect(factory=…)`` calls: it checks the file before it opens it.

    ``base`` is the app's own ``factory``: its connections stay as they are, and are watched as raw
    ones are.
    """
    cls = _GuardedConnection if base is sqlite3.Connection else base

    def connect(database: Any, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        __tracebackhide__ = True
        file = sql.file_of(os.fsdecode(database), uri=bool(kwargs.get("uri")))
        if file and not _may_open(resolver, file):
            raise _kept(resolver, _refuse.unknown_file(file))
        kwargs.pop("factory", None)
        connection: sqlite3.Connection = cls(database, *args, **kwargs)
        if isinstance(connection, _Guard):
            connection._arena_admit = partial(_admit_attached, resolver)  # noqa: SLF001 - as above
            connection._arena_made_table = lambda *times: resolver.made_table(file, *times)  # noqa: SLF001 - as above
        made(connection)
        return connection

    return connect


def _may_open(resolver: Resolver, file: str) -> bool:
    return resolver.is_inside(file) or resolver.is_free(file)


def _kept(resolver: Resolver, error: ArenaError) -> ArenaError:
    resolver.refused(error)
    return error


def _admit_attached(resolver: Resolver, name: str | None) -> None:
    __tracebackhide__ = True
    if name is None:
        raise _kept(resolver, _refuse.attached(""))
    file = sql.file_of(name, uri=True)
    if file and not resolver.is_inside(file) and resolver.belongs_to_app(file):
        raise _kept(resolver, _refuse.attached(file))


def listen_to_raw_connections(resolver: Callable[[], Resolver | None]) -> None:
    """Watch every ``sqlite3.connect`` of the process. An audit hook can never be removed.

    https://docs.python.org/3/library/sys.html#sys.addaudithook: it sees the arguments before
    the file is opened, and can refuse, but not change them.
    """

    def hook(event: str, args: tuple[Any, ...]) -> None:
        # Called for every audit event of the process: the first test must be the cheapest.
        if not event.startswith("sqlite3.connect") or (now := resolver()) is None:
            return
        __tracebackhide__ = True
        if event == "sqlite3.connect":
            _admit_raw(now, args[0])
        elif not isinstance(args[0], _Guard | sql.OwnConnection):
            _watch_attach(now, args[0])

    sys.addaudithook(hook)


def _admit_raw(resolver: Resolver, database: Any) -> None:
    """Refuse what may not be opened."""
    __tracebackhide__ = True
    if not isinstance(database, str | bytes | os.PathLike):
        return  # SQLite's own words for it are the best
    name = os.fsdecode(database)
    file = sql.file_of(name, uri=name.startswith("file:"))
    if not file or resolver.is_inside(file):
        return
    if resolver.belongs_to_app(file):
        raise _kept(resolver, _refuse.production_file(file))
    if an_engine_opens() and not resolver.is_free(file):
        raise _kept(resolver, _refuse.unknown_file(file))


def _watch_attach(resolver: Resolver, connection: sqlite3.Connection) -> None:
    """Have SQLite ask before it attaches a file to a connection that is not of our making."""

    def authorize(action: int, name: str | None, *_: Any) -> int:
        if action != sqlite3.SQLITE_ATTACH:
            return sqlite3.SQLITE_OK
        if name is None:  # a parameter or an expression: known when the statement runs
            connection.set_trace_callback(at_start)
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_OK if _admits(resolver, name) else sqlite3.SQLITE_DENY

    def at_start(statement: str) -> None:
        for name in sql.attached_files(statement):
            if not _admits(resolver, name):
                _forbid_attach(connection)

    connection.set_authorizer(authorize)


def _forbid_attach(connection: sqlite3.Connection) -> None:
    # A trace cannot refuse a statement; a limit that is looked at after it can.
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)


def _admits(resolver: Resolver, name: str | None) -> bool:
    try:
        _admit_attached(resolver, name)
    except RefusedError:
        return False
    return True
