"""What is different from one database product to the next, for the arena?"""

from __future__ import annotations

from pytest_arena._arena._products._postgresql import PostgreSQL
from pytest_arena._arena._products._sqlite import SQLite

__all__ = ["PostgreSQL", "SQLite"]
