"""Where the databases go that somebody wants to look at, and how many of them stay."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["new_kept_file"]

# Per cache folder, the newest: enough for a bad day, and bounded.
_STAY = 50
_LONGEST_NAME = 100


def new_kept_file(cache: Path, test: str, database: str) -> Path:
    """Return the file for a test's database; the same test takes the place of its older one.

    The oldest files go where there are more than fifty.
    """
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
