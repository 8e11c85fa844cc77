"""Refuses or redirects connections that no engine opens.

pytest-arena replaces the drivers' functions that open every connection. Engines call these
functions, too. The guard admits a connection if it still has the arguments that the gate has set.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pytest_arena._interpreter import when_imported
from pytest_arena._origin import is_own
from pytest_arena._postgresql import _arguments as arguments
from pytest_arena._postgresql._arguments import PostgreSQLTarget
from pytest_arena._postgresql.drivers._statements import (
    SEAMS,
    guard_cursors,
    record_of,
    record_opened,
    replace_function,
    watching_class,
)
from pytest_arena._product._admission import (
    UNWATCHED,
    Admission,
    SpawnedConnections,
    admit,
    change_module,
    changed_by_app,
)
from pytest_arena._product._server_targets import RedirectedHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import ModuleType

    from pytest_arena._product._admission import FindCore
    from pytest_arena._product._server_targets import ServerTarget
    from pytest_arena._values import Address

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


class _Guard:
    """Decides on each connection before a socket is opened."""

    def __init__(self, find_core: FindCore) -> None:
        self._find_core = find_core
        # For each pool of a driver, the serial of the level that opened it last.
        self._pools: WeakKeyDictionary[object, int] = WeakKeyDictionary()

    def admit(
        self, dialect: str, args: list[object], kwargs: dict[str, Any]
    ) -> Admission | None:
        """Refuse, redirect or admit a connection. Return None if the guard ignores it afterwards.

        Raises:
            RefusedError: the connection may not be opened.
        """
        core = self._find_core()
        if core is None or is_own():
            return None
        driver = dialect.removesuffix("_async")
        if arguments.is_redirected(driver, args, kwargs):
            return Admission(kwargs["host"].address)
        server = arguments.target(driver, args, kwargs)
        if isinstance(kwargs.get("host"), RedirectedHost):
            raise core.ledger.refused(changed_by_app(server))
        return admit(
            core,
            dialect,
            server,
            write_address=lambda address: arguments.write_address(
                driver, address, kwargs
            ),
            redirect=lambda address: arguments.redirect(driver, address, args, kwargs),
        )

    def admit_inner(
        self, dialect: str, text: object
    ) -> tuple[Admission | None, object]:
        """Do as ``admit`` for an inner function of psycopg or psycopg2. Return the text to send.

        The function gets one connection string. If an outer function has checked it, nothing is
        done.
        """
        if _checked_driver.get() == dialect.removesuffix("_async"):
            return None, text
        positional = [text]
        keywords: dict[str, object] = {}
        admission = self.admit(dialect, positional, keywords)
        if keywords and dialect == "psycopg2":
            text = sys.modules["psycopg2.extensions"].make_dsn(*positional, **keywords)
        elif keywords:
            text = sys.modules["psycopg.conninfo"].make_conninfo(
                *positional, **keywords
            )
        return admission, text

    def refuse_outside(
        self, dialect: str, args: list[object], kwargs: dict[str, object]
    ) -> None:
        """Refuse the arguments of a pool if connections without an engine are refused."""
        core = self._find_core()
        if core is not None and core.config.drivers == "refuse":
            self.admit(dialect, args, kwargs)

    def open_pool(self, dialect: str, pool: Any) -> None:
        """Allow an app to reopen a pool that an earlier test has closed.

        In production the app starts once in a process. In tests it starts once for each test. If
        one test opens a pool twice, the pool raises its error, as in production.
        """
        core = self._find_core()
        if core is None:
            return
        serial = core.serial()
        # psycopg_pool has no public method that reopens a closed pool.
        if self._pools.get(pool, serial) != serial:
            pool._opened = False  # noqa: SLF001 - it has no public name
            pool._nconns = pool._nconns_min = pool.min_size  # noqa: SLF001 - as in a new pool
            pool._growing = False  # noqa: SLF001 - as in a new pool
            if dialect == "psycopg_async":
                del pool._lock  # noqa: SLF001 - it belongs to the event loop of the earlier test
        self._pools[pool] = serial

    def note_pool(self, pool: object) -> None:
        """Note the level in which a pool is opened."""
        core = self._find_core()
        if core is not None:
            self._pools.setdefault(pool, core.serial())

    @contextmanager
    def growing(self, pool: object) -> Iterator[None]:
        """Note that a pool opens a connection in the block."""
        _pool_serial.set(self._pools.get(pool, 0))
        try:
            yield
        finally:
            _pool_serial.set(0)  # no token, as in `_inside`

    def opened(
        self, dialect: str, admission: Admission | None, connection: Any
    ) -> None:
        """Record an admitted connection. Watch its cursors if it is open on a test's database.

        Raises:
            RefusedError: a class or a factory of the app has opened another connection.
        """
        core = self._find_core()
        if admission is None or core is None:
            return
        if admission.address is not None:
            other = _changed_target(admission.address, connection)
            if other is not None:
                connection.close()
                raise core.ledger.refused(changed_by_app(other))
        record_opened(core, admission, connection, pool_serial=_pool_serial.get())
        # A pool of psycopg2 does not replace a connection that has ended.
        if _pool_serial.get() and dialect != "psycopg2":
            record_of(connection).join_drivers_pool()
        if dialect == "psycopg2" and admission.address is not None:
            guard_cursors(
                self._find_core, sys.modules["psycopg2.extensions"], connection
            )

    def noting(self, factory: object) -> object:
        """Return a class for connections of psycopg2 that records lost writes.

        If the app's factory is a function, return the function.
        """
        kind = factory or sys.modules["psycopg2.extensions"].connection
        if isinstance(kind, type):
            return watching_class(self._find_core, kind)
        return kind


class _SpawnedGuard(_Guard):
    """Decides in a process that multiprocessing has spawned. The process has no core."""

    def __init__(self, spawned: SpawnedConnections) -> None:
        super().__init__(lambda: None)
        self._spawned = spawned

    def admit(
        self, dialect: str, args: list[object], kwargs: dict[str, object]
    ) -> None:
        """Redirect a connection to the test's database, as in a forked process.

        Raises:
            UnknownDatabaseError: no engine of the test's process had that database.
        """
        driver = dialect.removesuffix("_async")
        server = arguments.target(driver, args, kwargs)
        address = self._spawned.address_of(server)
        if address is not None:
            arguments.redirect(driver, address, args, kwargs)


def _changed_target(address: Address, connection: object) -> ServerTarget | None:
    """Return the database of a libpq connection if it is not the database of an address."""
    info = getattr(connection, "info", None)
    if info is None or info.dbname == address.database:
        return None
    return PostgreSQLTarget(((str(info.host), str(info.port)),), str(info.dbname))


# The replaced functions

# The driver whose outer function has checked the arguments and calls the inner function now. If the
# app kept the driver's original outer function, the inner function checks the arguments.
_checked_driver: ContextVar[str] = ContextVar("arena_looked_at", default="")

# The serial of the level whose pool opens a connection now, 0 if no pool does.
_pool_serial: ContextVar[int] = ContextVar("arena_pool_serial", default=0)


@contextmanager
def _inside(dialect: str) -> Iterator[None]:
    _checked_driver.set(dialect.removesuffix("_async"))
    try:
        yield
    finally:
        _checked_driver.set(
            ""
        )  # no token: a coroutine may be closed in another context


def _outer(guard: _Guard, dialect: str, original: Any, *, skipped: int = 0) -> Any:
    """Return a function that checks the arguments, connects and records the connection.

    The first ``skipped`` arguments (``cls``) are no arguments of the connection.
    """

    def connect(*args: object, **kwargs: object) -> object:
        positional = list(args[skipped:])
        admission = guard.admit(dialect, positional, kwargs)
        with _inside(dialect):
            connection = original(*args[:skipped], *positional, **kwargs)
        guard.opened(dialect, admission, connection)
        return connection

    async def aconnect(*args: object, **kwargs: object) -> object:
        positional = list(args[skipped:])
        admission = guard.admit(dialect, positional, kwargs)
        with _inside(dialect):
            connection = await original(*args[:skipped], *positional, **kwargs)
        guard.opened(dialect, admission, connection)
        return connection

    return aconnect if dialect in {"asyncpg", "psycopg_async"} else connect


def _guard_asyncpg(guard: _Guard, module: ModuleType) -> None:
    # `connect` and pools both call this private function.
    replace_function(module, "_connect", partial(_outer, guard, "asyncpg"))


def _guard_psycopg(guard: _Guard, module: ModuleType) -> None:
    _guard_inner_psycopg(guard, module.Connection)
    replace_function(
        module.Connection, "connect", partial(_outer, guard, "psycopg", skipped=1)
    )
    _renew("psycopg", "connect", module.Connection.connect)


def _guard_async_psycopg(guard: _Guard, module: ModuleType) -> None:
    make = partial(_outer, guard, "psycopg_async", skipped=1)
    replace_function(module.AsyncConnection, "connect", make)


def _guard_inner_psycopg(guard: _Guard, kind: object) -> None:
    """Guard the inner function of both classes, in case the app kept an original outer function."""

    def make(original: Callable[..., Any]) -> Callable[..., object]:
        def _connect_gen(
            cls: object, conninfo: str = "", *args: object, **kwargs: object
        ) -> Any:
            dialect = "psycopg_async" if hasattr(cls, "__aenter__") else "psycopg"
            admission, text = guard.admit_inner(dialect, conninfo)
            connection = yield from original(cls, text, *args, **kwargs)
            guard.opened(dialect, admission, connection)
            return connection

        return _connect_gen

    replace_function(kind, "_connect_gen", make)


def _guard_generators(guard: _Guard, module: ModuleType) -> None:
    """Guard the innermost function, which has no psycopg connection yet."""

    def make(original: Callable[..., Any]) -> Callable[..., object]:
        def connect(conninfo: str, *args: object, **kwargs: object) -> Any:
            _, text = guard.admit_inner("psycopg", conninfo)
            return (yield from original(text, *args, **kwargs))

        return connect

    replace_function(module, "connect", make)


def _guard_psycopg2(guard: _Guard, module: ModuleType) -> None:
    def make_inner(original: Callable[..., Any]) -> Callable[..., object]:
        def connect(dsn: str = "", *args: object, **kwargs: object) -> object:
            admission, text = guard.admit_inner("psycopg2", dsn)
            # The app's `connection_factory` may open other connections.
            _checked_driver.set("")
            kwargs["connection_factory"] = guard.noting(
                kwargs.get("connection_factory")
            )
            connection = original(text, *args, **kwargs)
            guard.opened("psycopg2", admission, connection)
            return connection

        return connect

    replace_function(module, "_connect", make_inner)
    _renew("psycopg2._psycopg", "_connect", vars(module)["_connect"])
    replace_function(module, "connect", partial(_outer, guard, "psycopg2"))


def _renew(package: str, name: str, function: object) -> None:
    """Replace the function in a package that imported the original before the guard."""
    module = sys.modules.get(package)
    if module is not None and name in vars(module):
        vars(module)[name] = function


def _guard_pools(guard: _Guard, module: ModuleType) -> None:
    """Refuse when the app opens a pool: the pool's workers would try to connect for minutes."""
    for name, dialect in (
        ("ConnectionPool", "psycopg"),
        ("AsyncConnectionPool", "psycopg_async"),
    ):
        owner = vars(module).get(name)
        if owner is not None and owner.__module__ in {module.__name__, "psycopg_pool"}:
            # `open()` and `open=True` both call `_open`.
            replace_function(owner, "_open", partial(_refusing_open, guard, dialect))
            replace_function(owner, "_connect", partial(_note_growth, guard))


