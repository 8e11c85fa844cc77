"""A specification becomes failing tests, which a developer completes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_arena.scenarios._markers import words
from tests.scenarios.projects import project

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

SPEC = """\
# Battles

```gherkin
Scenario: The list is "empty"
  When I GET /battles
  Then it is empty

Scenario Outline: <style> is known
  Given the judge <style>
  When I GET /judges
  Then it has <style> of <age>

  Examples:
    | style | age |
    | Ann   | 30  |
    | Bob   | 40  |

@no-request
Scenario: A very long name that no developer would write, but that an organiser may well have
  When the job runs with
    | a | b |
  Then the text is
    \"\"\"
    hello
    \"\"\"
```
"""


@pytest.fixture
def example(tmp_path: Path) -> Example:
    files = dict(project("outlines", tmp_path).files)
    del files["tests/test_paths.py"], files["specs/paths.feature"]
    example = project("outlines", tmp_path)
    return type(example)(example.folder, {**files, "specs/battles.md": SPEC, "tests/none.txt": ""})


def test_stubs_are_written_once_and_fail(example: Example) -> None:
    run = example.run("--scenarios-stubs=tests")
    assert run.status == 0, run.output
    run.says("tests/test_battles.py: 3 tests written")
    path = run.folder / "tests/test_battles.py"
    text = path.read_text(encoding="utf-8")
    assert "pytest.mark.asyncio" not in text  # the mode is auto
    assert (
        """\
@pytest.mark.scenario("The list is \\"empty\\"")
async def test_the_list_is_empty(client, scenario):
    \"\"\"specs/battles.md\"\"\"
    with scenario.when("I GET /battles"):
        scenario.todo()
    with scenario.then("it is empty"):
        scenario.todo()
"""
        in text
    )
    assert (
        """\
@pytest.mark.scenario("<style> is known")
@pytest.mark.parametrize("style, age", [("Ann", "30"), ("Bob", "40")])
"""
        in text
    )
    assert "async def test_style_is_known(client, db_session, scenario, style, age):" in text
    example.run("--scenarios-stubs=tests").says("every scenario has a test")
    assert path.read_text(encoding="utf-8") == text
    failed = example.run("--scenarios=strict", "--tb=no")
    failed.expect(1, failed=4).says("FAILED", "this test is not written yet")


def test_stubs_are_added_to_a_file_with_tests(example: Example) -> None:
    text = (
        "from pytest import mark\n\n\n"
        '@mark.scenario("The list is \\"empty\\"")\n'
        "async def test_style_is_known(client):\n"
        '    assert (await client.get("/battles")).json() == []\n'
    )
    options = ("--scenarios-stubs=tests", "-o", "asyncio_mode=strict")
    run = example.with_paths({"tests/test_battles.py": text}).run(*options)
    run.says("tests/test_battles.py: 2 tests written")
    written = (run.folder / "tests/test_battles.py").read_text(encoding="utf-8")
    assert written.startswith(f"{text}\nimport pytest\n\n\n@pytest.mark.asyncio\n@")
    assert "async def test_style_is_known_2(" in written


def test_no_stub_is_written_if_a_test_file_is_broken(example: Example) -> None:
    """The broken file may have the test."""
    run = example.with_paths({"tests/test_x.py": "import nothing\n"}).run("--scenarios-stubs=tests")
    assert run.status == 2
    assert not (run.folder / "tests/test_battles.py").exists()


@pytest.mark.parametrize(
    "text, name",
    [
        ("A battle, started!", "a_battle_started"),
        ("Ein Käse", "ein_käse"),
        ("Битва №1", "битва_no1"),
    ],
)
def test_a_name_in_any_alphabet_becomes_a_functions_name(text: str, name: str) -> None:
    assert words(text) == name
