"""Is everything reported that the official parser lets pass in silence?"""

from pathlib import Path

import pytest

from tests.specs.samples import (
    FEATURE,
    GOOD,
    SCENARIO,
    STEPS,
    errors,
    gherkin,
    listed,
    only,
    problem,
)

START = "Battles :: Start"


def test_a_good_text_has_no_problem() -> None:
    """The measure of all that follows."""
    said = gherkin(GOOD)
    assert said.problems == ()
    assert [(one.keyword, one.kind, one.text, one.line) for one in only(said).steps] == [
        ("Given", "given", "a battle", 3),
        ("When", "when", "it starts", 4),
        ("Then", "then", "it runs", 5),
    ]


def test_a_text_is_never_taken_for_a_path_trap_1(tmp_path: Path) -> None:
    """A text that is the name of a file is a bad text, and a path is read."""
    file = tmp_path / "x.feature"
    file.write_text(GOOD)
    assert gherkin(str(file)).scenarios == ()
    assert errors(gherkin(str(file))) == [(1, "")]
    assert len(listed(tmp_path, "x.feature").scenarios) == 1


def test_a_byte_order_mark_is_no_matter_trap_2(tmp_path: Path) -> None:
    """In a file, in a text, and with the language behind it."""
    (tmp_path / "x.feature").write_bytes(GOOD.encode("utf-8-sig"))
    assert listed(tmp_path, "x.feature").problems == ()
    french = "\ufeff# language: fr\nFonctionnalité: f\n  Scénario: s\n    Soit a\n"
    assert only(gherkin(french)).steps[0].kind == "given"


@pytest.mark.parametrize(
    "first",
    [
        "given a battle",
        "GIVEN a battle",
        "Given\u00a0a battle",
        "Given\ta battle",
        "\u200bGiven a battle",
        "- Given a battle",
        "**Given** a battle",
        "Given: a battle",
        "Given",
    ],
)
@pytest.mark.parametrize("rest", ["    When it starts\n", "    Given more\n", ""])
def test_a_first_step_that_is_misspelt_trap_3(first: str, rest: str) -> None:
    """It becomes a description, and the scenario is malformed."""
    said = gherkin(f"{FEATURE}{SCENARIO}    {first}\n{rest}")
    assert errors(said) == [(3, START)]
    assert "expected " in problem(said).what
    assert "read as a description" in problem(said).what


@pytest.mark.parametrize("first", ["Given\ta battle", "\u200bGiven a battle"])
def test_a_comment_above_hides_nothing_trap_3(first: str) -> None:
    """Nor does a table that the parser takes for a description, too."""
    table = "      | a |\n      | 1 |\n"
    said = gherkin(f"{FEATURE}{SCENARIO}    # as it was\n    {first}\n{table}    Then it runs\n")
    assert errors(said) == [(4, START)]


def test_a_blank_that_is_none_is_named_trap_3() -> None:
    """Nobody can see it."""
    assert "U+00A0" in problem(gherkin(FEATURE + SCENARIO + "    Given\u00a0a\n")).what


def test_all_steps_misspelt_is_one_error_trap_3() -> None:
    """The first one tells it."""
    assert errors(gherkin(f"{FEATURE}{SCENARIO}    given a\n    when b\n")) == [(3, START)]


@pytest.mark.parametrize("first", ["Givn a battle", "Gievn a battle", "Wehn it starts"])
def test_another_letter_is_a_warning_where_a_given_is_lacking_trap_3(first: str) -> None:
    """It may be prose; without any other step it is an error."""
    found = problem(gherkin(f"{FEATURE}{SCENARIO}    {first}\n    When it starts\n"))
    assert (found.line, found.is_error) == (3, False)
    assert "read as a description" in found.what
    assert gherkin(f"{FEATURE}{SCENARIO}    {first}\n    Given b\n").problems == ()
    assert errors(gherkin(f"{FEATURE}{SCENARIO}    {first}\n")) == [(3, START)]


def test_a_scenario_without_a_step_is_an_error_trap_3() -> None:
    """Whatever its description says."""
    assert errors(gherkin(f"{FEATURE}{SCENARIO}    To be done.\n")) == [(2, START)]


