"""What a test that passed has to have done, and what a missing instrument means."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest

from pytest_arena.scenarios.evidence._document import Asserted, Facts, Sabotage, Status
from tests.evidence.samples import (
    BLOCKS,
    CHECK,
    POST,
    START,
    attempt,
    block,
    facts,
    failure,
    judged,
    mapping,
    outline,
    scenario,
    step,
)

Kind = Literal["seed", "commit", "policy", "empty", "500"]
Result = Literal["noticed", "survived", "not applicable", "unknown"]

CONSTANT = Asserted(place="tests/test_b.py:16", text="True", after=1, is_constant=True)
EARLY = Asserted(place="tests/test_b.py:14", text="battle.id", after=0)


MISSPELT = replace(POST, method="GET", path="/battle/7", route="(no route)", status=404)


def verdict(what: Facts, **more: Any) -> tuple[Status, str]:
    """Status and reason of a scenario whose only test did this."""
    one = judged([attempt(facts=what)], **more)
    return one.status, one.reason


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"seeded": ()}, "no row was seeded before its first request"),
        ({"seeded": (), "requests": ()}, "no row was seeded; no request reached the app"),
        (
            {"seeded": (), "requests": (POST, POST)},
            "(if POST /battles/7/start is preparation, send it in scenario.",
        ),
        ({"requests": ()}, "no request reached the app"),
        ({"asserted": ()}, "no assertion after POST /battles/7/start"),
        ({"asserted": (CONSTANT,)}, "could fail (tests/test_b.py:16 cannot: compare the answer"),
        ({"asserted": (EARLY,)}, "(the last assertion, tests/test_b.py:14, is before it)"),
        ({"requests": (POST, POST)}, "no assertion after POST"),
        ({"requests": (), "asserted": ()}, "no request reached the app; no assertion"),
        ({"requests": (MISSPELT,)}, "the app has no route for GET /battle/7, so it answered 404"),
        ({"requests": (MISSPELT, MISSPELT), "first": 1}, "the app has no route for GET /battle/7"),
    ],
)
def test_a_piece_of_evidence_that_is_missing_makes_it_hollow(
    change: dict[str, Any], reason: str
) -> None:
    """And the reason says which."""
    status, told = verdict(facts(**change))
    assert status is Status.HOLLOW
    assert reason in told


@pytest.mark.parametrize(
    "off, change",
    [
        ("seeded", {"seeded": None}),
        ("seeded", {"seeded": ()}),
        ("requested", {"requests": ()}),
        ("asserted", {"asserted": ()}),
    ],
)
def test_an_instrument_that_is_off_makes_it_unknown(off: str, change: dict[str, Any]) -> None:
    """Never hollow, for it may have been done; never proven, for nobody saw it."""
    status, told = verdict(facts(**change, off=((off, "python -O"),)))
    assert status is Status.UNKNOWN
    assert told.endswith(": python -O")


def test_rows_that_could_not_be_read_are_unknown() -> None:
    """Also where no instrument says that it was off."""
    assert verdict(facts(seeded=None))[0] is Status.UNKNOWN


def test_what_an_instrument_saw_before_it_broke_counts() -> None:
    """A fact is a fact."""
    assert verdict(facts(off=(("asserted", "broke"),)))[0] is Status.PROVEN


def test_hollow_is_said_before_unknown() -> None:
    """The worse of the two; the other is kept."""
    one = judged([attempt(facts=facts(seeded=None, asserted=()))])
    assert (one.status, one.also) == (Status.HOLLOW, (Status.UNKNOWN,))


def test_without_a_given_nothing_has_to_be_seeded() -> None:
    """A scenario that begins with When starts from what is there."""
    bare = scenario(steps=(step("When I POST to /battles"), step("Then it is there")))
    assert verdict(facts(seeded=()), of=bare)[0] is Status.PROVEN


@pytest.mark.parametrize(
    "tag, change, survives",
    [
        ("@no-seed", {"seeded": ()}, "seed"),
        ("@no-request", {"requests": (), "asserted": (EARLY,)}, None),
        ("@no-request", {"requests": (POST,), "asserted": (EARLY,)}, None),
    ],
)
def test_a_tag_excuses_one_piece_of_evidence(
    tag: str, change: dict[str, Any], survives: str | None
) -> None:
    """Only that: an assertion is still asked for."""
    assert verdict(facts(**change))[0] is Status.HOLLOW
    assert verdict(facts(**change), of=scenario(tags=(tag,)))[0] is Status.PROVEN
    status, _ = verdict(facts(**{**change, "asserted": ()}), of=scenario(tags=(tag,)))
    assert status is Status.HOLLOW


def test_a_tag_of_the_rows_examples_counts_for_its_test() -> None:
    """And for no other."""
    whole = outline("1", "2")
    tagged = replace(whole, rows=(replace(whole.rows[0], tags=("@no-seed",)), whole.rows[1]))
    maps = [mapping(f"t{n}", tagged, row=(("p", n),)) for n in "12"]
    tries = [attempt(f"t{n}", facts=facts(seeded=())) for n in "12"]
    one = judged(tries, maps, of=tagged)
    assert [test.status for test in one.tests] == [Status.PROVEN, Status.HOLLOW]


def test_a_path_without_a_route_that_the_row_names_is_evidence() -> None:
    """The steps of an Outline have the placeholder, those of its row the path."""
    steps = (START[0], step("When I GET <p>"), START[2])
    whole = outline("/battle/7", "/other", steps=steps)
    rows = []
    for row in whole.rows:
        [(_, path)] = row.values
        filled = (START[0], step(f"When I GET {path}"), START[2])
        rows.append(replace(row, steps=filled))
    whole = replace(whole, rows=tuple(rows))
    maps = [mapping(f"t{n}", whole, row=row.values) for n, row in enumerate(rows)]
    tries = [attempt(f"t{n}", facts=facts(requests=(MISSPELT,))) for n in range(2)]
    tests = judged(tries, maps, of=whole).tests
    assert [test.status for test in tests] == [Status.PROVEN, Status.HOLLOW]


# --- step blocks ------------------------------------------------------------------------------


def blocks(*some: Any, **more: Any) -> tuple[Status, str]:
    """The verdict on a test with these blocks."""
    return verdict(facts(steps=some, **more))


def test_blocks_that_did_what_they_are_for_prove_each_step() -> None:
    """Step by step."""
    one = judged([attempt(facts=facts(steps=BLOCKS))])
    assert one.status is Status.PROVEN
    assert [each.status for each in one.steps] == [Status.PROVEN] * 3


def test_without_blocks_nothing_is_said_of_steps() -> None:
    """A test may do without."""
    assert [each.status for each in judged([attempt()]).steps] == [None] * 3


@pytest.mark.parametrize(
    "some, more, reason",
    [
        ((BLOCKS[0], BLOCKS[1], block(2)), {}, 'no assertion in "Then its status is ACTIVE"'),
        (
            (BLOCKS[0], block(1), BLOCKS[2]),
            {},
            'no request in "When I POST to /battles/{battle_id}/start"',
        ),
        (
            (block(0), BLOCKS[1], BLOCKS[2]),
            {"seeded": ()},
            'nothing was written in "Given a battle is pending"',
        ),
        (BLOCKS[:2], {}, 'no block for "Then its status is ACTIVE"'),
    ],
)
def test_an_idle_block_makes_its_step_and_the_scenario_hollow(
    some: Any, more: dict[str, Any], reason: str
) -> None:
    """The reason names the step."""
    status, told = blocks(*some, **more)
    assert status is Status.HOLLOW
    assert reason in told
    one = judged([attempt(facts=facts(steps=some, **more))])
    assert [each.status for each in one.steps].count(Status.HOLLOW) == 1


def test_a_given_that_fixtures_have_seeded_may_be_idle() -> None:
    """What it speaks of is there."""
    assert blocks(block(0), BLOCKS[1], BLOCKS[2])[0] is Status.PROVEN


def test_a_given_that_fixtures_have_seeded_needs_no_block() -> None:
    """Else a test would have to say it in a block that holds nothing."""
    assert blocks(*BLOCKS[1:])[0] is Status.PROVEN
    assert blocks(*BLOCKS[1:], seeded=())[0] is Status.HOLLOW


def test_a_given_may_be_a_request() -> None:
    """What it changed counts as seeded by the test; a block with a request has had an effect."""
    some = (block(0, requests=(0,)), block(1, requests=(1,)), BLOCKS[2])
    late = replace(CHECK, after=2)
    what = facts(steps=some, requests=(POST, POST), asserted=(late,), first=1)
    assert verdict(what)[0] is Status.PROVEN
    idle = judged([attempt(facts=replace(what, seeded=()))])
    assert (idle.status, idle.steps[0].status) == (Status.HOLLOW, Status.PROVEN)


def test_one_when_with_a_request_is_enough_for_all() -> None:
    """`When I fill the form` and `When I send it` are one action."""
    steps = (step("When I choose"), step("When I send it"), step("Then it is there"))
    some = (block(0), block(1, requests=(0,)), block(2, asserted=1))
    assert verdict(facts(steps=some), of=scenario(steps=steps))[0] is Status.PROVEN


def test_a_background_needs_no_block() -> None:
    """Fixtures may stand for it."""
    steps = (step("Given an office", is_background=True), *scenario().steps[1:])
    one = judged([attempt(facts=facts(steps=BLOCKS[1:]))], of=scenario(steps=steps))
    assert one.status is Status.PROVEN
    assert [each.status for each in one.steps] == [None, Status.PROVEN, Status.PROVEN]


def test_a_silent_then_is_unknown_where_assertions_are_not_seen() -> None:
    """As for the test as a whole."""
    some = (*BLOCKS[:2], block(2))
    one = judged([attempt(facts=facts(steps=some, off=(("asserted", "--assert=plain"),)))])
    assert one.status is Status.UNKNOWN
    assert one.steps[2].status is Status.UNKNOWN


def test_the_best_of_several_tests_is_shown_of_a_step() -> None:
    """One without blocks hides nothing, nor does one that failed show anything."""
    maps = [mapping("a"), mapping("b"), mapping("c")]
    tries = [
        attempt("a", facts=facts(steps=(*BLOCKS[:2], block(2)))),
        attempt("b"),
        attempt("c", facts=facts(steps=BLOCKS)),
    ]
    assert [each.status for each in judged(tries, maps).steps] == [Status.PROVEN] * 3
    assert judged(tries[:2], maps).steps[2].status is Status.HOLLOW
    failed = judged([failure(facts=facts(steps=BLOCKS))])
    assert [each.status for each in failed.steps] == [None] * 3


def test_blocks_of_another_scenario_of_the_same_test_do_not_count() -> None:
    """A test may prove two."""
    other = replace(BLOCKS[2], scenario="Battles :: Stop")
    assert judged([attempt(facts=facts(steps=(other,)))]).status is Status.PROVEN


# --- sabotage ---------------------------------------------------------------------------------

KINDS: tuple[Kind, ...] = ("seed", "commit", "policy", "empty", "500")


def noticed(but: Kind | None = None, result: Result = "noticed") -> tuple[Sabotage, ...]:
    """All kinds were noticed, but for one."""
    return tuple(Sabotage(kind=kind, result=result if kind == but else "noticed") for kind in KINDS)


def after(sabotages: tuple[Sabotage, ...], *tags: str) -> tuple[Status, str]:
    """The verdict on a test that was run again with something broken."""
    one = judged([attempt(sabotages=sabotages)], of=scenario(tags=tags), is_sabotaged=True)
    return one.status, one.reason


def test_a_test_that_notices_every_sabotage_is_proven() -> None:
    """Also where one was not applicable."""
    assert after(noticed())[0] is Status.PROVEN
    assert after(noticed("commit", "not applicable"))[0] is Status.PROVEN


@pytest.mark.parametrize(
    "kind, told",
    [
        ("seed", "its seed removed"),
        ("commit", "the app's commit rolled back"),
        ("policy", "the policies of its tables disabled"),
        ("empty", "the answer emptied"),
        ("500", "the answer turned into a 500"),
    ],
)
def test_a_test_that_survives_a_sabotage_is_hollow(kind: Kind, told: str) -> None:
    """The reason names it; a tag of that kind on the scenario excuses it, and no other does."""
    survived = noticed(kind, "survived")
    assert after(survived) == (Status.HOLLOW, f"still passes with {told}")
    assert after(survived, f"@survives-{kind}")[0] is Status.PROVEN
    other = "seed" if kind == "500" else "500"
    assert after(survived, f"@survives-{other}")[0] is Status.HOLLOW


def test_no_seed_excuses_the_removed_seed() -> None:
    """There is none to remove."""
    assert after(noticed("seed", "survived"), "@no-seed")[0] is Status.PROVEN


def test_a_sabotage_without_a_result_is_unknown() -> None:
    """And so is a proof that was not tried at all though all were to be."""
    assert after(noticed("empty", "unknown"))[0] is Status.UNKNOWN
    assert after(())[0] is Status.UNKNOWN
    assert judged([attempt()]).status is Status.PROVEN


# --- what the gate does not ask for ------------------------------------------------------------


@pytest.mark.parametrize(
    "request_, said",
    [
        ({"method": "GET", "changed": ()}, "never requested: POST /battles/{battle_id}/start"),
        ({"route": "/x", "path": "/x"}, "never requested: POST /battles/{battle_id}/start"),
        ({"read": ()}, "no request read the seeded rows of battles"),
        ({"observed": False}, "the test looked at no answer"),
        ({"changed": ()}, "POST /battles/{battle_id}/start changed no row, and answered 200"),
    ],
)
def test_what_is_odd_about_a_request_is_remarked(request_: dict[str, Any], said: str) -> None:
    """E3b, E4, E5b and E6 are warnings: the scenario stays proven."""
    one = judged([attempt(facts=facts(requests=(replace(POST, **request_),)))])
    assert one.status is Status.PROVEN
    assert one.warnings == (said,)


@pytest.mark.parametrize(
    "missed",
    [
        {"path": "/battles/7/start", "method": "POST"},  # a step names it
        {"status": 405},
        {"route": ""},
        {"route": "/battles/{battle_id}"},
    ],
)
def test_other_answers_than_that_of_a_misspelt_path_are_evidence(missed: dict[str, Any]) -> None:
    """Only the router's own 404 is none."""
    request = replace(MISSPELT, **missed)
    assert verdict(facts(requests=(request,)))[0] is Status.PROVEN
    assert verdict(facts(requests=(MISSPELT, POST)))[0] is Status.HOLLOW
    asserted = replace(facts().asserted[0], after=2)
    mixed = facts(requests=(MISSPELT, POST), asserted=(asserted,))
    assert verdict(mixed)[0] is Status.PROVEN


