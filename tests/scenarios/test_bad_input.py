"""Wrong specifications, markers, blocks and files: one error each, and no test runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scenarios.projects import project

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example


@pytest.fixture
def example(tmp_path: Path) -> Example:
    """Return a project with two proven outlines."""
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
            {SPEC: "Feature: Paths\n"},
            "specs/paths.feature:1: the feature has no scenario",
        ),
        ({SPEC: "# only a comment\n"}, "specs/paths.feature:1: the feature has no scenario"),
        ({"specs/paths.md": "# Prose\n", SPEC: "Feature: F\n Scenario: S\n"}, "'S' has no step"),
        (
            {SPEC: "Feature: F\n Scenario: S\n  Givn a\n  When b\n"},
            "Gherkin reads this line as a description, not as a step: Givn a",
        ),
        (
            {SPEC: "Feature: F\n scenario: S\n Scenario: T\n  When b\n"},
            "Gherkin reads this line as a description, not as a scenario: scenario: S",
        ),
        (
            {SPEC: "Feature: F\n Scenario Outline: S\n  When <a>\n  Examples:\n  | a |\n"},
            "the outline 'S' has no row",
        ),
        (
            {SPEC: "Feature: F\n Scenario: S\n  When a\n Scenario: S\n  When b\n"},
            "two scenarios have one name: F :: S",
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
            {"scenarios.lock": "# scenarios.lock, version 2\n"},
            "scenarios.lock:1 is not a valid line",
        ),
        (
            {"scenarios.lock": "# scenarios.lock, version 1\n<<<<<<< ours\n"},
            "scenarios.lock:2 is not",
        ),
    ],
)
def test_a_wrong_file_is_one_error(example: Example, changes: dict[str, str], error: str) -> None:
    """P9. The status is 4, and the error has the place."""
    run = example.with_paths(changes).run("--scenarios=strict")
    assert run.status == 4, run.output
    run.says(error)
    assert run.output.count("[A801]") == 1, run.output
    assert "passed" not in run.output


def test_no_scenario_at_all_is_an_error(example: Example) -> None:
    """P9. Markdown without a fence has none."""
    files = {"docs/prose.md": "# Prose\n"}
    run = example.with_paths(files).run("-oarena_specs=docs")
    assert run.status == 4
    run.says("no scenario was found in docs", "1 files were read")
    missing = example.run("-oarena_specs=nowhere/*.md")
    assert missing.status == 4
    missing.says("no specification was found: nowhere/*.md")


def test_workers_report_a_wrong_marker_once(example: Example) -> None:
    """P9. The controller ends the run."""
    wrong = example.change(FILE, '"A path is answered [', '"A path [')
    run = wrong.run("-p", "xdist.plugin", "-n", "2")
    assert run.status == 4, run.output
    run.says("no scenario is called 'A path [")


@pytest.mark.parametrize(
    "text, error",
    [
        ('scenario.when("I GET /nowhere")', "with scenario.when('I GET <path>'):"),
        ('scenario.given("I GET <path>")', "no Given step of the scenario reads"),
    ],
)
def test_a_block_names_a_step(example: Example, text: str, error: str) -> None:
    """P9. The test fails at the block."""
    wrong = example.change(FILE, 'scenario.when("I GET <path>")', text)
    run = wrong.run("-k", "test_paths and battles")
    run.expect(1, failed=1, passed=1).says(error)


def test_a_block_needs_a_scenario(example: Example) -> None:
    """P9. Without specifications a block does nothing."""
    text = (
        "import pytest\n"
        "def test_unnamed(scenario):\n"
        "    with scenario.when('x'): pass\n"
        "@pytest.mark.scenario('A path is answered [path=/others, status=404]')\n"
        "def test_named(scenario):\n"
        "    with scenario.when('I GET /others'): pass\n"
    )
    changed = example.with_paths({FILE: text})
    changed.run().expect(1, failed=1, passed=1).says(
        "the test has a block for a step, but names no scenario",
    )
    changed.run("-oarena_specs=").expect(0, passed=2).says(
        "so the marker scenario proves nothing: 1 test"
    )


@pytest.mark.parametrize(
    "argument",
    ["--scenarios-out=messages:x", "--scenarios-out=json", "--scenarios-merge=missing.json"],
)
def test_a_wrong_output_or_shard_is_an_error(example: Example, argument: str) -> None:
    """P9."""
    run = example.run(argument)
    assert run.status == 4
    run.says("ERROR: ")


@pytest.mark.parametrize(
    "argument",
    ["--scenarios=strict", "--scenarios-out=json:x", "--scenarios-accept", "--scenarios-stubs=x"],
)
def test_options_of_scenarios_need_a_specification(example: Example, argument: str) -> None:
    """P9. Otherwise the run would check nothing, and would pass."""
    run = example.run("-oarena_specs=", argument)
    assert run.status == 4
    run.says("and arena_specs names no specification")
