"""One strict run of tests with blocks, each of which shows a rule about steps and outcomes."""

from __future__ import annotations

import re

import pytest

from tests.scenarios.projects import Results, project

PROVEN = (
    "Each Then is checked",
    "The blocks are nested",
    "Its When checks the answer",
    "One Then has two blocks",
    "It fails by a call",
    "The list is empty",
    "A status alone",
    "One of two tests proves",
)
OTHERS = {
    "Two of three check nothing": ("HOLLOW", "Then the answer is ACTIVE (steps.feature:12)"),
    "A block is of another scenario": ("HOLLOW", "checks nothing for: Then no judge is called"),
    "A Then checks an earlier answer": ("HOLLOW", "its test passes whatever the app answers"),
    "An error stops a Then": ("HOLLOW", "Then it is in the list (steps.feature:24, IndexError"),
    "One of two tests fails": ("FAILED", "assert '<b>Dune</b>' in"),
    "It is expected to fail and passes": ("FAILED", "expected to fail, and passes: issue 7"),
    "It must fail and passes": ("FAILED", "issue 8"),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    example = project("steps", tmp_path_factory.mktemp("steps"))
    return Results.of(example, "-v", "--scenarios=strict", "--scenarios-out=html:page.html")


def _page(results: Results) -> str:
    return (results.run.folder / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PROVEN)
def test_an_assertion_fails_in_a_block_of_each_then(results: Results, name: str) -> None:
    """The test goes on after a block, so that each step gets its verdict."""
    assert results.statuses[name] == "PROVEN", results.reason(name)
    steps = results.attempt(name)["sabotage"]["steps"]
    assert all(step["by"] for step in steps), steps


@pytest.mark.parametrize("name", OTHERS)
def test_each_other_status_has_its_reason(results: Results, name: str) -> None:
    """The terminal, the page and the document have the same reason."""
    status, reason = OTHERS[name]
    assert results.statuses[name] == status, results.reason(name)
    assert reason in results.reason(name)
    results.run.says(f"{name}  {results.reason(name)}")


def test_a_then_without_a_failed_assertion_is_named(results: Results) -> None:
    """A step that is checked is not named."""
    reason = results.reason("Two of three check nothing")
    assert "Then no judge is called" in reason
    assert "the list has it" not in reason
    assert "Then no judge is called (steps.feature:14)" in _page(results)
    steps = results.attempt("Two of three check nothing")["sabotage"]["steps"]
    assert {step["text"]: step["by"] and step["by"]["what"] for step in steps} == {
        "Then the answer is ACTIVE": None,
        "Then the list has it": "GET /battles",
        "Then no judge is called": None,
    }


def test_each_row_has_its_verdict(results: Results) -> None:
    """The battle of the second row was ACTIVE before the request."""
    rows = [each for each in results.document["scenarios"] if each["row"]]
    assert [row["status"] for row in rows] == ["PROVEN", "HOLLOW"]
    assert re.search("before=ACTIVE.*Test checks too little</span>", _page(results))


def test_the_kind_of_the_wrong_answer_is_said(results: Results) -> None:
    weak = results.reason("A status alone")
    assert weak != results.reason("Each Then is checked")
    assert results.attempt("A status alone")["sabotage"]["kinds"] == {"wrong": False, "500": True}
    assert weak in _page(results)
    results.run.says(weak)


def test_a_request_has_changed_what_it_has_committed(results: Results) -> None:
    """The second request has rolled its INSERT back. The last two were sent at once."""
    requests = results.facts("A refused request changes nothing")["requests"]
    assert [request["changed"] for request in requests] == [["judges"], [], None, None]
    assert "answered 409, changed" not in _page(results)
