"""The user's cache: templates of SQLite databases, databases kept for a look."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pytest_arena._cli._base import Left, Place, Removed, Thing, size_of, time_of
from pytest_arena._cli._live_files import locked, oldest_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["CachedFiles"]

_TEMPLATES, _KEPT, _SERVERS = "templates", "kept", "postgresql"
# The folder may hold other things: ARENA_CACHE names any.
_SHELF, _MANIFEST = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{16}\.json")
_DATA = re.compile(r"\d[\w.]*-[0-9a-f]{8}\.(tar|[0-9a-f]{8})")
_HEADER = b"SQLite format 3\0"
_SIDE_FILES = ("-wal", "-shm", "-journal")


class CachedFiles:
    """What stays from run to run. Whatever is not of arena's form is left alone."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def look(self) -> Iterator[Place]:
        """Say what is there."""
        for name, shown, things in (
            (_TEMPLATES, "Templates of SQLite databases", self._templates),
            (_KEPT, "SQLite databases kept for a look", self._kept),
            (_SERVERS, "Data for new private servers", self._data),
        ):
            found = tuple(thing for thing, _ in things())
            yield Place(shown=shown, where=str(self._cache / name), things=found)

    def sweep(self, *, everything: bool) -> Iterator[Removed | Left]:
        """Remove broken builds; with ``everything``, all that no living run may be using."""
        for shelf in self._shelves():
            yield from _cleared(shelf, everything=everything)
        if everything:
            for thing, files in (*self._kept(), *self._data()):
                yield _removed(thing, files)
            for folder in (_TEMPLATES, _KEPT, _SERVERS, ""):
                with suppress(OSError):  # it is not there, or not empty
                    (self._cache / folder).rmdir()

    def _shelves(self) -> list[Path]:
        found = sorted((self._cache / _TEMPLATES).glob("*/lock"))
        return [lock.parent for lock in found if _SHELF.fullmatch(lock.parent.name)]

    def _templates(self) -> Iterator[tuple[Thing, list[Path]]]:
        for shelf in self._shelves():
            yield from _finished(shelf)
            yield from _unfinished(shelf)

    def _kept(self) -> Iterator[tuple[Thing, list[Path]]]:
        for file in sorted((self._cache / _KEPT).glob("*")):
            if _is_database(file):
                beside = [file.with_name(file.name + ending) for ending in _SIDE_FILES]
                yield _thing(file.name, "kept", file), [file, *beside]

    def _data(self) -> Iterator[tuple[Thing, list[Path]]]:
        for file in sorted((self._cache / _SERVERS).glob("*")):
            if _DATA.fullmatch(file.name):
                yield _thing(file.name, "template", file), [file]


def _thing(name: str, what: str, file: Path) -> Thing:
    when = time_of(file)
    return Thing(name=name, what=what, created=when, used=when, bytes=size_of(file))


def _is_database(file: Path) -> bool:
    with suppress(OSError):
        if file.is_file() and not file.name.endswith(_SIDE_FILES):
            with file.open("rb") as opened:
                return opened.read(len(_HEADER)) in (_HEADER, b"")
    return False


def _finished(shelf: Path) -> Iterator[tuple[Thing, list[Path]]]:
    for manifest in sorted(shelf.glob("*.json")):
        built = _built(manifest) if _MANIFEST.fullmatch(manifest.name) else None
        if built is not None:
            files = [manifest, manifest.with_suffix(".sqlite")]  # without the first, no template
            yield (
                Thing(
                    name=f"{shelf.name[:8]}/{manifest.stem}",
                    what="template",
                    created=built,
                    used=time_of(manifest),
                    bytes=sum(map(size_of, files)),
                ),
                files,
            )


def _built(manifest: Path) -> datetime | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads(manifest.read_text(encoding="utf-8"))
        return datetime.fromtimestamp(told["built"], UTC)
    return None


def _unfinished(shelf: Path) -> Iterator[tuple[Thing, list[Path]]]:
    for file in sorted((*shelf.glob("building-*"), *shelf.glob("single-*"))):
        yield _thing(f"{shelf.name[:8]}/{file.name[:17]}", "building", file), [file]


def _cleared(shelf: Path, *, everything: bool) -> Iterator[Removed | Left]:
    lock = shelf / "lock"
    with locked(lock) as is_ours:
        if not is_ours:
            yield from [Left(f"{shelf.name[:8]}", "a living run builds there")] * everything
            return
        for thing, files in _unfinished(shelf):
            yield _removed(thing, files)
        if everything:
            yield from _emptied(shelf, lock)


def _emptied(shelf: Path, lock: Path) -> Iterator[Removed | Left]:
    # Nobody says so of a file: whoever is alive may use what was used since its begin.
    since = oldest_run()
    for thing, files in _finished(shelf):
        if since and thing.used and thing.used >= since:
            yield Left(thing.name, "a living run may use it")
        else:
            yield _removed(thing, files)
    was_used = time_of(lock)
    if not (since and was_used and was_used >= since) and list(shelf.iterdir()) == [lock]:
        lock.unlink()
        shelf.rmdir()


def _removed(thing: Thing, files: list[Path]) -> Removed | Left:
    try:
        for file in files:
            file.unlink(missing_ok=True)
    except OSError as error:
        return Left(thing.name, error.strerror or str(error))
    return Removed(thing.what, thing.name, thing.bytes)
