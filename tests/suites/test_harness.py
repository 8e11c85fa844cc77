"""Does the harness find what is wrong with a suite?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.suites.harness import Suite

if TYPE_CHECKING:
    from pathlib import Path

STORIES = """
import pytest


def fail():
    raise LookupError("[A602] as wanted")  # the line


def test_passes():
    open("shop.db", "w").close()


@pytest.mark.parametrize("turn", [1, 2])
def test_fails_in_one_of_its_turns(turn):
    assert turn == 1


@pytest.mark.expect("LookupError", at="the line")
def test_fails_as_expected():
    fail()


@pytest.mark.expect("A602", at="the line")
def test_has_the_code():
    fail()


@pytest.mark.expect("LostWriteWarning", at="the line")
def test_has_another_code():
    fail()


@pytest.mark.expect("A602", at="another line")
def test_fails_in_another_line():
    fail()


@pytest.mark.expect("A602")
def test_does_not_fail():
    pass


@pytest.fixture
def broken():
    yield
    fail()


def test_whose_teardown_fails(broken):
    pass


@pytest.mark.skip(reason="not here")
def test_is_skipped():
    pass


class TestOfClass:
    def test_passes(self):
        pass


unknown = test_passes
test_made_otherwise = lambda: None
"""


def result_of(folder: Path, text: str, *, patience: float = 60) -> tuple[Suite, Path]:
    suite = folder / "suite"
    suite.mkdir()
    (suite / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n", encoding="utf-8")
    (suite / "test_it.py").write_text(text, encoding="utf-8")
    return Suite(suite, "sqlite", patience), folder / "shared"


def test_each_wrong_story_is_found(tmp_path: Path) -> None:
    """The second caller reads the facts of the first."""
    suite, shared = result_of(tmp_path, STORIES)
    suite.result(shared)
    facts = shared / "suite-sqlite" / "facts.jsonl"
    before = facts.read_bytes()
    result = suite.result(shared)
    assert facts.read_bytes() == before
    wrong = {story.partition("::")[2]: result.problems(story) for story in suite.stories()}
    assert {name for name, problems in wrong.items() if problems} == {
        "test_fails_in_one_of_its_turns",
        "test_has_another_code",
        "test_fails_in_another_line",
        "test_does_not_fail",
        "test_whose_teardown_fails",
    }
    assert "TestOfClass::test_passes" in wrong
    assert "not here" in result.skipped("test_it.py::test_is_skipped")
    otherwise, reached = result.whole()
    assert otherwise.startswith("test_it.py::test_made_otherwise ")
    assert reached == "the app has reached the developer's file shop.db"
    assert result.problems("test_it.py::test_gone")


@pytest.mark.parametrize(
    "texts, found",
    [(("import nothing\n", "def test_it(:"), 2), (("import os\nos._exit(3)\n",), 0)],
)
def test_a_run_that_dies_in_its_collection_fails_as_a_whole_and_each_story(
    tmp_path: Path, texts: tuple[str, ...], found: int
) -> None:
    """The stories are known without running the suite."""
    suite, shared = result_of(tmp_path, "def test_first(): pass\n")
    for number, text in enumerate(texts):
        (suite.folder / f"broken{number}_test.py").write_text(text, encoding="utf-8")
    result = suite.result(shared)
    assert len(result.broken) == found
    assert result.whole()
    assert result.problems("test_it.py::test_first")


def test_a_run_that_hangs_is_killed(tmp_path: Path) -> None:
    """The stories before the hang keep their results."""
    text = "import time\ndef test_first(): pass\ndef test_hangs(): time.sleep(600)\n"
    suite, shared = result_of(tmp_path, text, patience=8)
    result = suite.result(shared)
    assert "killed" in result.whole()[0]
    assert not result.problems("test_it.py::test_first")
    assert result.problems("test_it.py::test_hangs")


def test_a_report_is_compared_with_the_golden_file(tmp_path: Path) -> None:
    text = "import pytest\n\n@pytest.mark.expect('AssertionError')\ndef test_it():\n    assert 0\n"
    suite, shared = result_of(tmp_path, text)
    golden = suite.folder / "golden.txt"
    golden.write_text("== test_it.py::test_it ==\nanother\n\n== test_it.py::test_gone ==\n")
    result = suite.result(shared)
    story = "test_it.py::test_it"
    assert result.problems(story)
    assert ["test_gone" in problem for problem in result.whole()] == [True]
    result.phases[story][-1]["story"] = "another"
    assert not result.problems(story)
