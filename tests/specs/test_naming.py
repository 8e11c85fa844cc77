"""Is a scenario found by what a test or a command calls it, and is it said how to call it?"""

from __future__ import annotations

import ast
import json
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from tests.command import arena
from tests.scenarios.proving import NO_EVIDENCE, project
from tests.specs.samples import FEATURE, STEPS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.command import Called

BATTLES = (
    f"{FEATURE}  @BTL-3 @fast\n  Scenario: Start a   battle\n{STEPS}"
    "  Scenario: List\n    Given one\n  Rule: Referees\n"
    "    Scenario: Stop\n      Given two\n    Scenario: List\n      Given three\n"
)
DANCERS = "Feature: Dancers\n  Scenario: Stop\n    Given four\n"
SHOP = """\
Feature: Shop
  Scenario: An order takes from the stock
    Given a
  Scenario: A customer logs in
    Given b
  Scenario: Buying lowers what we have
    Given c
"""
OUTLINES = """\
Feature: Outlines
  Scenario Outline: pct <p>
    Given <p> of <battle id>

    Examples:
      | p  | battle id | is on |
      | 1  | 7         | yes   |
      | 10 | 7         | no    |

    Examples: more
      | p  |
      | 99 |

  Scenario Outline: like <a>
    Given <a> and <b> and <c>

    Examples:
      | a | b | c |
      | 1 | 1 | 0 |
      | 2 | 2 | 0 |
      | 3 | 3 | 0 |

  Scenario Outline: long <id>
    Given <id>

    Examples:
      | id               |
      | 9007199254740992 |
      | 9007199254740993 |
"""
FILES = {
    "specs/battles.feature": BATTLES,
    "specs/deep/dancers.feature": DANCERS,
    "specs/outlines.feature": OUTLINES,
    "specs/shop.feature": SHOP,
}

