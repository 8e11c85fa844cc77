"""Small frozen values that cross rooms."""

from __future__ import annotations

import linecache
from dataclasses import dataclass
from enum import Enum

__all__ = ["CodeLine", "Plan", "Stage"]


class Stage(Enum):
    """How full a fresh database is."""

    EMPTY = "empty"
    SCHEMA = "schema"
    SEEDED = "seeded"


@dataclass(frozen=True, slots=True)
class CodeLine:
    """A line of somebody's code, as a message shows it."""

    file: str
    number: int

    def __str__(self) -> str:
        source = linecache.getline(self.file, self.number).strip()
        return f"{self.file}:{self.number}" + (f"  {source}" if source else "")


@dataclass(frozen=True, slots=True)
class Plan:
    """What one test asked for, by its marker and the configuration."""

    name: str
    isolation: str
    keep: str
    stage: Stage
    is_async: bool
