"""``copy`` keeps what the seam promises, in each journal mode; the suite catches who does not."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pytest_arena._dialects import _sqlite as sql
from pytest_arena._dialects._sqlite_file import LiveFile
from pytest_arena._isolation import Copy, Held, _copy, _trial
from pytest_arena._isolation._ways import Pages, Wal
from pytest_arena._isolation._ways._wal import Mark
from tests.isolation.conformance import (
    CHECKS,
    ROLLING_BACK,
    World,
    nested_levels,
    new_world,
    rows,
    whole_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_arena._dialects._sqlite_file import Header, WalIndex
    from pytest_arena._isolation._ways import Live, Picture, Way
    from pytest_arena._isolation._ways._pages import Content

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
def test_pitfall_096_103_copy_keeps_the_promise(
    check: Callable[[World], None], mode: str, tmp_path: Path
) -> None:
    """After each leave the database is what it was at the matching enter."""
    run_check(check, Copy, tmp_path, mode)


class ByBackup(Copy):
    """Has no fast way: what every system has that is not Linux."""

    fast: tuple[type[Way], ...] = ()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_whole_copies_keep_it_too(
    check: Callable[[World], None], mode: str, tmp_path: Path
) -> None:
    """SQLite's own backup alone, which the fast ways fall back to."""
    run_check(check, ByBackup, tmp_path, mode)


@pytest.mark.parametrize("mode", ["truncate", "persist", "memory", "off"])
def test_each_kind_of_rollback_journal_will_do(mode: str, tmp_path: Path) -> None:
    """The app may have any of them; they differ in what is left beside the file."""
    for check in CHECKS:
        if mode != "off" or check not in ROLLING_BACK:
            folder = tmp_path / check.__name__
            folder.mkdir()
            run_check(check, Copy, folder, mode)


@pytest.mark.parametrize("mode", MODES)
def test_each_layout_of_pages_will_do(mode: str, tmp_path: Path) -> None:
    """Page sizes, and what auto_vacuum adds to the file."""
    for page_size in (512, 1024, 8192, 65536):
        for vacuum in (0, 1, 2):
            layout = f"PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {vacuum}; "
            folder = tmp_path / f"{page_size}-{vacuum}"
            folder.mkdir()
            world = new_world(Copy, folder, mode, layout=layout)
            try:
                for check in (rows, whole_file, nested_levels):
                    check(world)
            finally:
                world.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no fast ways")
@pytest.mark.parametrize("mode, way", [("delete", "pages"), ("wal", "wal")])
def test_the_fast_way_is_taken(mode: str, way: str, tmp_path: Path) -> None:
    """After the test that turned the log on, levels with and without content below them."""
    world = new_world(Copy, tmp_path, mode)
    try:
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
    finally:
        world.close()


@pytest.mark.parametrize("mode", MODES)
def test_a_level_leaves_no_file_behind(mode: str, tmp_path: Path) -> None:
    """Pictures of levels that are gone are gone."""
    world = new_world(Copy, tmp_path, mode)
    try:
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
    finally:
        world.close()


# Liars: what the suite is for. Each does without one thing that looks as if it could be left out.


class RestoresInsertsOnly(Copy):
    """Deletes the rows that are new, and takes back nothing else."""

    def _bring_back(self, picture: Picture, version: int) -> None:
        source = picture.source()
        for (name,) in source.execute(_TABLES).fetchall():
            rows = source.execute(f'SELECT * FROM "{name}"').fetchall()
            with suppress(sqlite3.Error):
                for row in self._control.execute(f'SELECT rowid, * FROM "{name}"').fetchall():
                    if tuple(row[1:]) not in rows:
                        self._control.execute(f'DELETE FROM "{name}" WHERE rowid = ?', row[:1])
        self._stands_at(picture, version)


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


class OpensTheFileAgain(Copy):
    """Looks into the file by a descriptor of its own, whose closing ends the process's locks."""

    def is_clean(self) -> bool:
        """Look, and look away."""
        for file in self.live.parent.glob("live.db*"):
            file.read_bytes()
        return super().is_clean()


class PutsTheCounterBack(Pages):
    """Restores the first page as it was, with the number by which caches are known to be stale."""

    def _counter(self, header: Header) -> int:  # noqa: ARG002 - that is the lie
        assert self.parent is not None
        return int.from_bytes(self.parent.file().read_bytes()[24:28], "big")


class PutsTheCookieBack(Pages):
    """Restores the schema with the number by which it is known."""

    def _cookie(self, picture: Picture, header: Header) -> int:  # noqa: ARG002 - that is the lie
        return int.from_bytes(picture.file().read_bytes()[40:44], "big")


