"""Does a person see at the end of a run what is not proven, where, and why?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_arena.scenarios.evidence._document import Document, Sabotage, Standing, Status
from pytest_arena.scenarios.outputs._terminal import explained, lines, listing
from pytest_arena.scenarios.specs._reader import parse
from pytest_arena.scenarios.specs._specification import Problem, Specification
from tests.outputs.documents import a_scenario, a_test, every_status, judged, outline, proven

HOLLOW = (
    "  docs/battles.md:110  HOLLOW     One that is HOLLOW  "
    "no assertion after POST /battles/7/start (tests/test_battles.py:31)"
)


def test_each_scenario_that_is_not_proven_has_one_line() -> None:
    """Its place, its status, its name, the reason with the test's line."""
    told = lines(every_status())
    assert HOLLOW in told
    for status in Status:
        found = [line for line in told if f"  {status.value} " in line]
        assert len(found) == (status is not Status.PROVEN), status


def test_the_totals_come_last_and_alone_with_qq() -> None:
    """They name each status, and how many gaps there are."""
    document = every_status()
    totals = lines(document)[-2]
    assert totals.startswith(
        "scenarios: 1 of 14 proven (not tried: --scenarios-sabotage), 1 malformed, 1 unmapped, "
        "1 failed"
    )
    assert totals.endswith("; 13 gaps, on which --scenarios=strict would fail")
    assert lines(document, verbosity=-2) == [f"{totals}; 2 problems (shown without -qq)"]


def test_a_run_that_gaps_fail_says_so() -> None:
    """By which option; that the proven ones stood sabotage is said beside their number."""
    told = lines(every_status(is_sabotaged=True), verbosity=-2, strict="--scenarios=strict")
    assert HOLLOW.strip() in told, "with -qq too: a run that fails says why"
    totals = told[-2]
    assert totals.startswith("scenarios: 1 of 14 proven under sabotage too, 1 malformed, ")
    assert totals.endswith("; 13 gaps: this run fails (--scenarios=strict)")


def test_the_next_step_is_said_once_at_the_end() -> None:
    """Where tests are lacking, and where some have survived; not of agreed gaps."""
    hollow = judged(Status.HOLLOW, scenario=a_scenario("a"))
    sabotages = (Sabotage(kind="empty", result="survived"), Sabotage(kind="500", result="noticed"))
    survived = replace(hollow, tests=(a_test(Status.HOLLOW, sabotages=sabotages),))
    unmapped = judged(Status.UNMAPPED, scenario=a_scenario("b"), tests=())
    document = Document(scenarios=(survived, survived, unmapped, unmapped))
    stubs, others = [line for line in lines(document) if line.startswith("next: ")]
    assert "arena scenarios stubs --write tests" in stubs
    assert "@survives-empty. See the page Sabotage of" in others
    assert (
        "next: add an assertion that fails under the sabotage" in explained(survived, marker="")[-1]
    )
    assert lines(document, verbosity=-1)[-2:] == [stubs, others]
    known = tuple(replace(one, is_excused=True) for one in document.scenarios)
    assert "next: " not in "".join(lines(replace(document, scenarios=(*known, hollow))))


def test_with_v_each_of_several_tests_has_its_reason() -> None:
    """Which row has survived what: the scenario's line has room for the worst alone."""
    tests = tuple(a_test(Status.HOLLOW, f"test_x[{one}]", reason=f"why {one}") for one in "ab")
    document = Document(scenarios=(judged(Status.HOLLOW, scenario=a_scenario("a"), tests=tests),))
    told = lines(document, verbosity=1)
    assert "      HOLLOW     tests/test_battles.py::test_x[b]  why b" in told


def test_with_q_only_that_is_told_which_a_strict_run_does_not_let_pass() -> None:
    """Without headings; agreed gaps are left out. Problems are told all the same."""
    document = every_status()
    told = lines(document, verbosity=-1)
    assert HOLLOW.strip() in told
    assert told[0] == "docs/battles.md:7: no keyword: 'Givn x' (Given x)"
    assert told[1] == "tests/test_x.py:3: warning: no such scenario"
    assert len(told) == 2 + 13 + 1 + 1
    known = tuple(replace(one, is_excused=True) for one in document.scenarios)
    quiet = replace(document, scenarios=known, problems=(), gaps=())
    assert lines(quiet, verbosity=-1) == lines(quiet, verbosity=-2)


