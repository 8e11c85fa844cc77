"""Is a scenario found by what tests call it, and said how to call it?"""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._specs import Index, Reference, Row, Specification, parse, reference, step_lines
from pytest_arena.errors import ScenarioError
from tests.specs.samples import FEATURE, STEPS, gherkin, only

if TYPE_CHECKING:
    from collections.abc import Collection

    from pytest_arena._specs import Scenario

BATTLES = parse(
    f"{FEATURE}  @BTL-3 @fast\n  Scenario: Start a   battle\n{STEPS}"
    "  Scenario: List\n    Given one\n  Rule: Referees\n"
    "    Scenario: Stop\n      Given two\n    Scenario: List\n      Given three\n",
    "specs/battles.feature",
)
DANCERS = parse("Feature: Dancers\n  Scenario: Stop\n    Given four\n", "docs/dancers.feature")
ALL = Specification(
    files=(*BATTLES.files, *DANCERS.files), scenarios=(*BATTLES.scenarios, *DANCERS.scenarios)
)
INDEX = Index(ALL)


def named(name: str, **options: Any) -> Reference:
    """What a marker says."""
    return reference((name,), options, place="tests/test_x.py:12")


def refused(index: Index, asked: Reference, taken: Collection[str] = ()) -> ScenarioError:
    """The error that finding it raises, where other tests name these."""
    with pytest.raises(ScenarioError) as caught:
        index.find(asked, named=taken)
    return caught.value


@pytest.mark.parametrize(
    "name, line",
    [
        ("Start a battle", 3),
        (" Start\n a battle ", 3),
        ("@BTL-3", 3),
        ("Battles :: Start a battle", 3),
        ("Battles :: Referees :: Stop", 10),
        ("Battles :: Stop", 10),
        ("Battles :: Referees :: List", 12),
    ],
)
def test_a_scenario_is_found_by_each_of_its_names(name: str, line: int) -> None:
    """Its own, with the feature's, with the rule's, by its tag; blanks do not count."""
    assert INDEX.find(named(name)).line == line


@pytest.mark.parametrize(
    "spec", ["docs/dancers.feature", "dancers.feature", "./docs/dancers.feature"]
)
def test_the_file_tells_scenarios_of_one_name_apart(spec: str) -> None:
    """Its path, or the end of it."""
    assert INDEX.find(named("Stop", spec=spec)).feature == "Dancers"


def test_an_ambiguous_name_shows_all_places_and_what_to_paste() -> None:
    """Each by a marker that means it alone."""
    error = refused(INDEX, named("Stop"))
    assert error.what == "2 scenarios are called 'Stop'"
    assert "specs/battles.feature:10" in error.cause
    assert "docs/dancers.feature:2" in error.cause
    assert error.fix.splitlines() == [
        '@pytest.mark.scenario("Battles :: Stop")',
        '@pytest.mark.scenario("Dancers :: Stop")',
    ]


def test_a_double_cannot_be_named_and_is_told_so() -> None:
    """Two scenarios of one key in one file."""
    text = f"{FEATURE}  Scenario: s\n{STEPS}  Scenario: s\n{STEPS}"
    error = refused(Index(gherkin(text)), named("s"))
    assert error.cause.count("a.feature:") == 2
    assert "rename" in error.fix


def test_an_unknown_name_shows_the_nearest() -> None:
    """With places, and markers to paste; in whatever case."""
    error = refused(INDEX, named("start a batle"))
    assert error.what == "no scenario is called 'start a batle'"
    assert "tests/test_x.py:12" in error.cause
    assert "specs/battles.feature:3  Start a battle" in error.cause
    assert error.fix.splitlines()[0] == '@pytest.mark.scenario("@BTL-3")'
    assert "arena scenarios list" in refused(INDEX, named("xyzzy")).fix


STORIES = Index(
    gherkin(
        f"{FEATURE}  Scenario: An order takes from the stock\n{STEPS}"
        f"  Scenario: A customer logs in\n{STEPS}  Scenario: Buying lowers what we have\n{STEPS}"
    )
)


@pytest.mark.parametrize(
    "name", ["A cancelled order gives its stock back", "A customer logs in and out again"]
)
def test_another_story_is_not_to_be_pasted(name: str) -> None:
    """Where no name is much like it those are shown that no test names."""
    stock = "Battles :: An order takes from the stock"
    with pytest.raises(ScenarioError) as caught:
        STORIES.find(named(name), named={stock, "Battles :: A customer logs in"})
    lines = caught.value.cause.splitlines()
    assert lines[1:] == [
        "a.feature:10  Buying lowers what we have   (none of these tests names it)"
    ]
    assert caught.value.fix.startswith("arena scenarios list")
    assert STORIES.likely(named(name), named=()) is None


