"""The databases of pytest-arena on one server, in `arena databases`."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from pytest_arena._product._databases_command import Place
from pytest_arena._product._own_databases import sweep_results

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._product._databases_command import SweepResult
    from pytest_arena._product._own_databases import OwnDatabase
    from pytest_arena._values import Address


class DatabasesOnServer:
    """The databases with pytest-arena's names on a server. Other databases are never touched.

    ``look`` reads a server's databases. ``registry`` is the product's class of a run's databases.
    """

    def __init__(
        self,
        address: Address,
        shown: str,
        *,
        look: Callable[[Address], list[OwnDatabase]],
        registry: Callable[..., Any],
    ) -> None:
        self._address = address
        self._shown = shown
        self._look = look
        self._registry = registry

    def look(self) -> Iterator[Place]:
        """Yield the server with its databases."""
        things = tuple(database.thing() for database in self._look(self._address))
        yield Place(shown=self._shown, where=self._address.server, things=things)

    def sweep(self, *, everything: bool) -> Iterator[SweepResult]:
        """Drop databases as a run does. Yield the dropped ones, and the others with a reason."""
        before = self._look(self._address)
        if not before:
            return
        run = self._registry(self._address, project="arena databases")
        with closing(run):
            run.rest()  # finishes the sweep that each run does at its start
            run.sweep(everything=everything)
        after = {database.name for database in self._look(self._address)}
        dropped = {database.name for database in before} - after
        yield from sweep_results(before, dropped, run.left, everything=everything)
