"""How is a database with schema and seed built once, and found again by its fingerprint?"""

from __future__ import annotations

from pytest_arena._template._base import Target
from pytest_arena._template._builders import check_schema, check_seed
from pytest_arena._template._databases import DatabaseShelves
from pytest_arena._template._files import FileShelves, FileTarget
from pytest_arena._template._stage import Recipe
from pytest_arena._template._store import Store
from pytest_arena._template._suggest import suggested_schema

__all__ = [
    "DatabaseShelves",
    "FileShelves",
    "FileTarget",
    "Recipe",
    "Store",
    "Target",
    "check_schema",
    "check_seed",
    "suggested_schema",
]
