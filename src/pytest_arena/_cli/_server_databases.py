"""The databases on a PostgreSQL server that are arena's own."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from pytest_arena._cli._base import Left, Place, Removed, Thing
from pytest_arena._postgresql.registry import ServerRegistry, look

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._postgresql.registry import RegistryRow
    from pytest_arena._values import Address

__all__ = ["ServerDatabases"]


class ServerDatabases:
    """What a server's registry names. What it does not name is nobody's business here."""

    def __init__(self, address: Address, shown: str, *, registry: str) -> None:
        self._address, self._shown, self._registry = address, shown, registry

    def look(self) -> Iterator[Place]:
        """Say what is there."""
        seen = look(self._address, registry=self._registry)
        things = tuple(map(_thing, seen.databases)) if seen else ()
        yield Place(shown=self._shown, where=self._address.server, things=things)

    def things(self) -> tuple[Thing, ...]:
        """Return the databases."""
        return next(self.look()).things

    def sweep(self, *, everything: bool) -> Iterator[Removed | Left]:
        """Have it swept by a run of our own, and say what is not there any more."""
        before = look(self._address, registry=self._registry)
        if before is None:
            return
        left = self._swept(everything=everything)
        after = look(self._address, registry=self._registry)
        there = {one.name for one in after.databases} if after else set()
        for one in before.databases:
            if one.name not in there and not one.alive:
                yield Removed(one.kind, one.name, one.bytes)
            elif one.name in there and (everything or one.name in left):
                yield Left(one.name, left.get(one.name) or self._why_left(one))
        if after is None:
            yield Removed("registry", self._registry, before.bytes)

    def _why_left(self, one: RegistryRow) -> str:
        if one.alive:
            return f"a living run's: {one.project}, {one.host} {one.pid}"
        if one.owner != self._address.user:
            return f"belongs to the role {one.owner}"
        return "a living run uses it"

    def _swept(self, *, everything: bool) -> dict[str, str]:
        """Have it done. Returns what could not be dropped, and why."""
        with closing(self._as_run()) as own:
            own.rest()  # what it sweeps by itself as it begins
            own.sweep(everything=everything)
            return {name: why for name, _, why in (line.partition(": ") for line in own.left)}

    def _as_run(self) -> ServerRegistry:
        return ServerRegistry(self._address, project="arena databases", registry=self._registry)


def _thing(one: RegistryRow) -> Thing:
    return Thing(
        name=one.name,
        what=one.kind,
        state=("alive" if one.alive else "dead") if one.pid else "",
        project=one.project,
        host=one.host,
        pid=one.pid,
        created=one.created,
        used=one.used,
        bytes=one.bytes,
        title=one.title,
    )
