"""PostgreSQL in `arena databases`."""

from pytest_arena._postgresql import FACTS
from pytest_arena._postgresql._server_registry import ServerRegistry
from pytest_arena._postgresql._servers import SEARCH
from pytest_arena._product._server_places import ServerCommands

place_kinds = ServerCommands(FACTS.name, SEARCH, ServerRegistry).place_kinds
