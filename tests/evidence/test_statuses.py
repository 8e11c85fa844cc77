"""The status of a scenario, by what became of its tests."""

from __future__ import annotations

from itertools import permutations

import pytest

from pytest_arena.scenarios.evidence._document import Mapping, Sabotage, Status, Try
from pytest_arena.scenarios.evidence._judge import judge, listed
from pytest_arena.scenarios.specs._specification import Problem
from tests.evidence.samples import (
    RULES,
    SPEC,
    attempt,
    document,
    facts,
    failure,
    judged,
    mapping,
    outline,
    scenario,
    specification,
)


def test_a_test_that_seeds_requests_asserts_and_passes_proves_its_scenario() -> None:
    """Nothing is left to be said of it."""
    one = judged([attempt()])
    assert (one.status, one.reason, one.place, one.also) == (Status.PROVEN, "", "", ())
    assert one.warnings == ()


@pytest.mark.parametrize(
    "tries, status, reason",
    [
        ([], "NOT-RUN", "not run"),
        ([failure()], "FAILED", "assert 404 == 200"),
        ([attempt(outcome="unfinished", facts=None)], "FAILED", "its process ended"),
        ([failure(is_stub=True, reason="todo")], "STUB", "todo"),
        ([attempt(outcome="xfailed", reason="bug 7")], "XFAIL", "bug 7"),
        ([attempt(outcome="xpassed")], "XPASS", "passed, though expected to fail"),
        ([attempt(outcome="skipped", reason="no Redis")], "SKIPPED", "no Redis"),
        ([attempt(facts=None)], "UNKNOWN", "did not record what it did"),
    ],
)
def test_what_became_of_the_only_test_is_said(tries: list[Try], status: str, reason: str) -> None:
    """Its outcome is the scenario's, with the reason."""
    one = judged(tries)
    assert one.status is Status(status)
    assert reason in one.reason
    assert one.tests[0].status is one.status


def test_a_reason_holds_no_password() -> None:
    """It is a failure's first line, and the page is published."""
    one = judged([failure(reason="cannot connect: postgresql://me:s3cret@db/shop")])
    assert one.reason == "cannot connect: postgresql://me:***@db/shop"


def test_a_scenario_without_a_test_is_unmapped() -> None:
    """Tries of tests that name no scenario change nothing."""
    assert judged([attempt()], []).status is Status.UNMAPPED


def test_a_deselected_test_is_not_run() -> None:
    """Its scenario is not UNMAPPED: a test exists."""
    one = judged([], [mapping(is_deselected=True)])
    assert (one.status, one.reason) == (Status.NOT_RUN, "deselected")


def test_a_test_that_passes_only_on_a_rerun_is_flaky() -> None:
    """Neither proven nor failed, and the failure is told; facts are those of the last try."""
    one = judged([failure(facts=None), attempt(is_rerun=True)])
    assert one.status is Status.FLAKY
    assert "assert 404 == 200" in one.reason
    assert one.tests[0].facts is not None


def test_a_rerun_is_flaky_though_the_failure_before_it_never_arrived() -> None:
    """It was run again for a reason."""
    one = judged([attempt(is_rerun=True)])
    assert (one.status, one.reason) == (Status.FLAKY, "passed in a rerun")


def test_a_test_that_fails_on_all_reruns_failed() -> None:
    """However often."""
    assert judged([failure(), failure(is_rerun=True)]).status is Status.FAILED


@pytest.mark.parametrize(
    "tries, status",
    [
        ([attempt(), attempt()], "PROVEN"),
        ([attempt(), failure()], "FAILED"),
        ([attempt(), failure(), attempt(is_rerun=True)], "FLAKY"),
        ([failure(), attempt(is_rerun=True), failure(), failure(is_rerun=True)], "FAILED"),
        ([attempt(), attempt(outcome="unfinished", facts=None)], "FAILED"),
        ([attempt(), attempt(outcome="skipped")], "SKIPPED"),
    ],
)
def test_where_several_processes_ran_a_test_the_worst_counts(tries: list[Try], status: str) -> None:
    """Whatever came first: `--dist=each` sends them in any order."""
    assert {judged(some).status for some in permutations(tries)} == {Status(status)}


