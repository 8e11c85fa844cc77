"""Combines pytest's reports into tries of tests."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena._config._load import is_library
from pytest_arena.errors import NotWritten, ScenarioError, redact
from pytest_arena.scenarios.evidence._document import (
    Facts,
    Outcome,
    Sabotage,
    Try,
    from_shape,
    to_shape,
)
from pytest_arena.scenarios.specs._reader import relative

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pytest

SENT = "arena_scenario"
"""The attribute of a report in which the process of a test sends plain values."""

_WORST_FIRST: tuple[Outcome, ...] = (
    "failed",
    "xfailed",
    "xpassed",
    "skipped",
    "passed",
)
_PHASES = ("setup", "call", "teardown")
_DETAILS = ("reason", "place", "is_stub")
"""The values that a try takes from its worst phase."""

TestKey = tuple[str, str]
"""The process of a test, and its node id."""


@dataclass(slots=True)
class _TryInProgress:
    """A try whose tear-down has not been reported yet."""

    is_rerun: bool = False
    is_set_up: bool = False
    is_called: bool = False
    outcome: Outcome = "passed"
    details: dict[str, Any] = field(default_factory=dict)
    """The reason, the place and the stub of the worst phase."""
    facts: str = ""
    """The facts, as JSON."""
    is_to_be_rerun: bool = False
    failed_first: str = ""
    """The reason of the first failure, if one report is about a failed and a passed run."""

    def add(self, report: Any, sent: Mapping[str, Any]) -> None:
        """Add the report of a phase, or of a subtest."""
        outcome = _outcome(report)
        if _WORST_FIRST.index(outcome) < _WORST_FIRST.index(self.outcome):
            self.outcome = outcome
            self.details = {name: sent[name] for name in _DETAILS if name in sent}
        self.facts = sent.get("facts", self.facts)
        self.failed_first = sent.get("failed_first", self.failed_first)
        self.is_to_be_rerun |= report.outcome == "rerun"
        self.is_set_up |= report.when == "setup"
        self.is_called |= report.when == "call"


class Tries:
    """The tries of all processes. The report of a test without a scenario costs one lookup."""

    def __init__(self) -> None:
        self.sabotaged: dict[str, tuple[Sabotage, ...]] = {}
        """The sabotages by test."""
        self._in_progress: dict[TestKey, _TryInProgress] = {}
        self._last: dict[TestKey, _TryInProgress] = {}
        self._to_be_rerun: set[str] = set()  # in another process, because theirs died
        self._ended: dict[str, list[Try]] = {}

    def see(self, report: Any) -> None:
        """Add the report of a phase, or of a subtest."""
        node = getattr(report, "node", None)  # set by pytest-xdist, on the controller
        gateway = getattr(node, "gateway", None)
        key = (str(getattr(gateway, "id", "")), report.nodeid)
        if report.when not in _PHASES:
            self._break_off(key, report)
            return
        sent = getattr(report, SENT, None)
        if sent is None:
            return
        attempt = self._in_progress.get(key)
        # A plugin may report a whole try after its subtests, which have reports already.
        if attempt is None or (report.when == "setup" and attempt.is_set_up):
            attempt = self._begin(key, sent)
        attempt.add(report, sent)
        if report.when == "teardown":
            self._end(key)

    def _begin(
        self,
        key: TestKey,
        sent: Mapping[str, Any],
    ) -> _TryInProgress:
        last = self._last.get(key)
        # Some plugins do not report a rerun. Then the test's process sends this information.
        is_rerun = bool(sent.get("again")) if last is None else last.is_to_be_rerun
        is_rerun = is_rerun or key[1] in self._to_be_rerun
        attempt = _TryInProgress(is_rerun=is_rerun)
        self._in_progress[key] = attempt
        return attempt

    def _end(self, key: TestKey) -> None:
        attempt = self._in_progress.pop(key)
        self._last[key] = attempt
        if attempt.outcome == "passed" and not attempt.is_called:
            return  # --setup-only: the test's function has not run
        if attempt.failed_first:
            self._add(Try(test=key[1], outcome="failed", reason=attempt.failed_first))
        facts = None
        if attempt.facts:
            facts = from_shape(Facts, json.loads(attempt.facts))
        self._add(
            Try(
                test=key[1],
                outcome=attempt.outcome,
                facts=facts,
                is_rerun=attempt.is_rerun or bool(attempt.failed_first),
                **attempt.details,
            )
        )

    def _break_off(self, key: TestKey, report: Any) -> None:
        """Add a try whose process died."""
        attempt = self._in_progress.get(key) or self._begin(key, {})
        del self._in_progress[key]
        self._add(
            Try(
                test=key[1],
                outcome="unfinished",
                reason=_one_line(str(report.longrepr)),
                is_rerun=attempt.is_rerun,
            )
        )
        if report.outcome == "rerun":
            self._to_be_rerun.add(key[1])

    def _add(self, attempt: Try) -> None:
        self._ended.setdefault(attempt.test, []).append(attempt)

    def last(self, test: str) -> Try | None:
        """Return the last try of a test."""
        tries = self._ended.get(test)
        if tries:
            return tries[-1]
        return None

    def add_sabotages(self, test: str, sabotages: tuple[Sabotage, ...]) -> None:
        """Add the sabotages of a test to its last try."""
        self.sabotaged[test] = self.sabotaged.get(test, ()) + sabotages
        last = self.last(test)
        if last:
            all_sabotages = last.sabotages + sabotages
            self._ended[test][-1] = replace(last, sabotages=all_sabotages)

    def all(self, names: Mapping[str, str]) -> Iterator[Try]:
        """Yield all tries of the tests that prove a scenario.

        ``names`` are their node ids at collection, by the node ids of reports.
        """
        for test in sorted(self._ended):
            if test in names:
                for attempt in self._ended[test]:
                    yield replace(attempt, test=names[test])


def _outcome(report: Any) -> Outcome:
    """Return the outcome. pytest reports an xfail as skipped, and an xpass as passed."""
    outcomes: dict[str, Outcome] = {"passed": "passed", "skipped": "skipped"}
    if hasattr(report, "wasxfail"):
        outcomes = {"passed": "xpassed", "skipped": "xfailed"}
    return outcomes.get(report.outcome, "failed")


# Why a phase did not pass.

_LONGEST_REASON = 300
ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}")
"""An address of an object, which differs in each run."""
_PREFIXES = {"setup": "set-up: ", "teardown": "tear-down: "}


def failure_of(
    report: Any,
    excinfo: pytest.ExceptionInfo[BaseException] | None,
    item: pytest.Item,
    mask: Callable[[], Callable[[str], str]],
) -> dict[str, Any]:
    """Return the reason and the place of a failed or skipped phase. Empty for a passed phase.

    Args:
        report: the report of the phase.
        excinfo: pytest's information about the exception.
        item: the test.
        mask: returns a function that removes secrets from a text.
    """
    if hasattr(report, "wasxfail"):
        return {"reason": _one_line(str(report.wasxfail).removeprefix("reason: "))}
    if report.skipped:
        return {"reason": _one_line(skip_reason(report.longrepr))}
    root = item.config.rootpath
    if report.passed:
        if excinfo is None:
            return {}
        # pytest-retry has run the test again. This report is about both runs.
        return {"failed_first": _readable(mask()(_error_line(excinfo)), root)}
    reason = str(report.longrepr)
    place = ""
    is_stub = False
    if excinfo is not None:
        reason = _error_line(excinfo)
        place = _place(excinfo, item.path, root)
        is_stub = _is_stub(excinfo, item.path)
        error = excinfo.value
        if isinstance(error, ScenarioError) and not place:
            # A step of pytest-bdd returned a coroutine that was not awaited.
            place = error.cause.partition("  ")[0]
        if isinstance(error, NotWritten):
            reason = error.what  # the status already says that the test is a stub
    prefix = _PREFIXES.get(report.when, "")
    reason = prefix + _readable(mask()(reason), root)
    return {"reason": reason, "place": place, "is_stub": is_stub}


def _error_line(excinfo: pytest.ExceptionInfo[BaseException]) -> str:
    return str(excinfo.exconly(tryshort=True))


def _readable(reason: str, root: Path) -> str:
    """Return a reason in one line, without paths and addresses of this machine."""
    reason = reason.removeprefix("pytest_arena.errors.").replace(f"{root}{os.sep}", "")
    return _one_line(ADDRESS.sub("0x…", reason))


def _one_line(text: str) -> str:
    line = next(iter(text.strip().splitlines()), "").rstrip()
    if len(line) > _LONGEST_REASON:
        line = f"{line[:_LONGEST_REASON]} …"
    return redact(line)


def skip_reason(longrepr: object) -> str:
    """Return the reason of a skip."""
    text = longrepr[2] if isinstance(longrepr, tuple | list) else longrepr
    return str(text).removeprefix("Skipped: ")


def _place(
    excinfo: pytest.ExceptionInfo[BaseException],
    file: Path,
    root: Path,
) -> str:
    """Return the last place in the test's file, or else the last place outside of libraries."""
    in_test = ""
    in_project = ""
    for entry in excinfo.traceback:
        path = Path(str(entry.path))
        place = f"{relative(path, root)}:{entry.lineno + 1}"
        if path == file:
            in_test = place
        if not is_library(str(path)):
            in_project = place
    return in_test or in_project


