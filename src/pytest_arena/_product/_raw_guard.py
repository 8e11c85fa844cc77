"""Watches the calls by which a server's drivers open connections.

An engine's connection still has the arguments that the gate has written. Any other connection is
refused, redirected or admitted before a socket opens. Nothing watches its statements. It ends with
the level that opened it.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from pytest_arena._origin import is_own, user_line
from pytest_arena._owner import OWNER
from pytest_arena._product import Handle
from pytest_arena._product._admission import (
    Admission,
    admit,
    changed_by_app,
    reaches_beyond,
)
from pytest_arena._product._server_targets import RedirectedHost
from pytest_arena._product._statements import classify
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._product import ConnectTarget, Core
    from pytest_arena._product._admission import FindCore
    from pytest_arena._product._server_targets import ServerTarget
    from pytest_arena._values import Address

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


@dataclass(frozen=True, slots=True)
class Arguments:
    """Reads and writes the arguments of a product's drivers."""

    target: Callable[[str, object, dict[str, Any]], ServerTarget]
    is_redirected: Callable[[str, object, dict[str, Any]], bool]
    write_address: Callable[[str, Address, dict[str, Any]], None]
    redirect: Callable[[str, Address, list[Any], dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class RawConnection:
    """An open connection that no engine has opened."""

    target: ConnectTarget | None  # None for a database of `arena_allow`
    serial: int  # of the level to which it belongs
    reference: weakref.ref[Any]
    pid: int  # of its session on the server
    line: str  # that opened it


class RawConnections:
    """The connections of a product that no engine has opened and no engine's pool has."""

    def __init__(
        self,
        pid_of: Callable[[Any], int],
        is_in_transaction: Callable[[Any], bool],
    ) -> None:
        self._pid_of = pid_of
        self._is_in_transaction = is_in_transaction
        self._open: dict[int, RawConnection] = {}

    def add(self, core: Core, admission: Admission, connection: object) -> None:
        """Record an admitted connection.

        A pool's worker, which runs while its fixture or lifespan is idle, opens it for these.
        """
        owner = OWNER.get()
        serial = admission.serial
        if owner is not None and owner.is_idle:
            serial = owner.serial
        raw = RawConnection(
            admission.target,
            serial,
            weakref.ref(connection),
            self._pid_of(connection),
            str(user_line() or "a pool of a driver"),
        )
        self._open[id(connection)] = raw
        if admission.target is not None:
            core.opened_raw(admission.target.key)

    def find(self, connection: object) -> RawConnection | None:
        """Return the record of a connection, None if an engine has opened it."""
        raw = self._open.get(id(connection))
        return raw if raw is not None and raw.reference() is connection else None

    def give_to_pool(self, connection: object) -> None:
        """Forget a connection that an engine's pool has."""
        self._open.pop(id(connection), None)

    def transactions(self) -> list[str]:
        """Return the lines that opened connections which are inside a transaction."""
        return [
            raw.line
            for raw in [*self._open.values()]
            if raw.target is not None and self._is_in_transaction(raw.reference())
        ]

    def end(self, serial: int | None) -> None:
        """End the sessions of a level's connections, also of those that were forgotten open."""
        for number, raw in [*self._open.items()]:
            if raw.target is not None and raw.serial == serial:
                del self._open[number]
                end_session(raw.target, raw.pid)
            elif raw.reference() is None:
                self._open.pop(number, None)


class RawGuard:
    """Decides on each connection of a product's drivers before a socket opens."""

    def __init__(
        self, find_core: FindCore, arguments: Arguments, connections: RawConnections
    ) -> None:
        self._find_core = find_core
        self._arguments = arguments
        self._connections = connections

    def admit(
        self, dialect: str, args: list[object], kwargs: dict[str, Any]
    ) -> Admission | None:
        """Refuse, redirect or admit a connection. Return None for one of an engine."""
        core = self._find_core()
        if core is None or is_own():
            return None
        driver = dialect.partition("_")[0]  # psycopg_async
        if self._arguments.is_redirected(driver, args, kwargs):
            return None
        server = self._arguments.target(driver, args, kwargs)
        if isinstance(kwargs.get("host"), RedirectedHost):
            raise core.ledger.refused(changed_by_app(server))
        return admit(
            core,
            dialect,
            server,
            write_address=lambda address: self._arguments.write_address(
                driver, address, kwargs
            ),
            redirect=lambda address: self._arguments.redirect(
                driver, address, args, kwargs
            ),
        )

    def refuse_pool(
        self, dialect: str, args: list[object], kwargs: dict[str, object]
    ) -> None:
        """Refuse a pool at once, where its workers would try to connect for minutes."""
        core = self._find_core()
        if core is not None and core.config.drivers == "refuse":
            self.admit(dialect, args, kwargs)

    def wrap(
        self, owner: Any, name: str, dialect: str, *, has_class: bool = False
    ) -> None:
        """Replace a driver's function that connects, once."""
        original = vars(owner)[name]
        is_classmethod = isinstance(original, classmethod)
        function = original.__func__ if is_classmethod else original
        if hasattr(function, "arena_guards"):
            return
        first = int(has_class)

        def prepare(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            positional = list(args[first:])
            admission = self.admit(dialect, positional, kwargs)
            return admission, (*args[:first], *positional)

        def record(admission: Admission | None, connection: Any) -> Any:
            core = self._find_core()
            if admission is not None and core is not None:
                self._connections.add(core, admission, connection)
            return connection

        @wraps(function)
        def connect(*args: Any, **kwargs: Any) -> Any:
            admission, to_send = prepare(args, kwargs)
            return record(admission, function(*to_send, **kwargs))

        @wraps(function)
        async def aconnect(*args: Any, **kwargs: Any) -> Any:
            admission, to_send = prepare(args, kwargs)
            return record(admission, await function(*to_send, **kwargs))

        guarded: Any = aconnect if iscoroutinefunction(function) else connect
        guarded.arena_guards = True
        setattr(owner, name, classmethod(guarded) if is_classmethod else guarded)


def end_session(target: ConnectTarget, pid: int, *, cancel: bool = False) -> None:
    """End a session in a test's database, or cancel only its statement."""
    # The isolation of a server's database.
    isolation: Any = target.database.isolation if target.database is not None else None
    if isolation is not None and target.address is not None:
        with suppress(ArenaError):  # a server that does not answer has ended it
            isolation.end(pid, target.address.database, cancel=cancel)


class EngineConnection(Handle):
    """An open connection of an engine to a server.

    A driver's connection cannot be used in another thread or event loop. So pytest-arena asks the
    server about it, and ends its session, by the control connection.
    """

    __slots__ = ("_core", "_pid", "_reference", "_target")

    def __init__(
        self, core: Core, target: ConnectTarget, dbapi_connection: object, pid: int
    ) -> None:
        self._core = core
        self._target = target
        self._reference = weakref.ref(driver_connection(dbapi_connection))
        self._pid = pid

    def interrupt(self) -> None:
        """Cancel the running statement."""
        if self._reference() is not None:
            end_session(self._target, self._pid, cancel=True)

    def roll_back(self) -> None:
        """End the session, which ends the transaction and releases its locks."""
        if self._reference() is not None:
            end_session(self._target, self._pid)

    def check(self, statement: str) -> None:
        """Refuse a statement that reaches beyond the database."""
        __tracebackhide__ = True
        beyond = classify(statement, self.words).beyond
        if beyond:
            error = reaches_beyond(beyond, self.words.instead)
            raise self._core.ledger.refused(error)


def driver_connection(dbapi_connection: object) -> Any:
    """Return the driver's connection inside SQLAlchemy's adapted connection."""
    adapted = getattr(dbapi_connection, "real", dbapi_connection)  # behind a facade
    return getattr(adapted, "driver_connection", adapted)