def test_one_test_that_proves_is_enough_if_none_failed() -> None:
    """The others' statuses are kept, the worst first."""
    maps = [mapping("test_a"), mapping("test_b"), mapping("test_c")]
    tries = [attempt("test_a"), attempt("test_b", "skipped"), attempt("test_c", "xfailed")]
    one = judged(tries, maps)
    assert (one.status, one.also) == (Status.PROVEN, (Status.XFAIL, Status.SKIPPED))
    assert judged([*tries[:2], failure("test_c")], maps).status is Status.FAILED


def test_a_test_that_does_not_prove_is_named_beside_one_that_does() -> None:
    """As a parameter set that is skipped, or a known bug: nothing else of the run shows it."""
    maps = [mapping("test_a"), mapping("test_b"), mapping("test_c"), mapping("test_d")]
    tries = [attempt("test_a"), attempt("test_b", "xfailed", reason="bug 7")]
    one = judged([*tries, attempt("test_c", facts=facts(asserted=()))], maps)
    assert one.status is Status.PROVEN
    xfail, hollow = one.warnings  # test_d was not run
    assert xfail.endswith("::test_b is XFAIL, but another test proves the scenario: bug 7")
    assert "::test_c is HOLLOW, but another test proves the scenario: no assertion" in hollow


def test_without_a_proof_the_worst_test_speaks() -> None:
    """With its own reason and place."""
    maps = [mapping("test_a"), mapping("test_b", place="tests/test_b.py:40")]
    tries = [attempt("test_a", facts=None)]
    tries += [attempt("test_b", "skipped", reason="later", place="tests/test_b.py:41")]
    one = judged(tries, maps)
    assert (one.status, one.reason, one.place) == (Status.SKIPPED, "later", "tests/test_b.py:41")
    assert one.also == (Status.UNKNOWN,)


def test_the_same_mapping_from_several_processes_counts_once() -> None:
    """Each worker sends the whole map."""
    one = judged([attempt()], [mapping(), mapping(is_deselected=True), mapping()])
    assert len(one.tests) == 1
    assert one.status is Status.PROVEN


def rows(*names: str) -> list[Mapping]:
    """Mappings of tests to rows, by the row's value; none for the whole Outline."""
    one = outline("1", "2", "3")
    return [mapping(f"t{name}", one, row=(("p", name),) if name else ()) for name in names]


@pytest.mark.parametrize(
    "named, outcomes, status, reason",
    [
        ("123", {}, "PROVEN", ""),
        ("12", {}, "PARTIAL", "2 of 3 rows are proven, but not: p=3"),
        ("1", {}, "PARTIAL", "1 of 3 rows are proven, but not: p=2 | p=3"),
        ("123", {"2": "skipped"}, "SKIPPED", "skipped"),
        ("123", {"2": "failed"}, "FAILED", "failed"),
        ("12", {"2": "skipped"}, "SKIPPED", "skipped"),
        (
            " ",
            {},
            "PARTIAL",
            "0 of 3 rows are proven, but not: p=1 | p=2 | p=3 (a test of the whole",
        ),
        ("123 ", {}, "PROVEN", ""),
        ("123 ", {"": "failed"}, "FAILED", "failed"),
        ("123 ", {"": "skipped"}, "PROVEN", ""),
    ],
)
def test_each_row_asks_for_a_test_of_its_own(
    named: str, outcomes: dict[str, str], status: str, reason: str
) -> None:
    """An Outline is proven row by row; a test of the whole of it makes it PARTIAL at most."""
    names = [name.strip() for name in named]
    tries = [attempt(f"t{name}", outcomes.get(name, "passed")) for name in names]
    one = judged(tries, rows(*names), of=outline("1", "2", "3"))
    assert one.status is Status(status)
    assert one.reason.startswith(reason)


