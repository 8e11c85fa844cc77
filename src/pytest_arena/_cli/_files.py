"""Arena's files: the folders of runs for SQLite, and what stays in the user's cache."""

from __future__ import annotations

import json
import platform
import re
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pytest_arena._cli._lines import Place, Swept, Thing, size_of, time_of
from pytest_arena._sqlite._home import homes, lock_of, remove_dead_run, try_lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Files = tuple[Thing, list[Path]]  # what they are together

_RUNS = "SQLite files of test runs"
_RUN = re.compile(r"run-(\d+)-[0-9a-f]{8}")
_TEMPLATES = "templates"
_KEPT = "kept"
# The cache may hold other things: ARENA_CACHE names any folder.
_SHELF = re.compile(r"[0-9a-f]{32}")
_MANIFEST = re.compile(r"[0-9a-f]{16}\.json")
_HEADER = b"SQLite format 3\0"
_SIDE_FILES = ("-wal", "-shm", "-journal")


class LiveFiles:
    """A folder for each process, below one that only this user can enter.

    A run is alive while it holds the lock beside its folder.
    """

    def look(self) -> Iterator[Place]:
        """Say what is there."""
        if not homes():
            yield Place(shown=_RUNS, where="no folder of this user's")
        for home in homes():
            yield Place(
                shown=_RUNS, where=str(home), things=tuple(map(_run, _folders(home)))
            )

    def sweep(self, *, everything: bool) -> Iterator[Swept]:
        """Remove the folders of dead runs, and with ``everything`` those above, once empty."""
        for home in homes():
            for folder in _folders(home):
                yield from _removed_run(folder, everything=everything)
            if everything:
                with suppress(OSError):  # a living run has its folder there
                    home.rmdir()


def _folders(home: Path) -> list[Path]:
    """All that have been made there by name, with a folder or only its lock."""
    names = {path.name.removesuffix(".lock") for path in home.glob("run-*")}
    return [home / name for name in sorted(names) if _RUN.fullmatch(name)]


def _is_alive(folder: Path) -> bool:
    with try_lock(lock_of(folder)) as is_ours:
        return lock_of(folder).exists() and not is_ours


def _oldest_run() -> datetime | None:
    """Return since when there has been a living run."""
    alive = [
        folder for home in homes() for folder in _folders(home) if _is_alive(folder)
    ]
    return min(
        filter(None, (time_of(lock_of(folder)) for folder in alive)), default=None
    )


def _run(folder: Path) -> Thing:
    times = [time for file in folder.glob("*") if (time := time_of(file))]
    return replace(
        _thing(folder.name, "live", folder),
        state="alive" if _is_alive(folder) else "dead",
        host=platform.node(),
        pid=int(folder.name.split("-")[1]),
        created=time_of(lock_of(folder)) or time_of(folder),
        used=max(times, default=time_of(folder)),
    )


def _removed_run(folder: Path, *, everything: bool) -> Iterator[Swept]:
    was_there = folder.is_dir()
    size = size_of(folder)
    if not remove_dead_run(folder):
        if everything:
            yield Swept("live", folder.name, why="a living run works in it")
    elif was_there:
        yield Swept("live", folder.name, size)


class CachedFiles:
    """What stays from run to run. Whatever is not of arena's form is left alone."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def look(self) -> Iterator[Place]:
        """Say what is there."""
        templates = [
            files
            for shelf in self._shelves()
            for files in (*_finished(shelf), *_unfinished(shelf))
        ]
        for name, shown, found in (
            (_TEMPLATES, "Templates of SQLite databases", templates),
            (_KEPT, "SQLite databases kept for a look", self._kept()),
        ):
            things = tuple(thing for thing, _ in found)
            yield Place(shown=shown, where=str(self._cache / name), things=things)

    def sweep(self, *, everything: bool) -> Iterator[Swept]:
        """Remove broken builds; with ``everything``, all that no living run may be using."""
        for shelf in self._shelves():
            yield from _cleared(shelf, everything=everything)
        if everything:
            for files in self._kept():
                yield _removed(*files)
            for folder in (_TEMPLATES, _KEPT, ""):
                with suppress(OSError):  # it is not there, or not empty
                    (self._cache / folder).rmdir()

    def _shelves(self) -> list[Path]:
        locks = sorted((self._cache / _TEMPLATES).glob("*/lock"))
        return [lock.parent for lock in locks if _SHELF.fullmatch(lock.parent.name)]

    def _kept(self) -> Iterator[Files]:
        for file in sorted((self._cache / _KEPT).glob("*")):
            if _is_database(file):
                beside = [file.with_name(file.name + ending) for ending in _SIDE_FILES]
                yield _thing(file.name, "kept", file), [file, *beside]


def _thing(name: str, what: str, file: Path) -> Thing:
    when = time_of(file)
    return Thing(name=name, what=what, created=when, used=when, bytes=size_of(file))


def _is_database(file: Path) -> bool:
    with suppress(OSError):
        if file.is_file() and not file.name.endswith(_SIDE_FILES):
            with file.open("rb") as opened:
                return opened.read(len(_HEADER)) in (_HEADER, b"")
    return False


def _finished(shelf: Path) -> Iterator[Files]:
    for manifest in sorted(
        filter(lambda file: _MANIFEST.fullmatch(file.name), shelf.iterdir())
    ):
        try:
            built = json.loads(manifest.read_text(encoding="utf-8"))["built"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it is no manifest of arena's
        files = [
            manifest,
            manifest.with_suffix(".sqlite"),
        ]  # without the first, no template
        thing = _thing(f"{shelf.name[:8]}/{manifest.stem}", "template", manifest)
        created = datetime.fromtimestamp(built, UTC)
        size = sum(map(size_of, files))
        yield replace(thing, created=created, bytes=size), files


def _unfinished(shelf: Path) -> Iterator[Files]:
    for file in sorted((*shelf.glob("building-*"), *shelf.glob("single-*"))):
        yield _thing(f"{shelf.name[:8]}/{file.name[:17]}", "building", file), [file]


def _cleared(shelf: Path, *, everything: bool) -> Iterator[Swept]:
    lock = shelf / "lock"
    with try_lock(lock) as is_ours:
        if not is_ours:
            if everything:
                yield Swept("template", shelf.name[:8], why="a living run builds there")
            return
        for files in _unfinished(shelf):
            yield _removed(*files)
        if not everything:
            return
        # Nobody says so of a file: whoever is alive may use what was used since its begin.
        since = _oldest_run()
        for thing, paths in _finished(shelf):
            if since and thing.used and thing.used >= since:
                yield Swept(thing.what, thing.name, why="a living run may use it")
            else:
                yield _removed(thing, paths)
        used = time_of(lock)
        if not (since and used and used >= since) and list(shelf.iterdir()) == [lock]:
            lock.unlink()
            shelf.rmdir()


def _removed(thing: Thing, files: list[Path]) -> Swept:
    try:
        for file in files:
            file.unlink(missing_ok=True)
    except OSError as error:
        return Swept(thing.what, thing.name, why=error.strerror or str(error))
    return Swept(thing.what, thing.name, thing.bytes)
