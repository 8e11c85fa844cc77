"""Random walks over a run: what a fresh connection sees is what a model in plain Python says."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from typing import TYPE_CHECKING

import pytest
from hypothesis.errors import Flaky

from tests.conformance.liars import LIARS, WALKED_INTO
from tests.conformance.setting import Setting, every_pair
from tests.conformance.walk import walk
from tests.conformance.walk_processes import Child

if TYPE_CHECKING:
    from pathlib import Path

ASYNC = Setting(journal="wal")
SYNC = Setting(engine="pysqlite", runner="plain")
ON_SERVER = Setting(database="postgresql")
CLONED = Setting(database="postgresql", isolation="clone")
ON_MYSQL = Setting(database="mysql")
CLONED_ON_MYSQL = Setting(database="mysql", isolation="clone", engine="pymysql", runner="plain")


@pytest.mark.parametrize(
    "setting, examples",
    [
        pytest.param(ASYNC, 1, marks=pytest.mark.slow),
        pytest.param(SYNC, 6, marks=pytest.mark.slow),
        (ON_SERVER, 1),
        pytest.param(CLONED, 4, marks=pytest.mark.slow),
        pytest.param(ON_MYSQL, 4, marks=pytest.mark.slow),
        pytest.param(CLONED_ON_MYSQL, 4, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_walk(setting: Setting, examples: int, tmp_path: Path) -> None:
    """Some hundred steps."""
    steps = walk(setting, tmp_path, examples=examples, steps=30)
    assert steps["test"] > 0, steps


def test_a_run_that_ends_too_early_is_shown_and_cleaned_up() -> None:
    """An open pipe would be an error of its own, in place of what the run printed."""
    command = [sys.executable, "-c", "print('no room on the disk')"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with pytest.raises(AssertionError, match="the run ended, or hung:\nno room on the disk"):
        Child(process).hear()
    assert process.returncode is not None
    assert process.stdin
    assert process.stdin.closed
    assert process.stdout
    assert process.stdout.closed


POOLS = ("", "one", "NullPool")
ON_FILES = [
    Setting(engine=engine, runner=runner, journal=journal, pool=pool)
    for engine, runner in (("aiosqlite", "asyncio"), ("pysqlite", "plain"))
    for journal, pool in product(("delete", "wal"), POOLS)
]
ON_SERVERS = [
    Setting(database="postgresql", isolation=isolation, rights=rights, engine=engine, pool=pool)
    for isolation, rights in (("undo", "all"), ("clone", "few"))
    for engine, pool in product(("asyncpg", "psycopg_async", "psycopg", "psycopg2"), POOLS)
]


@pytest.mark.slow
@pytest.mark.parametrize("setting", every_pair(ON_FILES), ids=str)
def test_a_long_walk(setting: Setting, tmp_path: Path) -> None:
    """Some thousand steps for each setting."""
    print(walk(setting, tmp_path, examples=100, steps=50))


@pytest.mark.slow
@pytest.mark.parametrize("setting", every_pair(ON_SERVERS), ids=str)
def test_a_long_walk_on_a_server(setting: Setting, tmp_path: Path) -> None:
    """Some thousand steps for each setting."""
    print(walk(setting, tmp_path, examples=60, steps=50))


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine, database",
    [("pysqlite", "sqlite"), ("psycopg", "postgresql"), ("pymysql", "mysql")],
)
@pytest.mark.parametrize("name", WALKED_INTO)
def test_a_walk_finds_a_planted_defect(
    name: str, engine: str, database: str, tmp_path: Path
) -> None:
    """A few walks find each of these defects."""
    setting = Setting(database=database, engine=engine, runner="plain", plugins=("liar",))
    with pytest.raises((AssertionError, Flaky)):
        walk(setting, tmp_path, {"liar.py": LIARS[name][0]}, examples=200, shrink=False)


@pytest.mark.slow
def test_a_short_walk_finds_a_planted_defect(tmp_path: Path) -> None:
    """So that the everyday walk is known to see something."""
    setting = Setting(engine="pysqlite", runner="plain", plugins=("liar",))
    with pytest.raises((AssertionError, Flaky)):
        # Far more than it takes: it ends at the first find, and 30 miss it now and then.
        walk(
            setting, tmp_path, {"liar.py": LIARS["forgets inserts"][0]}, examples=200, shrink=False
        )
