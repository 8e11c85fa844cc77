"""The loop of ``arena.races()``, and what its passes have found."""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Self
from weakref import ref

from pytest_arena._changes import Changes, Column, Outcome, compared
from pytest_arena._origin import shown_line, user_line
from pytest_arena._process import run_in_new_loop, running_loop
from pytest_arena._run._expect import acommit
from pytest_arena._run._nested import Fresh
from pytest_arena._run._orders import DIGITS, RACER, Picks, Racer, Schedule
from pytest_arena._run._story import with_answer
from pytest_arena.errors import RaceError
from pytest_arena.warnings import RaceWarning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_arena._ledger import Request
    from pytest_arena._run._test import RunningTest
    from pytest_arena._values import CodeLine

_PATIENCE = 1.0  # seconds, for the end of requests that were cancelled
WIDEST = 60
_MOST_ROWS = 1000
MOST_SHOWN = 3  # rows in words
_LOOP = "arena.races()"
FIX = "check and write in one statement, or lock the row first"
# Isolations in which no request is sent again and again.
REFUSED = {
    "clone": "copies the whole database for each replay",
    "rollback": "has one connection for all requests",
}


def error_of(loop: str, what: str, fix: str, requests: Sequence[Request] = ()) -> RaceError:
    """Return the error of a loop that would prove nothing, with the answers to these requests."""
    return RaceError(
        f"{what}: {', '.join(map(with_answer, requests))}".removesuffix(": "),
        why="the passes of the loop would prove nothing",
        cause=shown_line(loop),
        fix=fix,
    )


_error = partial(error_of, _LOOP)


def refused_isolations(run: Any) -> list[str]:
    """Return the used isolations of `REFUSED`."""
    return sorted({each.name for each in run.databases.provisioned.values()} & REFUSED.keys())


def refuse_isolation(loop: str, run: Any) -> None:
    """Refuse an isolation in which no other connection could interfere, or each is copied."""
    refused = refused_isolations(run)
    if refused:
        raise error_of(
            loop,
            f"{loop} with the isolation {' and '.join(refused)}",
            "arena_isolation = auto   or @pytest.mark.arena(isolation=…)",
        )


def outcome_of(run: Any) -> Outcome:
    """Read the rows that have changed since the level on top began."""
    isolations = run.databases.provisioned.values()
    return Outcome(tuple(Changes.of(each.rows_changed(limit=_MOST_ROWS)) for each in isolations))


def _is_refusal(word: str) -> bool:
    """Return whether an app declines. By 503 it asks the client to try again."""
    return word.startswith(("4", "503"))


@dataclass(frozen=True, slots=True)
class Ending:
    """How a pass has ended: the answers, and the changed rows."""

    words: tuple[str, ...]  # the statuses, or the names of errors
    outcome: Outcome
    order: str  # the digits of its steps
    is_serial: bool
    lines: list[str]
    line: CodeLine | str  # of the call in the test
    raised: str  # by the app, in the first request that has failed

    def __str__(self) -> str:
        return f"{self.answers}, {self.outcome}"

    @property
    def answers(self) -> str:
        """Words such as ``201 and 409``."""
        return " and ".join(self.words)

    @property
    def declined(self) -> int:
        """The number of refusals."""
        return sum(map(_is_refusal, self.words))

    def meaning(self, chance: set[Column], *, counts_answers: bool) -> object:
        """Return what is equal for two passes with the same result.

        An answer counts as an error, else as a refusal or a success.
        """
        kinds = []
        for word in self.words:
            is_refused = _is_refusal(word)
            if word >= "500" and not is_refused:
                kinds.append(word)
            elif counts_answers:
                kinds.append("refused" if is_refused else "accepted")
        return kinds, self.outcome.content(chance)


