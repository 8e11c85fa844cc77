"""Which connections to servers does nobody open by an engine, and may they be opened?

The functions of the drivers that every connection goes through ask here first. Engines go the same
way, below SQLAlchemy: what the gate has led is let through, as long as its arguments are what the
gate has made of them.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from contextvars import ContextVar
from fnmatch import fnmatch
from functools import cache, partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pytest_arena._origin import IN_SESSION_LIFESPAN, is_own, who_connects
from pytest_arena._postgresql import _arguments as arguments
from pytest_arena._postgresql._arguments import Led, ServerTarget
from pytest_arena._postgresql.drivers._statements import (
    SEAMS,
    Admitted,
    guard_cursors,
    note_opened,
    replace_function,
)
from pytest_arena._process import when_imported
from pytest_arena._product import NOWHERE, Aim, Asked, Core, Database
from pytest_arena.errors import (
    ConfigError,
    ProductionDatabaseError,
    RefusedError,
    UnknownDatabaseError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import ModuleType

    from pytest_arena._postgresql.drivers._statements import FindCore
    from pytest_arena._values import Address

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


class _Guard:
    """Decides on each connection before a socket is opened."""

    def __init__(self, core: FindCore) -> None:
        self._core = core
        # Pools of psycopg_pool, with the serial of the level in which each was opened last.
        self._pools: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    def admit(
        self, dialect: str, args: list[Any], kwargs: dict[str, Any]
    ) -> Admitted | None:
        """Refuse a connection, or lead it, or let it be; return why, None where nobody looks.

        Raises:
            RefusedError: it may not be opened.
        """
        now = self._core()
        driver = dialect.removesuffix("_async")
        if now is None or is_own():
            return None
        if arguments.is_led(driver, args, kwargs):
            return Admitted(kwargs["host"].address)
        meant = arguments.target(driver, args, kwargs)
        if isinstance(kwargs.get("host"), Led):
            raise now.ledger.refused(_led_astray(meant))
        if now.config.drivers == "off":
            return None
        now.refuse_late()
        asked = _asked(dialect, meant)
        if (inside := _aim_at(now, asked)) is not None and inside.address is not None:
            arguments.name_outright(driver, inside.address, kwargs)
            return Admitted(inside.address, inside)
        return self._admit_outside(now, asked, meant, args, kwargs)

    def _admit_outside(
        self,
        now: Core,
        asked: Asked,
        meant: ServerTarget,
        args: list[Any],
        kwargs: dict[str, Any],
    ) -> Admitted:
        if all(now.files.is_allowed(name) for name in meant.names):
            return Admitted()
        driver = asked.dialect.driver
        if now.config.drivers == "refuse":
            raise now.ledger.refused(
                _raw_connection(meant, driver, of_app=now.means(asked))
            )
        aim = now.aim(asked)
        if aim is None or aim.address is None:
            return Admitted()
        product: Any = now.find_product("postgresql")
        arguments.lead(driver, product.entrance(aim, meant.login), args, kwargs)
        return Admitted(aim.address, aim)

    def admit_inner(self, dialect: str, text: Any) -> tuple[Admitted | None, Any]:
        """The same for an inner function of libpq's drivers, which has one text for all."""
        if _looked_at.get() == dialect.removesuffix("_async"):
            return None, text
        given, named = [text], dict[str, Any]()
        why = self.admit(dialect, given, named)
        if named and dialect == "psycopg2":
            text = sys.modules["psycopg2.extensions"].make_dsn(*given, **named)
        elif named:
            text = sys.modules["psycopg.conninfo"].make_conninfo(*given, **named)
        return why, text

    def refuse_outside(
        self, dialect: str, args: list[Any], kwargs: dict[str, Any]
    ) -> None:
        """Refuse what would be refused when it connects."""
        if (now := self._core()) is not None and now.config.drivers == "refuse":
            self.admit(dialect, args, kwargs)

    def open_pool(self, dialect: str, pool: Any) -> None:
        """Let an app open a pool again that an earlier test has closed.

        In production the app starts once in a process, and in tests once for each test. A pool that
        is opened twice in the same test fails, as in production.

        Raises:
            ConfigError: the pool's event loop is not the loop of the tests.
        """
        now = self._core()
        if now is None:
            return
        if dialect == "psycopg_async" and IN_SESSION_LIFESPAN.get():
            raise _pool_of_another_loop()
        serial = now.serial()
        # psycopg_pool has no public way: a closed pool cannot be opened.
        if self._pools.get(pool, serial) != serial:
            pool._opened = False  # noqa: SLF001 - see above
            pool._nconns = pool._nconns_min = pool.min_size  # noqa: SLF001 - as in a new pool
            pool._growing = False  # noqa: SLF001 - as in a new pool
            if dialect == "psycopg_async":
                del pool._lock  # noqa: SLF001 - it belongs to the event loop of the earlier test
        self._pools[pool] = serial

    def opened(self, dialect: str, admitted: Admitted | None, connection: Any) -> None:
        """Keep in mind why a connection was let through, and watch its cursors if it is ours.

        Raises:
            RefusedError: a class or a factory of the app's has opened another one.
        """
        now = self._core()
        if admitted is None or now is None:
            return
        if admitted.address and (other := _elsewhere(admitted.address, connection)):
            connection.close()
            raise now.ledger.refused(_made_elsewhere(other))
        note_opened(now, admitted, connection)
        if dialect == "psycopg2" and admitted.address is not None:
            guard_cursors(self._core, sys.modules["psycopg2.extensions"], connection)


