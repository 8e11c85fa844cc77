"""The private MySQL or MariaDB server on which everything is measured."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pymysql
from platformdirs import user_cache_path
from pymysql.constants import CLIENT

from pytest_arena._config._read import load_config
from pytest_arena._mysql._server_registry import MySQLRegistry
from pytest_arena._mysql.servers._search import private_server
from pytest_arena._product.servers import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._product.servers import Server
    from pytest_arena._values import Address

__all__ = ["connect", "databases", "has_server"]


def find() -> Server:
    """Start the server, or return the running one.

    Raises:
        Unavailable: no program of a server is installed.
    """
    config = load_config(flags={"database": "own"}, environ={}, ini=lambda _: "", root=Path.cwd())
    return private_server(replace(config, cache=user_cache_path("pytest-arena")))


def has_server() -> bool:
    """Return whether a server can be started."""
    try:
        server = find()
    except Unavailable:
        return False
    server.close()
    return True


@contextmanager
def databases() -> Iterator[tuple[MySQLRegistry, str]]:
    """Yield the registry of a server, and the server's name."""
    server = find()
    own = MySQLRegistry(server.address, project="bench")
    try:
        yield own, server.shown.partition(",")[0]
    finally:
        own.close()
        server.close()


def connect(address: Address) -> Any:
    """Connect by PyMySQL, in autocommit mode."""
    return pymysql.connect(
        unix_socket=address.host,
        user=address.user,
        password=address.password,
        database=address.database,
        autocommit=True,
        client_flag=CLIENT.MULTI_STATEMENTS,
        ssl_disabled=True,
    )
