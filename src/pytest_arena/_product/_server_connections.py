"""The connections of a server's drivers: which database they open, and what is known of them.

An engine's connection has the arguments that the gate has written. Any other connection is refused,
redirected or admitted before a socket opens. It ends with its idle owner, else with the level. On
PostgreSQL nothing watches its statements.
"""

from __future__ import annotations

import getpass
import weakref
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial, wraps
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast

from pytest_arena._config._supported import facts_of_driver
from pytest_arena._origin import is_own, user_line
from pytest_arena._owner import Owned, owner_here
from pytest_arena._product import Handle, OpenConnection, Opener, RequestedDatabase, nothing
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from sqlalchemy.engine import Dialect

    from pytest_arena._facts import ProductFacts
    from pytest_arena._owner import Owner
    from pytest_arena._product import ConnectTarget, Core
    from pytest_arena._values import Address, ServerLogin

    FindCore: TypeAlias = Callable[[], Core | None]

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


@dataclass(frozen=True, slots=True)
class ServerTarget:
    """A server, and the name of a database on it."""

    product: str
    server: str  # host name, IP address or socket, and port. Or several that a driver tries in turn
    database: str
    login: ServerLogin | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """The server and the database, in the form of ``arena_allow``."""
        return f"{self.product}://{self.server}/{self.database}"

    def requested(self, dialect: Dialect) -> RequestedDatabase:
        """Return the requested database for the core."""
        return RequestedDatabase(
            dialect, self.product, self.name, database=self.database, login=self.login
        )


class RedirectedHost(str):
    """The host in redirected arguments. It marks the arguments as redirected.

    A driver uses it as a plain ``str``.
    """

    __slots__ = ("address",)
    address: Address

    @classmethod
    def to(cls, address: Address, shown: str) -> RedirectedHost:
        """Return the host of an address in the driver's form ``shown``."""
        host = cls(shown)
        host.address = address
        return host


def is_here(host: str) -> bool:
    """Return whether the server is on this machine, so that a connection needs no encryption."""
    is_loopback = host.startswith("127.") and host.replace(".", "").isdigit()
    return host.startswith("/") or host in {"localhost", "::1"} or is_loopback


def os_user() -> str:
    """Return the user of this process, which is the default login."""
    with suppress(KeyError, OSError):  # a container's user may have no name
        return getpass.getuser()
    return ""


def address_for(target: ConnectTarget, login: ServerLogin | None) -> Address:
    """Return the address of a target with the user that replaces a login of the app."""
    address = cast("Address", target.address)
    if target.database is None:
        return address
    product: Any = target.database.product  # a `ServerProduct`
    user: ServerLogin | None = product.login_of(target.database, login, address)
    return address.as_(user) if user is not None else address


@dataclass(slots=True, eq=False, kw_only=True)
class RawConnection(Owned):
    """A connection that pytest-arena has admitted, and that no engine opens.

    It ends with the level of its owner. A pool's worker, which runs while its fixture or lifespan
    is idle, opens it for these.
    """

    target: ConnectTarget | None = None  # None for a database of `arena_allow`
    # Once it is open: the driver's connection, and the id of its session on the server.
    reference: Callable[[], Any] = nothing
    pid: int = 0


class RawConnections:
    """The connections of a product that no engine has opened and no engine's pool has."""

    def __init__(self, pid_of: Callable[[Any], int]) -> None:
        self._pid_of = pid_of
        self._open: dict[int, RawConnection] = {}
        # The databases that the arguments of all open connections name, also of engines.
        self.named: weakref.WeakKeyDictionary[Any, ServerTarget] = weakref.WeakKeyDictionary()

    def add(self, core: Core, raw: RawConnection, connection: object) -> None:
        """Note that an admitted connection is open."""
        raw.reference = weakref.ref(connection)
        raw.pid = self._pid_of(connection)
        self._open[id(connection)] = raw
        if raw.target is not None:
            core.opened_raw(raw.target.key)

    def forget(self, connection: object) -> None:
        """Forget a connection that an engine's pool has."""
        self._open.pop(id(connection), None)

    def end(self, level: Owner) -> None:
        """End the sessions of a level's connections, also of those that were forgotten open."""
        for number, raw in [*self._open.items()]:
            if raw.owner is level and raw.target is not None:
                del self._open[number]
                end_session(raw.target, raw.pid)
            elif raw.reference() is None:
                self._open.pop(number, None)


