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
from pytest_arena._sqlite._sql import FileFailure
from pytest_arena._sqlite.rollback._rollback import Rollback
from pytest_arena._sqlite.rollback._sharing_connection import SharingConnection
from tests.isolation import conformance
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


def never_committed(world: World) -> None:
    """The file itself never has what a transaction has committed."""
    kept = world.connect()
    for _ in range(2):
        world.isolation.enter()
        kept.executescript("BEGIN; INSERT INTO plain VALUES (9); COMMIT")
        with closing(_apart(world)) as apart:
            assert apart.execute("SELECT count(*) FROM plain WHERE a = 9").fetchone() == (0,)
        world.isolation.leave()


def _apart(world: World) -> sqlite3.Connection:
    """Connect to the file itself, as another process does."""
    return sqlite3.Connection(f"file:{world.live}?mode=ro", uri=True)


def no_savepoint_left(world: World) -> None:
    """A level's savepoint ends with the level."""
    assert isinstance(world.isolation, Rollback)
    kept = world.connect()
    for script in ("INSERT INTO plain VALUES (9)", "SELECT a FROM plain"):
        world.isolation.enter()
        kept.executescript(script)
        name = world.isolation._shared.levels[-1].name
        world.isolation.leave()
        with pytest.raises(FileFailure, match=f"no such savepoint: {name}"):
            world.isolation._shared.real.execute(f"RELEASE {name}")


@pytest.mark.parametrize("check", [never_committed, no_savepoint_left])
def test_a_level_is_a_savepoint(check: Callable[[World], None], tmp_path: Path) -> None:
    """Nothing is committed, and no savepoint is left."""
    with closing(shared_world(tmp_path, "delete")) as world:
        check(world)


# Planted defects: each does without one thing, and names the check that finds it.


class ForgetsToRollBack(Rollback):
    """Leaves a level, and keeps what was written in it."""

    def leave(self) -> bool:
        """Drop the level alone."""
        is_changed = not self.is_untouched()
        self.forget()
        return is_changed


class LeavesASavepoint(Rollback):
    """Rolls back to a savepoint, and does not release it."""

    def leave(self) -> bool:
        """Open a savepoint of the same name once more."""
        name = self._shared.levels[-1].name
        is_changed = super().leave()
        self._shared.real.execute(f"SAVEPOINT {name}")
        return is_changed


class CommitsReally(Rollback):
    """Commits what the app commits. Each level is restored by its snapshot."""

    def __init__(self, live: Path, base: Path | None) -> None:
        super().__init__(live, base)
        shared = self._shared
        commit_writer = shared.commit_writer

        def commit(*, is_changed: bool) -> None:
            commit_writer(is_changed=is_changed)
            shared.real.execute("COMMIT")
            shared._begin(shared.real)

        shared.commit_writer = commit  # type: ignore[method-assign]  # a planted defect


class RestoresNoSequence(Rollback):
    """Gives each test the numbers that follow those of the test before."""

    def leave(self) -> bool:
        """Keep the numbers."""
        numbers = self._shared.real.execute("SELECT seq, name FROM sqlite_sequence").fetchall()
        is_changed = super().leave()
        update = "UPDATE sqlite_sequence SET seq = ? WHERE name = ?"
        self._shared.real.executemany(update, numbers)
        return is_changed


@pytest.mark.parametrize(
    "make, check",
    [
        (ForgetsToRollBack, conformance.rows),
        (LeavesASavepoint, no_savepoint_left),
        (CommitsReally, never_committed),
        (RestoresNoSequence, conformance.sequences),
    ],
)
def test_the_suite_finds_a_planted_defect(
    make: type[Rollback], check: Callable[[World], None], tmp_path: Path
) -> None:
    """Each of these looks right for a while."""
    fails = pytest.raises((AssertionError, pytest.fail.Exception))
    with closing(shared_world(tmp_path, "delete", make)) as world, fails:
        check(world)


def shared_world(folder: Path, mode: str, make: type[Rollback] = Rollback) -> SharedWorld:
    """Make a database from a template."""
    base, live = folder / "base.db", folder / "live.db"
    with closing(sqlite3.connect(base, isolation_level=None)) as template:
        template.execute("PRAGMA synchronous = OFF")
        template.executescript(SCHEMA)
    return SharedWorld(make(live, base), live, mode)


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


@pytest.mark.slow
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
        if isolation.depth == 0:
            return False
        is_clean = isolation.is_clean()
        has_changed = isolation.leave()
        return is_clean or has_changed
    try:
        cursor = hand.execute(step)
        return cursor.fetchall(), cursor.rowcount, hand.in_transaction
    except sqlite3.Error as error:
        return str(error), hand.in_transaction
