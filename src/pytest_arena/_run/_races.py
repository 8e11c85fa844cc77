"""The loop of ``arena.races()``, and what its passes have found."""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Self
from weakref import ref

from pytest_arena._changes import Changes
from pytest_arena._origin import user_line
from pytest_arena._process import run_in_new_loop, running_loop
from pytest_arena._run._expect import acommit
from pytest_arena._run._nested import NestedLevel
from pytest_arena._run._orders import DIGITS, RACER, Picks, Racer, Schedule
from pytest_arena.errors import RaceError
from pytest_arena.warnings import RaceWarning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_arena._run._test import RunningTest
    from pytest_arena._values import CodeLine

__tracebackhide__ = True  # a traceback of the app or of a test ends at the user's line

_PATIENCE = 1.0  # seconds, for the end of requests that were cancelled
_MOST_ROWS = 1000
_WIDEST = 60
_WAITED = "  (it waited for a lock)"


def _error(what: str, fix: str) -> RaceError:
    return RaceError(
        what,
        why="the orders of the requests would prove nothing",
        cause=str(user_line() or "arena.races()"),
        fix=fix,
    )


class Race:
    """One pass: runs the requests once, in one order of their statements."""

    __module__ = "pytest_arena"

    def __init__(self, races: Races, plan: Picks) -> None:
        self._run = races.run
        self._plan = plan
        self.title = (
            f"arena: the order in which this failed (pass {races.passes} of at most {races.limit})"
        )
        self.races = ref(races)
        self.level = NestedLevel(races.run, "a pass of arena.races()")
        self.order: Schedule | None = None
        self.line: CodeLine | str = ""  # of the call in the test
        # How it ended: the statuses and the numbers of changed rows, and the number of refusals.
        self.result = ""
        self.declined = 0

    def __call__(self, *requests: Any) -> Any:
        """Run the requests at once. Return their answers in the order of the arguments.

        Args:
            requests: in an async test coroutines, and in a sync test functions without parameters.

        Raises:
            RaceError: there are fewer than two, or they sent no statement, or one has no end.
            Exception: what a request has raised. A group if several have raised.
        """
        if running_loop() is not None:
            return self._answers(requests, inspect.iscoroutine, "coroutines: client.post(…)")
        what = "functions: lambda: test_client.post(…)"
        return run_in_new_loop(self._answers(requests, callable, what))

    async def _answers(self, requests: Sequence[Any], is_right: Any, wanted: str) -> list[Any]:
        self.line = user_line() or "race(…)"
        try:
            self._check(requests, is_right, wanted)
        except RaceError:
            for request in filter(inspect.iscoroutine, requests):
                request.close()
            raise
        await acommit()
        kinds = [*map(_kind, requests)]
        racers = []
        for number, request in enumerate(requests):
            name = getattr(request, "__qualname__", "a request")
            racers.append(Racer(number, name, kinds.index(kinds[number])))
        order = Schedule(self._plan, racers)
        self.order = order
        if callable(requests[0]):  # a sync test has a loop of its own for this
            pool = ThreadPoolExecutor(len(racers))
            asyncio.get_running_loop().set_default_executor(pool)

        async def answer(racer: Racer, request: Any) -> None:
            RACER.set(racer)
            await asyncio.wrap_future(racer.begin)
            with order.answering(racer):
                racer.answer = await (asyncio.to_thread(request) if callable(request) else request)

        self._run.connections.schedule = order
        pairs = zip(racers, requests, strict=True)
        tasks = [asyncio.create_task(answer(racer, request)) for racer, request in pairs]
        try:
            order.start()
            await asyncio.wrap_future(order.finished)
        finally:
            endless = [racer for racer in racers if not racer.is_done]
            self._run.connections.schedule = None
            order.finish()
            for racer in endless:
                tasks[racer.number].cancel()
            await asyncio.wait(tasks, timeout=_PATIENCE)
        return self._ended(order, endless)

    def _check(self, requests: Sequence[Any], is_right: Any, wanted: str) -> None:
        """Refuse what cannot be a race."""
        isolations = [each.name for each in self._run.databases.known.provisioned.values()]
        if not (1 < len(requests) <= len(DIGITS) and all(map(is_right, requests))):
            raise _error("race(…) cannot run these arguments", f"pass two or more {wanted}")
        if self.order is not None:
            raise _error("race(…) was called twice in one pass", "call it once in the loop")
        if {"clone", "rollback"} & {*isolations}:
            raise _error(
                f"arena.races() with the isolation {' and '.join(isolations)}",
                "arena_isolation = auto   or @pytest.mark.arena(isolation=…)",
            )

    def _ended(self, order: Schedule, endless: list[Racer]) -> list[Any]:
        """Check what the pass has shown. Return the answers, or raise the errors."""
        if endless:
            names = ", ".join(racer.name for racer in endless)
            raise _error(
                f"{names} did not end, and sent no statement for ten seconds",
                "leave out a stream, and what waits for work after the race",
            )
        if order.strangers:
            raise _error(
                f"{', '.join(order.strangers)} ran during the race, and is none of its requests",
                "send it before, or pass it to race(…). A race sees no request by a socket",
            )
        if not order.trace:
            raise _error(
                "no request of this race has sent a statement by SQLAlchemy",
                "a race cannot show what Redis, a file or the memory of the app has",
            )
        races = self.races()
        if races is not None and races.order not in {"", order.order}:
            raise _error(
                f'order="{races.order}" does not fit: the order was "{order.order}"',
                "arena.races()   runs all orders",
            )
        words = _outcomes(order)
        self.result = f"{' and '.join(words)}, {self._rows()}"
        self.declined = sum(word.startswith("4") for word in words)
        errors = [racer.error for racer in order.racers if racer.error is not None]
        answers = [racer.answer for racer in order.racers]
        for racer in order.racers:  # a traceback would keep sessions of the app alive
            racer.error = None
        try:
            if len(errors) > 1:
                raise BaseExceptionGroup("several requests of the race have failed", errors)
            if errors:
                raise errors[0]
        finally:
            del errors
        return answers

    def _rows(self) -> str:
        """Return the numbers of changed rows, "" if they cannot be read."""
        texts = []
        with suppress(Exception):
            for isolation in self._run.databases.known.provisioned.values():
                texts.append(Changes.of(isolation.rows_changed(limit=_MOST_ROWS)).counted())
        return "; ".join(texts)

    def lines(self) -> list[str]:
        """Return a line for each step, and how to run this order alone."""
        if self.order is None or not self.order.trace:
            return []
        width = max(len(racer.name) for racer in self.order.racers)
        lines = []
        for step in self.order.trace:
            who = f"{DIGITS[step.racer.number]}  {step.racer.name:<{width}}"
            where = f"{step.line.short if step.line else ''}{_WAITED * step.has_waited}"
            lines.append(f"{who}  {step.text[:_WIDEST]:<{_WIDEST}}  {where}")
        return [*lines, f'next: this order alone: arena.races(order="{self.order.order}")']


