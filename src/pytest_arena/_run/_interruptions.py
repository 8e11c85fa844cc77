"""The loop of ``arena.interruptions()``: a request loses its connection at each of its steps."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any
from weakref import ref

from sqlalchemy.exc import OperationalError

from pytest_arena._ledger import REFUSAL
from pytest_arena._origin import REQUEST, user_line
from pytest_arena._process import run_in_new_loop, running_loop
from pytest_arena._product import nothing
from pytest_arena._run._nested import Fresh
from pytest_arena._run._races import WIDEST, Passes, error_of, refuse_isolation

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from pytest_arena._gate._registry import PooledConnection
    from pytest_arena._values import CodeLine

_LOOP = "arena.interruptions()"


class Interruption:
    """Lets the connection of one step be lost: of a statement or of a commit.

    It takes the place of a `Schedule`. An error that only SQLAlchemy's event raised would leave the
    transaction open. So a server ends the session, and the driver itself fails. On SQLite the
    transaction is rolled back, and each step fails until the app rolls back.
    """

    def __init__(self, number: int = 0) -> None:
        self.number = number  # of the step that fails, from 1. 0 for none
        self.steps: list[tuple[str, CodeLine | None]] = []
        self._lost: set[PooledConnection] = set()

    # No other request runs, and none waits.
    note_request = set_busy = staticmethod(nothing)

    def before_step(self, text: str, pooled: PooledConnection | None) -> None:
        """Count a step. Let it fail if it is the one, or if its connection is lost."""
        request = REQUEST.get()
        is_over = request is not None and (request.is_login or request.is_answered)
        if pooled is None or pooled.handle is None or is_over:
            return
        if text == "ROLLBACK":
            self._lost.discard(pooled)
            return
        self.steps.append((" ".join(text.split()), user_line()))
        if len(self.steps) == self.number:
            self._lost.add(pooled)
            pooled.handle.roll_back()
        is_file = pooled.target is not None and pooled.target.address is None
        if is_file and pooled in self._lost:
            raise OperationalError(text, None, sqlite3.OperationalError("disk I/O error"))

    def line(self, steps: int) -> str:
        """Return the step that failed, of so many."""
        if not 0 < self.number <= len(self.steps):
            return "no step failed"
        text, line = self.steps[self.number - 1]
        where = f", {line.short}" if line else ""
        return f"{text[:WIDEST]} ({self.number} of {steps}{where})"


class Attempt:
    """One pass: sends the request, whose connection is lost at one step."""

    __module__ = "pytest_arena"
    title = "arena: the step that lost its connection"
    has_failed = False

    def __init__(self, passes: Interruptions, number: int) -> None:
        self._run = passes.run
        self._test = passes.test
        self._steps = passes.steps
        self.passes = ref(passes)
        self.level = Fresh(passes.run, f"a pass of {_LOOP}")
        self.schedule = Interruption(number)

    def __call__(self, request: Any) -> Any:
        """Send the request. Return its answer, or the exception that the app has raised.

        Args:
            request: in an async test a coroutine, and in a sync test a function.
        """
        refuse_isolation(_LOOP, self._run)
        if running_loop() is not None:
            return self._answer(request)
        return run_in_new_loop(self._answer(asyncio.to_thread(request)))

    async def _answer(self, request: Awaitable[Any]) -> Any:
        self._run.connections.schedule = self.schedule
        try:
            answer = await request
        except Exception as error:  # noqa: BLE001 - the test decides
            answer = error
        finally:
            self._run.connections.schedule = None
        await self._test.asettle()
        status = getattr(answer, "status_code", 0)
        self.has_failed = isinstance(answer, Exception) or status >= REFUSAL
        return answer

    @property
    def name(self) -> str:
        """The step that failed."""
        return self.schedule.line(self._steps)

    def lines(self) -> list[str]:
        """Return the step that failed, for the report of a failed test."""
        return [self.name]


class Interruptions(Passes):
    """The passes of a request: a whole one, then one for each step, which fails there."""

    __module__ = "pytest_arena"
    loop = _LOOP

    def __init__(self, run: Any) -> None:
        super().__init__(run)
        self.steps = 0  # of the whole request

    def _following(self) -> Attempt | None:
        if self.passes > self.steps:
            return None
        self.passes += 1
        return Attempt(self, self.passes - 1)

    def _note(self, attempt: Attempt) -> None:
        steps = len(attempt.schedule.steps)
        if not steps:
            raise error_of(
                _LOOP,
                "no request of the loop's body has sent a statement by SQLAlchemy",
                "await attempt(client.post(…))   once in each pass, in a sync test attempt(lambda: "
                "…) without `await`",
                self.test.requests_of_level,
            )
        if not self.steps and attempt.has_failed:
            raise error_of(
                _LOOP,
                "the request of the first pass, which nothing interrupts, has failed",
                "write what it needs before the loop, and log in: client_as(role)",
                self.test.requests_of_level,
            )
        self.steps = max(self.steps, steps)
