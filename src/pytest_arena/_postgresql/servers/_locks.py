"""Locks on files that the kernel takes back, however a process ends."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_arena._clock import rest, seconds
from pytest_arena._postgresql.servers._base import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Held", "attempt", "exclusive", "is_held"]

_SECONDS = 150
_STEP = 0.01


class Held:
    """A file that several processes hold at once, this one among them."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.utime(path)
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def close(self) -> None:
        """Let it go. A forked child's share is its own: the parent's stays."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def __del__(self) -> None:
        self.close()


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a file alone.

    Raises:
        Unavailable: another process has held it all the time.
    """
    file = _opened(path)
    try:
        end = seconds() + _SECONDS
        while not _locked(file) or _is_removed(file):
            if seconds() > end:
                raise Unavailable(f"another process has held {path} for {_SECONDS} seconds")
            rest(_STEP)
            if _is_removed(file):  # with all the rest: whoever comes later locks another one
                os.close(file)
                file = _opened(path)
        yield
    finally:
        os.close(file)


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError as error:
        raise Unavailable(f"{path.parent} has just been removed") from error


def _is_removed(file: int) -> bool:
    return os.fstat(file).st_nlink == 0


@contextmanager
def attempt(path: Path) -> Iterator[bool]:
    """Hold a file alone, if nobody else does: it says whether."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield _locked(file)
    finally:
        os.close(file)


def is_held(path: Path) -> bool:
    """Whether any process holds a file now."""
    with attempt(path) as is_ours:
        return not is_ours


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
