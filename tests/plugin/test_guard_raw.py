"""Raw sqlite3 and aiosqlite: the app's files are refused by the caller's line, others are free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.plugin.developer import small_example, untouched

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

RAW = """
import asyncio
import inspect
import os
import sqlite3
import threading
from pathlib import Path
import aiosqlite
import pytest
from app import add, create_engine, engine, names
from pytest_arena.errors import ProductionDatabaseError

lazy = create_engine("sqlite:///lazy.db")

def spellings():
    here = Path("dev.db").absolute()
    Path("soft.db").unlink(missing_ok=True)
    Path("soft.db").symlink_to(here)
    yield from ["dev.db", "./dev.db", f"../{Path.cwd().name}/dev.db", b"dev.db", here, str(here)]
    yield from ["soft.db", os.fspath(here).encode()]
    yield from ["file:dev.db", f"file:{here}?mode=ro", f"file://{here}", "file:%64ev.db#x"]

def line():
    return f"test_raw.py:{inspect.currentframe().f_back.f_lineno + 1}"

def test_every_spelling_is_refused_by_the_callers_line_pitfall_139(arena):
    for name in spellings():
        with arena.expect_refusal() as refused:
            expected = line()
            sqlite3.connect(name, uri=str(name).startswith("file:"))
        assert expected in refused.error.cause, (name, refused.error.cause)
        with arena.expect_refusal():
            sqlite3.Connection(name, uri=str(name).startswith("file:"))

def test_an_engine_that_has_not_connected_yet_counts_pitfall_139(arena):
    with arena.expect_refusal():
        sqlite3.connect("lazy.db")

async def ended_threads():
    # aiosqlite's thread of a failed connect goes on for a moment, and wants the loop
    while threading.active_count() > 1:
        await asyncio.sleep(0)

async def test_aiosqlite_from_its_worker_thread_pitfall_139(arena):
    for name in ("dev.db", Path("dev.db").absolute()):
        with arena.expect_refusal() as refused:
            expected = line()
            async with aiosqlite.connect(name):
                pass
        assert expected in refused.error.cause, refused.error.cause
    await ended_threads()

async def within():
    return await aiosqlite.connect("dev.db")  # the app's line

async def test_the_line_of_a_coroutine_below(arena):
    with arena.expect_refusal() as refused:
        await within()
    assert "the app's line" in refused.error.cause
    await ended_threads()

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
    """Never opened, never changed, and the line of whoever tried; all else works as before."""
    example = small_example(tmp_path, test_raw=RAW)
    with untouched(example, "dev.db", "lazy.db"):
        example.run().expect(passed=9)


ATTACH = """
import inspect
import sqlite3
from contextlib import closing
from pathlib import Path
import aiosqlite
import pytest
from app import engine

def raw():
    return sqlite3.connect(":memory:")

HERE = Path("dev.db").absolute()
STATEMENTS = {
    "literal": ("ATTACH 'dev.db' AS x", ()),
    "database": ("ATTACH DATABASE \\"dev.db\\" AS x", ()),
    "odd case": ("\\n  aTtAcH\\tdAtAbAsE'dev.db'as x", ()),
    "comments": ("-- why\\n/* so; 'x' */ ATTACH /**/ 'dev.db' /* AS y */ AS x;", ()),
    "brackets": ("ATTACH [dev.db] AS x", ()),
    "question": ("ATTACH ? AS x", ("dev.db",)),
    "bytes": ("ATTACH ? AS x", (b"dev.db",)),
    "named": ("ATTACH :file AS x", {"file": str(HERE)}),
}

def refused(arena, connection, run):
    with arena.expect_refusal() as caught:
        run(connection)
    assert "test_attach.py" in caught.error.cause
    assert "dev.db" in caught.error.what or "does not name" in caught.error.what
    assert len(connection.execute("PRAGMA database_list").fetchall()) == 1

@pytest.mark.parametrize("name", STATEMENTS)
def test_raw_connections(arena, name):
    sql, values = STATEMENTS[name]
    with closing(raw()) as connection:
        refused(arena, connection, lambda one: one.execute(sql, values))
        refused(arena, connection, lambda one: one.cursor().execute(sql, values))

def test_scripts(arena):
    for script in ("SELECT 1; ATTACH 'dev.db' AS x;", "SELECT 'a;b'; -- ;\\n ATTACH 'dev.db' AS x"):
        with closing(raw()) as connection:
            refused(arena, connection, lambda one: one.executescript(script))

def test_a_name_that_only_sqlite_works_out(arena):
    with closing(raw()) as connection:
        refused(arena, connection, lambda one: one.execute("ATTACH 'de' || 'v.db' AS x"))

def test_a_uri(arena):
    with closing(sqlite3.connect("file::memory:", uri=True)) as connection:
        refused(arena, connection, lambda one: one.execute("ATTACH 'file:dev.db?mode=ro' AS x"))

async def test_aiosqlite(arena):
    async with aiosqlite.connect(":memory:") as connection:
        with arena.expect_refusal() as caught:
            await connection.execute("ATTACH ? AS x", ("dev.db",))
        assert "test_attach.py" in caught.error.cause

def test_other_files_are_free(tmp_path):
    with engine.connect() as connection:
        for make in (raw, lambda: connection.connection.driver_connection):
            one = make()
            one.execute(f"ATTACH '{tmp_path / 'free.db'}' AS a")
            one.execute("ATTACH '' AS c")
            one.execute("ATTACH ':memory:' AS d")
            one.execute("SELECT 'ATTACH ''dev.db'' AS x; ATTACH dev.db'").fetchall()
            one.execute("CREATE TEMP TABLE t (a)")
            one.executescript("INSERT INTO t VALUES ('x; ATTACH ''dev.db'' AS y')")
            assert len(one.execute("PRAGMA database_list").fetchall()) == 5
            for name in "acd":
                one.execute(f"DETACH {name}")
            if make is raw:
                one.close()
"""


def test_attach_on_raw_connections_pitfall_102_139(tmp_path: Path) -> None:
    """On raw connections, of the app's file: refused in every form; of other files: free."""
    example = small_example(tmp_path, test_attach=ATTACH)
    with untouched(example):
        example.run().expect(passed=13)


IN_A_THREAD = """
import sqlite3
import threading


def job():
    sqlite3.connect("dev.db")


def test_it(test_client):
    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
"""


def test_the_traceback_of_a_refusal_in_a_thread_ends_at_the_users_line(example: Example) -> None:
    """Python prints a thread's traceback whole, with the frames that pytest hides."""
    project = example.with_files(test_it=IN_A_THREAD)
    run = project.run("-W", "default").expect(status=1, failed=1)
    run.says('in job sqlite3.connect("dev.db")', "Exception in thread")
    run.never_says("_sqlite/_guard.py", "in hook")
