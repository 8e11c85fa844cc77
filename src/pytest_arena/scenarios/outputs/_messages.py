"""How does the document become Cucumber Messages?

One JSON object a line, as ``@cucumber/html-formatter`` and other readers of Cucumber's take them:
https://github.com/cucumber/messages. A pickle stands for a scenario, or a row of an Outline. A step
has a result where the test has a block for it; else it is ``UNKNOWN``. The scenario's own result
is that of a hook at the end, which the evidence is attached to as JSON: no step is said to have
passed that nobody has looked at.
"""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict
from importlib.metadata import version
from itertools import count
from typing import TYPE_CHECKING, Any

from pytest_arena.scenarios.evidence import Status, row_verdict
from pytest_arena.scenarios.outputs._phrases import reason
from pytest_arena.scenarios.outputs._syntax import trees

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_arena.scenarios.evidence import Document, JudgedTest
    from pytest_arena.scenarios.outputs._syntax import Case, Tree
    from pytest_arena.scenarios.specs import Feature

__all__ = ["messages"]

Message = dict[str, Any]

# What is green and yet no proof is PENDING, which passes no strict run of Cucumber either.
# UNDEFINED is for steps alone: its formatter fails on a hook that is.
_RESULTS = {
    Status.MALFORMED: "FAILED",
    Status.UNMAPPED: "PENDING",
    Status.FAILED: "FAILED",
    Status.DRIFTED: "PENDING",
    Status.STUB: "PENDING",
    Status.XFAIL: "SKIPPED",
    Status.XPASS: "FAILED",
    Status.SKIPPED: "SKIPPED",
    Status.NOT_RUN: "SKIPPED",
    Status.FLAKY: "PENDING",
    Status.HOLLOW: "PENDING",
    Status.UNKNOWN: "PENDING",
    Status.PARTIAL: "PENDING",
    Status.PROVEN: "PASSED",
    Status.WAIVED: "SKIPPED",
}
# A verdict on the scenario itself, which holds for each of its rows.
_OF_THE_WHOLE = {Status.MALFORMED, Status.UNMAPPED, Status.DRIFTED, Status.WAIVED}
_PROTOCOL = "34.0.0"
_NO_TIME = {"seconds": 0, "nanos": 0}


def messages(document: Document, sources: Mapping[str, str]) -> str:
    """Return the messages; ``sources`` are the specifications' texts by their paths.

    The same document gives the same messages but for their time, which is now, or that of
    ``SOURCE_DATE_EPOCH``: formatters show when a run was.
    """
    ids = count(1)
    when = {"seconds": int(os.environ.get("SOURCE_DATE_EPOCH") or time.time()), "nanos": 0}
    told = _Told(ids, when)
    grown = list(trees(document.scenarios, _features(sources), sources, ids))
    lines = [
        {"meta": _meta()},
        *(message for tree in grown for message in _of_tree(tree, sources)),
        *told.run([case for tree in grown for case in tree.cases], success=not document.gaps),
    ]
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)


def _meta() -> Message:
    return {
        "protocolVersion": _PROTOCOL,
        "implementation": {"name": "pytest-arena", "version": version("pytest-arena")},
        "runtime": {"name": platform.python_implementation(), "version": platform.python_version()},
        "os": {"name": platform.system()},
        "cpu": {"name": platform.machine()},
    }


def _features(sources: Mapping[str, str]) -> dict[tuple[str, str], Feature]:
    from pytest_arena.scenarios.specs import parse  # noqa: PLC0415 - Markdown and Gherkin take a while

    found = [feature for spec, text in sources.items() for feature in parse(text, spec).features]
    # The first one, where a file has two of one name.
    return {(one.spec, one.name): one for one in reversed(found)}


def _of_tree(tree: Tree, sources: Mapping[str, str]) -> Iterator[Message]:
    if tree.spec in sources:
        kind = "plain" if tree.spec.endswith(".feature") else "markdown"
        media = f"text/x.cucumber.gherkin+{kind}"
        yield {"source": {"uri": tree.uri, "data": sources[tree.spec], "mediaType": media}}
    yield {"gherkinDocument": tree.document}
    yield from ({"pickle": case.pickle} for case in tree.cases)


