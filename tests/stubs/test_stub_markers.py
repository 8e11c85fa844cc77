"""Is a scenario's test found in the code, however its marker is written?"""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from pytest_arena.scenarios.stubs import Binding, bindings, markers, python_files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "code",
    [
        '@pytest.mark.scenario("Start")\ndef test(): ...',
        '@pytest.mark.scenario("Start")\nasync def test(): ...',
        '@mark.scenario("Start")\ndef test(): ...',
        '@pt.mark.scenario("Start")\nclass TestIt: ...',
        'class TestIt:\n  class In:\n    @pytest.mark.scenario("Start")\n    def test(): ...',
        'pytestmark = pytest.mark.scenario("Start")',
        'pytestmark = [pytest.mark.slow, pytest.mark.scenario("Start")]',
        'class TestIt:\n    pytestmark = [pytest.mark.scenario("Start")]',
        'ROWS = [pytest.param(1, marks=pytest.mark.scenario("Start"))]',
        'scenario = pytest.mark.scenario\n@scenario("Start")\ndef test(): ...',
        'NAME: str = "Start"\n@pytest.mark.scenario(NAME)\ndef test(): ...',
        '@pytest.mark.scenario("St" "art")\ndef test(): ...',
    ],
)
def test_a_marker_is_found_however_it_is_written(tmp_path: Path, code: str) -> None:
    """On functions, methods, classes, modules, parameters; by other names."""
    file = tmp_path / "test_it.py"
    file.write_text(code)
    [marker] = markers(file)
    assert marker.arguments == ("Start",)


def test_a_marker_has_its_options_and_its_line(tmp_path: Path) -> None:
    """What only a run would know is None."""
    file = tmp_path / "test_it.py"
    code = """
        @pytest.mark.scenario("@B-1", rev="1:0a", row={"p": "1"})
        @pytest.mark.scenario(name_of("x"))
        def test(scenario):
            scenario.todo("x")
            other.mark.nothing("x")
    """
    file.write_text(dedent(code))
    one, other = markers(file)
    assert (one.arguments, one.line) == (("@B-1",), 2)
    assert one.options == {"rev": "1:0a", "row": {"p": "1"}}
    assert other.arguments == (None,)


@pytest.mark.parametrize("code", [b"def (", b"\xff scenario", b"\x00 scenario"])
def test_a_file_that_is_no_python_has_no_markers(tmp_path: Path, code: bytes) -> None:
    """It is pytest's to complain of it."""
    file = tmp_path / "test_it.py"
    file.write_bytes(code + b"\n# pytest.mark.scenario pytest_bdd")
    assert list(markers(file)) == []
    assert list(bindings(file)) == []


def test_what_pytest_bdd_binds_is_found(tmp_path: Path) -> None:
    """Whole files and folders, or one scenario of a file."""
    file = tmp_path / "test_it.py"
    code = """
        from pytest_bdd import given, scenario, scenarios
        FILE = "a.feature"
        scenarios("features", "b.feature", encoding="utf-8")
        @scenario(FILE, "Start")
        def test(): ...
    """
    file.write_text(dedent(code))
    assert list(bindings(file)) == [
        Binding("features"),
        Binding("b.feature"),
        Binding("a.feature", "Start"),
    ]
    assert list(markers(file)) == []
    file.write_text(code.replace("pytest_bdd", "somewhere"))
    assert list(bindings(file)) == []


def test_only_folders_that_can_hold_tests_are_looked_into(tmp_path: Path) -> None:
    """No hidden ones, no virtual environments, no links that lead in a circle."""
    for name in ("tests/unit", ".git", "env", "node_modules"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "test_it.py").touch()
    (tmp_path / "env/pyvenv.cfg").touch()
    (tmp_path / "tests/circle").symlink_to(tmp_path)
    assert list(python_files(tmp_path)) == [tmp_path / "tests/unit/test_it.py"]
    assert list(python_files(tmp_path / ".git/test_it.py")) == [tmp_path / ".git/test_it.py"]
    assert list(python_files(tmp_path / "nowhere")) == []