class Race:
    """One pass: runs the requests once, in one order of their statements."""

    __module__ = "pytest_arena"

    def __init__(self, races: Races, plan: Picks) -> None:
        self._run = races.run
        self._test = races.test
        self.title = (
            f"arena: the order in which this failed (pass {races.passes} of at most {races.limit})"
        )
        self.passes = ref(races)
        self.level = Fresh(races.run, "a pass of arena.races()")
        self.schedule = Schedule(plan)
        self._wanted = races.order if races.passes == 1 else ""
        self.ending: Ending | None = None

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
        line = user_line() or "race(…)"
        try:
            self._check(requests, is_right)
        except RaceError:
            for request in filter(inspect.iscoroutine, requests):
                request.close()
            raise
        await acommit()
        works = [*requests]
        if callable(works[0]):  # a sync test runs this in a new loop
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(len(works)))
            works = [*map(asyncio.to_thread, requests)]
        # Equal for requests that do the same.
        kinds = [(work.cr_code, {**inspect.getcoroutinelocals(work)}) for work in works]
        for digit, request, kind in zip(DIGITS, requests, kinds, strict=False):
            name = getattr(request, "__qualname__", "a request")
            self.schedule.racers.append(Racer(digit, name, kinds.index(kind)))
        answers = await self._run_at_once(works)
        await self._test.asettle()  # else chance decides whether a pass has the rows of a task
        return self._ended(answers, line)

    def _check(self, requests: Sequence[Any], is_right: Any) -> None:
        """Refuse what cannot be a race."""
        if not (1 < len(requests) <= len(DIGITS) and all(map(is_right, requests))):
            raise _error(
                "race(…) cannot run these arguments",
                "pass two or more coroutines: client.post(…)   or, in a sync test, functions: "
                "lambda: test_client.post(…)",
            )
        refuse_isolation(_LOOP, self._run)
        if self.schedule.racers:
            raise _error("race(…) was called twice in one pass", "call it once in the loop")

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

    def _ended(self, answers: list[Any], line: CodeLine | str) -> list[Any]:
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
                "client_as(role) if the app wants a login. A race shows nothing of Redis, a file "
                "or the app's memory",
                self._test.requests_of_level,
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
        order = schedule.order
        self.ending = Ending(
            # The order of equal requests is equal.
            words=tuple(outcome for _, outcome in sorted(outcomes)),
            outcome=outcome_of(self._run),
            order=order,
            is_serial=sorted(order, key=order.index) == [*order],
            lines=self.lines(),
            line=line,
            raised=next((each.raised for each in self._test.requests_of_level if each.raised), ""),
        )
        try:
            if len(errors) > 1:
                raise BaseExceptionGroup("several requests of the race have failed", errors)
            if errors:
                raise errors[0]
            return answers
        finally:  # a traceback would keep sessions of the app alive
            del answers, answer, errors

    @property
    def name(self) -> str:
        """The call that runs this order."""
        return f'arena.races(order="{self.schedule.order}")'

    def lines(self) -> list[str]:
        """Return a line for each step, and how to run this order alone."""
        lines = []
        width = max((len(racer.name) for racer in self.schedule.racers), default=0)
        for step in self.schedule.trace:
            who = f"{step.racer.digit}  {step.racer.name:<{width}}"
            where = getattr(step.line, "short", "")
            lines.append(f"{who}  {step.text[:WIDEST]:<{WIDEST}}  {where}{step.note}")
        if lines:
            lines.append(f"this order first: {self.name}")
        return lines


