"""The command `arena`, called in this process by its entry point."""

from __future__ import annotations

import io
from contextlib import chdir, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Called:
    """The exit status, what stood on stdout, and what on stderr."""

    status: int
    output: str
    errors: str


def arena(*words: str, folder: Path | None = None) -> Called:
    output, errors = io.StringIO(), io.StringIO()
    here = chdir(folder) if folder else nullcontext()
    with here, redirect_stdout(output), redirect_stderr(errors):
        try:
            status = _main()(words)
        except SystemExit as ended:  # what argparse does for --help and for wrong words
            status = int(ended.code or 0)
    return Called(status, output.getvalue(), errors.getvalue())


@cache
def _main() -> Callable[[Sequence[str]], int]:
    (entry,) = entry_points(group="console_scripts", name="arena")
    main: Callable[[Sequence[str]], int] = entry.load()
    return main