@dataclass(frozen=True)
class RawGuard:
    """Decides on each connection of a product's drivers before a socket opens."""

    find_core: FindCore
    arguments: ModuleType
    connections: RawConnections

    def admit(
        self, dialect: str, args: list[object], kwargs: dict[str, Any]
    ) -> RawConnection | None:
        """Refuse, redirect or admit a connection. Return None for one of an engine."""
        core = self.find_core()
        if core is None or is_own():
            return None
        if self.arguments.is_redirected(dialect, args, kwargs):
            return None
        server = self.arguments.target(dialect, args, kwargs)
        from sqlalchemy.engine import make_url  # noqa: PLC0415 - the command `arena` does not need it

        of_driver = make_url(f"{server.product}+{dialect}://").get_dialect()
        target = core.admit(Opener.DRIVER, server.name, server.requested(of_driver()))
        if target is None or target.address is None:
            return None if core.config.drivers == "off" else RawConnection()
        self.arguments.redirect(dialect, address_for(target, server.login), args, kwargs)
        owner = owner_here()
        if owner is None or not owner.is_idle:
            owner = core.level_owner()
        return RawConnection(owner, user_line(), target=target)

    def note_named(
        self, dialect: str, args: object, kwargs: dict[str, Any], connection: object
    ) -> None:
        """Note the database that the arguments of an open connection name."""
        self.connections.named[connection] = self.arguments.target(dialect, args, kwargs)

    def wrap(self, original: Any, dialect: str) -> Any:
        """Return a guarded function in place of a driver's function that connects."""
        is_classmethod = isinstance(original, classmethod)
        function = original.__func__ if is_classmethod else original
        first = int(is_classmethod)

        @wraps(function)
        def connect(*args: Any, **kwargs: Any) -> Any:
            positional = list(args[first:])
            raw = self.admit(dialect, positional, kwargs)
            answer = function(*args[:first], *positional, **kwargs)
            return then(answer, partial(self._note, dialect, positional, kwargs, raw))

        return classmethod(connect) if is_classmethod else connect

    def _note(
        self,
        dialect: str,
        args: object,
        kwargs: dict[str, Any],
        raw: RawConnection | None,
        connection: object,
    ) -> None:
        """Note an open connection."""
        self.note_named(dialect, args, kwargs, connection)
        core = self.find_core()
        if raw is not None and core is not None:
            self.connections.add(core, raw, connection)


def then(answer: Any, note: Callable[[Any], None]) -> Any:
    """Call a function with a driver's answer, also after an async driver's. Return the answer."""

    async def wait() -> Any:
        result = await answer
        note(result)
        return result

    if isawaitable(answer):
        return wait()
    note(answer)
    return answer


def end_session(target: ConnectTarget, pid: int, *, cancel: bool = False) -> None:
    """End a session in a test's database, or cancel only its statement."""
    if target.isolation is not None and target.address is not None:
        with suppress(ArenaError):  # a server that does not answer has ended it
            target.isolation.end(pid, target.address.database, cancel=cancel)


