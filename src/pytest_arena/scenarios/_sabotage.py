"""Runs passed tests again, with one sabotage each."""

from __future__ import annotations

import functools
import inspect
import signal
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pluggy

from pytest_arena import _process
from pytest_arena._others import replaced_function
from pytest_arena._values import counted
from pytest_arena.errors import ArenaError, LoginError, RefusedError
from pytest_arena.scenarios._sabotaged_run import (
    SabotagedRun,
    sabotage_plan,
    tables_with_policies,
)
from pytest_arena.scenarios._tries import ADDRESS, Tries, failure_of
from pytest_arena.scenarios.assertions._updated_snapshots import updates_snapshots
from pytest_arena.scenarios.evidence._claim import Claim
from pytest_arena.scenarios.evidence._document import (
    Facts,
    Sabotage,
    SabotageKind,
    SabotageResult,
    Status,
)
from pytest_arena.scenarios.specs._reader import relative

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    import pytest

    from pytest_arena.scenarios._mapping import Mapped
    from pytest_arena.scenarios._recorder import EvidenceRecorder

hook = pluggy.HookimplMarker("pytest")

_OUTPUT = "arena_sabotage"  # the key of the values that a worker of pytest-xdist sends

# A fault may make a test wait for ever. The time limit of a test is its first duration multiplied
# by the factor, with the extra seconds added.
_TIME_FACTOR = 10
_EXTRA_SECONDS = 10.0
_GRACE_SECONDS = 2.0  # for a coroutine that was cancelled at the time limit

_ENDLESS = "it waited too long, so pytest-arena ended it"
_NOTHING_BROKEN: dict[SabotageKind, str] = {
    "seed": "pytest-arena had no moment to remove the seed",
    "commit": "the request changed no row",
    "policy": "no request reads a table that has policies",
    "empty": "its last answer has no body, or the body null",
    "500": "its last request has no answer",
}


@dataclass(frozen=True, slots=True)
class _Phase:
    """A phase of a test that was run again."""

    report: Any
    error: BaseException | None
    reason: str
    is_by_evidence: bool
    """Whether an assertion failed that is evidence of the first run."""

    @property
    def is_noticed(self) -> bool:
        """Whether the test failed, other than by an error of pytest-arena.

        In the tear-down only assertions that are evidence count. A fixture may read its row there,
        whatever the test asserts.
        """
        if not self.report.failed:
            return False
        if self.report.when == "teardown":
            return self.is_by_evidence
        # The login function belongs to the suite, so its error counts.
        return isinstance(self.error, LoginError) or not isinstance(
            self.error, ArenaError
        )