def test_a_name_that_another_test_has_is_meant_only_by_a_slip_of_the_pen() -> None:
    """It is likelier that the test is about another one."""
    taken = {"Battles :: A customer logs in"}
    assert "arena scenarios list" in refused(STORIES, named("A customer signs in"), taken).fix
    assert STORIES.likely(named("A customer signs in"), named=()) is not None
    assert refused(STORIES, named("A custmer logs in"), taken).fix.startswith("@pytest.mark.")


def test_what_is_pasted_keeps_version_and_row() -> None:
    """Else the row would be lost, and the review."""
    error = refused(STORIES, named("A customer log in", rev="1:00000000", row={"a": 1}))
    assert error.fix == (
        '@pytest.mark.scenario("A customer logs in", rev="1:00000000", row={"a": "1"})'
    )


def test_of_the_command_line_the_command_is_shown() -> None:
    """And no marker; with quotes as a shell needs them."""
    asked = Reference(name="A customer log in", place="--scenario", form="--scenario={}")
    error = refused(STORIES, asked)
    assert error.fix == "--scenario='A customer logs in'"
    assert "test" not in error.why


def test_a_double_is_not_proposed() -> None:
    """No marker can mean it."""
    text = f"{FEATURE}  Scenario: Starts now\n{STEPS}  Scenario: Starts now\n{STEPS}"
    error = refused(Index(replace(gherkin(text), problems=())), named("Start now"))
    assert error.fix.startswith("arena scenarios list")


def test_where_a_part_cannot_be_read_the_name_may_stand_there() -> None:
    """A marker is not told to be wrong by a specification that is."""
    text = f"{FEATURE}  Scenario: Starts now\n{STEPS}    Whan it ends\n"
    error = refused(Index(gherkin(text)), named("The end"))
    assert error.what == "no scenario is called 'The end', of those that can be read"
    assert "a.feature:6  " in error.cause
    assert "a.feature:6: did you mean `When" in error.fix


def test_an_unknown_file_shows_the_nearest() -> None:
    """Before the name is looked for."""
    error = refused(INDEX, named("Stop", spec="dancer.feature"))
    assert "'dancer.feature'" in error.what
    assert 'spec="docs/dancers.feature"' in error.fix
    assert "in battles.feature" in refused(INDEX, named("Halt", spec="battles.feature")).what


def test_a_renamed_scenario_is_found_by_its_steps() -> None:
    """By the lock file's version under the old name, and the marker is exact."""
    new = INDEX.find(named("@BTL-3"))
    known = {"Battles :: Begin": (new.rev, step_lines(new))}
    error = refused(Index(ALL, known), named("Begin"))
    assert "renamed to 'Start a battle'" in error.what
    assert error.fix == '@pytest.mark.scenario("@BTL-3")'


def test_a_renamed_and_edited_scenario_is_found_too() -> None:
    """By what is left of its steps."""
    new = INDEX.find(named("@BTL-3"))
    lines = (*step_lines(new)[:-1], "Then it is running")
    error = refused(Index(ALL, {"Battles :: Begin": ("1:00000000", lines)}), named("Begin"))
    assert "renamed to 'Start a battle'" in error.what


def test_without_a_lock_file_the_marker_s_version_is_enough() -> None:
    """And the new marker has the version too."""
    new = INDEX.find(named("@BTL-3"))
    error = refused(INDEX, named("Begin", rev=new.rev))
    assert error.fix == f'@pytest.mark.scenario("@BTL-3", rev="{new.rev}")'


def test_a_scenario_that_is_known_is_not_what_another_was_renamed_to() -> None:
    """It was there before."""
    new = INDEX.find(named("@BTL-3"))
    known = {"Battles :: Begin": (new.rev, step_lines(new)), "@BTL-3": (new.rev, step_lines(new))}
    assert "renamed" not in refused(Index(ALL, known), named("Begin")).what


@pytest.mark.parametrize("scenario", ALL.scenarios, ids=lambda one: one.key)
def test_a_marker_means_its_scenario_alone(scenario: Scenario) -> None:
    """It is Python, and finds what it was made for."""
    text = INDEX.marker(scenario, rev=scenario.rev, row=(("a b", 'x"y'),))
    call = ast.parse(text.removeprefix("@")).body[0]
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    options = {str(one.arg): ast.literal_eval(one.value) for one in call.value.keywords}
    assert options["row"] == {"a b": 'x"y'}
    asked = reference([ast.literal_eval(one) for one in call.value.args], options, place="")
    assert INDEX.find(asked) is scenario
    assert (asked.rev, asked.row) == (scenario.rev, (("a b", 'x"y'),))


def test_the_same_key_in_two_files_is_marked_with_its_file() -> None:
    """Nothing else tells them apart."""
    other = parse("Feature: Dancers\n  Scenario: Stop\n    Given x\n", "other.feature")
    both = (*DANCERS.scenarios, *other.scenarios)
    index = Index(Specification(files=("docs/dancers.feature", "other.feature"), scenarios=both))
    assert 'spec="other.feature"' in index.marker(other.scenarios[0])


