"""``arena_keep``, the empty stages, and ``arena`` from fixtures of any scope."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example, Run

KEEP = """
import pytest
from app import Dancer

async def test_failed(client, db_session):
    await client.post("/dancers/written")
    assert False

async def test_passed(client):
    await client.post("/dancers/written")

@pytest.mark.arena(keep="always")
async def test_marked(client):
    await client.post("/dancers/marked")

@pytest.fixture
def skipped(client):
    pytest.skip("before its call")

@pytest.mark.arena(keep="always")
async def test_skipped(skipped):
    pass

@pytest.mark.arena(keep="never")
async def test_never(client):
    assert False

@pytest.fixture
async def broken(client):
    await client.post("/dancers/early")
    assert False

@pytest.mark.arena(keep="always")
def test_with_a_broken_fixture(broken):
    pass

def test_without_database():
    assert False

@pytest.mark.parametrize("text", ["long" * 60 + "/ü", "long" * 60 + "/ö"])
async def test_names(client, text):
    assert False

@pytest.mark.parametrize("text", ["a b", "a/b"])
async def test_short_names(client, text):
    assert False
"""


def kept_files(run: Run) -> list[Path]:
    return sorted(run.folder.parent.glob("cache/kept/*"))


def names_in(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM dancers ORDER BY id")]


def test_keep_failed_tests(example: Example) -> None:
    """The file holds what the test wrote, and the report says how to open it."""
    project = example.with_files(test_it=KEEP)
    run = project.run("--arena-keep=failed")
    run.expect(1, passed=2, failed=7, errors=1, skipped=1)
    kept = {file.name: names_in(file) for file in kept_files(run)}
    [failed] = [name for name in kept if name.startswith("test_it.py_test_failed-")]
    assert kept[failed] == ["Sand", "written"]
    assert ["Sand", "early"] in kept.values()
    assert len(kept) == 8
    assert len(re.findall(r"sqlite3 \S+/kept/\S+", run.output)) == 8
    assert len(kept_files(project.run("--arena-keep=failed"))) == 8
    for file in [kept_files(run)[0].with_name(f"letter-{number}") for number in range(60)]:
        file.touch()
    assert len(kept_files(project.run("--arena-keep=failed"))) == 68


def test_the_newest_fifty_files_stay(example: Example) -> None:
    """The cache does not grow with each failed test."""
    kept = example.folder.parent / "cache" / "kept"
    kept.mkdir(parents=True)
    for number in range(60):
        (kept / f"old-{number}-dev.db").write_bytes(b"")
        os.utime(kept / f"old-{number}-dev.db", (number, number))
    test = "async def test_it(client):\n    assert False\n"
    run = example.with_files(test_it=test).run("--arena-keep=failed").expect(1, failed=1)
    names = {file.name for file in kept_files(run)}
    assert len(names) == 50
    assert {"old-11-dev.db", "old-59-dev.db"} <= names
    assert "old-10-dev.db" not in names


def test_a_database_that_cannot_be_kept_is_a_note(example: Example) -> None:
    full = "\n    pathlib.Path(os.environ['ARENA_CACHE'], 'kept').touch()\n    assert False\n"
    test = "import os, pathlib\n\ndef test_it(test_client):\n    test_client.get('/dancers')" + full
    run = example.with_files(test_it=test).run("--arena-keep=failed").expect(1, failed=1)
    run.says("test_it: not kept: ", "assert False")


def test_a_small_folder_in_memory_is_not_filled(example: Example) -> None:
    """As in a container, whose /dev/shm has 64 MB."""
    small = (
        "import shutil, types\nshutil.disk_usage = lambda _: types.SimpleNamespace(free=2**26)\n"
    )
    test = "def test_it(arena):\n    assert 'dev/shm/pytest-arena' not in str(arena.url)\n"
    example.with_files(test_it=test, small=small).run("-psmall").expect(passed=1)
