"""Reads and replaces the database in connect arguments of the drivers.

PyMySQL, aiomysql, asyncmy and mysqlclient have nearly the same arguments
(https://pymysql.readthedocs.io/en/latest/modules/connections.html).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pytest_arena._mysql import ASYNC_DRIVERS, FACTS
from pytest_arena._product._server_connections import (
    RedirectedHost,
    ServerTarget,
    is_here,
)
from pytest_arena._values import ServerLogin

if TYPE_CHECKING:
    from pytest_arena._values import Address

DRIVERS = (*ASYNC_DRIVERS, "pymysql", "mysqldb")
PORT = 3306
# The database of a connection whose arguments name no database.
_NO_NAME = FACTS.maintenance_database


_OTHER_NAMES = {"db": "database", "passwd": "password"}


def _named(kwargs: dict[str, Any]) -> dict[str, str]:
    named = {}
    for key, value in kwargs.items():
        if value:
            text = value.decode("latin1") if isinstance(value, bytes) else str(value)
            named[_OTHER_NAMES.get(key, key)] = text
    return named


def target(_driver: str, _args: object, kwargs: dict[str, Any]) -> ServerTarget:
    """Return the server and the database that arguments name. An option file is not read."""
    named = _named(kwargs)
    login = None
    if "user" in named:
        login = ServerLogin(named["user"], named.get("password", ""))
    host = named.get("host") or named.get("read_default_file", "localhost")
    port = named.get("port", str(PORT))
    return ServerTarget(FACTS.name, f"{host}:{port}", named.get("database", _NO_NAME), login)


# The arguments that describe the app's server.
_OF_SERVER = {
    *("host", "port", "user", "password", "passwd", "database", "db", "unix_socket"),
    *("bind_address", "read_default_file", "read_default_group", "password_creator"),
    *("auth_plugin_map", "auth_plugin", "server_public_key", "sock", "defer_connect"),
}


def redirect(driver: str, address: Address, _args: object, kwargs: dict[str, Any]) -> None:
    """Replace server, database and login with those of an address. Keep settings of the session."""
    for key in [*kwargs]:
        if key in _OF_SERVER or key.startswith("ssl"):
            del kwargs[key]
    host = address.host
    if address.is_socket:
        host = "localhost"  # the driver ignores it
        kwargs["unix_socket"] = address.host
    elif driver == "mysqldb" and host == "localhost":
        host = "127.0.0.1"  # with localhost, mysqlclient opens a socket
    kwargs["host"] = RedirectedHost.to(address, host)
    kwargs["port"] = address.port
    kwargs["db" if driver == "aiomysql" else "database"] = address.database
    kwargs["user"] = address.user
    kwargs["password"] = address.password
    if driver == "pymysql" and is_here(address.host):
        # The server's plugin hashes or encrypts the password.
        kwargs["ssl_disabled"] = True
    if address.lock_timeout:
        _bound_locks(address.lock_timeout, kwargs)


def is_redirected(_driver: str, _args: object, kwargs: dict[str, Any]) -> bool:
    """Return whether arguments still name the address to which they were redirected."""
    host = kwargs.get("host")
    if not isinstance(host, RedirectedHost):
        return False
    named = _named(kwargs)
    socket = host.address.host if host.address.is_socket else ""
    is_same_database = named.get("database") == host.address.database
    return is_same_database and named.get("unix_socket", "") == socket


def _bound_locks(seconds: float, kwargs: dict[str, Any]) -> None:
    """Limit the time that a statement waits for a lock, unless the app's settings limit it.

    The server counts in whole seconds. An ``init_command`` of the app stays as it is.
    """
    whole = math.ceil(seconds)
    limits = f"SESSION innodb_lock_wait_timeout = {whole}, SESSION lock_wait_timeout = {whole}"
    kwargs["init_command"] = kwargs.get("init_command") or f"SET {limits}"
