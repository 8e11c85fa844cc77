"""The engines of this process, the databases that they request, and engines like the app's.

Several engines may share a dialect object: `Engine.execution_options` copies an engine, and
pytest-arena creates engines like the app's.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections import deque
from contextlib import suppress
from functools import partial, wraps
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import URL, Dialect, Engine
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import Pool, QueuePool
from sqlalchemy.util import memoized_property
from sqlalchemy.util.concurrency import AsyncAdaptedLock, in_greenlet
from sqlalchemy.util.queue import AsyncAdaptedQueue

from pytest_arena._config._supported import (
    FILE_PRODUCTS,
    SUPPORTED,
    WITHOUT_LOOP,
    product_of_dialect,
)
from pytest_arena._interpreter import patch
from pytest_arena._origin import is_own, user_line
from pytest_arena._owner import owner_here
from pytest_arena._process import alive, lock_here, running_loop
from pytest_arena._product import NOWHERE, RequestedDatabase, connections_of
from pytest_arena._product._connection_loop import (
    LoopConnection,
    connection_loop,
    for_sync_code,
    keep_in_loop,
    lasting_loops,
    terminate,
)
from pytest_arena._product._server_connections import ServerTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.pool import ConnectionPoolEntry

    from pytest_arena._owner import Owner
    from pytest_arena._product import Database
    from pytest_arena._values import CodeLine

    OneConnection = Callable[[Any], Any]


def describe(dialect: Dialect, cargs: object, cparams: Any) -> RequestedDatabase:
    """Return the database that the arguments of a connect call request."""
    product = product_of_dialect(dialect.name)
    if product in SUPPORTED:
        requested = connections_of(product).describe(dialect, cargs, cparams)
        if requested is not None:
            return requested
        # pytest-arena does not know the driver.
        product = f"{product}+{dialect.driver}"
    # A positional argument is a connection string (ODBC, libpq) and may have a password.
    default_host = "(unknown)" if cargs else "localhost"
    host = cparams.get("host", default_host)
    port = cparams.get("port", "")
    database = next(filter(None, map(cparams.get, ("database", "dbname", "db"))), "")
    name = ServerTarget(dialect.name, f"{host}:{port}", str(database)).name
    return RequestedDatabase(dialect, product, name, database=str(database))


def requested_by_engine(engine: Engine) -> RequestedDatabase | None:
    """Return the database that an engine requests. None if only a connection can show it."""
    product = product_of_dialect(engine.dialect.name)
    if engine.url.database is None and product not in FILE_PRODUCTS:
        return None  # connect_args or the driver's variables may name it
    return requested_by_url(engine.url, engine.dialect)


def requested_by_engines(engines: Iterable[Engine]) -> list[RequestedDatabase]:
    """Return the databases of engines. Skip an engine whose database only a connection shows."""
    return [each for each in map(requested_by_engine, engines) if each is not None]


def requested_without_engine(product: str) -> RequestedDatabase | None:
    """Return a database for an app without an engine, by the first driver that is installed."""
    place = URL.create(product, host=NOWHERE, database="app")
    if product in FILE_PRODUCTS:
        place = URL.create(product, database=f"/{NOWHERE}/app")
    facts = SUPPORTED[product]
    driver = next(filter(find_spec, (*facts.drivers_without_loop, *facts.drivers)), "")
    if driver not in sys.stdlib_module_names:
        place = place.set(drivername=f"{product}+{driver}")
    return requested_by_url(place)


def requested_by_url(url: URL, dialect: Dialect | None = None) -> RequestedDatabase | None:
    """Return the database that a URL requests. None if there is no driver."""
    try:
        # psycopg has two dialects, and sync tests can use the async one, too.
        dialect = dialect or url.get_dialect().get_async_dialect_cls(url)()
        return describe(dialect, *dialect.create_connect_args(url))
    # A third-party or unknown dialect, a driver that cannot be imported, or a URL that it refuses.
    # The gate decides when the engine connects.
    except Exception:  # noqa: BLE001 - a dialect of any author may raise anything
        return None


def _pool_for_sync_code(engine: Engine) -> Pool:
    """Create a pool for sync code of pytest-arena with the dialect of an async engine."""
    creator: Any = engine.pool._invoke_creator  # noqa: SLF001 - no public name

    def connect(rec: ConnectionPoolEntry) -> Any:
        return for_sync_code(creator, rec)

    pool = QueuePool(connect, dialect=engine.dialect)
    for listener in engine.pool.dispatch.connect:
        if not str(getattr(listener, "__module__", "")).startswith("pytest_arena."):
            event.listen(pool, "connect", partial(connection_loop().call, listener))
    return pool


# An app that follows SQLAlchemy's recipe for pysqlite begins transactions in these events. Its
# listeners that count or log statements use other events, and see only the app's statements.
_TRANSACTIONS = ("begin", "savepoint", "rollback_savepoint", "release_savepoint")
_POOL = ("connect", "first_connect", "checkout", "checkin", "reset")


def copied_of(engine: Engine) -> tuple[object, ...]:
    """Return an engine, and what an engine like it has of it at this moment."""
    listeners = [tuple(getattr(engine.dispatch, name)) for name in _TRANSACTIONS]
    listeners += [tuple(getattr(engine.pool.dispatch, name)) for name in _POOL]
    return (weakref.ref(engine), engine.get_execution_options(), *listeners)


def engine_like(engine: Engine, database: Database, url: URL, *, is_async: bool) -> Engine:
    """Create an engine on a database with the dialect and the listeners of an app's engine."""
    is_for_sync_code = engine.dialect.is_async and not is_async
    pool = _pool_for_sync_code(engine) if is_for_sync_code else engine.pool.recreate()
    known_engines.of(engine.dialect).database = database
    like = Engine(pool, engine.dialect, url, execution_options=engine.get_execution_options())
    for name in _TRANSACTIONS:
        # Only the engine's listeners: those of the class `Engine` apply to both engines.
        for listener in tuple(getattr(engine.dispatch, name).listeners):
            event.listen(like, name, listener)
    return like


