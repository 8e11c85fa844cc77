"""How does what a wider fixture wrote live exactly as long as the fixture?"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pytest_arena._databases._state import Level
from pytest_arena._run._test import RunningTest
from pytest_arena._values import Stage
from pytest_arena.errors import ArenaError, IsolationError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from pytest_arena._ledger import Ledger
    from pytest_arena._run._apps import Apps
    from pytest_arena._run._leaks import Tasks
    from pytest_arena._run._levels import Levels
    from pytest_arena._run._test import Current

__all__ = ["WideFixture", "WideLevels"]


class Conductor(Protocol):
    """What is asked of whoever conducts the run."""

    ledger: Ledger
    current: Current
    levels: Levels
    apps: Apps
    tasks: Tasks

    def settle_level(self) -> None:
        """Leave the running test's level."""


@dataclass(frozen=True, slots=True, eq=False)
class WideFixture:
    """A fixture that outlives the test, as the owner of a level.

    ``finish`` has pytest finish it, and all that depends on it; it is set up again at its next use.
    """

    name: str
    finish: Callable[[], object]


class WideLevels:
    """The levels of fixtures that outlive the test, below the test's and its examples'."""

    def __init__(self, run: Conductor) -> None:
        self._run = run
        self._being_set_up: list[WideFixture] = []
        self._asked_for_by: dict[WideFixture, WideFixture] = {}
        self._waiting: list[WideFixture] = []  # until those that asked for them are finished

    @contextmanager
    def fixture(self, owner: WideFixture) -> Iterator[None]:
        """Around the set-up of a fixture that outlives the test: its own level.

        A level in which nothing was written is dropped at once; one whose set-up failed is left
        at once.
        """
        levels, level = self._run.levels, Level(owner, owner.name)
        with self._below_the_test(), self._run.tasks.of_a_wide_fixture(), self._set_up(owner):
            levels.enter(level)
            try:
                yield
            except BaseException:
                self.leave(owner)
                raise
            levels.drop_if_clean(level)

    @contextmanager
    def _set_up(self, owner: WideFixture) -> Iterator[None]:
        """Know who asks by ``getfixturevalue`` for a fixture: pytest does not finish it first."""
        if self._being_set_up:
            self._asked_for_by[owner] = self._being_set_up[-1]
        self._being_set_up.append(owner)
        try:
            yield
        finally:
            self._being_set_up.pop()

    @contextmanager
    def _below_the_test(self) -> Iterator[None]:
        """Slip a wide fixture's level below the test's, where the test has not written yet.

        A fixture that is first asked for by ``getfixturevalue`` comes late. On top of a level in
        which the test has written it can only live as long as the test.
        """
        test, levels = self._run.current.test, self._run.levels
        if test is None or test.plan.stage is not Stage.SEEDED:
            yield
            return
        untouched = not any(overrides.changed() for overrides in test.overrides)
        slipped = levels.drop_clean_ones_of_the_test()
        try:
            yield
        finally:
            for level in reversed(slipped):
                levels.enter(level)
            if untouched and any(level.owner is test for level in slipped):
                test.overrides = [overrides.anew() for overrides in test.overrides]

    def ending(self, owner: WideFixture) -> None:
        """Before a wide fixture's own tear-down: what lies above its level goes first."""
        if self._run.current.in_teardown:
            self._run.settle_level()
        level = self._run.levels.find(owner)
        if level is None:
            try:
                self._run.levels.enter(Level(owner, owner.name))  # its tear-down may write
            except ArenaError as error:
                # Raised here it would leave pytest's fixture half torn down, for all other tests.
                self._run.ledger.note(error.what)
        else:
            asked_for = [one for one, asker in self._asked_for_by.items() if asker is owner]
            self.finish_above(level, but=[*asked_for, *self._waiting])

    def leave(self, owner: object) -> None:
        """After a wide fixture's tear-down: its data goes. Harmless if it has no level."""
        for fixture in [one for one, asker in self._asked_for_by.items() if asker is owner]:
            del self._asked_for_by[fixture]
        level = self._run.levels.find(owner)
        if level is None:
            return
        levels = self._run.levels
        try:
            self.finish_above(level)
            self._run.apps.close_of(owner)
        finally:
            for broken_off in levels.above(level):  # by Ctrl-C, while they were finished
                levels.leave(broken_off)
            levels.leave(level)

    @contextmanager
    def another_process(self, name: str) -> Iterator[None]:
        """Around a test that runs in a fork: what that leaves in our files when it dies, goes."""
        levels, level = self._run.levels, Level(object(), name)
        levels.enter(level)
        try:
            yield
        finally:
            if levels.find(level.owner) is not None:  # a fixture below it may have ended
                self.leave_unfinished(level)

    def finish_above(self, level: Level, *, but: Collection[object] = ()) -> None:
        """Finish the fixtures whose levels lie above; they are set up again at their next use."""
        levels = self._run.levels
        for upper in levels.above(level):
            if levels.find(upper.owner) is not upper or upper.owner in but:
                continue  # gone with another one, or needed by one that is not
            match upper.owner:
                case RunningTest() as test:
                    self._end_in_the_middle(test)
                case WideFixture() as fixture:
                    self._finish(fixture)
                case _:  # an example, a fork
                    self.leave_unfinished(upper)

    def _finish(self, fixture: WideFixture) -> None:
        """Finish a fixture, after the one whose set-up asked for it and still stands on it."""
        asker = self._asked_for_by.pop(fixture, None)
        if asker is not None:
            self._waiting.append(fixture)
            self._finish(asker)
            self._waiting.remove(fixture)
        fixture.finish()
        self.leave(fixture)

    def leave_unfinished(self, level: Level) -> None:
        """Leave a level of which pytest knows nothing; the changes count as the test's."""
        self.finish_above(level)
        changed, test = self._run.levels.leave(level), self._run.current.test
        if test is not None:
            test.changed = list(dict.fromkeys([*test.changed, *changed]))

    def _end_in_the_middle(self, test: RunningTest) -> None:
        """A fixture below a test ends before it: Ctrl-C, or somebody has finished it by hand."""
        self._run.settle_level()
        if (level := self._run.levels.find(test)) is not None:  # of one that was broken off at it
            self._run.levels.leave(level)
        test.errors.append(
            IsolationError(
                f"{test.plan.name}: a wider fixture that stood below it ended while it ran",
                why="what the test has written stands on the fixture's data, and went with it",
                cause="Ctrl-C, or code that finishes fixtures by hand",
                fix="ask for the fixture in the test's arguments",
            )
        )
