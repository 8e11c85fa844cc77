"""Which databases does somebody want to look at, where do they go, and how many stay?"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_arena._databases._resolver import Databases
    from pytest_arena._ledger import Ledger
    from pytest_arena._product import Database

__all__ = ["KeptFiles", "is_to_be_kept", "kept_file"]

# Per cache folder, the newest: enough for a bad day, and bounded.
_STAY = 50
_LONGEST_NAME = 100


def is_to_be_kept(keep: str, *, when: str, is_failed: bool) -> bool:
    """Whether ``arena_keep`` asks for the database now, after this phase of a test."""
    if when == "teardown":
        return False
    return (keep == "always" and when == "call") or (keep != "never" and is_failed)


class KeptFiles:
    """Copies of the databases as they are, which stay for a look."""

    def __init__(self, databases: Databases, ledger: Ledger) -> None:
        self._databases, self._ledger = databases, ledger

    def keep_first(self) -> str:
        """Copy the first database; return the file, or the URL, of the copy."""
        return self._keep(self._databases.known.first())

    def keep_used(self) -> list[str]:
        """Copy each database that somebody has connected to; never fails a report.

        Returns the commands that open the copies.
        """
        kept, used = [], self._databases.provisioned()
        for database in used:
            of_which = f"({database.name})  " * (len(used) > 1)
            try:
                kept.append(of_which + database.product.look(self._keep(database)))
            except Exception as error:  # noqa: BLE001 - a full disk, a lock: the test's report goes on
                self._ledger.note(f"{self._ledger.test}: not kept: {error}")
        return kept

    def _keep(self, database: Database) -> str:
        self._databases.ensure(database)
        return database.product.keep(database, self._ledger.test or "outside")


def kept_file(cache: Path, test: str, database: str) -> Path:
    """The file for a test's database, in the place of its older one; at most fifty files stay."""
    folder = cache / "kept"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{_as_file_name(test)}-{database}"
    file.unlink(missing_ok=True)
    for old in sorted(folder.iterdir(), key=_age)[_STAY - 1 :]:
        old.unlink(missing_ok=True)
    return file


def _as_file_name(test: str) -> str:
    name = re.sub(r"[^\w.-]+", "_", test)
    if name == test and len(name) <= _LONGEST_NAME:
        return name
    return f"{name[-_LONGEST_NAME:]}-{hashlib.sha256(test.encode()).hexdigest()[:8]}"


def _age(file: Path) -> float:
    try:
        return -file.stat().st_mtime
    except OSError:  # another worker has just removed it
        return 0.0