START = ("Battles", "Start a battle")
FIRST, SECOND = ({"battle id": "7", "is on": on, "p": p} for on, p in (("yes", "1"), ("no", "10")))
# The arguments of a marker, the parameters of its test; the scenario, and the row.
MEANT: dict[str, tuple[str, str, object, object]] = {
    "its_name": ('"Start a battle"', "", START, {}),
    "other_blanks": (r'" Start\n a battle "', "", START, {}),
    "its_tag": ('"@BTL-3"', "", START, {}),
    "with_the_feature": ('"Battles :: Start a battle"', "", START, {}),
    "with_the_rule": ('"Battles :: Referees :: Stop"', "", ("Battles", "Stop"), {}),
    "without_the_rule": ('"Battles :: Stop"', "", ("Battles", "Stop"), {}),
    "list_of_no_rule": ('"Battles :: List"', "", ("Battles", "List"), {}),
    "list_of_the_rule": ('"Battles :: Referees :: List"', "", ("Battles", "List"), {}),
    "by_the_path": ('"Stop", spec="specs/deep/dancers.feature"', "", ("Dancers", "Stop"), {}),
    "by_the_end_of_it": ('"Stop", spec="dancers.feature"', "", ("Dancers", "Stop"), {}),
    "by_a_dotted_path": ('"Stop", spec="./deep/dancers.feature"', "", ("Dancers", "Stop"), {}),
    "stock": ('"An order takes from the stock"', "", ("Shop", "An order takes from the stock"), {}),
    "customer": ('"A customer logs in"', "", ("Shop", "A customer logs in"), {}),
    "no_row": ('"pct <p>"', "", ("Outlines", "pct <p>"), {}),
    "unrelated": ('"pct <p>"', "unrelated=1", ("Outlines", "pct <p>"), {}),
    "an_int": ('"pct <p>"', "p=1", ("Outlines", "pct <p>"), FIRST),
    "a_text": ('"pct <p>"', "p='10'", ("Outlines", "pct <p>"), SECOND),
    "a_float": ('"pct <p>"', "p=1.0, battle_id=7", ("Outlines", "pct <p>"), FIRST),
    "true": ('"pct <p>"', "is_on=True", ("Outlines", "pct <p>"), FIRST),
    "false": ('"pct <p>"', "is_on=False, other=object()", ("Outlines", "pct <p>"), SECOND),
    "other_case": ('"pct <p>"', "P=99", ("Outlines", "pct <p>"), {"p": "99"}),
    "whole_row": (
        '"pct <p>"',
        "row={'p': '10', 'is on': 'no'}",
        ("Outlines", "pct <p>"),
        SECOND,
    ),
    "marker_wins": ('"pct <p>", row={"p": 10}', "p=1", ("Outlines", "pct <p>"), SECOND),
    "like": ('"like <a>"', "", ("Outlines", "like <a>"), {}),
    "long": (
        '"long <id>"',
        "id=9007199254740992",
        ("Outlines", "long <id>"),
        {"id": str(2**53)},
    ),
    "its_neighbour": (
        '"long <id>"',
        "id=9007199254740993",
        ("Outlines", "long <id>"),
        {"id": str(2**53 + 1)},
    ),
}
LIST = "arena scenarios list   shows the names of the scenarios"
# The arguments of a marker, the parameters of its test, and what its error says.
WRONG: dict[str, tuple[str, str, list[str]]] = {
    "ambiguous": (
        '"Stop"',
        "",
        [
            "2 scenarios are called 'Stop'",
            "specs/battles.feature:10",
            "specs/deep/dancers.feature:2",
            '@pytest.mark.scenario("Battles :: Stop")',
            '@pytest.mark.scenario("Dancers :: Stop")',
        ],
    ),
    "misspelt": (
        '"start a batle"',
        "",
        [
            "no scenario is called 'start a batle'",
            "specs/battles.feature:3  Start a battle",
            '@pytest.mark.scenario("@BTL-3")',
        ],
    ),
    "unknown": ('"xyzzy"', "", [LIST]),
    "another_story": (
        '"A cancelled order gives its stock back"',
        "",
        ["specs/shop.feature:6  Buying lowers what we have   (no test of this run names it)", LIST],
    ),
    "one_more_story": (
        '"A customer logs in and out again"',
        "",
        ["specs/shop.feature:6  Buying lowers what we have   (no test of this run names it)", LIST],
    ),
    "likely_another": ('"A customer signs in"', "", [LIST]),
    "slip_of_the_pen": ('"A custmer logs in"', "", ['@pytest.mark.scenario("A customer logs in")']),
    "slip_and_row": (
        '"A customer log in", row={"a": 1}',
        "",
        ['@pytest.mark.scenario("A customer logs in", row={"a": "1"})'],
    ),
    "no_such_file": (
        '"Stop", spec="dancer.feature"',
        "",
        ["no specification is called 'dancer.feature'", 'spec="specs/deep/dancers.feature"'],
    ),
    "not_in_that_file": ('"Halt", spec="battles.feature"', "", ["'Halt' in battles.feature"]),
    "names_nothing": (
        "",
        "",
        [
            "must have the name of a scenario, not nothing",
            '@pytest.mark.scenario("Feature :: Scenario")',
        ],
    ),
    "two_names": ('"a", "b"', "", ["not 2"]),
    "a_list": (
        '["a", "b"]',
        "",
        ["not 2", '@pytest.mark.scenario("a")', '@pytest.mark.scenario("b")'],
    ),
    "a_number": ("3", "", ["must have the name of a scenario, not 3"]),
    "an_empty_name": ('""', "", ["must have the name of a scenario, not ''"]),
    "no_such_option": ('"a", file="x"', "", ["no option file="]),
    "wrong_spec": ('"a", spec=3', "", ["spec= of the marker"]),
    "wrong_row": ('"a", row="x"', "", ["row= of the marker"]),
    "empty_row": ('"a", row={}', "", ["row= of the marker", 'row={"column": "value"}']),
    "row_of_no_value": (
        '"pct <p>", row={"p": 2}',
        "",
        ["no row of 'pct <p>'", "has p='2'", "outlines.feature:7"],
    ),
    "row_of_no_column": ('"pct <p>", row={"q": 1}', "", ["has q='1'"]),
    "two_rows": ('"pct <p>", row={"battle id": 7}', "", ["have battle id='7'"]),
    "parameter_of_no_row": ('"pct <p>"', "p=2", ["has p=2"]),
    "parameter_of_two_rows": ('"pct <p>"', "battle_id=7", ["2 rows of", "have battle id=7"]),
    "values_of_two_rows": ('"pct <p>"', "p=1, is_on=False", ["no row of 'pct <p>'"]),
    "row_of_a_scenario": (
        '"Battles :: List", row={"p": 1}',
        "",
        ["'List' has no rows", "remove row="],
    ),
    "likest_row": (
        '"like <a>"',
        "a=3, b=3, c=1",
        ["row={'a': '3', 'b': '3', 'c': '0'}"],
    ),
}


