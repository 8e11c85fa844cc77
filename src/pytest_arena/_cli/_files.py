"""pytest-arena's files: the SQLite folders of runs, and the user's cache."""

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

    Files = tuple[Thing, list[Path]]
    """a thing, and the files that it consists of"""

_RUNS = "SQLite files of test runs"
_RUN = re.compile(r"run-(\d+)-[0-9a-f]{8}")
_TEMPLATES = "templates"
_KEPT = "kept"
# ARENA_CACHE may name a folder that also has other files.
_SHELF = re.compile(r"[0-9a-f]{32}")
_MANIFEST = re.compile(r"[0-9a-f]{16}\.json")
_HEADER = b"SQLite format 3\0"
_SIDE_FILES = ("-wal", "-shm", "-journal")


class LiveFiles:
    """The folders of runs. A run is alive while it holds the lock beside its folder."""

    def look(self) -> Iterator[Place]:
        """Yield the folder of the user's runs."""
        if not homes():
            yield Place(shown=_RUNS, where="no folder of this user")
        for home in homes():
            runs = tuple(map(_run, _folders(home)))
            yield Place(shown=_RUNS, where=str(home), things=runs)

    def sweep(self, *, everything: bool) -> Iterator[Swept]:
        """Remove the folders of dead runs. ``everything`` also removes an empty parent folder."""
        for home in homes():
            for folder in _folders(home):
                yield from _removed_run(folder, everything=everything)
            if everything:
                with suppress(OSError):  # it is not empty
                    home.rmdir()


def _folders(home: Path) -> list[Path]:
    """Return the folders of all runs. Some have only a lock."""
    names = {path.name.removesuffix(".lock") for path in home.glob("run-*")}
    return [home / name for name in sorted(names) if _RUN.fullmatch(name)]


def _is_alive(folder: Path) -> bool:
    with try_lock(lock_of(folder)) as is_ours:
        return lock_of(folder).exists() and not is_ours


def _oldest_run() -> datetime | None:
    """Return the start of the oldest living run."""
    starts = []
    for home in homes():
        for folder in _folders(home):
            start = time_of(lock_of(folder))
            if start and _is_alive(folder):
                starts.append(start)
    return min(starts, default=None)


def _run(folder: Path) -> Thing:
    thing = _thing(folder.name, "live", folder)
    times = [time_of(file) for file in folder.glob("*")]
    return replace(
        thing,
        state="alive" if _is_alive(folder) else "dead",
        host=platform.node(),
        pid=int(folder.name.split("-")[1]),
        created=time_of(lock_of(folder)) or thing.created,
        used=max(filter(None, times), default=thing.used),
    )


def _removed_run(folder: Path, *, everything: bool) -> Iterator[Swept]:
    existed = folder.is_dir()
    run = _thing(folder.name, "live", folder)
    is_removed = remove_dead_run(folder)
    if is_removed and existed:
        yield Swept(run)
    elif everything and not is_removed:
        yield Swept(run, "a living run works in it")


class CachedFiles:
    """The templates and kept databases in the cache. Other files are never touched."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def look(self) -> Iterator[Place]:
        """Yield the folders of templates and of kept databases."""
        templates = []
        for shelf in self._shelves():
            templates += [
                thing for thing, _ in (*_finished(shelf), *_unfinished(shelf))
            ]
        yield Place(
            shown="Templates of SQLite databases",
            where=str(self._cache / _TEMPLATES),
            things=tuple(templates),
        )
        yield Place(
            shown="SQLite databases kept for a look",
            where=str(self._cache / _KEPT),
            things=tuple(thing for thing, _ in self._kept()),
        )

    def sweep(self, *, everything: bool) -> Iterator[Swept]:
        """Remove broken builds. ``everything`` also removes what no living run may use."""
        for shelf in self._shelves():
            yield from _cleared(shelf, everything=everything)
        if everything:
            for thing, files in self._kept():
                yield _removed(thing, files)
            for folder in (_TEMPLATES, _KEPT, ""):
                with suppress(OSError):  # it does not exist, or is not empty
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
    for manifest in sorted(shelf.iterdir()):
        if not _MANIFEST.fullmatch(manifest.name):
            continue
        try:
            built = json.loads(manifest.read_text(encoding="utf-8"))["built"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another program's file
        # The manifest is removed first: without it there is no template.
        files = [manifest, manifest.with_suffix(".sqlite")]
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
                thing = _thing(shelf.name[:8], "template", shelf)
                yield Swept(thing, "a living run builds there")
            return
        for thing, files in _unfinished(shelf):
            yield _removed(thing, files)
        if not everything:
            return
        # A living run does not lock a template, so it may use each that was used since its start.
        start = _oldest_run() or datetime.max.replace(tzinfo=UTC)
        for thing, files in _finished(shelf):
            if thing.used and thing.used >= start:
                yield Swept(thing, "a living run may use it")
            else:
                yield _removed(thing, files)
        used = time_of(lock)
        if used and used < start and list(shelf.iterdir()) == [lock]:
            lock.unlink()
            shelf.rmdir()


def _removed(thing: Thing, files: list[Path]) -> Swept:
    try:
        for file in files:
            file.unlink(missing_ok=True)
    except OSError as error:
        return Swept(thing, error.strerror or str(error))
    return Swept(thing)
