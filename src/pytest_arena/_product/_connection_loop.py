"""The event loop of pytest-arena, in which the connections of async drivers live.

A connection of asyncpg, asyncmy or aiomysql belongs to one event loop, and tests have several. So
each pool gets a facade. Its calls run in the loop of pytest-arena, for callers of any loop. Only a
loop that outlives tests has connections of its own, without a facade.
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from contextvars import ContextVar
from functools import partial, partialmethod
from inspect import iscoroutinefunction, unwrap
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.util import await_only, greenlet_spawn  # 2.1 also calls it await_
from sqlalchemy.util.concurrency import in_greenlet

from pytest_arena._interpreter import patch
from pytest_arena._origin import CALLER, as_own, shown_line, this_task
from pytest_arena._process import running_loop, seconds
from pytest_arena.errors import IsolationError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable

    from sqlalchemy.engine import Dialect

__tracebackhide__ = True  # tracebacks end at the user's line

# Whether the connection that is opened is for sync code of pytest-arena.
_SYNC: ContextVar[bool] = ContextVar("arena: for sync code", default=False)
has_sync_caller = _SYNC.get


class _Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock no test can stop."""

    def time(self) -> float:
        return seconds()


class ConnectionLoop:
    """A thread with an event loop."""

    def __init__(self) -> None:
        self._loop = _Loop()
        with as_own():
            threading.Thread(
                target=self._loop.run_forever, name="pytest-arena-loop", daemon=True
            ).start()

    @property
    def is_here(self) -> bool:
        """Whether the present code runs in this loop."""
        return running_loop() is self._loop

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function in the loop, and wait in the caller's greenlet or thread."""
        work = greenlet_spawn(function, *args, **kwargs)
        if in_greenlet():
            return await_only(self.wait(work))
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def schedule(self, function: Callable[[], object]) -> None:
        """Call a function soon, and wait for nothing: the garbage collector may call this."""
        with suppress(RuntimeError):  # Python exits
            self._loop.call_soon_threadsafe(function)

    async def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine. A cancelled caller waits until the driver has finished.

        Meanwhile the caller's loop runs other tasks, as it does during a call of the driver.
        """
        here = asyncio.get_running_loop()
        if here is self._loop:
            return await work
        tasks: list[asyncio.Task[Any]] = []
        finished = asyncio.Event()

        def start() -> None:
            tasks.append(asyncio.Task(work, loop=self._loop))
            tasks[0].add_done_callback(finish)

        def finish(_: object) -> None:
            with suppress(RuntimeError):  # the caller's loop is closed
                here.call_soon_threadsafe(finished.set)

        def cancel() -> None:
            for task in tasks:
                task.cancel()

        token = CALLER.set(this_task())
        self._loop.call_soon_threadsafe(start)
        CALLER.reset(token)
        cancelled: asyncio.CancelledError | None = None
        while not finished.is_set():
            try:
                await finished.wait()
            except asyncio.CancelledError as error:
                cancelled = error
                self._loop.call_soon_threadsafe(cancel)
        task = tasks.pop()
        try:
            if cancelled is None:
                return task.result()
            if not task.cancelled():
                task.exception()  # the caller gets its own cancellation
            raise cancelled
        finally:
            # Otherwise the error's traceback, which has this frame, would be in a reference cycle.
            del task, cancelled


_loops: list[ConnectionLoop] = []
os.register_at_fork(after_in_child=_loops.clear)  # the child has no such thread


def connection_loop() -> ConnectionLoop:
    """Return the loop of this process. Start it at the first call."""
    if not _loops:
        _loops.append(ConnectionLoop())
    return _loops[0]


def for_sync_code(connect: Callable[..., Any], *args: Any) -> Any:
    """Return a connection that sync code of pytest-arena may use."""
    token = _SYNC.set(True)
    try:
        return connect(*args)
    finally:
        _SYNC.reset(token)


class LastingLoops:
    """The loops of tests that have outlived a test, and the connections that live in them.

    A connection is ended when its loop shuts down, as asyncio ends the generators of a loop.
    """

    def __init__(self) -> None:
        self.loops: WeakSet[AbstractEventLoop] = WeakSet()
        # The dialects whose connections live in no loop of tests: of drivers that are not bound to
        # a loop, of engines that several loops use, and of the isolation `rollback`.
        self.homeless: WeakSet[Dialect] = WeakSet()
        # The loops by the driver's connections.
        self._homes: WeakKeyDictionary[Any, AbstractEventLoop] = WeakKeyDictionary()
        self._closers: WeakKeyDictionary[AbstractEventLoop, AsyncGenerator[None, None]] = (
            WeakKeyDictionary()
        )

    def add(self, loops: Iterable[AbstractEventLoop]) -> None:
        """Note the loops that are open at the start of a test."""
        self.loops.update(loops)

    def here(self, dialect: Dialect) -> AbstractEventLoop | None:
        """Return the running loop if a connection that is opened now lives in it."""
        loop = running_loop()
        if loop not in self.loops or dialect in self.homeless or has_sync_caller():
            return None
        return loop if in_greenlet() else None

    def home_of(self, dbapi_connection: Any) -> AbstractEventLoop | None:
        """Return the loop of tests in which a connection lives, None for any other connection."""
        return self._homes.get(dbapi_connection.driver_connection)

    def is_away(self, dialect: Dialect, dbapi_connection: Any) -> bool:
        """Return whether a connection has to be opened again, for the running loop."""
        home = self.home_of(dbapi_connection)
        here = self.here(dialect)
        if home is not None and home is not here and not home.is_closed():
            self.homeless.add(dialect)
        return home is not here

    def adopt(self, loop: AbstractEventLoop, dbapi_connection: Any) -> None:
        """Note that a connection lives in the running loop."""
        self._homes[dbapi_connection.driver_connection] = loop
        if loop not in self._closers:
            self._closers[loop] = self._until_shutdown()
            await_only(anext(self._closers[loop]))

    async def _until_shutdown(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            for connection, home in [*self._homes.items()]:
                if home is running_loop():
                    getattr(connection, "terminate", connection.close)()
            await asyncio.sleep(0)  # asyncio closes the sockets


lasting_loops = LastingLoops()


def keep_in_loop(dialect: Dialect, *, is_bound: bool) -> None:
    """Let an async dialect open connections in the loop of pytest-arena, or in a lasting loop.

    A test's loop may be closed before the driver answers. Calls of a connection that is not bound
    to a loop run in the loop of their caller, except those of sync code.
    """
    if not is_bound:
        lasting_loops.homeless.add(dialect)
    dbapi: Any = dialect.dbapi
    connect = dbapi.connect

    def connect_in_loop(*args: Any, **kwargs: Any) -> Any:
        is_sync = has_sync_caller()
        loop = connection_loop()
        if loop.is_here:
            return connect(*args, **kwargs)
        home = lasting_loops.here(dialect)
        if home is not None:
            native = connect(*args, **kwargs)
            lasting_loops.adopt(home, native)
            return native
        opened: list[Any] = []
        try:
            loop.call(lambda: opened.append(connect(*args, **kwargs)))
        except asyncio.CancelledError:
            for real in opened:  # the driver was faster, and the caller gets no connection
                loop.schedule(partial(terminate, real))
            raise
        [real] = opened
        return LoopConnection(loop, real) if is_bound or is_sync else real

    patch(dbapi, "connect", connect_in_loop)


def terminate(real: Any) -> None:
    """Close SQLAlchemy's connection of an async driver, without awaiting."""
    end = getattr(real, "terminate", None) or real.driver_connection.pgconn.finish
    end()


