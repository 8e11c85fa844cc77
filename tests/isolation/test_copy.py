"""``copy`` keeps what the seam promises, in each journal mode; the suite catches who does not."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._product import Held
from pytest_arena._sqlite._copy import Copy
from pytest_arena._sqlite._live_file import LiveFile, LiveLog
from pytest_arena._sqlite._restore import Pages, Wal, works
from pytest_arena._sqlite._sql import OwnConnection
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


class ByBackup(Copy):
    """Has no fast method, as on systems other than Linux."""

    fast: tuple[type[Any], ...] = ()


@pytest.mark.slow
@pytest.mark.parametrize("mode", OF_OTHER_WAYS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_whole_copies_keep_it_too(
    check: Callable[[World], None], mode: str, tmp_path: Path
) -> None:
    """SQLite's own backup alone, which the fast ways fall back to."""
    run_check(check, ByBackup, tmp_path, mode)


class OpenedLate(Copy):
    """Begins with nothing, and looks at the file when it has to."""

    def __init__(self, live: Path, base: Path | None, **named: Any) -> None:
        del base
        super().__init__(live, None, **named)


@pytest.mark.parametrize("mode", OF_OTHER_WAYS)
@pytest.mark.parametrize("check", slow_except(CHECKS, *USUAL), ids=lambda check: check.__name__)
def test_a_file_that_is_opened_late_keeps_it(
    check: Callable[[World], None], mode: str, tmp_path: Path
) -> None:
    """The app was there first: its connections, its locks, its journal mode."""
    run_check(check, OpenedLate, tmp_path, mode)


def test_a_file_that_is_deleted_before_it_is_opened(tmp_path: Path) -> None:
    """Whoever is connected to it connects anew: what he has is in no later test."""
    with closing(Copy(tmp_path / "live.db", None)) as isolation:
        isolation.enter()
        before = isolation.generation
        with closing(sqlite3.connect(isolation.live)) as kept:
            kept.execute("CREATE TABLE plain (id)")
            isolation.live.unlink()
            isolation.leave()
        assert isolation.generation > before


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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no fast ways")
@pytest.mark.parametrize("mode, way", [("delete", "pages"), ("wal", "wal")])
def test_the_fast_way_is_taken(mode: str, way: str, tmp_path: Path) -> None:
    """After the test that turned the log on, levels with and without content below them."""
    with closing(new_world(Copy, tmp_path, mode)) as world:
        kept = world.connect()
        world.isolation.enter()  # a wide fixture that writes nothing
        for script in ("INSERT INTO plain VALUES (1)", "CREATE TABLE t (a)", "DELETE FROM plain"):
            world.isolation.enter()
            kept.execute(script)
            for _ in range(2):
                world.isolation.enter()
                kept.executescript("INSERT INTO plain VALUES (2); CREATE TABLE u (a)")
                assert world.isolation.leave()
            assert world.isolation.leave()
        assert isinstance(world.isolation, Copy)
        # Where the log was turned on in a level, whole copies are made once.
        assert world.isolation.restored == {way: 9}


@pytest.mark.parametrize("mode", MODES)
def test_a_level_leaves_no_file_behind(mode: str, tmp_path: Path) -> None:
    """Pictures of levels that are gone are gone."""
    with closing(new_world(Copy, tmp_path, mode)) as world:
        kept = world.connect()
        for number in range(3):
            for script in (
                f"CREATE TABLE t{number} (a)",
                "DELETE FROM plain; PRAGMA wal_checkpoint",
            ):
                world.isolation.enter()
                kept.executescript(script)
            world.isolation.enter()
            world.isolation.leave()
            world.isolation.leave()
            world.isolation.leave()
        left = sorted(path.name for path in tmp_path.iterdir() if "level" in path.name)
        assert len(left) <= 1, left


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


COUNTER, COOKIE, PAGES = slice(24, 28), slice(40, 44), slice(28, 32)  # in a file's header


def puts_back(*places: slice) -> dict[str, Any]:
    """Numbers of the first page by which connections know that what they have read is stale."""

    def write(self: LiveFile, data: bytes, offset: int, *, write: Any = LiveFile.write) -> None:
        page = bytearray(data)
        for place in places if offset == 0 else ():
            page[place] = FIRST_PAGE[place]
        write(self, bytes(page), offset)

    return {"_live_file.LiveFile.write": write}


FIRST_PAGE = bytearray(100)


def keeps_new_pages() -> dict[str, Any]:
    """The file stays as long as it has become."""

    def write(self: LiveFile, data: bytes, offset: int, *, write: Any = LiveFile.write) -> None:
        page, header = bytearray(data), self.header()
        if offset == 0 and header is not None:
            pages = self.path.stat().st_size // header.page_size
            page[PAGES] = pages.to_bytes(4, "big")
        write(self, bytes(page), offset)

    return {"_live_file.LiveFile.write": write, "_live_file.LiveFile.truncate": lambda *_: None}


