"""Waits for other processes."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._postgresql._clusters import is_held

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._postgresql._clusters import ServerFolder

SECONDS = 90


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until it holds; the deadline is for the day on which it never does."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, f"{what}: not in {SECONDS} seconds"
        time.sleep(0.01)


def server_pid(folder: ServerFolder) -> int:
    """The postmaster's pid."""
    text = (folder.data / "postmaster.pid").read_text(encoding="utf-8")
    return int(text.splitlines()[0])


def lives(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    with suppress(OSError):
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        return status.rpartition(")")[2].split()[0] != "Z"
    return False


def end_cluster(folder: ServerFolder) -> None:
    """Stop a cluster at once, and wait for its end."""
    with suppress(OSError, IndexError, ValueError):
        os.kill(server_pid(folder), 3)  # SIGQUIT
    until(lambda: not is_held(folder.beside("running")), "the server ends")
