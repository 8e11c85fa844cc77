"""Does the bench run, and can it write its page? What it measures is no test's business."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import LASTING, MEASURES, PAGE
from bench.page import BEGIN, END, replace_tables
from bench.place import ROOT

MARK = BEGIN.format("bench")


@pytest.mark.slow
def test_every_measure_runs_and_fills_its_tables() -> None:
    """With the least number of turns, of which no number is right."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--smoke"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    headings = [line for line in done.stdout.splitlines() if line.startswith("### ")]
    assert len(headings) >= len(MEASURES) + len(LASTING)
    assert "nan" not in done.stdout


@pytest.mark.parametrize("target", ["bench", "bench-endurance"])
def test_the_page_has_a_place_for_its_tables(target: str) -> None:
    """Both marks, in order: else a long measure would end in an error."""
    text, begin = PAGE.read_text(encoding="utf-8"), BEGIN.format(target)
    assert text.count(begin) == 1
    assert END in text[text.index(begin) :].partition("\n## ")[0]


def test_tables_go_between_the_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    """What stands before and after is written by hand, and stays."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MARK}\nold\n{END}\nafter\n")
    replace_tables(page, "new")
    assert page.read_text() == f"before\n{MARK}\n\nnew\n{END}\nafter\n"


def test_a_page_without_a_mark_is_left_as_it_is(tmp_path: Path) -> None:
    """Rather an error than a page that is cut off."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MARK}\nold\n")
    with pytest.raises(ValueError, match="marks"):
        replace_tables(page, "new")
    assert page.read_text() == f"before\n{MARK}\nold\n"