class Passes:
    """The passes of a loop: iterate over it by ``for``, or by ``async for`` in an async test."""

    __module__ = "pytest_arena"
    loop = ""
    _note: Any  # a method that notes how a pass has ended
    _following: Any  # a method that returns the next pass, None at the end

    def __init__(self, run: Any) -> None:
        self.run = run
        self.test: RunningTest = run.current.required_test()
        self.passes = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        """Undo the last pass, and begin the next one."""
        if running_loop() is not None:
            raise error_of(
                self.loop, f"`for` over {self.loop} in an async test", "async for … in …"
            )
        try:
            return run_in_new_loop(self.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """Undo the last pass, and begin the next one."""
        last = self.test.race
        if last is not None:
            passes = last.passes()  # None for a loop that was left by `break`
            if passes is self:
                self._note(last)
            elif passes is not None:
                raise error_of(
                    self.loop, "a race inside of a race", "end the first loop before the second"
                )
            await self.aclose()
        following = self._following()
        if following is None:
            self._conclude()
            raise StopAsyncIteration
        await following.level.__aenter__()
        self.test.race = following
        return following

    async def aclose(self) -> None:
        """Undo the pass that runs."""
        last = self.test.race
        self.test.race = None
        if last is not None:
            last.level.name = last.name
            await last.level.__aexit__()

    def _conclude(self) -> None:
        """Report what the passes have shown together."""


class Races(Passes):
    """The passes of a race, each with another order of the statements."""

    __module__ = "pytest_arena"
    loop = _LOOP

    def __init__(self, run: Any, switches: int, limit: int, order: str) -> None:
        super().__init__(run)
        self.limit = limit
        self.order = order
        if limit < 1 or switches < 0:
            raise _error("no order would run", "arena.races(switches=2, limit=100)")
        # In a replay two successes with right rows are right.
        self.is_of_replay = False
        self._switches = 0 if order else switches
        # After a given order, the serial orders show whether only it has its result.
        self._plans: list[tuple[int, Picks]] = [(0, plan) for plan in {tuple(order): 0, (): 0}]
        self.differences: list[str] = []
        self._endings: list[Ending] = []
        # The serial passes to repeat, each of which may have rows that the others have not. None
        # before that second look, which only a finding needs.
        self._again: list[Ending] | None = None
        self._chance: set[Column] = set()  # the columns that differ there

    def _following(self) -> Race | None:
        if self._again is None and (not self._plans or self.passes >= self.limit):
            if len(self.differences) * 3 > self.passes:
                raise _error(
                    f"{len(self.differences)} of {self.passes} orders could not be repeated: "
                    f"{self.differences[-1]}",
                    "let the requests send the same statements in each pass: no chance, no time, "
                    "no cache that a pass fills",
                )
            if self.finding() is None:
                return None
            self._again = [each for each in self._endings if each.is_serial]
        elif self._again == []:
            return None
        self.passes += 1
        plan = self._plans.pop(0)[1] if self._again is None else tuple(self._again[-1].order)
        return Race(self, plan)

    def _note(self, race: Race) -> None:
        schedule = race.schedule
        if race.ending is None:
            raise _error(
                "the loop's body has not called race(…)",
                "await race(…)   once in each pass, in a sync test without `await`",
            )
        if self._again is not None:
            self._chance |= self._again.pop().outcome.differing(race.ending.outcome)
            return
        for step, wanted in zip(schedule.trace, schedule.plan, strict=False):
            if not step.key.startswith(wanted):
                if not self.differences:  # for example, the first pass has filled a cache
                    self._plans = [(0, ())]
                    self._endings.clear()
                self.differences.append(f"{step.key} came in place of {wanted}")
                return
        self._plans += [each for each in schedule.alternatives if each[0] <= self._switches]
        self._plans.sort(key=itemgetter(0))
        self._endings.append(race.ending)

    def finding(self) -> tuple[str, Ending] | None:
        """Return the first ending that no serial order has, in words and as it is.

        None if the app declines more there than in a serial order.
        """
        serial = [each for each in self._endings if each.is_serial]
        if not serial or (self._plans and self._plans[0][0] == 0):
            return None  # not all serial orders were tried
        counts = not self.is_of_replay
        known = [each.meaning(self._chance, counts_answers=counts) for each in serial]
        most = max(each.declined for each in serial)
        for each in self._endings:
            meaning = each.meaning(self._chance, counts_answers=counts)
            if meaning not in known and each.declined <= most:
                return _in_words(each, serial, self._chance), each
        return None

    def accepted_at_once(self) -> str:
        """Return words for an order in which the app accepts more than one after the other.

        If nothing was found, its rows are those of a serial order.
        """
        best = min(self._endings, key=lambda each: (each.declined, not each.is_serial))
        if best.is_serial:
            return ""
        usual = self._endings[0].answers  # the first order is serial
        return (
            f"at once {best.answers}, one after the other {usual}, with the same rows. "
            f"next, if only one may succeed: {FIX}"
        )

    def _conclude(self) -> None:
        """Warn of a result that no serial order has."""
        if self.differences:
            self.run.ledger.note(f"{{test}}: an order could not be repeated: {self.differences[0]}")
        if self._plans:
            self.run.ledger.note(
                f"{{test}}: arena.races() has run {self.limit} orders, and there are more. next: "
                f"arena.races(limit={self.limit * 10})"
            )
        found = self.finding()
        if found is not None:
            words, ending = found
            steps = "\n  ".join(ending.lines)
            self.run.ledger.warn(
                RaceWarning,
                f"requests at once: {words}\n  {steps}",
                cause=ending.line,
                fix=FIX,
            )


def _in_words(ending: Ending, serial: list[Ending], chance: set[Column]) -> str:
    words = str(ending)
    expected = dict.fromkeys(map(str, serial))
    if words not in expected:
        words += f". One after the other: {' or '.join(expected)}"
    outcomes = [each.outcome for each in serial]
    # A lost update has the same numbers of rows.
    rows = ending.outcome.beyond(outcomes, chance)
    missing = outcomes[0].beyond([ending.outcome], chance)
    others = missing if rows else []
    lines = [compared(each, others, chance) for each in (rows or missing)[:MOST_SHOWN]]
    if lines:
        when = "at once" if rows else "one after the other"
        words += f". Only {when}: {', '.join(lines)}"
    if ending.raised and any(word >= "500" for word in ending.words):
        words += f". Error: {ending.raised}"
    return words
