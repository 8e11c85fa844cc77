"""How are the files written that say what somebody has agreed to: the lock, the baseline?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena.errors import ConfigError
from pytest_arena.scenarios.evidence import baseline_text

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_arena.scenarios.evidence import Document

__all__ = ["write_agreed", "write_baseline"]


def write_baseline(path: Path, document: Document) -> str:
    """Write the gaps that are there; a file that was there before only becomes shorter.

    Raises:
        ScenarioError: the file cannot be read as a baseline.
        ConfigError: it cannot be written, or the tests were only collected.
    """
    if document.is_list:
        raise ConfigError(
            "the tests were only collected: nothing is known of what they prove",
            why="each scenario would be NOT-RUN in the baseline, and excused for ever",
            cause="the document is one of --collect-only",
            fix="pytest --scenarios-out=json:scenarios.json",
        )
    text = baseline_text(path, document)
    write_agreed(path, text, option="arena_scenario_baseline")
    return f"baseline written to {path}"


def write_agreed(path: Path, text: str, *, option: str) -> None:
    """Write such a file, whose path the option names.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror or error}",
            why="it keeps what has been agreed to",
            cause=f"{option}, or the command line",
            fix=f"{option} = a file in a folder that can be written to",
        ) from error
