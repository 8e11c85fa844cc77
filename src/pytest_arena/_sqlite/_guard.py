"""Decides which connections a test may open."""

from __future__ import annotations

import _sqlite3
import os
import sqlite3
import sqlite3.dbapi2
from dataclasses import dataclass
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Any

from pytest_arena._interpreter import on_audit_events
from pytest_arena._origin import logical_stack
from pytest_arena._sqlite import _messages as messages
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._guarded_connection import (
    GuardedConnection,
    guarded_class,
    is_outside,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from pytest_arena._product import ConnectTarget, Core

__tracebackhide__ = True  # a traceback ends at a line of the app or of the test

_BEFORE_FACTORY = 5  # the number of sqlite3.connect's parameters before `factory`


@dataclass(frozen=True, slots=True)
class EngineFactory:
    """The ``factory`` of an engine's connections. It checks the file, then opens it.

    ``base`` is the app's ``factory``. ``target`` is the test's database for the engine, None if the
    engine keeps its database. ``made`` gets each new connection.
    """

    core: Core
    target: ConnectTarget | None
    base: object
    made: Callable[[sqlite3.Connection], None]

    def __call__(
        self, database: Any, *args: object, **kwargs: object
    ) -> sqlite3.Connection:
        """Open the file.

        Raises:
            RefusedError: the file is not the test's.
        """
        core = self.core
        file = sql.file_of(os.fsdecode(database), uri=bool(kwargs.get("uri")))
        is_target = self.target is not None and file == self.target.file
        if not is_target and is_outside(core, file):
            of_app = core.files.belongs_to_app(file)
            raise core.ledger.refused(messages.unknown_file(file, of_app=of_app))
        kwargs.pop("factory", None)
        make = guarded_class(self.base)
        connection: sqlite3.Connection = make(database, *args, **kwargs)
        _guard(core, connection)
        if isinstance(connection, GuardedConnection):
            connection.arena_serve(core.ledger.made_table if self.target else None)
        self.made(connection)
        return connection


def _guard(core: Core, connection: sqlite3.Connection) -> None:
    """Guard the statements of an open connection.

    A connection of another class may attach no file, because pytest-arena cannot read its
    statements. The app gets SQLite's error, and the report names the refusal.
    """
    if isinstance(connection, GuardedConnection):
        connection.arena_guard(core)
        return

    def authorize(action: int, name: str | None, *_: object) -> int:
        if action != sqlite3.SQLITE_ATTACH:
            return sqlite3.SQLITE_OK
        core.ledger.refused(messages.attached_unread(sql.file_of(name or "")))
        return sqlite3.SQLITE_DENY

    connection.set_authorizer(authorize)


@cache
def watch_raw_connections(core: Callable[[], Core | None]) -> None:
    """Watch ``sqlite3.connect`` until the process ends.

    An audit hook gets each file before SQLite opens it, and can refuse it. No code can remove the
    hook: https://docs.python.org/3/library/sys.html#sys.addaudithook. ``sqlite3.connect`` is also
    wrapped, because a hook cannot guard the connection that does not exist yet.
    """
    on_audit_events({"sqlite3.connect": partial(_admit, core)})
    connect = _guarded_connect(core)
    # A reload of sqlite3 takes its functions from _sqlite3.
    for module in (sqlite3, sqlite3.dbapi2, _sqlite3):
        vars(module)["connect"] = connect


def _guarded_connect(core: Callable[[], Core | None]) -> Callable[..., object]:
    connect = sqlite3.connect

    @wraps(connect)
    def guarded(*args: Any, **kwargs: Any) -> object:
        factory = kwargs.get("factory", GuardedConnection)
        if isinstance(factory, EngineFactory):
            return connect(*args, **kwargs)
        # If a caller passes sqlite3's class, the connection has that class.
        if len(args) <= _BEFORE_FACTORY and factory is not sqlite3.Connection:
            kwargs["factory"] = guarded_class(factory)
        connection = connect(*args, **kwargs)
        now = core()
        if now is not None and isinstance(connection, sqlite3.Connection):
            _guard(now, connection)
            if isinstance(connection, GuardedConnection):
                _place(now, connection, args[0] if args else kwargs["database"])
        return connection

    return guarded


def _place(core: Core, connection: GuardedConnection, database: object) -> None:
    """Note the file that a raw connection has opened."""
    file = _raw_file(database)
    if not file:
        return
    if core.is_inside(file):
        target = core.target_at(file)
        connection.arena_serve()
        if target is not None:
            connection.arena_watch_writes(target.file)
    else:
        connection.arena_watch(core.files.register_opened(file))


def _raw_file(database: Any) -> str:
    name = os.fsdecode(database)
    return sql.file_of(name, uri=name.startswith("file:"))


def _admit(core: Callable[[], Core | None], database: object, *_: object) -> None:
    """Refuse a raw connection to a file of the app.

    Raises:
        RefusedError: the file belongs to the app.
    """
    now = core()
    if now is None or not isinstance(database, str | bytes | os.PathLike):
        return  # SQLite raises its own error for another type
    file = _raw_file(database)
    if not is_outside(now, file):
        now.refuse_late()
        return
    of_app = now.files.belongs_to_app(file)
    if _is_opened_by_engine():
        raise now.ledger.refused(messages.unknown_file(file, of_app=of_app))
    if of_app:
        raise now.ledger.refused(messages.production_file(file))


def _is_opened_by_engine() -> bool:
    """Return whether a pool opens the connection with the app's ``creator``."""
    inner: FrameType | None = None
    for frame in logical_stack():
        is_pool = _module(frame) == "sqlalchemy.pool.base"
        if is_pool and frame.f_code.co_name == "__connect":
            return inner is not None and not _is_beside_creator(inner)
        # The pool wraps a creator without parameters in a function of the same module.
        if not is_pool:
            inner = frame
    return False


def _is_beside_creator(frame: FrameType) -> bool:
    """Return whether a pool calls other code than a ``creator`` here.

    Such code is a handler of its log, a listener, or a ``do_connect`` listener.
    ``EngineFactory`` checks the engine's connection.
    """
    module = _module(frame)
    if module == "sqlalchemy.engine.create":
        return frame.f_code.co_name == "connect"
    return module.startswith(("logging", "sqlalchemy.log", "sqlalchemy.event."))


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
