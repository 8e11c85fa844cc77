"""What does `undo` cost on MySQL or MariaDB, and what do the alternatives cost?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench.page import Table, milliseconds
from bench.place import scratch
from bench.samples import in_turns
from bench.server_mysql import has_server
from bench.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.effort import Effort

__all__ = ["measure"]

# The name of each way in the table, and how often a turn takes it.
WAYS = {
    "undo": ("**undo**", 20),
    "rollback": ("rollback", 10),
    "delete": ("DELETE", 3),
    "truncate": ("TRUNCATE", 3),
    "clone": ("clone", 3),
    "recipe": ("create_all, drop_all", 2),
}
TABLES = 20
ROWS = 1000
DIRTIES = (5, 20)


def measure(effort: Effort) -> list[Table]:
    """Take all ways by turns. Return no table if there is no server."""
    if not has_server():
        return []
    settings = {
        "BENCH_TABLES": str(TABLES),
        "BENCH_ROWS": str(ROWS),
        "BENCH_DIRTIES": " ".join(map(str, DIRTIES)),
    }
    with scratch() as folder, Worker("bench._mysql", folder / "mysql", settings) as worker:
        takers: dict[str, Callable[[], list[float]]] = {}
        for way, (_, count) in WAYS.items():
            for dirty in DIRTIES:
                takers[f"{way}-{dirty}"] = partial(worker.take, f"{way}-{dirty}", count)
        samples = in_turns(takers, rounds=effort.boundary_rounds)
        server = worker.tell("server")
    rows: list[tuple[str, ...]] = []
    for dirty in DIRTIES:
        times = [milliseconds(samples[f"{way}-{dirty}"].median) for way in WAYS]
        rows.append((f"{TABLES} tables, {ROWS:,} rows, {dirty} changed", *times))
    table = Table(
        title="The work before and after a test on MySQL or MariaDB",
        about=f"The same times on a private server in memory ({server}). The column rollback shows "
        "a bare transaction on one connection.",
        header=("database", *(name for name, _ in WAYS.values())),
        rows=tuple(rows),
    )
    return [table]
