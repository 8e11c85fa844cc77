"""A level inside of a test: the block of ``arena.fresh()``, and each pass of a race."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from pytest_arena._databases._provision import Level
from pytest_arena._owner import Owner
from pytest_arena._process import running_loop
from pytest_arena._run._expect import Block, acommit, commit

if TYPE_CHECKING:
    from pytest_arena._run._test import RunningTest

__tracebackhide__ = True  # a traceback of the app or of a test ends at the user's line


class _Part(Owner):
    """A part of a test, whose rows are undone at its end."""

    is_test = True


class NestedLevel:
    """A level on top of the test's. It begins with no requests and with the present rows."""

    def __init__(self, run: Any, name: str) -> None:
        self._run = run
        self._test: RunningTest = run.current.running()
        self._level = Level(_Part(f"{self._test.name} ({name})", self._test.advice))
        run.levels.enter(self._level)
        self._app_state = run.apps.state()
        self._instances = self._test.sessions.instances()
        self._requests = run.ledger.requests
        run.ledger.requests = []

    def close(self) -> None:
        """Commit ``db_session``, wait for late work, and leave the level."""
        commit(self._run)
        self._test.note_cancelled(self._test.wait_for_work())
        self._leave()
        self._test.sessions.return_to(self._instances)

    async def aclose(self) -> None:
        """Close in the loop of an async test."""
        await acommit(self._run)
        await self._test.asettle()
        self._leave()
        self._test.sessions.return_to(self._instances)

    def abandon(self) -> None:
        """Leave the level after an error, without a commit. In a loop use ``aabandon``."""
        if running_loop() is None:
            self._test.sessions.close()
        self._leave()

    async def aabandon(self) -> None:
        """Leave the level after an error, in the loop of an async test."""
        await self._test.sessions.aclose()
        self._leave()

    def _leave(self) -> None:
        self._run.ledger.requests = self._requests
        self._app_state.restore()
        self._run.levels.leave_nested(self._level)


@dataclass(slots=True, eq=False)
class Fresh(Block):
    """A ``with`` or ``async with`` block whose rows are undone at its end."""

    _level: NestedLevel = field(init=False)

    def __enter__(self) -> Self:
        self.is_entered = True
        commit(self.run)
        self._level = NestedLevel(self.run, "a block of arena.fresh()")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._level.close()
        else:
            self._level.abandon()

    async def __aenter__(self) -> Self:
        self.is_entered = True
        await acommit(self.run)
        self._level = NestedLevel(self.run, "a block of arena.fresh()")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            await self._level.aclose()
        else:
            await self._level.aabandon()
