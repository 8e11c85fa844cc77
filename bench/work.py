"""What a test does in its database, in both kinds of workers; it is never in the measured time."""

from __future__ import annotations

import asyncio
import os
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

__all__ = [
    "DIRTY",
    "LOOP",
    "CountedUses",
    "around",
    "checkout",
    "per_call",
    "requests",
    "test_on",
    "write",
]

DIRTY = int(os.environ.get("BENCH_DIRTY", "5"))
LOOP = asyncio.new_event_loop()
_names = count()


async def write(connection: AsyncConnection) -> None:
    """Write a row into so many tables; look once, where that is none."""
    from bench.suite import shop  # noqa: PLC0415 - after the gate, as an app is

    if not DIRTY:
        await connection.scalar(select(func.count()).select_from(shop.every_table[0]))
    for table in shop.every_table[:DIRTY]:
        name = f"dirty {next(_names)}"
        await connection.execute(insert(table), {"name": name, "price": 1})


async def test_on(engine: AsyncEngine) -> None:
    """Connect, work, commit."""
    async with engine.connect() as connection:
        await write(connection)
        await connection.commit()


class CountedUses:
    """The uses of a database by one thread, which the bench counts."""

    number = 0

    def __call__(self) -> int:
        """Return the number of uses."""
        return self.number

    def before_next(self, call: Callable[[], None]) -> bool:
        """Call nothing: no other thread uses the database."""
        del call
        return False

    def alone(self) -> AbstractContextManager[None]:
        """Wait for no thread."""
        return nullcontext()


def around(
    enter: Callable[[], None],
    test: Callable[[], None],
    leave: Callable[[], None],
    *,
    warm: int = 1,
) -> Callable[[int], list[float]]:
    """Times of enter + leave, with a test in between that is not counted.

    The first of each turn, on caches that are cold from the others' turns, are dropped.
    """

    def take(number: int) -> list[float]:
        times = []
        for _ in range(number + warm):
            started = perf_counter()
            enter()
            entered = perf_counter()
            test()
            leaving = perf_counter()
            leave()
            times.append(perf_counter() - leaving + entered - started)
        return times[warm:]

    return take


def per_call(function: Callable[[], object], *, calls: int) -> Callable[[int], list[float]]:
    """Times of one call, each the mean of so many."""

    def take(number: int) -> list[float]:
        times = []
        for _ in range(number):
            started = perf_counter()
            for _ in range(calls):
                function()
            times.append((perf_counter() - started) / calls)
        return times

    return take


def checkout(engine: AsyncEngine) -> Callable[[int], list[float]]:
    """Times of one connection taken from its pool, and given back, with a statement."""

    async def one() -> None:
        async with engine.connect() as connection:
            await connection.exec_driver_sql("SELECT 1")

    return _each(one, calls=20)


def requests(client: Any) -> Callable[[int], list[float]]:
    """Times of one request to an endpoint that does nothing."""

    async def one() -> None:
        await client.get("/nothing")

    return _each(one, calls=20)


def _each(one: Callable[[], Awaitable[None]], *, calls: int) -> Callable[[int], list[float]]:
    async def several() -> None:
        for _ in range(calls):
            await one()

    take = per_call(lambda: LOOP.run_until_complete(several()), calls=1)
    return lambda number: [seconds / calls for seconds in take(number)]