def cuts_under_the_cookie() -> dict[str, Any]:
    """The schema keeps the number that stood in the log; something else is committed instead."""

    def execute(
        self: OwnConnection, statement: str, *given: Any, execute: Any = OwnConnection.execute
    ) -> Any:
        if statement.startswith("PRAGMA schema_version ="):
            number = execute(self, "PRAGMA user_version").fetchone()[0]
            statement = f"PRAGMA user_version = {number}"
        return execute(self, statement, *given)

    return {"_sql.OwnConnection.execute": execute}


def marks_an_empty_log() -> dict[str, Any]:
    """Marks begin with a log that looks like any other, for which a frame less is counted."""

    def execute(
        self: OwnConnection, statement: str, *given: Any, execute: Any = OwnConnection.execute
    ) -> Any:
        is_first_frame = statement.startswith("PRAGMA user_version =")
        return execute(self, "SELECT 1" if is_first_frame else statement, *given)

    def index(self: LiveLog, *, index: Any = LiveLog.index) -> Any:
        true = index(self)
        return replace(true, frames=true.frames + 1, salts=b"")

    def cut(self: LiveLog, size: int, *, cut: Any = LiveLog.cut) -> None:
        start = size - 24 - 4096  # the size of a page in this world
        cut(self, start if start > 32 else 0)

    return {
        "_sql.OwnConnection.execute": execute,
        "_live_file.LiveLog.index": index,
        "_live_file.LiveLog.cut": cut,
    }


def trusts_the_file() -> dict[str, Any]:
    """Nobody asks whether the log was copied into the file."""

    def index(self: LiveLog, *, index: Any = LiveLog.index) -> Any:
        return replace(index(self), copied=0)

    return {"_live_file.LiveLog.index": index, "_live_file.LiveLog.is_file_sealed": lambda _: True}


@dataclass(frozen=True)
class Lie:
    """A fact that a fast way rests on, replaced; and the check that has to notice."""

    way: type[Pages | Wal]
    plant: dict[str, Any]
    check: Callable[[World], None]
    is_of_sqlite: bool = True  # else it is what others do to the log, which the trial has none of

    @property
    def mode(self) -> str:
        """The journal mode in which the way is taken."""
        return "wal" if self.way.has_wal else "delete"

    def tell(self, patch: pytest.MonkeyPatch) -> None:
        """From here on it is so."""
        for name, function in self.plant.items():
            patch.setattr(f"pytest_arena._sqlite.{name}", function, raising=False)


LIES = {
    "puts the counter back": Lie(
        Pages, puts_back(COUNTER, slice(92, 96)), conformance.nested_levels
    ),
    "puts the cookie back": Lie(Pages, puts_back(COOKIE), conformance.replaced_content),
    "keeps new pages": Lie(Pages, keeps_new_pages(), conformance.schema_changes),
    "cuts under the cookie": Lie(Wal, cuts_under_the_cookie(), conformance.replaced_content),
    "keeps the index": Lie(
        Wal, {"_live_file.LiveLog.clear_index": lambda _: None}, conformance.rows
    ),
    "cuts under readers": Lie(
        Wal, {"_live_file.LiveLog.locked": lambda _: nullcontext()}, conformance.open_readers
    ),
    "marks an empty log": Lie(
        Wal, marks_an_empty_log(), conformance.long_sleepers, is_of_sqlite=False
    ),
    "trusts the file": Lie(Wal, trusts_the_file(), conformance.checkpoints, is_of_sqlite=False),
}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no fast ways")
@pytest.mark.parametrize("name", LIES)
def test_the_suite_catches_a_way_that_lies(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each does without one of the facts that a fast way rests on."""
    lie = LIES[name]
    assert works(lie.way, tmp_path)  # tried out before: else it would not be taken
    lie.tell(monkeypatch)
    with pytest.raises((AssertionError, Held, sqlite3.Error)):
        run_check(lie.check, Copy, tmp_path, lie.mode)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no fast ways")
@pytest.mark.parametrize("name", LIES)
def test_a_way_that_fails_its_trial_is_not_taken(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is as if SQLite were not what the way was built for: said once, and whole copies made."""
    lie, lines = LIES[name], list[str]()
    lie.tell(monkeypatch)
    assert works(lie.way, tmp_path) is not lie.is_of_sqlite
    if not lie.is_of_sqlite:
        return
    make: Any = partial(Copy, note=lines.append)
    with closing(new_world(make, tmp_path, lie.mode)) as world:
        conformance.nested_levels(world)
        assert isinstance(world.isolation, Copy)
        assert set(world.isolation.restored) == {"backup"}
    start = f"live.db: the restore method {lie.way.name!r} failed its trial on SQLite"
    assert {line.partition(f" {sqlite3.sqlite_version}.")[0] for line in lines} == {start}
