"""The process that `bench.rollback` asks: levels of `rollback`, and bare savepoints beside them."""

from __future__ import annotations

import os
import sqlite3
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench.server import connect, databases, has_server
from bench.worker import serve
from pytest_arena._postgresql.isolation import ServerIsolation
from pytest_arena._sqlite.rollback._rollback import Rollback
from pytest_arena._sqlite.rollback._sharing_connection import SharingConnection

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from pytest_arena._postgresql.registry import ServerRegistry

    Taker = Callable[[int], list[float]]

SEQUENCES = (0, 20)
SCHEMA = "CREATE TABLE plain (id integer PRIMARY KEY, note text)"
_WARM = 3
_numbers = count(1)


def main() -> None:
    """Create the databases, then answer."""
    takers = _on_sqlite(Path(os.environ["BENCH_FOLDER"]))
    if not has_server():
        serve(takers)
        return
    with databases() as own:
        for number in SEQUENCES:
            takers |= _on_postgresql(own, number)
        serve(takers)


def write(app: Any) -> None:
    """Insert a row and commit."""
    mark = "?" if isinstance(app, sqlite3.Connection) else "%s"
    app.execute(f"INSERT INTO plain VALUES ({mark}, 'Sand')", (next(_numbers),))


def around(app: Any, enter: Callable[[], object], leave: Callable[[], object]) -> Taker:
    """Return times of enter and leave, each with a write in between.

    ``rollback`` opens its savepoint at the first write. What that write takes longer than a
    second one belongs to the level.
    """

    def take(number: int) -> list[float]:
        times = []
        for _ in range(number + _WARM):
            started = perf_counter()
            enter()
            entered = perf_counter()
            write(app)
            written = perf_counter()
            write(app)
            leaving = perf_counter()
            leave()
            left = perf_counter()
            first = written - entered
            second = leaving - written
            more = max(first - second, 0)
            times.append(left - leaving + entered - started + more)
        return times[_WARM:]

    return take


def _bare(app: Any) -> Taker:
    """Return times of savepoints in a transaction that is never committed."""
    app.execute("BEGIN")

    def enter() -> None:
        app.execute("SAVEPOINT level")

    def leave() -> None:
        app.execute("ROLLBACK TO level")

    return around(app, enter, leave)


def _on_sqlite(folder: Path) -> dict[str, Taker]:
    base = folder / "base.db"
    bare = sqlite3.connect(base, isolation_level=None)
    bare.execute(SCHEMA)
    bare.close()
    isolation = Rollback(folder / "live.db", base)
    app = SharingConnection(isolation.live, isolation_level=None)
    bare = sqlite3.connect(base, isolation_level=None)
    return {
        "sqlite-levels": around(app, isolation.enter, isolation.leave),
        "sqlite-bare": _bare(bare),
    }


class _Usage:
    """The uses of a database by one thread, which the bench counts."""

    number = 0

    def __call__(self) -> int:
        self.number += 1
        return self.number

    def before_next(self, call: Callable[[], None]) -> bool:
        del call
        return False

    def alone(self) -> AbstractContextManager[None]:
        raise NotImplementedError("no level of another isolation is entered")


def _on_postgresql(own: ServerRegistry, sequences: int) -> dict[str, Taker]:
    template = own.create("live")
    with connect(own.address_of(template)) as maker:
        maker.execute(SCHEMA)
        for number in range(sequences):
            maker.execute(f"CREATE TABLE numbered_{number} (id serial)".encode())
    bare = connect(own.address_of(own.create("live", template=template)))
    own.freeze(template)
    isolation = ServerIsolation(own, template, "rollback", uses=_Usage(), note=print)
    app = connect(isolation.live.address)
    return {
        f"postgresql-{sequences}-levels": around(app, isolation.enter, isolation.leave),
        f"postgresql-{sequences}-bare": _bare(bare),
    }


if __name__ == "__main__":
    main()
