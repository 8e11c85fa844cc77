"""What does a script of several statements do, and where does it fail?"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from pytest_arena._sqlite._names import MEMORY

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["failing_line", "run_script"]


def run_script(dbapi_connection: Any, script: str) -> None:
    """Run a script of several statements."""
    dbapi_connection.executescript(script)


def failing_line(script: str) -> int:
    """Return the line where the first statement that fails begins; 0 if none fails alone.

    SQLite itself does not tell. The script is run again, a statement at a time, in memory.
    """
    with closing(sqlite3.connect(MEMORY, isolation_level=None)) as memory:
        for number, statement in _statements(script):
            try:
                memory.executescript(statement)
            except sqlite3.Error:
                return number
    return 0


def _statements(script: str) -> Iterator[tuple[int, str]]:
    """The statements of a script, as lines, each with the number of its first line."""
    first, lines = 1, list[str]()
    for number, line in enumerate(script.splitlines(), start=1):
        if not lines:
            first = number
        if lines or (line.strip() and not line.lstrip().startswith("--")):
            lines.append(line)
        if sqlite3.complete_statement("\n".join(lines)):
            yield first, "\n".join(lines)
            lines = []
    yield first, "\n".join(lines)
