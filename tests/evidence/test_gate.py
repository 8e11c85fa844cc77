"""Why the gate fails, and what may go unproven."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena.errors import ConfigError, ScenarioError
from pytest_arena.scenarios.evidence._agreed import (
    AgreedGap,
    Lock,
    baseline_text,
    read_baseline,
    read_waivers,
)
from pytest_arena.scenarios.evidence._document import Status
from pytest_arena.scenarios.evidence._judge import Rules, judge
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
    step,
)

if TYPE_CHECKING:
    from pathlib import Path

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
    rules = replace(RULES, lists_only=True)
    drifted = replace(mapping("b", B), rev="1:00000000")
    doc = document([failure("a")], [mapping("a", A), drifted], of=[A, B, C], rules=rules)
    assert [one.status for one in doc.scenarios] == [
        Status.NOT_RUN,
        Status.DRIFTED,
        Status.UNMAPPED,
    ]
    assert [line.split(": ")[1] for line in doc.gaps] == ["DRIFTED", "UNMAPPED"]


# --- waivers ------------------------------------------------------------------------------------

MANUAL = scenario(tags=("@manual",))


def waived(
    line: str, *tries: Any, day: date = TODAY, mapped: bool = True, partial: str = ""
) -> Any:
    """The document on a scenario tagged @manual, under a waiver."""
    rules = Rules(today=day, agreed_gaps=read_waivers([line], place="pytest.ini:3"))
    return document(tries, [mapping()] * mapped, of=[MANUAL], rules=rules, partial=partial)


def test_a_waiver_lets_a_scenario_go_unproven() -> None:
    """With its reason; what else is true of it is kept."""
    doc = waived("@manual 2026-11-20 bought in May", mapped=False)
    one = doc.scenarios[0]
    assert (one.status, one.reason) == (Status.WAIVED, "until 2026-11-20: bought in May")
    assert one.also == (Status.UNMAPPED,)
    assert doc.gaps == ()


def test_a_waiver_runs_out_after_its_last_day() -> None:
    """The scenario is UNMAPPED again, and the line itself is a gap."""
    doc = waived("@manual 2026-11-20 soon", day=TODAY + timedelta(1), mapped=False)
    assert doc.scenarios[0].status is Status.UNMAPPED
    assert "has expired (until 2026-11-20: soon)" in doc.scenarios[0].reason
    assert len(doc.gaps) == 2
    part = waived("@manual 2026-11-20 soon", day=TODAY + timedelta(1), mapped=False, partial="-k a")
    assert part.gaps == ()
    assert "has expired" in str(part.problems)


def test_a_waiver_by_key_is_about_that_scenario_alone() -> None:
    """A key has blanks in it."""
    rules = Rules(
        today=TODAY, agreed_gaps=read_waivers(["Battles :: C 2027-01-01 later"], place="x")
    )
    doc = document([], [], of=[A, C], rules=rules)
    assert [one.status for one in doc.scenarios] == [Status.UNMAPPED, Status.WAIVED]


def test_a_waiver_of_nothing_is_a_gap() -> None:
    """It would wait for a scenario that has another name by now."""
    doc = waived("@manuel 2027-01-01 typo", attempt())
    assert "no scenario matches the waiver '@manuel'" in doc.gaps[0]


def test_a_document_does_not_know_where_the_project_lies() -> None:
    """What is wrong with a waiver is told at its file and line, without folders."""
    place = '/home/kim/a b/pyproject.toml:10  arena_scenario_waive = ["@x 2027-01-01 see docs/y:3"]'
    rules = Rules(today=TODAY, agreed_gaps=read_waivers(["@x 2027-01-01 later"], place=place))
    problem = document([], [], of=[A], rules=rules).problems[0]
    assert (problem.spec, problem.line) == ("pyproject.toml", 10)
    rules = replace(
        rules, agreed_gaps=read_waivers(["@x 2027-01-01 later"], place="-o x=…, or /home/kim")
    )
    assert "/home" not in str(document([], [], of=[A], rules=rules).problems[0])


def test_a_waiver_of_a_proven_scenario_is_remarked() -> None:
    """It is proven all the same."""
    one = waived("@manual 2027-01-01 later", attempt()).scenarios[0]
    assert one.status is Status.PROVEN
    assert "it is proven, so remove its waiver" in one.warnings[0]


@pytest.mark.parametrize(
    "line, what",
    [
        ("@manual", "it has no date after the name"),
        ("@manual later", "it has no date after the name"),
        ("2027-01-01 later", "it has no date after the name"),
        ("@manual 2027-01-01", "it has no reason after the date"),
        ("@manual 2027-02-30 later", "2027-02-30 is not a date of the form YYYY-MM-DD"),
        ("@manual 2027-3-1 later", "2027-3-1 is not a date of the form YYYY-MM-DD"),
        ("@manual 31.03.2027 later", "31.03.2027 is not a date of the form YYYY-MM-DD"),
    ],
)
def test_a_waiver_needs_a_day_that_can_be_and_a_reason(line: str, what: str) -> None:
    """Each mistake has its message, with the place of the option."""
    with pytest.raises(ConfigError, match=f"has an invalid waiver '{line}': {what}") as error:
        read_waivers(["", line], place="pytest.ini:3")
    assert error.value.cause == "pytest.ini:3"


def test_a_waiver_is_told_with_its_own_line(tmp_path: Path) -> None:
    """Not the first of the option, which may have many."""
    path = tmp_path / "pytest.ini"
    lines = ("@manual 2027-03-31 by hand", "@late 2027-03-31 not yet")
    path.write_text("[pytest]\narena_scenario_waive =\n    " + "\n    ".join(lines), "utf-8")
    found = read_waivers(lines, place=f"{path}:2  arena_scenario_waive =")
    assert [(one.spec, one.line) for one in found] == [("pytest.ini", 3), ("pytest.ini", 4)]


# --- baseline -----------------------------------------------------------------------------------


def known(tmp_path: Path, *lines: str) -> tuple[AgreedGap, ...]:
    """A baseline with these lines."""
    path = tmp_path / "known.txt"
    path.write_text("# known\n\n" + "\n".join(lines), encoding="utf-8")
    return read_baseline(path)


def with_baseline(baseline: tuple[AgreedGap, ...], *tries: Any, **more: Any) -> Any:
    """The document on A, B and C."""
    return of_three(*tries, rules=replace(RULES, agreed_gaps=baseline), **more)


def test_a_known_gap_does_not_fail_the_gate(tmp_path: Path) -> None:
    """A new one does, and so does a known one that has become worse."""
    baseline = known(tmp_path, "UNMAPPED  Battles :: C", "HOLLOW Battles :: B")
    doc = with_baseline(baseline, attempt("a"), attempt("b", facts=facts(asserted=())))
    assert [one.is_excused for one in doc.scenarios] == [False, False, True]
    assert [line.split(": ")[1] for line in doc.gaps] == ["NOT-RUN"]
    hollow = [attempt(name, facts=facts(asserted=())) for name in ("b", "b2")]
    assert with_baseline(baseline, attempt("a"), *hollow).gaps == ()


def test_a_known_gap_that_has_become_smaller_is_remarked(tmp_path: Path) -> None:
    """It is excused all the same; one that is as it was is not worth a word."""
    baseline = known(tmp_path, "UNMAPPED Battles :: C", "FAILED Battles :: B")
    doc = with_baseline(baseline, attempt("a"), attempt("b", facts=None), attempt("b2", facts=None))
    assert doc.gaps == ()
    assert doc.scenarios[1].warnings == ("the baseline has a worse status: FAILED",)
    assert doc.scenarios[2].warnings == ()


def test_a_known_gap_that_is_closed_must_leave_the_list(tmp_path: Path) -> None:
    """In a complete run; a partial one does not ask."""
    baseline = known(tmp_path, "UNMAPPED Battles :: C", "HOLLOW Battles :: B")
    proven = [attempt(name) for name in ("a", "b", "b2")]
    now = f"Battles :: B is PROVEN ({SPEC}:20)"
    gap = f"known.txt:4: remove this line, because {now} and no longer HOLLOW"
    assert with_baseline(baseline, *proven).gaps == (gap,)
    assert with_baseline(baseline, *proven[:2], partial="-k b").gaps == ()


def test_a_line_of_no_scenario_must_leave_the_list(tmp_path: Path) -> None:
    """It would excuse the next one of that name."""
    doc = with_baseline(known(tmp_path, "HOLLOW Battles :: D"), *map(attempt, ("a", "b", "b2")))
    assert doc.gaps[0] == (
        "known.txt:3: no scenario matches the known gap 'Battles :: D' "
        "(did you mean Battles :: C? Otherwise remove the line)"
    )


@pytest.mark.parametrize("name", ["Battles :: C", "C"])
def test_a_name_of_a_scenario_that_has_an_id_is_explained(tmp_path: Path, name: str) -> None:
    """Its id is its key: the line has no effect, and the message says what to write."""
    with_id = replace(C, key="@BTL-3")
    waiver = read_waivers([f"{name} 2027-01-01 later"], place="x")
    for gaps in (known(tmp_path, f"UNMAPPED {name}"), waiver):
        doc = document([], [], of=[with_id], rules=replace(RULES, agreed_gaps=gaps))
        advice = f"(write the key of the scenario at {C.place}: @BTL-3)"
        assert any(advice in gap for gap in doc.gaps), doc.gaps


def test_the_first_baseline_has_every_gap(tmp_path: Path) -> None:
    """And what is read again is what was written."""
    path = tmp_path / "known.txt"
    doc = of_three(attempt("a"))
    path.write_text(baseline_text(path, doc), encoding="utf-8")
    baseline = read_baseline(path)
    assert [(gap.name, gap.status) for gap in baseline] == [
        ("Battles :: B", Status.NOT_RUN),
        ("Battles :: C", Status.UNMAPPED),
    ]
    assert with_baseline(baseline, attempt("a")).gaps == ()


def test_a_baseline_only_shrinks(tmp_path: Path) -> None:
    """No new line, no worse status; what is proven or gone leaves, what is not judged stays."""
    lines = ["HOLLOW Battles :: A", "FAILED Battles :: B", "UNMAPPED Battles :: C", "STUB Gone"]
    path, before = tmp_path / "known.txt", known(tmp_path, *lines)
    partial = with_baseline(before, attempt("a"), partial="-k a")
    assert "FAILED    Battles :: B" in baseline_text(path, partial)
    assert ":: A" not in baseline_text(path, partial)
    doc = with_baseline(before, failure("a"), attempt("b", facts=None), attempt("b2", facts=None))
    path.write_text(baseline_text(path, doc), encoding="utf-8")
    assert [(gap.name, gap.status) for gap in read_baseline(path)] == [
        ("Battles :: A", Status.HOLLOW),
        ("Battles :: B", Status.UNKNOWN),
        ("Battles :: C", Status.UNMAPPED),
    ]
    known(tmp_path)
    assert "Battles" not in baseline_text(path, doc)


@pytest.mark.parametrize(
    "line", ["HOLOW Battles :: A", "HOLLOW", "PROVEN Battles :: A", "<<<<<<< HEAD"]
)
def test_a_line_that_is_none_is_shown_with_its_number(tmp_path: Path, line: str) -> None:
    """It would be left out otherwise, and nobody would know."""
    with pytest.raises(ScenarioError) as error:
        known(tmp_path, line)
    assert f"known.txt:3  {line}" in error.value.cause


def test_a_scenario_twice_in_the_baseline_is_a_mistake(tmp_path: Path) -> None:
    """Which of the two is known?"""
    with pytest.raises(ScenarioError, match="twice"):
        known(tmp_path, "HOLLOW Battles :: A", "FAILED Battles :: A")


# --- drift --------------------------------------------------------------------------------------


def test_a_marker_with_an_older_rev_has_drifted() -> None:
    """The reason has the rev to write; the place is the marker's."""
    one = judged([attempt()], [mapping(rev="1:00000000")])
    assert one.status is Status.DRIFTED
    assert 'rev="1:aaaaaaaa"' in one.reason
    assert one.place == "tests/test_b.py:12"
    assert judged([attempt()], [mapping(rev="1:aaaaaaaa")]).status is Status.PROVEN
    assert judged([failure()], [mapping(rev="1:00000000")]).status is Status.FAILED


