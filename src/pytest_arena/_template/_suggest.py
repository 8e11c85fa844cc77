"""What would this project write after ``arena_schema =``?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData

from pytest_arena._load import is_library

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["suggested_schema"]


def suggested_schema(root: Path) -> str:
    """Return the likeliest value: its migrations, the base of its models, or an example."""
    if (root / "alembic.ini").is_file():
        return "alembic.ini"
    found = sorted(_candidates(), key=lambda one: (not one[0], one[1].count("."), one[1]))
    return found[0][1] if found else "app.models:Base"


def _candidates() -> Iterator[tuple[bool, str]]:
    """Whatever makes tables in the modules that are loaded, and whether it was made there."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or is_library(file):
            continue
        for name, value in list(vars(module).items()):
            if _makes_tables(value) and not name.startswith("_"):
                at_home = getattr(value, "__module__", "") == module.__name__
                yield at_home, f"{module.__name__}:{name}"


def _makes_tables(value: Any) -> bool:
    if isinstance(value, type) and "__table__" in vars(value):
        return False  # a model; its base is meant
    metadata = getattr(value, "metadata", value) if isinstance(value, type) else value
    return isinstance(metadata, MetaData) and bool(metadata.tables)
