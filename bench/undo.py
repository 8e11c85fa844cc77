"""What does `undo` cost on PostgreSQL, what do the alternatives, and what do its triggers add?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bench.page import Table, milliseconds
from bench.place import scratch
from bench.samples import in_turns, ratio
from bench.server import has_server
from bench.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.effort import Effort
    from bench.samples import Samples

__all__ = ["measure"]

# How many of each to a turn: what takes long is taken less often.
OURS = {"undo": 20, "rollback": 10}
OTHERS = {"delete": 5, "truncate": 3, "clone": 3, "recipe": 2}
NAMES = {
    "undo": "**undo**",
    "rollback": "rollback",
    "delete": "DELETE",
    "truncate": "TRUNCATE",
    "clone": "clone",
    "recipe": "create_all, drop_all",
}
STATEMENTS = {
    "insert": "INSERT of a row",
    "update": "UPDATE of a row",
    "delete": "DELETE of a row",
    "update-none": "UPDATE of no row",
    "insert-many": "INSERT of 1,000 rows",
    "update-many": "UPDATE of 1,000 rows",
    "delete-many": "DELETE of 1,000 rows",
    "first-update": "first UPDATE on a new connection",
}
_SLOW_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Field:
    """A database, and in how many of its tables a test writes, one after the other."""

    tables: int = 20
    rows: int = 1000
    dirties: tuple[int, ...] = (0, 5, 20)

    @property
    def settings(self) -> dict[str, str]:
        """What a worker is told of it."""
        return {
            "BENCH_TABLES": str(self.tables),
            "BENCH_ROWS": str(self.rows),
            "BENCH_DIRTIES": " ".join(map(str, self.dirties)),
        }

    @property
    def is_large(self) -> bool:
        """Whether a recipe takes seconds in it."""
        return self.rows > 100_000 or self.tables > 100  # noqa: PLR2004 - as said

    def name(self, dirty: int) -> str:
        """It as a cell of a table."""
        rows = f", {self.rows:,} rows" if self.rows else ""
        return f"{self.tables} tables{rows}, {dirty} changed"


BASE = Field()
FIELDS = (
    BASE,
    Field(rows=200_000, dirties=(5,)),
    Field(tables=400, rows=20_000, dirties=(5,)),
)

Results = dict[Field, "dict[str, Samples]"]


def measure(effort: Effort) -> list[Table]:
    """Take all ways by turns, field by field; nothing where there is no PostgreSQL."""
    if not has_server():
        return []
    results = {field: _measured(field, effort) for field in (FIELDS if effort.wide else [BASE])}
    return [_times(results), _statements(_writes(effort))]


def _measured(field: Field, effort: Effort) -> dict[str, Samples]:
    rounds = min(effort.boundary_rounds, _SLOW_ROUNDS) if field.is_large else effort.boundary_rounds
    with (
        scratch() as folder,
        Worker("bench._undo", folder / "undo", field.settings) as worker,
    ):
        takers: dict[str, Callable[[], list[float]]] = {
            f"{way}-{dirty}": partial(worker.take, f"{way}-{dirty}", _count(way, field))
            for way in NAMES
            for dirty in field.dirties
        }
        return in_turns(takers, rounds=rounds)


def _count(way: str, field: Field) -> int:
    return OURS.get(way) or (1 if field.is_large else OTHERS[way])


def _writes(effort: Effort) -> dict[str, Samples]:
    with scratch() as folder, Worker("bench._writes", folder / "writes", {}) as worker:
        takers: dict[str, Callable[[], list[float]]] = {
            f"{place}-{name}": partial(worker.take, f"{place}-{name}", _turn(name))
            for name in STATEMENTS
            for place in ("plain", "journal")
        }
        return in_turns(takers, rounds=effort.boundary_rounds)


def _turn(name: str) -> int:
    return 5 if "many" in name or "first" in name else 100


def _times(results: Results) -> Table:
    return Table(
        title="The work before and after a test on PostgreSQL",
        about="Times in milliseconds of the work that prepares and restores the database, on a "
        "private server in memory. The test itself is not included. In each changed table the "
        "test inserts two rows, updates one and deletes one. DELETE and TRUNCATE restore "
        "the rows from copies in the same database.",
        header=("database", *NAMES.values()),
        rows=tuple(
            (
                field.name(dirty),
                *(milliseconds(samples[f"{way}-{dirty}"].median) for way in NAMES),
            )
            for field, samples in results.items()
            for dirty in field.dirties
        ),
    )


def _statements(samples: dict[str, Samples]) -> Table:
    rows = []
    for name, text in STATEMENTS.items():
        plain, ours = samples[f"plain-{name}"], samples[f"journal-{name}"]
        times = [milliseconds(each.median) for each in (plain, ours)]
        added = ratio(ours.median, plain.median, digits=3)
        rows.append((text, *times, added))
    return Table(
        title="What the journal adds to writes",
        about="With the isolation `undo`, triggers write each changed row into the [change journal]"
        "(../glossary.md). Times of a statement in milliseconds, including the round trip to the "
        "PostgreSQL server.",
        header=("", "without undo", "with undo", "ratio"),
        rows=tuple(rows),
    )
