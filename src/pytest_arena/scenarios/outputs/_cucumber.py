"""Writes a document as Cucumber Messages.

Each line is a JSON object for ``@cucumber/html-formatter`` and other readers:
https://github.com/cucumber/messages. A pickle is a scenario, or a row of an Outline. A step has a
result if the test has a block for it. Any other step is ``UNKNOWN``, so a step that pytest-arena
did not observe never passes. A hook at the end has the result of the scenario, and the evidence as
JSON.
"""

import json
import os
import platform
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import count, groupby
from typing import Any, cast

from gherkin.pickles.compiler import Compiler

from pytest_arena.scenarios.evidence._document import (
    Document,
    JudgedScenario,
    JudgedStep,
    JudgedTest,
    Status,
    StepFacts,
)
from pytest_arena.scenarios.evidence._verdicts import row_verdict
from pytest_arena.scenarios.outputs._chapters import lines_as_read
from pytest_arena.scenarios.outputs._phrases import reason
from pytest_arena.scenarios.specs._reader import parse
from pytest_arena.scenarios.specs._specification import Row, ScenarioSpec

Message = dict[str, Any]

# A scenario whose test passed without proving it is PENDING. This fails a strict run of Cucumber.
# Only steps are UNDEFINED, because the formatter fails on an undefined hook.
_RESULTS = {
    **dict.fromkeys(Status, "PENDING"),
    **dict.fromkeys((Status.MALFORMED, Status.FAILED, Status.XPASS), "FAILED"),
    **dict.fromkeys((Status.XFAIL, Status.SKIPPED, Status.NOT_RUN), "SKIPPED"),
    Status.PROVEN: "PASSED",
}
# Verdicts on a scenario that hold for each of its rows.
_OF_ALL_ROWS = frozenset({Status.MALFORMED, Status.UNMAPPED, Status.DRIFTED})
_PROTOCOL = "34.0.0"
_NO_TIME = {"seconds": 0, "nanos": 0}


def messages(document: Document, sources: Mapping[str, str]) -> str:
    """Return the messages of a document.

    The same document gives the same messages except for their time. The time is the present, or
    ``SOURCE_DATE_EPOCH``. The parser makes the trees. For a file that was changed or removed it
    parses the steps that were read, with ``*`` before each step.

    Args:
        document: the judged scenarios.
        sources: the texts of the specifications by their paths.
    """
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    writer = _Writer(timestamp={"seconds": seconds, "nanos": 0})
    lines = [
        {"meta": _meta()},
        *writer.trees(document.scenarios, sources),
        *writer.results(is_success=not document.gaps),
    ]
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)


