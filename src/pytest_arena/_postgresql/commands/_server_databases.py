"""The databases of a server in `arena databases`."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from pytest_arena._postgresql.registry import ServerRegistry, look
from pytest_arena._product._databases_command import (
    Place,
    RegistryRow,
    SweepResult,
    Thing,
    sweep_results,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._values import Address


class ServerDatabases:
    """The databases in the registry of a server. Other databases are never touched."""

    def __init__(self, address: Address, shown: str, *, registry: str) -> None:
        self._address = address
        self._shown = shown
        self._registry = registry

    def look(self) -> Iterator[Place]:
        """Yield the server with its databases."""
        content = look(self._address, registry=self._registry)
        note = ""
        if content.others:
            others = ", ".join(content.others)
            note = f"another version of arena has databases there: see {others}"
        yield Place(
            shown=self._shown,
            where=self._address.server,
            things=tuple(row.thing() for row in content.databases),
            note=note,
        )

    def sweep(self, *, everything: bool) -> Iterator[SweepResult]:
        """Remove databases as a run does. Yield the removed ones, and the others with a reason."""
        before = look(self._address, registry=self._registry)
        if before.bytes is None:
            return
        run = ServerRegistry(
            self._address, project="arena databases", registry=self._registry
        )
        with closing(run):
            run.rest()  # finishes the sweep that each run does at its start
            run.sweep(everything=everything)
        after = look(self._address, registry=self._registry)
        yield from sweep_results(
            before.databases,
            after.databases,
            run.left,
            self._reason,
            everything=everything,
        )
        if after.bytes is None:
            registry = Thing(name=self._registry, what="registry", bytes=before.bytes)
            yield SweepResult(registry)

    def _reason(self, row: RegistryRow) -> str:
        """Return why a database was left."""
        if row.alive:
            return f"a living run's: {row.project}, {row.host} {row.pid}"
        if row.owner != self._address.user:
            return f"belongs to the role {row.owner}"
        return "a living run uses it"
