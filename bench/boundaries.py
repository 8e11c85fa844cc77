"""What do entering and leaving a level cost, and what do the alternatives, at which sizes?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bench.page import Table, milliseconds
from bench.place import scratch
from bench.samples import in_turns
from bench.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.effort import Effort
    from bench.samples import Samples

__all__ = ["measure"]

# How many of each to a turn: what takes long is taken less often.
OURS = {"levels": 20}
OTHERS = {"bare": 20, "rollback": 10, "file_copy": 5, "recipe": 2, "recipe_on_disk": 2}
NAMES = {
    "levels": "**arena**",
    "bare": "online backup",
    "rollback": "rollback",
    "file_copy": "file copy",
    "recipe": "create_all, drop_all",
    "recipe_on_disk": "create_all, drop_all on disk",
}
_SLOW_ROUNDS = 2
ON_DISK = "recipe_on_disk"  # minutes, in a large database


@dataclass(frozen=True, slots=True)
class Field:
    """A database, and what a test does in it."""

    tables: int = 20
    rows: int = 0
    dirty: int = 5
    journal: str = "delete"

    @property
    def settings(self) -> dict[str, str]:
        """What a worker is told of it."""
        return {f"BENCH_{name}".upper(): str(getattr(self, name)) for name in self.__slots__}

    @property
    def is_large(self) -> bool:
        """Whether a recipe takes seconds in it."""
        return self.rows > 100_000 or self.tables > 100  # noqa: PLR2004 - as said

    @property
    def name(self) -> str:
        """It as a cell of a table."""
        rows = f", {self.rows:,} rows" if self.rows else ""
        journal = ", WAL" if self.journal == "wal" else ""
        return f"{self.tables} tables{rows}, {self.dirty} changed{journal}"


SIZES = (
    Field(),
    Field(dirty=0),
    Field(tables=400),
    Field(rows=200_000),
)
# The journal mode makes a difference to what is written, not to how much there is.
WAL = (Field(journal="wal"), Field(rows=200_000, journal="wal"))


def measure(effort: Effort) -> list[Table]:
    """Measure each field in two processes of its own, by turns."""
    if not effort.wide:
        fields: tuple[Field, ...] = (Field(), Field(journal="wal"))
    else:
        fields = (*SIZES, *WAL)
    results = {field: _measured(field, effort) for field in fields}
    return [_table(results)]


def _measured(field: Field, effort: Effort) -> dict[str, Samples]:
    rounds = min(effort.boundary_rounds, _SLOW_ROUNDS) if field.is_large else effort.boundary_rounds
    with (
        scratch() as folder,
        Worker("bench._inside", folder / "inside", field.settings) as inside,
        Worker("bench._outside", folder / "outside", field.settings) as outside,
    ):
        takers: dict[str, Callable[[], list[float]]] = {
            **{name: partial(inside.take, name, count) for name, count in OURS.items()},
            **{
                name: partial(outside.take, name, 1 if field.is_large else count)
                for name, count in OTHERS.items()
                if not (field.is_large and name == ON_DISK)
            },
        }
        return in_turns(takers, rounds=rounds)


def _table(results: dict[Field, dict[str, Samples]]) -> Table:
    return Table(
        title="The work before and after a test on SQLite",
        about="Times in milliseconds of the work that prepares and restores the database. The test "
        "itself is not included. In rows without *WAL* the file has a rollback journal. The column "
        "*online backup* is `PRAGMA data_version` and SQLite's backup of the whole file. "
        "pytest-arena writes only the changed pages of a large file.",
        header=("database", *NAMES.values()),
        rows=tuple(
            (field.name, *(_median(samples.get(name)) for name in NAMES))
            for field, samples in results.items()
        ),
    )


def _median(samples: Samples | None) -> str:
    return milliseconds(samples.median) if samples else ""