def _watch_growth(guard: _Guard, pool_type: Any, name: str) -> None:
    """Note which level creates a pool, and which pool opens a connection by method ``name``."""

    def make(original: Callable[..., Any]) -> Callable[..., object]:
        def __init__(pool: object, *args: object, **kwargs: object) -> None:  # noqa: N807 - replaces it
            guard.note_pool(pool)
            original(pool, *args, **kwargs)

        return __init__

    replace_function(pool_type, "__init__", make)
    replace_function(pool_type, name, partial(_note_growth, guard))


def _note_growth(guard: _Guard, original: Callable[..., Any]) -> Callable[..., object]:
    """Return a pool's ``connect`` that notes which pool opens the connection."""

    def connect(pool: object, *args: object, **kwargs: object) -> object:
        with guard.growing(pool):
            return original(pool, *args, **kwargs)

    async def aconnect(pool: object, *args: object, **kwargs: object) -> object:
        with guard.growing(pool):
            return await original(pool, *args, **kwargs)

    return aconnect if iscoroutinefunction(original) else connect


def _guard_psycopg2_pools(guard: _Guard, module: ModuleType) -> None:
    _watch_growth(guard, module.AbstractConnectionPool, "_connect")


def _guard_asyncpg_pools(guard: _Guard, module: ModuleType) -> None:
    # A pool has a holder for each connection. The pool itself allows no weak references.
    _watch_growth(guard, module.PoolConnectionHolder, "connect")


