"""Wrong specifications, markers, blocks and files: one error each, and no test runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.command import arena
from tests.scenarios.projects import project

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example


@pytest.fixture
def example(tmp_path: Path) -> Example:
    return project("outlines", tmp_path)


SPEC = "specs/paths.feature"
FILE = "tests/test_paths.py"


@pytest.mark.parametrize(
    "changes, error",
    [
        (
            {SPEC: "Feature: Paths\n  Scenario: One\n    Given x\n    Whan y\n"},
            "specs/paths.feature:4 is no valid Gherkin",
        ),
        (
            {
                FILE: 'import pytest\npytestmark = pytest.mark.scenario("A path is anwsered")\n'
                "def test_a(): pass\n"
            },
            '@pytest.mark.scenario("A path is answered")',
        ),
        (
            {FILE: "import pytest\npytestmark = pytest.mark.scenario()\ndef test_a(): pass\n"},
            "the marker scenario has other arguments than one name",
        ),
        (
            {
                "specs/more.feature": "Feature: More\n Scenario: A path is answered\n  When a\n",
                FILE: 'import pytest\n@pytest.mark.scenario("A path is answered")\n'
                "def test_a(): pass\n",
            },
            '@pytest.mark.scenario("More :: A path is answered")',
        ),
        (
            {"scenarios.lock": "# scenarios.lock, version 1\n<<<<<<< ours\n"},
            "scenarios.lock:2 is not",
        ),
        (
            {"scenarios.lock": "# scenarios.lock, version 1\n" + "A :: B  01234567\n" * 2},
            "a second line for A :: B",
        ),
    ],
)
def test_a_wrong_file_is_one_error(example: Example, changes: dict[str, str], error: str) -> None:
    run = example.with_paths(changes).run("--scenarios=strict")
    assert run.status == 4, run.output
    run.says(error)
    assert run.output.count("[A801]") == 1, run.output
    assert "passed" not in run.output


@pytest.mark.parametrize(
    "text, error",
    [
        ("Feature: Paths\n", "spec.feature:1: the feature has no scenario"),
        ("# only a comment\n", "spec.feature:1: the feature has no scenario"),
        ("Feature: F\n Scenario: S\n", "'S' has no step"),
        (
            "Feature: F\n Scenario: S\n  Givn a\n  When b\n",
            "Gherkin reads this line as a description, not as a step: Givn a",
        ),
        (
            "Feature: F\n scenario: S\n Scenario: T\n  When b\n",
            "Gherkin reads this line as a description, not as a scenario: scenario: S",
        ),
        (
            "Feature: F\n Scenario Outline: S\n  When <a>\n  Examples:\n  | a |\n",
            "the outline 'S' has no row",
        ),
        (
            "Feature: F\n Scenario: S\n  When a\n Scenario: S\n  When b\n",
            "two scenarios have one name: F :: S",
        ),
        (None, "no scenario was found in ."),
    ],
)
def test_a_wrong_specification_is_one_error(tmp_path: Path, text: str | None, error: str) -> None:
    """Markdown without a fence has no scenario."""
    (tmp_path / "prose.md").write_text("# Prose\n", encoding="utf-8")
    if text:
        (tmp_path / "spec.feature").write_text(text, encoding="utf-8")
    listed = arena("scenarios", "list", ".", folder=tmp_path)
    assert listed.status == 1
    assert error in listed.errors
    assert listed.errors.count("[A801]") == 1


def test_workers_report_a_wrong_marker_once(example: Example) -> None:
    wrong = example.change(FILE, '"A path is answered [', '"A path [')
    run = wrong.run("-p", "xdist.plugin", "-n", "2")
    assert run.status == 4, run.output
    run.says("no scenario is called 'A path [")


def test_a_block_names_a_step_of_a_scenario(example: Example) -> None:
    """Otherwise the test fails at the block. Without specifications a block does nothing."""
    marker = "@pytest.mark.scenario('A path is answered [path=/others, status=404]')\n"
    blocks = ["when('I GET /others')", "when('I GET /nowhere')", "given('I GET /others')"]
    blocks.append("then('the answer was 404')")
    text = "import pytest\ndef test_unnamed(scenario):\n    with scenario.when('x'): pass\n"
    for number, block in enumerate(blocks):
        text += f"{marker}def test_{number}(scenario):\n    with scenario.{block}: pass\n"
    example.with_paths({FILE: text}).run().expect(1, failed=4, passed=1).says(
        "the test has a block for a step, but names no scenario",
        "with scenario.when('I GET <path>'):",
        "no Given step of the scenario reads",
        "next: with scenario.then('the answer is <status>'):",
    )


@pytest.mark.parametrize(
    "argument",
    ["--scenarios-out=messages:x", "--scenarios-out=json", "--scenarios-merge=missing.json"],
)
def test_a_wrong_output_or_shard_is_an_error(example: Example, argument: str) -> None:
    run = example.run(argument)
    assert run.status == 4
    run.says("ERROR: ")
