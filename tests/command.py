"""The command `arena`, called in this process by its entry point.

Where it has pytest collect the tests of a project, that process is forked: see tests/forks.py.
"""

from __future__ import annotations

import io
import os
import subprocess
from contextlib import chdir, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from pytest_arena.scenarios import _commands
from tests import forks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Called", "arena"]


@dataclass(frozen=True, slots=True)
class Called:
    """The exit status, what stood on stdout, and what on stderr."""

    status: int
    output: str
    errors: str


def arena(*words: str, folder: Path | None = None) -> Called:
    """Call the command in a folder, or where the test is."""
    output, errors = io.StringIO(), io.StringIO()
    here = chdir(folder) if folder else nullcontext()
    forked = patch.object(_commands, "subprocess", SimpleNamespace(run=_run))
    with here, forked, redirect_stdout(output), redirect_stderr(errors):
        try:
            status = _main()(words)
        except SystemExit as ended:  # what argparse does for --help and for wrong words
            status = int(ended.code or 0)
    return Called(status, output.getvalue(), errors.getvalue())


def _run(
    command: Sequence[str],
    *,
    cwd: Path | None,
    env: Mapping[str, str] | None = None,
    **_: Any,
) -> subprocess.CompletedProcess[str]:
    """Stand for subprocess.run, with both streams in one."""
    status, text = forks.run(command, cwd or Path.cwd(), env or os.environ, seconds=300)
    return subprocess.CompletedProcess(list(command), status, text, "")


@cache
def _main() -> Callable[[Sequence[str]], int]:
    (entry,) = entry_points(group="console_scripts", name="arena")
    main: Callable[[Sequence[str]], int] = entry.load()
    return main
