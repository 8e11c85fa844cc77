"""A level inside of a test: the block of ``arena.fresh()``, and each pass of a race."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from pytest_arena._databases._provision import Level
from pytest_arena._origin import user_line
from pytest_arena._owner import Owner
from pytest_arena._process import run_in_new_loop, running_loop
from pytest_arena._run._expect import Block, acommit
from pytest_arena.errors import ConfigError

__tracebackhide__ = True  # a traceback of the app or of a test ends at the user's line


class _PartOfTest(Owner):
    is_test = True


@dataclass(slots=True, eq=False)
class Fresh(Block):
    """A ``with`` or ``async with`` block whose rows are undone at its end.

    It begins with the present rows, and with no request. Its end rolls back what ``db_session``
    has not committed.
    """

    name: str = "arena.fresh()"
    _level: Level = field(init=False)
    # The state of apps, the instances of the sessions, and the requests.
    _before: tuple[Any, Any, Any] = field(init=False)

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
        run_in_new_loop(self.__aexit__())

    async def __aenter__(self) -> Self:
        self.is_entered = True
        await acommit(self.run)
        test = self.run.current.running()
        self._level = Level(_PartOfTest(f"{test.name} ({self.name})", test.advice))
        self.run.levels.enter(self._level)
        ledger = self.run.ledger
        self._before = (self.run.apps.state(), test.sessions.instances(), ledger.requests)
        ledger.requests = []
        return self

    async def __aexit__(self, *_: object) -> None:
        app_state, instances, requests = self._before
        test = self.run.current.running()
        await test.asettle()
        await test.sessions.aclose()
        test.sessions.return_to(instances)
        self.run.ledger.requests = requests
        app_state.restore()
        self.run.levels.leave_nested(self._level)