def a_test(name: str, arguments: str, parameters: str) -> str:
    """The code of a test with such a marker."""
    call = ast.parse(f"dict({parameters})", mode="eval").body
    assert isinstance(call, ast.Call)
    names = [str(one.arg) for one in call.keywords]
    values = ", ".join(ast.unparse(one.value) for one in call.keywords)
    given = f"@pytest.mark.parametrize({names}, [[{values}]])\n" * bool(names)
    return f"@pytest.mark.scenario({arguments})\n{given}def test_{name}({', '.join(names)}): pass\n"


class Named:
    """One run of all these tests."""

    def __init__(self, folder: Path) -> None:
        tests = [a_test(name, marker, given) for name, (marker, given, *_) in MEANT.items()]
        tests += [a_test(name, marker, given) for name, (marker, given, _) in WRONG.items()]
        example = project(folder, [], "import pytest\n" + "\n".join(tests)).with_paths(FILES)
        del example.files["specs/stories.feature"]  # type: ignore[attr-defined]  # a dict of our own
        run = example.run(NO_EVIDENCE, "--scenarios-out=json:out.json", "--junitxml=out.xml")
        run.expect(status=1, passed=len(MEANT), errors=len(WRONG))
        self.document = json.loads((run.folder / "out.json").read_text("utf-8"))
        cases = ET.parse(run.folder / "out.xml").iter("testcase")  # noqa: S314 - of our own run
        self.errors = {
            str(case.get("name")).partition("[")[0]: "".join(case.itertext()) for case in cases
        }

    def meant(self, name: str) -> list[tuple[tuple[str, str], object]]:
        """The scenarios and rows that a test proves."""
        return [
            ((scenario["feature"], scenario["name"]), test.get("row", {}))
            for scenario in self.document["scenarios"]
            for test in scenario["tests"]
            if test["test"].partition("::")[2].partition("[")[0] == f"test_{name}"
        ]


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Named:
    """Tests that name scenarios in each way, right and wrong."""
    return Named(tmp_path_factory.mktemp("named"))


@pytest.mark.parametrize("name", MEANT)
@pytest.mark.slow
def test_a_marker_means_one_scenario_and_row(named: Named, name: str) -> None:
    """By each of its names, by its file; a row by its values, whatever type they have in Python."""
    _, _, scenario, row = MEANT[name]
    assert named.meant(name) == [(scenario, row)]


@pytest.mark.slow
def test_the_list_outside_of_the_rule_is_another_scenario(named: Named) -> None:
    """A whole name goes before one that leaves the rule out."""
    lines = {
        test["test"].partition("::")[2]: one["line"]
        for one in named.document["scenarios"]
        for test in one["tests"]
    }
    assert (lines["test_list_of_no_rule"], lines["test_list_of_the_rule"]) == (7, 12)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_marker_is_told(named: Named, name: str) -> None:
    """What is wrong, where, and what is to be pasted in its place."""
    error = named.errors[f"test_{name}"]
    for text in WRONG[name][2]:
        assert text in error
    assert re.search(r"(test_it.py|\.feature):\d+", error)
    assert named.meant(name) == []