def test_a_marker_may_name_the_rev_of_its_row() -> None:
    """Each row is hashed by itself."""
    whole = outline("1")
    rowed = replace(whole, rows=(replace(whole.rows[0], rev="1:bbbbbbbb"),))
    maps = [mapping(one=rowed, row=(("p", "1"),), rev="1:bbbbbbbb")]
    assert judged([attempt()], maps, of=rowed).status is Status.PROVEN


def locked(**more: Any) -> Rules:
    """Rules with a lock in which `Start` was accepted, as it is but for this."""
    doc = document([], [mapping(source="abc")])
    lock, _ = Lock().accepted(doc)
    (key, entry), *_ = lock.entries.items()
    return replace(RULES, lock=Lock({key: replace(entry, **more)}))


def test_steps_that_are_not_those_in_the_lock_have_drifted() -> None:
    """The reason has the first step that changed, and the command."""
    assert judged([attempt()], rules=locked()).status is Status.PROVEN
    steps = ("Given a battle is pending", "Then its status is LIVE")
    one = judged([attempt()], rules=locked(rev="1:00000000", steps=steps))
    assert one.status is Status.DRIFTED
    assert "was 'Then its status is LIVE'" in one.reason
    assert "arena scenarios accept 'Battles :: Start'" in one.reason


