"""The databases of a server in `arena databases`."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

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


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryContent:
    """The rows of a server's registry. ``is_found`` is False if the server has none."""

    databases: tuple[RegistryRow, ...] = ()
    is_found: bool = False
    bytes: int | None = None  # of the registry, None if unknown
    others: tuple[str, ...] = ()  # registries of other versions of pytest-arena


class ServerDatabases:
    """The databases in the registry of a server. Other databases are never touched."""

    def __init__(self, address: Address, shown: str, *, registry: str) -> None:
        self._address = address
        self._shown = shown
        self._registry = registry

    @abstractmethod
    def _read(self) -> RegistryContent:
        """Read the registry, without changing it."""

    @abstractmethod
    def _sweep(self, *, everything: bool) -> list[str]:
        """Drop databases like a run. Return a line with the reason for each kept database."""

    @abstractmethod
    def _other_owner(self, owner: str) -> str:
        """Return the owner of a database for a message, "" if it is this login."""

    def look(self) -> Iterator[Place]:
        """Yield the server with its databases."""
        content = self._read()
        note = ""
        if content.others:
            others = ", ".join(content.others)
            note = f"another version of pytest-arena has databases there: see {others}"
        yield Place(
            shown=self._shown,
            where=self._address.server,
            things=tuple(row.thing() for row in content.databases),
            note=note,
        )

    def sweep(self, *, everything: bool) -> Iterator[SweepResult]:
        """Drop databases as a run does. Yield the dropped ones, and the others with a reason."""
        before = self._read()
        if not before.is_found:
            return
        left = self._sweep(everything=everything)
        after = self._read()
        yield from sweep_results(
            before.databases,
            after.databases,
            left,
            self._reason,
            everything=everything,
        )
        if not after.is_found:
            registry = Thing(name=self._registry, what="registry", bytes=before.bytes)
            yield SweepResult(registry)

    def _reason(self, row: RegistryRow) -> str:
        if row.alive:
            return f"a living run's: {row.project}, {row.host} {row.pid}"
        other_owner = self._other_owner(row.owner)
        if other_owner:
            return f"belongs to {other_owner}"
        return "a living run uses it"
