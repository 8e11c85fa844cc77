"""MySQL and MariaDB in `arena databases`."""

from pytest_arena._mysql import FACTS
from pytest_arena._mysql._server_registry import MySQLRegistry
from pytest_arena._mysql._servers import SEARCH
from pytest_arena._product._server_places import ServerCommands

place_kinds = ServerCommands(FACTS.name, SEARCH, MySQLRegistry).place_kinds
