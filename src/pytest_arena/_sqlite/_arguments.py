"""Which file do the arguments of SQLite's connect call mean, and how is another put there?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pytest_arena._gate._base import Asked
from pytest_arena._sqlite import _names as names

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from pytest_arena._gate._base import Aim

__all__ = ["describe", "redirect"]


def describe(dialect: Dialect, cargs: Any, cparams: Any) -> Asked:
    """Say which file, or which memory database, is meant."""
    database, uri = _database(cargs, cparams)
    file, memory = names.file_of(database, uri=uri), names.memory_of(database, uri=uri)
    return Asked(dialect, "sqlite", file, memory)


def redirect(aim: Aim, cargs: list[Any], cparams: dict[str, Any]) -> None:
    """Put the arena's file in the place of the app's; all else stays as the app wants it."""
    database, uri = _database(cargs, cparams)
    cparams.pop("database", None)
    cargs[:1] = [names.renamed(database, aim.file, uri=uri)]  # uri stays: the app may attach by URI


def _database(cargs: Any, cparams: Any) -> tuple[str, bool]:
    database = cargs[0] if cargs else cparams.get("database", "")
    return os.fsdecode(database), bool(cparams.get("uri"))
