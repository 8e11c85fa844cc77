"""A private server of pytest-arena, which this version does not start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._mysql.servers import NoMySQL

if TYPE_CHECKING:
    from pytest_arena._config._read import Config
    from pytest_arena._mysql.servers import MySQLServer


def private_server(config: Config) -> MySQLServer:
    """Return a private server.

    Raises:
        NoMySQL: always.
    """
    del config
    raise NoMySQL("this version starts no private MySQL or MariaDB")
