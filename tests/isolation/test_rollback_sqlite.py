"""``rollback`` on SQLite keeps what the seam promises, but for other processes and open readers."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_arena._sqlite._copy import Copy
from pytest_arena._sqlite.rollback._rollback import Rollback
from pytest_arena._sqlite.rollback._sharing_connection import SharingConnection
from tests.isolation.conformance import CHECKS, SCHEMA, World, dump, new_world
from tests.isolation.random_work import RandomWork
from tests.isolation.test_random_work import ON_SQLITE, STEPS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.isolation.random_work import Step

# Another process has another connection, which does not see what is never committed.
OTHER_PROCESSES = {
    "other_processes",
    "kept_processes",
    "killed_writers",
    "sleepers",
    "sleepers_in_levels",
    "own_checkpoints",
}
# A reader has no snapshot of its own: it reads what others write.
OPEN_READERS = {"open_readers"}


class SharedWorld(World):
    """A database whose connections share one."""

    def connect(self) -> sqlite3.Connection:
        """Open a connection that stays open over the levels."""
        connection = SharingConnection(
            self.live, isolation_level=None, timeout=0, check_same_thread=False
        )
        self._open.append(connection)
        with suppress(sqlite3.OperationalError):
            connection.execute(f"PRAGMA journal_mode = {self.mode}").fetchone()
        return connection

    def dump(self) -> list[object]:
        """Return all that a new connection sees."""
        with closing(SharingConnection(self.live, isolation_level=None)) as fresh:
            return dump(fresh)


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_rollback_keeps_the_promise(
    check: Callable[[World], None], mode: str, tmp_path: Path
) -> None:
    """After each leave the database is what it was at the matching enter."""
    if check.__name__ in OTHER_PROCESSES | OPEN_READERS:
        pytest.skip("a limit of one shared connection")
    with closing(shared_world(tmp_path, mode)) as world:
        check(world)


def shared_world(folder: Path, mode: str) -> SharedWorld:
    """Make a database from a template."""
    base, live = folder / "base.db", folder / "live.db"
    with closing(sqlite3.connect(base, isolation_level=None)) as template:
        template.execute("PRAGMA synchronous = OFF")
        template.executescript(SCHEMA)
    return SharedWorld(Rollback(live, base), live, mode)


@given(steps=STEPS)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_work_is_undone(steps: list[Step]) -> None:
    """Three connections in up to four levels."""
    with TemporaryDirectory() as folder, closing(shared_world(Path(folder), "delete")) as world:
        RandomWork(world, hands=3, levels=4).do_all(steps)
        assert world.isolation.depth == 0


# What SQLite itself answers in the same way, whether the statement is in a larger transaction.
_MORE = ("RELEASE a", "SAVEPOINT b", "ROLLBACK TO b", "RELEASE b", "SELECT * FROM extra")
_OTHER_ANSWERS = ("random()", "PRAGMA", "VACUUM", "reconnect", "RECURSIVE")
_IN_STEP = [
    *(step for step in (*ON_SQLITE, *_MORE) if not any(word in step for word in _OTHER_ANSWERS)),
    "INSERT INTO dancers (name) VALUES ('Grain')",
    "INSERT INTO dancers (name) VALUES ('Pebble')",
    "INSERT INTO extra VALUES (1)",
    "UPDATE dancers SET style = id",
    "PRAGMA user_version = 3",
    "PRAGMA user_version",
]
IN_STEP = st.lists(
    st.one_of(st.sampled_from(("enter", "leave")), st.sampled_from(_IN_STEP)), max_size=40
)


@given(steps=IN_STEP)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_random_history_in_step_with_copy(steps: list[str]) -> None:
    """The same answers and the same content, step by step."""
    with (
        TemporaryDirectory() as one,
        TemporaryDirectory() as other,
        closing(shared_world(Path(one), "delete")) as shared,
        closing(new_world(Copy, Path(other), "delete")) as copied,
    ):
        worlds = (shared, copied)
        hands = [world.connect() for world in worlds]
        for step in steps:
            answers = [_answer(*pair, step) for pair in zip(worlds, hands, strict=True)]
            assert answers[0] == answers[1], step
            assert shared.dump() == copied.dump(), step


def _answer(world: World, hand: sqlite3.Connection, step: str) -> object:
    isolation = world.isolation
    if step == "enter":
        hand.rollback()
        isolation.enter()
        return isolation.depth
    if step == "leave":
        hand.rollback()
        is_clean = isolation.depth > 0 and isolation.is_clean()
        return is_clean or (isolation.depth > 0 and isolation.leave())
    try:
        cursor = hand.execute(step)
        return cursor.fetchall(), cursor.rowcount, hand.in_transaction
    except sqlite3.Error as error:
        return str(error), hand.in_transaction
