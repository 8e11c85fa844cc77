"""Does a version change if, and only if, what the scenario says has changed?"""

from dataclasses import replace

import pytest

from pytest_arena.scenarios.specs._reader import parse
from pytest_arena.scenarios.specs._specification import ScenarioSpec, rev_of, step_lines
from tests.specs.samples import FEATURE, SCENARIO, STEPS, gherkin, markdown, only

TEXT = (
    f"{FEATURE}{SCENARIO}    Given a battle:\n      | name | count |\n      | x    | 2     |\n"
    '    And an order\n      """json\n      {"a": 1}\n      """\n'
    "    When I POST it\n    Then it runs\n"
)


def test_golden_versions() -> None:
    """They stand in markers and lock files: neither we nor a new parser may move them."""
    outline = (
        "  Scenario Outline: o\n    Given <n> dancers\n    Examples:\n      | n |\n      | 2 |\n"
    )
    assert only(gherkin(FEATURE + SCENARIO + STEPS)).rev == "1:eeb47d57"
    assert only(gherkin(TEXT)).rev == "1:277a7488"
    assert only(gherkin(FEATURE + outline)).rev == "1:40342f06"
    assert only(gherkin(FEATURE + SCENARIO)).rev == "1:3833238a"


@pytest.mark.parametrize(
    "old, new",
    [
        ("  Scenario: Start", "  @wip\n  # why\n  Scenario: Another name\n  As told.\n"),
        ("    And an", "    Given an"),
        ("    And an", "  \t*  an"),
        ("    When I", "\n  # comment\n\tWhen   I"),
        ("| x    | 2     |", "|x|2|"),
        ("Feature: Battles", "# language: en\nFeature: Fights\n  Told."),
        ('      """json\n      {"a": 1}\n      """', '    ```json\n    {"a": 1}\n    ```'),
        ('{"a": 1}\n', '{"a": 1}  \n'),
        ("\n", "\r\n"),
        ("Feature", "\ufeffFeature"),
    ],
)
def test_looks_do_not_count(old: str, new: str) -> None:
    """Names, tags, comments, blanks, And for Given."""
    assert old in TEXT
    assert only(gherkin(TEXT.replace(old, new))).rev == only(gherkin(TEXT)).rev


@pytest.mark.parametrize(
    "old, new",
    [
        ("a battle:", "a fight:"),
        ("    And an", "    When an"),
        ("    When I", "    Then I"),
        ("| x ", "| y "),
        ("| count", "| number"),
        ('{"a": 1}', '{"a": 2}'),
        ('"""json', '"""yaml'),
        ("    Then it runs\n", ""),
        ("    Then it runs\n", "    Then it runs\n    And stops\n"),
        ("it runs", "It runs"),
    ],
)
def test_what_it_says_counts(old: str, new: str) -> None:
    """Words, kinds, tables, doc strings."""
    assert old in TEXT
    assert only(gherkin(TEXT.replace(old, new))).rev != only(gherkin(TEXT)).rev


def test_the_language_does_not_count() -> None:
    """Only that of the keywords."""
    french = "# language: fr\nFonctionnalité: f\n  Scénario: s\n    Soit a\n    Quand b\n    Et c\n"
    english = f"{FEATURE}{SCENARIO}    Given a\n    When b\n    And c\n"
    assert only(gherkin(french)).rev == only(gherkin(english)).rev


def test_composed_and_decomposed_letters_are_the_same() -> None:
    """An editor may change them."""
    steps = STEPS.replace("battle", "caf\u00e9")
    other = STEPS.replace("battle", "cafe\u0301")
    versions = {only(gherkin(FEATURE + SCENARIO + text)).rev for text in (steps, other)}
    assert len(versions) == 1


def test_a_background_counts() -> None:
    """It is a part of each scenario."""
    background = "  Background:\n    Given x\n"
    plain, with_it = (
        gherkin(FEATURE + SCENARIO + STEPS),
        gherkin(FEATURE + background + SCENARIO + STEPS),
    )
    assert only(plain).rev != only(with_it).rev
    assert [step.is_background for step in only(with_it).steps] == [True, False, False, False]


def test_a_moved_file_and_a_fence_do_not_count() -> None:
    """Nor does indentation within a doc string's marks."""
    assert only(markdown(f"# t\n\n```gherkin\n{TEXT}```\n")).rev == only(gherkin(TEXT)).rev


def scenario_of(text: str) -> ScenarioSpec:
    """The one scenario of a text, as other packages receive it."""
    (scenario,) = parse(text, "a.feature").scenarios
    return scenario


def test_lines_are_equal_exactly_if_versions_are() -> None:
    """They are what a person compares."""
    scenario = scenario_of(TEXT)
    assert step_lines(scenario) == (
        "Given a battle:",
        "  | name | count |",
        "  | x | 2 |",
        "Given an order",
        '  """json',
        '  {"a": 1}',
        '  """',
        "When I POST it",
        "Then it runs",
    )
    tricky = [
        replace(scenario, steps=(replace(scenario.steps[0], table=table),))
        for table in ((("a | b",),), (("a", "b"),), (("a \\| b",),))
    ]
    assert len({rev_of(one.steps) for one in tricky}) == 3
    assert len({step_lines(one) for one in tricky}) == 3


def test_the_rows_of_an_outline_count() -> None:
    """A test may have some of the columns as parameters, and would pass with an edited row."""
    text = (
        f"{FEATURE}  Scenario Outline: o\n    Given <n>\n    Examples:\n      | n |\n      | 1 |\n"
    )
    revs = {only(gherkin(each)).rev for each in (text, text + "      | 2 |\n")}
    assert len(revs) == 2
