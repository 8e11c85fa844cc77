"""Runs requests at once in one order of their steps, and chooses the next order.

A step is a statement, a commit or a rollback. Before each step a request waits for its turn. One
request runs at a time, from one step to the next. Where several could go on, the explorer tries
each choice (Musuvathi and Qadeer, "Iterative context bounding", 2007).
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from pytest_arena._origin import REQUEST, request_here, user_line
from pytest_arena._process import has_other_work, running_loop, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_arena._gate._connections import PooledConnection
    from pytest_arena._ledger import Request
    from pytest_arena._values import CodeLine

__tracebackhide__ = True  # tracebacks end at the user's line

# Seconds between two looks at the requests that run.
_LOOK = 0.005
# A request that has reached no step after so many looks waits for a timer, a lock of the app or
# another service. Only looks count at which no other thread of the process has work: on a loaded
# machine, time alone does not show who waits.
_PATIENCE = 20
_PATIENCE_AFTER = 5  # once it has waited, after each step of another request
_PATIENCE_FOR_COMMIT = 100  # no event shows the end of a commit
# Seconds without any step, after which a request has no end.
_ENDLESS = 10.0


@dataclass(slots=True, eq=False)
class Step:
    """A statement, a commit or a rollback of a request, before which the request waits."""

    racer: Racer
    text: str
    line: CodeLine | None
    pooled: PooledConnection | None
    turn: Future[None] = field(default_factory=Future)
    has_waited: bool = False  # whether it has waited for a lock

    @property
    def would_wait(self) -> bool:
        """Whether it would wait for a lock that another request has. Only SQLite shows it."""
        own = self.pooled.handle if self.pooled is not None else None
        if own is None:
            return False
        others = [each.handle for each in self.racer.others if each.handle is not own]
        return own.would_wait(self.text, others)


@dataclass(slots=True, eq=False)
class Racer:
    """One request of a race, or a coroutine of the app."""

    number: int
    name: str
    kind: int  # the number of the first racer that does the same
    # Its last connection.
    handle: Any = None
    # The steps before which its tasks and threads wait.
    waiting: deque[Step] = field(default_factory=deque)
    steps: list[Step] = field(default_factory=list)
    others: list[Racer] = field(default_factory=list)
    begin: Future[None] = field(default_factory=Future)  # done when it may begin
    is_done: bool = False
    # Whether it runs, and no step of it has come since.
    is_out: bool = False
    is_in_statement: bool = False
    # Whether it waits for a lock of the database, or for something else.
    is_blocked: bool = False
    looks: int = 0

    @property
    def is_running(self) -> bool:
        """Whether it will reach a step without the help of another request."""
        return self.is_out and not self.is_blocked

    def look(self) -> None:
        """Find out whether it waits. Only the database knows who waits for a lock."""
        if self.is_in_statement:
            self.is_blocked = self.handle is not None and self.handle.is_waiting()
            if self.is_blocked:
                self.steps[-1].has_waited = True
            return
        is_commit = bool(self.steps) and self.steps[-1].text in {COMMIT, ROLLBACK}
        self.looks += 0 if has_other_work() else 1
        self.is_blocked = self.looks > (_PATIENCE_FOR_COMMIT if is_commit else _PATIENCE)


RACER: ContextVar[Racer | None] = ContextVar("arena: a request of a race", default=None)


@dataclass(frozen=True, slots=True)
class Choice:
    """A point at which several requests could go on."""

    picked: int
    others: Plan  # the requests to try in its place, with their steps
    last: int | None  # the request that would go on without a switch
    text: str


# The first picks of a pass. With a text, the pick must be before this step.
Plan = tuple[tuple[int, str], ...]


class Pass:
    """One run of the requests, in one order. Thread-safe."""

    def __init__(self, plan: Plan, names: Sequence[str], kinds: Sequence[int]) -> None:
        self.racers = [
            Racer(number, name, kind)
            for number, (name, kind) in enumerate(zip(names, kinds, strict=True))
        ]
        for racer in self.racers:
            racer.others = [each for each in self.racers if each is not racer]
        self.plan = plan
        self.choices: list[Choice] = []
        self.trace: list[Step] = []
        # What differed from the plan, and the requests that belong to no racer.
        self.difference = ""
        self.strangers: list[str] = []
        self.finished: Future[None] = Future()
        self.failure: Exception | None = None  # of a look
        self._last: Racer | None = None
        self._moved = seconds()
        self._changed = threading.Condition(threading.RLock())
        self._of_request: dict[Request, Racer] = {}

    @property
    def order(self) -> str:
        """The request of each step, as ``arena.races(order=…)`` takes it."""
        return "".join(DIGITS[step.racer.number] for step in self.trace)

    @property
    def is_serial(self) -> bool:
        """Whether the requests ran one after the other."""
        turns = [number for number, _ in groupby(self.order)]
        return len(turns) == len({*turns})

    # Called by the gate.

    def _racer_here(self) -> Racer | None:
        request = REQUEST.get()
        racer = RACER.get() or (self._of_request.get(request) if request is not None else None)
        return None if racer is None or racer.is_done or self.finished.done() else racer

    def note_request(self, request: Request) -> None:
        """Note the racer of a request that begins."""
        racer = self._racer_here()
        if racer is None:
            self.strangers.append(request.shown)
            return
        self._of_request[request] = racer
        if not request.is_login:
            racer.name = request.shown

    def note_connect(self) -> None:
        """Note that a racer opens a connection, which takes its time."""
        racer = self._racer_here()
        if racer is not None:
            racer.is_in_statement = True

    def after_statement(self) -> None:
        """Note that a statement has ended."""
        racer = self._racer_here()
        if racer is not None:
            racer.is_in_statement = False
            racer.looks = 0

    def before_step(self, text: str, pooled: PooledConnection | None) -> None:
        """Wait for the turn of this step, in a greenlet or a thread.

        Sync code that blocks an event loop cannot wait, and a login does not.
        """
        racer = self._racer_here()
        request = request_here()
        is_held = in_greenlet() or running_loop() is None
        if racer is None or not is_held or (request is not None and request.is_login):
            return
        self._wait(Step(racer, " ".join(text.split()), user_line(), pooled))

    def _wait(self, step: Step) -> None:
        with self._changed:
            self._add(step)
        if step.turn.done():
            return
        if in_greenlet():
            await_only(asyncio.wrap_future(step.turn))
        else:
            step.turn.result()

    def _add(self, step: Step) -> None:
        racer = step.racer
        if racer.is_done or self.finished.done():
            _release(step.turn)
            return
        racer.waiting.append(step)
        racer.is_out = False
        racer.is_blocked = False
        racer.is_in_statement = False
        if step.pooled is not None:
            racer.handle = step.pooled.handle
        self._advance()

    # Called by the runner.

    def start(self) -> None:
        """Let the racers begin, one after the other, each up to its first step."""
        threading.Thread(target=self.watch, name="pytest-arena-race", daemon=True).start()
        with self._changed:
            self._advance()

    def end(self, racer: Racer) -> None:
        """Note that a racer has ended."""
        with self._changed:
            racer.is_done = True
            racer.is_out = False
            racer.is_blocked = False
            for step in racer.waiting:  # of tasks that outlive it
                _release(step.turn)
            racer.waiting.clear()
            if all(each.is_done for each in self.racers):
                self.finish()
            else:
                self._advance()

    def finish(self) -> None:
        """Hold no racer any more."""
        with self._changed:
            if not self.finished.done():
                self.finished.set_result(None)
            for racer in self.racers:
                for turn in (racer.begin, *(step.turn for step in racer.waiting)):
                    _release(turn)
            self._changed.notify()

    def watch(self) -> None:
        """Look at the racers that run, until the end. Called in a thread."""
        try:
            with self._changed:
                while not self.finished.done() and seconds() - self._moved < _ENDLESS:
                    self._changed.wait(_LOOK)
                    for racer in self.racers:
                        if racer.is_out:
                            racer.look()
                    self._advance(is_watched=True)
        except Exception as error:  # noqa: BLE001 - a server that does not answer: raised by `race`
            self.failure = error
        finally:
            self.finish()

    # The scheduler.

    def _advance(self, *, is_watched: bool = False) -> None:
        """Let the next racer go on, if none runs."""
        self._drop_cancelled()
        if any(racer.is_running for racer in self.racers):
            return
        for racer in self.racers:
            if not racer.begin.done():
                self._let_go(racer, racer.begin)
                return
        if not is_watched and any(racer.is_blocked for racer in self.racers):
            self._changed.notify()  # the last step may have freed a lock
            return
        ready = [racer for racer in self.racers if racer.waiting]
        free = [racer for racer in ready if not racer.waiting[0].would_wait]
        if free:
            self._choose(free)
        elif ready and not any(racer.is_blocked for racer in self.racers):
            # Each waits for another one: a deadlock, which SQLite reports for a statement at once.
            self._choose(sorted(ready, key=lambda racer: racer.waiting[0].text == COMMIT))

    def _drop_cancelled(self) -> None:
        for racer in self.racers:
            while racer.waiting and racer.waiting[0].turn.cancelled():
                racer.waiting.popleft()
                racer.is_out = True

    def _choose(self, ready: list[Racer]) -> None:
        last = self._last if self._last in ready else None
        picked = last or ready[0]
        number = len(self.choices)
        if number < len(self.plan) and not self.difference:
            wanted, text = self.plan[number]
            picked = self._planned(wanted, text, ready) or picked
        others = []
        for racer in ready:
            if racer is not picked and self._is_first(racer):
                others.append((racer.number, racer.waiting[0].text))
        step = picked.waiting[0]
        last_number = last.number if last is not None else None
        self.choices.append(Choice(picked.number, tuple(others), last_number, step.text))
        self.trace.append(step)
        picked.steps.append(step)
        self._last = picked
        picked.is_in_statement = step.text not in {COMMIT, ROLLBACK}
        self._let_go(picked, picked.waiting.popleft().turn)

    def _planned(self, number: int, text: str, ready: list[Racer]) -> Racer | None:
        """Return the racer of the plan, if it is ready, and before the same step."""
        racer = self.racers[number]
        steps = len(self.trace)
        if racer not in ready:
            why = "has ended" if racer.is_done else "waits for a lock, or for something else"
            self.difference = f"after {steps} steps {racer.name} ({DIGITS[number]}) {why}"
            return None
        now = racer.waiting[0].text
        if text and now != text:
            self.difference = f"step {steps + 1} was {text!r}, and is now {now!r}"
        return racer

    def _is_first(self, racer: Racer) -> bool:
        """Return False if an equal racer with a lower number has not begun either."""
        earlier = self.racers[: racer.number]
        if racer.steps:
            return True
        return not any(each.kind == racer.kind and not each.steps for each in earlier)

    def _let_go(self, racer: Racer, turn: Future[None]) -> None:
        self._moved = seconds()
        for each in self.racers:
            if each.is_out and not each.is_in_statement and each.is_blocked:
                # It may wait for what this step frees.
                each.is_blocked = False
                each.looks = _PATIENCE - _PATIENCE_AFTER
        racer.is_out = True
        racer.looks = 0
        _release(turn)


COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"
DIGITS = "123456789abcdefghijklmnopqrstuvwxyz"


def _release(turn: Future[None]) -> None:
    with suppress(InvalidStateError):  # it is done, or was cancelled
        turn.set_result(None)


class Explorer:
    """The orders that are still to try, those with the fewest switches first."""

    def __init__(self, switches: int, order: str) -> None:
        self._is_one = bool(order)
        # By the number of switches.
        self._plans: list[deque[Plan]] = [deque() for _ in range(switches + 1)]
        self._plans[0].append(tuple((DIGITS.index(digit), "") for digit in order))

    def next(self) -> tuple[Plan, int] | None:
        """Return the next plan and its number of switches, None if all orders were tried."""
        for switches, plans in enumerate(self._plans):
            if plans:
                return plans.popleft(), switches
        return None

    def restart(self) -> None:
        """Forget all plans, and begin with the first one."""
        for plans in self._plans:
            plans.clear()
        self._plans[0].append(())

    def add(self, done: Pass) -> None:
        """Add the orders that differ from this one in one choice after its plan."""
        if self._is_one:
            return
        prefix: list[tuple[int, str]] = []
        switches = 0
        for number, choice in enumerate(done.choices):
            if number >= len(done.plan):
                for other in choice.others:
                    cost = switches + (choice.last is not None)
                    if cost < len(self._plans):
                        self._plans[cost].append((*prefix, other))
            switches += choice.last is not None and choice.picked != choice.last
            prefix.append((choice.picked, choice.text))
