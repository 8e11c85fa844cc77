"""Does `arena scenarios stubs` write what is lacking, and change nothing that is there?"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.command import arena
from tests.example import fastapi_example

if TYPE_CHECKING:
    from pathlib import Path

    from tests.command import Called

SPEC = """\
# Dancers

BR-DAN-1: who dances is known.

```gherkin
Feature: Dancers

Scenario: A dancer is added
  Given a dancer "Ruby"
  When I POST to /dancers/{name}
  Then the response status should be 201

Scenario Outline: All can be seen
  Given a dancer "<name>"
  And I am logged in as the judge
  When I GET /dancers
  Then the response should contain "<name>"

  Examples:
    | name |
    | Kite |
    | Echo |
```
"""
CONFIG = """\
[pytest]
addopts = -p pytest_arena.plugin -p pytest_asyncio.plugin -p pytest_bdd.plugin
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
testpaths = tests
arena_specs = specs/*.md
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a specification, no app and no test."""
    for name in [name for name in os.environ if name.startswith("ARENA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (tmp_path / "specs").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "specs/dancers.md").write_text(SPEC)
    (tmp_path / "pytest.ini").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stubs(*arguments: str) -> Called:
    """Call the command."""
    return arena("scenarios", "stubs", *arguments)


def all_files(folder: Path) -> dict[str, bytes]:
    """What stands in all files of a folder."""
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_without_a_folder_the_tests_are_printed(project: Path) -> None:
    """Nothing is written, and what is printed is code."""
    before = all_files(project)
    called = stubs()
    assert (called.status, called.errors) == (0, "")
    start = '# test_dancers.py\n"""Scenarios of the feature Dancers."""\n'
    assert called.output.startswith(start)
    assert called.output.count("async def test_") == 2
    compile(called.output, "printed", "exec")
    assert {
        name: text for name, text in all_files(project).items() if "cache" not in name
    } == before


@pytest.mark.slow
def test_twice_is_no_change(project: Path) -> None:
    """What was written has a test; --check says before and after what is lacking."""
    called = stubs("--check", "--write", "tests")
    assert (called.status, called.output) == (1, "tests/test_dancers.py: 2 tests missing\n")
    called = stubs("--write", "tests")
    assert (called.status, called.output) == (0, "tests/test_dancers.py: 2 tests written\n")
    test = project / "tests/test_dancers.py"
    written = test.read_bytes()
    assert (
        stubs("--write", "tests").errors == "every scenario has a test: there is nothing to write\n"
    )
    called = stubs("--check")
    assert (called.status, called.output) == (0, "every scenario has a test\n")
    assert test.read_bytes() == written


@pytest.mark.slow
def test_a_new_scenario_comes_after_what_somebody_has_written(project: Path) -> None:
    """Not one byte is changed: not what was edited, nor a test of the same name."""
    stubs("--write", "tests")
    file = project / "tests/test_dancers.py"
    edited = file.read_bytes() + b"\n\ndef test_a_dancer_leaves():\r\n    assert True"
    file.write_bytes(edited)
    spec = project / "specs/dancers.md"
    more = "Scenario: A dancer leaves\n  Given a\n  When b\n  Then c\n\nScenario Outline"
    spec.write_text(spec.read_text().replace("Scenario Outline", more))
    assert stubs("--write", "tests").output.endswith("tests/test_dancers.py: 1 test added\n")
    now = file.read_bytes()
    assert now.startswith(edited)
    assert b"async def test_a_dancer_leaves_2(" in now[len(edited) :]
    compile(now, "test_dancers.py", "exec")


@pytest.mark.slow
def test_tests_elsewhere_count(project: Path) -> None:
    """By a marker or by pytest-bdd; one that must mean a scenario is told, and is its test."""
    deep = project / "tests/deep"
    deep.mkdir()
    feature = "Feature: Bound\n  Scenario: Bound by pytest-bdd\n    Given nothing\n"
    (project / "specs/bound.feature").write_text(feature)
    (project / "pytest.ini").write_text(CONFIG.replace("*.md", "*"))
    (deep / "test_dancers.py").write_text(
        'import pytest\n\n\n@pytest.mark.scenario("Dancers :: A dancer is added")\ndef test(): 1\n'
    )
    (deep / "test_bdd.py").write_text(
        "from pytest_bdd import scenarios\n\nscenarios('../../specs/bound.feature')\n"
    )
    (deep / "test_rest.py").write_text(
        'import pytest\n\n\n@pytest.mark.scenario("All can be sen")\ndef test(): ...\n'
    )
    called = stubs("--check", "--write", "tests")
    assert called.status == 1
    told = "tests/deep/test_rest.py:4: no scenario is called 'All can be sen'\n"
    assert called.errors.startswith(told)
    assert '  next: @pytest.mark.scenario("All can be seen")\n' in called.errors
    assert " missing" not in called.output
    (deep / "test_rest.py").write_text("")
    # pytest would take two modules of one name for the same.
    called = stubs("--check", "--write", "tests")
    assert called.output == "tests/test_dancers_2.py: 1 test missing\n"


def test_only_what_was_asked_for_is_written(project: Path) -> None:
    """A marker still has to mean one scenario among all of them."""
    (project / "specs/more.md").write_text(SPEC.replace("Feature: Dancers", "Feature: Others"))
    called = stubs("specs/more.md")
    assert (called.status, called.errors) == (0, "")
    assert called.output.count("async def test_") == 2
    assert '@pytest.mark.scenario("Others :: A dancer is added")' in called.output


def test_what_cannot_be_read_is_told(project: Path) -> None:
    """The others get their tests, and the status says that it is not all."""
    spec = project / "specs/dancers.md"
    broken = "\n```gherkin\nFeature: x\nScenario: y\n  Given a\n  Whan b\n```\n"
    spec.write_text(spec.read_text() + broken)
    called = stubs("--write", "tests")
    assert called.status == 1
    assert "left out: specs/dancers.md:" in called.errors
    assert "2 tests written" in called.output


@pytest.mark.slow
def test_what_cannot_be_collected_may_be_a_test(project: Path) -> None:
    """Nothing is written: it would be written twice."""
    (project / "tests/test_dancers.py").write_text("import no_such_module\n")
    called = stubs("--write", "tests")
    assert (called.status, called.output) == (1, "")
    assert "No module named 'no_such_module'" in called.errors
    assert "not all tests could be collected" in called.errors


@pytest.mark.parametrize(
    "arguments, status, said",
    [
        (["nowhere.md"], 1, "nowhere.md"),
        (["--write", "pytest.ini"], 2, "cannot be written"),
    ],
)
def test_wrong_arguments_are_refused(
    project: Path, arguments: list[str], status: int, said: str
) -> None:
    """Each with what is wrong, and what to do."""
    called = stubs(*arguments)
    assert called.status == status
    assert said in called.errors
    assert [*(project / "tests").iterdir()] == []


def test_without_a_specification_one_is_asked_for(project: Path) -> None:
    """Nothing found is never success."""
    (project / "pytest.ini").write_text("[pytest]\n")
    called = stubs()
    assert called.status == 2
    assert "arena scenarios stubs docs/specification.md" in called.errors


def test_a_project_whose_runner_wants_a_marker_gets_it(project: Path) -> None:
    """Else its tests would fail for another reason than being stubs."""
    (project / "pytest.ini").write_text(CONFIG.replace("asyncio_mode = auto\n", ""))
    assert stubs().output.count("@pytest.mark.asyncio\n") == 2


@pytest.mark.slow
def test_a_suite_of_plain_functions_gets_plain_functions(project: Path) -> None:
    """Also methods; one coroutine among them, and the suite is async."""
    written = project / "tests/test_there.py"
    written.write_text("class TestThere:\n    def test_it(self):\n        assert 1\n")
    output = stubs().output
    assert "\ndef test_a_dancer_is_added(test_client, db_session, scenario):\n" in output
    assert "async" not in output
    written.write_text("async def test_it():\n    assert 1\n\n\ndef test_that():\n    assert 1\n")
    assert stubs().output.count("async def test_") == 2


@pytest.mark.slow
def test_what_is_written_fails_as_a_stub(tmp_path: Path) -> None:
    """Each test, and each row of an Outline; nothing passes before somebody has written it."""
    example = fastapi_example(tmp_path).with_paths({"specs/dancers.md": SPEC})
    config = f"{example.files['pytest.ini']}arena_specs = specs/*.md\n"
    example = example.with_paths({"pytest.ini": config})
    called = arena("scenarios", "stubs", "--write", "tests", folder=example.write())
    assert (called.status, called.output) == (0, "tests/test_dancers.py: 2 tests written\n")
    run = example.run("--scenarios-out=json:out.json").expect(status=1, failed=3)
    scenarios = json.loads((run.folder / "out.json").read_text())["scenarios"]
    assert [one["status"] for one in scenarios] == ["STUB", "STUB"]
    assert [len(one["tests"]) for one in scenarios] == [1, 2]


@pytest.mark.slow
def test_tests_are_looked_for_where_pytest_looks(project: Path) -> None:
    """In all folders that `testpaths` matches, and a name that pytest passes over is told."""
    config = CONFIG.replace("testpaths = tests", "testpaths = */uni*")
    (project / "pytest.ini").write_text(f"{config}python_files = *_test.py\n")
    (project / "tests/unit").mkdir()
    called = stubs("--write", "tests/unit")
    told = "pytest does not collect test_dancers.py, because of python_files = *_test.py\n"
    assert (called.status, called.errors) == (0, told)
    (project / "tests/unit/test_dancers.py").rename(project / "tests/unit/dancers_test.py")
    assert stubs("--check").status == 0


