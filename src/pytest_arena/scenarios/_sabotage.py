"""Which tests stay green though what they are about was broken?"""

import functools
import inspect
import signal
import threading
import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any
from unittest import mock

import pluggy

from pytest_arena import _process
from pytest_arena.errors import ArenaError, LoginError, RefusedError
from pytest_arena.scenarios._breakage import Breaking, policed, to_break
from pytest_arena.scenarios._instruments import Instruments
from pytest_arena.scenarios._mapping import Mapped
from pytest_arena.scenarios._tries import ADDRESS, Tries, failure_of
from pytest_arena.scenarios.evidence._document import (
    Facts,
    Sabotage,
    SabotageKind,
    SabotageResult,
)
from pytest_arena.scenarios.outputs._phrases import counted

hook = pluggy.HookimplMarker("pytest")

_OUTPUT = "arena_sabotage"  # in what a worker hands to pytest-xdist
_TIMES, _MORE = (
    10,
    10.0,
)  # a test that waits for what was broken gets so much longer than before


@dataclass(frozen=True, slots=True)
class _Phase:
    """A phase of a test that was run again."""

    report: Any
    error: BaseException | None
    reason: str

    @property
    def is_noticed(self) -> bool:
        """Whether the test has failed, and not arena under it."""
        # A login that fails is the app's, and the user's function for it.
        is_ours = isinstance(self.error, ArenaError) and not isinstance(
            self.error, LoginError
        )
        return bool(self.report.failed) and not is_ours


