"""The isolation of the named database: ``rollback`` without copies."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, cast

from pytest_arena._postgresql.isolation._isolation import ServerIsolation
from pytest_arena._postgresql.isolation._rolled_back import (
    RolledBackDatabase,
    watch_functions,
)
from pytest_arena._postgresql.isolation._snapshots import RowsLost

if TYPE_CHECKING:
    from pytest_arena._postgresql.isolation._snapshots import Archive, Snapshot
    from pytest_arena._postgresql.named._named_server import NamedServer
    from pytest_arena._postgresql.rollback._proxy import Proxy


class NamedDatabase(RolledBackDatabase):
    """The named database. Its transaction has the schema and the seed."""

    @property
    def _server(self) -> NamedServer:
        return cast("NamedServer", self.registry)

    def replace_by_copy(
        self,
        snapshot: Snapshot,
        base: int = 0,
        number: int = 0,
        archive: Archive = [],  # noqa: B006 - never changed
    ) -> None:
        """Begin, or begin again after the shared connection has ended.

        Raises:
            RowsLost: the connection has ended, and the schema and the seed are lost with it.
        """
        if isinstance(archive, RowsLost):
            raise archive
        if self.name:
            self.release()
        name = self._server.name
        self.switch_to(name, snapshot, self.open_copy(name, number), None)
        self.base = base

    def _open(self, name: str) -> Proxy:
        proxy = self._server.transaction()
        with self.registry.reporting(f"the functions of {name} cannot be read"):
            watch_functions(proxy)
        return proxy

    def _not_copied(self, reason: str) -> RowsLost:
        return self._server.build_lost() or super()._not_copied(reason)

    def keep_later(self, name: str, title: str) -> NoReturn:
        """Raise an IsolationError: a kept database would be committed."""
        del name, title
        raise self._server.not_copied()

    def discard(self) -> None:
        """Roll back."""
        self.release()


class NamedIsolation(ServerIsolation):
    """``rollback`` in the named database, without copies."""

    def _new_live(self, isolation: str) -> NamedDatabase:
        del isolation
        return NamedDatabase(self._registry, self._uses, self._note)

    def replace(self, content: str | None) -> None:
        """Begin with a new build, outside of all levels.

        Raises:
            IsolationError: a level needs other content, which needs another database.
        """
        del content
        if self.depth:
            raise cast("NamedServer", self._registry).not_copied()
        with self._uses.alone():
            self.live.replace_by_copy(self.live.snapshot)
            self.generation += 1

    def save(self, title: str) -> NoReturn:
        """Raise an IsolationError: a kept database would be a copy."""
        del title
        raise cast("NamedServer", self._registry).not_copied()