@pytest.mark.parametrize(
    "prose",
    [
        "The referee decides.",
        "They are many.",
        "Give or take.",
        "This one is seen\n    when it is late, and\n    given a chance, then well.",
        "Anyone may.\n    and others may not.",
        "As a dancer\n    I want to win\n    So that I am glad",
        "See: https://example.org/scenario",
        "Note: nothing",
        "Whenever it rains",
    ],
)
def test_prose_is_left_in_peace_trap_3(prose: str) -> None:
    """What an author writes below a title in good faith, at each place where one may."""
    told = f"    {prose}\n\n"
    text = f"{FEATURE}{told}  Rule: R\n{told}  Background:\n{told}    Given x\n{SCENARIO}{told}"
    assert gherkin(text + STEPS).problems == ()


@pytest.mark.parametrize(
    "heading",
    ["scenario: s", "SCENARIO: s", "Scenario s", "Scenaro: s", "Scenario : s", "- Scenario: s"],
)
@pytest.mark.parametrize("after", ["", "  Scenario: t\n    Given x\n"])
def test_a_heading_that_is_misspelt_trap_4(heading: str, after: str) -> None:
    """It is swallowed by the feature's description, with all its steps."""
    said = gherkin(f"{FEATURE}  {heading}\n{STEPS}{after}")
    assert (2, "") in errors(said)


def test_a_wrapped_sentence_right_above_the_steps_is_left_in_peace_trap_3() -> None:
    """No blank line stands between."""
    assert gherkin(f"{FEATURE}{SCENARIO}    It is seen\n    and heard.\n{STEPS}").problems == ()


@pytest.mark.parametrize("comment", ["", "    # why\n"])
@pytest.mark.parametrize("heading", ["Background", "background:", "Bckground:"])
def test_a_background_that_is_misspelt_trap_4(heading: str, comment: str) -> None:
    """All scenarios would go without its steps."""
    said = gherkin(f"{FEATURE}  {heading}\n{comment}    Given a user\n{SCENARIO}{STEPS}")
    assert errors(said) == [(2, "")]


def test_a_heading_two_letters_off_above_a_description_is_told_trap_4() -> None:
    """Its steps belong to nothing, but it may be prose: a warning."""
    said = gherkin(f"{FEATURE}  Secnario: t\n  About it.\n{SCENARIO}{STEPS}")
    assert (problem(said).line, problem(said).is_error) == (2, False)


def test_a_heading_in_a_comment_whose_steps_are_in_none() -> None:
    """They are those of the scenario above. Other comments are, and whole scenarios, in peace."""
    said = gherkin(f"{GOOD}  # Scenario: Stop\n{STEPS}")
    assert errors(said) == [(6, START)]
    for fine in (
        f"{GOOD}  # Scenario: Stop\n  #   Given a\n  #   When b\n",
        f"{FEATURE}  # Scenario: Begin\n{SCENARIO}{STEPS}",
        f"{FEATURE}{SCENARIO}    # Scenario: why\n{STEPS}",
        f"{FEATURE}{SCENARIO}    Given a\n    # Example: a user\n    And b\n    When c\n",
        f'{GOOD}      """\n      # Scenario: x\n      """\n    Given more\n',
    ):
        assert gherkin(fine).problems == ()


def test_the_ruler_of_a_table_in_markdown_is_a_row() -> None:
    """Of Examples it would be one that no test proves."""
    table = "      | x |\n      |---|\n      | 1 |\n"
    said = gherkin(f"{FEATURE}  Scenario Outline: s\n    Given <x>\n{table}    Examples:\n{table}")
    assert [(one.line, one.is_error) for one in said.problems] == [(5, False), (9, False)]
    assert gherkin(f"{FEATURE}{SCENARIO}    Given a\n      | x |\n      | - |\n").problems == ()


def test_a_feature_without_a_scenario_is_an_error_trap_4() -> None:
    """So is one that has a background alone."""
    assert errors(gherkin(FEATURE + "  To be done.\n")) == [(1, "")]
    assert errors(gherkin(FEATURE + "  Background:\n    Given x\n")) == [(1, "")]


def test_steps_without_a_scenario_are_an_error_trap_4() -> None:
    """Even if scenarios follow."""
    assert errors(gherkin(f"{FEATURE}{STEPS}{SCENARIO}{STEPS}")) == [(2, "")]