def _is_stub(excinfo: pytest.ExceptionInfo[BaseException], file: Path) -> bool:
    """Return whether the test raised an error that marks it as a stub."""
    if isinstance(excinfo.value, NotWritten):
        return True
    if not isinstance(excinfo.value, NotImplementedError) or not excinfo.traceback:
        return False
    # A NotImplementedError of the app does not make the test a stub.
    return Path(str(excinfo.traceback[-1].path)) == file


# Facts as text.


def evidence_line(facts: Facts) -> str:
    """Return the facts in one line, for JUnit's XML."""
    seeded = [f"{table} {rows}" for table, rows in facts.seeded or ()]
    requests = []
    for request in facts.requests:
        route = request.route or request.path
        requests.append(f"{request.method} {route} {request.status}")
    assertions = sum(check.times for check in facts.checks)
    parts = {
        "seeded": ", ".join(seeded) or "-",
        "requested": ", ".join(requests) or "-",
        "asserted": str(assertions),
    }
    if facts.seeded is None:
        parts["seeded"] = "?"
    for kind in parts.keys() & dict(facts.off):
        parts[kind] = "?"
    return "; ".join(f"{kind}: {text}" for kind, text in parts.items())


def plain_facts(facts: Facts) -> str:
    """Return the facts as JSON. Values of other types, such as subclasses of str, become texts."""
    return json.dumps(to_shape(facts), default=str)
