"""What does pytest collect for the scenarios here, without running a test?"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pytest_arena.errors import ConfigError, ScenarioError
from pytest_arena.scenarios.evidence import from_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_arena.scenarios.evidence import Document

__all__ = ["Collected", "collected"]

_USAGE, _NO_TESTS = 4, 5  # pytest's own exit statuses
_SHOWN = 30


@dataclass(frozen=True, slots=True)
class Collected:
    """The document of a run that only collects, and whether it has seen all the tests."""

    document: Document
    is_whole: bool


def collected(arguments: Sequence[str] = (), *, folder: Path | None = None) -> Collected:
    """Have pytest collect the tests, in a process of its own.

    No database is made. Pytest's own words go to stderr where it could not collect all.

    Args:
        arguments: for pytest, seen from the working folder.
        folder: where pytest begins, if not there: from a subfolder it would see those tests alone.

    Raises:
        ConfigError: pytest does not take the arguments, or an option is wrong.
        ScenarioError: no document came of it.
    """
    with TemporaryDirectory(prefix="arena-scenarios-") as made:
        path = Path(made) / "scenarios.json"
        options = ["--collect-only", "-q", "--scenarios=report", f"--scenarios-out=json:{path}"]
        run = subprocess.run(  # noqa: S603 - this very Python, and what the user wrote after `check`
            [sys.executable, "-m", "pytest", *options, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not text:
        raise _nothing(run)
    is_whole = run.returncode in {0, _NO_TESTS}
    if not is_whole:
        sys.stderr.write(_last_lines(run.stderr + run.stdout))
    return Collected(from_json(text, where="pytest --collect-only"), is_whole)


def _nothing(run: subprocess.CompletedProcess[str]) -> ScenarioError | ConfigError:
    sys.stderr.write(_last_lines(run.stderr + run.stdout))
    if run.returncode == _USAGE:
        return ConfigError(
            "pytest could not begin to collect the tests",
            why="they have to be collected, to see which scenario has one",
            cause="what pytest says above",
            fix="mend that",
        )
    return ScenarioError(
        f"pytest --collect-only ended with exit status {run.returncode}, and told of no scenario",
        why="the tests have to be collected, to see which scenario has one",
        cause="what pytest says above, or arena_scenarios is off",
        fix="pytest --collect-only --scenarios=report",
    )


def _last_lines(text: str) -> str:
    lines = text.rstrip().splitlines()
    return "".join(f"{line}\n" for line in lines[-_SHOWN:])
