"""The part of `arena databases` for SQLite: folders of runs, and the user's cache."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_arena._config._supported import is_database
from pytest_arena._product import OF_RUN
from pytest_arena._product._databases_command import (
    Place,
    PlaceKind,
    SweepResult,
    Thing,
    time_of,
)
from pytest_arena._sqlite._product import (
    TEMPLATE,
    homes,
    lock_of,
    remove_dead_run,
    try_lock,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_arena._config._read import Config

_RUN = re.compile(r"run-(\d+)-[0-9a-f]{8}")


def place_kinds(config: Config) -> list[PlaceKind]:
    """Return the folders of runs, and the cache, unless the option names a server."""
    return [] if config.server_url else [SQLiteFiles(config.cache)]


def _runs() -> Iterator[tuple[Thing, Path]]:
    """Yield each folder of a run. A run is alive while it holds the lock beside its folder."""
    for home in homes():
        for folder in sorted(home.glob("run-*")):
            if _RUN.fullmatch(folder.name):
                lock = lock_of(folder)
                with try_lock(lock) as is_ours:
                    is_alive = lock.exists() and not is_ours
                state = "alive" if is_alive else "dead"
                used = time_of(folder)
                yield Thing(name=folder.name, what="live", state=state, time=used), folder


class SQLiteFiles:
    """The folders of runs, and the templates and kept databases in the cache.

    Other files stay unchanged.
    """

    def __init__(self, cache: Path) -> None:
        self._templates = cache / "templates"
        self._kept = cache / "kept"

    def places(self) -> Iterator[Place]:
        """Yield the folders of the user's runs, of templates, and of kept databases."""
        runs = [*_runs()]
        for home in homes():
            things = tuple(thing for thing, folder in runs if folder.parent == home)
            yield Place(shown="SQLite files of test runs", where=str(home), things=things)
        yield Place(
            shown="Templates of SQLite databases",
            where=str(self._templates),
            things=tuple(thing for thing, _ in self._found_templates()),
        )
        yield Place(
            shown="SQLite databases kept for inspection",
            where=str(self._kept),
            things=tuple(thing for thing, _ in self._found_kept()),
        )

    def sweep(self, *, everything: bool) -> Iterator[SweepResult]:
        """Remove dead runs, with ``everything`` also all databases that no run may use."""
        is_in_use = False
        for run, folder in _runs():
            if remove_dead_run(folder):
                yield SweepResult(run)
            else:
                is_in_use = True
                if everything:
                    yield SweepResult(run, "a living run uses it")
        if not everything:
            return
        for thing, files in self._found_templates():
            if is_in_use:  # a run does not lock the templates that it uses
                yield SweepResult(thing, "a living run may use it")
            else:
                yield _remove(thing, files)
        for thing, files in self._found_kept():
            yield _remove(thing, files)
        for folder in (self._templates, self._kept, self._kept.parent):
            with suppress(OSError):  # the folder does not exist, or is not empty
                folder.rmdir()

    def _found_templates(self) -> Iterator[tuple[Thing, list[Path]]]:
        """Yield each template with its files, the manifest first. A file alone is no template."""
        names = map(TEMPLATE.fullmatch, _names(self._templates))
        for name in sorted({match[1] for match in names if match}):
            files = sorted(self._templates.glob(f"{name}.*"))
            shown = name.removeprefix(OF_RUN)[:8]
            yield Thing(name=shown, what="template", time=time_of(files[0])), files

    def _found_kept(self) -> Iterator[tuple[Thing, list[Path]]]:
        for name in sorted(_names(self._kept)):
            file = self._kept / name
            if is_database(file) or not file.stat().st_size:
                yield Thing(name=name, what="kept", time=time_of(file)), [file]


def _names(folder: Path) -> list[str]:
    return [file.name for file in folder.glob("*") if file.is_file()]


def _remove(thing: Thing, files: list[Path]) -> SweepResult:
    for file in files:
        file.unlink(missing_ok=True)
    return SweepResult(thing)