class _SpawnedGuard(_Guard):
    """Decides in a process that multiprocessing has spawned. There is no core in it."""

    def __init__(
        self, addresses: Mapping[tuple[str, str], Address], allowed: Sequence[str]
    ) -> None:
        super().__init__(lambda: None)
        self._addresses = addresses
        self._allowed = allowed

    def admit(self, dialect: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Lead a connection to the test's database, as a fork's.

        Raises:
            UnknownDatabaseError: no engine of the test's process had that database.
        """
        driver = dialect.removesuffix("_async")
        meant = arguments.target(driver, args, kwargs)
        user = meant.login.user if meant.login else ""
        address = self._addresses.get((meant.database, user))
        if address is not None:
            arguments.lead(driver, address, args, kwargs)
        elif not arguments.is_own_name(meant.database) and not self._is_allowed(meant):
            raise _spawned_elsewhere(meant)

    def _is_allowed(self, meant: ServerTarget) -> bool:
        return all(
            any(fnmatch(name, each) for each in self._allowed) for name in meant.names
        )


def _elsewhere(address: Address, connection: Any) -> ServerTarget | None:
    """What a connection of libpq's is on, where that is not the database that it was led to."""
    info = getattr(connection, "info", None)
    if info is None or info.dbname == address.database:
        return None
    return ServerTarget(((str(info.host), str(info.port)),), str(info.dbname))


def _asked(dialect: str, meant: ServerTarget) -> Asked:
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - the command `arena` does without it

    kind = make_url(f"postgresql+{dialect}://").get_dialect()
    return arguments.asked(kind(), meant)


def _aim_at(core: Core, asked: Asked) -> Aim | None:
    """Return what aims at this very database, known by its name; None if it is not ours."""
    product: Any = core.find_product(
        "postgresql"
    )  # its own type would lead round in a circle
    database: Database | None = product.live_at(asked) if product else None
    return database.aim if database else None


# The functions that are watched

# The driver whose inner function is called by its outer one, whose arguments were looked at.
# Somebody may have got hold of the outer one before the guard was there: then the inner one asks.
_looked_at: ContextVar[str] = ContextVar("arena_looked_at", default="")


@contextmanager
def _inside(dialect: str) -> Iterator[None]:
    _looked_at.set(dialect.removesuffix("_async"))
    try:
        yield
    finally:
        _looked_at.set("")  # no token: a coroutine may be closed in another context


def _outer(guard: _Guard, dialect: str, original: Any, *, own: int = 0) -> Any:
    """Make what asks, connects and notes; the first ``own`` arguments are not the driver's."""

    def connect(*args: Any, **kwargs: Any) -> Any:
        given = list(args[own:])
        why = guard.admit(dialect, given, kwargs)
        with _inside(dialect):
            connection = original(*args[:own], *given, **kwargs)
        guard.opened(dialect, why, connection)
        return connection

    async def aconnect(*args: Any, **kwargs: Any) -> Any:
        given = list(args[own:])
        why = guard.admit(dialect, given, kwargs)
        with _inside(dialect):
            connection = await original(*args[:own], *given, **kwargs)
        guard.opened(dialect, why, connection)
        return connection

    return aconnect if dialect in {"asyncpg", "psycopg_async"} else connect


def _guard_asyncpg(guard: _Guard, module: ModuleType) -> None:
    # Private; connect() and pools have nothing else in common.
    replace_function(module, "_connect", partial(_outer, guard, "asyncpg"))


def _guard_psycopg(guard: _Guard, module: ModuleType) -> None:
    _guard_inner_psycopg(guard, module.Connection)
    replace_function(
        module.Connection, "connect", partial(_outer, guard, "psycopg", own=1)
    )
    _renew("psycopg", "connect", module.Connection.connect)


def _guard_async_psycopg(guard: _Guard, module: ModuleType) -> None:
    make = partial(_outer, guard, "psycopg_async", own=1)
    replace_function(module.AsyncConnection, "connect", make)


def _guard_inner_psycopg(guard: _Guard, kind: Any) -> None:
    """Of both classes; for the outer one that somebody had before the guard was there."""

    def make(original: Any) -> Any:
        def _connect_gen(
            cls: Any, conninfo: str = "", *args: Any, **kwargs: Any
        ) -> Any:
            dialect = "psycopg_async" if hasattr(cls, "__aenter__") else "psycopg"
            why, text = guard.admit_inner(dialect, conninfo)
            connection = yield from original(cls, text, *args, **kwargs)
            guard.opened(dialect, why, connection)
            return connection

        return _connect_gen

    replace_function(kind, "_connect_gen", make)


def _guard_generators(guard: _Guard, module: ModuleType) -> None:
    """The innermost one, which has no connection of psycopg's yet."""

    def make(original: Any) -> Any:
        def connect(conninfo: str, *args: Any, **kwargs: Any) -> Any:
            _, text = guard.admit_inner("psycopg", conninfo)
            return (yield from original(text, *args, **kwargs))

        return connect

    replace_function(module, "connect", make)


def _guard_psycopg2(guard: _Guard, module: ModuleType) -> None:
    def make_inner(original: Any) -> Any:
        def connect(dsn: str = "", *args: Any, **kwargs: Any) -> Any:
            why, text = guard.admit_inner("psycopg2", dsn)
            _looked_at.set("")  # a connection_factory of the app's may open others
            connection = original(text, *args, **kwargs)
            guard.opened("psycopg2", why, connection)
            return connection

        return connect

    replace_function(module, "_connect", make_inner)
    _renew("psycopg2._psycopg", "_connect", vars(module)["_connect"])
    replace_function(module, "connect", partial(_outer, guard, "psycopg2"))


def _renew(package: str, name: str, function: Any) -> None:
    """A package that was loaded before the guard came has the old function at hand."""
    module = sys.modules.get(package)
    if module is not None and name in vars(module):
        vars(module)[name] = function


def _guard_pools(guard: _Guard, module: ModuleType) -> None:
    """Refuse where a pool is opened: its own threads and tasks would try for minutes."""
    for name, dialect in (
        ("ConnectionPool", "psycopg"),
        ("AsyncConnectionPool", "psycopg_async"),
    ):
        owner = vars(module).get(name)
        if owner is not None and owner.__module__ in {module.__name__, "psycopg_pool"}:
            # open() and `open=True` have nothing else in common.
            replace_function(owner, "_open", partial(_refusing_open, guard, dialect))


def _refusing_open(guard: _Guard, dialect: str, original: Any) -> Any:
    def _open(pool: Any) -> Any:
        text, options = pool.conninfo, pool.kwargs or {}
        # Either may be a function, which is then called for each connection.
        if isinstance(text, str) and isinstance(options, dict):
            guard.refuse_outside(dialect, [text], dict(options))
        if pool.closed:
            guard.open_pool(dialect, pool)
        return original(pool)

    return _open


_CONNECTING = {
    "asyncpg.connect_utils": _guard_asyncpg,
    "psycopg.generators": _guard_generators,
    "psycopg.connection": _guard_psycopg,
    "psycopg.connection_async": _guard_async_psycopg,
    "psycopg2": _guard_psycopg2,
    "psycopg_pool.pool": _guard_pools,
    "psycopg_pool.pool_async": _guard_pools,
}


@cache
def watch_drivers(core: FindCore) -> None:
    """Watch asyncpg, psycopg and psycopg2 until the process ends. Imports none of them."""
    guard = _Guard(core)
    for module, change in _CONNECTING.items():
        when_imported(
            module, partial(_change, core, partial(change, guard), _UNWATCHED)
        )
    for module, change_statements in SEAMS.items():
        when_imported(
            module, partial(_change, core, partial(change_statements, core), _UNREAD)
        )


def watch_spawned(
    addresses: Mapping[tuple[str, str], Address], allowed: Sequence[str]
) -> None:
    """Watch the drivers in a process that multiprocessing has spawned."""
    guard = _SpawnedGuard(addresses, allowed)
    for module, change in _CONNECTING.items():
        when_imported(module, partial(change, guard))


def _change(
    core: FindCore,
    change: Callable[[ModuleType], None],
    without: str,
    module: ModuleType,
) -> None:
    """Put the guard into a driver's module; note where its version has other functions."""
    try:
        change(module)
    except (AttributeError, KeyError) as error:
        if (now := core()) is not None:
            lacking = str(error).strip("'")
            now.ledger.note(
                without.format(module.__name__) + f": this version has no {lacking}"
            )


_UNWATCHED = "connections that {} opens without an engine are not watched"
_UNREAD = "statements that somebody sends by {}, past an engine, are not looked at"

# The guard's words


def _raw_connection(target: ServerTarget, driver: str, *, of_app: bool) -> RefusedError:
    """A connection by a driver itself, to a server's database outside of the arena."""
    kind = ProductionDatabaseError if of_app else UnknownDatabaseError
    return kind(
        f"refused: a connection to {target.name} by {driver}, and not by the app's engine",
        why="arena leads engines into the test's database; what this connection does would stay "
        "in a database that may be a real one",
        cause=who_connects(),
        fix="arena_drivers = redirect   (it then lands in the test's database)\n"
        f"or use the app's engine, db_session or arena.url{_allowing(target)}",
    )


def _spawned_elsewhere(target: ServerTarget) -> UnknownDatabaseError:
    """A connection in a process that multiprocessing has spawned."""
    return UnknownDatabaseError(
        f"refused: a connection to {target.name} in a process that multiprocessing has spawned",
        why="when the process started, the test's process had no database in the place of that one",
        cause=who_connects(),
        fix="start the process in a fixture or a test, with the app imported there\n"
        f"or give it arena.url{_allowing(target)}",
    )


def _pool_of_another_loop() -> ConfigError:
    return ConfigError(
        "the start-up, which runs once for all tests, opens an AsyncConnectionPool: set "
        "arena_lifespan = on",
        why="the pool belongs to the start-up's event loop. A test waits in another loop, which "
        "the pool cannot wake, and ends in PoolTimeout",
        cause=who_connects(),
        fix="arena_lifespan = on   (the pool is opened again for each test)",
    )


def _led_astray(target: ServerTarget) -> UnknownDatabaseError:
    """An engine's connection whose arguments somebody changed after arena had."""
    return UnknownDatabaseError(
        f"refused: an engine's connection to {target.name}, which is not inside the arena",
        why="a do_connect listener of the app changed where it goes after arena had led it into "
        "the test's database; what the test did would stay there",
        cause=who_connects(),
        fix=f"set what belongs to the session alone in the listener{_allowing(target)}",
    )


def _made_elsewhere(target: ServerTarget) -> UnknownDatabaseError:
    """A connection that a factory opened, instead of the one that it was asked for."""
    return UnknownDatabaseError(
        f"refused: a connection to {target.name}, which is not inside the arena",
        why="a connection_factory was asked for one to the test's database and opened another one; "
        "what it does would stay there",
        cause=who_connects(),
        fix="let the factory pass on the dsn that it is given",
    )


def _allowing(target: ServerTarget) -> str:
    if any(
        NOWHERE in name for name in target.names
    ):  # the environment's, before it was replaced
        return ""
    hosts_alike = (
        target.names[0]
        if len(target.names) == 1
        else f"postgresql://*/{target.database}"
    )
    return f"; or, if tests may reach it:\narena_allow = {hosts_alike}"