class KnownEngine:
    """What is known of the engines that share one dialect object. It keeps none of them alive."""

    def __init__(self) -> None:
        self.database: Database | None = None  # the target of its connections
        self.birth = ""  # of the first engine: see `birth_here`
        self.line: CodeLine | None = None  # that created the first engine
        self.obstacle: int | None = None  # see `Engines`. None until it is known
        # Returns the owner of the level that created the first engine, None without one.
        self.level: Callable[[], Owner | None] = lambda: None
        # Whether the app has disposed of a used engine, and no engine has connected since.
        self.is_disposed = False
        self.had_engine = False  # False for a dialect of a driver or a URL

    def is_here(self, level: Owner | None) -> bool:
        """Return whether it exists at this point of the test in each order of the tests."""
        is_of_test = level is not None and self.level() is level and self.birth != "own"
        if not self.birth or is_of_test:
            return True
        if self.birth == "lifespan":
            return level is not None and level.has_app
        return self.birth == "set-up" and not self.is_disposed


def birth_here() -> str:
    """Return what creates an engine now.

    It is "" for an import or a wide fixture, else "own", "lifespan", "set-up" of a test, or "late":
    a request or a test function, which another order of the tests may call later.
    """
    owner = owner_here()
    if is_own():
        return "own"
    if owner is None or owner.is_wide:
        return ""
    if owner.is_test:
        return "late" if owner.is_set_up else "set-up"
    return "lifespan"


class KnownEngines:
    """All engines of the process."""

    def __init__(self) -> None:
        self._by_dialect: weakref.WeakKeyDictionary[Dialect, KnownEngine] = (
            weakref.WeakKeyDictionary()
        )
        # The oldest first.
        self._engines: weakref.WeakKeyDictionary[Engine, None] = weakref.WeakKeyDictionary()

    def of(self, dialect: Dialect) -> KnownEngine:
        """Return the record of a dialect object. Create it at the first call."""
        # `setdefault` is atomic, so two threads get the same record.
        return self._by_dialect.setdefault(dialect, KnownEngine())

    def on(self, database: Database) -> list[KnownEngine]:
        """Return the records of the engines whose connections the gate redirects to a database."""
        # Copied in one step, because other threads create engines.
        everyone = [*self._by_dialect.data.values()]  # type: ignore[attr-defined]  # typeshed
        return [known for known in everyone if known.database is database]

    def find(self) -> list[Engine]:
        """Return the existing engines, the oldest first. Costs some microseconds for each."""
        return alive(self._engines)

    def add(self, engine: Engine, level: Owner | None) -> bool:
        """Note a new engine. Return whether it is the first with its dialect object."""
        known = self.of(engine.dialect)
        is_first = not known.had_engine
        if is_first:
            known.had_engine = True
            known.birth = birth_here()
            known.line = user_line()
            if level is not None:
                known.level = weakref.ref(level)
        self._engines[engine] = None
        return is_first


known_engines = KnownEngines()


