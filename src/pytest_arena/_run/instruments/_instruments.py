"""Who notes what a test does, from its first fixture to the end of its call?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pytest_arena._app import Door, Reached, Request, is_by_itself, is_logging_in, request_now
from pytest_arena._clock import seconds as now
from pytest_arena._gate import Doings, Gate, watch_statements
from pytest_arena._run.instruments._blocks import Scenario
from pytest_arena._run.instruments._log import Log, Window
from pytest_arena._run.instruments._rows import Rows
from pytest_arena._run.instruments._under_test import UnderTest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pytest_arena._databases._resolver import Databases
    from pytest_arena._databases._state import Level
    from pytest_arena._ledger import Ledger
    from pytest_arena._run._apps import Apps
    from pytest_arena._run._story import Moments
    from pytest_arena._run._test import Current, RunningTest
    from pytest_arena.scenarios.evidence import Facts
    from pytest_arena.scenarios.specs import Scenario as SpecScenario
    from pytest_arena.scenarios.specs import Specification

    _Row = tuple[tuple[str, str], ...]

__all__ = ["Instruments"]


class Conductor(Protocol):
    """What is asked of whoever conducts the run."""

    databases: Databases
    current: Current
    apps: Apps
    gate: Gate
    ledger: Ledger


class Instruments:
    """Notes the facts of tests that prove a scenario. Never fails a test.

    Where no specification is read nothing is installed, and nothing costs anything.
    """

    def __init__(self, run: Conductor, moments: Moments) -> None:
        self._run, self._moments = run, moments
        self._rows = Rows(moments, run.gate)
        self._door = Door(self)
        self._under_test = UnderTest(run.apps, self._door)
        self._off: dict[str, str] = {}
        self.specification: Specification | None = None  # where any was read
        self._log: Log | None = None
        self._facts: Facts | None = None
        self._literals: tuple[str, ...] = ()
        self._wanted_by: dict[object, tuple[str, ...]] = {}
        self.wants_bodies = False  # whether what was sent may hold one of the literals
        self._doings: dict[Level, Doings] = {}  # of the levels that stand
        self._end_watching: Callable[[], None] | None = None

    # What the plugin calls.

    def off(self, name: str, why: str) -> None:
        """An instrument does not work in this run: what it would tell is unknown, and not no."""
        self._off[name] = why

    def off_now(self, name: str, why: str) -> None:
        """An instrument does not work for the test that runs."""
        if self._log is not None:
            self._log.off[name] = why

    def expect(self) -> None:
        """Tests of scenarios are to come: see what makes an app, and what wider fixtures do.

        Their first user may be a test that proves nothing.
        """
        self._start()
        self._under_test.watch()

    def begin_test(
        self,
        scenarios: tuple[SpecScenario, ...],
        fixture_names: frozenset[str],
        *,
        rows: frozenset[_Row] = frozenset(),
    ) -> None:
        """In set-up: from here on note what the test does, which is to prove these.

        Of an Outline it may prove some of the rows alone.
        """
        self._start()
        self._doings = {level: one for level, one in self._standing() if level in self._doings}
        self._log, self._facts = Log(scenarios, fixture_names), None
        self._literals = self._wanted(scenarios, rows)
        self.wants_bodies = bool(self._literals)
        self._under_test.watch()

    def _wanted(
        self, scenarios: tuple[SpecScenario, ...], rows: frozenset[_Row]
    ) -> tuple[str, ...]:
        key = (tuple((one.key, one.rev) for one in scenarios), rows)
        if key not in self._wanted_by:
            from pytest_arena._run.instruments import _literals  # noqa: PLC0415 - as below

            self._wanted_by[key] = _literals.wanted(scenarios, rows)
        return self._wanted_by[key]

    def _start(self) -> None:
        if self._end_watching is None:
            self._end_watching = watch_statements(self._doings_now)
        self._door.open()

    def begin_call(self) -> None:
        """Fixtures are set up: what is asserted from here on counts."""
        if self._log is not None:
            self._log.in_call = True

    def uses(self, fixture_names: Iterable[str]) -> None:
        """The test has asked for these as well, while it ran."""
        if self._log is not None:
            self._log.fixture_names |= frozenset(fixture_names)

    def end_call(self) -> None:
        """The test's function is over, its level still stands: read what can be read only now."""
        log = self._log
        if log is not None:
            log.in_call = False
            self._facts = self._told(log)
            log.let_go()

    def take(self) -> Facts | None:
        """Return the facts of the test, once; None where its call was never reached."""
        facts, self._facts, self._log = self._facts, None, None
        return facts

    def close(self) -> None:
        """The run is over: everything is as it was before."""
        self._log = None
        self._under_test.close()
        self._door.close()
        if self._end_watching is not None:
            self._end_watching()
            self._end_watching = None

    # Examples of Hypothesis: each is a whole test, and the best of them tells.

    def remember(self) -> Callable[[], None]:
        """Return what ends an example, and has the next one begin where the first did."""
        log = self._log
        if log is None:
            return _nothing
        requests, ended, blocks = len(log.requests), log.ended, len(log.blocks)

        def restore() -> None:
            self._facts = self._told(log)
            del log.requests[requests:], log.blocks[blocks:]
            log.ended, log.heard, log.assertions = ended, {}, 0

        return restore

    def _told(self, log: Log) -> Facts:
        from pytest_arena._run.instruments import _told  # noqa: PLC0415 - reads specifications

        if log.is_ambiguous:
            log.requests.clear()
        if not log.requests and (doubt := self._under_test.doubt(log)):
            log.off.setdefault("requested", doubt)
        off = log.off | self._off
        telling = _told.Telling(log, self._rows, dict(self._standing()), self._literals, off)
        try:
            return _told.better(telling.facts(), self._facts)
        except Exception as error:  # noqa: BLE001 - a test never fails by who watches it
            return _told.unknown(error)

    # What a test tells.

    @property
    def has_asserted(self) -> bool:
        """Whether an assertion that could fail has been heard since the last request."""
        return self._log is not None and self._log.has_asserted

    def asserted(
        self, place: str, text: str, values: Sequence[object] = (), *, is_idle: bool = False
    ) -> None:
        """An assertion has passed. What a login function asserts is not the test's.

        Values are those of its parts, and of what stands around it. An idle one could not have
        failed, whatever its text looks like.
        """
        log = self._log
        if log is not None and log.in_call and not is_logging_in():
            log.passed(place, text, values if self._literals else (), is_idle=is_idle)

    def scenario(self) -> Scenario:
        """Return what the fixture ``scenario`` is."""
        return Scenario(lambda: self._log, self._written_by_test, self.specification)

    def _written_by_test(self) -> int:
        """Rows that the test's side has written, or has pending, and clients that log in."""
        test = self._run.current.test
        if test is None:
            return 0
        rows = sum(one.executed for level, one in self._standing() if level.is_test)
        logins = sum(app_run.logged_in for app_run in test.app_runs)
        return rows + logins + test.sessions.pending()

    # What statements tell.

    def _doings_now(self) -> Doings | None:
        request = request_now()
        if request is not None and request.details is not None:
            doings: Doings = request.details.doings
            return doings
        levels = self._run.databases.levels
        if not levels or self._run.databases.is_building():
            return None  # of a template, which the test may have to wait for
        if levels[-1].is_test and self._log is None:
            return None  # of a test that proves no scenario
        own = self._doings_of(levels[-1])
        return own.of_the_app() if is_by_itself() else own

    def _standing(self) -> list[tuple[Level, Doings]]:
        return [(level, self._doings_of(level)) for level in self._moments.levels()]

    def _doings_of(self, level: Level) -> Doings:
        found = self._doings.get(level)
        if found is None:
            found = self._doings[level] = Doings()
        return found

    # What requests tell.

    def is_under_test(self, app: object) -> bool:
        """Whether it is the app that clients of the running test talk to, or is like it."""
        if self._log is None:
            return False
        test = self._run.current.on_top()  # what a wider fixture asks is no request of the test's
        return test is not None and self._under_test.is_asked(app, test, self._log)

    def begins(self, request: Reached) -> None:
        """A request is about to be answered."""
        test, log = self._run.current.test, self._log
        request.details = Window()
        try:
            self._note(request, test, log)
        except Exception as error:  # noqa: BLE001 - a request never fails by who watches it
            self.off_now("requested", f"a request could not be noted: {error!r}")
        if test is not None and test.breaking is not None:
            test.breaking.begins(request)

    def _note(self, request: Reached, test: RunningTest | None, log: Log | None) -> None:
        window: Window = request.details
        if log is not None and request.is_login:
            log.logins.append(request)
        elif test is not None and log is not None:
            request.number, request.is_preparation = len(log.requests), log.is_preparing
            self._begin_at_once(log, window)
            last = log.requests[-1].details if log.requests else None
            log.requests.append(request)
            self._begin_story(test, window)
            window.begin(test.story.turns[-1], last, self._moments.now)
            standing = [one for _, one in self._standing()]
            window.marks = {one: len(one.written) for one in standing}
            window.doings.see_pending(standing)

    def _begin_at_once(self, log: Log, window: Window) -> None:
        others = [one for one in log.requests if not one.is_over]
        window.is_at_once = bool(others)
        for one in others:
            one.details.is_at_once = True

    def _begin_story(self, test: RunningTest, window: Window) -> None:
        if not test.story.is_under_way:  # no client of the test's own: theirs, or a wide fixture's
            window.is_told, window.began = True, now()
            test.story.begin()

    def sending(self, request: Reached, send: Any) -> Any:
        """Return what the app is to send its answer by."""
        test = self._run.current.test
        breaking = test.breaking if test is not None else None
        return breaking.sending(request, send) if breaking is not None else send

    def answers(self, request: Reached) -> None:
        """What is asserted from here on comes after it, also while a websocket is open."""
        if self._log is not None and request.number >= 0 and not request.details.is_counted:
            request.details.is_counted = True
            self._log.ended += 1

    def ends(self, request: Reached) -> None:
        """A request is over, with all that the app does after its answer."""
        test, window = self._run.current.test, request.details
        if test is not None and test.breaking is not None:
            test.breaking.ends(request)
        self.answers(request)
        if test is not None and window.is_told:
            test.story.told(_record(request, seconds=now() - window.began))
            test.story.end()


def _nothing() -> None:
    pass


def _record(request: Reached, *, seconds: float) -> Request:
    return Request(
        method=request.method,
        path=request.path,
        status=request.status,
        error=None,
        seconds=seconds,
        role=None,
    )
