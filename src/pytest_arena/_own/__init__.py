"""Which databases on a server are arena's own, whose are they, and who may drop them?"""

from __future__ import annotations

from pytest_arena._own._databases import OwnDatabase, OwnDatabases, new_name

__all__ = ["OwnDatabase", "OwnDatabases", "new_name"]
