"""``copy`` keeps what the seam promises, in each journal mode; the suite catches who does not."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pytest_arena._product import Held
from pytest_arena._sqlite._copy import Copy
from tests.isolation import conformance
from tests.isolation.conformance import CHECKS, ROLLING_BACK, new_world
from tests.parameters import slow_except

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.isolation.conformance import World

MODES = ("delete", "wal")
# The fast ways have both modes in the quick suite; the others share their code for modes.
OF_OTHER_WAYS = [pytest.param("delete", marks=pytest.mark.slow), "wal"]
FAST = {(512, 2), (65536, 1)}  # layouts of pages that are as different as can be
# What differs most: data and schema, levels, who else is connected, locks, the log.
USUAL = (
    *(conformance.rows, conformance.sequences, conformance.schema_changes),
    *(conformance.nested_levels, conformance.forgotten_levels, conformance.other_processes),
    *(conformance.open_writers, conformance.force, conformance.kept_locks),
    conformance.checkpoints,
)


def run_check(check: Callable[[World], None], make: type[Copy], folder: Path, mode: str) -> None:
    """Run one check in a world of its own."""
    with closing(new_world(make, folder, mode)) as world:
        check(world)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("check", slow_except(CHECKS, *USUAL), ids=lambda check: check.__name__)
def test_copy_keeps_the_promise_pitfall_096_103(
    check: Callable[[World], None], mode: str, tmp_path: Path
) -> None:
    """After each leave the database is what it was at the matching enter."""
    run_check(check, Copy, tmp_path, mode)


@pytest.fixture
def unopened(tmp_path: Path) -> Iterator[tuple[Copy, sqlite3.Connection]]:
    """A file that the app has made, and that the isolation has not opened."""
    isolation = Copy(tmp_path / "live.db", None)
    isolation.enter()
    with closing(isolation), closing(sqlite3.connect(isolation.live)) as app:
        app.execute("CREATE TABLE plain (id)")
        yield isolation, app


def test_moments_of_a_file_that_is_opened_late(unopened: tuple[Copy, sqlite3.Connection]) -> None:
    """A commit makes a new moment. The rows between two moments are read, and no file stays."""
    isolation, app = unopened
    before = isolation.moment()
    assert isolation.moment() is before is not None
    app.execute("INSERT INTO plain VALUES (7)")
    assert isolation.moment() is before, "the app has not committed"
    app.commit()
    after = isolation.moment()
    assert after is not before
    [rows] = isolation.rows_changed(before, after)
    assert (rows.table, rows.removed, rows.added) == ("plain", (), ((7,),))
    assert isolation.rows_changed(after) == []
    isolation.close()
    assert [file.name for file in isolation.live.parent.glob("live.db.level-*")] == []


@pytest.mark.parametrize("begin", ["BEGIN EXCLUSIVE", "PRAGMA locking_mode = EXCLUSIVE"])
def test_an_exclusive_lock_keeps_moments_out(
    unopened: tuple[Copy, sqlite3.Connection], begin: str
) -> None:
    """The file may hold half of a transaction."""
    isolation, app = unopened
    before = isolation.moment()
    app.execute(begin)
    app.execute("INSERT INTO plain VALUES (7)")
    app.execute("COMMIT")
    if "PRAGMA" not in begin:
        assert isolation.moment() not in (None, before)
        return
    assert isolation.moment() is None


def test_a_moment_drops_no_lock(unopened: tuple[Copy, sqlite3.Connection]) -> None:
    """Closing a descriptor would: another process would write into the app's transaction."""
    isolation, app = unopened
    app.execute("INSERT INTO plain VALUES (7)")
    for _ in range(3):
        assert isolation.moment() is not None
    write = (
        "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    )
    other = [sys.executable, "-c", write, str(isolation.live)]
    assert "locked" in subprocess.run(other, capture_output=True, text=True, check=False).stderr
    app.commit()
    assert subprocess.run(other, capture_output=True, check=False).returncode == 0


def test_a_moment_after_the_log_was_turned_on(unopened: tuple[Copy, sqlite3.Connection]) -> None:
    """The file was opened with a rollback journal."""
    isolation, app = unopened
    before = isolation.moment()
    app.execute("PRAGMA journal_mode = WAL")
    app.execute("INSERT INTO plain VALUES (7)")
    app.commit()
    [rows] = isolation.rows_changed(before, isolation.moment())
    assert rows.added == ((7,),)


def test_a_lock_that_is_there_before_it_is_opened(tmp_path: Path) -> None:
    """Whoever has the file to itself keeps that out as well which puts another in its place."""
    with closing(Copy(tmp_path / "live.db", None)) as isolation:
        isolation.enter()
        assert isolation.is_clean()
        before = isolation.generation
        with closing(sqlite3.connect(isolation.live)) as kept:
            kept.execute("CREATE TABLE plain (id)")
            kept.execute("BEGIN EXCLUSIVE")
            assert not isolation.is_free()
            assert not isolation.is_untouched()
            assert isolation.moment() is None
            with pytest.raises(Held):
                isolation.leave()
            isolation.leave_by_force()
        assert isolation.generation > before
        with closing(sqlite3.connect(isolation.live)) as fresh:
            assert fresh.execute("SELECT name FROM sqlite_master").fetchall() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode",
    [
        "off",
        *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("truncate", "persist", "memory")),
    ],
)
def test_each_kind_of_rollback_journal_will_do(mode: str, tmp_path: Path) -> None:
    """The app may have any of them; they differ in what is left beside the file."""
    for check in CHECKS:
        if mode != "off" or check not in ROLLING_BACK:
            folder = tmp_path / check.__name__
            folder.mkdir()
            run_check(check, Copy, folder, mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "page_size, vacuum",
    [
        pytest.param(size, vacuum, marks=[] if (size, vacuum) in FAST else pytest.mark.slow)
        for size in (512, 1024, 8192, 65536)
        for vacuum in (0, 1, 2)
    ],
)
def test_each_layout_of_pages_will_do(
    page_size: int, vacuum: int, mode: str, tmp_path: Path
) -> None:
    """Page sizes, and what auto_vacuum adds to the file."""
    layout = f"PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {vacuum}; "
    with closing(new_world(Copy, tmp_path, mode, layout=layout)) as world:
        for check in (conformance.rows, conformance.whole_file, conformance.nested_levels):
            check(world)


