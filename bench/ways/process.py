"""Processes of pytest, forked from one that has imported the libraries of all cells."""

from __future__ import annotations

import os
import sys
from multiprocessing import get_context
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

OTHERS = ("ARENA_", "DATABASE_URL", "PYTEST_", "PG")
FORKS = get_context("forkserver")
# None of the six ways is among them.
FORKS.set_forkserver_preload(
    ["pytest_asyncio.plugin", "fastapi.testclient", "sqlalchemy.ext.asyncio", "asyncpg", "psycopg"]
)


def run(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], seconds: float
) -> str:
    """Run pytest in a new process, and kill it after a time. Return its output."""
    process = FORKS.Process(target=_main, args=(arguments, folder, environment))
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    return (folder / "output").read_text(encoding="utf-8")


def _main(arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(output, stream)
    for name in [*os.environ]:
        if name.startswith(OTHERS):
            del os.environ[name]
    os.environ.update(environment)
    os.chdir(folder)
    sys.exit(pytest.main(list(arguments)))
