"""The folders in which runs have their SQLite files."""

from __future__ import annotations

import platform
import re
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from pytest_arena._cli._base import Left, Place, Removed, Thing, size_of, time_of
from pytest_arena._sqlite._home import homes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

__all__ = ["LiveFiles", "locked", "oldest_run"]

_SHOWN = "SQLite files of test runs"
_NAME = re.compile(r"run-(\d+)-[0-9a-f]{8}")


class LiveFiles:
    """A folder for each process, below one that only this user can enter.

    A run is alive while it holds the lock beside its folder.
    """

    def look(self) -> Iterator[Place]:
        """Say what is there."""
        found = homes()
        if not found:
            yield Place(shown=_SHOWN, where="no folder of this user's")
        for home in found:
            things = tuple(_thing(folder) for folder in _folders(home))
            yield Place(shown=_SHOWN, where=str(home), things=things)

    def sweep(self, *, everything: bool) -> Iterator[Removed | Left]:
        """Remove the folders of dead runs, and with ``everything`` those above, once empty."""
        for home in homes():
            for folder in _folders(home):
                yield from _removed(folder, everything=everything)
            if everything:
                with suppress(OSError):  # a living run has its folder there
                    home.rmdir()


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Try to hold a lock; says whether it is held. One that is not there is not made."""
    lock = FileLock(path, timeout=0)
    is_held = False
    if path.exists():
        with suppress(Timeout, OSError):
            lock.acquire()
            is_held = True
    try:
        yield is_held
    finally:
        lock.release()


def oldest_run() -> datetime | None:
    """Return since when there has been a living run."""
    begun = [
        time_of(_lock_of(folder))
        for home in homes()
        for folder in _folders(home)
        if _is_alive(folder)
    ]
    return min((time for time in begun if time), default=None)


def _folders(home: Path) -> list[Path]:
    """All that have been made there by name, with a folder or only its lock."""
    names = {path.name.removesuffix(".lock") for path in home.glob("run-*")}
    return [home / name for name in sorted(names) if _NAME.fullmatch(name)]


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _is_alive(folder: Path) -> bool:
    lock = _lock_of(folder)
    with locked(lock) as is_ours:
        return lock.exists() and not is_ours


def _thing(folder: Path) -> Thing:
    found = _NAME.fullmatch(folder.name)
    times = [time for file in folder.glob("*") if (time := time_of(file))]
    return Thing(
        name=folder.name,
        what="live",
        state="alive" if _is_alive(folder) else "dead",
        host=platform.node(),
        pid=int(found[1]) if found else 0,
        created=time_of(_lock_of(folder)) or time_of(folder),
        used=max(times, default=time_of(folder)),
        bytes=size_of(folder),
    )


def _removed(folder: Path, *, everything: bool) -> Iterator[Removed | Left]:
    lock = _lock_of(folder)
    has_lock = lock.exists()
    with locked(lock) as is_ours:
        if has_lock and not is_ours:
            if everything:
                yield Left(folder.name, "a living run works in it")
            return
        if folder.is_dir():
            size = size_of(folder)
            shutil.rmtree(folder, ignore_errors=True)
            yield Removed("live", folder.name, size)
        lock.unlink(missing_ok=True)