class EngineConnection(Handle):
    """An open connection of an engine to a server.

    A driver's connection cannot be used in another thread or event loop. So pytest-arena asks the
    server about it, and ends its session, by the control connection.
    """

    def __init__(self, target: ConnectTarget, dbapi_connection: object) -> None:
        driver = driver_connection(dbapi_connection)
        self._target = target
        self._reference = weakref.ref(driver)
        self._pid = self.pid_of(driver)

    @staticmethod
    @abstractmethod
    def pid_of(connection: Any) -> int:
        """Return the server's id of a driver's connection."""

    def interrupt(self) -> None:
        """Cancel the running statement."""
        end_session(self._target, self._pid, cancel=True)

    def is_waiting(self) -> bool:
        """Ask the server whether the running statement waits for a lock of another session."""
        isolation = self._target.isolation
        return isolation is not None and isolation.is_waiting(self._pid)

    def roll_back(self) -> None:
        """End the session, which ends the transaction and releases its locks."""
        end_session(self._target, self._pid)


def driver_connection(dbapi_connection: object) -> Any:
    """Return the driver's connection inside SQLAlchemy's adapted connection."""
    adapted = getattr(dbapi_connection, "real", dbapi_connection)  # behind a facade
    return getattr(adapted, "driver_connection", adapted)


class ServerConnections(ABC):
    """The connections of one product, for the gate.

    ``drivers`` are SQLAlchemy's names. The module ``arguments`` reads and writes their arguments.
    With an argument of ``factories`` the app's code opens the connection, perhaps to another
    database.
    """

    facts: ClassVar[ProductFacts]
    drivers: ClassVar[tuple[str, ...]]
    arguments: ClassVar[Any]
    raw: ClassVar[RawConnections]
    factories: ClassVar[tuple[str, ...]] = ()

    def end_raw(self, level: Owner) -> None:
        """End a level's connections that no engine has opened."""
        self.raw.end(level)

    def describe(self, dialect: Dialect, cargs: object, cparams: Any) -> RequestedDatabase | None:
        """Return the database that a driver's arguments name."""
        if dialect.driver not in self.drivers:
            return None
        server: ServerTarget = self.arguments.target(dialect.driver, cargs, cparams)
        return server.requested(dialect)

    def redirect(
        self,
        core: Core,
        dialect: Dialect,
        target: ConnectTarget | None,
        cargs: list[Any],
        cparams: dict[str, Any],
    ) -> Callable[[object], OpenConnection | None]:
        """Redirect the arguments. Return a function that describes the connection once open."""
        if target is not None and target.address is not None:
            driver = dialect.driver
            address = address_for(target, self.arguments.target(driver, cargs, cparams).login)
            self.arguments.redirect(driver, address, cargs, cparams)
            self.prepare(core, dialect, address)
        # A later listener or a factory of the app may open another connection.
        has_factory = any(map(cparams.get, self.factories))
        has_last_word = len(dialect.dispatch.do_connect) == 1 and not has_factory

        def opened(dbapi_connection: object) -> OpenConnection | None:
            if not has_last_word:
                return None
            if target is None:
                return OpenConnection()
            return OpenConnection(target, self.handle(target, dbapi_connection))

        return opened

    def recognize(self, core: Core, dbapi_connection: object) -> OpenConnection | None:
        """Find the connection's database by its unique name."""
        connection = driver_connection(dbapi_connection)
        if facts_of_driver(connection) is not self.facts:
            return None
        self.raw.forget(connection)
        opened = self.opened(connection)
        for database in core.provisioned:
            target = database.target
            if target.address and target.address.database == opened.database:
                return OpenConnection(target, self.handle(target, dbapi_connection))
        core.admit(Opener.CREATOR, opened.name)
        return OpenConnection()

    def opened(self, connection: Any) -> ServerTarget:
        """Return the server and the database of a driver's open connection."""
        return self.raw.named[connection]

    @abstractmethod
    def handle(self, target: ConnectTarget, dbapi_connection: object) -> EngineConnection:
        """Return the handle of an open connection."""

    @abstractmethod
    def prepare(self, core: Core, dialect: Dialect, address: Address) -> None:
        """Prepare the dialect of an engine for its first redirected connection."""
