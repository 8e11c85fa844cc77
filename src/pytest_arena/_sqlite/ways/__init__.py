"""How is a database file brought back to what it was?"""

from __future__ import annotations

from pytest_arena._sqlite.ways._backup import Backup
from pytest_arena._sqlite.ways._base import NEVER, Live, Picture, Unfit, Way, whole_or_none
from pytest_arena._sqlite.ways._pages import Pages
from pytest_arena._sqlite.ways._wal import Wal

__all__ = [
    "NEVER",
    "Backup",
    "Live",
    "Pages",
    "Picture",
    "Unfit",
    "Wal",
    "Way",
    "whole_or_none",
]