@pytest.mark.parametrize("path, warnings", [("/", ()), ("/battles", ("never requested: GET /",))])
def test_a_step_that_names_the_root_means_the_root_alone(
    path: str, warnings: tuple[str, ...]
) -> None:
    """Each path begins with a slash, and none of them is the root for it."""
    request = replace(POST, method="GET", route=path, path=path)
    spec = scenario(steps=(START[0], step("When I GET /"), START[2]))
    one = judged([attempt(facts=facts(requests=(request,)))], of=spec)
    assert one.warnings == warnings


@pytest.mark.parametrize(
    "request_",
    [
        {"route": ""},
        {"route": "/battles/{id}/start"},
        {"route": "/v1/battles/{id}/start", "path": "/v1/battles/7/start"},
        {"route": "", "path": "/v1/battles/7/start"},
        {"path": "/battles/7/start?fast=1"},
        {"read": None},
        {"observed": None},
        {"changed": None},
        {"changed": (), "status": 404},
        {"changed": (), "status": None},
    ],
)
def test_nothing_is_remarked_where_nothing_is_odd_or_known(request_: dict[str, Any]) -> None:
    """A real path fits the template, parameters may have other names, refusals change nothing."""
    one = judged([attempt(facts=facts(requests=(replace(POST, **request_),)))])
    assert one.warnings == ()


