"""Why the gate fails, and what may go unproven."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from pytest_arena.scenarios.evidence._document import Status
from pytest_arena.scenarios.evidence._judge import Rules, judge
from pytest_arena.scenarios.evidence._lock import Lock, Locked
from pytest_arena.scenarios.specs._specification import Problem
from tests.evidence.samples import (
    RULES,
    SPEC,
    TODAY,
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

A, B, C = (scenario(name, line) for name, line in (("A", 10), ("B", 20), ("C", 30)))
ORPHAN = Problem(spec="tests/test_b.py", line=7, what="no scenario is called 'Strat'")


def of_three(*tries: Any, **more: Any) -> Any:
    """A document on A, which has a test, B, which has two, and C, which has none."""
    maps = [mapping("a", A), mapping("b", B), mapping("b2", B)]
    return document(tries, maps, of=[A, B, C], **more)


def test_a_complete_run_asks_for_every_scenario() -> None:
    """One line for each that is not proven, with its place first."""
    doc = of_three(attempt("a"))
    assert doc.gaps == (
        f"{SPEC}:20: NOT-RUN: B: not run (tests/test_b.py:12)",
        f"{SPEC}:30: UNMAPPED: C: no test names it",
    )
    assert of_three(attempt("a"), attempt("b"), attempt("b2")).gaps == doc.gaps[1:]


def test_a_partial_run_asks_only_for_scenarios_whose_tests_all_ran() -> None:
    """Neither UNMAPPED nor NOT-RUN nor an orphan fails it."""
    doc = of_three(attempt("a"), attempt("b", facts=None), partial="-k a", problems=[ORPHAN])
    assert doc.gaps == ()
    assert [one.is_judged for one in doc.scenarios] == [True, False, False]
    hollow = of_three(attempt("a", facts=facts(asserted=())), partial="-k a")
    assert [line.split(": ")[1] for line in hollow.gaps] == ["HOLLOW"]


def test_rows_without_a_test_do_not_fail_a_partial_run() -> None:
    """Their tests may be in a file that was not collected."""
    one = outline("1", "2")
    maps = [mapping("t", one, row=(("p", "1"),))]
    doc = document([attempt("t")], maps, of=[one], partial="tests/test_b.py")
    assert (doc.scenarios[0].status, doc.gaps) == (Status.PARTIAL, ())
    assert document([attempt("t")], maps, of=[one]).gaps


def test_orphans_and_modules_that_were_not_collected_fail_a_complete_run() -> None:
    """As the problem is worded."""
    doc = of_three(*map(attempt, ("a", "b", "b2")), problems=[ORPHAN])
    assert "tests/test_b.py:7: no scenario is called 'Strat'" in doc.gaps


@pytest.mark.parametrize("partial", ["", "-k a"])
def test_a_file_that_cannot_be_read_fails_every_run(partial: str) -> None:
    """Nobody knows which scenarios are in it; those that were read are judged as ever."""
    problem = Problem(spec=SPEC, line=3, what="expected a step, got 'Whan'")
    spec = specification(scenario(), problems=(problem,))
    doc = judge(spec, [mapping()], [attempt()], rules=RULES, partial=partial)
    assert doc.gaps == (f"{SPEC}:3: expected a step, got 'Whan'",)
    assert doc.scenarios[0].status is Status.PROVEN


@pytest.mark.parametrize("partial", ["", "-k a"])
def test_a_malformed_scenario_fails_every_run_once(partial: str) -> None:
    """The specification was read as a whole; its problem and its status are one gap."""
    problem = Problem(spec=SPEC, line=10, what="it has no steps", scenario=scenario().key)
    doc = judge(
        specification(scenario(), problems=(problem,)), [], [], rules=RULES, partial=partial
    )
    assert doc.gaps == (f"{SPEC}:10: MALFORMED: Start: it has no steps",)


def test_no_scenario_at_all_is_a_gap() -> None:
    """Nothing proven is not all proven."""
    assert judge(specification(), [], [], rules=RULES).gaps == ("no scenario was found",)


def test_where_nothing_is_run_mapped_scenarios_are_no_gap() -> None:
    """UNMAPPED, DRIFTED and MALFORMED are; tries are not looked at."""
    lock = Lock({B.key: Locked(key=B.key, rev="1:00000000")})
    rules = replace(RULES, lists_only=True, lock=lock)
    maps = [mapping("a", A), mapping("b", B)]
    doc = document([failure("a")], maps, of=[A, B, C], rules=rules)
    assert [one.status for one in doc.scenarios] == [
        Status.NOT_RUN,
        Status.DRIFTED,
        Status.UNMAPPED,
    ]
    assert [line.split(": ")[1] for line in doc.gaps] == ["DRIFTED", "UNMAPPED"]


# --- the lock -----------------------------------------------------------------------------------


def locked(rev: str = "1:aaaaaaaa", until: date | None = None, *, day: date = TODAY) -> Rules:
    """Rules with a lock in which `Start` was accepted, with or without a gap."""
    entry = Locked(key=scenario().key, rev=rev, until=until, reason="bought in May")
    return Rules(today=day, lock=Lock({entry.key: entry}))


def test_a_gap_lets_a_scenario_go_unproven_until_its_day() -> None:
    """Its status stays true. From the next day on the run fails."""
    rules = locked(until=TODAY)
    doc = document([], [], rules=rules)
    assert (doc.scenarios[0].status, doc.scenarios[0].is_excused) == (Status.UNMAPPED, True)
    assert doc.gaps == ()
    [gap] = document([], [], rules=replace(rules, today=TODAY + timedelta(1))).gaps
    assert "its gap until 2026-11-20: bought in May is over" in gap


def test_a_gap_of_a_proven_scenario_is_remarked() -> None:
    """It is proven all the same."""
    one = judged([attempt()], rules=locked(until=TODAY))
    assert (one.status, one.is_excused) == (Status.PROVEN, False)
    assert "it is proven, so remove its gap until 2026-11-20" in one.warnings[0]


def test_steps_that_are_not_those_in_the_lock_have_drifted() -> None:
    """The reason has the command."""
    assert judged([attempt()], rules=locked()).status is Status.PROVEN
    one = judged([attempt()], rules=locked("1:00000000"))
    assert one.status is Status.DRIFTED
    assert "arena scenarios accept 'Battles :: Start'" in one.reason
    assert judged([failure()], rules=locked("1:00000000")).status is Status.FAILED


def test_a_scenario_that_was_never_accepted_is_remarked_where_others_were() -> None:
    """A project without a lock file is not asked."""
    one = judged([attempt("a")], [mapping("a", A)], of=A, rules=locked())
    assert "never accepted: arena scenarios accept 'Battles :: A'" in one.warnings
    assert judged([attempt("a")], [mapping("a", A)], of=A).warnings == ()


def test_an_accepted_scenario_that_no_specification_has_is_a_warning() -> None:
    """It was removed, or has another name."""
    [problem] = document([], [], of=[A], rules=locked()).problems
    assert not problem.is_error
    assert "'Battles :: Start' was accepted, but no specification has it now" in str(problem)


@pytest.mark.parametrize("tag", ["@no-sed", "@survives-emtpy", "@No-Seed"])
def test_a_tag_that_was_meant_to_excuse_is_told(tag: str) -> None:
    """It would do nothing, without a word; once for each file."""
    found = [replace(one, tags=(tag,)) for one in (A, B)]
    problems = document([attempt("a")], [mapping("a", A)], of=found).problems
    assert [(one.line, one.is_error) for one in problems] == [(A.line, False)]
    assert f"{tag} has no effect in pytest-arena" in problems[0].what


@pytest.mark.parametrize("tag", ["@no-seed", "@survives-500", "@no-ui", "@BTL-3", "@slow"])
def test_tags_of_anybody_else_are_not_spoken_of(tag: str) -> None:
    """A specification has tags for many."""
    assert document([attempt("a")], [mapping("a", A)], of=[replace(A, tags=(tag,))]).problems == ()