class SabotagePasses:
    """The plugin that each process of a run with sabotage registers.

    After all tests it repeats each test that proves a scenario, once for each kind of sabotage.
    pytest does not show these runs. They do not change the cache of failures, JUnit's XML or the
    exit status.

    Cost: a run of the test without sabotage and a run for each kind, with set-ups and tear-downs.
    Wide fixtures are set up once more, because all runs of one test are consecutive.
    """

    def __init__(
        self,
        config: pytest.Config,
        recorder: EvidenceRecorder,
        tries: Tries,
        tests: Mapping[int, Mapped],
    ) -> None:
        self._config = config
        self._recorder = recorder
        self._tries = tries
        self._tests = tests
        self._seconds: dict[str, float] = {}  # of the call of each test
        self._places: set[str] = set()  # of the current test's assertions
        self._with_subtests: set[str] = set()
        self._phases: list[_Phase] = []  # of the current run
        self._tested = 0
        self._runs = 0
        self._took = 0.0
        self._why_not = ""

    # The first run of each test.

    @hook(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[object]
    ) -> Generator[None, Any, object]:
        """Record how long a test takes, or how a repeated test ended."""
        report = yield
        if not self._recorder.is_repeating:
            if call.when == "call":
                self._seconds[item.nodeid] = call.duration
        elif report.when in {"setup", "call", "teardown"}:
            error = call.excinfo.value if call.excinfo else None
            failure = failure_of(
                report,
                call.excinfo,
                item,
                self._recorder.mask,
            )
            self._phases.append(
                _Phase(
                    report,
                    error,
                    failure.get("reason", ""),
                    is_by_evidence=self._is_evidence(call, item),
                )
            )
        return report

    def _is_evidence(self, call: pytest.CallInfo[object], item: pytest.Item) -> bool:
        """Return whether a phase failed in an assertion that is evidence of its test."""
        if call.excinfo is None:
            return False
        for entry in call.excinfo.traceback:
            path = relative(Path(str(entry.path)), item.config.rootpath)
            if f"{path}:{entry.lineno + 1}" in self._places:
                return True
        return False

    @hook
    def pytest_runtest_logreport(self, report: Any) -> None:
        """Record which tests have subtests."""
        if type(report).__name__.lower() == "subtestreport":
            self._with_subtests.add(report.nodeid)

    # The runs with sabotage.

    @hook(wrapper=True)
    def pytest_runtestloop(
        self, session: pytest.Session
    ) -> Generator[None, object, object]:
        """Repeat tests after the last test. A stopped run (-x, Ctrl-C) raises before that."""
        result = yield
        self._why_not = _why_not(session)
        if not self._why_not:
            # Reports without tracebacks are cheap.
            with mock.patch.object(self._config.option, "tbstyle", "no"):
                self._run_all()
        output = getattr(self._config, "workeroutput", None)
        if output is not None:
            output[_OUTPUT] = self._tested, self._runs, self._took
        return result

    def _run_all(self) -> None:
        started = _process.seconds()
        proving = []
        for mapped in self._tests.values():
            attempt = self._tries.last(mapped.item.nodeid)
            if not attempt or attempt.outcome != "passed" or not attempt.facts:
                continue
            if self._may_prove(mapped, attempt.facts):
                proving.append((mapped.item, attempt.facts))
        next_items = [item for item, _ in proving[1:]]
        try:
            for (item, facts), next_item in zip_longest(proving, next_items):
                self._places = {check.place for check in facts.checks}
                sabotages = self._sabotages(item, facts, next_item)
                self._tries.add_sabotages(item.nodeid, sabotages)
        except Exception as error:  # noqa: BLE001 - such as pytest.exit(): earlier results stay
            why = f"ended early: {type(error).__name__}: {error}"
            self._why_not = why.partition("\n")[0]
        # The controller of pytest-xdist has added the figures of its workers before.
        self._took += _process.seconds() - started

    def _may_prove(self, mapped: Mapped, facts: Facts) -> bool:
        """Return whether a test has the evidence for one of its scenarios."""
        scenarios = {scenario.key: scenario for scenario in mapped.scenarios}
        for mapping in mapped.mappings:
            scenario = scenarios[mapping.scenario]
            claim = Claim(scenario, mapping, is_sabotaged=True)
            if all(flag.status is not Status.HOLLOW for flag in claim.missing(facts)):
                return True
        return False

    def _sabotages(
        self,
        item: pytest.Item,
        facts: Facts,
        next_item: pytest.Item | None,
    ) -> tuple[Sabotage, ...]:
        """Run a test once for each kind that applies to it, and then without sabotage."""
        plan = sabotage_plan(
            facts, has_policies=bool(tables_with_policies(self._recorder.run))
        )
        unknown = self._why_unknown(item)
        earlier_runs = self._runs
        results: dict[SabotageKind, tuple[SabotageResult, str]] = {}
        for kind, planned in plan.items():
            if isinstance(planned, str):
                results[kind] = "not applicable", planned
            elif unknown:
                results[kind] = "unknown", unknown
            else:
                results[kind] = self._sabotage(item, kind, planned)
        if self._runs > earlier_runs:
            self._tested += 1
            failure = self._failure_without_sabotage(item, next_item)
            for kind, (result, _) in results.items():
                if failure and result == "noticed":
                    results[kind] = "unknown", failure
        return tuple(
            Sabotage(kind=kind, result=result, why=why)
            for kind, (result, why) in results.items()
        )

    def _why_unknown(self, item: pytest.Item) -> str:
        """Return why a test cannot be run again, or "" if it can."""
        function = getattr(item, "obj", None)
        if getattr(function, "is_hypothesis_test", False):
            return "a test of Hypothesis sends its requests once for each example"
        if item.nodeid in self._with_subtests:
            return "pytest would report its subtests again"
        return ""

    def _failure_without_sabotage(
        self, item: pytest.Item, next_item: pytest.Item | None
    ) -> str:
        """Return why a test fails in a run without sabotage, or "" if it passes.

        The app may keep state in memory. This run is the last, so it begins with the state that
        all earlier runs have left, such as a rate limit that has been reached.
        """
        self._run_again(item, None, None, next_item)
        for phase in self._phases:
            if not phase.report.passed:
                return f"it fails in a last run, without sabotage: {phase.reason}"
        return ""

    def _sabotage(
        self,
        item: pytest.Item,
        kind: SabotageKind,
        number: int,
    ) -> tuple[SabotageResult, str]:
        # The next item of pytest's protocol. With the parent, pytest tears down the test but keeps
        # its wider fixtures.
        following = item.parent
        sabotaged_run = self._run_again(item, kind, number, following)
        if sabotaged_run.overlapped is not None:
            number = sabotaged_run.overlapped
            sabotaged_run = self._run_again(item, kind, number, following)
        result, why = _judged(
            kind,
            sabotaged_run,
            self._phases,
        )
        return result, ADDRESS.sub("0x…", why)

    def _run_again(
        self,
        item: pytest.Item,
        kind: SabotageKind | None,
        number: int | None,
        following: pytest.Item | pytest.Collector | None,
    ) -> SabotagedRun:
        """Run a test with one fault. The facts of the run do not change."""
        seconds = _TIME_FACTOR * self._seconds.get(item.nodeid, 0.0) + _EXTRA_SECONDS
        run = self._recorder.run
        sabotaged_run = SabotagedRun(run, kind, number=number, seconds=seconds)
        self._phases = []
        self._runs += 1
        with run.ledger.aside(), _never_rerun(item):
            self._recorder.set_sabotage(sabotaged_run)
            try:
                # Tear down the fixtures that the previous test has left, as pytest's runner does.
                item.session._setupstate.teardown_exact(item)  # noqa: SLF001 - no public name
                item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            finally:
                sabotaged_run.keep(run.ledger.since(0))
                self._recorder.set_sabotage(None)
        return sabotaged_run

    @hook(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> object:
        """Run a test without reports, before a plugin can rerun a failed test."""
        if not self._recorder.is_repeating:
            return None
        # pytest registers the module of its runner by this name.
        runner: Any = self._config.pluginmanager.get_plugin("runner")
        # Warnings are not shown. Filters that turn them into errors stay.
        with warnings.catch_warnings(record=True):
            runner.runtestprotocol(item, log=False, nextitem=nextitem)
        return True

    @hook(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """End a test that waits because of the sabotage."""
        sabotaged_run = self._recorder.sabotaged_run
        if sabotaged_run is None:
            return (yield)
        try:
            with _alarm(sabotaged_run), _limited(sabotaged_run, item):
                return (yield)
        finally:
            sabotaged_run.end_call()

    # The summary.

    @hook(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Add the figures of a worker of pytest-xdist. Workers run at the same time."""
        output = getattr(node, "workeroutput", None) or {}
        tested, runs, took = output.get(_OUTPUT, (0, 0, 0.0))
        self._tested += tested
        self._runs += runs
        self._took = max(self._took, took)

    @hook
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> None:
        """Print how many tests were repeated. The lines of the scenarios have the results."""
        line = "sabotage: no test to run again"
        if self._tested:
            tests = counted(self._tested, "test")
            times = counted(self._runs, "time")
            line = f"sabotage: {tests} run again {times} in {self._took:.1f} s"
        remarks = [self._why_not] if self._why_not else []
        if self._config.option.arena_scenarios_sabotage is None:
            remarks.append("strict CI run, off with --no-scenarios-sabotage")
        if remarks:
            line += f" ({'; '.join(remarks)})"
        terminalreporter.write_line(line)


def _why_not(session: pytest.Session) -> str:
    """Return why pytest-arena repeats no test, or "" if it does."""
    option = session.config.option
    if option.collectonly or getattr(option, "setuponly", False):
        return "no test was run"
    if getattr(option, "usepdb", False):
        return "off with --pdb, which would stop at each failure"
    if updates_snapshots(session.config):
        return "off while snapshots are updated, because they would save broken answers"
    if session.shouldstop or session.shouldfail:
        return "the run was stopped"
    return ""


@contextmanager
def _never_rerun(item: pytest.Item) -> Iterator[None]:
    """Keep pytest-rerunfailures and pytest-retry from rerunning a test.

    pytest-rerunfailures would keep the wide fixtures of a failed test for the next try.
    pytest-retry would run the test again without the fault.
    """
    values = vars(item)
    count = values.pop("execution_count", None)
    marker = item.get_closest_marker("flaky")
    arguments: Any = marker.kwargs if marker else {}
    try:
        with mock.patch.dict(arguments, condition=False):
            yield
    finally:
        if count is not None:
            values["execution_count"] = count


@contextmanager
def _limited(sabotaged_run: SabotagedRun, item: Any) -> Iterator[None]:
    """Limit the time of an async test. The limit needs a running event loop."""
    function = getattr(item, "obj", None)
    if not inspect.iscoroutinefunction(function):
        yield
        return

    @functools.wraps(function)
    async def limited(*args: object, **kwargs: object) -> None:
        __tracebackhide__ = True
        await sabotaged_run.call_limited(function(*args, **kwargs))

    with replaced_function(item, limited):
        yield


@contextmanager
def _alarm(sabotaged_run: SabotagedRun) -> Iterator[None]:
    """Limit the time of a test by SIGALRM, unless the process uses the signal."""
    is_used = signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL
    if is_used or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end_test(*_: object) -> None:
        sabotaged_run.time_out()
        raise TimeoutError("the test still waits after the sabotage")

    signal.signal(signal.SIGALRM, end_test)
    signal.setitimer(signal.ITIMER_REAL, sabotaged_run.seconds + _GRACE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _judged(
    kind: SabotageKind,
    sabotaged_run: SabotagedRun,
    phases: list[_Phase],
) -> tuple[SabotageResult, str]:
    """Return the result of one run, and the reason."""
    noticed = next((phase for phase in phases if phase.is_noticed), None)
    is_refused = any(isinstance(error, RefusedError) for error in sabotaged_run.errors)
    if noticed and sabotaged_run.is_applied and not is_refused:
        if sabotaged_run.is_timed_out:
            return "noticed", _ENDLESS
        return "noticed", noticed.reason
    unknown = _why_unknown(sabotaged_run, phases, noticed)
    if unknown:
        return "unknown", unknown.partition("\n")[0]
    if kind == "policy" and sabotaged_run.touched:
        return "survived", ", ".join(sorted(sabotaged_run.touched))
    if kind != "policy" and sabotaged_run.is_applied:
        return "survived", ""
    return "not applicable", _NOTHING_BROKEN[kind]


def _why_unknown(
    sabotaged_run: SabotagedRun,
    phases: list[_Phase],
    noticed: _Phase | None,
) -> str:
    """Return why a run has no result, or "" if it has one."""
    if noticed and not sabotaged_run.is_applied and not sabotaged_run.errors:
        return f"it failed before the sabotage: {noticed.reason}"
    reasons = [str(error) for error in sabotaged_run.errors]
    reasons += [phase.reason for phase in phases if not phase.report.passed]
    if any(hasattr(phase.report, "wasxfail") for phase in phases):
        reasons.append("it was expected to fail")
    if not sabotaged_run.is_reached:
        reasons.append("in this run it did not send the request to sabotage")
    return next(filter(None, reasons), "")
