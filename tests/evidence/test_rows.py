"""What is one row of an Outline worth? The page, the messages and the verdict say the same."""

from __future__ import annotations

import json
import re

import pytest

from pytest_arena.scenarios.evidence._document import Status
from pytest_arena.scenarios.evidence._judge import judge
from pytest_arena.scenarios.evidence._verdicts import row_verdict
from tests.evidence.samples import RULES, attempt, failure, mapping, outline, specification
from tests.outputs.documents import messages, page

TWO, ONE = outline("1", "2"), outline("1")
FIRST, SECOND = (row.values for row in TWO.rows)


@pytest.mark.parametrize(
    "of, rows, tries, expected",
    [
        pytest.param(TWO, [FIRST, SECOND], [attempt], "PROVEN PROVEN", id="each"),
        pytest.param(TWO, [FIRST], [attempt], "PROVEN UNMAPPED", id="one"),
        pytest.param(TWO, [()], [attempt], "PARTIAL PARTIAL", id="whole"),
        pytest.param(TWO, [FIRST, ()], [attempt], "PROVEN PARTIAL", id="one-and-whole"),
        pytest.param(TWO, [FIRST, SECOND], [failure], "FAILED FAILED", id="failed"),
        pytest.param(TWO, [FIRST, ()], [failure], "FAILED FAILED", id="whole-failed"),
        pytest.param(ONE, [()], [attempt], "PROVEN", id="whole-of-one-row"),
    ],
)
def test_a_row_is_worth_the_same_wherever_it_is_shown(
    of: object, rows: list[object], tries: list[object], expected: str
) -> None:
    """A test of the whole Outline proves no row of several, whatever it has gone through."""
    document = judge(
        specification(of),  # type: ignore[arg-type]  # a scenario
        [mapping(f"t{at}", of, row=row) for at, row in enumerate(rows)],  # type: ignore[arg-type]  # as above
        [make(f"t{at}") for at, _ in enumerate(rows) for make in tries],  # type: ignore[operator]  # a function
        rules=RULES,
    )
    [judged] = document.scenarios
    shown = re.findall(
        r"<td[^>]*><span class=\"badge is-[\w-]+\"[^>]*>([\w-]+)<", page(document, {})
    )
    told = [json.loads(line) for line in messages(document, {}).splitlines()]
    results = [one["testStepFinished"] for one in told if "testStepFinished" in one]
    passed = [one["testStepResult"]["status"] == "PASSED" for one in results]
    wanted = expected.split()
    assert [row_verdict(judged, row)[0].value for row in judged.scenario.rows] == wanted
    assert shown == wanted
    assert sum(passed) == wanted.count(Status.PROVEN.value)