def test_of_a_row_only_its_own_values_are_missed() -> None:
    """E7: those of other rows are no business of its test."""
    one = outline("1", "2")
    rows = tuple(
        replace(row, steps=(step(f"Given a battle of {row.values[0][1]}"),)) for row in one.rows
    )
    one = replace(one, rows=rows)
    named = [mapping(f"t{p}", one, row=(("p", p),)) for p in "12"]
    found = judged([attempt("t1", facts=facts(seen=("1",))), attempt("t2")], named, of=one)
    assert [test.warnings for test in found.tests] == [
        (),
        ("the test used 0 of 1 values of the steps, but not: 2",),
    ]


def test_requests_that_prepare_are_not_remarked_on() -> None:
    """Nobody looks at the answers of a fixture."""
    preparing = replace(POST, observed=False, changed=(), read=())
    late = replace(CHECK, after=2)
    one = judged([attempt(facts=facts(requests=(preparing, POST), asserted=(late,), first=1))])
    assert (one.status, one.warnings) == (Status.PROVEN, ())


@pytest.mark.parametrize(
    "name, change", [("observed", {"observed": False}), ("read", {"read": ()})]
)
def test_an_instrument_that_is_off_remarks_nothing(name: str, change: dict[str, Any]) -> None:
    """It would be a guess."""
    what = facts(requests=(replace(POST, **change),), off=((name, "no SQLAlchemy"),))
    assert judged([attempt(facts=what)]).warnings == ()


