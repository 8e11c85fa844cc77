"""The databases of a PostgreSQL server in `arena databases`."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from pytest_arena._postgresql.registry import ServerRegistry, look
from pytest_arena._product._server_databases import ServerDatabases

if TYPE_CHECKING:
    from pytest_arena._product._server_databases import RegistryContent


class PostgreSQLDatabases(ServerDatabases):
    """The databases on a PostgreSQL server."""

    def _read(self) -> RegistryContent:
        return look(self._address, registry=self._registry)

    def _sweep(self, *, everything: bool) -> list[str]:
        run = ServerRegistry(
            self._address, project="arena databases", registry=self._registry
        )
        with closing(run):
            run.rest()  # finishes the sweep that each run does at its start
            run.sweep(everything=everything)
        return run.left

    def _other_owner(self, owner: str) -> str:
        if owner == self._address.user:
            return ""
        return f"the role {owner}"
