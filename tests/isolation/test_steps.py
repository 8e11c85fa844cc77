"""A level that nobody has used is entered and left by a step; and none that somebody has."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pytest_arena._product import Held
from pytest_arena._sqlite._copy import Copy
from tests.isolation.conformance import CHECKS, new_world
from tests.isolation.server_world import ServerWorld
from tests.isolation.test_copy import MODES, run_check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_arena._postgresql.registry import ServerRegistry
    from tests.isolation.conformance import World

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the file cannot be seen elsewhere")


class BySteps(Copy):
    """Steps wherever the file looks the same, whoever has used it: the look must see it all."""

    def enter(self) -> None:
        """By a step, or as ever."""
        if not self.step_unused(up=True):
            super().enter()

    def leave(self) -> bool:
        """Likewise."""
        return not self.step_unused(up=False) and super().leave()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_who_has_written_is_seen_from_outside(
    check: Callable[[World], None], mode: str, tmp_path: Path
) -> None:
    """By whichever connection, process or thread, and in each state of the journal."""
    run_check(check, BySteps, tmp_path, mode)


@pytest.fixture(params=MODES)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A database, after a level in which somebody wrote."""
    with closing(new_world(Copy, tmp_path, request.param)) as world:
        world.isolation.enter()
        world.connect().execute("INSERT INTO plain VALUES (7)")
        assert world.isolation.leave()
        yield world


@on_linux
def test_what_nobody_has_used_is_counted(world: World) -> None:
    """As deep as it goes, and back; what is written then is taken back as ever."""
    before = world.dump()
    world.disconnect()
    for _ in range(3):
        assert all(world.isolation.step_unused(up=up) for up in (True, True, False, False))
        assert not world.isolation.depth
    assert world.isolation.step_unused(up=True)
    world.connect().execute("DELETE FROM plain")
    assert not world.isolation.step_unused(up=False)
    assert not world.isolation.step_unused(up=True)
    assert world.isolation.depth == 1
    assert world.isolation.leave()
    assert world.dump() == before


def written_by_another_process(world: World) -> None:
    """One row."""
    world.other_process("INSERT INTO plain VALUES (8)")


def touched_within_a_tick(world: World) -> None:
    """As fast as can be: the clock of a file system may not have moved."""
    world.connect().execute("UPDATE plain SET a = 3 WHERE rowid = 1")


def deleted(world: World) -> None:
    """With nothing in its place."""
    world.disconnect()
    world.live.unlink()


def replaced(world: World) -> None:
    """By a file of the same content, under its name."""
    world.disconnect()
    shutil.copyfile(world.live, world.live.with_name("other"))
    world.live.with_name("other").replace(world.live)


def overwritten(world: World) -> None:
    """In place, by the bytes of another database."""
    world.disconnect()
    other = world.live.with_name("other")
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE mine (a)")
    world.live.write_bytes(other.read_bytes())


def turned_back(world: World) -> None:
    """Written, and given a time of before, as whoever restores a backup does."""
    status = world.live.stat()
    world.connect().execute("DELETE FROM plain")
    os.utime(world.live, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        *(written_by_another_process, touched_within_a_tick),
        *(deleted, replaced, overwritten, turned_back),
    ],
)
@pytest.mark.parametrize("up", [True, False])
def test_no_step_is_taken_over_what_somebody_did(
    change: Callable[[World], None], world: World, *, up: bool
) -> None:
    """Whoever it was, and whether or not the clock has moved since."""
    if not up:
        world.isolation.enter()
    change(world)
    assert not world.isolation.step_unused(up=up)


@on_linux
def test_a_level_below_that_was_written_is_left_as_ever(world: World) -> None:
    """What stands is what it holds, and not what it was entered on."""
    before = world.dump()
    world.isolation.enter()
    world.connect().execute("DELETE FROM plain")
    world.isolation.enter()
    assert not world.isolation.leave()
    assert world.isolation.step_unused(up=True)
    assert world.isolation.step_unused(up=False)
    assert not world.isolation.step_unused(up=False)
    assert world.isolation.leave()
    assert world.dump() == before


@pytest.mark.parametrize("isolation", ["clone", "undo"])
def test_a_level_on_a_server_is_counted_where_nobody_has_used_it(
    own: ServerRegistry, template: str, isolation: str
) -> None:
    """There the core's own knowledge is all that there is: any use of a connection moves it."""
    with closing(ServerWorld.of(own, template, isolation)) as world:
        before, hand = world.dump(), world.connect()
        world.isolation.enter()
        assert not world.isolation.leave()
        assert all(world.isolation.step_unused(up=up) for up in (True, True, False, False))
        assert world.isolation.step_unused(up=True)
        hand.execute("INSERT INTO plain VALUES (9)")
        assert not world.isolation.step_unused(up=True)
        assert not world.isolation.step_unused(up=False)
        assert world.isolation.leave()
        assert not world.isolation.depth
        assert world.dump() == before


def in_this_process(world: World) -> None:
    """By a connection that stays open."""
    writer = world.connect()
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO plain VALUES (1)")


def in_another_process(world: World) -> None:
    """Likewise."""
    assert world.process().do("BEGIN IMMEDIATE", "INSERT INTO plain VALUES (1)") == []


@on_linux
@pytest.mark.parametrize("begin", [in_this_process, in_another_process])
def test_no_step_is_taken_while_somebody_writes(
    begin: Callable[[World], None], world: World
) -> None:
    """What he has begun is in no file yet, and would be committed to the next level."""
    assert world.isolation.step_unused(up=True)
    begin(world)
    assert not world.isolation.step_unused(up=False)
    with pytest.raises(Held):
        world.isolation.leave()
