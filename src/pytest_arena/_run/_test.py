"""Which test runs now, and what belongs to it?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pytest_arena._databases._sessions import Sessions
from pytest_arena.errors import ArenaInternalError, ConnectionLeak

if TYPE_CHECKING:
    from pytest_arena._app import AppRun, Door
    from pytest_arena._databases._resolver import Databases
    from pytest_arena._ledger import Ledger, Request
    from pytest_arena._run._leaks import Overrides, Tasks
    from pytest_arena._run._story import Story
    from pytest_arena._values import Plan

__all__ = ["ClientOptions", "Current", "NullHooks", "RunningTest", "Watcher"]

ClientOptions = Callable[[], Mapping[str, Any]]


class Watcher(Protocol):
    """Wants to know what tests do, and may have one run again. Made only where scenarios are."""

    @property
    def door(self) -> Door:
        """Who stands before the app."""

    @property
    def is_rehearsing(self) -> bool:
        """Whether the test that runs is run again: nobody is told of it."""

    def uses_app(self, app: object) -> None:
        """Clients are about to talk to this app."""

    def asserted(self, place: str, text: str) -> None:
        """An assertion has passed."""

    def remember(self) -> Callable[[], object]:
        """Return what ends an example, and has the next one begin where the first did."""

    def settled(self, errors: list[Exception]) -> list[Exception]:
        """The test is over. Returns those of its errors of which somebody is to be told."""

    def close(self) -> None:
        """The run is over: everything is as it was before."""


class NullHooks:
    """Requests of a client in a wide fixture: nothing is pending, and no test has made them."""

    def __init__(self, door: Door | None) -> None:
        self.door = door

    async def abefore(self) -> None:
        """Before a request of an async client."""

    def before(self) -> None:
        """Before a request of a sync client."""

    def requested(self, request: Request) -> None:
        """After a request."""

    def ended(self) -> None:
        """After a request and its redirects."""

    def broke(self, request: str, error: Exception) -> None:
        """The app has raised instead of answering."""


@dataclass(slots=True, eq=False)
class RunningTest:
    """What belongs to one test while it runs."""

    plan: Plan
    serial: int
    tasks: Tasks
    story: Story
    ledger: Ledger
    door: Door | None = None
    client_options: ClientOptions = dict  # asks for the fixture of that name
    overrides: list[Overrides] = field(default_factory=list)
    sessions: Sessions = field(default_factory=Sessions)
    broken: list[tuple[str, Exception]] = field(default_factory=list)  # what the app has raised
    app_runs: list[AppRun] = field(default_factory=list)  # the last one is what clients talk to
    changed: list[str] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    failed: bool = False
    settled: bool = False

    @property
    def uses_our_fixtures(self) -> bool:
        """Whether it has an app that clients talk to, or sessions."""
        return bool(self.app_runs) or self.sessions.is_used

    def untold(self) -> list[Exception]:
        """Return what went wrong besides; that a failed test has left its session is no news."""
        return [
            error
            for error in self.errors
            if not (self.failed and isinstance(error, ConnectionLeak))
        ]

    async def abefore(self) -> None:
        """Before a request of an async client."""
        self.tasks.see()
        if self.sessions.is_used:
            await self.sessions.acommit()
        self.story.begin()

    def before(self) -> None:
        """Before a request of a sync client."""
        if self.sessions.is_used:
            self.sessions.commit()
        self.story.begin()

    def requested(self, request: Request) -> None:
        """After a request."""
        self.ledger.requests.append(request)
        self.story.told(request)

    def ended(self) -> None:
        """After a request and its redirects."""
        self.story.end()

    def broke(self, request: str, error: Exception) -> None:
        """The app has raised instead of answering."""
        self.broken.append((request, error))


class Current:
    """The test that runs, if one does, and whether it is its turn."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self.test: RunningTest | None = None
        self.in_teardown = False  # its fixtures, and maybe wider ones, are being finished

    def running(self) -> RunningTest:
        """Return the test, where there must be one: pytest sets fixtures up in a test."""
        if self.test is None:
            raise ArenaInternalError(
                "no test runs",
                why="what was asked for belongs to a test",
                cause="a fixture was set up outside of any test",
                fix="please report it, with the traceback",
            )
        return self.test

    def on_top(self) -> RunningTest | None:
        """Return the test if its level is on top, or its example's, and no wide fixture's."""
        levels = self._databases.levels
        return self.test if levels and levels[-1].serial > 0 else None

    def owner(self) -> object:
        """Return whose level is on top."""
        levels = self._databases.levels
        return levels[-1].owner if levels else None