def test_a_later_step_that_is_misspelt_trap_5() -> None:
    """The line, what stands there, what was expected, and what was probably meant."""
    said = gherkin(f"{FEATURE}{SCENARIO}    Given a\n    Whan y\n    Then z\n")
    found = problem(said)
    assert (found.line, found.scenario) == (4, START)
    assert "a step (Given, When, Then, And, But)" in found.what
    assert "found 'Whan y'" in found.what
    assert "`When …`" in found.hint
    assert "#" not in found.what


def test_other_scenarios_of_the_file_are_read_trap_5() -> None:
    """Even if there are more errors than the parser would bear."""
    bad = "".join(f"  Scenario: bad {n}\n    Given a\n    Whan y\n" for n in range(15))
    said = gherkin(f"{FEATURE}{bad}{SCENARIO}{STEPS}")
    assert len(said.scenarios) == 16
    assert len(said.scenarios[-1].steps) == 3
    assert {one.scenario for one in said.problems} == {f"Battles :: bad {n}" for n in range(15)}
    worse = gherkin(f"{FEATURE}{SCENARIO}{STEPS}" + "    and so on\n" * 500)
    assert len(worse.problems) == 5


@pytest.mark.parametrize("examples", ["    Examples:\n      | x |\n", "    Examples:\n", ""])
def test_an_outline_without_a_row_traps_6_and_7(examples: str) -> None:
    """It is listed and malformed, where the parser lets it disappear."""
    said = gherkin(f"{FEATURE}  Scenario Outline: Start\n    Given <x>\n{examples}")
    assert errors(said) == [(2, START)]
    assert only(said).is_outline
    assert "no row" in problem(said).what


def test_one_of_several_examples_without_a_row_is_a_warning_trap_6() -> None:
    """The outline has others."""
    examples = "    Examples:\n      | x |\n      | 1 |\n    Examples:\n      | x |\n"
    said = gherkin(f"{FEATURE}  Scenario Outline: Start\n    Given <x>\n{examples}")
    assert (problem(said).line, problem(said).is_error) == (7, False)


def test_a_placeholder_without_a_column_trap_8() -> None:
    """It stays as it is written."""
    examples = "    Examples:\n      | x |\n      | 1 |\n"
    said = gherkin(f"{FEATURE}  Scenario Outline: Start\n    Given <x> and <y>\n{examples}")
    assert (problem(said).line, problem(said).is_error) == (3, False)
    assert "<y>" in problem(said).what


def test_a_column_misspelt_in_a_placeholder_trap_8() -> None:
    """Nothing else can be meant: no row would say what it is to say."""
    examples = "    Examples:\n      | total | no |\n      | 1 | 2 |\n"
    said = gherkin(f"{FEATURE}  Scenario Outline: Start\n    Given <totl> and <n>\n{examples}")
    [other, misspelt] = said.problems
    assert (misspelt.line, misspelt.is_error, misspelt.hint) == (3, True, "write `<total>`")
    assert (other.line, other.is_error, other.hint) == (3, False, "")


def test_a_placeholder_in_a_plain_scenario_trap_9() -> None:
    """There is nothing to fill it in; mark-up and addresses are none."""
    assert "<x>" in problem(gherkin(f"{FEATURE}{SCENARIO}    Given <x>\n")).what
    fine = "    Given <b>bold</b>, a <me@example.org>, 1 < 2 > 0 and <br/>\n"
    assert gherkin(FEATURE + SCENARIO + fine).problems == ()


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "\ufeff"])
def test_a_file_without_anything_trap_10(text: str) -> None:
    """An error, and not nothing."""
    assert errors(gherkin(text)) == [(1, "")]


def test_a_name_twice_trap_11(tmp_path: Path) -> None:
    """Both places, in one file or in two."""
    (tmp_path / "a.feature").write_text(GOOD + SCENARIO + STEPS)
    (tmp_path / "b.feature").write_text(GOOD)
    problems = listed(tmp_path, ".").problems
    assert [(one.spec, one.line, one.scenario) for one in problems] == [
        ("a.feature", 2, START),
        ("a.feature", 6, START),
        ("b.feature", 2, START),
    ]
    assert "also a.feature:6, b.feature:2" in problems[0].what
    assert all(one.is_error for one in problems)


def test_a_blank_name_trap_11() -> None:
    """No test can mean it; each is a scenario of its own."""
    said = gherkin(f"{FEATURE}  Scenario:\n{STEPS}  Scenario:\n{STEPS}")
    assert len({one.key for one in said.scenarios}) == 2
    assert [line for line, _ in errors(said)] == [2, 6]


