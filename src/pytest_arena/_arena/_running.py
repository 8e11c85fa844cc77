"""What belongs to one test while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_arena._session import Sessions

if TYPE_CHECKING:
    from pytest_arena._app import AppRun, Request
    from pytest_arena._leaks import Overrides
    from pytest_arena._values import Plan

__all__ = ["RunningTest", "Unheard"]


class Unheard:
    """Requests of a client in a wide fixture: nothing is pending, and no test has made them."""

    async def before(self) -> None:
        """Before a request of an async client."""

    def before_sync(self) -> None:
        """Before a request of a sync client."""

    def requested(self, record: Request) -> None:
        """After a request."""


@dataclass(slots=True, eq=False)
class RunningTest:
    """What belongs to one test while it runs."""

    plan: Plan
    serial: int
    overrides: list[Overrides] = field(default_factory=list)
    sessions: Sessions = field(default_factory=Sessions)
    requests: list[Request] = field(default_factory=list)
    app_runs: list[AppRun] = field(default_factory=list)  # the last one is what clients talk to
    changed: list[str] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    failed: bool = False
    settled: bool = False

    async def before(self) -> None:
        """Before a request of an async client."""
        await self.sessions.commit()

    def before_sync(self) -> None:
        """Before a request of a sync client."""
        self.sessions.commit_sync()

    def requested(self, record: Request) -> None:
        """After a request."""
        self.requests.append(record)
