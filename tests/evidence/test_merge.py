"""Documents of several runs as one."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios.evidence._document import (
    Document,
    Mapping,
    Status,
    Try,
    as_json,
    from_json,
)
from pytest_arena.scenarios.evidence._judge import judge, merged
from pytest_arena.scenarios.evidence._lock import Lock, Locked
from pytest_arena.scenarios.specs._specification import Problem
from tests.evidence.samples import (
    BLOCKS,
    RULES,
    TODAY,
    attempt,
    document,
    facts,
    failure,
    mapping,
    outline,
    scenario,
    specification,
)

A, B, C = (scenario(name, line) for name, line in (("A", 10), ("B", 20), ("C", 30)))
ROWS = outline("1", "2", name="Rows", line=40)
MAPS = (
    mapping("a", A),
    mapping("b", B),
    mapping("b2", B),
    mapping("r1", ROWS, row=(("p", "1"),)),
    mapping("r2", ROWS, row=(("p", "2"),)),
)
IN_BLOCKS = tuple(replace(one, scenario=A.key) for one in BLOCKS)
TRIES = (
    attempt("a", facts=facts(steps=IN_BLOCKS)),
    attempt("b", facts=facts(asserted=(), seen=())),
    attempt("b2", "skipped"),
    attempt("r1", facts=facts(seen=())),
    failure("r2"),
)
# B has drifted, and nobody has to prove C yet.
ENTRIES = (
    Locked(key=A.key, rev=A.rev),
    Locked(key=B.key, rev="1:00000000"),
    Locked(key=C.key, rev=C.rev, until=TODAY, reason="later"),
    Locked(key=ROWS.key, rev=ROWS.rev),
)
AGREED = replace(RULES, lock=Lock({entry.key: entry for entry in ENTRIES}))


def run(tries: Any, maps: Any = MAPS, **more: Any) -> Document:
    """A run, as its file says it."""
    doc = document(tries, maps, **{"of": [A, B, C, ROWS], "rules": AGREED, **more})
    return from_json(as_json(doc), where="shard.json")


def shards(*parts: tuple[Try, ...], **more: Any) -> list[Document]:
    """Runs of some of the tests each; the others were deselected."""
    return [run(part, **{"partial": "2 shards", **more}) for part in parts]


@pytest.mark.parametrize("cut", range(len(TRIES) + 1))
def test_shards_say_what_one_run_says(cut: int) -> None:
    """Wherever they are cut, whatever their order, each test once."""
    whole = run(TRIES)
    parts = shards(TRIES[:cut], TRIES[cut:])
    for some in permutations(parts):
        assert as_json(merged(some, is_complete=True)) == as_json(whole)


def test_shards_that_collected_only_their_part_say_it_too() -> None:
    """A file's tests in one job: the other job knows nothing of the marker."""
    parts = [
        run(TRIES[:3], MAPS[:3], partial="tests/a.py"),
        run(TRIES[3:], MAPS[3:], partial="tests/b.py"),
    ]
    assert as_json(merged(parts, is_complete=True)) == as_json(run(TRIES))


def test_without_a_shard_its_tests_are_not_run() -> None:
    """A gap if all shards were said to be there; otherwise the run stays partial."""
    parts = shards(TRIES[:1])
    whole = merged(parts, is_complete=True)
    assert [one.status.value for one in whole.scenarios] == [
        "PROVEN",
        "DRIFTED",
        "UNMAPPED",
        "NOT-RUN",
    ]
    assert [line.split(": ")[1] for line in whole.gaps] == ["DRIFTED", "NOT-RUN"]
    partial = merged(parts)
    assert (partial.partial, partial.gaps) == ("2 shards", ())