def _meta() -> Message:
    return {
        "protocolVersion": _PROTOCOL,
        "implementation": {"name": "pytest-arena", "version": version("pytest-arena")},
        "runtime": {
            "name": platform.python_implementation(),
            "version": platform.python_version(),
        },
        "os": {"name": platform.system()},
        "cpu": {"name": platform.machine()},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One scenario, or one row of an Outline, with its pickle."""

    judged: JudgedScenario
    row: Row | None
    pickle: Message

    @property
    def tests(self) -> list[JudgedTest]:
        """The tests of the scenario, or of the row and the whole Outline."""
        if self.row is None:
            return list(self.judged.tests)
        rows = ((), self.row.values)
        return [test for test in self.judged.tests if test.row in rows]

    @property
    def verdict(self) -> tuple[Status, str]:
        """The status of the scenario or the row, and the reason."""
        if self.row is None or self.judged.status in _OF_ALL_ROWS:
            return self.judged.status, reason(self.judged)
        return row_verdict(self.judged, self.row)

    def step_result(self, number: int) -> tuple[str, str]:
        """Return the result and the message of a step. UNKNOWN if no test has its block."""
        if self.verdict[0] is Status.UNMAPPED:
            return "UNDEFINED", ""
        step = JudgedStep()
        if number < len(self.judged.steps):
            step = self.judged.steps[number]
        # The verdicts on steps are about all rows, so a test of this row must have a block.
        if step.status is None or not self._has_block(number):
            return "UNKNOWN", ""
        message = ""
        if step.status is not Status.PROVEN:
            message = f"{step.status.value}: {step.reason}"
        return _RESULTS[step.status], message

    def _has_block(self, number: int) -> bool:
        key = self.judged.scenario.key
        blocks: list[StepFacts] = []
        for test in self.tests:
            if test.facts:
                blocks += test.facts.steps
        return any(block.scenario == key and block.step == number for block in blocks)

    def evidence(self) -> str:
        """Return the facts as JSON."""
        content = {
            "status": self.judged.status.value,
            "reason": self.judged.reason,
            "warnings": self.judged.warnings,
            "tests": [asdict(test) for test in self.tests],
        }
        return json.dumps(
            content, indent=2, ensure_ascii=False, default=lambda status: status.value
        )


class _Writer:
    """Makes the messages of the features, then the messages of the results."""

    def __init__(self, timestamp: Message) -> None:
        self._ids = map(str, count(1))
        self._timestamp = timestamp
        self._cases: list[_Case] = []

    def get_next_id(self) -> str:
        """Return a new id. The compiler of pickles calls this method."""
        return next(self._ids)

    # Features.

    def trees(
        self, scenarios: Sequence[JudgedScenario], sources: Mapping[str, str]
    ) -> Iterator[Message]:
        """Yield source, tree and pickles of each feature. A file may have several features."""
        for spec, same in groupby(scenarios, key=lambda judged: judged.scenario.spec):
            trees = self._trees_of(
                spec,
                list(same),
                sources.get(spec, ""),
            )
            for tree, judged in trees:
                line = tree["feature"]["location"]["line"]
                uri = spec if len(trees) == 1 else f"{spec}#L{line}"
                if spec in sources:
                    yield {"source": _source(uri, spec, sources[spec])}
                tree["uri"] = uri
                yield {"gherkinDocument": tree}
                yield from self._pickles(tree, judged)

    def _trees_of(
        self,
        spec: str,
        scenarios: list[JudgedScenario],
        text: str,
    ) -> list[tuple[Message, dict[str, JudgedScenario]]]:
        """Return the trees of a file, each with its scenarios by the ids of their nodes."""
        remaining = {judged.scenario: judged for judged in scenarios}
        content = parse(text, spec)
        by_line = {
            scenario.line: scenario
            for scenario in content.scenarios
            if scenario.rows or not scenario.is_outline
        }
        trees = []
        for feature in content.features:
            tree = self._renumbered(feature.document)
            judged = {}
            for node in _nodes(tree):
                scenario_read = by_line.get(node["location"]["line"])
                if scenario_read in remaining:
                    judged[node["id"]] = remaining.pop(scenario_read)
            if judged:
                trees.append((tree, judged))
        for _, same in groupby(
            remaining.values(), key=lambda judged: judged.scenario.feature
        ):
            trees.append(self._tree_as_read(list(same)))
        return trees

    def _tree_as_read(
        self, scenarios: list[JudgedScenario]
    ) -> tuple[Message, dict[str, JudgedScenario]]:
        lines = [line for _, line in lines_as_read(map(_without_keywords, scenarios))]
        [feature] = parse("\n".join(lines), "as-read.feature").features[:1]
        tree = self._renumbered(feature.document)
        line_above = scenarios[0].scenario.line - 1
        tree["feature"]["location"] = {"line": max(1, line_above)}
        by_id = {}
        for node, judged in zip(_nodes(tree), scenarios, strict=True):
            node["location"] = {"line": judged.scenario.line}
            by_id[node["id"]] = judged
        return tree, by_id

    def _pickles(
        self, tree: Message, judged: Mapping[str, JudgedScenario]
    ) -> Iterator[Message]:
        compiler = Compiler(cast("Any", self))
        pickles = compiler.compile(cast("Any", _with_escaped_columns(tree)))
        rows = {node: iter(each.scenario.rows) for node, each in judged.items()}
        for pickle in cast("list[Message]", pickles):
            node = pickle["astNodeIds"][0]
            if node in judged:
                row = next(rows[node], None)
                self._cases.append(
                    _Case(
                        judged=judged[node],
                        row=row,
                        pickle=pickle,
                    )
                )
                yield {"pickle": pickle}

    def _renumbered(self, value: object) -> Any:
        """Return a copy with unique ids. The parser uses the same ids for each text."""
        if isinstance(value, list):
            return [self._renumbered(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            name: self.get_next_id() if name == "id" else self._renumbered(item)
            for name, item in value.items()
        }

    # Results.

    def results(self, *, is_success: bool) -> Iterator[Message]:
        """Yield the results of all cases, from the start of the run to its end."""
        run = self.get_next_id()
        yield {"testRunStarted": {"timestamp": self._timestamp, "id": run}}
        for case in self._cases:
            yield from self._result(case, run)
        yield {
            "testRunFinished": {
                "success": is_success,
                "timestamp": self._timestamp,
                "testRunStartedId": run,
            }
        }

    def _result(self, case: _Case, run: str) -> Iterator[Message]:
        hook = self.get_next_id()
        test_case = self.get_next_id()
        started = self.get_next_id()
        last_step = self.get_next_id()
        steps = [
            {"id": self.get_next_id(), "pickleStepId": step["id"]}
            for step in case.pickle["steps"]
        ]
        yield {"hook": _hook(hook, case)}
        yield {
            "testCase": {
                "id": test_case,
                "pickleId": case.pickle["id"],
                "testSteps": [*steps, {"id": last_step, "hookId": hook}],
                "testRunStartedId": run,
            }
        }
        yield {
            "testCaseStarted": {
                "id": started,
                "testCaseId": test_case,
                "attempt": 0,
                "timestamp": self._timestamp,
            }
        }
        for number, step in enumerate(steps):
            about = {"testCaseStartedId": started, "testStepId": step["id"]}
            result, message = case.step_result(number)
            yield {"testStepStarted": {**about, "timestamp": self._timestamp}}
            yield self._finished(about, result, message)
        about = {"testCaseStartedId": started, "testStepId": last_step}
        status, why = case.verdict
        message = ""
        if status is not Status.PROVEN:
            message = f"{status.value}: {why}" if why else status.value
        yield {"testStepStarted": {**about, "timestamp": self._timestamp}}
        yield {
            "attachment": {
                **about,
                "body": case.evidence(),
                "contentEncoding": "IDENTITY",
                "mediaType": "application/json",
                "fileName": "evidence.json",
                "timestamp": self._timestamp,
            }
        }
        yield self._finished(about, _RESULTS[status], message)
        yield {
            "testCaseFinished": {
                "testCaseStartedId": started,
                "timestamp": self._timestamp,
                "willBeRetried": False,
            }
        }

    def _finished(
        self,
        about: Message,
        status: str,
        message: str,
    ) -> Message:
        result = {"status": status, "duration": _NO_TIME}
        if message:
            result["message"] = message
        step = {**about, "testStepResult": result, "timestamp": self._timestamp}
        return {"testStepFinished": step}


def _source(
    uri: str,
    spec: str,
    text: str,
) -> Message:
    kind = "markdown"
    if spec.endswith(".feature"):
        kind = "plain"
    media_type = f"text/x.cucumber.gherkin+{kind}"
    return {"uri": uri, "data": text, "mediaType": media_type}


def _with_escaped_columns(tree: Message) -> Message:
    """Return a copy for the compiler. The compiler reads the name of a column as a pattern."""
    tree = deepcopy(tree)
    for node in _nodes(tree):
        for table in node["examples"]:
            for cell in table["tableHeader"]["cells"]:
                cell["value"] = re.escape(cell["value"])
    return tree


def _nodes(tree: Message) -> list[Message]:
    """Return the nodes of the scenarios in a tree, in their order."""
    children = []
    for child in tree["feature"]["children"]:
        if "rule" in child:
            children += child["rule"]["children"]
        else:
            children.append(child)
    return [child["scenario"] for child in children if "scenario" in child]


def _without_keywords(judged: JudgedScenario) -> ScenarioSpec:
    scenario = judged.scenario
    steps = tuple(replace(step, keyword="*") for step in scenario.steps)
    return replace(
        scenario,
        feature=scenario.feature or scenario.spec,
        steps=steps,
    )


def _hook(hook: str, case: _Case) -> Message:
    places = [test.place for test in case.tests]
    place = [*places, case.judged.scenario.place][0]
    path, _, number = place.rpartition(":")
    line = 1
    if number.isdecimal():
        line = max(1, int(number))
    return {
        "id": hook,
        "name": "evidence",
        "type": "AFTER_TEST_CASE",
        "sourceReference": {"uri": path or place, "location": {"line": line}},
    }
