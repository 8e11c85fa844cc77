"""``copy`` keeps what the seam promises, in each journal mode; the suite catches who does not."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_arena._dialects import _sqlite as sql
from pytest_arena._isolation import Copy, Held
from tests.isolation.conformance import CHECKS, World, dump, new_world

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._isolation._copy import Picture

MODES = ("delete", "wal")


def run_check(check: Callable[[World], None], make: type[Copy], folder: Path, mode: str) -> None:
    """Run one check in a world of its own."""
    world = new_world(make, folder, mode)
    try:
        check(world)
    finally:
        world.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_copy_keeps_the_promise(check: Callable[[World], None], mode: str, tmp_path: Path) -> None:
    """After each leave the database is what it was at the matching enter."""
    run_check(check, Copy, tmp_path, mode)


# Liars: what the suite is for.


class RestoresInsertsOnly(Copy):
    """Deletes the rows that are new, and takes back nothing else."""

    def _restore(self, picture: Picture) -> bool:
        version = self._version_unwritten()
        changed = self._now is not picture or version != self._version
        names = [row[0] for row in picture.source.execute(_TABLES)]
        for name in names:
            rows = picture.source.execute(f'SELECT * FROM "{name}"').fetchall()
            with suppress(sqlite3.Error):
                for row in self._control.execute(f'SELECT rowid, * FROM "{name}"').fetchall():
                    if tuple(row[1:]) not in rows:
                        self._control.execute(f'DELETE FROM "{name}" WHERE rowid = ?', row[:1])
        self._stands_at(picture, version)
        return changed


class TrustsTheDataVersion(Copy):
    """Asks whether somebody has committed, and not whether somebody is about to."""

    def _version_unwritten(self) -> int:
        return sql.data_version(self._control)


class LosesLevels(Copy):
    """Keeps the oldest picture for all levels."""

    def enter(self) -> None:
        """Enter, and take the wrong picture."""
        super().enter()
        self._levels[-1] = self._levels[0]


_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("liar", [RestoresInsertsOnly, TrustsTheDataVersion, LosesLevels])
def test_the_suite_catches_an_isolation_that_lies(
    liar: type[Copy], mode: str, tmp_path: Path
) -> None:
    """The planted twins: each of these looks right for a while."""
    caught = []
    for check in CHECKS:
        folder = tmp_path / check.__name__
        folder.mkdir()
        try:
            run_check(check, liar, folder, mode)
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - however it is caught
            caught.append(check.__name__)
    assert caught


# Random work: the clean check is never falsely clean.

WORK = (
    "INSERT INTO dancers (name) VALUES (random())",
    "UPDATE dancers SET style = random()",
    "DELETE FROM dancers WHERE id % 2",
    "INSERT INTO scores VALUES (random(), 1, 1)",
    "INSERT INTO notes VALUES ('sand ' || random())",
    "CREATE TABLE IF NOT EXISTS extra (a)",
    "DROP TABLE IF EXISTS extra",
    "INSERT INTO extra VALUES (random())",
    "ALTER TABLE plain ADD COLUMN b",
    "ALTER TABLE plain DROP COLUMN b",
    "PRAGMA user_version = 3",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA journal_mode = wal",
    "PRAGMA journal_mode = delete",
    "PRAGMA page_size = 1024",
    "PRAGMA auto_vacuum = 1",
    "VACUUM",
    "BEGIN",
    "BEGIN IMMEDIATE",
    "COMMIT",
    "ROLLBACK",
    "SELECT * FROM dancers",
)
STEPS = st.lists(
    st.one_of(
        st.sampled_from(["enter", "leave", "leave"]),
        st.tuples(st.integers(0, 2), st.sampled_from(WORK)),
    ),
    max_size=40,
)


class RandomWork:
    """Three connections at work in up to four levels, and what stood at each enter."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.hands = [world.connect() for _ in range(3)]
        self.states: list[list[object]] = []

    def do(self, step: str | tuple[int, str]) -> None:
        """Take one step."""
        if isinstance(step, tuple):
            with suppress(sqlite3.Error):  # a lock, a table that is not there: as it comes
                self.hands[step[0]].execute(step[1]).fetchone()
        elif step == "enter" and len(self.states) < 4:
            self.enter()
        elif step == "leave" and self.states:
            self.leave()

    def enter(self) -> None:
        """Enter a level, when no transaction is open."""
        self.end_transactions()
        self.states.append(self.world.dump())
        self.world.isolation.enter()

    def leave(self) -> None:
        """Leave a level, whoever holds it, and compare on every connection."""
        try:
            self.world.isolation.leave()
        except Held:
            self.end_transactions()
            self.leave_somehow()
        self.end_transactions()
        state = self.states.pop()
        assert self.world.dump() == state
        for hand in self.hands:
            assert dump(hand) == state

    def leave_somehow(self) -> None:
        """Leave, by force if it must be."""
        try:
            self.world.isolation.leave()
        except Held:
            self.world.isolation.leave_by_force()
            self.hands = [self.world.connect() for _ in range(3)]

    def end_transactions(self) -> None:
        """Roll back what is open."""
        for hand in self.hands:
            hand.rollback()


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """The journal mode; a fixture, since Hypothesis does not mix with parametrize here."""
    return str(request.param)


@given(steps=STEPS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_work_is_undone(mode: str, steps: list[str | tuple[int, str]]) -> None:
    """Whatever three connections do in up to four levels, each leave gives back its enter."""
    with TemporaryDirectory() as folder:
        world = new_world(Copy, Path(folder), mode)
        try:
            work = RandomWork(world)
            for step in ["enter", *steps, "leave"]:
                work.do(step)
        finally:
            world.close()
