"""Engines that open their connections themselves, and listeners that meddle with ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.developer import small_example, untouched

if TYPE_CHECKING:
    from pathlib import Path

CREATORS = """
import asyncio
import re
import sqlite3
import threading
from pathlib import Path
import aiosqlite
import pytest
from app import aadd, add, anames, create_async_engine, create_engine, engine, names, text
from pytest_arena.errors import RefusedError
from sqlalchemy import event
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

def open_dev(file="dev.db"):
    made = sqlite3.connect(file)  # the user's line
    made.execute("PRAGMA journal_mode = WAL")
    return made

async def aopen_dev():
    return await aiosqlite.connect("dev.db")  # the user's line

def moved(_dialect, _record, cargs, _cparams):
    cargs[:] = ["dev.db"]

def emptied(_dialect, _record, cargs, cparams):
    cargs.clear()
    cparams.clear()
    cparams["database"] = "dev.db"

def returned(*_):
    return open_dev()

def with_listener(listener):
    made = create_engine("sqlite:///dev.db")
    event.listen(made, "do_connect", listener)
    return made

REFUSED = {
    "creator": lambda: create_engine("sqlite://", creator=open_dev),
    "creator of another": lambda: create_engine("sqlite://", creator=lambda: open_dev("new.db")),
    "pool": lambda: create_engine("sqlite://", pool=QueuePool(open_dev)),
    "static": lambda: create_engine("sqlite://", creator=open_dev, poolclass=StaticPool),
    "moved": lambda: with_listener(moved),
    "emptied": lambda: with_listener(emptied),
    "returned": lambda: with_listener(returned),
}

@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_what_opens_a_file_itself_is_refused_pitfall_015(arena, make):
    made = make()
    with arena.expect_refusal() as refused:
        add(made, "Ruby")
    # Who opens the file; where a listener has only named it, who connects.
    assert re.match("(app|test_creators)[.]py:", refused.error.cause), refused.error.cause
    assert not Path("new.db").exists()
    made.dispose()

async def test_an_async_creator_is_refused_pitfall_015(arena):
    made = create_async_engine("sqlite+aiosqlite://", async_creator=aopen_dev)
    with arena.expect_refusal() as refused:
        await aadd(made, "Ruby")
    assert "the user's line" in refused.error.cause, refused.error.cause
    await made.dispose()
    while threading.active_count() > 1:  # aiosqlite's, of a connect that failed
        await asyncio.sleep(0)

@pytest.mark.parametrize("turn", [1, 2])
def test_a_creator_may_open_the_arenas_file(arena, turn):
    file = arena.url.partition(":///")[2]
    for pool in (NullPool, StaticPool):
        made = create_engine("sqlite://", creator=lambda: sqlite3.connect(file), poolclass=pool)
        add(made, pool.__name__)
        made.dispose()
    assert names(engine) == ["NullPool", "StaticPool"]

async def test_an_async_creator_may_open_the_arenas_file(arena):
    file = arena.url.partition(":///")[2]
    made = create_async_engine("sqlite+aiosqlite://", async_creator=lambda: aiosqlite.connect(file))
    await aadd(made, "Ruby")
    assert names(engine) == ["Ruby"]
    await made.dispose()

def test_a_creator_may_open_a_temporary_file(tmp_path):
    made = create_engine("sqlite://", creator=lambda: sqlite3.connect(tmp_path / "own.db"))
    with made.begin() as connection:
        connection.execute(text("CREATE TABLE t (a)"))
    made.dispose()

def test_a_listener_that_adds_something_still_runs_pitfall_014():
    made = create_engine("sqlite:///dev.db")
    seen = []
    @event.listens_for(made, "do_connect")
    def token(dialect, record, cargs, cparams):
        cparams["timeout"] = 1.5
        seen.append(cargs[0])
    add(made, "Ruby")
    assert names(engine) == ["Ruby"] and seen and "dev.db" in seen[0]
    made.dispose()

def test_a_listener_that_returns_a_connection_inside_the_arena_pitfall_014(arena):
    file = arena.url.partition(":///")[2]
    made = with_listener(lambda *_: sqlite3.connect(file))
    add(made, "Ruby")
    assert names(engine) == ["Ruby"]
    made.dispose()

class Mine(sqlite3.Connection):
    said = []
    def cursor(self, *args):
        return super().cursor(*args)
    def execute(self, *args):
        self.said.append(args[0])
        return super().execute(*args)

@pytest.mark.parametrize("factory", [Mine, lambda *args, **more: Mine(*args, **more)])
def test_the_apps_own_factory_makes_its_connections_pitfall_106(factory):
    made = create_engine("sqlite:///dev.db", connect_args={"factory": factory})
    with made.connect() as connection:
        raw = connection.connection.driver_connection
        assert isinstance(raw, Mine) and raw.execute("SELECT 7").fetchone() == (7,)
        assert Mine.said.pop() == "SELECT 7"
    add(made, "Ruby")
    assert names(engine) == ["Ruby"]
    made.dispose()

