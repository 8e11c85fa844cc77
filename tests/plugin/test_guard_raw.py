"""Raw sqlite3 and aiosqlite: the app's files are refused by the caller's line, others are free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.plugin.developer import small_example, untouched

if TYPE_CHECKING:
    from pathlib import Path


RAW = """
import sqlite3
import aiosqlite
import pytest
from app import add, engine

def test_other_files_stay_free():
    for name in ("other.db", "file:other.db?mode=rwc"):
        with sqlite3.connect(name, uri=True) as raw:
            raw.execute("CREATE TABLE IF NOT EXISTS t (a)")
            raw.row_factory = sqlite3.Row
            assert raw.execute("SELECT count(*) AS n FROM t").fetchone()["n"] == 0
        raw.close()

async def test_other_files_stay_free_for_aiosqlite():
    async with aiosqlite.connect("other2.db") as raw:
        await raw.execute("CREATE TABLE IF NOT EXISTS t (a)")

def test_a_tool_that_opens_a_file_while_the_app_works_on_its_engine():
    from sqlalchemy import event
    def tool(*_):
        sqlite3.connect("tool.db").close()
    event.listen(engine, "after_cursor_execute", tool)
    event.listen(engine, "commit", tool)
    event.listen(engine.pool, "checkout", tool)
    add(engine, "Ruby")
    event.remove(engine, "after_cursor_execute", tool)
    event.remove(engine, "commit", tool)
    event.remove(engine.pool, "checkout", tool)

def test_the_arenas_file_is_free(arena):
    add(engine, "Ruby")
    raw = sqlite3.connect(arena.url.partition(":///")[2])
    assert raw.execute("SELECT name FROM dancers").fetchall() == [("Ruby",)]
    raw.close()

def test_sqlite3_is_as_it_was():
    with pytest.raises(TypeError):
        sqlite3.connect(3)
    raw = sqlite3.connect(":memory:", factory=sqlite3.Connection)
    assert type(raw) is sqlite3.Connection
    raw.close()
    raw = sqlite3.connect(":memory:")
    with pytest.raises(TypeError):
        raw.execute(3)
    class Own(sqlite3.Cursor):
        pass
    assert isinstance(raw.cursor(Own), Own) and isinstance(raw.cursor(factory=Own), Own)
    raw.close()
"""


def test_raw_connections_pitfall_139(tmp_path: Path) -> None:
    """Other files stay free, and sqlite3 works as before."""
    example = small_example(tmp_path, test_raw=RAW)
    with untouched(example):
        example.run().expect(passed=5)
