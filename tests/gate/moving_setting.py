"""What tests of connections across loops have in common: a real server, and what must be left.

The gate's part in it is played by four listeners, which are removed again.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool, Pool
from sqlalchemy.util.concurrency import AsyncAdaptedLock
from sqlalchemy.util.queue import AsyncAdaptedQueue

from pytest_arena._gate._instrument import instrument_loops
from pytest_arena._gate.loops import _any_loop, _loop_bound
from pytest_arena._postgresql.moving import _moving_trial, _transport
from tests.servers.postgresql import URL as URL_OF_SERVER

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

T = TypeVar("T")

SERVER: Final = URL_OF_SERVER
# No test waits that long: it is how something lost ends, instead of never.
FOR_EVER: Final = 60

WAYS: Final = ("asyncpg moves", "asyncpg stays", "psycopg")
LOOPS: Final = ("asyncio", "uvloop")
POOLS: Final[dict[str, dict[str, Any]]] = {
    "no ping": {},
    "ping": {"pool_pre_ping": True},
    "one": {"pool_size": 1, "max_overflow": 0},
    "null": {"poolclass": NullPool},
}


@dataclass(frozen=True)
class Cell:
    """One combination of what the promises hold for."""

    way: str
    loop: str = "asyncio"
    pool: str = "ping"

    def __str__(self) -> str:
        return f"{self.way}, {self.loop}, {self.pool}"

    @property
    def keeps(self) -> bool:
        """Whether connections outlive the loop that they were made in."""
        return self.way != "asyncpg stays" and self.pool != "null"

    def run(self, work: Coroutine[Any, Any, T], *, debug: bool = False) -> T:
        """Run a coroutine in a new loop, as `asyncio.run` does."""
        with self.runner(debug=debug) as runner:
            return runner.run(in_time(work))

    def runner(self, *, debug: bool = False) -> asyncio.Runner:
        """Make a loop that stands still whenever nothing is run in it."""
        return asyncio.Runner(loop_factory=self.new_loop, debug=debug)

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Make a loop; one of asyncio's says nothing of what takes long, for machines differ."""
        if self.loop == "uvloop":
            made: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
            return made
        loop = asyncio.new_event_loop()
        loop.slow_callback_duration = FOR_EVER
        return loop


async def in_time(work: Coroutine[Any, Any, T]) -> T:
    """Wait, but not for ever."""
    async with asyncio.timeout(FOR_EVER):
        return await work


@dataclass
class Setting:
    """Engines on a server, all told apart from others' by the name of the application."""

    cell: Cell
    notes: list[str] = field(default_factory=list)
    name: str = field(default_factory=lambda: f"moving {uuid4().hex[:12]}")
    engines: list[AsyncEngine] = field(default_factory=list)

    @property
    def driver(self) -> str:
        """The driver's name in a URL."""
        return self.cell.way.partition(" ")[0]

    @property
    def channel(self) -> str:
        """Where these tests alone are notified: others run at the same time."""
        return self.name.replace(" ", "_")

    def engine(self, url: URL | None = None, **options: Any) -> AsyncEngine:
        """Make the app's engine, in the way of the cell."""
        url = url or SERVER.set(database="postgres")
        options = {**POOLS[self.cell.pool], **options}
        if self.driver == "asyncpg":
            asked = options.setdefault("connect_args", {})
            asked.setdefault("server_settings", {})["application_name"] = self.name
            # As arena asks for its own servers. (asyncpg that negotiates first, and is cancelled
            # meanwhile, has asyncio log an exception that was never retrieved.)
            asked.setdefault("ssl", False)
        else:
            url = url.update_query_dict({"application_name": self.name})
        if self.cell.way == "asyncpg stays":
            options["async_creator"] = self._creator(options.pop("connect_args"))
        engine = create_async_engine(url.set(drivername=f"postgresql+{self.driver}"), **options)
        instrument_loops(engine.dialect)
        self.engines.append(engine)
        return engine

    def _creator(self, asked: dict[str, Any]) -> Callable[[], Any]:
        """With a creator of the app's, no listener hears of a connection before it is made."""

        async def connect() -> Any:
            import asyncpg  # noqa: PLC0415 - only for this way

            return await asyncpg.connect(
                host=SERVER.host,
                port=SERVER.port,
                user=SERVER.username,
                password=SERVER.password,
                database="postgres",
                **asked,
            )

        return connect

    def backends(self) -> list[int]:
        """The server's processes that serve these engines now."""
        with control() as ask:
            rows = ask("SELECT pid FROM pg_stat_activity WHERE application_name = %s", self.name)
        return [row[0] for row in rows]

    def kill(self, pid: int) -> None:
        """End one of them, as an administrator would, and return when it is gone."""
        with control() as ask:
            ask("SELECT pg_terminate_backend(%s, 5000)", pid)

    def is_left_clean(self) -> bool:
        """Whether the server has soon nobody to serve."""
        return self.has_soon(backends=0)

    def has_soon(self, *, backends: int) -> bool:
        """Whether it serves that many before long: it hears of a connection's end by itself."""
        end = time.monotonic() + 30
        while len(self.backends()) != backends:
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True


