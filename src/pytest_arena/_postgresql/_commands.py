"""PostgreSQL in `arena databases`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql import FACTS
from pytest_arena._postgresql._server_registry import ServerRegistry
from pytest_arena._postgresql._servers import SEARCH
from pytest_arena._product._server_places import ServerCommands

if TYPE_CHECKING:
    from pytest_arena._product._private_servers import PrivateServers


def _private() -> PrivateServers[Any]:
    from pytest_arena._postgresql._servers import CLUSTERS  # noqa: PLC0415 - not on Windows

    return CLUSTERS


place_kinds = ServerCommands(FACTS.name, SEARCH, ServerRegistry, _private).place_kinds