class LoopConnection(AdaptedConnection):
    """A pool's connection. SQLAlchemy's adapted connection behind it lives in the loop."""

    real: Any
    _is_used: bool  # whether there was a call since the last end of a transaction

    def __init__(self, loop: ConnectionLoop, real: Any) -> None:
        is_sync = has_sync_caller()
        driver = LoopDriver(real.driver_connection, self._await)
        vars(self).update(
            real=real, _loop=loop, _driver=driver, _has_sync_caller=is_sync, _is_used=True
        )

    await_ = staticmethod(await_only)  # of SQLAlchemy 2.0

    @property
    def _connection(self) -> Any:  # type: ignore[override]
        # SQLAlchemy initializes a dialect in the loop, and psycopg refuses a facade there.
        is_here = connection_loop().is_here
        return self.real.driver_connection if is_here else self._driver

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function where the real connection lives."""
        if not (self._has_sync_caller or in_greenlet()):
            await_only(None)  # type: ignore[arg-type]  # raises, for sync code of the app
        vars(self).update(_is_used=True)
        return self._loop.call(function, *args, **kwargs)

    async def _await(self, function: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        vars(self).update(_is_used=True)
        return await self._loop.wait(function(*args, **kw))

    def cursor(self, *args: Any, **kwargs: Any) -> LoopCursor:
        """Return a cursor."""
        return LoopCursor(self, args, kwargs)

    def _end(self, name: str) -> None:
        if self._is_used:
            self.call(getattr(self.real, name))
            vars(self).update(_is_used=False)

    commit = partialmethod(_end, "commit")
    rollback = partialmethod(_end, "rollback")

    def run_async(self, fn: Callable[[Any], Any]) -> Any:
        """Call a coroutine function with the driver's connection, where it lives."""
        return self.call(self.real.run_async, fn)

    def close(self) -> None:
        """Close. Outside of a greenlet wait for nothing."""
        if in_greenlet():
            self.call(self.real.close)
        else:
            self.terminate()

    def terminate(self) -> None:
        """Close without waiting."""
        self._loop.schedule(partial(terminate, self.real))

    def __del__(self) -> None:
        self.terminate()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.real, name)
        return partial(self.call, value) if callable(value) else value

    def __setattr__(self, name: str, value: Any) -> None:
        self.call(setattr, self.real, name, value)


