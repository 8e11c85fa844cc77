"""Runs passed tests again, each time with one broken answer."""

from __future__ import annotations

from itertools import chain, product, zip_longest
from typing import TYPE_CHECKING
from unittest import mock

import pluggy

from pytest_arena._ledger import REFUSAL
from pytest_arena._run._repeats import Repeats, is_repeatable
from pytest_arena._values import counted
from pytest_arena.scenarios._faults import BODILESS, KINDS, Fault

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    import pytest

    from pytest_arena.scenarios._records import Failure, Json, Recorder

hook = pluggy.HookimplMarker("pytest")


_MOST_REQUESTS = 8  # the last requests of a test, whose answers are broken
# The options of syrupy, pytest-snapshot and pytest-regressions that write snapshots.
_SNAPSHOT_OPTIONS = (
    "update_snapshots",
    "update_new_snapshots_only",
    "snapshot_update",
    "force_regen",
    "regen_all",
)
_INLINE_SNAPSHOT_FLAGS = {"create", "fix", "review", "trim", "update"}


class Sabotage:
    """The plugin that each process of a strict run registers.

    After all tests it repeats each passed test of a scenario with one broken answer at a time,
    until an assertion fails. A last run has no fault. pytest does not show these runs.
    """

    def __init__(self, config: pytest.Config, recorder: Recorder, tries: list[Json]) -> None:
        self.why_not = ""
        """Why this run repeats no test, "" if it does."""
        self._config = config
        self._repeats = Repeats.of(config, recorder.run)
        self._recorder = recorder
        self._tries = tries
        recorder.run.faults.append(recorder.note_answer)

    @hook(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Repeat tests after the last test. A stopped run (-x, Ctrl-C) raises before that."""
        result = yield
        self.why_not = _why_not(session)
        if not self.why_not:
            # Reports without tracebacks are cheap.
            with mock.patch.object(self._config.option, "tbstyle", "no"):
                last = {each["test"]: each for each in self._tries}
                items = []
                for item in session.items:
                    attempt = last.get(item.nodeid)
                    if attempt and attempt["outcome"] == "passed" and attempt["facts"]["requests"]:
                        items.append(item)
                for item, following in zip_longest(items, items[1:]):
                    attempt = last[item.nodeid]
                    attempt["sabotage"] = self._sabotage(item, attempt["facts"], following)
        return result

    def _sabotage(self, item: pytest.Item, facts: Json, following: pytest.Item | None) -> Json:
        """Break one answer after the other until the test notices it, and then none."""
        if not is_repeatable(item):
            return _unknown("its examples or subtests would send and report their requests again")
        tried = self._break(item, facts)
        self._run_again(item, following)
        if self._recorder.failures:
            return _unknown(f"its test fails when it runs again: {self._recorder.failures[0].text}")
        return tried

    def _break(self, item: pytest.Item, facts: Json) -> Json:
        """Break answers until an assertion fails, and one in the blocks of each Then."""
        thens = [each for each in facts["steps"] if each["kind"] == "then"]
        keys = {(each["scenario"], each["step"]) for each in thens}
        requests = facts["requests"]
        tried: dict[str, None] = {}
        failures: list[Failure] = []
        answers = self._recorder.answers.pop(item.nodeid)
        # Without blocks only an assertion after the last request checks what the scenario says.
        checks = facts["assertions"] if not thens else []
        late = {each["place"] for each in checks if each["after"] >= len(requests)}
        self._recorder.early = {each["place"] for each in checks} - late
        numbers = range(max(facts["first"], len(requests) - _MOST_REQUESTS), len(requests))
        for number, kind in product(reversed(numbers), KINDS):
            request = requests[number]
            status = request["status"] or 0
            # A test that notices only an empty refusal does not notice a success.
            unfit = {"empty", "more"} if status >= REFUSAL else {"200"}
            if status in BODILESS:
                unfit |= {"wrong", "empty", "more"}
            if request["changed"] == []:
                unfit.add("idle")
            if kind in unfit:
                continue
            fault = Fault(kind, number, self._recorder.requests, answers[number])
            with mock.patch.object(self._recorder.run, "faults", [fault.enter]):
                # With the parent as the next item, pytest keeps the wide fixtures.
                self._run_again(item, item.parent)
            if not fault.is_applied:
                continue
            tried[kind] = None
            what = f"{request['method']} {request['route'] or request['path']}"
            for failure in self._recorder.failures:
                failure.answer = {
                    "kind": kind,
                    "request": number,
                    "what": what,
                    "why": failure.text,
                }
                failures.append(failure)
            checks = [failure for failure in failures if failure.is_check]
            if checks and keys.issubset(chain(*(check.steps for check in checks))):
                break
        return _result(thens, tried, failures)

    def _run_again(
        self,
        item: pytest.Item,
        following: pytest.Item | pytest.Collector | None,
    ) -> None:
        """Run a test once more."""
        self._recorder.failures = []
        self._repeats.run_again(item, following)

    def line(self) -> str:
        """Return the line of the summary."""
        tests = sum("sabotage" in each for each in self._tries)
        if self.why_not:
            return f"broken answers: none ({self.why_not})"
        return f"broken answers: {counted(tests, 'test')} run again"


def _result(thens: Iterable[Json], tried: Iterable[str], failures: Iterable[Failure]) -> Json:
    """Return what a test has noticed of its broken answers, in all and by Then step."""
    kinds = dict.fromkeys(tried, False)
    if not kinds:
        return _unknown("no answer of its When could be made wrong, such as that of a websocket")
    checks = [failure for failure in failures if failure.is_check]
    errors = [failure for failure in failures if not failure.is_check]
    if not checks:
        why = "its test passes whatever the app answers"
        if errors:
            text = errors[-1].text
            why = (
                f"no check after its last request notices a wrong answer, an error stops it: {text}"
            )
        return {"result": "unnoticed", "why": why}
    for check in checks:
        kinds[check.answer["kind"]] = True
    steps = []
    for step in thens:
        key = step["scenario"], step["step"]
        by = [check.answer for check in checks if key in check.steps]
        stops = [error.text for error in errors if key in error.steps]
        steps.append({**step, "by": by[0] if by else None, "why": stops[-1] if stops else ""})
    return {"result": "noticed", **checks[0].answer, "kinds": kinds, "steps": steps}


def _unknown(why: str) -> Json:
    return {"result": "unknown", "why": why}


def _why_not(session: pytest.Session) -> str:
    """Return why no test is repeated, or "" if tests are."""
    option = session.config.option
    if getattr(option, "usepdb", False):
        return "--pdb would stop at each failure"
    flags = set(str(getattr(option, "inline_snapshot", None)).split(","))
    is_update = any(getattr(option, name, False) for name in _SNAPSHOT_OPTIONS)
    if is_update or flags & _INLINE_SNAPSHOT_FLAGS:
        return "snapshots are updated, and would save broken answers"
    return ""
