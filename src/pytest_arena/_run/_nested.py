"""A level inside of a test: the block of ``arena.fresh()``, and each pass of a race."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pytest_arena._origin import shown_line
from pytest_arena._owner import Owner
from pytest_arena._process import run_in_new_loop, running_loop
from pytest_arena._run._expect import Block, acommit
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from pytest_arena._run._test import RunningTest


class _PartOfTest(Owner):
    is_test = True
    has_app = False


class Fresh(Block):
    """A ``with`` or ``async with`` block: a level on top of the test's.

    It begins with the present rows, and with no request. Its end rolls back what ``db_session`` has
    not committed, and restores the rows.
    """

    def __init__(self, run: Any, name: str = "arena.fresh()") -> None:
        super().__init__(run)
        self.name = name

    def __enter__(self) -> Self:
        self.is_entered = True
        if running_loop() is not None:
            raise ConfigError(
                "`with arena.fresh()` in an async test",
                why="its end cannot await the end of sessions",
                cause=shown_line(),
                fix="async with arena.fresh():",
            )
        return run_in_new_loop(self.__aenter__())

    def __exit__(self, *_: object) -> None:
        run_in_new_loop(self.__aexit__())

    async def __aenter__(self) -> Self:
        self.is_entered = True
        await acommit()
        test: RunningTest = self.run.current.required_test()
        self._test = test
        self._level = _PartOfTest(f"{test.name} ({self.name})", test.advice)
        self._level.has_app = test.has_app
        self.run.levels.enter(self._level)
        self._app_state = self.run.apps.state()
        self._instances = test.sessions.instances()
        self._requests = test.requests_of_level
        test.requests_of_level = []
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wait for late work, close the sessions, and restore the rows."""
        sessions = self._test.sessions
        await self._test.asettle()
        await sessions.aclose()
        sessions.return_to(self._instances)
        for request in self._test.requests_of_level:
            request.part = self.name
        self._test.requests_of_level = self._requests
        self._app_state.restore()
        self._test.take_lost()
        self.run.levels.leave_nested(self._level)