def test_a_test_that_ran_in_no_shard_is_a_gap_though_another_one_proves_its_scenario() -> None:
    """It might have failed. Shards that are not said to be all of them may lack it."""
    maps = (mapping("a", A), mapping("a2", A))
    parts = [run(TRIES[:1], maps, partial="-k a", of=[A], rules=RULES) for _ in range(2)]
    whole = merged(parts, is_complete=True)
    assert [one.status for one in whole.scenarios] == [Status.PROVEN]
    [gap] = [gap for gap in whole.gaps if "a2" in gap]
    assert "tests/test_b.py::a2 names 'Battles :: A', but ran in no shard" in gap
    assert merged(parts).gaps == ()
    ran = run([attempt("a2")], maps, partial="-k a2", of=[A], rules=RULES)
    assert merged([*parts, ran], is_complete=True).gaps == ()


def test_complete_runs_make_a_complete_run() -> None:
    """Without being told; the reasons of partial ones are kept, each once."""
    assert merged([run(TRIES), run(TRIES)]).partial == ""
    parts = shards(TRIES, TRIES) + shards(TRIES, partial="-k a")
    assert merged(parts).partial == "-k a; 2 shards"


def test_of_a_test_that_ran_twice_the_worst_counts() -> None:
    """As in one run by several processes."""
    both = [run([attempt("a")]), run([failure("a")])]
    assert {merged(some).scenarios[0].status for some in permutations(both)} == {Status.FAILED}


def test_lists_and_runs_can_be_merged() -> None:
    """What a check knows is not lost, and does not count as run."""
    rules = replace(AGREED, lists_only=True)
    check = run((), rules=rules)
    whole = merged([check, run(TRIES)])
    assert as_json(whole) == as_json(run(TRIES))
    assert merged([check, check]).is_list


def test_an_agreed_gap_counts_after_a_merge() -> None:
    """It is in the documents."""
    whole = merged(shards(TRIES), is_complete=True)
    assert whole.scenarios[2].is_excused


def test_the_best_of_a_step_is_shown() -> None:
    """By whichever shard."""
    silent = replace(IN_BLOCKS[2], assertions=0)
    hollow = attempt("a", facts=facts(steps=(*IN_BLOCKS[:2], silent)))
    maps = (mapping("a", A), mapping("a2", A))
    parts = [run([hollow], maps), run([replace(TRIES[0], test=maps[1].test)], maps)]
    steps = merged(parts).scenarios[0].steps
    assert [one.status for one in steps] == [Status.PROVEN] * 3


def test_problems_of_all_are_kept_once() -> None:
    """An orphan that two shards collected is one."""
    orphan = Problem(spec="tests/test_b.py", line=3, what="no scenario 'X'")
    parts = shards(TRIES[:2], TRIES[2:], problems=[orphan])
    assert merged(parts, is_complete=True).problems == (orphan,)


def test_documents_of_two_versions_of_a_specification_cannot_be_merged() -> None:
    """The steps of one scenario differ, or it is there in one alone."""
    newer = judge(specification(replace(A, rev="1:22222222")), [], [], rules=RULES)
    older = judge(specification(A), [], [], rules=RULES)
    for some in permutations([newer, older]):
        with pytest.raises(ScenarioError, match=r"docs/battles.md differs .* Battles :: A"):
            merged(some)
    with pytest.raises(ScenarioError, match="differs between the documents"):
        merged(judge(specification(outline("1", two)), [], [], rules=RULES) for two in ("2", "3"))
    none = judge(specification(), [], [], rules=RULES)
    with pytest.raises(ScenarioError, match="differs between the documents"):
        merged([older, none])


def test_documents_of_different_specifications_are_joined() -> None:
    """A repository may have a run for each of its packages."""
    other = replace(A, spec="other/a.md", key="Other :: A")
    maps = [Mapping(test="t", place="t:1", scenario=other.key)]
    spec = replace(specification(other), files=("other/a.md",))
    first = judge(spec, maps, [replace(attempt(), test="t")], rules=RULES)
    second = document([attempt("a")], [mapping("a", A)], of=[A])
    whole = merged([second, first])
    assert [one.status for one in whole.scenarios] == [Status.PROVEN, Status.PROVEN]
    assert (whole.specs, whole.gaps) == (("docs/battles.md", "other/a.md"), ())


def test_nothing_cannot_be_merged() -> None:
    """It would be all proven."""
    with pytest.raises(ScenarioError, match="no document to merge"):
        merged([])
