"""The part of `arena databases` for SQLite: folders of runs, and the user's cache."""

from __future__ import annotations

import json
import platform
import re
import shutil
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pytest_arena._config._supported import FILE_FORMAT
from pytest_arena._product._databases_command import (
    Place,
    PlaceKind,
    SweepResult,
    Thing,
    size_of,
    time_of,
)
from pytest_arena._sqlite._home import (
    homes,
    lock_of,
    remove_dead_run,
    shared_folders,
    try_lock,
    unused_folders,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_arena._config._read import Config

    # A database, and its files.
    DatabaseFiles = tuple[Thing, list[Path]]

_RUNS = "SQLite files of test runs"
_RUN = re.compile(r"run-(\d+)-[0-9a-f]{8}")
_TEMPLATES = "templates"
_KEPT = "kept"
# ARENA_CACHE may name a folder with other files. These are pytest-arena's names: of a folder of a
# template, and of its manifest.
_TEMPLATE_FOLDER = re.compile(r"[0-9a-f]{32}")
_MANIFEST = "template.json"
_ENDINGS = ("", "-wal", "-shm", "-journal")  # of a database file and its side files


def place_kinds(
    config: Config, *, removes_all: bool
) -> tuple[list[PlaceKind], list[PlaceKind]]:
    """Return the folders of runs, and the cache."""
    if removes_all and config.server_url:
        return [], []
    return [LiveFiles()], [CachedFiles(config.cache)]


class LiveFiles:
    """The folders of runs. A run is alive while it holds the lock beside its folder."""

    def look(self) -> Iterator[Place]:
        """Yield the folder of the user's runs."""
        if not homes():
            yield Place(shown=_RUNS, where="no folder of this user")
        for home in homes():
            runs = (*map(_run, _folders(home)), *map(_shared, shared_folders(home)))
            yield Place(shown=_RUNS, where=str(home), things=runs)

    def sweep(self, *, everything: bool) -> Iterator[SweepResult]:
        """Remove the folders of dead runs. ``everything`` also removes an empty parent folder."""
        for home in homes():
            for folder in _folders(home):
                yield from _remove_run(folder, everything=everything)
            for folder in unused_folders(home):
                thing = _shared(folder)
                shutil.rmtree(folder, ignore_errors=True)
                yield SweepResult(thing)
            if everything:
                with suppress(OSError):  # the folder is not empty
                    home.rmdir()


def _folders(home: Path) -> list[Path]:
    """Return the folders of all runs. For some runs only the lock exists."""
    names = {path.name.removesuffix(".lock") for path in home.glob("run-*")}
    return [home / name for name in sorted(names) if _RUN.fullmatch(name)]


def _is_alive(folder: Path) -> bool:
    """Return whether another process holds the lock of a run."""
    lock = lock_of(folder)
    with try_lock(lock) as is_ours:
        return lock.exists() and not is_ours


def _start_of_oldest_run() -> datetime | None:
    """Return the start of the oldest living run, or None without a living run."""
    starts = []
    for home in homes():
        for folder in _folders(home):
            start = time_of(lock_of(folder))
            if start and _is_alive(folder):
                starts.append(start)
    return min(starts, default=None)


def _shared(folder: Path) -> Thing:
    file = folder / "template.sqlite"
    state = "dead" if folder in unused_folders(folder.parent) else "alive"
    thing = _thing(folder.name, "live", folder)
    return replace(thing, bytes=size_of(file), state=state, host=platform.node())


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


def _remove_run(folder: Path, *, everything: bool) -> Iterator[SweepResult]:
    existed = folder.is_dir()
    run = _thing(folder.name, "live", folder)
    is_removed = remove_dead_run(folder)
    if is_removed and existed:
        yield SweepResult(run)
    elif everything and not is_removed:
        yield SweepResult(run, "a living run uses it")


class CachedFiles:
    """The templates and kept databases in the cache. Other files stay unchanged."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def look(self) -> Iterator[Place]:
        """Yield the folders of templates and of kept databases."""
        templates: list[Thing] = []
        for folder in self._template_folders():
            templates += [thing for thing, _ in _finished(folder)]
            templates += [thing for thing, _ in _unfinished(folder)]
        kept = [thing for thing, _ in self._kept()]
        yield Place(
            shown="Templates of SQLite databases",
            where=str(self._cache / _TEMPLATES),
            things=tuple(templates),
        )
        yield Place(
            shown="SQLite databases kept for inspection",
            where=str(self._cache / _KEPT),
            things=tuple(kept),
        )

    def sweep(self, *, everything: bool) -> Iterator[SweepResult]:
        """Remove unfinished builds. ``everything`` also removes databases that no run may use."""
        for folder in self._template_folders():
            yield from _sweep_templates(folder, everything=everything)
        if everything:
            for thing, files in self._kept():
                yield _remove(thing, files)
            cache = self._cache
            for folder in (cache / _TEMPLATES, cache / _KEPT, cache):
                with suppress(OSError):  # the folder does not exist, or is not empty
                    folder.rmdir()

    def _template_folders(self) -> list[Path]:
        templates = self._cache / _TEMPLATES
        folders = [lock.parent for lock in sorted(templates.glob("*/lock"))]
        return [path for path in folders if _TEMPLATE_FOLDER.fullmatch(path.name)]

    def _kept(self) -> Iterator[DatabaseFiles]:
        folder = self._cache / _KEPT
        for file in sorted(folder.glob("*")):
            if _is_database(file):
                files = [file.with_name(file.name + ending) for ending in _ENDINGS]
                yield _thing(file.name, "kept", file), files


def _thing(name: str, what: str, file: Path) -> Thing:
    when = time_of(file)
    size = size_of(file)
    return Thing(name=name, what=what, created=when, used=when, bytes=size)


def _is_database(file: Path) -> bool:
    with suppress(OSError):
        if file.is_file() and not file.name.endswith(_ENDINGS[1:]):
            with file.open("rb") as opened:
                return opened.read(len(FILE_FORMAT.header)) in (FILE_FORMAT.header, b"")
    return False


def _finished(folder: Path) -> Iterator[DatabaseFiles]:
    manifest = folder / _MANIFEST
    try:
        built = json.loads(manifest.read_text(encoding="utf-8"))["built"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # no template, or a file of another program
    # The manifest is removed first. A file without a manifest is no template.
    files = [manifest, manifest.with_suffix(".sqlite")]
    thing = _thing(folder.name[:8], "template", manifest)
    created = datetime.fromtimestamp(built, UTC)
    size = sum(map(size_of, files))
    yield replace(thing, created=created, bytes=size), files


def _unfinished(folder: Path) -> Iterator[DatabaseFiles]:
    """Yield the databases that a build has not finished."""
    for file in sorted(folder.glob("single-*")):
        name = f"{folder.name[:8]}/{file.name[:17]}"
        yield _thing(name, "building", file), [file]


def _sweep_templates(folder: Path, *, everything: bool) -> Iterator[SweepResult]:
    """Remove unfinished templates. ``everything`` also removes templates that no run may use."""
    lock = folder / "lock"
    with try_lock(lock) as is_ours:
        if not is_ours:
            if everything:
                thing = _thing(folder.name[:8], "template", folder)
                yield SweepResult(thing, "a living run builds a template in it")
            return
        for thing, files in _unfinished(folder):
            yield _remove(thing, files)
        if not everything:
            return
        # A run does not lock the templates that it uses. So a template stays if it was used since
        # the oldest living run began.
        start = _start_of_oldest_run() or datetime.max.replace(tzinfo=UTC)
        for thing, files in _finished(folder):
            if thing.used and thing.used >= start:
                yield SweepResult(thing, "a living run may use it")
            else:
                yield _remove(thing, files)
        used = time_of(lock)
        is_empty = list(folder.iterdir()) == [lock]
        if is_empty and used and used < start:
            lock.unlink()
            folder.rmdir()


def _remove(thing: Thing, files: list[Path]) -> SweepResult:
    try:
        for file in files:
            file.unlink(missing_ok=True)
    except OSError as error:
        return SweepResult(thing, error.strerror or str(error))
    return SweepResult(thing)