def test_a_second_feature_trap_12() -> None:
    """The whole file is malformed: nobody knows whose the scenarios below it are."""
    said = gherkin(GOOD + "Feature: Other\n  Scenario: t\n    Given x\n")
    assert errors(said) == [(6, "")]
    assert "one Feature" in problem(said).hint


def test_a_background_does_not_make_up_for_steps_trap_13() -> None:
    """The parser drops it then."""
    said = gherkin(f"{FEATURE}  Background:\n    Given x\n{SCENARIO}")
    assert errors(said) == [(4, START)]


def test_and_as_the_first_step_trap_14() -> None:
    """A warning, and a Given; after a background it goes on with that."""
    said = gherkin(f"{FEATURE}{SCENARIO}    And a\n    When b\n")
    assert (problem(said).line, problem(said).is_error) == (3, False)
    assert [step.kind for step in only(said).steps] == ["given", "when"]
    below = f"{FEATURE}  Background:\n    When x\n{SCENARIO}    And a\n"
    assert gherkin(below).problems == ()
    assert [step.kind for step in only(gherkin(below)).steps] == ["when", "when"]


def test_a_doc_string_that_is_never_closed() -> None:
    """Where it begins, and the scenario that it has taken in."""
    said = gherkin(f'{GOOD}      """\n      x\n  Scenario: t\n    Given y\n')
    assert errors(said) == [(6, START), (8, START)]
    assert len(only(said).steps) == 3


def test_a_doc_string_that_is_closed_too_late() -> None:
    """Two are open and two are closed, and the parser sees nothing wrong."""
    said = gherkin(f'{GOOD}      """\n      x\n  Scenario: t\n    Given y\n      """\n')
    assert errors(said) == [(8, START)]
    inside = gherkin(f'{GOOD}      """\n      Scenario: t\n        Given y\n      """\n')
    assert inside.problems == ()


def test_a_tag_that_belongs_to_nothing() -> None:
    """The scenarios above it are read all the same."""
    said = gherkin(GOOD + "\n@wip\n")
    assert [one.name for one in said.scenarios] == ["Start"]
    assert "'@wip' is read as tags, but no Scenario: follows" in problem(said).what


def test_a_table_with_a_row_too_short() -> None:
    """In words, with the row."""
    said = gherkin(GOOD + "      | a | b |\n      | c |\n")
    assert errors(said) == [(7, START)]
    assert "'| c |'" in problem(said).what


@pytest.mark.parametrize(
    "code, meant", [("fe", ""), ("fr_FR", "fr"), ("EN", "en"), ("zh-cn", "zh-CN")]
)
def test_an_unknown_language(code: str, meant: str) -> None:
    """With the one that was probably meant."""
    said = gherkin(f"# language: {code}\n{GOOD}")
    found = said.problems[0]
    if "_" not in code:
        assert (found.line, found.is_error) == (1, True)
    assert repr(code) in found.what
    assert meant in found.hint


def test_a_text_without_a_feature_says_how_much_is_lost() -> None:
    """One error, not one for each line."""
    said = gherkin(f"Feture: x\n{SCENARIO}{STEPS}{SCENARIO}{STEPS}")
    assert errors(said) == [(1, "")]
    assert "2 scenarios could not be read" in problem(said).what
    said = gherkin(f"Feture: x\n{SCENARIO}{STEPS}")
    assert "1 scenario could not be read" in problem(said).what


def test_the_asterisk_before_a_keyword() -> None:
    """The keyword is lost; a bullet is not what it looks like."""
    said = gherkin(f"{FEATURE}{SCENARIO}    * Given a\n    * all is well\n")
    assert (problem(said).line, problem(said).is_error) == (3, False)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_those_of_an_editor(end: str) -> None:
    """Whatever ends them, also within a doc string."""
    text = GOOD + '      """\n      x\n      y\n      """\n' + "  Scenario: t\n    Given z\n"
    said = gherkin(text.replace("\n", end))
    assert said == gherkin(text)
    assert [one.line for one in said.scenarios] == [2, 10]
    assert said.scenarios[0].steps[2].doc_string == "x\ny"


def test_marks_that_end_no_line() -> None:
    """A form feed and the line separators of Unicode are letters like others."""
    said = gherkin(GOOD.replace("a battle", "a\x0cbat\u2028tle"))
    assert [step.line for step in only(said).steps] == [3, 4, 5]
