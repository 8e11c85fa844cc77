"""Engines that open their connections themselves, and listeners that meddle with ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

def with_listener(listener):
    made = create_engine("sqlite:///dev.db")
    event.listen(made, "do_connect", listener)
    return made

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


def test_what_opens_its_connections_itself_pitfall_014_015(tmp_path: Path) -> None:
    """Refused by the user's line before the file is opened; allowed where it leads inside."""
    example = small_example(tmp_path, test_creators=CREATORS)
    with untouched(example):
        example.run().expect(passed=21)


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

def test_and_the_next_test_is_clean():
    assert names(engine) == []
"""


def test_fork_pitfall_021(tmp_path: Path) -> None:
    """A child neither uses nor closes its parent's connections, and sees the test's data."""
    example = small_example(tmp_path, test_fork=FORK)
    with untouched(example):
        example.run("-W", "ignore::DeprecationWarning").expect(passed=3)
