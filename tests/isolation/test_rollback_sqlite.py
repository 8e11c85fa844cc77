"""``rollback`` on SQLite keeps what the seam promises, but for other processes and open readers."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest

from pytest_arena._sqlite.rollback._rollback import Rollback
from pytest_arena._sqlite.rollback._sharing_connection import SharingConnection
from tests.isolation.conformance import CHECKS, SCHEMA, World, dump

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Another process has another connection, which does not see what is never committed.
OTHER_PROCESSES = {
    "other_processes",
    "kept_processes",
    "killed_writers",
    "sleepers",
    "sleepers_in_levels",
    "own_checkpoints",
}
# A reader has no snapshot of its own: it reads what others write.
OPEN_READERS = {"open_readers"}


class SharedWorld(World):
    """A database whose connections share one."""

    def connect(self) -> sqlite3.Connection:
        """Open a connection that stays open over the levels."""
        connection = SharingConnection(
            self.live, isolation_level=None, timeout=0, check_same_thread=False
        )
        self._open.append(connection)
        with suppress(sqlite3.OperationalError):
            connection.execute(f"PRAGMA journal_mode = {self.mode}").fetchone()
        return connection

    def dump(self) -> list[object]:
        """Return all that a new connection sees."""
        with closing(SharingConnection(self.live, isolation_level=None)) as fresh:
            return dump(fresh)


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_rollback_keeps_the_promise(
    check: Callable[[World], None], mode: str, tmp_path: Path
) -> None:
    """After each leave the database is what it was at the matching enter."""
    if check.__name__ in OTHER_PROCESSES | OPEN_READERS:
        pytest.skip("a limit of one shared connection")
    base, live = tmp_path / "base.db", tmp_path / "live.db"
    with closing(sqlite3.connect(base, isolation_level=None)) as template:
        template.executescript(SCHEMA)
    with closing(SharedWorld(Rollback(live, base), live, mode)) as world:
        check(world)
