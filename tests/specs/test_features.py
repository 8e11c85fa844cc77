"""Do features, rules, backgrounds and outlines become what their author means?"""

import pytest

from tests.specs.samples import FEATURE, STEPS, gherkin, only


def test_a_feature_with_all_there_is() -> None:
    """Rules, backgrounds, tags, doc strings, tables; in the order of the lines."""
    said = gherkin(
        "@SHOP-1 @web\nFeature: Battles\n  As told.\n\n"
        "  Background:\n    Given a floor\n"
        "  Scenario: One\n    When a\n"
        "  @slow\n  Rule: Judges\n    By three.\n"
        "    Background:\n      And a judge\n"
        "    @BTL-7 @fast\n    Scenario: Two\n      Told.\n"
        '      Then b:\n        """text/plain\n        c\n\n          d\n        """\n'
        "      But not:\n        | x \\| y | \\\\ |\n        |        | z  |\n"
    )
    assert said.problems == ()
    one, two = said.scenarios
    assert (one.key, one.gherkin_rule, one.tags) == ("Battles :: One", "", ("@SHOP-1", "@web"))
    assert [(step.kind, step.is_background) for step in one.steps] == [
        ("given", True),
        ("when", False),
    ]
    assert (two.key, two.gherkin_rule, two.feature) == ("@BTL-7", "Judges", "Battles")
    assert two.tags == ("@SHOP-1", "@web", "@slow", "@BTL-7", "@fast")
    assert two.description == "Told."
    assert [(s.keyword, s.kind, s.text) for s in two.steps] == [
        ("Given", "given", "a floor"),
        ("And", "given", "a judge"),
        ("Then", "then", "b:"),
        ("But", "then", "not:"),
    ]
    assert (two.steps[2].doc_string, two.steps[2].media_type) == ("c\n\n  d", "text/plain")
    assert two.steps[3].table == (("x | y", "\\"), ("", "z"))
    assert {one.requirement, two.requirement} == {"SHOP-1"}


def test_an_outline_has_rows_by_their_values() -> None:
    """Of all its Examples, whatever the order of the columns; filled in everywhere."""
    said = gherkin(
        f"{FEATURE}  @a\n  Scenario Template: <who> wins\n    Given <who> and <n>\n"
        '      """<n>\n      <who>\n      """\n    When it:\n      | <n> | <other> |\n'
        "    @b\n    Examples: first\n      | who | n |\n      | Ann | 1 |\n"
        "    Scenarios:\n      | n | who |\n      | 2 | Bob |\n"
    )
    found = only(said)
    assert (found.is_outline, found.name) == (True, "<who> wins")
    first, second = found.rows
    assert first.values == {"n": "1", "who": "Ann"}
    assert second.values == {"n": "2", "who": "Bob"}
    assert (first.name, first.tags, second.tags) == ("Ann wins", ("@a", "@b"), ("@a",))
    assert (first.line, second.line) == (13, 16)
    assert first.steps[0].text == "Ann and 1"
    assert (first.steps[0].doc_string, first.steps[0].media_type) == ("Ann", "1")
    assert first.steps[1].table == (("1", "<other>"),)


def test_a_scenario_with_examples_is_an_outline() -> None:
    """Whatever it is called."""
    examples = "    Examples:\n      | x |\n      | 1 |\n"
    assert only(gherkin(f"{FEATURE}  Scenario: s\n    Given <x>\n{examples}")).is_outline


def test_a_row_twice_is_told() -> None:
    """A row is known by its values."""
    examples = "    Examples:\n      | x |\n      | 1 |\n      | 1 |\n"
    said = gherkin(f"{FEATURE}  Scenario Outline: s\n    Given <x>\n{examples}")
    assert [(one.line, one.is_error) for one in said.problems] == [(7, False)]


def test_a_column_twice_is_an_error() -> None:
    """One of the two is lost."""
    examples = "    Examples:\n      | x | x |\n      | 1 | 2 |\n"
    said = gherkin(f"{FEATURE}  Scenario Outline: s\n    Given <x>\n{examples}")
    assert [(one.line, one.is_error) for one in said.problems] == [(4, True)]


@pytest.mark.parametrize(
    "tags, key, requirement",
    [
        ("@BTL-3", "@BTL-3", ""),
        ("@slow @BTL-3 @BTL-4", "@BTL-3", ""),
        ("@T-ADMIN-001", "@T-ADMIN-001", ""),
        ("@BR-TEST-001", "Battles :: s", "BR-TEST-001"),
        ("@BR-TEST-001 @BTL-3", "@BTL-3", "BR-TEST-001"),
        ("@REQ-1", "Battles :: s", "REQ-1"),
        ("@v2 @wip @issue-12 @manual", "Battles :: s", ""),
    ],
)
def test_own_tags_of_a_scenario(tags: str, key: str, requirement: str) -> None:
    """An id is what it is known by; one of a business rule says where it belongs."""
    found = only(gherkin(f"{FEATURE}  {tags}\n  Scenario: s\n{STEPS}"))
    assert (found.key, found.requirement) == (key, requirement)


@pytest.mark.parametrize(
    "above, requirement",
    [
        ("@SHOP-1\nFeature: f\n", "SHOP-1"),
        ("Feature: f (BR-1)\n", "BR-1"),
        ("Feature: f\n  Business Rule BR-1\n", "BR-1"),
        ("Feature: f BR-1\n  Rule: BR-2\n", "BR-2"),
        ("@BR-1\nFeature: f\n  Rule: BR-2\n", "BR-1"),
        ("Feature: f\n  @BR-2\n  Rule: R\n", "BR-2"),
        ("# BR-1\nFeature: f\n", ""),
    ],
)
def test_the_business_rule_of_a_feature_file(above: str, requirement: str) -> None:
    """A tag above the scenario, else the rule's or the feature's name or description."""
    found = only(gherkin(f"{above}  Scenario: s\n{STEPS}"))
    assert found.requirement == requirement
    assert found.key.endswith(":: s")


def test_names_are_composed_and_blanks_collapsed() -> None:
    """In the key and everywhere."""
    found = only(gherkin(f"Feature: A  b\n  Scenario: cafe\u0301\t x \n{STEPS}"))
    assert found.key == "A b :: caf\u00e9 x"