class SabotagePasses:
    """Registered as a plugin where sabotage is asked for, in every process of the run.

    After all tests it runs those again that prove a scenario, once for each thing that can be
    broken under them. Reports of these runs go nowhere: not to the terminal, the cache of the
    last failures, JUnit's XML or the exit status.

    Cost: a run of the test for each kind, and one for comparison, with their set-ups and
    tear-downs. Wider fixtures are set up again once, as all runs of one test follow each other.
    """

    def __init__(
        self,
        config: Any,
        instruments: Instruments,
        tries: Tries,
        tests: Mapping[int, Mapped],
    ) -> None:
        self._config, self._instruments = config, instruments
        self._tries, self._proving = tries, tests
        self._seconds: dict[str, float] = {}  # of each test's call, before
        self._with_subtests: set[str] = set()
        self._phases: list[_Phase] = []
        self._tests = self._runs = 0
        self._took = 0.0
        self._why_not = ""

    # The tests as they are.

    @hook(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: Any, call: Any
    ) -> Generator[None, Any, Any]:
        """Note how long a test takes; of one that is run again, how it ended."""
        report = yield
        if self._instruments.breaking is None:
            if call.when == "call":
                self._seconds[item.nodeid] = call.duration
        elif report.when in {"setup", "call", "teardown"}:
            error = call.excinfo.value if call.excinfo else None
            why = failure_of(report, call.excinfo, item, self._instruments.mask)
            self._phases.append(_Phase(report, error, why.get("reason", "")))
        return report

    @hook
    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note who reports subtests: they are reported whoever runs the test."""
        if type(report).__name__.lower() == "subtestreport":
            self._with_subtests.add(report.nodeid)

    # The tests, broken.

    @hook(wrapper=True)
    def pytest_runtestloop(self, session: Any) -> Generator[None, object, object]:
        """Run tests again when all were run; who stops the run (-x, Ctrl-C) raises before."""
        result = yield
        self._why_not = _why_not(session)
        if not self._why_not:
            # Nobody reads the tracebacks of tests that were broken: reports without are cheap.
            with mock.patch.object(self._config.option, "tbstyle", "no"):
                self._run_all()
        if (output := getattr(self._config, "workeroutput", None)) is not None:
            output[_OUTPUT] = self._tests, self._runs, self._took
        return result

    def _run_all(self) -> None:
        started = _process.seconds()
        tests = (
            (one.item, self._tries.last(one.item.nodeid))
            for one in self._proving.values()
        )
        proving = [
            (item, done.facts)
            for item, done in tests
            if done is not None and done.outcome == "passed" and done.facts is not None
        ]
        following = [item for item, _ in proving[1:]]
        try:
            for (item, facts), after in zip_longest(proving, following):
                sabotages = tuple(self._sabotages(item, facts, after))
                self._tries.add_sabotages(item.nodeid, sabotages)
        except Exception as error:  # noqa: BLE001 - pytest.exit() for one: what was run before stands
            self._why_not = f"broken off: {type(error).__name__}: {error}".partition(
                "\n"
            )[0]
        self._took = _process.seconds() - started

    def _sabotages(self, item: Any, facts: Facts, following: Any) -> Iterator[Sabotage]:
        """Run a test once for each kind that applies to it."""
        plan = to_break(facts, has_policies=bool(policed(self._instruments.run)))
        kinds = [kind for kind, planned in plan.items() if isinstance(planned, int)]
        lacks = self._lacks(item) if kinds else ""
        for kind, planned in plan.items():
            if isinstance(planned, str):
                yield Sabotage(kind=kind, result="not applicable", why=planned)
            elif lacks:
                yield Sabotage(kind=kind, result="unknown", why=lacks)
            else:
                # The test itself must not stand any more when it is run again: its parent may.
                after = following if kind is kinds[-1] else item.parent
                yield self._broken(item, kind, planned, after)

    def _lacks(self, item: Any) -> str:
        """Why a test cannot be run again unseen, or broken at one request; "" where it can."""
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            return "a test of Hypothesis' makes its requests once for each example"
        if item.nodeid in self._with_subtests:
            return "its subtests would be reported as those of this run"
        self._tests += 1
        # What fails whenever it is run a second time has noticed nothing.
        self._run_again(item, None, None, item.parent)
        failed = [one for one in self._phases if not one.report.passed]
        why = "it does not pass a second time, with nothing broken"
        return f"{why}: {failed[0].reason}" if failed else ""

    def _broken(
        self, item: Any, kind: SabotageKind, number: int, after: Any
    ) -> Sabotage:
        breaking = self._run_again(item, kind, number, after)
        if breaking.overlapped is not None:
            breaking = self._run_again(item, kind, breaking.overlapped, after)
        result, why = _judged(kind, breaking, self._phases)
        return Sabotage(kind=kind, result=result, why=ADDRESS.sub("0x…", why))

    def _run_again(
        self, item: Any, kind: SabotageKind | None, number: int | None, after: Any
    ) -> Breaking:
        """Break something under a test, of which the run's own facts know nothing."""
        seconds = _TIMES * self._seconds.get(item.nodeid, 0.0) + _MORE
        run = self._instruments.run
        breaking = Breaking(run, kind, number=number, seconds=seconds)
        self._phases = []
        self._runs += 1
        with run.ledger.aside(), _never_rerun(item):
            self._instruments.breaking = breaking
            try:
                # What the one before has left that could not be run: nobody was to come after it.
                item.session._setupstate.teardown_exact(item)  # noqa: SLF001 - as pytest's runner does
                item.ihook.pytest_runtest_protocol(item=item, nextitem=after)
            finally:
                breaking.keep(run.ledger.since(0))
                self._instruments.breaking = None
        return breaking

    @hook(tryfirst=True)
    def pytest_runtest_protocol(self, item: Any, nextitem: Any) -> object:
        """Run a test without a word; before plugins that would run it again when it fails."""
        if self._instruments.breaking is None:
            return None
        # pytest's own module, by the name under which it is registered: it has no other way.
        runner = self._config.pluginmanager.get_plugin("runner")
        # The filters stay, which may make errors of them.
        with warnings.catch_warnings(record=True):
            runner.runtestprotocol(item, log=False, nextitem=nextitem)
        return True

    @hook(wrapper=True)
    def pytest_runtest_call(self, item: Any) -> Generator[None, object, object]:
        """A test may wait for ever for what was broken."""
        if (breaking := self._instruments.breaking) is None:
            return (yield)
        with _alarm(breaking), _limited(breaking, item):
            return (yield)

    # What is said at the end.

    @hook(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker of pytest-xdist has ended: they have run at the same time."""
        tests, runs, took = (getattr(node, "workeroutput", None) or {}).get(
            _OUTPUT, (0, 0, 0.0)
        )
        self._tests, self._runs = self._tests + tests, self._runs + runs
        self._took = max(self._took, took)

    @hook
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """One line, whatever became of the tests: the scenarios say that."""
        runs = f"{counted(self._tests, 'test')} run again {counted(self._runs, 'time')}"
        done = (
            f"{runs} in {self._took:.1f} s" if self._tests else "no test to run again"
        )
        unasked = _UNASKED * (self._config.option.arena_scenarios_sabotage is None)
        remarks = "; ".join(filter(None, [self._why_not, unasked]))
        terminalreporter.write_line(
            f"sabotage: {done}" + f" ({remarks})" * bool(remarks)
        )


_UNASKED = "strict in CI; off: --no-scenarios-sabotage"


def _why_not(session: Any) -> str:
    """Why no test is to be run again after these; "" where they may."""
    option = session.config.option
    if option.collectonly or getattr(option, "setuponly", False):
        return "no test was run"
    if getattr(option, "usepdb", False):
        return "not with --pdb, which would stop at each failure"
    if (
        0 < (option.maxfail or 0) <= session.testsfailed
        or session.shouldstop
        or session.shouldfail
    ):
        return "the run was stopped"
    return ""


@contextmanager
def _never_rerun(item: Any) -> Iterator[None]:
    """Have pytest-rerunfailures think that it does not run this test, as it does not.

    Else its tear-down would keep wider fixtures of a failed test as they are, for the next try.
    """
    values = vars(item)
    kept = {name: values.pop(name) for name in ("execution_count",) if name in values}
    try:
        yield
    finally:
        values.update(kept)


@contextmanager
def _limited(breaking: Breaking, item: Any) -> Iterator[None]:
    """Have a coroutine function end in time, where its loop still runs."""
    function = getattr(item, "obj", None)
    if not inspect.iscoroutinefunction(function):
        yield
        return

    @functools.wraps(function)
    async def limited(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        await breaking.call_limited(function(*args, **kwargs))

    item.obj = limited
    try:
        yield
    finally:
        item.obj = function


@contextmanager
def _alarm(breaking: Breaking) -> Iterator[None]:
    """End a test that waits for ever, where nobody else has set the alarm."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
        yield
        return

    def ring(*_: object) -> None:
        breaking.time_out()
        raise TimeoutError("it waits for what was broken")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, breaking.seconds + _PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


_PATIENCE = 2.0  # a coroutine is ended before, where its loop still runs


def _judged(
    kind: SabotageKind, breaking: Breaking, phases: list[_Phase]
) -> tuple[SabotageResult, str]:
    """Say what became of one run, and why."""
    noticed = next((one for one in phases if one.is_noticed), None)
    refused = [one for one in breaking.errors if isinstance(one, RefusedError)]
    if noticed is not None and breaking.is_applied and not refused:
        return "noticed", _ENDLESS if breaking.is_timed_out else noticed.reason
    if said := _unknown(breaking, phases, noticed):
        return "unknown", said.partition("\n")[0]
    is_about = breaking.touched if kind == "policy" else breaking.is_applied
    tables = ", ".join(sorted(breaking.touched))
    return (
        ("survived", tables) if is_about else ("not applicable", _NOTHING_THERE[kind])
    )


def _unknown(breaking: Breaking, phases: list[_Phase], noticed: _Phase | None) -> str:
    """Say why a run tells nothing; "" where it does."""
    if noticed is not None and not breaking.is_applied and not breaking.errors:
        return f"it failed before anything was broken: {noticed.reason}"
    said = [
        *map(str, breaking.errors),
        *(one.reason for one in phases if not one.report.passed),
    ]
    if any(hasattr(one.report, "wasxfail") for one in phases):
        said.append("it was expected to fail")
    if not breaking.is_reached:
        said.append(
            "this time it did not make the request around which to break something"
        )
    return next(filter(None, said), "")


_ENDLESS = "it waited without an end, and was ended"
_NOTHING_THERE: dict[SabotageKind, str] = {
    "seed": "there was no moment to remove it",
    "commit": "the request changed no row",
    "policy": "no request reads a table that has policies",
    "empty": "its last answer has no body",
    "500": "its last request has no answer",
}
