"""Runs requests at once, in one order of their steps.

A step is a statement, a commit or a rollback. Before each step a request waits for a permit. One
request runs at a time, from one step to the next. A pass also notes the orders that differ from its
own in one choice (Musuvathi and Qadeer, "Iterative context bounding", 2007).
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from pytest_arena._origin import REQUEST, user_line
from pytest_arena._process import has_other_work, running_loop, seconds

if TYPE_CHECKING:
    from pytest_arena._gate._registry import PooledConnection
    from pytest_arena._ledger import Request
    from pytest_arena._values import CodeLine

# Seconds between two looks at the requests that run.
_LOOK = 0.005
# A request that has reached no step after so many looks waits for a timer, a lock of the app or
# another service. Only looks count at which no other thread of the process has work: on a loaded
# machine, time alone does not show who waits.
_LOOKS = 30
_LOOKS_AFTER = 5  # once it has waited, after each step of another request
# Seconds without a step, after which a request has no end.
_ENDLESS = 10.0
# The names of the requests in an order.
DIGITS = "123456789abcdefghijklmnopqrstuvwxyz"

# The first steps of a pass, each as `RaceStep.key`, or only the digit of its request.
Picks = tuple[str, ...]


@dataclass(slots=True, eq=False)
class RaceStep:
    """A statement, a commit or a rollback, before which a request waits."""

    racer: Racer
    text: str
    line: CodeLine | None
    handle: Any  # of its connection
    note: str = ""  # that it has waited for a lock

    @property
    def key(self) -> str:
        """The digit of its request, and the whole statement."""
        return f"{self.racer.digit} {self.text};"


@dataclass(slots=True, eq=False)
class Racer:
    """One request of a race, or a coroutine or a function of the app."""

    digit: str
    name: str
    kind: int  # equal for racers that do the same
    permit: Future[None] = field(default_factory=Future)  # done while it runs
    step: RaceStep | None = None  # the last one that it has reached
    is_busy: bool = False  # whether a statement runs, or a connection is opened
    looks: int = 0  # at a wait for it. After _LOOKS it is blocked
    is_done: bool = False

    def look(self) -> None:
        """Find out whether it waits. Only the database knows who waits for a lock."""
        if not self.is_busy:
            self.looks += not has_other_work()
        elif self.step is not None and self.step.handle.is_waiting():
            self.looks = _LOOKS
            self.step.note = "  (it waited for a lock)"
        else:
            self.looks = 0


RACER: ContextVar[Racer | None] = ContextVar("arena: a request of a race", default=None)


class Schedule:
    """One run of the requests, in one order. Thread-safe."""

    def __init__(self, plan: Picks) -> None:
        self.plan = plan
        self._wanted = iter(plan)
        self.racers: list[Racer] = []
        self.trace: list[RaceStep] = []
        # Each other order, and its number of switches away from a request that could go on.
        self.alternatives: list[tuple[int, Picks]] = []
        # Whether a request went on while another one waited, but not for the database.
        self.has_others_waiting = False
        self.strangers: list[str] = []  # requests that belong to no racer
        self._switches = 0
        self._moved = 0.0  # when a racer was let go
        # Set when a racer has reached a step or has ended. Then the look at the others is old.
        self._has_news = threading.Event()

    @property
    def order(self) -> str:
        """The request of each step, as ``arena.races(order=…)`` takes it."""
        return "".join(step.racer.digit for step in self.trace)

    # Called by the gate.

    def _racer_here(self) -> Racer | None:
        racer = RACER.get()
        is_free = racer is None or racer.is_done or getattr(REQUEST.get(), "is_login", False)
        return None if is_free else racer

    def note_request(self, request: Request) -> None:
        """Note the racer of a request that begins."""
        racer = RACER.get()
        if racer is None:
            self.strangers.append(request.shown)
        elif not request.is_login:
            racer.name = request.shown

    def set_busy(self, *, is_busy: bool) -> None:
        """Note that a connection is opened, which takes its time, or that a statement has ended."""
        racer = self._racer_here()
        if racer is not None:
            racer.is_busy = is_busy
            racer.looks = 0

    def before_step(self, text: str, pooled: PooledConnection | None) -> None:
        """Wait for a permit for this step, in a greenlet or a thread.

        Sync code that blocks an event loop cannot wait, and a second task of a request does not.
        """
        racer = self._racer_here()
        handle = getattr(pooled, "handle", None)
        is_async = in_greenlet()
        can_wait = is_async or running_loop() is None
        if racer is None or handle is None or not (can_wait and racer.permit.done()):
            return
        racer.step = RaceStep(racer, " ".join(text.split()), user_line(), handle)
        permit: Future[None] = Future()
        racer.permit = permit
        self._has_news.set()
        if is_async:
            await_only(asyncio.wrap_future(permit))  # it is cancelled with the request
        permit.result()

    # Called by the runner.

    async def run(self) -> None:
        """Let the racers go on, one at a time, until all have ended or one has no end.

        First each begins, and runs up to its first step.
        """
        loop = asyncio.get_running_loop()
        self._moved = seconds()
        self._has_news.set()
        with ThreadPoolExecutor(1) as pool:  # a test may freeze the clock of the loop
            while seconds() - self._moved < _ENDLESS:
                await loop.run_in_executor(pool, self._look)
                racers = [racer for racer in self.racers if not racer.is_done]
                if not racers:
                    return
                is_any_running = any(
                    racer.looks < _LOOKS for racer in racers if racer.permit.done()
                )
                if not (is_any_running or self._has_news.is_set()):
                    self._advance(racers)

    def end(self, racer: Racer) -> None:
        """Note the end of a racer. It may go on after it."""
        racer.is_done = True
        with suppress(InvalidStateError):  # it has its permit, or was cancelled
            racer.permit.set_result(None)
        self._has_news.set()

    def _look(self) -> None:
        """Look at the racers that run, as soon as there is news, which may free those that wait."""
        is_news = self._has_news.wait(_LOOK)
        self._has_news.clear()
        for racer in self.racers:
            if is_news:
                racer.looks = min(racer.looks, _LOOKS - _LOOKS_AFTER)
            if racer.permit.done() and not racer.is_done:
                racer.look()

    def _advance(self, racers: list[Racer]) -> None:
        """Let the next racer go on. No other one runs, but some may be blocked."""
        waiting = [racer for racer in racers if not racer.permit.done()]
        self.has_others_waiting |= any(
            racer.permit.done() and not racer.is_busy for racer in racers
        )
        steps = []
        for racer in waiting:
            if racer.step is None:
                self._let_go(racer)
                return
            steps.append(racer.step)
        sent = [(step.handle, step.text) for step in self.trace]
        free = [step for step in steps if not step.handle.would_wait(step.text, sent)]
        if waiting == racers:
            # If each waits for another one, SQLite reports the deadlock for a statement at once.
            free = free or sorted(steps, key=lambda step: step.text == "COMMIT")
        if free:
            self._choose(free)

    def _choose(self, steps: list[RaceStep]) -> None:
        """Choose the planned step, else one of the request that has run last, if it can go on."""
        begun = [step.racer for step in self.trace]
        going_on = [step for step in steps if [step.racer] == begun[-1:]]
        candidates = going_on + steps
        wanted = next(self._wanted, "")
        [picked, *_] = [step for step in candidates if step.key.startswith(wanted)] or candidates
        if not wanted:
            # Of equal requests that have not begun, only the first one is an alternative.
            firsts: dict[object, RaceStep] = {}
            for step in candidates:
                racer = step.racer
                firsts.setdefault(racer if racer in begun else racer.kind, step)
            before = [step.key for step in self.trace]
            for step in firsts.values():
                if step is not picked:
                    self.alternatives.append((self._switches + len(going_on), (*before, step.key)))
        self._switches += picked not in (going_on or [picked])
        self.trace.append(picked)
        picked.racer.is_busy = picked.text not in {"COMMIT", "ROLLBACK"}
        self._let_go(picked.racer)

    def _let_go(self, racer: Racer) -> None:
        self._moved = seconds()
        racer.looks = 0
        with suppress(InvalidStateError):  # it was cancelled
            racer.permit.set_result(None)
