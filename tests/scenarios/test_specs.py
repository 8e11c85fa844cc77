"""Specifications as teams write them: files, fences, languages, outlines."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios._specs import read_specs
from tests.command import arena

if TYPE_CHECKING:
    from pytest_arena.scenarios._specs import ScenarioSpec

BATTLE_D = Path(__file__).parents[2] / "examples" / "battle_d"


def read(folder: Path, text: str, name: str = "spec.md") -> list[ScenarioSpec]:
    (folder / name).write_text(dedent(text), encoding="utf-8")
    return [*read_specs([name], folder).scenarios]


def test_the_specification_of_the_project_is_read_exactly() -> None:
    """Its lines are those of the file."""
    scenarios = read_specs(["specs/*.md"], BATTLE_D).scenarios
    assert [each.line for each in scenarios] == [11, 18, 25, 41, 47]
    assert [len(each.steps) for each in scenarios] == [5, 5, 5, 4, 6]
    assert [step.kind for step in scenarios[0].steps] == ["given", "given", "when", "then", "then"]
    assert scenarios[4].steps[0].text.startswith('a Gherkin scenario: "Given tournament in')


def test_a_fence_in_any_form_is_found(tmp_path: Path) -> None:
    text = """\
        # A plan

        ~~~Gherkin title="x"
        Scenario: In tildes
          When a
        ~~~

        - a list:

          ```{.gherkin #id}
          Scenario: In a list
            When b
          ```

        > ```feature
        > Feature: Quotes
        >   Scenario: In a quote
        >     When c
        > ```

        <!-- ```gherkin
        Scenario: In a comment
        ``` -->

        ````markdown
        ```gherkin
        Scenario: An example of a fence
        ```
        ````
    """
    scenarios = read(tmp_path, text)
    assert [(each.name, each.feature, each.line) for each in scenarios] == [
        ("In tildes", "A plan", 4),
        ("In a list", "A plan", 11),
        ("In a quote", "Quotes", 17),
    ]
    assert scenarios[0].steps[0].line == 5


def test_a_language_is_read_by_its_own_words(tmp_path: Path) -> None:
    """A fence with a language has a line for the feature."""
    text = """\
        ```gherkin
        # language: fr
        Fonctionnalité: Batailles
        Plan du scénario: <nom> arrive
          Soit une liste vide
          Quand <nom> arrive
          Alors la liste contient <nom>
          Et * tout va bien

          Exemples:
            | nom  |
            | Anne |
            | Zoé  |
        ```
    """
    anne, zoe = read(tmp_path, text)
    assert (anne.name, zoe.key) == ("Anne arrive", "Batailles :: Zoé arrive [nom=Zoé]")
    assert anne.template == "<nom> arrive"
    assert [step.kind for step in anne.steps] == ["given", "when", "then", "then"]
    assert (anne.line, zoe.line) == (12, 13)


def test_a_feature_file_has_rules_backgrounds_tables_and_tags(tmp_path: Path) -> None:
    """A byte order mark is no error."""
    text = """\
        \ufeff@web
        Feature: Queue
          As a judge I read the queue.

          Background:
            Given a tournament

          Rule: it is ordered
            @slow
            Scenario: The first is first
              * a queue
                | name |
                | Sand |
              When I look
              * nothing moves
        """
    [scenario] = read(tmp_path, text, "queue.feature")
    assert scenario.tags == ("@web", "@slow")
    assert [(step.kind, step.text, step.line) for step in scenario.steps] == [
        ("given", "a tournament", 6),
        ("given", "a queue", 11),
        ("when", "I look", 14),
        ("when", "nothing moves", 15),
    ]
    assert scenario.steps[1].more == (("name",), ("Sand",))


@pytest.mark.parametrize(
    "text, is_same",
    [
        ("Scenario: Other\n\n  Given   a\n  # a comment\n  When b\n  And c\n", True),
        ("@tag\nScenario: A\n  Given a\n  When b\n  When c\n", True),
        ("Scenario: A\n  Given a\n  When b\n  Then c\n", False),
        ("Scenario: A\n  Given a\n  When b\n  When c\n    | x |\n", False),
        ("Scenario: A\n  Given a\n  When b\n", False),
    ],
)
def test_the_hash_is_of_the_steps_alone(tmp_path: Path, text: str, is_same: bool) -> None:  # noqa: FBT001
    """Layout, names, tags, comments and And do not change it."""
    [first] = read(tmp_path, "Feature: F\nScenario: A\n  Given a\n  When b\n  And c\n", "a.feature")
    [second] = read(tmp_path, f"Feature: G\n{text}", "b.feature")
    assert (first.revision == second.revision) == is_same


def test_files_folders_and_patterns_are_read_once(tmp_path: Path) -> None:
    """A file with another suffix is Markdown."""
    (tmp_path / "deep").mkdir()
    fence = "# {0}\n```gherkin\nScenario: {0}\n  When a\n```\n"
    for name in ("deep/a.md", "b.markdown", "c.txt"):
        (tmp_path / name).write_text(fence.format(name), encoding="utf-8")
    assert list(read_specs(["deep", "**/*.md", "c.txt"], tmp_path).files) == ["deep/a.md", "c.txt"]
    assert len(read_specs(["."], tmp_path).scenarios) == 2


def test_prose_that_begins_as_a_step_is_refused_only_in_scenarios(tmp_path: Path) -> None:
    """A feature may say "When judges vote …"."""
    text = "Feature: F\n  When judges vote, it counts.\n  Scenario: S\n    Then it is\n"
    assert len(read(tmp_path, text, "a.feature")) == 1
    wrong = "Feature: F\n  Scenario: S\n    when judges vote\n    Then it is\n"
    with pytest.raises(ScenarioError, match=r"a\.feature:2: Gherkin reads this line"):
        read(tmp_path, wrong, "a.feature")


def test_the_command_lists_scenarios(tmp_path: Path) -> None:
    listed = arena("scenarios", "list", "specs/FEATURE_SPEC_E2E.md", folder=BATTLE_D)
    assert listed.status == 0
    assert "specs/FEATURE_SPEC_E2E.md:11  5 steps  Test can view tournament" in listed.output
    assert "5 scenarios" in listed.output
    missing = arena("scenarios", "list", "nothing.md", folder=tmp_path)
    assert missing.status == 1
    assert "no specification was found: nothing.md" in missing.errors
