"""A run under rollback that is killed leaves nothing to the next run."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from dataclasses import replace
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

WRITES = """
import pytest


@pytest.mark.parametrize("number", range(40))
async def test_writes(client, number):
    assert (await client.get("/dancers")).json() == ["Sand"]
    for turn in range(5):
        assert (await client.post(f"/dancers/{number}-{turn}")).status_code == 201
"""


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_kills_at_any_moment(example: Example, tmp_path: Path, kills: int) -> None:
    """The next run starts with the template, and removes the folders of the killed runs."""
    files = tmp_path / "files"
    files.mkdir()
    example = replace(example.with_files(test_it=WRITES), env={"ARENA_FILES": str(files)})
    chance = random.Random(kills)  # noqa: S311 - it is to be repeatable
    started = time.monotonic()
    example.run("--arena-isolation=rollback").expect(passed=40)
    length = time.monotonic() - started
    for _ in range(kills):
        process = example.start("--arena-isolation=rollback")
        with suppress(TimeoutExpired):
            process.wait(chance.uniform(0, length))
        process.kill()
        process.communicate()
    example.run("--arena-isolation=rollback").expect(passed=40)
    assert not list(files.rglob("*.db*"))
    assert not (example.folder / "dev.db").exists()
