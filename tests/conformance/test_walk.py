"""Random walks over a run: what a fresh connection sees is what a model in plain Python says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis.errors import Flaky

from pytest_arena.testing import Setting
from pytest_arena.testing.walk import walk
from tests.conformance import liars_undo
from tests.conformance.liars import LIARS

if TYPE_CHECKING:
    from pathlib import Path

ASYNC = Setting(journal="wal")
SYNC = Setting(engine="pysqlite", runner="plain")
ON_SERVER = Setting(database="postgresql")
CLONED = Setting(database="postgresql", isolation="clone")

# What a walk can meet: neither function fixtures nor a second run are on its way.
WALKED_INTO = (
    "forgets updates",
    "never resets sequences",
    "counts rows to see a change",
    "calls all levels clean",
    "leaves a wide level at once",
    "never leaves a wide level",
    "sees no leak",
)
WALKED_INTO_ON_A_SERVER = (
    "forgets inserts",
    "forgets deletes",
    "forgets updates",
    "never resets sequences",
    "keeps what was done to the schema",
    "forgets the wide level",
    "takes back the wide level too",
    "loses the archive with the database",
    "believes that nothing was written",
    "calls all levels clean",
)


@pytest.mark.parametrize(
    "setting, examples",
    [
        (ASYNC, 6),
        pytest.param(SYNC, 6, marks=pytest.mark.slow),
        (ON_SERVER, 6),
        pytest.param(CLONED, 4, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_walk(setting: Setting, examples: int, tmp_path: Path) -> None:
    """Some hundred steps."""
    steps = walk(setting, tmp_path, examples=examples, steps=30)
    assert steps["test"] > 0, steps


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["", "one", "NullPool"])
@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("engine", ["aiosqlite", "pysqlite"])
def test_a_long_walk(engine: str, journal: str, pool: str, tmp_path: Path) -> None:
    """Some ten thousand steps for each setting."""
    runner = "asyncio" if engine == "aiosqlite" else "plain"
    setting = Setting(engine=engine, runner=runner, journal=journal, pool=pool)
    print(walk(setting, tmp_path, examples=300, steps=50))


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["", "one", "NullPool"])
@pytest.mark.parametrize("engine", ["asyncpg", "psycopg_async", "psycopg", "psycopg2"])
@pytest.mark.parametrize("isolation, rights", [("undo", "all"), ("undo", "few"), ("clone", "few")])
def test_a_long_walk_on_a_server(
    isolation: str, rights: str, engine: str, pool: str, tmp_path: Path
) -> None:
    """Some thousand steps for each setting."""
    setting = Setting(
        database="postgresql", isolation=isolation, rights=rights, engine=engine, pool=pool
    )
    print(walk(setting, tmp_path, examples=60, steps=50))


@pytest.mark.slow
@pytest.mark.parametrize("name", WALKED_INTO)
def test_a_walk_finds_a_planted_defect(name: str, tmp_path: Path) -> None:
    """Each of these within a few walks."""
    setting = Setting(engine="pysqlite", runner="plain", plugins=("liar",))
    with pytest.raises((AssertionError, Flaky)):
        walk(setting, tmp_path, {"liar.py": LIARS[name][0]}, examples=200, shrink=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", WALKED_INTO_ON_A_SERVER)
def test_a_walk_on_a_server_finds_a_planted_defect(name: str, tmp_path: Path) -> None:
    """Likewise."""
    setting = Setting(database="postgresql", engine="psycopg", plugins=("liar",))
    with pytest.raises((AssertionError, Flaky)):
        walk(setting, tmp_path, {"liar.py": liars_undo.LIARS[name][0]}, examples=100, shrink=False)


def test_a_short_walk_finds_a_planted_defect(tmp_path: Path) -> None:
    """So that the everyday walk is known to see something."""
    setting = Setting(engine="pysqlite", runner="plain", plugins=("liar",))
    with pytest.raises((AssertionError, Flaky)):
        walk(setting, tmp_path, {"liar.py": LIARS["never leaves a wide level"][0]}, shrink=False)
