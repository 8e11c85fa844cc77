"""The loop of ``arena.races()``, and what its passes have found."""

from __future__ import annotations

import asyncio
import inspect
import threading
from contextlib import suppress
from contextvars import copy_context
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar, overload
from weakref import ref

from pytest_arena._changes import Changes
from pytest_arena._ledger import FAILURE, REFUSAL
from pytest_arena._origin import user_line
from pytest_arena._process import running_loop
from pytest_arena._run._expect import acommit, commit
from pytest_arena._run._nested import NestedLevel
from pytest_arena._run._orders import DIGITS, RACER, Explorer, Pass
from pytest_arena.errors import RaceError
from pytest_arena.warnings import RaceWarning

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from typing import Self

    from pytest_arena._run._orders import Plan, Racer
    from pytest_arena._run._test import RunningTest
    from pytest_arena._values import CodeLine

__tracebackhide__ = True  # a traceback of the app or of a test ends at the user's line

T = TypeVar("T")
# How a pass ended: the results of the requests, and the numbers of changed rows.
Result = tuple[tuple[str, ...], str]
_ISOLATIONS = ("undo", "copy")


class Race:
    """One pass: runs the requests once, in one order of their statements."""

    __module__ = "pytest_arena"

    def __init__(self, races: Races, number: int, plan: Any) -> None:
        self._run = races.run
        self._test = races.test
        self._number = number
        self._limit = races.limit
        self._plan: Plan = plan
        self._wanted = races.order
        self.races = ref(races)
        self.level = NestedLevel(self._run, "a pass of arena.races()")
        self.order: Pass | None = None
        self.result: Result = ((), "")
        self.line: CodeLine | str = ""  # of the call in the test

    @overload
    def __call__(self, *requests: Coroutine[Any, Any, T]) -> Awaitable[list[T]]: ...
    @overload
    def __call__(self, *requests: Callable[[], T]) -> list[T]: ...
    def __call__(self, *requests: Any) -> Any:
        """Run the requests at once, and return their answers in the order of the arguments.

        Args:
            requests: in an async test coroutines, and in a sync test functions without parameters.

        Raises:
            RaceError: there are fewer than two, or they sent no statement, or one has no end.
            Exception: what a request has raised. A group if several have raised.
        """
        if running_loop() is None:
            return self._in_threads(requests)
        return self._in_tasks(requests)

    async def _in_tasks(self, coroutines: Sequence[Any]) -> list[Any]:
        try:
            self._check(coroutines, inspect.iscoroutine, "coroutines: race(client.post(…), …)")
        except RaceError:
            for each in coroutines:
                getattr(each, "close", bool)()
            raise
        await acommit(self._run)
        order = self._begin(coroutines)
        answers: dict[int, Any] = {}
        tasks = []

        async def answer(racer: Racer, coroutine: Any) -> None:
            RACER.set(racer)
            await asyncio.wrap_future(racer.begin)
            try:
                answers[racer.number] = await coroutine
            except BaseException as error:  # noqa: BLE001 - raised when all have ended
                answers[racer.number] = _Raised(error)
            finally:
                order.end(racer)

        try:
            for racer, coroutine in zip(order.racers, coroutines, strict=True):
                tasks.append(asyncio.create_task(answer(racer, coroutine)))
            order.start()
            await asyncio.wrap_future(order.finished)
        finally:
            self._finish(order)
            if len(answers) < len(tasks):
                for task in tasks:
                    task.cancel()
            await asyncio.wait(tasks, timeout=_PATIENCE)
        return self._ended(order, answers)

    def _in_threads(self, functions: Sequence[Any]) -> list[Any]:
        self._check(functions, callable, "functions: race(lambda: test_client.post(…), …)")
        commit(self._run)
        order = self._begin(functions)
        answers: dict[int, Any] = {}

        def answer(racer: Racer, function: Any) -> None:
            RACER.set(racer)
            racer.begin.result()
            try:
                answers[racer.number] = function()
            except BaseException as error:  # noqa: BLE001 - raised when all have ended
                answers[racer.number] = _Raised(error)
            finally:
                order.end(racer)

        threads = []
        for racer, function in zip(order.racers, functions, strict=True):
            # A function of the user among the arguments would make this a thread of the app.
            work = _Work(copy_context().run, answer, racer, function)
            threads.append(threading.Thread(target=work, daemon=True))
            threads[-1].start()
        try:
            order.start()
            order.finished.result()
        finally:
            self._finish(order)
        for thread in threads:
            thread.join(_PATIENCE)  # no code can end a thread
        return self._ended(order, answers)

    def _check(self, requests: Sequence[Any], is_right: Callable[[Any], bool], wanted: str) -> None:
        """Refuse what cannot be a race."""
        if self.order is not None:
            raise _error("race(…) was called twice in one pass", "call it once in the loop's body")
        if len(requests) < 2:  # noqa: PLR2004 - alone, there is no other order
            raise _error(f"race(…) with {len(requests)} requests", "pass two or more requests")
        if not all(map(is_right, requests)) or len(requests) > len(DIGITS):
            raise _error("race(…) cannot run these arguments", f"pass {wanted}")
        for database, isolation in self._run.databases.provisioned().items():
            if isolation.name not in _ISOLATIONS:
                raise _error(
                    f"races need many levels, and {database.name} has arena_isolation = "
                    f"{isolation.name}",
                    '@pytest.mark.arena(isolation="undo")   or arena_isolation = auto',
                )

    def _begin(self, requests: Sequence[Any]) -> Pass:
        kinds: list[int] = []
        for request in requests:
            kinds.append(next(n for n, other in enumerate(requests) if _is_same(request, other)))
        names = [getattr(each, "__qualname__", type(each).__name__) for each in requests]
        order = Pass(self._plan, names, kinds)
        self.order = order
        self.line = user_line() or "the call of race(…)"
        registry = self._run.connections
        if registry.race is not None:
            raise _error("a race inside of a race", "end the first race before the second")
        registry.race = order
        return order

    def _finish(self, order: Pass) -> None:
        order.finish()
        self._run.connections.race = None

    def _ended(self, order: Pass, answers: dict[int, Any]) -> list[Any]:
        """Check what the pass has shown. Return the answers, or raise the errors."""
        if order.failure is not None:
            raise order.failure
        if len(answers) < len(order.racers):
            names = [racer.name for racer in order.racers if racer.number not in answers]
            raise _error(
                f"{', '.join(names)} did not end: for ten seconds it has sent no statement",
                "leave a stream out of the race, or a wait for what comes after the race",
            )
        if order.strangers:
            raise _error(
                f"{', '.join(order.strangers)} ran during a race, and belongs to none of its "
                "requests",
                "send it before the race. In a race use client or test_client, and no socket",
            )
        if not order.trace:
            raise _error(
                "no request of this race has sent a statement",
                "a race orders statements of SQLAlchemy. It does not see what Redis, a file or "
                "the memory of the app has",
            )
        if self._wanted and order.order != self._wanted:
            raise _error(
                f'order="{self._wanted}" does not fit: '
                f"{order.difference or f'the order was {order.order}'}",
                "run all orders: arena.races(). The code may have changed since the report",
            )
        values = [answers[number] for number in range(len(answers))]
        self.result = (_outcomes(order, values), self._rows())
        raised = [each.error for each in values if isinstance(each, _Raised)]
        if len(raised) > 1:
            raise BaseExceptionGroup("several requests of the race have raised", raised)
        if raised:
            raise raised[0]
        return values

    def _rows(self) -> str:
        """Return the numbers of changed rows, "" if they cannot be read."""
        texts = []
        with suppress(Exception):
            for isolation in self._run.databases.provisioned().values():
                texts.append(Changes.of(isolation.rows_changed(limit=_MOST_ROWS)).counted())
        return "; ".join(texts)

    @property
    def title(self) -> str:
        """The title of its report."""
        return (
            f"arena: the order in which this failed (pass {self._number} of at most {self._limit})"
        )

    def lines(self) -> list[str]:
        """Return a line for each step, and how to run this order alone."""
        order = self.order
        if order is None or not order.trace:
            return []
        width = max(len(racer.name) for racer in order.racers)
        lines = []
        for number, steps in groupby(order.trace, lambda step: step.racer.number):
            name = order.racers[number].name
            for step in steps:
                text = step.text if len(step.text) <= _WIDEST else f"{step.text[:_WIDEST]}…"
                where = step.line.short if step.line is not None else ""
                waited = "  (it waited for a lock)" if step.has_waited else ""
                lines.append(
                    f"{DIGITS[number]}  {name:<{width}}  {text:<{_WIDEST + 1}}  {where}{waited}"
                )
                name = ""
        return [*lines, f'next: this order alone: arena.races(order="{order.order}")']