def test_a_key_finds_its_scenario() -> None:
    """Or none."""
    assert INDEX.scenario("@BTL-3") is ALL.scenarios[0]
    assert INDEX.scenario("Battles :: Start a battle") is None


@pytest.mark.parametrize(
    "args, options, told",
    [
        ((), {}, "has to name one"),
        (("a", "b"), {}, "not 2"),
        ((["a", "b"],), {}, "not 2"),
        ((3,), {}, "not 3"),
        (("",), {}, "names nothing"),
        (("a",), {"file": "x"}, "no option file="),
        (("a",), {"spec": 3}, "spec="),
        (("a",), {"rev": "latest"}, "rev='latest'"),
        (("a",), {"row": "x"}, "row="),
        (("a",), {"row": {}}, "row="),
    ],
)
def test_a_wrong_marker_is_told(
    args: tuple[object, ...], options: dict[str, object], told: str
) -> None:
    """What is wrong, where, and how it is right."""
    with pytest.raises(ScenarioError) as caught:
        reference(args, options, place="tests/test_x.py:12")
    assert told in caught.value.what
    assert caught.value.cause == "tests/test_x.py:12"
    assert caught.value.fix


def test_several_names_are_several_markers() -> None:
    """To paste."""
    with pytest.raises(ScenarioError) as caught:
        reference((["a", "b"],), {}, place="")
    assert caught.value.fix == '@pytest.mark.scenario("a")\n@pytest.mark.scenario("b")'


OUTLINE = only(
    gherkin(
        f"{FEATURE}  Scenario Outline: pct <p>\n    Given <p> of <battle id>\n    Examples:\n"
        "      | p  | battle id | is on |\n      | 1  | 7         | yes   |\n"
        "      | 10 | 7         | no    |\n    Examples: more\n      | p  |\n      | 99 |\n"
    )
)
FIRST, SECOND, THIRD = (row.values for row in OUTLINE.rows)


@pytest.mark.parametrize(
    "params, row",
    [
        ({}, ()),
        ({"unrelated": 1}, ()),
        ({"p": 1}, FIRST),
        ({"p": "10"}, SECOND),
        ({"p": 1.0, "battle_id": 7}, FIRST),
        ({"is_on": True}, FIRST),
        ({"is_on": False, "other": object()}, SECOND),
        ({"P": 99}, THIRD),
        ({"row": {"p": "10", "is on": "no"}}, SECOND),
    ],
)
def test_a_row_is_known_by_its_values(params: dict[str, object], row: object) -> None:
    """Whatever type they have in Python; columns are found by identifiers."""
    assert Index(Specification()).rows(OUTLINE, named("x"), params) == row


@pytest.mark.parametrize(
    "options, params, told",
    [
        ({"row": {"p": 2}}, {}, "no row has p='2'"),
        ({"row": {"q": 1}}, {}, "no row has q='1'"),
        ({"row": {"battle id": 7}}, {}, "2 rows have"),
        ({}, {"p": 2}, "no row has p=2"),
        ({}, {"battle_id": 7}, "2 rows have"),
        ({}, {"p": 1, "is_on": False}, "no row has"),
    ],
)
def test_values_of_no_row_prove_nothing(
    options: dict[str, Any], params: dict[str, object], told: str
) -> None:
    """Rather an error than the whole outline."""
    with pytest.raises(ScenarioError) as caught:
        Index(Specification()).rows(OUTLINE, named("x", **options), params)
    assert told in caught.value.what
    assert "a.feature:" in caught.value.cause


def test_of_no_row_the_likest_is_shown() -> None:
    """It is what is pasted."""
    rows = tuple(
        Row(values=(("a", str(n)), ("b", str(n)), ("c", "0")), line=n, name="", steps=())
        for n in range(1, 4)
    )
    with pytest.raises(ScenarioError) as caught:
        INDEX.rows(replace(OUTLINE, rows=rows), named("x"), {"a": 3, "b": 3, "c": 1})
    assert caught.value.fix == "row={'a': '3', 'b': '3', 'c': '0'}"


@pytest.mark.parametrize("number", [2**53, 2**53 + 1])
def test_a_long_number_is_none_of_its_neighbours(number: int) -> None:
    """As floats they would be equal."""
    rows = tuple(
        Row(values=(("id", str(n)),), line=1, name="", steps=()) for n in (2**53, 2**53 + 1)
    )
    found = INDEX.rows(replace(OUTLINE, rows=rows), named("x"), {"id": number})
    assert found == (("id", str(number)),)


def test_the_marker_s_row_wins() -> None:
    """It is what the author says."""
    index = Index(Specification())
    assert index.rows(OUTLINE, named("x", row={"p": 10}), {"p": 1}) == SECOND


def test_a_row_of_a_plain_scenario_is_an_error() -> None:
    """There is none."""
    plain = ALL.scenarios[1]
    assert INDEX.rows(plain, named("x"), {"p": 1}) == ()
    with pytest.raises(ScenarioError, match="has no rows"):
        INDEX.rows(plain, named("x", row={"p": 1}), {})
