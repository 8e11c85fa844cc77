"""What is broken under a test that is run again, to see whether it notices?"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Literal

from pytest_arena._databases._state import Level
from pytest_arena._loop import running_loop
from pytest_arena.errors import IsolationError
from pytest_arena.scenarios._altered import emptied, failed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from pytest_arena._ledger import Request
    from pytest_arena._run import ArenaRun, RunningTest
    from pytest_arena.scenarios._altered import Send

__all__ = ["KINDS", "Breaking", "SabotageKind"]

SabotageKind = Literal["seed", "commit", "empty", "500"]


_NONE = -2  # no request has this number; a login's has -1


class Breaking:
    """One thing that is broken around one request of a test, known by its number.

    This one breaks nothing, to compare others with.

    Databases are brought back by levels, whatever becomes of the test. Nothing is raised into the
    test: what fails here is found in ``errors``, with all else that arena itself has to say of
    this run.
    """

    def __init__(self, run: ArenaRun, *, number: int = _NONE, seconds: float) -> None:
        self._run, self._number, self.seconds = run, number, seconds
        self.is_reached = False  # the request that is meant was made
        self.is_applied = False
        self.is_timed_out = False
        self.is_late_since: int | None = None
        """The request that was under way already: what was to be done needs a quiet moment."""
        self.errors: list[Exception] = []
        self._lock = threading.Lock()  # sync clients may be called in several threads
        self._under_way = 0
        self._first = 0  # of those that are under way
        self._test: RunningTest | None = None
        self._serial = 0

    # The test, from its beginning to its end.

    def open(self, test: RunningTest) -> None:
        """The test begins."""
        self._test, self._serial = test, next(self._run.serials)

    async def limited(self, call: Coroutine[Any, Any, None]) -> None:
        """Await the test's coroutine, which may wait for ever for what was broken."""
        __tracebackhide__ = True
        if running_loop() is None:  # another library's: it has a way of its own
            await call
            return
        try:
            async with asyncio.timeout(self.seconds) as limit:
                await call
        finally:
            self.is_timed_out |= limit.expired()

    # Each request that reaches the app, told by whoever watches it.

    def begins(self, request: Request) -> None:
        """A request is about to be answered; what was pending is committed."""
        if request.is_login:
            return
        with self._lock:
            self._first = self._first if self._under_way else request.number
            self._under_way += 1
            if request.number == self._number:
                self.is_reached = True
                self._quietly(self._begin_if_free)

    def sending(self, request: Request, send: Send) -> Send:
        """Return what the app is to send its answer by."""
        is_meant = not request.is_login and request.number == self._number
        return self._altered(send) if is_meant else send

    def ends(self, request: Request) -> None:
        """A request is over, with all that the app does after its answer."""
        if request.is_login:
            return
        with self._lock:
            self._under_way -= 1
            if not self._under_way:
                self._quietly(self._end)

    def _quietly(self, do: Callable[[], object]) -> None:
        try:
            do()
        except Exception as error:  # noqa: BLE001 - the app would answer with a 500, for our reason
            self.errors.append(error)

    def _begin_if_free(self) -> None:
        try:
            self._begin()
        except IsolationError as error:
            line = error.cause.partition("\n")[0]
            raise IsolationError(
                f"an open transaction stood in the way of what was to be broken ({line})",
                why=error.why,
                cause=error.cause,
                fix="commit, or roll back, before the request",
            ) from error

    def _enter(self, serial: int, *, is_anew: bool = False) -> Level:
        """Enter a level above the test's.

        Raises:
            IsolationError: an open transaction is in the way.
        """
        [test] = filter(None, [self._test])
        name = f"{test.plan.name}, sabotaged"
        level = Level(self, name, serial, test.plan.stage, is_anew=is_anew)
        self._run.levels.enter(level)
        return level

    def _begin(self) -> None:
        """Before the request that is meant."""

    def _altered(self, send: Send) -> Send:
        return send

    def _end(self) -> None:
        """When no request is under way any more."""

    def _applied(self) -> None:
        self.is_applied = True


class _Seedless(Breaking):
    """Before the request all databases become what their templates are.

    What the test and the wide fixtures that it uses have written is gone; what they hold in memory
    is not. What wide fixtures have written is back when the test's own level is left, above which
    this one lies. Without such fixtures there is no need of it: the test's level is emptied.
    """

    def _begin(self) -> None:
        [test] = filter(None, [self._test])
        if self._under_way > 1:
            self.is_late_since = self._first
            return
        levels = self._run.levels
        level = levels.find(test)
        if level is not None and levels.is_alone(level):
            levels.begin_anew(level)
        else:
            self._enter(test.serial, is_anew=True)
        # Whoever looked before this would take it for what the test has done.
        test.story.begin_anew()
        self._run.observer.begin_anew()
        self._applied()


class _Commitless(Breaking):
    """What the app has committed is taken back when the request is over; its answer stays.

    With those that were under way together with it: nobody can tell them apart.
    """

    _level: Level | None = None

    def _begin(self) -> None:
        if self._under_way > 1:
            self.is_late_since = self._first
        else:
            self._level = self._enter(self._serial)

    def _end(self) -> None:
        level, self._level = self._level, None
        if level is not None:
            self.is_applied = bool(self._run.levels.leave(level))


class _Empty(Breaking):
    """The answer comes without its body; the app's work stays."""

    def _altered(self, send: Send) -> Send:
        return emptied(send, self._applied)


class _Failed(Breaking):
    """The answer comes as a plain 500; the app's work stays."""

    def _altered(self, send: Send) -> Send:
        return failed(send, self._applied)


KINDS: dict[SabotageKind, type[Breaking]] = {
    "seed": _Seedless,
    "commit": _Commitless,
    "empty": _Empty,
    "500": _Failed,
}