def test_what_is_not_much_like_a_name_is_not_to_be_pasted(named: Named) -> None:
    """Nor is the marker of a scenario that another test names, but for a slip of the pen."""
    for name in ("another_story", "one_more_story", "likely_another", "unknown"):
        fix = named.errors[f"test_{name}"].partition("next:")[2]
        assert "@pytest.mark.scenario(" not in fix


def explained(folder: Path, name: str, **files: str) -> Called:
    """What `arena scenarios explain` says of a name, in the list of some files."""
    for path, text in files.items():
        (folder / f"{path}.feature").write_text(text, encoding="utf-8")
    document = arena("scenarios", "list", "--json", ".", folder=folder).output
    (folder / "list.json").write_text(document, encoding="utf-8")
    return arena("scenarios", "explain", name, "--json", "list.json", folder=folder)


def test_a_double_cannot_be_named_and_is_told_so(tmp_path: Path) -> None:
    """Two scenarios of one key in one file; nor is one proposed."""
    text = f"{FEATURE}  Scenario: Starts now\n{STEPS}  Scenario: Starts now\n{STEPS}"
    called = explained(tmp_path, "Starts now", a=text)
    assert called.status == 1
    assert called.errors.count("a.feature:") == 2
    assert "next:  rename one of them" in called.errors
    near = explained(tmp_path, "Start now")
    assert near.status == 1
    assert LIST in near.errors


def test_of_the_command_line_the_command_is_shown(tmp_path: Path) -> None:
    """And no marker; with quotes as a shell needs them."""
    called = explained(tmp_path, "A customer log in", shop=SHOP)
    assert "next:  arena scenarios explain 'A customer logs in'" in called.errors
    assert "test " not in called.errors.partition("why:")[2].partition("\n")[0]


@pytest.mark.slow
def test_a_marker_means_its_scenario_alone(tmp_path: Path) -> None:
    """By the shortest name that does, and with the file where nothing else tells two apart."""
    (tmp_path / "pytest.ini").write_text("[pytest]\narena_specs = .\n")
    for path, text in {"battles": BATTLES, "dancers": DANCERS}.items():
        (tmp_path / f"{path}.feature").write_text(text)
    code = arena("scenarios", "stubs", folder=tmp_path).output
    assert re.findall(r"@pytest.mark.scenario\((.*)\)", code) == [
        '"@BTL-3"',
        '"Battles :: List"',
        '"Battles :: Stop"',
        '"Battles :: Referees :: List"',
        '"Dancers :: Stop"',
    ]


@pytest.mark.slow
def test_the_same_key_in_two_files_is_named_with_its_file(tmp_path: Path) -> None:
    """Nothing else tells them apart."""
    (tmp_path / "pytest.ini").write_text("[pytest]\narena_specs = .\n")
    for path in ("a", "b"):
        (tmp_path / f"{path}.feature").write_text(DANCERS)
    (tmp_path / "test_a.py").write_text(
        'import pytest\npytestmark = pytest.mark.scenario("Stop")\ndef test(): ...\n'
    )
    errors = arena("scenarios", "stubs", "--check", folder=tmp_path).errors
    assert '@pytest.mark.scenario("Dancers :: Stop", spec="a.feature")' in errors
    assert '@pytest.mark.scenario("Dancers :: Stop", spec="b.feature")' in errors


@pytest.mark.slow
def test_where_a_part_cannot_be_read_the_name_may_stand_there(tmp_path: Path) -> None:
    """A marker is not told to be wrong by a specification that is."""
    (tmp_path / "pytest.ini").write_text("[pytest]\narena_specs = .\n")
    text = f"{FEATURE}  Scenario: Starts now\n{STEPS}    Whan it ends\n"
    (tmp_path / "a.feature").write_text(text)
    test = 'import pytest\n\n@pytest.mark.scenario("The end")\ndef test(): ...\n'
    (tmp_path / "test_a.py").write_text(test)
    called = arena("scenarios", "stubs", "--check", folder=tmp_path)
    assert (
        "no scenario is called 'The end', but a part of the specification cannot be read"
        in called.errors
    )
    assert "  next: a.feature:6: did you mean `When …`?" in called.errors