# Planted defects: what the suite is for. Each does without one thing that looks as if it could be
# left out, and names the check that finds it.


class RestoresInsertsOnly(Copy):
    """Deletes the rows that are new, and takes back nothing else."""

    def leave(self) -> bool:
        """Delete, and forget."""
        with closing(sqlite3.connect(self.live, isolation_level=None)) as connection:
            for rows in self.rows_changed():
                match = " AND ".join(f'"{column}" IS ?' for column in rows.columns)
                connection.executemany(f'DELETE FROM "{rows.table}" WHERE {match}', rows.added)
        self.forget()
        return True


class TrustsTheDataVersion(Copy):
    """Asks whether somebody has committed, and not whether somebody is about to."""

    def leave(self) -> bool:
        """Do nothing where nothing was committed."""
        if self.is_untouched():
            self.forget()
            return False
        return super().leave()


class LosesLevels(Copy):
    """Keeps the oldest state for all levels."""

    entered = 0

    def enter(self) -> None:
        """Enter the lowest one alone."""
        if not self.entered:
            super().enter()
        self.entered += 1

    def leave(self) -> bool:
        """Go back to the lowest one each time."""
        changed = super().leave()
        self.entered -= 1
        if self.entered:
            super().enter()
        return changed


class OpensTheFileAgain(Copy):
    """Looks into the file by a descriptor of its own, whose closing ends the process's locks."""

    def leave(self) -> bool:
        """Look, and look away."""
        for file in self.live.parent.glob("live.db*"):
            file.read_bytes()
        return super().leave()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "make, check",
    [
        (RestoresInsertsOnly, conformance.rows),
        (TrustsTheDataVersion, conformance.open_writers),
        (LosesLevels, conformance.nested_levels),
        (OpensTheFileAgain, conformance.kept_locks),
    ],
)
def test_the_suite_catches_an_isolation_that_lies(
    make: type[Copy], check: Callable[[World], None], mode: str, tmp_path: Path
) -> None:
    """Each of these looks right for a while."""
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        run_check(check, make, tmp_path, mode)
