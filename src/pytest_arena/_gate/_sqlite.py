"""SQLite's side of the gate: arguments, guarded connections, and raw ones seen by an audit hook."""

from __future__ import annotations

import os
import sqlite3
import sqlite3.dbapi2
import sys
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from pytest_arena._dialects import _sqlite as sql
from pytest_arena._gate import _refuse
from pytest_arena._gate._attach import GuardedConnection, watch
from pytest_arena._gate._origin import an_engine_opens

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


def guard_factory(
    resolver: Resolver, base: Any, made: Callable[[sqlite3.Connection], None]
) -> Callable[..., sqlite3.Connection]:
    """Return what ``sqlite3.connect(factory=…)`` calls: it checks the file before it opens it.

    ``base`` is the app's own ``factory``; what it makes stays as it is.
    """
    cls = GuardedConnection if base is sqlite3.Connection else base

    def connect(database: Any, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        __tracebackhide__ = True
        file = sql.file_of(os.fsdecode(database), uri=bool(kwargs.get("uri")))
        if file and not resolver.is_inside(file) and not resolver.is_free(file):
            raise _kept(resolver, _refuse.unknown_file(file))
        kwargs.pop("factory", None)
        connection: sqlite3.Connection = cls(database, *args, **kwargs)
        _guard(resolver, connection)
        if isinstance(connection, GuardedConnection):
            connection.arena_made_table = partial(resolver.made_table, file)
        made(connection)
        return connection

    return connect


def _guard(resolver: Resolver, connection: sqlite3.Connection) -> None:
    if isinstance(connection, GuardedConnection):
        connection.arena_resolver = resolver
    elif not isinstance(connection, sql.OwnConnection):
        watch(resolver, connection)


def listen_to_raw_connections(resolver: Callable[[], Resolver | None]) -> None:
    """Watch every ``sqlite3.connect`` of the process, until the process ends.

    An audit hook sees the file before it is opened, and can refuse; it can never be removed:
    https://docs.python.org/3/library/sys.html#sys.addaudithook. It cannot set up the connection
    (for which it is too early), and that is what ``sqlite3.connect`` is wrapped for.
    """

    def hook(event: str, args: tuple[Any, ...]) -> None:
        # Called for every audit event of the process: the first test must be the cheapest.
        if event == "sqlite3.connect" and (now := resolver()) is not None:
            __tracebackhide__ = True
            _admit_raw(now, args[0])
        elif event == "subprocess.Popen" and (now := resolver()) is not None:
            now.before_child()

    sys.addaudithook(hook)
    wrapped = _guarding(sqlite3.connect, resolver)
    for module in (sqlite3, sqlite3.dbapi2):
        vars(module)["connect"] = wrapped


def _guarding(connect: Callable[..., Any], resolver: Callable[[], Resolver | None]) -> Any:
    @wraps(connect)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if len(args) <= _BEFORE_FACTORY:
            kwargs.setdefault("factory", GuardedConnection)
        connection = connect(*args, **kwargs)
        if (now := resolver()) is not None and isinstance(connection, sqlite3.Connection):
            _guard(now, connection)
            if isinstance(connection, GuardedConnection):
                connection.arena_outside = _outside(now, *args, **kwargs)
        return connection

    return guarded


def _outside(resolver: Resolver, database: Any, *_: Any, **options: Any) -> str | None:
    """The real path of a file that is not the arena's; an engine may turn out to mean it."""
    file = sql.file_of(os.fsdecode(database), uri=bool(options.get("uri")))
    return None if not file or resolver.is_inside(file) else os.path.realpath(file)


_BEFORE_FACTORY = 5  # how many parameters of sqlite3.connect stand before `factory`


def _admit_raw(resolver: Resolver, database: Any) -> None:
    """Refuse what may not be opened."""
    __tracebackhide__ = True
    if not isinstance(database, str | bytes | os.PathLike):
        return  # SQLite's own words for it are the best
    name = os.fsdecode(database)
    file = sql.file_of(name, uri=name.startswith("file:"))
    if not file or resolver.is_inside(file):
        return
    if an_engine_opens() and not resolver.is_free(file):
        raise _kept(resolver, _refuse.unknown_file(file, of_app=resolver.belongs_to_app(file)))
    if resolver.belongs_to_app(file):
        raise _kept(resolver, _refuse.production_file(file))


def _kept(resolver: Resolver, error: ArenaError) -> ArenaError:
    resolver.refused(error)
    return error
