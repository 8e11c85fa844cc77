"""The databases of a PostgreSQL server in `arena databases`."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from pytest_arena._postgresql.registry import ServerRegistry, look
from pytest_arena._product._databases_command import Place
from pytest_arena._product._own_databases import sweep_results

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._product._databases_command import SweepResult
    from pytest_arena._values import Address


class PostgreSQLDatabases:
    """The databases with pytest-arena's names on a server. Other databases are never touched."""

    def __init__(self, address: Address, shown: str) -> None:
        self._address = address
        self._shown = shown

    def look(self) -> Iterator[Place]:
        """Yield the server with its databases."""
        things = tuple(database.thing() for database in look(self._address))
        yield Place(shown=self._shown, where=self._address.server, things=things)

    def sweep(self, *, everything: bool) -> Iterator[SweepResult]:
        """Drop databases as a run does. Yield the dropped ones, and the others with a reason."""
        before = look(self._address)
        if not before:
            return
        run = ServerRegistry(self._address, project="arena databases")
        with closing(run):
            run.rest()  # finishes the sweep that each run does at its start
            run.sweep(everything=everything)
        after = {database.name for database in look(self._address)}
        dropped = {database.name for database in before} - after
        yield from sweep_results(before, dropped, run.left, everything=everything)
