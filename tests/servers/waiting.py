"""Waits for other processes."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql._clusters import is_held

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._postgresql._clusters import ServerFolder


class Patience:
    """The longest wait. After the first one that was in vain, the other tests of a run hurry."""

    seconds = 30.0
    in_a_hurry = 3.0


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until it holds; the deadline is for the day on which it never does."""
    seconds = Patience.seconds
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            Patience.seconds = Patience.in_a_hurry
            pytest.fail(f"{what}: not in {seconds} seconds")
        time.sleep(0.01)


def server_pid(folder: ServerFolder) -> int:
    return int((folder.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])


def lives(pid: int) -> bool:
    with suppress(OSError):
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        return status.rpartition(")")[2].split()[0] != "Z"
    return False


def end_cluster(folder: ServerFolder) -> None:
    """Stop a cluster at once, and wait for its end."""
    with suppress(OSError, IndexError, ValueError):
        os.kill(server_pid(folder), 3)  # SIGQUIT
    until(lambda: not is_held(folder.beside("running")), "the server ends")