_PATIENCE = 1.0
_MOST_ROWS = 1000
_WIDEST = 60


class _Raised:
    """The error of a request, in place of its answer."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Work:
    """A call for a thread. Its arguments are none of the thread's."""

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __call__(self) -> None:
        function, *arguments = self._call
        function(*arguments)


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two requests are the same: one function, or calls with equal arguments."""
    if not inspect.iscoroutine(one):
        return bool(one is other)
    if one is other or one.cr_code is not other.cr_code:
        return one is other
    with suppress(Exception):  # the app decides how its objects are compared
        return bool(inspect.getcoroutinelocals(one) == inspect.getcoroutinelocals(other))
    return False


def _outcomes(order: Pass, values: Sequence[Any]) -> tuple[str, ...]:
    """Return a word for each result, such as a status. Equal requests are sorted."""
    words = []
    for racer, value in zip(order.racers, values, strict=True):
        word = str(getattr(value, "status_code", "returned"))
        if isinstance(value, _Raised):
            word = type(value.error).__name__
        words.append((racer.kind, word))
    return tuple(word for _, word in sorted(words))


def _error(what: str, fix: str, why: str = "") -> RaceError:
    return RaceError(
        what,
        why=why or "the orders of the requests would prove nothing",
        cause=str(user_line() or "arena.races()"),
        fix=fix,
    )


class Races:
    """The passes of a race: iterate over it by ``for``, or by ``async for`` in an async test."""

    __module__ = "pytest_arena"

    def __init__(self, run: Any, switches: int, limit: int, order: str) -> None:
        self.run = run
        self.test: RunningTest = run.current.running()
        self.limit = 1 if order else limit
        if not set(order) <= set(DIGITS) or switches < 0 or limit < 1:
            raise _error(
                f"arena.races(switches={switches}, limit={limit}, order={order!r})",
                "order has a digit for each step, as the report of a failed test shows it",
            )
        self.order = order
        self._explorer = Explorer(switches, order)
        self._race: Race | None = None
        self._passes = 0
        self._differences: list[str] = []
        self._serial: set[Result] = set()
        # The first pass with each result.
        self._found: dict[Result, Race] = {}

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Race:
        """Undo the last pass, and begin the next one."""
        if running_loop() is not None:
            raise _error("`for` over arena.races() in an async test", "async for race in …")
        level = self._level_to_leave()
        if level is None:
            commit(self.run)
        else:
            level.close()
        race = self._next_pass()
        if race is None:
            raise StopIteration
        return race

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Race:
        """Undo the last pass, and begin the next one."""
        level = self._level_to_leave()
        if level is None:
            await acommit(self.run)
        else:
            await level.aclose()
        race = self._next_pass()
        if race is None:
            raise StopAsyncIteration
        return race

    def _level_to_leave(self) -> NestedLevel | None:
        """Note what the last pass has found, and return its level. None before the first pass."""
        race = self._race
        if race is None:
            race = self.test.race  # of a loop that was left by `break`
            if race is not None and race.races() is not None:
                raise _error("a race inside of a race", "end the first loop before the second")
            return race.level if race is not None else None
        if race.order is None:
            raise _error("the loop's body has not called race(…)", "call it once in each pass")
        self._note(race, race.order)
        return race.level

    def _next_pass(self) -> Race | None:
        planned = self._explorer.next()
        if planned is None or self._passes >= self.limit:
            self._race = None
            self.test.race = None
            self._conclude(planned)
            return None
        self._passes += 1
        self.run.ledger.race_passes += 1
        plan, _ = planned
        race = Race(self, self._passes, plan)
        self._race = race
        self.test.race = race
        return race

    def _note(self, race: Race, order: Pass) -> None:
        if not order.difference:
            self._explorer.add(order)
            self._found.setdefault(race.result, race)
            if order.is_serial:
                self._serial.add(race.result)
            return
        self._differences.append(order.difference)
        if len(self._differences) == 1:
            # The first pass has filled a cache of the app, for example.
            self._explorer.restart()
            self._found.clear()
            self._serial.clear()

    def _conclude(self, planned: tuple[Plan, int] | None) -> None:
        """Report what the passes have shown together."""
        ledger = self.run.ledger
        if len(self._differences) * 3 > self._passes:
            raise _error(
                f"{len(self._differences)} of {self._passes} orders could not be repeated: "
                f"{self._differences[-1]}",
                "let the requests send the same statements each time: no chance, no time, no "
                "cache in memory that a pass fills",
            )
        if self._differences:
            ledger.note(f"{{test}}: an order could not be repeated: {self._differences[0]}")
        if planned is not None and not self.order:
            ledger.note(
                f"{{test}}: arena.races() ended at its limit of {self.limit} orders, and there are "
                f"more. next: arena.races(limit={self.limit * 10})"
            )
        if planned is None or planned[1]:  # all serial orders were tried
            self._warn()

    def _warn(self) -> None:
        """Warn of the first result that no serial order has."""
        for result, race in self._found.items():
            order = race.order
            is_known = result in self._serial or _declines_more(result, self._serial)
            if order is None or is_known or not self._serial:
                continue
            names = " and ".join(racer.name for racer in order.racers)
            serial = " or ".join(sorted(map(_shown, self._serial)))
            self.run.ledger.warn(
                RaceWarning,
                f"{names} at once: {_shown(result)}. One after the other: {serial}",
                cause=race.line,
                fix=f'arena.races(order="{order.order}")   runs this order alone',
            )
            return


def _shown(result: Result) -> str:
    outcomes, rows = result
    return f"{' and '.join(outcomes)}, {rows}"


def _declines_more(result: Result, serial: set[Result]) -> bool:
    """Return whether the app declines more requests (4xx) than one after the other."""

    def declined(result: Result) -> int:
        statuses = [int(word) for word in result[0] if word.isdigit()]
        return sum(REFUSAL <= status < FAILURE for status in statuses)

    return declined(result) > max(map(declined, serial), default=0)