class ForgetsNewPages(Pages):
    """Writes back the pages that were there, and leaves the file as long as it has become."""

    def _content_of(self, picture: Picture, header: Header) -> Content:
        content = super()._content_of(picture, header)
        return replace(content, count=max(content.count, header.pages))


class CutsUnderTheCookie(Wal):
    """Leaves the schema with the number that stood in the log."""

    def _schema_moved(self, mark: Mark) -> bool:  # noqa: ARG002 - that is the lie
        return False


class KeepsTheIndex(Wal):
    """Cuts the log, and leaves the index that tells where its pages are."""

    def _cut(self, size: int) -> None:
        self._live.file.cut_wal(size)


class CutsToNothing(Wal):
    """Has its marks begin with an empty log, which looks like any other."""

    def _begin_wal(self) -> None:
        pass

    def _new_mark(self) -> Mark | None:
        super()._new_mark()
        header = self._live.file.header()
        self._live.file.seal()
        return Mark(0, b"", header.cookie) if header else None

    def _reaches(self, index: WalIndex, mark: Mark) -> bool:
        return mark.frames == 0 or super()._reaches(index, mark)

    def _size(self, frames: int) -> int:
        return super()._size(frames) if frames else 0


class TrustsTheWal(Wal):
    """Does not ask whether somebody has copied the log into the file."""

    def _check(self, index: WalIndex) -> None:
        pass


class UnlockedFile(LiveFile):
    """Lets everybody go on reading."""

    @contextmanager
    def index_locked(self) -> Iterator[None]:
        """Lock nothing."""
        yield


class CutsUnderReaders(Wal):
    """Cuts the log without looking who reads it."""

    def __init__(self, live: Live) -> None:
        super().__init__(replace(live, file=UnlockedFile(live.file.path)))


_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"

LIARS = (RestoresInsertsOnly, TrustsTheDataVersion, LosesLevels, OpensTheFileAgain)
LYING_WAYS: tuple[tuple[type[Way], str], ...] = (
    (PutsTheCounterBack, "delete"),
    (PutsTheCookieBack, "delete"),
    (ForgetsNewPages, "delete"),
    (CutsUnderTheCookie, "wal"),
    (KeepsTheIndex, "wal"),
    (CutsToNothing, "wal"),
    (TrustsTheWal, "wal"),
    (CutsUnderReaders, "wal"),
)


def caught_by(make: type[Copy], folder: Path, mode: str) -> str:
    """The first check that an isolation does not pass."""
    for check in CHECKS:
        (folder / check.__name__).mkdir()
        try:
            run_check(check, make, folder / check.__name__, mode)
        except (AssertionError, Held, sqlite3.Error, pytest.fail.Exception):
            return check.__name__
    return ""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("liar", LIARS)
def test_the_suite_catches_an_isolation_that_lies(
    liar: type[Copy], mode: str, tmp_path: Path
) -> None:
    """The planted twins: each of these looks right for a while."""
    assert caught_by(liar, tmp_path, mode)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no fast ways")
@pytest.mark.parametrize("way, mode", LYING_WAYS)
def test_the_suite_catches_a_way_that_lies(
    way: type[Way], mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each does without one of the facts that a fast way rests on."""
    monkeypatch.setattr(_copy, "works", lambda *_: True)
    assert caught_by(type("Lying", (Copy,), {"fast": (way,)}), tmp_path, mode)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no fast ways")
@pytest.mark.parametrize("way, mode", LYING_WAYS)
def test_a_way_that_fails_its_trial_is_not_taken(way: type[Way], mode: str, tmp_path: Path) -> None:
    """It is as if SQLite were not what the way was built for: said once, and whole copies made."""
    told: list[str] = []

    class Careful(Copy):
        fast: tuple[type[Way], ...] = (way,)

    if way in {TrustsTheWal, CutsToNothing}:  # what others do to the log is no trait of SQLite's
        assert _trial.works(way, tmp_path)
        return
    assert not _trial.works(way, tmp_path)
    world = new_world(partial(Careful, tell=told.append), tmp_path, mode)
    try:
        nested_levels(world)
        assert set(world.isolation.restored) == {"backup"}  # type: ignore[attr-defined]  # Copy's
        told_way = f"live.db: the fast way {way.name!r} did not pass its trial on SQLite"
        assert {line.partition(f" {sqlite3.sqlite_version};")[0] for line in told} == {told_way}
    finally:
        world.close()