@contextmanager
def control() -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Ask the server, by a connection of nobody's."""
    psycopg = pytest.importorskip("psycopg")
    url = SERVER.set(drivername="postgresql", database="postgres")
    try:
        connection = psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)
    except psycopg.OperationalError as error:
        pytest.skip(f"no PostgreSQL to test on: {error}")
    with connection:
        yield lambda sql, *values: connection.execute(sql, values).fetchall()


@contextmanager
def listening(notes: list[str]) -> Iterator[None]:
    """Do what the gate does with connections, for all engines."""

    def connecting(dialect: Any, _entry: Any, _cargs: Any, cparams: Any) -> None:
        _moving_trial.prepare(dialect, cparams, note=notes.append)

    def connected(connection: Any, _entry: Any) -> None:
        _any_loop.free_locks(connection)
        _loop_bound.bind_to_loop(connection)

    def checked_out(connection: Any, _entry: Any, _proxy: Any) -> None:
        if _loop_bound.is_foreign(connection):
            raise DisconnectionError("it belongs to another loop")

    def checked_in(connection: Any, _entry: Any) -> None:
        _transport.at_checkin(getattr(connection, "driver_connection", None))
        _loop_bound.bind_to_loop(connection)

    listeners: list[tuple[Any, str, Any]] = [
        (Engine, "do_connect", connecting),
        (Pool, "connect", connected),
        (Pool, "checkout", checked_out),
        (Pool, "checkin", checked_in),
    ]
    with loops_installed():
        for listener in listeners:
            event.listen(*listener)
        try:
            yield
        finally:
            for listener in listeners:
                event.remove(*listener)


@contextmanager
def loops_installed() -> Iterator[None]:
    """Any loop may wait for the pools that are made here, and for first connections."""
    replaced = (
        (AsyncAdaptedQueue, "get_nowait"),
        (AsyncAdaptedQueue, "get"),
        (AsyncAdaptedLock, "mutex"),
    )
    before = [vars(owner)[name] for owner, name in replaced]
    _any_loop.install()
    try:
        yield
    finally:
        for (owner, name), value in zip(replaced, before, strict=True):
            setattr(owner, name, value)


@contextmanager
def setting_of(cell: Cell, caplog: pytest.LogCaptureFixture) -> Iterator[Setting]:
    """Judge what a test does: nothing is logged, no backend is left, nothing is unclosed."""
    with control():
        pass  # there is a server
    if cell.loop == "uvloop":
        pytest.importorskip("uvloop")
    pytest.importorskip(cell.way.partition(" ")[0])
    setting = Setting(cell)
    with listening(setting.notes):
        yield setting
        # In a loop that none of the connections has seen.
        cell.run(dispose(setting.engines))
    setting.engines.clear()
    gc.collect()  # whatever is unclosed says so now, and pytest makes an error of it
    warned = [one for one in caplog.get_records("call") if one.levelno >= logging.WARNING]
    # In debug mode asyncio complains of each callback that took long: that is about the machine.
    loud = [one.getMessage() for one in warned if " took " not in one.getMessage()]
    assert not loud
    assert setting.is_left_clean(), f"{len(setting.backends())} backends are left"


async def dispose(engines: list[AsyncEngine]) -> None:
    """Close all that is idle."""
    for engine in engines:
        await engine.dispose()


@contextmanager
def in_thread(cell: Cell) -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """A loop that goes on in a thread of its own, and what runs coroutines there."""
    ready: list[asyncio.AbstractEventLoop] = []
    started, over = threading.Event(), asyncio.Event()

    async def stay() -> None:
        ready.append(asyncio.get_running_loop())
        started.set()
        await over.wait()

    def work() -> None:
        with cell.runner() as runner:
            runner.run(stay())

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(FOR_EVER)
    try:
        yield lambda one: asyncio.run_coroutine_threadsafe(in_time(one), ready[0]).result(FOR_EVER)
    finally:
        ready[0].call_soon_threadsafe(over.set)
        thread.join(FOR_EVER)


async def pid_of(engine: AsyncEngine) -> int:
    """Take a connection, ask which backend serves it, give it back."""
    async with engine.connect() as connection:
        return await backend(connection)


async def backend(connection: AsyncConnection) -> int:
    """Which backend serves it."""
    pid: int = await connection.scalar(text("SELECT pg_backend_pid()"))
    return pid


async def driver_of(connection: AsyncConnection) -> Any:
    """Return the driver's own connection."""
    return (await connection.get_raw_connection()).driver_connection
