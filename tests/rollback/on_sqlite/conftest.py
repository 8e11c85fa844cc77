"""A database whose connections share one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pytest_arena._sqlite.rollback._rollback import Rollback

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEMA = """
CREATE TABLE items (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE);
CREATE TABLE parts (id INTEGER PRIMARY KEY, item REFERENCES items (id) ON DELETE CASCADE);
CREATE TABLE later (item REFERENCES items (id) DEFERRABLE INITIALLY DEFERRED);
INSERT INTO items (name) VALUES ('one'), ('two');
"""


@pytest.fixture(name="base")
def _base(tmp_path: Path) -> Path:
    base = tmp_path / "base.db"
    with closing(sqlite3.connect(base)) as connection:
        connection.executescript(SCHEMA)
    return base


@pytest.fixture(name="told")
def _told() -> list[str]:
    """The lines for the summary."""
    return []


@pytest.fixture(name="isolation")
def _isolation(base: Path, told: list[str]) -> Iterator[Rollback]:
    isolation = Rollback(base.with_name("live.db"), base, note=told.append)
    isolation.enter()
    yield isolation
    isolation.close()
