"""A level inside of a test: the block of ``arena.fresh()``, and each pass of a race."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from pytest_arena._origin import user_line
from pytest_arena._owner import Owner
from pytest_arena._process import run_in_new_loop, running_loop
from pytest_arena._run._expect import Block, acommit
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from pytest_arena._run._test import RunningTest

__tracebackhide__ = True  # a traceback of the app or of a test ends at the user's line


class _PartOfTest(Owner):
    is_test = True


class NestedLevel:
    """A level on top of the test's. It begins with the present rows, and with no request.

    Its end rolls back what ``db_session`` has not committed.
    """

    def __init__(self, run: Any, name: str) -> None:
        self._run = run
        self._test: RunningTest = run.current.required_test()
        self._level = _PartOfTest(f"{self._test.name} ({name})", self._test.advice)
        run.levels.enter(self._level)
        self._app_state = run.apps.state()
        self._instances = self._test.sessions.instances()
        self._requests = run.ledger.requests
        run.ledger.requests = []

    async def leave(self) -> None:
        """Wait for late work, close the sessions, and restore the rows."""
        sessions = self._test.sessions
        await self._test.asettle()
        await sessions.aclose()
        sessions.return_to(self._instances)
        self._run.ledger.requests = self._requests
        self._app_state.restore()
        lost = self._run.gate.lost.by_level
        lost.setdefault(self._test, []).extend(lost.pop(self._level, ()))
        self._run.levels.leave_nested(self._level)


@dataclass(slots=True, eq=False)
class Fresh(Block):
    """A ``with`` or ``async with`` block whose rows are undone at its end."""

    _level: NestedLevel = field(init=False)

    def __enter__(self) -> Self:
        self.is_entered = True
        if running_loop() is not None:
            raise ConfigError(
                "`with arena.fresh()` in an async test",
                why="its end cannot await the end of sessions",
                cause=str(user_line()),
                fix="async with arena.fresh():",
            )
        return run_in_new_loop(self.__aenter__())

    def __exit__(self, *_: object) -> None:
        run_in_new_loop(self._level.leave())

    async def __aenter__(self) -> Self:
        self.is_entered = True
        await acommit()
        self._level = NestedLevel(self.run, "arena.fresh()")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._level.leave()
