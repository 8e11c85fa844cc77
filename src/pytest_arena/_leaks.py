"""After a test: is everything given back, and if not, who has it?"""

from __future__ import annotations

import gc
import sqlite3
from typing import TYPE_CHECKING, Any

from pytest_arena.errors import ConnectionLeak

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_arena._gate import Checkout, Gate

__all__ = ["Overrides", "connection_leaks", "end_transactions", "leak_error"]


def connection_leaks(gate: Gate, serial: int) -> list[Checkout]:
    """Return the connections that the test of this serial took and did not give back."""
    if not _taken_by(gate, serial):
        return []
    gc.collect()  # what only a reference cycle keeps is given back when the collector runs
    return _taken_by(gate, serial)


def _taken_by(gate: Gate, serial: int) -> list[Checkout]:
    return [taken for taken in gate.taken() if taken.level == serial]


def end_transactions(leaks: Iterable[Checkout]) -> None:
    """Roll leaked transactions back, so that no lock outlives the test; drop the connections."""
    for leak in leaks:
        if leak.raw is not None:
            _roll_back(leak.raw)
        leak.entry.invalidate(soft=True)


def _roll_back(raw: sqlite3.Connection) -> None:
    try:
        raw.interrupt()
        raw.rollback()
    except sqlite3.Error:
        return  # closed meanwhile, or bound to a thread of its own: the restore will see its lock


def leak_error(leaks: list[Checkout]) -> ConnectionLeak:
    """Return the error that names who took the connections."""
    wrote = [leak for leak in leaks if leak.in_transaction]
    what = "an open transaction" if wrote else "a connection that was not given back"
    lines = sorted({str(leak.line or "a line that cannot be seen") for leak in wrote or leaks})
    return ConnectionLeak(
        f"the test ended with {what}" + (f" ({len(lines)} places)" if len(lines) > 1 else ""),
        why="the next test would wait for its lock, or lose the connection from the app's pool",
        cause="\n".join(lines[:4]),
        fix="`async with session:` / `with engine.connect() as connection:`, or close it in a "
        "fixture's tear-down",
    )


class Overrides:
    """``app.dependency_overrides`` and ``app.state`` as they were before a test."""

    def __init__(self, app: object) -> None:
        self._kept = [(found, dict(found)) for found in _mutable_parts(app)]

    def restore(self) -> bool:
        """Put them back. Returns whether the overrides were different."""
        changed = [found != before for found, before in self._kept]
        for found, before in self._kept:
            found.clear()
            found.update(before)
        return bool(changed) and changed[0]


def _mutable_parts(app: object) -> list[dict[Any, Any]]:
    # `_state` is what Starlette's State keeps its attributes in; there is no public way to
    # replace them all.
    parts = (
        getattr(app, "dependency_overrides", None),
        getattr(getattr(app, "state", None), "_state", None),
    )
    return [part for part in parts if isinstance(part, dict)]