BATTLES = """\
Feature: Battles of an evening
  Scenario: Test can start a battle
    Given a battle "Summer Battle 2024" exists with status PENDING
    When I POST to /battles/{battle_id}/start
    Then the response status should be 303

  @B-2 @no-seed
  Scenario: Many are added at once
    Given these dancers exist:
      | name | style   |
      | Ruby | hip hop |
      | Kite | popping |
    When I POST to /battle
      \"\"\"json
      {"name": "It's on"}
      \"\"\"
    Then there is 1 battle

  @no-request
  Scenario: none
    When it is
"""
BATTLES_CODE = '''\
"""Scenarios of the feature Battles of an evening."""

import pytest


@pytest.mark.scenario("Test can start a battle")
async def test_can_start_a_battle(client, db_session, scenario):
    """specs/battles.feature:2"""
    with scenario.given(\'a battle "Summer Battle 2024" exists with status PENDING\'):
        scenario.todo()
    with scenario.when("I POST to /battles/{battle_id}/start"):
        scenario.todo()
    with scenario.then("the response status should be 303"):
        scenario.todo()


MANY_ARE_ADDED_AT_ONCE_TEXT = """\\
{"name": "It's on"}"""


@pytest.mark.scenario("@B-2")
async def test_many_are_added_at_once(client, scenario):
    """specs/battles.feature:8"""
    table = [
        {"name": "Ruby", "style": "hip hop"},
        {"name": "Kite", "style": "popping"},
    ]
    with scenario.given("these dancers exist:"):
        for row in table:
            scenario.todo()
    with scenario.when("I POST to /battle"):
        # text: MANY_ARE_ADDED_AT_ONCE_TEXT
        scenario.todo()
    with scenario.then("there is 1 battle"):
        scenario.todo()


@pytest.mark.scenario("none")
async def test_none(scenario):
    """specs/battles.feature:20"""
    with scenario.when("it is"):
        scenario.todo()
'''
OUTLINE = """\
Feature: Prices
  Scenario Outline: <percent> % of <Total amount>
    Given an order:
      | Total amount   | note            |
      | <Total amount> | <percent> % off |
    When I GET /price/<percent>
    Then it is <price>

    Examples:
      | percent | Total amount | price |
      | 10      | 100          | 90    |
      | 10      | 100          | 90    |

    Examples: odd ones
      | percent | Total amount | price |
      | 0       |              | "0"   |
"""
OUTLINE_CODE = '''\
@pytest.mark.scenario("<percent> % of <Total amount>")
@pytest.mark.parametrize(
    ("total_amount", "percent", "price"),
    [
        pytest.param("100", "10", "90", id="100-10-90"),
        pytest.param("", "0", \'"0"\', id=\'-0-"0"\'),
    ],
)
async def test_percent_of_total_amount(
    client,
    db_session,
    scenario,
    total_amount,
    percent,
    price,
):
    """specs/prices.feature:2"""
    table = [
        {
            "Total amount": total_amount,
            "note": "<percent> % off".replace("<percent>", percent),
        },
    ]
'''
RUSSIAN = """\
# language: ru
Функция: Битвы
  Сценарий: Начать битву
    Допустим есть битва
    Затем бой идёт
  Сценарий: Кончить битву
    Допустим есть "битва" \\ \u200b
    Затем боя нет
"""