def _refusing_open(
    guard: _Guard, dialect: str, original: Callable[..., Any]
) -> Callable[..., object]:
    def _open(pool: Any) -> Any:
        text = pool.conninfo
        options = pool.kwargs or {}
        # Each of the two may be a function that the pool calls for each connection.
        if isinstance(text, str) and isinstance(options, dict):
            guard.refuse_outside(dialect, [text], dict(options))
        if pool.closed:
            guard.open_pool(dialect, pool)
        return original(pool)

    return _open


_CONNECTING = {
    "asyncpg.connect_utils": _guard_asyncpg,
    "asyncpg.pool": _guard_asyncpg_pools,
    "psycopg.generators": _guard_generators,
    "psycopg.connection": _guard_psycopg,
    "psycopg.connection_async": _guard_async_psycopg,
    "psycopg2": _guard_psycopg2,
    "psycopg2.pool": _guard_psycopg2_pools,
    "psycopg_pool.pool": _guard_pools,
    "psycopg_pool.pool_async": _guard_pools,
}


@cache
def watch_drivers(find_core: FindCore) -> None:
    """Watch asyncpg, psycopg and psycopg2 until the process ends. Imports none of them."""
    guard = _Guard(find_core)
    for module, change in _CONNECTING.items():
        when_imported(
            module, partial(change_module, find_core, partial(change, guard), UNWATCHED)
        )
    for module, change_statements in SEAMS.items():
        when_imported(
            module,
            partial(
                change_module, find_core, partial(change_statements, find_core), _UNREAD
            ),
        )


def watch_spawned(
    addresses: Mapping[tuple[str, str], Address], allowed: Sequence[str]
) -> None:
    """Watch the drivers in a process that multiprocessing has spawned."""
    guard = _SpawnedGuard(SpawnedConnections(addresses, allowed))
    for module, change in _CONNECTING.items():
        when_imported(module, partial(change, guard))


_UNREAD = "pytest-arena does not check the statements that {} sends without an engine"

# The guard's messages