def test_what_the_app_sets_up_at_connect_is_there_pitfall_098_106():
    made = create_engine("sqlite:///dev.db")
    @event.listens_for(made, "connect")
    def set_up(dbapi_connection, record):
        dbapi_connection.execute("PRAGMA foreign_keys = ON")
        dbapi_connection.execute("PRAGMA busy_timeout = 1234")
        dbapi_connection.create_function("twice", 1, lambda value: value * 2)
        dbapi_connection.row_factory = sqlite3.Row
        side = sqlite3.connect("side.db")  # a raw file of its own, not the engine's
        side.close()
    for _ in range(2):
        with made.connect() as connection:
            raw = connection.connection.driver_connection
            assert raw.execute("SELECT twice(21) AS a").fetchone()["a"] == 42
            assert raw.execute("PRAGMA foreign_keys").fetchone()[0] == 1
            assert raw.execute("PRAGMA busy_timeout").fetchone()[0] == 1234
    made.dispose()

POOLS = {
    "pre_ping": {"pool_pre_ping": True},
    "static": {"poolclass": StaticPool},
    "null": {"poolclass": NullPool},
    "one": {"pool_size": 1, "max_overflow": 0, "pool_timeout": 5},
    "recycle": {"pool_recycle": 0},
}
kept = {name: create_engine("sqlite:///dev.db", **options) for name, options in POOLS.items()}

@pytest.mark.parametrize("turn", [1, 2, 3])
@pytest.mark.parametrize("name", POOLS)
def test_pools_of_every_kind(name, turn):
    for number in range(3):
        add(kept[name], f"{number}")
    assert names(engine) == names(kept[name]) == ["0", "1", "2"]
"""


@pytest.mark.slow
def test_what_opens_its_connections_itself_pitfall_014_015(tmp_path: Path) -> None:
    """Refused by the user's line before the file is opened; allowed where it leads inside."""
    example = small_example(tmp_path, test_creators=CREATORS)
    with untouched(example):
        example.run().expect(passed=32)


MEMORY = """
import sqlite3
import pytest
from app import Base, add, create_engine, names
from sqlalchemy.pool import StaticPool

def open_memory():
    return sqlite3.connect(":memory:")

engine = create_engine("sqlite://", creator=open_memory, poolclass=StaticPool)

def test_memory():
    Base.metadata.create_all(engine)
    add(engine, "Ruby")
    assert names(engine) == ["Ruby"]
    engine.dispose()
"""


def test_a_creator_of_memory_works_and_is_told_of(tmp_path: Path) -> None:
    """What arena cannot bring back, it says."""
    example = small_example(tmp_path, test_memory=MEMORY)
    run = example.run().expect(passed=1)
    run.says("a creator= opens a memory database", "test_memory.py:13")


ALTERED = """
import logging
import pytest
from app import aadd, add, anames, create_async_engine, create_engine, engine, names, text
from sqlalchemy.pool import QueuePool, StaticPool

one = create_engine("sqlite:///dev.db", pool_size=1, max_overflow=0)
memory = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
async_one = create_async_engine("sqlite+aiosqlite:///dev.db", pool_size=1, max_overflow=0)
async_memory = create_async_engine("sqlite+aiosqlite://")
logging.getLogger().setLevel(logging.WARNING)

HARM = {
    "temp": "CREATE TEMP TABLE dancers (name)",
    "attach": "ATTACH '' AS more",
    "foreign_keys": "PRAGMA foreign_keys = ON",
    "query_only": "PRAGMA query_only = ON",
    "recursive_triggers": "PRAGMA recursive_triggers = ON",
    "case_sensitive_like": "PRAGMA case_sensitive_like = ON",
}
RARE = {
    **{"busy_timeout": 1, "synchronous": 0, "cache_size": 7, "temp_store": 2},
    **{"max_page_count": 1000, "mmap_size": 65536, "reverse_unordered_selects": 1},
    **{"full_column_names": 1, "short_column_names": 0, "trusted_schema": 0},
    **{"legacy_alter_table": 1, "automatic_index": 0, "cell_size_check": 1, "count_changes": 1},
    **{"read_uncommitted": 1, "fullfsync": 1, "checkpoint_fullfsync": 1, "cache_spill": 0},
    **{"writable_schema": 1, "empty_result_callbacks": 1, "wal_autocheckpoint": 7},
    **{"journal_size_limit": 4096, "secure_delete": 2},
}
HARM.update((name, f"PRAGMA {name} = {value}") for name, value in RARE.items())

def pristine(connection):
    ask = lambda sql: connection.exec_driver_sql(sql).fetchall()
    assert ask("SELECT * FROM sqlite_temp_master") == []
    assert len(ask("PRAGMA database_list")) <= 2
    for setting in ("foreign_keys", "query_only", "recursive_triggers"):
        assert ask(f"PRAGMA {setting}") == [(0,)]
    for setting, value in RARE.items():
        assert ask(f"PRAGMA {setting}") != [(value,)]
    assert ask("SELECT 'a' LIKE 'A'") == [(1,)]

@pytest.fixture(autouse=True)
def silent(caplog, recwarn):
    yield
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []
    assert list(recwarn) == []

@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("made", [one, memory], ids=["file", "memory"])
def test_what_a_test_leaves_on_a_sync_connection_pitfall_132(made, harm):
    with made.connect() as connection:
        pristine(connection)
        connection.exec_driver_sql(HARM[harm])

@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("made", [async_one, async_memory], ids=["file", "memory"])
async def test_what_a_test_leaves_on_an_async_connection_pitfall_132(made, harm):
    async with made.connect() as connection:
        await connection.run_sync(pristine)
        await connection.exec_driver_sql(HARM[harm])

kept = []

def test_an_unaltered_connection_is_kept():
    with one.connect() as connection:
        kept.append(connection.connection.dbapi_connection)

def test_and_is_the_same_in_the_next_test():
    with one.connect() as connection:
        assert connection.connection.dbapi_connection is kept[0]

async def test_the_end_pitfall_002():
    await async_one.dispose()
    await async_memory.dispose()
    one.dispose()
    memory.dispose()
"""


