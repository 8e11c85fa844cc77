"""The lock file: what was accepted, and which gaps are agreed."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

import pytest

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios.evidence._lock import Lock, Locked
from tests.evidence.samples import scenario

if TYPE_CHECKING:
    from pathlib import Path

START = scenario()
STOP = scenario("Stop", 30)


def read(folder: Path, text: str) -> Lock:
    """A lock file of this text."""
    path = folder / "scenarios.lock"
    path.write_text(text, encoding="utf-8")
    return Lock.read(path)


def test_each_scenario_has_a_line(tmp_path: Path) -> None:
    """By key, and what is written is read again."""
    lock, changes = Lock().accepted([STOP, START])
    assert changes == (f"new: {STOP.key}  {STOP.place}", f"new: {START.key}  {START.place}")
    lines = [line for line in lock.text().splitlines() if line and line[0] != "#"]
    assert lines == ["Battles :: Start  1:aaaaaaaa", "Battles :: Stop  1:aaaaaaaa"]
    assert read(tmp_path, lock.text()) == lock
    assert read(tmp_path, lock.text().replace("\n", "\r\n")) == lock


def test_no_file_is_an_empty_lock(tmp_path: Path) -> None:
    """Nothing has drifted in a project without it."""
    assert Lock.read(tmp_path / "scenarios.lock") == Lock()


def test_a_gap_has_a_last_day_and_a_reason(tmp_path: Path) -> None:
    """It is written as it is read."""
    line = "Battles :: Start  1:aaaaaaaa  gap until 2027-03-31: by hand: each release"
    lock = read(tmp_path, line)
    entry = lock.entries[START.key]
    assert (entry.until, entry.reason) == (date(2027, 3, 31), "by hand: each release")
    assert line in lock.text().splitlines()


def test_accepting_keeps_gaps(tmp_path: Path) -> None:
    """The steps are accepted; whether a test proves them is another question."""
    lock = read(tmp_path, "Battles :: Start  1:aaaaaaaa  gap until 2027-03-31: by hand")
    lock, changes = lock.accepted([replace(START, rev="1:22222222")])
    assert changes == (f"changed: {START.key}  {START.place}",)
    until = date(2027, 3, 31)
    expected = Locked(key=START.key, rev="1:22222222", until=until, reason="by hand")
    assert lock.entries == {START.key: expected}


def test_accepting_one_leaves_the_others_alone() -> None:
    """Also those that have drifted, or are gone. Accepting all drops what is gone."""
    lock, _ = Lock().accepted([START, STOP])
    live = replace(STOP, rev="1:33333333")
    lock, changes = lock.accepted([live], [STOP.key])
    assert changes == (f"changed: {STOP.key}  {STOP.place}",)
    assert [entry.rev for entry in lock.entries.values()] == ["1:aaaaaaaa", "1:33333333"]
    lock, changes = lock.accepted([live])
    assert changes == ("gone: Battles :: Start  1:aaaaaaaa",)
    assert list(lock.entries) == [STOP.key]


@pytest.mark.parametrize(
    "line",
    [
        "<<<<<<< HEAD",
        "Battles :: Start",
        "1:aaaaaaaa",
        "Battles :: Start  1:aaaaaaaa  gap until 2027-03-31",
        "Battles :: Start  1:aaaaaaaa  gap until 2027-02-30: by hand",
        "Battles :: Start  1:aaaaaaaa  gap until soon: by hand",
        "Battles :: Start  1:aaaaaaaa  later",
        "Battles :: Stop  1:bbbbbbbb",
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    """With its number. The last one is a second line for a scenario."""
    with pytest.raises(ScenarioError, match=r"scenarios\.lock:3 is not a valid line"):
        read(tmp_path, f"# head\nBattles :: Stop  1:aaaaaaaa\n{line}\n")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    """Not with a traceback."""
    (tmp_path / "scenarios.lock").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match=r"scenarios\.lock"):
        Lock.read(tmp_path / "scenarios.lock")
