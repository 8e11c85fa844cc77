"""The loop of ``arena.races()``, and what its passes have found."""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Self
from weakref import ref

from pytest_arena._changes import Changes
from pytest_arena._origin import shown_line, user_line
from pytest_arena._process import run_in_new_loop, running_loop
from pytest_arena._run._expect import acommit
from pytest_arena._run._nested import Fresh
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


def _error(what: str, fix: str) -> RaceError:
    return RaceError(
        what,
        why="the orders of the requests would prove nothing",
        cause=shown_line("arena.races()"),
        fix=fix,
    )


class Race:
    """One pass: runs the requests once, in one order of their statements."""

    __module__ = "pytest_arena"

    def __init__(self, races: Races, plan: Picks) -> None:
        self._run = races.run
        self.title = (
            f"arena: the order in which this failed (pass {races.passes} of at most {races.limit})"
        )
        self.races = ref(races)
        self.level = Fresh(races.run, "a pass of arena.races()")
        self.schedule = Schedule(plan)
        self._wanted = races.order if races.passes == 1 else ""
        self.line: CodeLine | str = ""  # of the call in the test
        # How it ended: the statuses and the numbers of changed rows, the same for passes whose
        # refusals have other statuses, and the number of refusals.
        self.result = self.meaning = ""
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
            return self._answers(requests, inspect.iscoroutine)
        return run_in_new_loop(self._answers(requests, callable))

    async def _answers(self, requests: Sequence[Any], is_right: Any) -> list[Any]:
        self.line = user_line() or "race(…)"
        try:
            self._check(requests, is_right)
        except RaceError:
            for request in filter(inspect.iscoroutine, requests):
                request.close()
            raise
        await acommit()
        works = [*requests]
        if callable(works[0]):  # a sync test runs this in a new loop
            pool = ThreadPoolExecutor(len(works))
            asyncio.get_running_loop().set_default_executor(pool)
            works = [*map(asyncio.to_thread, requests)]
        # Equal for requests that do the same.
        kinds = [(work.cr_code, repr(inspect.getcoroutinelocals(work))) for work in works]
        for digit, request, kind in zip(DIGITS, requests, kinds, strict=False):
            name = getattr(request, "__qualname__", "a request")
            self.schedule.racers.append(Racer(digit, name, kinds.index(kind)))
        return self._ended(await self._run_at_once(works))

    def _check(self, requests: Sequence[Any], is_right: Any) -> None:
        """Refuse what cannot be a race."""
        isolations = {each.name for each in self._run.databases.provisioned.values()}
        if not (1 < len(requests) <= len(DIGITS) and all(map(is_right, requests))):
            raise _error(
                "race(…) cannot run these arguments",
                "pass two or more coroutines: client.post(…)   or, in a sync test, functions: "
                "lambda: test_client.post(…)",
            )
        if self.schedule.racers:
            raise _error("race(…) was called twice in one pass", "call it once in the loop")
        if isolations & {"clone", "rollback"}:
            raise _error(
                f"arena.races() with the isolation {' and '.join(isolations)}",
                "arena_isolation = auto   or @pytest.mark.arena(isolation=…)",
            )

    async def _run_at_once(self, works: list[Any]) -> list[Any]:
        """Return the answer of each request, or its error."""
        schedule = self.schedule

        async def answer(racer: Racer, work: Any) -> Any:
            RACER.set(racer)
            await asyncio.wrap_future(racer.permit)
            try:
                return await work
            finally:
                schedule.end(racer)

        tasks = [*map(asyncio.create_task, map(answer, schedule.racers, works))]
        self._run.connections.schedule = schedule
        try:
            await schedule.run()
        finally:
            endless = [racer.name for racer in schedule.racers if not racer.is_done]
            self._run.connections.schedule = None
            for racer, task in zip(schedule.racers, tasks, strict=True):
                schedule.end(racer)
                task.cancel()
            await asyncio.wait(tasks, timeout=_PATIENCE)
        if endless:
            raise _error(
                f"{', '.join(endless)} did not end, and sent no statement for ten seconds",
                "leave out a stream, and what waits for work after the race",
            )
        return await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, answers: list[Any]) -> list[Any]:
        """Check what the pass has shown. Return the answers, or raise the errors."""
        schedule = self.schedule
        if schedule.strangers:
            raise _error(
                f"{', '.join(schedule.strangers)} ran during the race, and is none of its requests",
                "send it before, or pass it to race(…). A race sees no request by a socket",
            )
        if not schedule.trace:
            raise _error(
                "no request of this race has sent a statement by SQLAlchemy",
                "a race cannot show what Redis, a file or the memory of the app has",
            )
        if self._wanted not in {"", schedule.order}:
            raise _error(
                f'order="{self._wanted}" does not fit: the order was "{schedule.order}"',
                "arena.races()   runs all orders",
            )
        errors = []
        outcomes = []
        for racer, answer in zip(schedule.racers, answers, strict=True):
            outcome = str(getattr(answer, "status_code", "returned"))
            if isinstance(answer, BaseException):
                outcome = type(answer).__name__
                errors.append(answer)
            outcomes.append((racer.kind, outcome))
        words = [outcome for _, outcome in sorted(outcomes)]  # the order of equal requests is equal
        # By 503 an app asks the client to try again.
        same = ["refused" if word.startswith(("4", "503")) else word for word in words]
        self.declined = same.count("refused")
        rows = self._rows()
        self.result = f"{' and '.join(words)}, {rows}"
        self.meaning = f"{same}, {rows}"
        try:
            if len(errors) > 1:
                raise BaseExceptionGroup("several requests of the race have failed", errors)
            if errors:
                raise errors[0]
            return answers
        finally:  # a traceback would keep sessions of the app alive
            del answers, answer, errors

    def _rows(self) -> str:
        """Return the numbers of changed rows, "" if they cannot be read."""
        isolations = self._run.databases.provisioned.values()
        with suppress(Exception):
            changes = [Changes.of(each.rows_changed(limit=_MOST_ROWS)) for each in isolations]
            return "; ".join(each.counted() for each in changes)
        return ""

    def lines(self) -> list[str]:
        """Return a line for each step, and how to run this order alone."""
        lines = []
        width = max((len(racer.name) for racer in self.schedule.racers), default=0)
        for step in self.schedule.trace:
            who = f"{step.racer.digit}  {step.racer.name:<{width}}"
            where = getattr(step.line, "short", "")
            lines.append(f"{who}  {step.text[:_WIDEST]:<{_WIDEST}}  {where}{step.note}")
        if lines:
            lines.append(f'this order first: arena.races(order="{self.schedule.order}")')
        return lines


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
        self._switches = 0 if order else switches
        # After a given order, the serial orders show whether only it has its result.
        self._plans: list[tuple[int, Picks]] = [(0, plan) for plan in {tuple(order): 0, (): 0}]
        self._differences: list[str] = []
        # The first pass with each meaning, in a serial order or not.
        self._first_passes: dict[tuple[str, bool], Race] = {}

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Race:
        """Undo the last pass, and begin the next one."""
        if running_loop() is not None:
            raise _error("`for` over arena.races() in an async test", "async for race in …")
        try:
            return run_in_new_loop(self.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Race:
        """Undo the last pass, and begin the next one."""
        last: Race | None = self.test.race
        if last is not None:
            races = last.races()  # None for a loop that was left by `break`
            if races is self:
                self._note(last)
            elif races is not None:
                raise _error("a race inside of a race", "end the first loop before the second")
            await last.level.__aexit__()
        self.test.race = None
        if not self._plans or self.passes >= self.limit:
            self._conclude()
            raise StopAsyncIteration
        self.passes += 1
        _, plan = self._plans.pop(0)
        race = Race(self, plan)
        await race.level.__aenter__()
        self.test.race = race
        return race

    def _note(self, race: Race) -> None:
        schedule = race.schedule
        if not schedule.racers:
            raise _error(
                "the loop's body has not called race(…)",
                "await race(…)   once in each pass, in a sync test without `await`",
            )
        for step, wanted in zip(schedule.trace, schedule.plan, strict=False):
            if not step.key.startswith(wanted):
                if not self._differences:  # for example, the first pass has filled a cache
                    self._plans = [(0, ())]
                    self._first_passes.clear()
                self._differences.append(f"{step.key} came in place of {wanted}")
                return
        self._plans += [each for each in schedule.alternatives if each[0] <= self._switches]
        self._plans.sort(key=itemgetter(0))
        order = schedule.order
        is_serial = sorted(order, key=order.index) == [*order]
        self._first_passes.setdefault((race.meaning, is_serial), race)

    def _conclude(self) -> None:
        """Report what the passes have shown together.

        It warns of the first result that no serial order has, unless the app declines more there.
        """
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
        firsts = self._first_passes.items()
        serial = {meaning: race for (meaning, is_serial), race in firsts if is_serial}
        if not serial or (self._plans and self._plans[0][0] == 0):
            return  # not all serial orders were tried
        most = max(race.declined for race in serial.values())
        for (meaning, _), race in firsts:
            if meaning not in serial and race.declined <= most:
                steps = "\n  ".join(race.lines())
                expected = " or ".join(each.result for each in serial.values())
                self.run.ledger.warn(
                    RaceWarning,
                    f"requests at once: {race.result}. One after the other: {expected}\n  {steps}",
                    cause=race.line,
                    fix="check and write in one statement, or lock the row first",
                )
                return