def watch_engines(note: Callable[[Engine], None]) -> None:
    """Call ``note`` with each new engine.

    SQLAlchemy has no event for a new engine, so this wraps `Dialect.engine_created`. It cannot wrap
    `Engine.__init__`, because ``create_engine`` reads its signature.
    """

    def disposed(engine: Engine) -> None:
        known = known_engines.of(engine.dialect)
        # A start-up may return a cached engine, which the shutdown disposes of unused.
        known.is_disposed = known.database is not None

    event.listen(Engine, "engine_disposed", disposed)
    created = vars(Dialect)["engine_created"].__func__

    @wraps(created)
    def engine_created(cls: type[Dialect], engine: Engine) -> None:
        note(engine)
        created(cls, engine)

    patch(Dialect, "engine_created", classmethod(engine_created))


# Engines that are used in several event loops.


def unbind_pools() -> None:
    """Let several loops use the queues of async pools, and the locks of first connections."""
    patch(AsyncAdaptedQueue, "_queue", memoized_property(_queue))
    patch(AsyncAdaptedLock, "mutex", property(_first_connect_mutex))


def _queue(queue: AsyncAdaptedQueue[Any]) -> PoolQueue:
    return PoolQueue(queue.maxsize)


class PoolQueue:
    """The idle connections of an async pool, for tasks of several event loops.

    A queue of asyncio belongs to the first loop in which a task waits for it. Here a new connection
    wakes all tasks that wait, because a loop may have ended or may not run.
    """

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._connections: deque[Any] = deque()
        # The tasks that wait, the first one first.
        self._waiters: dict[object, asyncio.Future[None]] = {}

    def qsize(self) -> int:
        """Return the number of idle connections."""
        return len(self._connections)

    def full(self) -> bool:
        """Return whether the pool closes the next connection that is returned."""
        return 0 < self._maxsize <= len(self._connections)

    def put_nowait(self, connection: object) -> None:
        """Add a connection, from any thread."""
        if self.full():
            raise asyncio.QueueFull
        self._connections.append(connection)
        for waiter in [*self._waiters.values()]:
            with suppress(RuntimeError):  # its loop is closed
                waiter.get_loop().call_soon_threadsafe(_wake, waiter)

    def get_nowait(self) -> Any:
        """Take a connection, if there is one."""
        try:
            return self._connections.popleft()
        except IndexError:
            raise asyncio.QueueEmpty from None

    async def get(self) -> Any:
        """Take a connection. Wait until there is one."""
        task = object()
        try:
            while True:
                waiter = asyncio.get_running_loop().create_future()
                self._waiters[task] = waiter
                # Another thread may have added a connection before it could see this waiter.
                with suppress(asyncio.QueueEmpty):
                    return self.get_nowait()
                await waiter
        finally:
            del self._waiters[task]


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _first_connect_mutex(lock: AsyncAdaptedLock) -> asyncio.Lock:
    # A property has precedence over a Lock that was cached before.
    return lock_here(vars(lock).setdefault("_arena_mutexes", weakref.WeakKeyDictionary()))


def instrument_loops(dialect: Dialect) -> None:
    """Let the connections of an async dialect work in each event loop."""
    if not dialect.is_async:
        return
    keep_in_loop(dialect, is_bound=dialect.driver not in WITHOUT_LOOP)
    patch(dialect, "do_ping", partial(_ping, dialect, dialect.do_ping))
    patch(dialect, "do_terminate", partial(_end, dialect.do_terminate))
    patch(dialect, "do_close", partial(_end, dialect.do_close))


def _ping(dialect: Dialect, ping: Callable[[Any], bool], dbapi_connection: Any) -> bool:
    # A pool with `pool_pre_ping` sends this before the event `checkout`.
    if lasting_loops.is_away(dialect, dbapi_connection):
        raise DisconnectionError("this connection lives in another event loop")
    return ping(dbapi_connection)


def _end(end: OneConnection, dbapi_connection: Any) -> None:
    # Each connection is closed in its loop. A connection of psycopg or aiosqlite is closed in the
    # loop of pytest-arena, which stays open.
    home = lasting_loops.home_of(dbapi_connection)
    if isinstance(dbapi_connection, LoopConnection) or (home and home is running_loop()):
        end(dbapi_connection)
    elif home:
        with suppress(RuntimeError):  # the loop is closed
            home.call_soon_threadsafe(terminate, dbapi_connection)
    elif in_greenlet():
        connection_loop().call(end, dbapi_connection)
    else:
        connection_loop().schedule(partial(terminate, dbapi_connection))
