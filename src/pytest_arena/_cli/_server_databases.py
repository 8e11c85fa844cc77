"""The databases on a PostgreSQL server that are arena's own."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from pytest_arena._cli._base import Omission, Place, Removed, Thing
from pytest_arena._postgresql.registry import ServerRegistry, look

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._postgresql.registry import RegistryRow
    from pytest_arena._values import Address


class ServerDatabases:
    """What a server's registry names. What it does not name is nobody's business here."""

    def __init__(self, address: Address, shown: str, *, registry: str) -> None:
        self._address, self._shown, self._registry = address, shown, registry

    def look(self) -> Iterator[Place]:
        """Say what is there."""
        seen = look(self._address, registry=self._registry)
        things = tuple(map(_thing, seen.databases)) if seen else ()
        yield Place(shown=self._shown, where=self._address.server, things=things)

    def sweep(self, *, everything: bool) -> Iterator[Removed | Omission]:
        """Have it swept by a run of our own, and say what is not there any more."""
        before = look(self._address, registry=self._registry)
        if before is None:
            return
        project = "arena databases"
        with closing(
            ServerRegistry(self._address, project=project, registry=self._registry)
        ) as run:
            run.rest()  # what it sweeps by itself as it begins
            run.sweep(everything=everything)
            left = {name: why for name, _, why in (line.partition(": ") for line in run.left)}
        after = look(self._address, registry=self._registry)
        there = {row.name for row in after.databases} if after else set()
        for row in before.databases:
            if row.name not in there and not row.alive:
                yield Removed(row.kind, row.name, row.bytes)
            elif row.name in there and (everything or row.name in left):
                yield Omission(row.name, left.get(row.name) or self._why_left(row))
        if after is None:
            yield Removed("registry", self._registry, before.bytes)

    def _why_left(self, row: RegistryRow) -> str:
        if row.alive:
            return f"a living run's: {row.project}, {row.host} {row.pid}"
        if row.owner != self._address.user:
            return f"belongs to the role {row.owner}"
        return "a living run uses it"


def _thing(row: RegistryRow) -> Thing:
    return Thing(
        name=row.name,
        what=row.kind,
        state=("alive" if row.alive else "dead") if row.pid else "",
        project=row.project,
        host=row.host,
        pid=row.pid,
        created=row.created,
        used=row.used,
        bytes=row.bytes,
        title=row.title,
    )