@pytest.mark.parametrize("verbosity", [-1, 0])
def test_a_part_of_the_tests_says_nothing_of_the_others(verbosity: int) -> None:
    """Not that they are unmapped: their tests may be in a file that was not collected."""
    others = (judged(Status.UNMAPPED, scenario=a_scenario(name), is_judged=False) for name in "ab")
    scenarios = (proven(a_scenario("Fine")), *others)
    assert lines(Document(scenarios=scenarios, partial="-k fine"), verbosity=verbosity) == [
        "partial run (-k fine): all tests of 1 of 3 scenarios ran",
        "scenarios: 1 of 3 proven (not tried: --scenarios-sabotage)",
    ]


def test_with_v_proven_ones_are_told_too_with_tests_and_warnings() -> None:
    """And what the gate does not ask for."""
    one = proven(a_scenario("Fine"), warnings=("`8` was never seen",))
    document = Document(scenarios=(one,))
    assert lines(document) == [
        "scenarios: 1 of 1 proven (not tried: --scenarios-sabotage); 1 warning: -v"
    ]
    assert lines(document, verbosity=1)[1:4] == [
        "  docs/battles.md:10  PROVEN     Fine",
        "      PROVEN     tests/test_battles.py::test_start",
        "      warning: `8` was never seen",
    ]


def test_scenarios_of_one_business_rule_stand_together() -> None:
    """Whatever stands between them; those without one stand below their feature."""
    document = Document(
        scenarios=tuple(
            judged(Status.UNMAPPED, scenario=a_scenario(name, requirement=rule, feature=feature))
            for name, rule, feature in [
                ("a", "BR-1", "Battles"),
                ("b", "", "Halls"),
                ("c", "BR-1", "Battles"),
            ]
        )
    )
    told = [line.split()[-1] for line in lines(document)[:5]]
    assert told == ["Battles", "a", "c", "Halls", "b"]


def test_what_a_part_of_the_tests_leaves_out_is_not_told_of() -> None:
    """What has not run is counted and not told of; it is said how many were judged."""
    document = every_status(partial="-k start", gaps=())
    told = "\n".join(lines(document))
    assert "NOT-RUN" not in told
    assert "UNMAPPED" not in told
    assert "partial run (-k start): all tests of 12 of 14 scenarios ran" in told
    fine = Document(scenarios=(proven(a_scenario("Fine")),), partial="-k start")
    assert lines(fine) == ["scenarios: 1 of 1 proven (not tried: --scenarios-sabotage)"]


def test_a_list_does_not_tell_of_tests_that_did_not_run() -> None:
    """It says which scenarios have a test."""
    scenarios = tuple(
        judged(status, scenario=a_scenario(name))
        for name, status in [("a", Status.NOT_RUN), ("b", Status.UNMAPPED)]
    )
    told = lines(Document(scenarios=scenarios, is_list=True))
    assert not any("NOT-RUN" in line for line in told)
    assert told[-2] == "scenarios: 1 of 2 with a test, 1 unmapped"


def test_a_problem_is_told_once() -> None:
    """Not again where the line of its scenario says it, nor as a gap."""
    problem = Problem(spec="docs/battles.md", line=9, what="no steps", scenario="Battles :: a")
    document = Document(
        scenarios=(judged(Status.MALFORMED, "no steps", scenario=a_scenario("a")),),
        problems=(problem, replace(problem, scenario="", line=1, what="unclosed fence")),
        gaps=(
            "docs/battles.md:10: MALFORMED: a: no steps",
            "docs/battles.md:1: unclosed fence",
            "no scenario was found",
        ),
    )
    told = "\n".join(lines(document))
    assert told.count("no steps") == 1
    assert told.count("unclosed fence") == 1
    assert "gap: no scenario was found" in told