def _kind(request: Any) -> object:
    """Return what is equal for two requests that do the same."""
    if inspect.iscoroutine(request):
        return request.cr_code, repr(inspect.getcoroutinelocals(request))
    return request


def _outcomes(order: Schedule) -> tuple[str, ...]:
    """Return the status of each answer, or the error. Equal requests are sorted."""
    words = []
    for racer in order.racers:
        word = str(getattr(racer.answer, "status_code", "returned"))
        if racer.error is not None:
            word = type(racer.error).__name__
        words.append((racer.kind, word))
    return tuple(word for _, word in sorted(words))


class Races:
    """The passes of a race: iterate over it by ``for``, or by ``async for`` in an async test."""

    __module__ = "pytest_arena"

    def __init__(self, run: Any, switches: int, limit: int, order: str) -> None:
        self.run = run
        self.test: RunningTest = run.current.required_test()
        self.limit = limit
        self.order = order
        self.passes = 0
        if limit < 1 or switches < 0:
            raise _error("no order would run", "arena.races(switches=2, limit=100)")
        if not {*order} <= {*DIGITS}:
            raise _error(f"order={order!r}", "the order that the report of a failed test shows")
        self._switches = -1 if order else switches
        first = tuple((DIGITS.index(digit), "") for digit in order)
        self._plans: list[tuple[int, Picks]] = [(0, first)]
        self._differences: list[str] = []
        # The first pass with each result, of all orders and of the serial ones.
        self._found: dict[str, Race] = {}
        self._serial: dict[str, Race] = {}

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Race:
        """Undo the last pass, and begin the next one."""
        if running_loop() is not None:
            raise _error("`for` over arena.races() in an async test", "async for race in …")
        race = run_in_new_loop(self._next())
        if race is None:
            raise StopIteration
        return race

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Race:
        """Undo the last pass, and begin the next one."""
        race = await self._next()
        if race is None:
            raise StopAsyncIteration
        return race

    async def _next(self) -> Race | None:
        last: Race | None = self.test.race
        if last is not None:
            races = last.races()  # None for a loop that was left by `break`
            if races is self:
                self._note(last)
            elif races is not None:
                raise _error("a race inside of a race", "end the first loop before the second")
            await last.level.leave()
        await acommit()
        self.test.race = None
        if not self._plans or self.passes >= self.limit:
            self._conclude()
            return None
        self.passes += 1
        self.run.ledger.race_passes += 1
        _, plan = self._plans.pop(0)
        race = Race(self, plan)
        self.test.race = race
        return race

    def _note(self, race: Race) -> None:
        order = race.order
        if order is None:
            raise _error(
                "the loop's body has not called race(…)",
                "await race(…)   once in each pass, in a sync test without `await`",
            )
        if order.difference:
            self._differences.append(order.difference)
            if len(self._differences) == 1:  # for example, the first pass has filled a cache
                self._plans = [(0, ())]
                self._found.clear()
                self._serial.clear()
            return
        self._plans += [each for each in order.alternatives if each[0] <= self._switches]
        self._plans.sort(key=itemgetter(0))
        self._found.setdefault(race.result, race)
        turns = [number for number, _ in groupby(order.order)]
        if len(turns) == len({*turns}):
            self._serial.setdefault(race.result, race)

    def _conclude(self) -> None:
        """Report what the passes have shown together."""
        if len(self._differences) * 3 > self.passes:
            raise _error(
                f"{len(self._differences)} of {self.passes} orders could not be repeated: "
                f"{self._differences[-1]}",
                "let the requests send the same statements in each pass: no chance, no time, no "
                "cache that a pass fills",
            )
        if self._differences:
            self.run.ledger.note(
                f"{{test}}: an order could not be repeated: {self._differences[0]}"
            )
        if self._plans:
            self.run.ledger.note(
                f"{{test}}: arena.races() has run {self.limit} orders, and there are more. next: "
                f"arena.races(limit={self.limit * 10})"
            )
        if self._serial and not (self._plans and self._plans[0][0] == 0):
            self._warn()  # all serial orders were tried

    def _warn(self) -> None:
        """Warn of the first result that no serial order has, unless the app declines more."""
        most = max(race.declined for race in self._serial.values())
        for result, race in self._found.items():
            order = race.order
            if result in self._serial or race.declined > most or order is None:
                continue
            names = " and ".join(racer.name for racer in order.racers)
            self.run.ledger.warn(
                RaceWarning,
                f"{names} at once: {result}. One after the other: {' or '.join(self._serial)}",
                cause=race.line,
                fix=f'arena.races(order="{order.order}")   runs this order alone',
            )
            return
