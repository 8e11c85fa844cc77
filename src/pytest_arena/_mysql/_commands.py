"""MySQL and MariaDB in `arena databases`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_arena._mysql import FACTS
from pytest_arena._mysql._server_registry import MySQLRegistry
from pytest_arena._mysql._servers import SEARCH
from pytest_arena._product._server_places import ServerCommands

if TYPE_CHECKING:
    from pytest_arena._product._private_servers import PrivateServers


def _private() -> PrivateServers[Any]:
    from pytest_arena._mysql._servers import PRIVATE_SERVERS  # noqa: PLC0415 - not on Windows

    return PRIVATE_SERVERS


place_kinds = ServerCommands(FACTS.name, SEARCH, MySQLRegistry, _private).place_kinds