def test_names_of_others_cannot_steer_the_terminal() -> None:
    """Escapes and line ends go; a long name is cut in its middle."""
    name = "\x1b[31mred\x07\nnext" + "x" * 200 + "end"
    told = lines(Document(scenarios=(judged(Status.UNMAPPED, scenario=a_scenario(name)),)))
    assert "\x1b" not in "".join(told)
    assert len(told) == 4
    assert len(told[1]) < 100
    assert told[1].endswith("end")
    assert "…" in told[1]


def test_an_agreed_gap_is_told_as_such() -> None:
    """With further statuses, and a place that the reason does not name."""
    one = judged(
        Status.HOLLOW,
        "no request",
        place="tests/test_x.py:3",
        also=(Status.FLAKY,),
        is_excused=True,
        standing=Standing(gap="gap until 2027-03-31: by hand"),
    )
    (told,) = [line for line in lines(Document(scenarios=(one,))) if "HOLLOW  " in line]
    assert told.endswith(
        "no request (tests/test_x.py:3) (also FLAKY) (gap until 2027-03-31: by hand)"
    )


@pytest.mark.parametrize("status", list(Status))
def test_of_each_status_it_is_explained_what_to_do(status: Status) -> None:
    """With the scenario's steps, and what its test has done."""
    one = next(one for one in every_status().scenarios if one.status is status)
    told = explained(one, marker='@pytest.mark.scenario("One")')
    assert told[0] == one.scenario.name
    assert any(line.startswith("next: ") for line in told)
    assert not any("{key}" in line or "{marker}" in line for line in told)
    assert any("When I POST to /battles/{battle_id}/start" in line for line in told)
    assert any(line.startswith(status.value) for line in told)


def test_an_explanation_shows_the_evidence_of_each_test() -> None:
    """Rows, requests, assertions, sabotage."""
    told = "\n".join(explained(proven(a_scenario("Fine"), 0, 1), marker=""))
    for text in (
        "seeded     battles 1, players 4",
        "POST /battles/7/start 303, route /battles/{battle_id}/start, as mc, changed battles 1",
        "battle.status == 'ACTIVE'  (tests/test_battles.py:31, after the last request)",
        "empty  noticed: assert '' == 'ACTIVE'",
        "Given a battle exists with status PENDING  PROVEN",
    ):
        assert text in told


def test_a_command_to_paste_is_quoted_for_the_shell() -> None:
    """A name may hold an apostrophe, or a dollar."""
    told = explained(judged(Status.NOT_RUN, scenario=a_scenario("The MC's $1")), marker="")
    assert (
        "arena scenarios explain 'Battles :: The MC'\"'\"'s $1' --json scenarios.json" in told[-1]
    )


def test_a_listing_shows_places_steps_rows_and_rules() -> None:
    """And how many there are of each."""
    rule = a_scenario("plain", rule="Fair")
    specification = Specification(
        files=("docs/battles.md",),
        features=parse("Feature: Battles\n", "x.feature").features,
        scenarios=(rule, outline()),
        problems=(Problem(spec="docs/battles.md", line=4, what="odd", is_error=False),),
    )
    assert listing(specification) == [
        "Feature: Battles",
        "  docs/battles.md:10   3 steps  plain [BR-BTL-001, rule Fair]",
        "  docs/battles.md:100  3 steps, 2 rows  <who> gets <number> [BR-BTL-001]",
        "docs/battles.md:4: warning: odd",
        "1 feature, 2 scenarios, 6 steps in 1 file; 1 problem",
    ]


def test_a_scenario_that_one_of_its_tests_proves_is_not_at_odds_with_the_part_that_ran() -> None:
    """The others did not run. What is counted is named: tests there, proofs here."""
    half = replace(proven(a_scenario("Fine")), is_judged=False)
    assert lines(Document(scenarios=(half,), partial="-k fine")) == [
        "partial run (-k fine): all tests of 0 of 1 scenarios ran",
        "scenarios: 1 of 1 proven (not tried: --scenarios-sabotage)",
    ]
