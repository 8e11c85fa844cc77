"""The folder of this process for its SQLite files."""

import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from pytest_arena.errors import ServerError

# Files in memory save the syncs of the app's commits (3 ms a test on ext4). In a container
# /dev/shm often has 64 MB, and could become full.
_MEMORY = Path("/dev/shm")  # noqa: S108 - a tmpfs, used with a folder that only this user enters
_ROOM_NEEDED = 512 * 1024 * 1024
_KEPT_FILES = 50
_LONGEST_NAME = 100


class Home:
    """The folder of this process for live files. Other users cannot enter it.

    The process holds a lock beside the folder. A run that was killed leaves its folder. When a run
    begins or ends, it removes the folders without a held lock.
    """

    def __init__(self) -> None:
        parent = _parent()
        _sweep(parent)
        name = f"run-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        # The lock precedes the folder, so that no other run removes the folder as a dead run's.
        self._lock = FileLock(parent / f"{name}.lock")
        self._lock.acquire()
        self.path = parent / name
        self.path.mkdir(mode=0o700)

    def close(self) -> None:
        """Remove the folder. Idempotent. A forked child does not remove its parent's folder."""
        if self._lock.is_locked:
            self._lock.release()
            remove_dead_run(self.path)
            _sweep(self.path.parent)  # removes folders of this run's killed workers


def homes() -> list[Path]:
    """Return the existing folders that contain this user's run folders."""
    return [parent for parent in _parents() if parent.is_dir() and _is_own(parent)]


def _parent() -> Path:
    for parent in _parents():
        with suppress(OSError):
            is_small = shutil.disk_usage(parent.parent).free < _ROOM_NEEDED
            if parent.parent == _MEMORY and is_small:
                continue
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _is_own(parent) and os.access(parent, os.W_OK):
                return parent
    raise ServerError(
        f"no folder for the test databases: {parent} cannot be used",
        why="each test has its own files, in a folder that only this user may read",
        cause="the folder belongs to another user or is not writable, or the disk is full",
        fix="TMPDIR=<a folder that you can write to> pytest …",
    )


def _parents() -> list[Path]:
    """Return the possible parents of this user's run folders, the best first."""
    user = os.environ.get("USERNAME", "user")
    if hasattr(os, "getuid"):
        user = str(os.getuid())
    name = f"pytest-arena-{user}"
    temporary = Path(tempfile.gettempdir()).resolve()
    return [place / name for place in dict.fromkeys([_MEMORY, temporary])]


def _is_own(folder: Path) -> bool:
    # All users may write to the parent, so another user may have created this folder.
    return not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid()


def _sweep(parent: Path) -> None:
    for lock_file in parent.glob("run-*.lock"):
        remove_dead_run(lock_file.with_suffix(""))


def remove_dead_run(folder: Path) -> bool:
    """Remove the folder and the lock of a run that has ended. Return whether it had ended."""
    lock_file = lock_of(folder)
    had_lock = lock_file.exists()
    with try_lock(lock_file) as is_ours:
        if had_lock and not is_ours:
            return False
        shutil.rmtree(folder, ignore_errors=True)
    lock_file.unlink(missing_ok=True)
    return True


def lock_of(folder: Path) -> Path:
    """Return the path of the lock that a run holds."""
    return folder.with_name(f"{folder.name}.lock")


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Try to take a lock, and yield whether that worked. Create no lock file."""
    lock = FileLock(path, timeout=0)
    if path.exists():
        with suppress(OSError):  # filelock's Timeout is one
            lock.acquire()
    try:
        yield lock.is_locked
    finally:
        lock.release()


def kept_file(cache: Path, test: str, database: str) -> Path:
    """Return the path for a copy of a test's database. Remove all but the newest fifty copies."""
    folder = cache / "kept"
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.-]+", "_", test)
    if name != test or len(name) > _LONGEST_NAME:
        digest = hashlib.sha256(test.encode()).hexdigest()[:8]
        name = f"{name[-_LONGEST_NAME:]}-{digest}"
    file = folder / f"{name}-{database}"
    file.unlink(missing_ok=True)
    newest_first = sorted(folder.iterdir(), key=written_at, reverse=True)
    for old in newest_first[_KEPT_FILES - 1 :]:
        old.unlink(missing_ok=True)
    return file


def written_at(file: Path) -> float:
    """Return the time of the last write in seconds since the epoch, 0 for a missing file."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