class LoopCursor:
    """A cursor of a facade. The real cursor is opened at its first use."""

    def __init__(self, facade: Any, args: Any, kwargs: Any) -> None:
        vars(self).update(
            _facade=facade,
            _open=partial(facade.real.cursor, *args, **kwargs),
            _real=None,
            _is_on_server=bool(args or kwargs),  # the others have fetched all rows
            _early={},  # attributes that SQLAlchemy sets before the first statement
        )

    def _opened(self) -> Any:
        if self._real is None:
            real = self._open()
            for attribute, value in self._early.items():
                setattr(real, attribute, value)
            vars(self).update(_real=real)
        return self._real

    def _send(self, name: str, *args: Any) -> Any:
        return getattr(self._opened(), name)(*args)

    def _run(self, name: str, *args: Any) -> Any:
        """Send a call. The cursor of ``rollback`` sends it in its own way."""
        return self._facade.call(self._send, name, *args)

    def execute(self, *args: Any) -> Any:
        """Execute a statement."""
        self._run("execute", *args)
        return self

    def executemany(self, *args: Any) -> Any:
        """Execute a statement for each of several parameters."""
        return self._run("executemany", *args)

    def _fetch(self, name: str, *args: Any) -> Any:
        fetch = getattr(self._real, name)
        if self._is_on_server:
            return self._facade.call(fetch, *args)
        return fetch(*args)

    fetchone = partialmethod(_fetch, "fetchone")
    fetchmany = partialmethod(_fetch, "fetchmany")
    fetchall = partialmethod(_fetch, "fetchall")

    def close(self) -> None:
        """Close a cursor that has rows on the server."""
        if self._real is not None and self._is_on_server:
            self._facade.call(self._real.close)

    async def _async_soft_close(self) -> None:
        """Do nothing: SQLAlchemy has fetched all rows."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._early[name] = value


class LoopDriver:
    """A driver's connection in the loop. Its coroutine methods can be awaited in each loop."""

    # asyncpg's methods whose results or callbacks belong to the loop.
    _REFUSED: Final = ("transaction", "cursor", "add_listener", "close", "terminate")

    def __init__(self, real: Any, run: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        vars(self).update(_real=real, _run=run)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        if name in self._REFUSED:
            raise IsolationError(
                f"{name}() of the driver's connection in an engine's connection",
                why="the connection belongs to an event loop of pytest-arena, so that each "
                "test's loop can use it",
                cause=shown_line(),
                fix="use the session's transaction and its results\n"
                "for LISTEN: asyncpg.connect(…) in the lifespan",
            )
        return partial(self._run, value) if iscoroutinefunction(unwrap(value)) else value
