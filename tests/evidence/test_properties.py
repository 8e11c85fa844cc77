"""What holds for any run, however its tests, tries and scenarios come."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_arena.scenarios.evidence._document import (
    Asserted,
    Facts,
    Mapping,
    Requested,
    Sabotage,
    Status,
    StepFacts,
    Try,
    as_json,
    from_json,
)
from pytest_arena.scenarios.evidence._judge import judge, merged
from pytest_arena.scenarios.evidence._lock import Lock, Locked
from pytest_arena.scenarios.specs._specification import Problem
from tests.evidence.samples import (
    RULES,
    TODAY,
    attempt,
    failure,
    mapping,
    outline,
    scenario,
    specification,
)
from tests.evidence.samples import judged as judged_alone

if TYPE_CHECKING:
    from pytest_arena.scenarios.evidence._document import Document

A = scenario("A", 10)
SCENARIOS = (
    A,
    scenario("B", 20, tags=("@manual", "@no-seed", "@survives-500")),
    outline("1", "2", name="C", line=30),
    scenario("D", 40, tags=("@no-request",)),
)
TESTS = ("t1", "t2", "t3", "t4")
TEXT = st.text(max_size=8)
PAIRS = st.dictionaries(st.sampled_from(("battles", "users")), st.integers(0, 2)).map(
    lambda held: tuple(sorted(held.items()))
)
NONE = st.none()

# As many as take a second: what they found stands below as a test of its own.
SOME = settings(max_examples=40)

requests = st.builds(
    Requested,
    method=st.sampled_from(("GET", "POST")),
    path=st.just("/battles/7/start"),
    route=st.sampled_from(("", "/battles/{battle_id}/start")),
    status=NONE | st.sampled_from((200, 404)),
    role=TEXT,
    changed=NONE | PAIRS,
    read=NONE | st.sampled_from(((), ("battles",))),
    observed=NONE | st.booleans(),
)
assertions = st.builds(
    Asserted, place=TEXT, text=TEXT, after=st.integers(0, 3), is_constant=st.booleans()
)
blocks = st.builds(
    StepFacts,
    scenario=st.sampled_from([one.key for one in SCENARIOS]),
    step=st.integers(0, 2),
    wrote=st.integers(0, 1),
    requests=st.sampled_from(((), (0,))),
    assertions=st.integers(0, 1),
)
all_facts = st.builds(
    Facts,
    seeded=NONE | PAIRS,
    requests=st.lists(requests, max_size=2).map(tuple),
    first=st.integers(0, 1),
    asserted=st.lists(assertions, max_size=2).map(tuple),
    steps=st.lists(blocks, max_size=3).map(tuple),
    seen=st.sampled_from(((), ("ACTIVE",))),
    off=st.dictionaries(st.sampled_from(("seeded", "requested", "asserted")), TEXT).map(
        lambda held: tuple(held.items())
    ),
)
sabotages = st.builds(
    Sabotage,
    kind=st.sampled_from(("seed", "commit", "policy", "empty", "500")),
    result=st.sampled_from(("noticed", "survived", "not applicable", "unknown")),
    why=TEXT,
)
tries = st.builds(
    Try,
    test=st.sampled_from(TESTS),
    outcome=st.sampled_from(("passed", "failed", "skipped", "xfailed", "xpassed", "unfinished"))
    | st.just("passed"),
    reason=TEXT,
    place=TEXT,
    facts=NONE | all_facts,
    is_stub=st.booleans(),
    is_rerun=st.booleans(),
    sabotages=st.lists(sabotages, max_size=2).map(tuple),
)
mappings = st.builds(
    Mapping,
    test=st.sampled_from(TESTS),
    place=TEXT,
    scenario=st.sampled_from([one.key for one in SCENARIOS]),
    row=st.sampled_from(((), (("p", "1"),), (("p", "2"),))),
    is_deselected=st.booleans(),
)
problems = st.builds(
    Problem,
    spec=st.sampled_from(("docs/battles.md", "tests/t.py")),
    line=st.integers(0, 3),
    what=TEXT,
    hint=TEXT,
    is_error=st.booleans(),
)
runs = st.fixed_dictionaries(
    {
        "mappings": st.lists(mappings, max_size=6),
        "tries": st.lists(tries, max_size=6),
        "problems": st.lists(problems, max_size=2),
        "partial": st.sampled_from(("", "-k start")),
        "is_sabotaged": st.booleans(),
    }
)

ENTRIES = (
    Locked(key=A.key, rev="1:aaaaaaaa", until=TODAY, reason="later"),
    Locked(key="Battles :: D", rev="1:00000000"),
)
AGREED = replace(RULES, lock=Lock({entry.key: entry for entry in ENTRIES}))


def judged(run: dict[str, Any]) -> Document:
    """The verdict on a run, by everything that can be agreed on."""
    more = {name: held for name, held in run.items() if name not in {"mappings", "tries"}}
    spec = specification(*SCENARIOS)
    return judge(spec, run["mappings"], run["tries"], rules=AGREED, **more)


@SOME
@given(runs, st.randoms(use_true_random=False))
@pytest.mark.slow
def test_the_order_of_tests_and_tries_changes_nothing(run: dict[str, Any], chance: Any) -> None:
    """Letter for letter."""
    before = as_json(judged(run))
    for name in ("mappings", "tries", "problems"):
        chance.shuffle(run[name])
    assert as_json(judged(run)) == before


@SOME
@given(runs)
@pytest.mark.slow
def test_a_document_survives_its_file(run: dict[str, Any]) -> None:
    """Equal, and written the same again."""
    doc = judged(run)
    text = as_json(doc)
    again = from_json(text, where="x.json")
    assert again == doc
    assert as_json(again) == text


@SOME
@given(runs, tries, st.sampled_from(("failed", "unfinished")))
@pytest.mark.slow
def test_one_more_failure_never_makes_anything_better(
    run: dict[str, Any], another: Try, outcome: Any
) -> None:
    """Neither a status nor what the gate says."""
    before = judged(run)
    failed = replace(another, outcome=outcome, sabotages=())
    after = judged({**run, "tries": [*run["tries"], failed]})
    for old, new in zip(before.scenarios, after.scenarios, strict=True):
        assert new.status.rank <= old.status.rank


@SOME
@given(runs)
def test_nothing_is_proven_without_a_test_that_did_it_all(run: dict[str, Any]) -> None:
    """Seen from the facts: never a false green."""
    for one in judged(run).scenarios:
        proofs = [test for test in one.tests if test.status is Status.PROVEN]
        if one.status is Status.PROVEN:
            assert proofs
        for test in proofs:
            assert test.facts is not None
            assert test.facts.requests or "@no-request" in one.scenario.tags
            assert any(not each.is_constant for each in test.facts.asserted)
            assert test.facts.seeded or "@no-seed" in one.scenario.tags
            assert "survived" not in {
                each.result for each in test.sabotages if each.kind in {"commit", "empty"}
            }


@SOME
@given(runs, st.lists(st.integers(0, 1), min_size=6, max_size=6))
@pytest.mark.slow
def test_shards_say_what_one_run_says(run: dict[str, Any], sides: list[int]) -> None:
    """However the tests are dealt out, whole tests to one shard each."""
    side = dict(zip(TESTS, sides, strict=False))
    shards = [
        judged({**run, "tries": [one for one in run["tries"] if side[one.test] == each]})
        for each in (0, 1)
    ]
    assert as_json(merged(shards)) == as_json(judged(run))


def test_reruns_are_told_in_one_order() -> None:
    """Two processes whose tests failed for different reasons, and passed on a rerun."""
    some = [failure(reason="a"), failure(reason="b"), attempt(is_rerun=True)]
    some += [attempt(is_rerun=True)]
    assert len({judged_alone(each).reason for each in permutations(some)}) == 1


def test_two_rows_of_one_test_come_in_one_order() -> None:
    """Also from the file of a shard."""
    run = {"mappings": [mapping(one=A), mapping(one=A, row=(("p", "1"),))], "tries": []}
    assert as_json(merged([judged(run)])) == as_json(judged(run))