@pytest.mark.slow
def test_altered_connections_are_dropped_quietly_pitfall_132_002(tmp_path: Path) -> None:
    """Temporary tables, settings and ATTACH end with their test; no record, no warning."""
    example = small_example(tmp_path, test_altered=ALTERED)
    with untouched(example):
        example.run("-p", "no:randomly").expect(passed=119)


AT_START_UP = """
from contextlib import asynccontextmanager

import pytest
from app import create_async_engine, engine, names
from fastapi import FastAPI

async_engine = create_async_engine("sqlite+aiosqlite:///dev.db")
WAL = "PRAGMA journal_mode = WAL"

@asynccontextmanager
async def lifespan(app):
    with engine.connect() as connection:
        connection.exec_driver_sql(WAL)
    async with async_engine.connect() as connection:
        await connection.exec_driver_sql(WAL)
    yield

app = FastAPI(lifespan=lifespan)
app.get("/names")(lambda: names(engine))

@pytest.mark.parametrize("turn", range(2))
async def test_sends_no_query(client, turn):
    assert (await client.get("/health")).status_code == 404

async def test_sends_a_query(client):
    assert (await client.get("/names")).json() == []
"""


@pytest.mark.slow
def test_a_lifespan_turns_the_log_on(tmp_path: Path) -> None:
    """A pooled connection that has not read the log yet leaves none beside the next file."""
    example = small_example(tmp_path, test_log=AT_START_UP)
    run = example.run("-p", "no:randomly", "-oarena_app=test_log:app")
    run.expect(passed=3).never_says("a new file has replaced it")


FORK = """
import multiprocessing
import os
import pytest
from app import aadd, add, anames, create_async_engine, engine, names

async_engine = create_async_engine("sqlite+aiosqlite:///dev.db")

def child(pipe):
    add(engine, "child")
    pipe.send(names(engine))

@pytest.mark.parametrize("turn", [1, 2])
def test_a_forked_child_opens_connections_of_its_own_pitfall_021(turn):
    add(engine, "parent")
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(theirs,))
    process.start()
    assert ours.recv() == ["child", "parent"]
    process.join()
    assert process.exitcode == 0
    assert names(engine) == ["child", "parent"]

async def test_an_async_pool_in_a_child_pitfall_021():
    await aadd(async_engine, "parent")
    def work(pipe):
        import asyncio
        async def main():
            await aadd(async_engine, "child")
            return await anames(async_engine)
        asyncio.set_event_loop(None)
        asyncio.events._set_running_loop(None)
        pipe.send(asyncio.run(main()))
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=work, args=(theirs,))
    process.start()
    assert ours.poll(20) and ours.recv() == ["child", "parent"]
    process.join(20)
    await async_engine.dispose()

def test_a_child_that_exits_like_a_process_leaves_the_arena_alone_pitfall_021():
    add(engine, "parent")
    if (pid := os.fork()) == 0:
        import atexit
        atexit._run_exitfuncs()
        os._exit(0)
    os.waitpid(pid, 0)
    add(engine, "later")
    assert names(engine) == ["later", "parent"]

def test_and_the_next_test_is_clean():
    assert names(engine) == []
"""


def test_fork_pitfall_021(tmp_path: Path) -> None:
    """A child neither uses nor closes its parent's connections, and sees the test's data."""
    example = small_example(tmp_path, test_fork=FORK)
    with untouched(example):
        example.run("-W", "ignore::DeprecationWarning").expect(passed=5)