def test_another_version_of_the_hash_is_no_drift_by_itself() -> None:
    """The lines of the steps are compared then."""
    assert judged([attempt()], rules=locked(rev="0:whatever")).status is Status.PROVEN
    assert judged([attempt()], rules=locked(rev="0:x", steps=("a",))).status is Status.DRIFTED


def test_a_test_that_has_changed_since_it_was_accepted_is_remarked() -> None:
    """Reverse drift: no gap."""
    one = judged([attempt()], [mapping(source="def")], rules=locked())
    assert one.status is Status.PROVEN
    assert one.warnings == ("tests/test_b.py::test_start has changed since it was accepted",)
    assert judged([attempt()], [mapping(source="abc")], rules=locked()).warnings == ()


def test_a_scenario_that_was_never_accepted_is_remarked_where_others_were() -> None:
    """A project without a lock file is not asked."""
    one = judged([attempt("a")], [mapping("a", A)], of=A, rules=locked())
    assert "never accepted: arena scenarios accept 'Battles :: A'" in one.warnings
    assert judged([attempt("a")], [mapping("a", A)], of=A).warnings == ()


def test_a_renamed_scenario_is_found_by_its_steps() -> None:
    """A warning with what to do; one with other steps is only gone."""
    renamed = scenario("Begin")
    doc = document([], [mapping(one=renamed)], of=[renamed], rules=locked())
    told = [str(one) for one in doc.problems]
    assert len(told) == 1
    assert "'Battles :: Start' was accepted, but now 'Battles :: Begin'" in told[0]
    assert "arena scenarios accept 'Battles :: Begin'" in told[0]
    near = scenario("Begin", rev="1:12345678")
    doc = document([], [mapping(one=near)], of=[near], rules=locked())
    assert "has nearly the same steps" in str(doc.problems[0])
    other = scenario("Begin", rev="1:12345678", steps=(step("When it rains"),))
    doc = document([], [mapping(one=other)], of=[other], rules=locked())
    assert "no specification has it now" in str(doc.problems[0])


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