def test_the_reason_of_some_rows_names_them() -> None:
    """One that all rows have is said once."""
    survived = Sabotage(kind="seed", result="survived")
    idle = facts(asserted=())
    tries = [attempt("t1", sabotages=(survived,)), attempt("t2", sabotages=(survived,))]
    one = outline("1", "2", "3")
    some = judged([*tries, attempt("t3", facts=idle)], rows("1", "2", "3"), of=one)
    assert "still passes with its seed removed (p=1 | p=2); no assertion" in some.reason
    assert some.reason.endswith(" (p=3)")
    every = judged([*tries, attempt("t3", sabotages=(survived,))], rows("1", "2", "3"), of=one)
    assert every.reason == "still passes with its seed removed"


def test_an_outline_whose_rows_all_have_a_test_is_not_partial() -> None:
    """What is wrong with one of them says it all."""
    tries = [attempt("t1"), attempt("t2", "skipped"), attempt("t3")]
    assert judged(tries, rows("1", "2", "3"), of=outline("1", "2", "3")).also == ()
    assert judged(tries[:2], rows("1", "2"), of=outline("1", "2", "3")).also == (Status.PARTIAL,)


def test_a_row_that_is_written_twice_needs_one_test() -> None:
    """It was counted as unproven, beside its proof."""
    one = outline("1", "2", "1")
    tries = [attempt("t1"), attempt("t2")]
    assert judged(tries, rows("1", "2"), of=one).status is Status.PROVEN


def test_an_outline_of_one_row_is_proven_by_a_test_of_the_whole() -> None:
    """There is no other row that it could have left out."""
    one = outline("1")
    assert judged([attempt()], [mapping(one=one)], of=one).status is Status.PROVEN


def test_what_is_wrong_with_a_scenario_comes_before_its_tests() -> None:
    """MALFORMED with the reader's words; the tests' status is kept."""
    problem = Problem(spec=SPEC, line=10, what="it has no steps", scenario=scenario().key)
    spec = specification(scenario(), problems=(problem,))
    one = judge(spec, [mapping()], [failure()], rules=RULES).scenarios[0]
    assert (one.status, one.reason) == (Status.MALFORMED, "it has no steps")
    assert one.also == (Status.FAILED,)
    assert [one.status for one in listed(spec).scenarios] == [Status.MALFORMED]


def test_two_scenarios_of_one_name_are_each_told_their_own_problem() -> None:
    """Both are malformed, each with the place of the other."""
    twins = (scenario(line=10), scenario(line=50))
    problems = tuple(
        Problem(spec=SPEC, line=line, what=f"the same name at {other}", scenario=twins[0].key)
        for line, other in ((10, 50), (50, 10))
    )
    doc = listed(specification(*twins, problems=problems))
    assert [one.reason for one in doc.scenarios] == ["the same name at 50", "the same name at 10"]


def test_a_warning_of_the_reader_does_not_make_a_scenario_malformed() -> None:
    """It stays among the problems."""
    problem = Problem(
        spec=SPEC, line=10, what="begins with And", scenario=scenario().key, is_error=False
    )
    doc = judge(
        specification(scenario(), problems=(problem,)), [mapping()], [attempt()], rules=RULES
    )
    assert doc.scenarios[0].status is Status.PROVEN
    assert (doc.problems, doc.gaps) == ((problem,), ())


def test_a_list_says_nothing_of_tests_and_has_no_gaps() -> None:
    """Scenarios come by file and line."""
    doc = listed(specification(scenario("B", 30), scenario("A", 10)))
    assert [(one.scenario.name, one.status) for one in doc.scenarios] == [
        ("A", Status.NOT_RUN),
        ("B", Status.NOT_RUN),
    ]
    assert doc.gaps == ()
    assert doc.is_list


def test_a_mapping_to_no_scenario_is_a_problem() -> None:
    """It is never left out without a word."""
    doc = document([attempt()], [mapping(), mapping(scenario="Battles :: Nope")])
    assert "'Battles :: Nope', which no specification has" in str(doc.problems[0])
    assert len(doc.gaps) == 1
