"""Does `arena scenarios stubs` write what is lacking, and change nothing that is there?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_arena._cli import main
from pytest_arena.scenarios.specs import read
from pytest_arena.testing import fastapi_example

if TYPE_CHECKING:
    from pathlib import Path

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
asyncio_mode = auto
testpaths = tests
arena_specs = specs/*.md
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a specification, no app and no test."""
    for name in [name for name in os.environ if name.startswith("ARENA_")]:
        monkeypatch.delenv(name)
    (tmp_path / "specs").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "specs/dancers.md").write_text(SPEC)
    (tmp_path / "pytest.ini").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stubs(*arguments: str) -> int:
    """Run the command in this process."""
    return main(["scenarios", "stubs", *arguments])


def all_files(folder: Path) -> dict[str, bytes]:
    """What stands in all files of a folder."""
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_without_a_folder_the_tests_are_printed(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written, and what is printed is code."""
    before = all_files(project)
    assert stubs() == 0
    printed = capsys.readouterr()
    assert printed.out.startswith('# test_dancers.py\n"""Scenarios of the feature Dancers."""\n')
    assert printed.out.count("async def test_") == 2
    assert printed.err == ""
    compile(printed.out, "printed", "exec")
    assert all_files(project) == before


def test_twice_is_no_change(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was written has a test; --check says before and after what is lacking."""
    assert stubs("--check", "--write", "tests") == 1
    assert capsys.readouterr().out == "tests/test_dancers.py: 2 tests lacking\n"
    assert stubs("--write", "tests") == 0
    assert capsys.readouterr().out == "tests/test_dancers.py: 2 tests written\n"
    written = all_files(project)
    assert stubs("--write", "tests") == 0
    assert capsys.readouterr().err == "every scenario has a test: there is nothing to write\n"
    assert stubs("--check") == 0
    assert all_files(project) == written


def test_a_new_scenario_comes_after_what_somebody_has_written(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not one byte is changed: not what was edited, nor a test of the same name."""
    stubs("--write", "tests")
    file = project / "tests/test_dancers.py"
    edited = file.read_bytes() + b"\n\ndef test_a_dancer_leaves():\r\n    assert True"
    file.write_bytes(edited)
    spec = project / "specs/dancers.md"
    spec.write_text(
        spec.read_text().replace(
            "Scenario Outline",
            "Scenario: A dancer leaves\n  Given a\n  When b\n  Then c\n\nScenario Outline",
        )
    )
    assert stubs("--write", "tests") == 0
    assert capsys.readouterr().out.endswith("tests/test_dancers.py: 1 test added\n")
    now = file.read_bytes()
    assert now.startswith(edited)
    assert b"async def test_a_dancer_leaves_2(" in now[len(edited) :]
    compile(now, "test_dancers.py", "exec")
    assert stubs("--check") == 0


def test_tests_elsewhere_count(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By a marker or by pytest-bdd; one that must mean a scenario is told, and is its test."""
    deep = project / "tests/deep"
    deep.mkdir()
    (deep / "test_dancers.py").write_text(
        'import pytest\n\n\n@pytest.mark.scenario("Dancers :: A dancer is added")\ndef test(): 1\n'
    )
    (deep / "test_bdd.py").write_text(
        "from pytest_bdd import scenario\n\n\n"
        '@scenario("../../specs/dancers.md", "All can be seen")\ndef test(): ...\n'
    )
    assert stubs("--check") == 0
    (deep / "test_bdd.py").write_text(
        'import pytest\n\n\n@pytest.mark.scenario("All can be sen")\ndef test(): ...\n'
    )
    assert stubs("--check", "--write", "tests") == 1
    told = capsys.readouterr()
    assert told.err.startswith("tests/deep/test_bdd.py:4: no scenario is called 'All can be sen'\n")
    assert '  next: @pytest.mark.scenario("All can be seen")\n' in told.err
    assert "lacking" not in told.out
    (deep / "test_bdd.py").write_text("")
    assert stubs("--check", "--write", "tests") == 1
    told = capsys.readouterr()
    # pytest would take two modules of one name for the same.
    assert told.out.endswith("tests/test_dancers_2.py: 1 test lacking\n")


def test_a_renamed_scenario_gets_no_second_test(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its marker has to be mended, which is told with the one to paste."""
    stubs("--write", "tests")
    spec = project / "specs/dancers.md"
    rev = next(one.rev for one in read(("specs",), project).scenarios if "added" in one.name)
    test = project / "tests/test_dancers.py"
    test.write_text(test.read_text().replace('is added")', f'is added", rev="{rev}")'))
    spec.write_text(spec.read_text().replace("A dancer is added", "Somebody joins"))
    written = all_files(project)
    capsys.readouterr()
    assert stubs("--write", "tests") == 1
    told = capsys.readouterr()
    assert "'A dancer is added'; its steps are those of 'Somebody joins'" in told.err
    assert "every scenario has a test" not in told.err
    assert stubs("--check") == 1
    assert all_files(project) == written


def test_only_what_was_asked_for_is_written(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A marker still has to mean one scenario among all of them."""
    (project / "specs/more.md").write_text(SPEC.replace("Feature: Dancers", "Feature: Others"))
    assert stubs("specs/more.md") == 0
    printed = capsys.readouterr().out
    assert printed.count("async def test_") == 2
    assert '@pytest.mark.scenario("Others :: A dancer is added")' in printed


def test_what_cannot_be_read_is_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The others get their tests, and the status says that it is not all."""
    spec = project / "specs/dancers.md"
    spec.write_text(
        spec.read_text() + "\n```gherkin\nFeature: x\nScenario: y\n  Given a\n  Whan b\n```\n"
    )
    assert stubs("--write", "tests") == 1
    told = capsys.readouterr()
    assert "left out: specs/dancers.md:" in told.err
    assert "2 tests written" in told.out


@pytest.mark.parametrize(
    "arguments, status, said",
    [
        (["nowhere.md"], 1, "nowhere.md"),
        (["--write", "pytest.ini"], 2, "cannot be written"),
    ],
)
def test_wrong_arguments_are_refused(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, said: str
) -> None:
    """Each with what is wrong, and what to do."""
    before = all_files(project)
    assert stubs(*arguments) == status
    assert said in capsys.readouterr().err
    assert all_files(project) == before


def test_without_a_specification_one_is_asked_for(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing found is never success."""
    (project / "pytest.ini").write_text("[pytest]\n")
    assert stubs() == 2
    assert "arena scenarios stubs docs/specification.md" in capsys.readouterr().err


def test_a_project_whose_runner_wants_a_marker_gets_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else its tests would fail for another reason than being stubs."""
    (project / "pytest.ini").write_text(CONFIG.replace("asyncio_mode = auto\n", ""))
    assert stubs() == 0
    assert capsys.readouterr().out.count("@pytest.mark.asyncio\n") == 2


def in_a_process(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command where it may look at an app: the gate stays in the process that it is in."""
    code = "import sys; from pytest_arena._cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "scenarios", "stubs", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


LOUD = """
print("the app says hello")
from sqlalchemy import create_engine, text
with create_engine("sqlite:///dev.db").begin() as connection:
    connection.execute(text("CREATE TABLE made_at_import (id INTEGER)"))
"""


def test_trap_the_app_is_imported_inside_the_arena(tmp_path: Path) -> None:
    """What it prints is no code, what it writes at its import meets no database of anybody's."""
    example = fastapi_example(tmp_path).with_paths({"specs/dancers.md": SPEC})
    folder = example.with_paths({"app.py": example.files["app.py"] + LOUD}).write()
    run = in_a_process(folder, "specs/dancers.md")
    assert run.returncode == 0, run.stderr
    assert "# POST /dancers/{name} -> add\n" in run.stdout
    assert '# judge = client_as("judge")\n' in run.stdout
    assert "hello" not in run.stdout
    assert "hello" in run.stderr
    assert not (folder / "dev.db").exists()


def test_an_app_that_does_not_import_is_told(project: Path) -> None:
    """An error where it was asked for; else the tests are written without its routes."""
    asked = in_a_process(project, "--app", "nowhere:app")
    assert (asked.returncode, asked.stdout) == (2, "")
    assert "arena_app = nowhere:app does not import" in asked.stderr
    (project / "pytest.ini").write_text(f"{CONFIG}arena_app = nowhere:app\n")
    given = in_a_process(project)
    assert given.returncode == 0
    assert "no route was looked up: arena_app = nowhere:app does not import" in given.stderr
    assert "# response = await client.post(" in given.stdout
    left_alone = in_a_process(project, "--app", "")
    assert (left_alone.returncode, left_alone.stderr) == (0, "")
    assert left_alone.stdout == given.stdout


def test_what_is_written_fails_as_a_stub(tmp_path: Path) -> None:
    """Each test, and each row of an Outline; nothing passes before somebody has written it."""
    example = fastapi_example(tmp_path).with_paths({"specs/dancers.md": SPEC})
    config = f"{example.files['pytest.ini']}arena_specs = specs/*.md\n"
    example = example.with_paths({"pytest.ini": config})
    written = in_a_process(example.write(), "--write", "tests")
    assert (written.returncode, written.stdout) == (0, "tests/test_dancers.py: 2 tests written\n")
    run = example.run("--scenarios-out=json:out.json").expect(status=1, failed=3)
    scenarios = json.loads((run.folder / "out.json").read_text())["scenarios"]
    assert [one["status"] for one in scenarios] == ["STUB", "STUB"]
    assert [len(one["tests"]) for one in scenarios] == [1, 2]


def test_tests_are_looked_for_where_pytest_looks(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In all folders that `testpaths` matches, and a name that pytest passes over is told."""
    config = CONFIG.replace("testpaths = tests", "testpaths = */uni*")
    (project / "pytest.ini").write_text(f"{config}python_files = *_test.py\n")
    (project / "tests/unit").mkdir()
    assert stubs("--write", "tests/unit") == 0
    assert capsys.readouterr().err == (
        "pytest does not collect test_dancers.py: python_files = *_test.py\n"
    )
    assert stubs("--check") == 0
    (project / "tests/unit").rename(project / "tests/other")
    (project / "tests/uni_2").mkdir()
    assert stubs("--check") == 1
