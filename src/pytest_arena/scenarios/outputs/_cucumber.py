"""How does the document become Cucumber Messages?

One JSON object a line, as ``@cucumber/html-formatter`` and other readers of Cucumber's take them:
https://github.com/cucumber/messages. A pickle stands for a scenario, or a row of an Outline. A step
has a result where the test has a block for it; else it is ``UNKNOWN``. The scenario's own result
is that of a hook at the end, which the evidence is attached to as JSON: no step is said to have
passed that nobody has looked at.
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
)
from pytest_arena.scenarios.evidence._verdicts import row_verdict
from pytest_arena.scenarios.outputs._chapters import lines_as_read
from pytest_arena.scenarios.outputs._phrases import reason
from pytest_arena.scenarios.specs._reader import parse
from pytest_arena.scenarios.specs._specification import Row, ScenarioSpec

Message = dict[str, Any]

# What is green and yet no proof is PENDING, which passes no strict run of Cucumber either.
# UNDEFINED is for steps alone: its formatter fails on a hook that is.
_RESULTS = {
    **dict.fromkeys(Status, "PENDING"),
    **dict.fromkeys((Status.MALFORMED, Status.FAILED, Status.XPASS), "FAILED"),
    **dict.fromkeys(
        (Status.XFAIL, Status.SKIPPED, Status.NOT_RUN, Status.WAIVED), "SKIPPED"
    ),
    Status.PROVEN: "PASSED",
}
# A verdict on the scenario itself, which holds for each of its rows.
_OF_THE_WHOLE = {Status.MALFORMED, Status.UNMAPPED, Status.DRIFTED, Status.WAIVED}
_PROTOCOL = "34.0.0"
_NO_TIME = {"seconds": 0, "nanos": 0}


def messages(document: Document, sources: Mapping[str, str]) -> str:
    """Return the messages; ``sources`` are the specifications' texts by their paths.

    The same document gives the same messages but for their time, which is now, or that of
    ``SOURCE_DATE_EPOCH``: formatters show when a run was. The trees are the official parser's. A
    scenario that its file does not have as it was read, or whose file is not there, comes in a tree
    of its own, with ``*`` before each step.
    """
    when = {
        "seconds": int(os.environ.get("SOURCE_DATE_EPOCH") or time.time()),
        "nanos": 0,
    }
    run = _Run(ids=map(str, count(1)), when=when)
    lines = [
        {"meta": _meta()},
        *run.trees(document.scenarios, sources),
        *run.results(is_success=not document.gaps),
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
    """One scenario, or one row of an Outline, with the pickle that stands for it."""

    judged: JudgedScenario
    row: Row | None
    pickle: Message

    @property
    def tests(self) -> list[JudgedTest]:
        """Those that are about it: of a row those for it, and those for the whole Outline."""
        rows = None if self.row is None else ((), self.row.values)
        return [test for test in self.judged.tests if rows is None or test.row in rows]

    @property
    def verdict(self) -> tuple[Status, str]:
        """The status of the scenario or the row, and why."""
        if self.row is None or self.judged.status in _OF_THE_WHOLE:
            return self.judged.status, reason(self.judged)
        return row_verdict(self.judged, self.row)

    def step_result(self, number: int) -> tuple[str, str]:
        """By the blocks of its tests; UNKNOWN where none of them has one for the step."""
        if self.verdict[0] is Status.UNMAPPED:
            return "UNDEFINED", ""
        key, steps = self.judged.scenario.key, self.judged.steps
        step = steps[number] if number < len(steps) else JudgedStep()
        # The scenario's steps are of all rows together: a test of this very row has to have it.
        blocks = [it for test in self.tests if test.facts for it in test.facts.steps]
        has_block = any(it.scenario == key and it.step == number for it in blocks)
        if step.status is None or not has_block:
            return "UNKNOWN", ""
        why = (
            ""
            if step.status is Status.PROVEN
            else f"{step.status.value}: {step.reason}"
        )
        return _RESULTS[step.status], why

    def evidence(self) -> str:
        """What is known of it as JSON."""
        content = {
            "status": self.judged.status.value,
            "reason": self.judged.reason,
            "warnings": self.judged.warnings,
            "tests": [asdict(test) for test in self.tests],
        }
        return json.dumps(
            content, indent=2, ensure_ascii=False, default=lambda status: status.value
        )


class _Run:
    """Features, then what became of their cases. Messages know each other by ids."""

    def __init__(self, ids: Iterator[str], when: Message) -> None:
        self._ids, self._when = ids, when
        self._cases: list[_Case] = []

    def trees(
        self, scenarios: Sequence[JudgedScenario], sources: Mapping[str, str]
    ) -> Iterator[Message]:
        """Yield source, tree and pickles of each feature; a file may have several."""
        for spec, of_spec in groupby(
            scenarios, key=lambda judged: judged.scenario.spec
        ):
            left = {judged.scenario: judged for judged in of_spec}
            text = sources.get(spec, "")
            content, trees = parse(text, spec), []
            readable = {
                it.line: it for it in content.scenarios if it.rows or not it.is_outline
            }
            for feature in content.features:
                tree = self._renumbered(feature.document)
                nodes = {
                    node["id"]: readable.get(node["location"]["line"])
                    for node in _nodes(tree)
                }
                judged = {id_: left.pop(it) for id_, it in nodes.items() if it in left}
                trees += [(tree, judged)] if judged else []
            for _, same in groupby(
                left.values(), key=lambda judged: judged.scenario.feature
            ):
                trees.append(self._as_read(list(same)))
            for tree, judged in trees:
                line = tree["feature"]["location"]["line"]
                tree["uri"] = spec if len(trees) == 1 else f"{spec}#L{line}"
                if spec in sources:
                    kind = "plain" if spec.endswith(".feature") else "markdown"
                    media = f"text/x.cucumber.gherkin+{kind}"
                    yield {
                        "source": {"uri": tree["uri"], "data": text, "mediaType": media}
                    }
                yield {"gherkinDocument": tree}
                yield from self._pickles(tree, judged)

    def _as_read(
        self, scenarios: list[JudgedScenario]
    ) -> tuple[Message, dict[str, JudgedScenario]]:
        lines = (line for _, line in lines_as_read(map(_without_keywords, scenarios)))
        tree = self._renumbered(
            parse("\n".join(lines), "as-read.feature").features[0].document
        )
        judged = {}
        for node, verdict in zip(_nodes(tree), scenarios, strict=True):
            node["location"] = {"line": verdict.scenario.line}
            judged[node["id"]] = verdict
        tree["feature"]["location"] = {"line": max(1, scenarios[0].scenario.line - 1)}
        return tree, judged

    def _pickles(
        self, tree: Message, judged: Mapping[str, JudgedScenario]
    ) -> Iterator[Message]:
        tree = deepcopy(tree)
        for node in _nodes(tree):
            for cell in (
                it for table in node["examples"] for it in table["tableHeader"]["cells"]
            ):
                # The compiler takes the name of a column for a pattern.
                cell["value"] = re.escape(cell["value"])
        rows = {node: iter(verdict.scenario.rows) for node, verdict in judged.items()}
        compiler = Compiler(cast("Any", self))
        for pickle in cast("list[Message]", compiler.compile(cast("Any", tree))):
            node = pickle["astNodeIds"][0]
            if node in judged:
                case = _Case(
                    judged=judged[node], row=next(rows[node], None), pickle=pickle
                )
                self._cases.append(case)
                yield {"pickle": pickle}

    def _renumbered(self, value: Any) -> Any:
        """A copy with ids that count through the whole output; the parser begins anew each time."""
        if isinstance(value, list):
            return [self._renumbered(it) for it in value]
        if not isinstance(value, dict):
            return value
        return {
            name: next(self._ids) if name == "id" else self._renumbered(it)
            for name, it in value.items()
        }

    def get_next_id(self) -> str:
        """Return an id, as the compiler of pickles asks for one."""
        return next(self._ids)

    def results(self, *, is_success: bool) -> Iterator[Message]:
        """Yield what became of each case, from the start of the run to its end."""
        run = next(self._ids)
        yield {"testRunStarted": {"timestamp": self._when, "id": run}}
        for case in self._cases:
            yield from self._case(case, run)
        end = {"success": is_success, "timestamp": self._when, "testRunStartedId": run}
        yield {"testRunFinished": end}

    def _case(self, case: _Case, run: str) -> Iterator[Message]:
        hook, test_case, started, end = (next(self._ids) for _ in range(4))
        # Without a definition a step would be UNDEFINED; there are none here, and no list says so.
        steps = [
            {"id": next(self._ids), "pickleStepId": it["id"]}
            for it in case.pickle["steps"]
        ]
        yield {"hook": _hook(hook, case)}
        yield {
            "testCase": {
                "id": test_case,
                "pickleId": case.pickle["id"],
                "testSteps": [*steps, {"id": end, "hookId": hook}],
                "testRunStartedId": run,
            }
        }
        begin = {
            "id": started,
            "testCaseId": test_case,
            "attempt": 0,
            "timestamp": self._when,
        }
        yield {"testCaseStarted": begin}
        for number, step in enumerate(steps):
            about = {"testCaseStartedId": started, "testStepId": step["id"]}
            yield {"testStepStarted": {**about, "timestamp": self._when}}
            yield self._finished(about, *case.step_result(number))
        about = {"testCaseStartedId": started, "testStepId": end}
        yield {"testStepStarted": {**about, "timestamp": self._when}}
        attachment = {
            "body": case.evidence(),
            "contentEncoding": "IDENTITY",
            "mediaType": "application/json",
            "fileName": "evidence.json",
        }
        yield {"attachment": {**about, **attachment, "timestamp": self._when}}
        status, why = case.verdict
        message = (
            ""
            if status is Status.PROVEN
            else ": ".join(filter(None, [status.value, why]))
        )
        yield self._finished(about, _RESULTS[status], message)
        done = {
            "testCaseStartedId": started,
            "timestamp": self._when,
            "willBeRetried": False,
        }
        yield {"testCaseFinished": done}

    def _finished(self, about: Message, status: str, why: str) -> Message:
        result = {
            "status": status,
            "duration": _NO_TIME,
            **({"message": why} if why else {}),
        }
        step = {**about, "testStepResult": result, "timestamp": self._when}
        return {"testStepFinished": step}


def _nodes(tree: Message) -> list[Message]:
    """The nodes of a tree's scenarios, in their order."""
    children = tree["feature"]["children"]
    every = [
        it
        for child in children
        for it in child.get("rule", {"children": [child]})["children"]
    ]
    return [child["scenario"] for child in every if "scenario" in child]


def _without_keywords(judged: JudgedScenario) -> ScenarioSpec:
    scenario = judged.scenario
    steps = tuple(replace(step, keyword="*") for step in scenario.steps)
    return replace(scenario, feature=scenario.feature or scenario.spec, steps=steps)


def _hook(hook: str, case: _Case) -> Message:
    tests = case.tests
    place = tests[0].place if tests else case.judged.scenario.place
    path, _, line = place.rpartition(":")
    where = {"line": max(1, int(line) if line.isdecimal() else 1)}
    return {
        "id": hook,
        "name": "evidence",
        "type": "AFTER_TEST_CASE",
        "sourceReference": {"uri": path or place, "location": where},
    }
