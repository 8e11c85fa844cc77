"""Is the Gherkin in a Markdown file read, with its lines, and is nothing of it overlooked?"""

import pytest

from tests.specs.samples import FEATURE, SCENARIO, STEPS, errors, fenced, markdown, only, problem

START = SCENARIO + STEPS
FENCE = fenced(START)


def indented(by: str, text: str) -> str:
    """A text with something before each line."""
    return "".join(f"{by}{line}\n" for line in text.splitlines())


@pytest.mark.parametrize(
    "text, line",
    [
        (FENCE, 2),
        ("# Title\n\n" + FENCE, 4),
        ("- item\n\n" + indented("  ", FENCE), 4),
        ("> quote\n>\n" + indented("> ", FENCE), 4),
        ("1. item\n   - item\n\n" + indented("     ", FENCE), 5),
        (fenced(START, info="Gherkin"), 2),
        (fenced(START, "~~~", 'gherkin title="x"'), 2),
        (fenced(START, info=" {.gherkin #id}"), 2),
        (fenced(START, info="cucumber"), 2),
        (fenced(START, info="bdd"), 2),
        (fenced(START, info="{gherkin}"), 2),
        (fenced(START, info="{code-block} gherkin"), 2),
        (fenced(":caption: A\n:linenos:\n\n" + START, info="{code-block} gherkin"), 5),
        (fenced(START, "`````"), 2),
        ("---\ntitle: x\n---\n" + FENCE, 5),
        (fenced("x\n", info="python") + FENCE, 5),
        (fenced("\n# comment\n\n" + START), 5),
        (fenced("@tag\n" + START), 3),
    ],
)
def test_a_fence_is_read_with_the_lines_of_the_file(text: str, line: int) -> None:
    """In lists and quotes, in any case, with whatever else its mark says."""
    said = markdown(text)
    assert said.problems == ()
    assert only(said).line == line
    assert [step.line for step in only(said).steps] == [line + 1, line + 2, line + 3]


def test_a_fence_without_a_feature_is_named_by_its_heading() -> None:
    """The line of the feature is that of the fence's mark; without a heading it is the file."""
    said = markdown("# Battles of **today**\n\n" + FENCE)
    assert [(one.name, one.line) for one in said.features] == [("Battles of today", 3)]
    assert only(said).key == "Battles of today :: Start"
    assert markdown(FENCE).features[0].name == "a"


def test_a_heading_of_two_lines_is_one_name() -> None:
    """Underlined headings may have them; the fence's lines stay as they are."""
    said = markdown("Battles\nof today\n===\n" + FENCE)
    assert [(one.name, one.line) for one in said.features] == [("Battles of today", 4)]
    assert [step.line for step in only(said).steps] == [6, 7, 8]


def test_a_fence_with_a_feature_keeps_it() -> None:
    """And its line."""
    said = markdown("# Title\n\n" + fenced(FEATURE + START))
    assert [(one.name, one.line) for one in said.features] == [("Battles", 4)]


def test_a_language_in_a_fence_without_a_feature() -> None:
    """The comment stands behind the line that is ours, and counts all the same."""
    french = "# language: fr\nScénario: s\n  Soit a\n  Quand b\n"
    said = markdown(fenced(french))
    assert said.problems == ()
    assert said.features[0].document["feature"]["language"] == "fr"
    assert [step.kind for step in only(said).steps] == ["given", "when"]
    wrong = markdown(fenced(french.replace("fr", "frr")))
    assert errors(wrong) == [(2, "")]
    assert "`# language: fr`" in problem(wrong).hint


@pytest.mark.parametrize(
    "text",
    [
        "````markdown\n" + FENCE + "````\n",
        "<!--\n" + FENCE + "-->\n",
        fenced(START, info="text"),
        fenced(START, info="{code-block} text"),
        fenced('"""\n' + START + '"""\n', info="python"),
        "Scenario: x\n\nA user comes.\n",
        "Given the above, then this.\n",
        "In this scenario: when it rains\n",
        "## Scenario: planning\n\nWe plan.\n",
        "## Example: a plan\n\nWhen you plan, you plan.\n",
        "<pre>\nScenario: x\nGiven a\n</pre>\n",
        FENCE.replace("gherkin", "feature-flags"),
    ],
)
def test_what_is_no_specification_is_left_in_peace(text: str) -> None:
    """Examples of Gherkin, comments, prose."""
    said = markdown("# Title\n\n" + text)
    assert (said.scenarios, said.problems) == ((), ())


@pytest.mark.parametrize(
    "text, line",
    [
        ("text\n\n" + indented("    ", FENCE), 4),
        (fenced(START, info=""), 2),
        (fenced(START, info="gerkhin"), 2),
        (fenced(START, info="gherkins"), 2),
        (fenced(START, info="{code-block} gerkhin"), 2),
        (fenced(START, info="{code-block}"), 2),
        ("## Scenario: x\n\n* Given a\n* When b\n", 1),
        ("**Scenario:** x\n\n- **Given** a\n", 1),
        ("#### Scenario: x\n- **WHEN** a\n- **THEN** b\n", 1),
        ("Example: x\n  Given a\n  And b\n", 1),
        (START, 1),
        (fenced("scenario: s\n  Given a\n", info=""), 2),
        (fenced("Szenario: s\n  Angenommen a\n", info=""), 2),
    ],
)
def test_what_looks_like_a_scenario_and_is_not_read(text: str, line: int) -> None:
    """The line, and what to write."""
    said = markdown(text)
    assert errors(said) == [(line, "")]
    assert "looks like a scenario" in problem(said).what
    assert "```gherkin" in problem(said).hint


