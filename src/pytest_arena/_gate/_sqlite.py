"""SQLite's side of the gate: arguments, guarded connections, and raw ones seen by an audit hook."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_arena._dialects import _sqlite as sql
from pytest_arena._gate import _refuse
from pytest_arena._gate._origin import comes_through_sqlalchemy

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._gate._base import Aim, Resolver
    from pytest_arena.errors import ArenaError

__all__ = ["asked_file", "guard_factory", "listen_to_raw_connections", "redirect"]


def asked_file(cargs: list[Any], cparams: dict[str, Any]) -> str:
    """Return the absolute file that a connect call means, "" for a memory database."""
    database = cargs[0] if cargs else cparams.get("database", "")
    return sql.file_of(os.fsdecode(database), uri=bool(cparams.get("uri")))


def redirect(aim: Aim, cargs: list[Any], cparams: dict[str, Any]) -> None:
    """Put the arena's file in the place of the app's; all else stays as the app wants it."""
    cparams.pop("database", None)
    read_only = "mode=ro" in str(cargs[0] if cargs else "") and cparams.get("uri")
    cparams.pop("uri", None)
    cargs[:1] = [f"file:{sql.quoted(aim.file)}?mode=ro" if read_only else aim.file]
    if read_only:
        cparams["uri"] = True


class _Guard:
    """Mixed into the connections that engines get: looks at each ATTACH before SQLite does."""

    _arena_admit: Callable[[str], None]

    def cursor(self, factory: type[sqlite3.Cursor] | None = None) -> sqlite3.Cursor:
        return _guarded_cursor(factory or sqlite3.Cursor)(self)

    def execute(self, statement: str, parameters: Any = ()) -> sqlite3.Cursor:
        return self.cursor().execute(statement, parameters)

    def executemany(self, statement: str, parameters: Any) -> sqlite3.Cursor:
        return self.cursor().executemany(statement, parameters)

    def executescript(self, script: str) -> sqlite3.Cursor:
        return self.cursor().executescript(script)


class _GuardedCursor:
    """The cursor of a guarded connection. Costs 0.3 µs a statement."""

    connection: Any

    def execute(self, statement: str, parameters: Any = ()) -> Any:
        if "attach" in statement.lower():
            self._admit(statement, parameters)
        return super().execute(statement, parameters)  # type: ignore[misc]  # the mixed-in cursor

    def executescript(self, script: str) -> Any:
        if "attach" in script.lower():
            for statement in script.split(";"):
                self._admit(statement, ())
        return super().executescript(script)  # type: ignore[misc]  # the mixed-in cursor

    def _admit(self, statement: str, parameters: Any) -> None:
        file = sql.attached_file(statement, parameters)
        if file is not None:
            self.connection._arena_admit(file)  # noqa: SLF001 - of the class above


@cache
def _guarded(base: type[sqlite3.Connection]) -> type[sqlite3.Connection]:
    return type(f"Guarded{base.__name__}", (_Guard, base), {})


@cache
def _guarded_cursor(base: type[sqlite3.Cursor]) -> Any:
    return type(f"Guarded{base.__name__}", (_GuardedCursor, base), {})


def guard_factory(
    resolver: Resolver, base: Any, made: Callable[[sqlite3.Connection], None]
) -> Callable[..., sqlite3.Connection]:
    """Return what ``sqlite3.connect(factory=…)`` calls: it checks the file before it opens it.

    ``base`` is the app's own ``factory``; one that is no class keeps its connection as it is.
    """
    cls = _guarded(base) if isinstance(base, type) else base

    def connect(database: Any, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        file = sql.file_of(os.fsdecode(database), uri=bool(kwargs.get("uri")))
        if file and not _may_open(resolver, file):
            raise _kept(resolver, _refuse.unknown_file(file))
        kwargs.pop("factory", None)
        connection: sqlite3.Connection = cls(database, *args, **kwargs)
        if isinstance(connection, _Guard):
            connection._arena_admit = lambda name: _admit_attached(resolver, name)  # noqa: SLF001
        made(connection)
        return connection

    return connect


def _may_open(resolver: Resolver, file: str) -> bool:
    return resolver.is_inside(file) or resolver.is_free(file)


def _kept(resolver: Resolver, error: ArenaError) -> ArenaError:
    resolver.refused(error)
    return error


def _admit_attached(resolver: Resolver, name: str) -> None:
    file = sql.file_of(name, uri=True)
    known = bool(name) or name == sql.MEMORY
    if not known or (file and resolver.belongs_to_app(file)):
        raise _kept(resolver, _refuse.attached(file))


def listen_to_raw_connections(resolver: Callable[[], Resolver | None]) -> None:
    """Watch every ``sqlite3.connect`` of the process. An audit hook can never be removed.

    https://docs.python.org/3/library/sys.html#sys.addaudithook: it sees the arguments before
    the file is opened, and can refuse, but not change them.
    """

    opening = threading.local()  # the two events of one connect come in one thread

    def hook(event: str, args: tuple[Any, ...]) -> None:
        # Called for every audit event of the process: the first test must be the cheapest.
        if event == "sqlite3.connect" and (now := resolver()) is not None:
            opening.foreign = _admit_raw(now, args[0])
        elif event == "sqlite3.connect/handle" and (now := resolver()) is not None:
            if getattr(opening, "foreign", False) and not isinstance(args[0], _Guard):
                _watch_attach(now, args[0])

    sys.addaudithook(hook)


def _admit_raw(resolver: Resolver, database: Any) -> bool:
    """Refuse what may not be opened. Returns whether the connection is not one of the arena's."""
    name = os.fsdecode(database)
    file = sql.file_of(name, uri=name.startswith("file:"))
    if file and resolver.is_inside(file):
        return False
    if file and resolver.belongs_to_app(file):
        raise _kept(resolver, _refuse.production_file(file))
    if file and comes_through_sqlalchemy() and not resolver.is_free(file):
        raise _kept(resolver, _refuse.unknown_file(file))
    return True


def _watch_attach(resolver: Resolver, connection: sqlite3.Connection) -> None:
    """Have SQLite ask before it attaches a file to a connection that is not of our making."""

    def authorize(action: int, name: str | None, *_: Any) -> int:
        if action != sqlite3.SQLITE_ATTACH:
            return sqlite3.SQLITE_OK
        file = sql.file_of(name, uri=True) if name else ""
        if name is None or (file and resolver.belongs_to_app(file)):
            _kept(resolver, _refuse.attached(file))
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    connection.set_authorizer(authorize)
