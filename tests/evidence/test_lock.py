"""The lock file: what was accepted, and what two branches make of it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios.evidence._agreed import Lock, Locked
from pytest_arena.scenarios.evidence._judge import judge, listed
from pytest_arena.scenarios.specs._specification import Problem
from tests.evidence.samples import (
    RULES,
    attempt,
    facts,
    mapping,
    outline,
    scenario,
    specification,
    step,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_arena.scenarios.specs._specification import ScenarioSpec

START = scenario()
STOP = scenario("Stop", 30)


def accepted(lock: Lock, *scenarios: ScenarioSpec, keys: Any = (), **more: Any) -> Any:
    """The lock and the lines after scenarios were accepted, each with one test."""
    spec = specification(*scenarios)
    values = {"source": "abc", **more}
    maps = [replace(mapping(f"test_{one.name}", one), **values) for one in scenarios]
    return lock.accepted(judge(spec, maps, [], rules=RULES), keys)


def read(path: Path, text: str) -> Lock:
    """A lock file of this text."""
    path.write_text(text, encoding="utf-8")
    return Lock.read(path)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """One JSON object in a line for each scenario, by key."""
    lock, _ = accepted(Lock(), STOP, START)
    assert read(tmp_path / "scenarios.lock", lock.text()) == lock
    lines = [line for line in lock.text().splitlines() if line and line[0] != "#"]
    assert len(lines) == 2
    assert lines[0].startswith('{"key": "Battles :: Start", "rev": "1:aaaaaaaa", "steps": ["Given')
    assert lines[0].endswith('"tests": {"tests/test_b.py::test_Start": "abc"}}')


def test_marks_that_end_a_line_elsewhere_end_none_here(tmp_path: Path) -> None:
    """A doc string may hold them: a lock that cannot be read again stops every run."""
    told = replace(START.steps[0], doc_string="one\u2028two\x85three")
    lock, _ = accepted(Lock(), scenario(steps=(told,)))
    assert read(tmp_path / "scenarios.lock", lock.text()) == lock
    assert read(tmp_path / "scenarios.lock", lock.text().replace("\n", "\r\n")) == lock


def test_no_file_is_an_empty_lock(tmp_path: Path) -> None:
    """Which may be written."""
    assert Lock.read(tmp_path / "none.lock") == Lock(place="none.lock")


def test_a_former_name_leads_to_the_present_one() -> None:
    """What is still called so has none, and neither has what is gone for good."""
    lock, _ = accepted(Lock(), START, STOP)
    assert lock.former_names([scenario("Begin"), STOP]) == {START.key: "Battles :: Begin"}
    assert lock.former_names([START]) == {}


def test_accepting_shows_the_steps_that_are_accepted() -> None:
    """All of a new one that is named, the difference of a changed one, nothing of the same."""
    lock, lines = accepted(Lock(), START, keys=(START.key,))
    assert lines[0] == "--- not accepted yet"
    assert "+Then its status is ACTIVE" in lines
    assert lines[-1] == "test added: tests/test_b.py::test_Start"
    assert accepted(Lock(), START)[1] == (f"new: {START.key}  {START.rev}  {START.place}",)
    assert accepted(lock, START)[1] == ()
    live = replace(START, rev="1:22222222", steps=(*START.steps[:2], step("Then it is LIVE")))
    lock, lines = accepted(lock, live)
    assert lines[:2] == (
        "--- Battles :: Start  1:aaaaaaaa",
        "+++ Battles :: Start  1:22222222  docs/battles.md:10",
    )
    assert lines[-2:] == ("-Then its status is ACTIVE", "+Then it is LIVE")
    assert lock.entries["Battles :: Start"].rev == "1:22222222"


def test_accepting_shows_what_has_become_of_the_tests() -> None:
    """Though the steps are the same."""
    lock, _ = accepted(Lock(), START)
    _, lines = accepted(lock, START, source="def")
    assert lines == ("test changed: tests/test_b.py::test_Start",)
    _, lines = accepted(lock, START, test="tests/test_b.py::other")
    assert lines == (
        "test added: tests/test_b.py::other",
        "test removed: tests/test_b.py::test_Start",
    )


def test_accepting_one_leaves_the_others_alone() -> None:
    """Also those that have drifted, or are gone."""
    lock, _ = accepted(Lock(), START, STOP)
    live = replace(START, rev="1:22222222")
    lock, lines = accepted(lock, live, replace(STOP, rev="1:33333333"), keys=[STOP.key])
    assert lock.entries[START.key].rev == "1:aaaaaaaa"
    assert lock.entries[STOP.key].rev == "1:33333333"
    assert lines == ("rev: 1:aaaaaaaa -> 1:33333333  Battles :: Stop",)
    lock, lines = accepted(lock, STOP, keys=[STOP.key])
    assert START.key in lock.entries


def test_accepting_all_drops_what_is_gone_and_leaves_out_what_has_no_test() -> None:
    """An entry of no scenario would never be looked at."""
    lock, _ = accepted(Lock(), START, STOP)
    unmapped = scenario("Unmapped", rev="1:44444444", steps=(step("When it rains"),))
    spec = specification(STOP, unmapped)
    tests = [mapping("test_Stop", STOP, source="abc")]
    lock, lines = lock.accepted(judge(spec, tests, [], rules=RULES))
    assert list(lock.entries) == [STOP.key]
    assert lines == ("gone: Battles :: Start",)


def test_accepting_all_keeps_what_was_renamed_until_a_test_has_the_new_name() -> None:
    """By the entry a marker that has the old name is told the new one."""
    lock, _ = accepted(Lock(), START, STOP)
    spec = specification(scenario("Begin"), STOP)
    tests = [mapping("test_Stop", STOP, source="abc")]
    lock, lines = lock.accepted(judge(spec, tests, [], rules=RULES))
    assert list(lock.entries) == [START.key, STOP.key]
    assert lines == (
        "kept: Battles :: Start, because no test names its new name Battles :: Begin yet",
    )


def test_accepting_a_renamed_scenario_moves_its_entry() -> None:
    """The steps are the same, so only the name is shown."""
    lock, _ = accepted(Lock(), START)
    begin = scenario("Begin")
    lock, lines = accepted(lock, begin, test="tests/test_b.py::test_Start", keys=[begin.key])
    assert list(lock.entries) == [begin.key]
    assert lines == ("renamed: Battles :: Start -> Battles :: Begin",)


def test_accepting_a_scenario_that_was_renamed_and_edited_shows_what_was_edited() -> None:
    """Not all of its steps as if they were new."""
    lock, _ = accepted(Lock(), START, scenario("Other", steps=(step("When it rains"),), rev="1:9"))
    steps = (*START.steps[:2], step("Then its status is LIVE"))
    begin = scenario("Begin", rev="1:22222222", steps=steps)
    lock, lines = accepted(lock, begin, keys=[begin.key])
    assert list(lock.entries) == [begin.key, "Battles :: Other"]
    assert lines[0] == "renamed: Battles :: Start -> Battles :: Begin"
    assert "-Then its status is ACTIVE" in lines
    assert "+Given a battle is pending" not in lines


def test_a_renamed_scenario_whose_steps_changed_is_a_gap() -> None:
    """Its new steps were not accepted. Warnings are not shown with -q, gaps always."""
    lock, _ = accepted(Lock(), START)
    rules = replace(RULES, lock=lock)
    steps = (*START.steps[:2], step("Then its status is LIVE"))
    edited = scenario("Begin", rev="1:22222222", steps=steps)
    maps = [mapping(one=edited)]
    [gap] = judge(specification(edited), maps, [attempt(facts=facts())], rules=rules).gaps
    assert "'Battles :: Start' was accepted, but now 'Battles :: Begin'" in gap
    renamed = scenario("Begin")
    maps = [mapping(one=renamed)]
    assert judge(specification(renamed), maps, [attempt(facts=facts())], rules=rules).gaps == ()


def test_steps_are_not_compared_ten_thousand_times() -> None:
    """Each time costs a millisecond. What has the very steps is found all the same."""
    steps = (step("Given nothing"),)
    gone = [scenario(f"Old {number}", steps=steps, rev=f"1:{number}") for number in range(40)]
    lock, _ = accepted(Lock(), START, *gone)
    new = [scenario(f"New {number}", steps=steps, rev=f"1:x{number}") for number in range(100)]
    new += [scenario("Renamed", rev="1:7"), scenario("Edited", rev="1:22222222")]
    problems = judge(specification(*new), [], [], rules=replace(RULES, lock=lock)).problems
    assert "'Battles :: Old 7' was accepted, but now 'Battles :: Renamed'" in str(problems)
    assert "Battles :: Edited" not in str(problems)


def test_a_row_that_is_edited_has_drifted(tmp_path: Path) -> None:
    """Its test may have but some of the columns as parameters: it would pass as before."""
    lock, _ = accepted(Lock(), outline("1", "2"))
    lock = read(tmp_path / "scenarios.lock", lock.text())
    more, edited = outline("1", "2", "3"), outline("1", "3")
    maps = [mapping(row=(("p", "1"),))]
    said = judge(specification(more), maps, [], rules=replace(RULES, lock=lock)).scenarios[0]
    assert said.standing.drifted == ""
    said = judge(specification(edited), maps, [], rules=replace(RULES, lock=lock)).scenarios[0]
    assert said.standing.drifted.startswith(
        "its rows differ from the accepted rows (was 'p=2', is 'p=3'): arena scenarios accept"
    )
    _, lines = accepted(lock, edited)
    assert "-Example p=2" in lines
    assert "+Example p=3" in lines


def test_what_is_malformed_cannot_be_accepted() -> None:
    """Nobody knows what its steps are."""
    problem = Problem(spec=START.spec, line=10, what="it has no steps", scenario=START.key)
    spec = specification(START, problems=(problem,))
    with pytest.raises(ScenarioError, match="MALFORMED: it has no steps"):
        Lock().accepted(listed(spec), [START.key])


@pytest.mark.parametrize("mark", ["<<<<<<< HEAD", "=======", ">>>>>>> theirs", "||||||| base"])
def test_the_marks_of_a_merge_conflict_are_named_with_their_line(tmp_path: Path, mark: str) -> None:
    """And what to do about them."""
    with pytest.raises(ScenarioError, match="marks of a merge conflict") as error:
        read(tmp_path / "scenarios.lock", f"# head\n\n{mark}\n")
    assert error.value.cause == f"scenarios.lock:3  {mark}"


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "7",
        '{"key": "A"}',
        '{"key": 1, "rev": "1:a"}',
        '{"key":"A","rev":"1","tests":[]}',
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    """With its number and itself."""
    with pytest.raises(ScenarioError, match=r"scenarios\.lock:2 is not a valid line") as error:
        read(tmp_path / "scenarios.lock", f"# head\n{line}\n")
    assert error.value.cause == f"scenarios.lock:2  {line}"
    assert "delete it" in error.value.fix


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    """Not with a traceback."""
    (tmp_path / "scenarios.lock").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match=r"scenarios\.lock cannot be read"):
        Lock.read(tmp_path / "scenarios.lock")
    with pytest.raises(ScenarioError, match="cannot be read"):
        Lock.read(tmp_path)


def entry(name: str, rev: str = "1:aaaaaaaa") -> Locked:
    """An entry of a lock."""
    return Locked(key=name, rev=rev, steps=("Given a",), tests=(("t", "abc"),))


def lock_of(*entries: Locked) -> Lock:
    """A lock of these."""
    return Lock({one.key: one for one in entries})


def merge(folder: Path, base: Lock, ours: Lock, theirs: Lock, *options: str) -> Any:
    """What git makes of two branches: exit status and text."""
    paths = [folder / name for name in ("ours", "base", "theirs")]
    for path, lock in zip(paths, (ours, base, theirs), strict=True):
        path.write_text(lock.text(), encoding="utf-8")
    command = ["git", "merge-file", "-p", *options, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


A, B, C, D = map(entry, "ABCD")


@pytest.mark.parametrize(
    "ours, theirs",
    [
        ((replace(A, rev="1:1"), B, C), (A, replace(B, rev="1:2"), C)),
        ((entry("AA"), A, B, C), (A, B, C, D)),
        ((A, entry("AB"), B, C), (A, B, entry("BC"), C)),
        ((A, C), (A, B, C, D)),
    ],
)
def test_branches_that_change_different_scenarios_merge(
    tmp_path: Path, ours: tuple[Locked, ...], theirs: tuple[Locked, ...]
) -> None:
    """Neighbours too: a blank line stands between them."""
    base = lock_of(A, B, C)
    done = merge(tmp_path, base, lock_of(*ours), lock_of(*theirs))
    assert done.returncode == 0, done.stdout
    both = read(tmp_path / "scenarios.lock", done.stdout)
    changed = {one for side in (ours, theirs) for one in side} - {A, B, C}
    assert changed <= set(both.entries.values())


def test_branches_that_add_at_one_place_merge_by_union(tmp_path: Path) -> None:
    """As the file's head says; without it git leaves marks, which are named."""
    base, ours, theirs = lock_of(A, D), lock_of(A, B, D), lock_of(A, C, D)
    done = merge(tmp_path, base, ours, theirs, "--union")
    both = read(tmp_path / "scenarios.lock", done.stdout)
    assert list(both.entries) == ["A", "B", "C", "D"]
    marked = merge(tmp_path, base, ours, theirs)
    with pytest.raises(ScenarioError, match="merge conflict"):
        read(tmp_path / "scenarios.lock", marked.stdout)


def test_branches_that_accept_one_scenario_differently_are_told(tmp_path: Path) -> None:
    """A union has both lines; which one holds nobody can guess."""
    ours, theirs = lock_of(replace(A, rev="1:1")), lock_of(replace(A, rev="1:2"))
    done = merge(tmp_path, lock_of(A), ours, theirs, "--union")
    with pytest.raises(ScenarioError, match="two lines of the lock file are about 'A'"):
        read(tmp_path / "scenarios.lock", done.stdout)