def test_a_format_of_another_tool_is_told_once_for_a_file() -> None:
    """It may have hundreds, and all are told by one."""
    said = markdown("#### Scenario: x\n- **WHEN** a\n- **THEN** b\n\n" * 6)
    assert errors(said) == [(1, "")]
    assert "The same is true of 5 more lines of this file" in problem(said).what


@pytest.mark.parametrize("tag", ["<details>", "<Tabs>", '<div class="x">'])
def test_a_fence_right_below_a_tag_is_told(tag: str) -> None:
    """Markdown has no fences there, up to a blank line."""
    assert errors(markdown(f"# Title\n\n{tag}\n{FENCE}</x>\n")) == [(4, "")]
    assert len(markdown(f"# Title\n\n{tag}\n\n{FENCE}\n</x>\n").scenarios) == 1


def test_a_fence_that_is_never_closed() -> None:
    """It swallows the rest of the file."""
    said = markdown("# Title\n" + FENCE.removesuffix("```\n"))
    assert errors(said) == [(2, "")]
    assert "never closed" in problem(said).what
    assert len(only(said).steps) == 3


def test_another_fence_that_is_never_closed() -> None:
    """The Gherkin in it is lost."""
    said = markdown("```python\nx = 1\n\n" + FENCE)
    assert errors(said) == [(4, "")]
    assert "opened in line 1" in problem(said).what
    assert errors(markdown("~~~python\nx = 1\n\n" + FENCE.replace("```", "~~~"))) == [(4, "")]


@pytest.mark.parametrize("indent", ["", "  "])
def test_a_doc_string_that_closes_the_fence(indent: str) -> None:
    """Three backticks within four blanks of the margin."""
    steps = f"Scenario: s\n  Given a\n{indent}```\ntext\n{indent}```\n  Then c\n"
    said = markdown(fenced(steps))
    assert errors(said) == [(4, "")]
    assert '"""' in problem(said).hint
    last = markdown(fenced("Scenario: s\n  Given a\n  ```\n  text\n  ```\n"))
    assert errors(last) == [(4, "")]
    fine = markdown(fenced("Scenario: s\n  Given a\n    ```\n    text\n    ```\n  Then c\n"))
    assert fine.problems == ()
    assert [step.doc_string for step in only(fine).steps] == ["text", None]


def test_one_broken_fence_does_not_hide_the_others() -> None:
    """Each is parsed on its own."""
    said = markdown(fenced(START + "Whan x\n") + "\n" + fenced("Scenario: t\n  Given a\n"))
    assert [(one.name, one.line) for one in said.scenarios] == [("Start", 2), ("t", 10)]
    assert errors(said) == [(6, "a :: Start")]


@pytest.mark.parametrize(
    "text", ["", "Given a\nThen b\n", "Some text\n", "scenario: s\n Given a\n"]
)
def test_a_fence_without_a_scenario_is_an_error(text: str) -> None:
    """Empty, or with steps alone."""
    assert len(errors(markdown("# Title\n" + fenced(text)))) == 1


def test_a_file_without_gherkin_is_no_problem() -> None:
    """Most files of a folder are of that kind."""
    said = markdown("# Title\n\nText.\n")
    assert (said.features, said.problems, said.files) == ((), (), ("docs/a.md",))


@pytest.mark.parametrize(
    "above, requirement",
    [
        ("## BR-TEST-001: Visible\n", "BR-TEST-001"),
        ("**Business Rule BR-TEST-001: Visible**\n\ntext\n", "BR-TEST-001"),
        ("> Rule REQ-12 holds.\n\n", "REQ-12"),
        ("# BR-1\n\n## Criteria\n\n", "BR-1"),
        ("# BR-1\n\n## BR-2\n\n", "BR-2"),
        ("## BR-1\n\n## Other\n\n", ""),
        ("## BR-1\n\n> now BR-2\n\n", "BR-2"),
        ("> quote\n\n## BR-1\n\nSee BR-2.\n\n", "BR-1"),
        ("## BR-1\n\nSee BR-2.\n\n- **BR-3** too\n\n", "BR-1"),
        ("## UTF-8 and ISO-8601, by RFC-2119 over HTTP-2, SHA-256\n", ""),
        ("## UTF-8 for SHOP-7\n", "SHOP-7"),
        ("## 2024-01-02 A-B x-1\n", ""),
    ],
)
def test_the_business_rule_is_that_of_the_section(above: str, requirement: str) -> None:
    """The nearest heading, quote or bold line that names one, in this section or around it."""
    assert only(markdown("# Title\n\n" + above + FENCE)).requirement == requirement


def test_two_rules_of_one_file() -> None:
    """Features, scenarios, steps and lines of a specification as people write it."""
    text = (
        "# Specification\n\n- **BR-TEST-009:** a list of rules\n\n"
        "### 4.1 Data\n\n**Business Rule BR-TEST-001: Visible**\n> It must be seen.\n\n"
        "**Acceptance Criteria:**\n" + fenced("Feature: Data\n  As a dancer\n\n" + START) + "\n"
        "### 4.2 Scenarios\n\n**Business Rule BR-TEST-002: Tested**\n\n"
        '```gherkin\nFeature: Tested\nScenario: one\n  Given a scenario: "Given x, When y"\n'
        "  Then the Given/When/Then conditions hold\n```\n"
    )
    said = markdown(text)
    lines = [*enumerate(text.split("\n"), 1)]
    assert said.problems == ()
    assert [(one.name, one.line) for one in said.features] == [("Data", 12), ("Tested", 26)]
    assert [one.line for one in said.features] == [
        number for number, line in lines if line.startswith("Feature:")
    ]
    assert [(one.line, len(one.steps), one.requirement) for one in said.scenarios] == [
        (15, 3, "BR-TEST-001"),
        (27, 2, "BR-TEST-002"),
    ]