def test_values_of_the_steps_that_were_never_seen_are_remarked() -> None:
    """With how many were."""
    one = judged([attempt(facts=facts(seen=()))])
    assert one.warnings == ("the test used 0 of 1 values of the steps, but not: ACTIVE",)


def test_what_another_test_did_is_not_remarked() -> None:
    """A warning says what no test of the scenario did."""
    tries = [attempt("a", facts=facts(seen=())), attempt("b")]
    assert judged(tries, [mapping("a"), mapping("b")]).warnings == ()


def test_a_path_in_a_step_has_the_values_of_the_row() -> None:
    """Also one with blanks. A request of the same template with another value does not count."""
    one = replace(outline("gold", "pro & co"), steps=(step("When I GET /plans/<p>"),))
    named = [mapping(p, one, row=(("p", p),)) for p in ("gold", "pro & co")]
    gold = replace(POST, method="GET", route="/plans/{plan}", path="/plans/gold")
    pro = replace(gold, path="/plans/pro%20&%20co")
    first = attempt("gold", facts=facts(requests=(gold,)))
    right = judged([first, attempt("pro & co", facts=facts(requests=(pro,)))], named, of=one)
    wrong = judged([first, attempt("pro & co", facts=facts(requests=(gold,)))], named, of=one)
    assert [len(right.tests), right.warnings] == [2, ()]
    assert wrong.warnings == ("never requested: GET /plans/pro%20%26%20co",)