def test_a_feature_is_a_file_and_a_scenario_a_test_with_a_block_for_each_step(
    project: Path,
) -> None:
    """With tables, texts and rows; in any language; in code that a formatter leaves as it is."""
    words = ("    When I GET /price/<percent>\n", "    When \"<price>\" <class> 'x'\n")
    texts = {
        "battles": BATTLES,
        "prices": OUTLINE,
        "a class": OUTLINE.replace("percent", "class").replace("Prices", "Classes"),
        "битвы": RUSSIAN,
        "one": "Feature: A b\n  Scenario: s\n    Given a\n    When b\n    Then c\n",
        "two": "Feature: A, b!\n  Scenario: s\n    Given a\n    When b\n    Then d\n",
    }
    for name, text in texts.items():
        (project / f"specs/{name}.feature").write_text(text.replace(*words), "utf-8")
    called = stubs("--write", "tests", *(f"specs/{name}.feature" for name in texts))
    assert (called.status, called.errors) == (0, "")
    code = {file.name: file.read_text("utf-8") for file in (project / "tests").glob("*.py")}
    assert code["test_battles_of_an_evening.py"] == BATTLES_CODE
    assert OUTLINE_CODE in code["test_prices.py"]
    # Python has other plans for `class`.
    assert '@pytest.mark.parametrize(\n    "example",\n' in code["test_classes.py"]
    assert 'pytest.param({"Total amount": "", "class": "0", "price": ' in code["test_classes.py"]
    assert '"Total amount": example["Total amount"],' in code["test_classes.py"]
    # Names in other letters are told apart by a hash, and so are those that are like.
    assert "test_a_b.py" in code
    assert len(code) == len(texts)
    (russian,) = (text for text in code.values() if "есть битва" in text)
    assert 'with scenario.given("есть битва"):' in russian
    defined = [node.name for node in ast.parse(russian).body if hasattr(node, "name")]
    assert len(set(defined)) == 2
    for arguments in (["format", "--diff"], ["check"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--isolated", "--no-cache", "tests"]
        run = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        b"def test(): ...\n",
        pytest.param(b"import pytest as pt\n", marks=pytest.mark.slow),
        pytest.param(b"if True:\n    import pytest\n", marks=pytest.mark.slow),
        pytest.param(b"\xef\xbb\xbfimport pytest\n", marks=pytest.mark.slow),
        b"# coding: latin-1\nimport pytest\n",
    ],
    ids=["none", "other_name", "below", "bom", "latin"],
)
def test_a_file_that_cannot_take_a_test_is_left_alone(project: Path, code: bytes) -> None:
    """The tests go to a file with a number: this one has no `pytest` to mark them with."""
    path = project / "tests/test_dancers.py"
    path.write_bytes(code)
    assert stubs("--write", "tests").output == "tests/test_dancers_2.py: 2 tests written\n"
    assert path.read_bytes() == code
    (project / "tests/test_dancers_2.py").write_text("import pytest\r\n", newline="")
    assert stubs("--write", "tests").output == "tests/test_dancers_2.py: 2 tests added\n"
    lines = (project / "tests/test_dancers_2.py").read_bytes().splitlines(keepends=True)
    assert all(line.endswith(b"\r\n") for line in lines)
    assert lines[1:3] == [b"\r\n", b"\r\n"]
