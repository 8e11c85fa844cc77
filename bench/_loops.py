"""The process that is asked by `bench.loops`: engines on a server, with the gate's listeners."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool, Pool

from bench.server import find
from bench.worker import serve
from pytest_arena._gate import _instrument
from pytest_arena._gate.loops import _any_loop, _loop_bound
from pytest_arena._postgresql.moving import _moving_trial, _transport

if TYPE_CHECKING:
    from collections.abc import Callable

_HELD = find()  # until the process ends: a private server stops when nobody uses it
SERVER = _HELD.address


def main() -> None:
    """Be the gate for asyncpg's connections, and answer."""
    _any_loop.install()
    event.listen(Engine, "do_connect", _connecting)
    event.listen(Pool, "connect", _connected)
    event.listen(Pool, "checkout", _checked_out)
    event.listen(Pool, "checkin", _checked_in)
    takers: dict[str, Callable[[int], list[float]]] = {
        "session": _in_one_loop(_engine()),
        "moves": _in_loops(_engine()),
        "stays": _in_loops(_engine(async_creator=_connect)),
        "null": _in_loops(_engine(poolclass=NullPool)),
    }
    serve(takers, {"server": _server})


def _connecting(dialect: Any, _entry: Any, _cargs: Any, cparams: dict[str, Any]) -> None:
    _moving_trial.prepare(dialect, cparams, note=print)


def _connected(connection: Any, _entry: Any) -> None:
    _any_loop.free_locks(connection)
    _loop_bound.bind_to_loop(connection)


def _checked_out(connection: Any, _entry: Any, _proxy: Any) -> None:
    if _loop_bound.is_foreign(connection):
        raise DisconnectionError("it belongs to another loop")


def _checked_in(connection: Any, _entry: Any) -> None:
    _transport.at_checkin(getattr(connection, "driver_connection", None))


async def _connect(**options: Any) -> Any:
    import asyncpg  # noqa: PLC0415 - not every machine that runs the bench has it

    return await asyncpg.connect(
        host=SERVER.host,
        port=SERVER.port,
        user=SERVER.user,
        password=SERVER.password or None,
        database=SERVER.database,
        ssl=False,
        **options,
    )


def _server() -> str:
    try:
        asyncio.run(_connected_once())
    except (ImportError, OSError):
        return "none"
    return "there"


async def _connected_once() -> None:
    await (await _connect()).close()


def _engine(**options: Any) -> AsyncEngine:
    url = URL.create("postgresql+asyncpg", username=SERVER.user, database=SERVER.database)
    if "async_creator" not in options:
        login = {"host": SERVER.host, "port": SERVER.port, "password": SERVER.password or None}
        options["connect_args"] = {"ssl": False, **login}
    engine = create_async_engine(
        url, **options, **({} if "poolclass" in options else {"pool_pre_ping": True})
    )
    _instrument.instrument_loops(engine.dialect)
    return engine


async def _test(engine: AsyncEngine) -> None:
    for _ in range(3):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))


def _in_one_loop(engine: AsyncEngine) -> Callable[[int], list[float]]:
    loop = asyncio.new_event_loop()
    return _times(lambda: loop.run_until_complete(_test(engine)))


def _in_loops(engine: AsyncEngine) -> Callable[[int], list[float]]:
    def test() -> None:
        with asyncio.Runner() as runner:
            runner.run(_test(engine))

    return _times(test)


def _times(function: Callable[[], object]) -> Callable[[int], list[float]]:
    """Times of one call; the first of each turn, on caches that are cold, is dropped."""

    def take(number: int) -> list[float]:
        times = []
        for _ in range(number + 1):
            started = perf_counter()
            function()
            times.append(perf_counter() - started)
        return times[1:]

    return take


if __name__ == "__main__":
    main()
