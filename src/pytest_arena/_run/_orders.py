"""Runs requests at once, in one order of their steps.

A step is a statement, a commit or a rollback. Before each step a request waits for its turn. One
request runs at a time, from one step to the next. A pass also notes the orders that differ from its
own in one choice (Musuvathi and Qadeer, "Iterative context bounding", 2007).
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from pytest_arena._origin import REQUEST, user_line
from pytest_arena._process import has_other_work, running_loop, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._gate._registry import PooledConnection
    from pytest_arena._ledger import Request
    from pytest_arena._values import CodeLine

__tracebackhide__ = True  # tracebacks end at the user's line

# Seconds between two looks at the requests that run.
_LOOK = 0.005
# A request that has reached no step after so many looks waits for a timer, a lock of the app or
# another service. Only looks count at which no other thread of the process has work: on a loaded
# machine, time alone does not show who waits.
_PATIENCE = 30
_PATIENCE_AFTER = 5  # once it has waited, after each step of another request
# Seconds without a step, after which a request has no end.
_ENDLESS = 10.0
# The numbers of requests in an order.
DIGITS = "123456789abcdefghijklmnopqrstuvwxyz"

# The first picks of a pass: a request, and its step, or "" for any step.
Picks = tuple[tuple[int, str], ...]


@dataclass(slots=True, eq=False)
class RaceStep:
    """A statement, a commit or a rollback, before which a request waits."""

    racer: Racer
    text: str
    line: CodeLine | None
    handle: Any  # of its connection
    turn: Future[None] = field(default_factory=Future)
    has_waited: bool = False  # whether it has waited for a lock

    @property
    def key(self) -> tuple[int, str]:
        """The step, as a plan names it."""
        return self.racer.number, self.text


@dataclass(slots=True, eq=False)
class Racer:
    """One request of a race, or a coroutine or a function of the app."""

    number: int
    name: str
    kind: int  # the number of the first racer that does the same
    begin: Future[None] = field(default_factory=Future)  # done when it may begin
    waiting: RaceStep | None = None  # the step before which it waits
    last: RaceStep | None = None
    # Whether it runs, and has not reached the next step.
    is_out: bool = False
    is_in_statement: bool = False
    # Whether it waits for a lock of the database, or for something else.
    is_blocked: bool = False
    looks: int = 0
    is_done: bool = False
    answer: Any = None
    error: BaseException | None = None

    def look(self) -> None:
        """Find out whether it waits. Only the database knows who waits for a lock."""
        if not self.is_in_statement:
            self.looks += not has_other_work()
            self.is_blocked = self.looks > _PATIENCE
        elif self.last is not None and self.last.handle is not None:
            self.is_blocked = self.last.handle.is_waiting()
            self.last.has_waited |= self.is_blocked


RACER: ContextVar[Racer | None] = ContextVar("arena: a request of a race", default=None)


class Schedule:
    """One run of the requests, in one order. Thread-safe."""

    def __init__(self, plan: Picks, racers: list[Racer]) -> None:
        self.plan = plan
        self.racers = racers
        self.trace: list[RaceStep] = []
        # Each other order, and its number of switches away from a request that could go on.
        self.alternatives: list[tuple[int, Picks]] = []
        self.difference = ""  # from the plan
        self.strangers: list[str] = []  # requests that belong to no racer
        self.finished: Future[None] = Future()
        self._switches = 0
        self._moved = seconds()
        self._changed = threading.Condition(threading.RLock())

    @property
    def order(self) -> str:
        """The request of each step, as ``arena.races(order=…)`` takes it."""
        return "".join(DIGITS[step.racer.number] for step in self.trace)

    # Called by the gate.

    def _racer_here(self) -> Racer | None:
        request = REQUEST.get()
        racer = RACER.get()
        is_free = racer is None or racer.is_done or (request is not None and request.is_login)
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
            racer.is_in_statement = is_busy
            racer.looks = 0

    def before_step(self, text: str, pooled: PooledConnection | None) -> None:
        """Wait for the turn of this step, in a greenlet or a thread.

        Sync code that blocks an event loop cannot wait, and a second task of a request does not.
        """
        racer = self._racer_here()
        is_async = in_greenlet()
        if racer is None or racer.waiting or not (is_async or running_loop() is None):
            return
        handle = pooled.handle if pooled is not None else None
        step = RaceStep(racer, " ".join(text.split()), user_line(), handle)
        with self._changed:
            racer.is_out = False
            racer.is_blocked = False
            racer.waiting = step
            self._advance()
        try:
            if is_async and not step.turn.done():
                await_only(asyncio.wrap_future(step.turn))
            step.turn.result()
        except BaseException:  # the request was cancelled
            racer.waiting = None
            racer.is_out = True
            raise

    # Called by the runner.

    def start(self) -> None:
        """Let the racers begin, one after the other, each up to its first step."""
        threading.Thread(target=self._watch, name="pytest-arena-race", daemon=True).start()
        with self._changed:
            self._advance()

    @contextmanager
    def answering(self, racer: Racer) -> Iterator[None]:
        """Keep the error of a racer, and note its end."""
        try:
            yield
        except BaseException as error:  # noqa: BLE001 - raised when all racers have ended
            racer.error = error
        with self._changed:
            racer.is_done = True
            racer.is_out = False
            self._advance()
        if all(each.is_done for each in self.racers):
            self.finish()

    def finish(self) -> None:
        """Hold no racer any more."""
        with self._changed:
            _release(self.finished)
            for racer in self.racers:
                racer.is_done = True
                _release(racer.begin)
                if racer.waiting is not None:
                    _release(racer.waiting.turn)
            self._changed.notify()

    def _watch(self) -> None:
        """Look at the racers that run, until the end."""
        with self._changed:
            try:
                while not self.finished.done() and seconds() - self._moved < _ENDLESS:
                    self._changed.wait(_LOOK)
                    for racer in self.racers:
                        if racer.is_out:
                            racer.look()
                    self._advance(is_watched=True)
            finally:  # also if the server does not answer
                _release(self.finished)

    # The scheduler.

    def _advance(self, *, is_watched: bool = False) -> None:
        """Let the next racer go on, if none runs."""
        if any(racer.is_out and not racer.is_blocked for racer in self.racers):
            return
        for racer in self.racers:
            if not racer.begin.done():
                self._let_go(racer, racer.begin)
                return
        has_blocked = any(racer.is_out for racer in self.racers)
        if has_blocked and not is_watched:
            self._changed.notify()  # the last step may have freed a lock
            return
        steps = [racer.waiting for racer in self.racers if racer.waiting and not racer.is_done]
        free = [step for step in steps if not self._would_wait(step)]
        if not free and not has_blocked:
            # Each waits for another one: a deadlock, which SQLite reports for a statement at once.
            free = sorted(steps, key=lambda step: step.text == "COMMIT")
        if free:
            self._choose(free)

    def _would_wait(self, step: RaceStep) -> bool:
        """Return whether a step would wait for a lock of another racer. Only SQLite shows it."""
        handles = [racer.last.handle for racer in self.racers if racer.last is not None]
        return step.handle is not None and step.handle.would_wait(step.text, handles)

    def _choose(self, steps: list[RaceStep]) -> None:
        last = self.trace[-1].racer if self.trace else None
        going_on = [step for step in steps if step.racer is last]
        [picked, *_] = going_on or steps
        number = len(self.trace)
        if number < len(self.plan):
            wanted, text = self.plan[number]
            planned = [step for step in steps if step.key == (wanted, text or step.text)]
            [picked, *_] = planned or [picked]
            if not (planned or self.difference):
                self.difference = f"step {number + 1}: {picked.text}, and before: {text}"
        else:
            prefix = tuple(step.key for step in self.trace)
            for step in steps:
                if step is not picked and self._is_first(step.racer):
                    plan = (*prefix, step.key)
                    self.alternatives.append((self._switches + len(going_on), plan))
        self._switches += picked not in (going_on or [picked])
        self.trace.append(picked)
        racer = picked.racer
        racer.last = picked
        racer.waiting = None
        racer.is_in_statement = picked.text not in {"COMMIT", "ROLLBACK"}
        self._let_go(racer, picked.turn)

    def _is_first(self, racer: Racer) -> bool:
        """Return whether no equal racer with a lower number has still to begin."""
        equal = [each for each in self.racers if each.kind == racer.kind and not each.last]
        return racer not in equal[1:]

    def _let_go(self, racer: Racer, turn: Future[None]) -> None:
        self._moved = seconds()
        for each in self.racers:
            if each.is_blocked and not each.is_in_statement:  # it may wait for what this step frees
                each.is_blocked = False
                each.looks = _PATIENCE - _PATIENCE_AFTER
        racer.is_out = True
        racer.looks = 0
        _release(turn)


def _release(turn: Future[None]) -> None:
    with suppress(InvalidStateError):  # it is done, or was cancelled
        turn.set_result(None)
