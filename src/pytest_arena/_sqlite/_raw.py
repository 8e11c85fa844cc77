"""Which connections does nobody open by an engine, and may they be opened?"""

from __future__ import annotations

import _sqlite3
import os
import sqlite3
import sqlite3.dbapi2
import sys
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Any

from pytest_arena._origin import frames
from pytest_arena._sqlite import _messages
from pytest_arena._sqlite import _names as names
from pytest_arena._sqlite._factory import EngineFactory
from pytest_arena._sqlite._guarded import GuardedConnection, guard

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from pytest_arena._product import Core

__all__ = ["watch_raw_connections"]


@cache
def watch_raw_connections(core: Callable[[], Core | None]) -> None:
    """Watch every ``sqlite3.connect`` of the process, until the process ends.

    An audit hook sees the file before it is opened, and can refuse; it can never be removed:
    https://docs.python.org/3/library/sys.html#sys.addaudithook. It cannot set up the connection
    (for which it is too early), and that is what ``sqlite3.connect`` is wrapped for.
    """

    def hook(event: str, args: tuple[Any, ...]) -> None:
        # Called for every audit event of the process: the first test must be the cheapest.
        if event == "sqlite3.connect" and (now := core()) is not None:
            __tracebackhide__ = True
            _admit_raw(now, args[0])

    sys.addaudithook(hook)
    wrapped = _guarding(sqlite3.connect, core)
    for module in (sqlite3, sqlite3.dbapi2, _sqlite3):  # the last is what a reload takes it from
        vars(module)["connect"] = wrapped


def _guarding(connect: Callable[..., Any], core: Callable[[], Core | None]) -> Any:
    @wraps(connect)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if len(args) <= _BEFORE_FACTORY:
            kwargs.setdefault("factory", GuardedConnection)
        connection = connect(*args, **kwargs)
        of_engine = isinstance(kwargs.get("factory"), EngineFactory)
        if not of_engine and isinstance(connection, sqlite3.Connection) and (now := core()):
            guard(now, connection, of_engine=False)
            if isinstance(connection, GuardedConnection):
                _place(now, connection, *args, **kwargs)
        return connection

    return guarded


def _place(core: Core, connection: GuardedConnection, database: Any, *_: Any, **__: Any) -> None:
    """Say what stands behind a raw connection: a file of the arena's, or one of somebody's."""
    file = _raw_file(database)
    if not file:
        return
    if core.is_inside(file):
        connection.arena_leads = partial(core.aim_attached, beside=core.aim_at(file))
    else:  # an engine may turn out to mean it
        connection.arena_outside = os.path.realpath(file)


def _raw_file(database: Any) -> str:
    name = os.fsdecode(database)
    return names.file_of(name, uri=name.startswith("file:"))


_BEFORE_FACTORY = 5  # how many parameters of sqlite3.connect stand before `factory`


def _admit_raw(core: Core, database: Any) -> None:
    """Refuse what may not be opened."""
    __tracebackhide__ = True
    if not isinstance(database, str | bytes | os.PathLike):
        return  # SQLite's own words for it are the best
    file = _raw_file(database)
    if not file or core.is_inside(file) or core.files.is_free(file):
        return
    of_app = core.files.belongs_to_app(file)
    if _an_engine_opens():
        raise core.ledger.refused(_messages.unknown_file(file, of_app=of_app))
    if of_app:
        raise core.ledger.refused(_messages.production_file(file))


def _an_engine_opens() -> bool:
    """Whether a pool opens the connection, by a creator of the app's own."""
    inner: FrameType | None = None
    for frame in frames():
        if _module(frame) == "sqlalchemy.pool.base" and frame.f_code.co_name == "__connect":
            return inner is not None and not _is_aside(inner)
        # The pool calls a creator that takes no arguments by a function of its own.
        if _module(frame) != "sqlalchemy.pool.base":
            inner = frame
    return False


def _is_aside(frame: FrameType) -> bool:
    """Whether what a pool calls here opens a connection for itself, and not the engine's.

    That is a handler of its log, a listener, and what a ``do_connect`` listener does before the
    engine's own connection is opened, which has a check of its own.
    """
    module = _module(frame)
    is_own = module == "sqlalchemy.engine.create" and frame.f_code.co_name == "connect"
    return is_own or module.startswith(("logging", "sqlalchemy.log", "sqlalchemy.event."))


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
