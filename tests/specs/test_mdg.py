"""Is Gherkin in headings and bullets read, and told from prose?"""

import pytest

from tests.specs.samples import errors, mdg, only, problem

GOOD = "# Feature: Battles\n\n## Scenario: Start\n\n* Given a battle\n* When it starts\n"
START = "Battles :: Start"


def test_headings_and_bullets_are_read() -> None:
    """Tables indented by two, tags in a line of their own, a doc string in a fence."""
    said = mdg(
        "`@SHOP-1`\n# Feature: Battles\n\n## Rule: R\n\n`@BTL-3`\n### Scenario Outline: Start\n\n"
        "* Given <x>\n\n  | a |\n  | - |\n  | 1 |\n\n- When b\n\n  ```json\n  {}\n  ```\n\n"
        "#### Examples:\n\n  | x |\n  | - |\n  | 7 |\n"
    )
    assert said.problems == ()
    found = only(said)
    assert (found.key, found.gherkin_rule, found.line, found.requirement) == (
        "@BTL-3",
        "R",
        7,
        "SHOP-1",
    )
    assert [(step.keyword, step.line) for step in found.steps] == [("Given", 9), ("When", 15)]
    assert found.steps[0].table == (("a",), ("1",))
    assert (found.steps[1].doc_string, found.steps[1].media_type) == ("{}", "json")
    assert [row.steps[0].text for row in found.rows] == ["7"]


def test_what_stands_before_the_first_heading_is_no_feature() -> None:
    """The parser would take it for one, even an empty line."""
    said = mdg("\nintro\n\n" + GOOD)
    assert (said.features[0].name, said.features[0].line, only(said).line) == ("Battles", 4, 6)


@pytest.mark.parametrize("text", ["# Title\n\ntext\n\n- When we met\n", "text\n", "", "\n\n"])
def test_an_ordinary_markdown_file_is_an_error(text: str) -> None:
    """The parser finds a feature without scenarios, and says nothing."""
    assert len(errors(mdg(text))) == 1


def test_a_bullet_of_prose_is_told() -> None:
    """It is a step."""
    said = mdg(GOOD + "\nSome prose.\n\n* When we met, we said hi\n")
    assert (problem(said).line, problem(said).is_error) == (10, False)


@pytest.mark.parametrize("bullet", ["* given more", "* GIVEN more", "* Given\u00a0x"])
def test_a_bullet_that_is_misspelt_is_an_error(bullet: str) -> None:
    """It is left out in silence."""
    assert [line for line, _ in errors(mdg(f"{GOOD}{bullet}\n"))] == [7]


def test_a_tag_in_prose_is_an_error() -> None:
    """The parser says that the file ends too early."""
    said = mdg(GOOD + "\nSee `@foo` for more.\n")
    assert [line for line, _ in errors(said)] == [8]
    assert "read as tags" in said.problems[0].what


def test_a_tag_in_a_heading_is_an_error() -> None:
    """The heading is lost."""
    said = mdg(GOOD.replace("Start", "Start `@wip`"))
    assert "its heading is ignored" in said.problems[0].what
    assert said.problems[0].line == 3


@pytest.mark.parametrize("indent", [0, 1, 6])
def test_a_table_that_is_not_indented_is_an_error(indent: str) -> None:
    """The parser drops it, and with Examples the scenario."""
    row = " " * int(indent)
    said = mdg(f"{GOOD}\n{row}| a |\n{row}| - |\n{row}| 1 |\n")
    assert [line for line, _ in errors(said)] == [8, 10]
    outline = GOOD.replace("Scenario", "Scenario Outline") + "\n### Examples:\n\n| a |\n| 1 |\n"
    assert [line for line, _ in errors(mdg(outline))][:2] == [3, 10]


def test_a_table_of_prose_is_left_in_peace() -> None:
    """In a description."""
    table = "| a |\n| - |\n| 1 |\n\n"
    assert mdg(GOOD.replace("\n\n", f"\n\n{table}", 1)).problems == ()


def test_a_fenced_block_after_a_step_is_told() -> None:
    """It is the step's doc string, meant or not."""
    said = mdg(GOOD + "\n```json\n{}\n```\n")
    assert (problem(said).line, problem(said).is_error) == (8, False)


def test_a_language_comment_is_an_error() -> None:
    """It is a heading here."""
    said = mdg("# language: fr\n# Fonctionnalité: f\n## Scénario: s\n* Soit a\n")
    assert "# language:" in said.problems[0].what
    assert said.problems[0].line == 1


def test_a_heading_that_is_misspelt_is_an_error() -> None:
    """It is read as a description."""
    said = mdg(GOOD + "\n## scenario: other\n\n* Given x\n")
    assert 8 in [line for line, _ in errors(said)]


def test_headings_in_a_doc_string_are_no_scenarios() -> None:
    """They are text."""
    said = mdg(GOOD + "\n  ```\n  ## Scenario: x\n  * given y\n  ```\n")
    assert said.problems == ()