class _Told:
    """What is told of the run: cases, their steps, their results."""

    def __init__(self, ids: Iterator[int], when: Message) -> None:
        self._ids, self._when = ids, when

    def run(self, cases: list[Case], *, success: bool) -> Iterator[Message]:
        """From the start of the run to its end."""
        run = self._id()
        yield {"testRunStarted": {"timestamp": self._when, "id": run}}
        for case in cases:
            yield from self._case(case, run)
        end = {"success": success, "timestamp": self._when, "testRunStartedId": run}
        yield {"testRunFinished": end}

    def _case(self, case: Case, run: str) -> Iterator[Message]:
        hook, test_case, started = self._id(), self._id(), self._id()
        tests = _tests(case)
        steps = [{"id": self._id(), **_pickled(step["id"])} for step in case.pickle["steps"]]
        end = {"id": self._id(), "hookId": hook}
        yield {"hook": _hook(hook, case, tests)}
        yield {
            "testCase": {
                "id": test_case,
                "pickleId": case.pickle["id"],
                "testSteps": [*steps, end],
                "testRunStartedId": run,
            }
        }
        yield {
            "testCaseStarted": {
                "id": started,
                "testCaseId": test_case,
                "attempt": 0,
                "timestamp": self._when,
            }
        }
        for number, step in enumerate(steps):
            yield from self._step(started, step["id"], *_step_result(case, tests, number))
        yield from self._step(started, end["id"], *_result(case), _evidence(case, tests))
        yield {
            "testCaseFinished": {
                "testCaseStartedId": started,
                "timestamp": self._when,
                "willBeRetried": False,
            }
        }

    def _step(
        self, started: str, step: str, status: str, why: str, attached: str = ""
    ) -> Iterator[Message]:
        about = {"testCaseStartedId": started, "testStepId": step}
        yield {"testStepStarted": {**about, "timestamp": self._when}}
        if attached:
            body = {
                "body": attached,
                "contentEncoding": "IDENTITY",
                "mediaType": "application/json",
                "fileName": "evidence.json",
            }
            yield {"attachment": {**about, **body, "timestamp": self._when}}
        result = {"status": status, "duration": _NO_TIME, **({"message": why} if why else {})}
        yield {"testStepFinished": {**about, "testStepResult": result, "timestamp": self._when}}

    def _id(self) -> str:
        return str(next(self._ids))


def _pickled(pickle_step: str) -> Message:
    # Without a definition a step would be UNDEFINED; there are none here, and no list says so.
    return {"pickleStepId": pickle_step}


def _tests(case: Case) -> list[JudgedTest]:
    """Those that are about it: of a row those for it, and those for the whole Outline."""
    if case.row is None:
        return list(case.judged.tests)
    return [test for test in case.judged.tests if test.row in ((), case.row.values)]


def _hook(hook: str, case: Case, tests: list[JudgedTest]) -> Message:
    place = tests[0].place if tests else case.judged.scenario.place
    path, _, line = place.rpartition(":")
    return {
        "id": hook,
        "name": "evidence",
        "type": "AFTER_TEST_CASE",
        "sourceReference": {
            "uri": path or place,
            "location": {"line": max(1, int(line) if line.isdecimal() else 1)},
        },
    }


def _result(case: Case) -> tuple[str, str]:
    """The result of a scenario or a row, and why."""
    status, why = _verdict(case)
    said = "" if status is Status.PROVEN else ": ".join(filter(None, [status.value, why]))
    return _RESULTS[status], said


def _verdict(case: Case) -> tuple[Status, str]:
    judged = case.judged
    if case.row is None or judged.status in _OF_THE_WHOLE:
        return judged.status, reason(judged)
    return row_verdict(judged, case.row)


def _step_result(case: Case, tests: list[JudgedTest], number: int) -> tuple[str, str]:
    """By the blocks of its tests; UNKNOWN where none of them has one for it."""
    if _verdict(case)[0] is Status.UNMAPPED:
        return "UNDEFINED", ""
    steps = case.judged.steps
    step = steps[number] if number < len(steps) else None
    if step is None or step.status is None or not _has_block(case, tests, number):
        return "UNKNOWN", ""
    why = "" if step.status is Status.PROVEN else f"{step.status.value}: {step.reason}"
    return _RESULTS[step.status], why


def _has_block(case: Case, tests: list[JudgedTest], number: int) -> bool:
    """Whether a test of this very row has one: the scenario's steps are of all rows together."""
    key = case.judged.scenario.key
    return any(
        facts.scenario == key and facts.step == number
        for test in tests
        if test.facts
        for facts in test.facts.steps
    )


def _evidence(case: Case, tests: list[JudgedTest]) -> str:
    judged = case.judged
    told = {
        "status": judged.status.value,
        "reason": judged.reason,
        "warnings": judged.warnings,
        "tests": [{**asdict(test), "status": test.status.value} for test in tests],
    }
    return json.dumps(told, indent=2, ensure_ascii=False, default=_plain)


def _plain(value: object) -> object:
    return value.value if isinstance(value, Status) else str(value)
