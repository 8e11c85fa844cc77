"""Reads and replaces the database in connect arguments of the drivers.

PyMySQL, aiomysql, asyncmy and mysqlclient have nearly the same arguments
(https://pymysql.readthedocs.io/en/latest/modules/connections.html).
"""

from __future__ import annotations

import configparser
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_arena._mysql import FACTS
from pytest_arena._mysql._control import needs_no_tls, tls_context
from pytest_arena._product._server_targets import RedirectedHost, ServerTarget
from pytest_arena._values import ServerLogin

if TYPE_CHECKING:
    from pytest_arena._values import Address

# In the order of preference if no engine shows the app's driver.
ASYNC_DRIVERS = ("asyncmy", "aiomysql")
DRIVERS = (*ASYNC_DRIVERS, "pymysql", "mysqldb")
PACKAGES = {"mysqldb": "MySQLdb"}  # other packages have the name of the driver
PORT = 3306
# The database of a connection whose arguments name no database.
_NO_NAME = FACTS.maintenance_database


class MySQLTarget(ServerTarget):
    """A database of MySQL or MariaDB that arguments name."""

    product = FACTS.name
    standard_databases: ClassVar = {FACTS.maintenance_database}


def target(kwargs: dict[str, Any]) -> MySQLTarget:
    """Return the server and the database that arguments name."""
    settings = {**_file_settings(kwargs), **_named(kwargs)}
    login = None
    password = settings.get("password") or ""
    if isinstance(password, bytes):
        password = password.decode("latin1")
    user = str(settings.get("user") or "")
    if user:
        login = ServerLogin(user, str(password))
    host = str(settings.get("host") or "localhost")
    port = str(settings.get("port") or PORT)
    database = str(settings.get("database") or _NO_NAME)
    return MySQLTarget(((host, port),), database, login)


_OTHER_NAMES = {"db": "database", "passwd": "password", "socket": "unix_socket"}


def _named(kwargs: dict[str, Any]) -> dict[str, Any]:
    named = {}
    for key, value in kwargs.items():
        if value:
            name = _OTHER_NAMES.get(key, key)
            named[name] = value.decode() if isinstance(value, bytes) else value
    return named


def _file_settings(kwargs: dict[str, Any]) -> dict[str, str]:
    """Return the settings of the option file that arguments name."""
    group = kwargs.get("read_default_group")
    file = kwargs.get("read_default_file")
    if not (file or group):
        return {}
    return _option_file(str(file or "/etc/my.cnf"), str(group or "client"))


def _option_file(file: str, group: str) -> dict[str, str]:
    """Return the settings of a group in an option file of the server's clients."""
    parser = configparser.RawConfigParser(allow_no_value=True, strict=False)
    try:
        parser.read(Path(file).expanduser())
        settings = dict(parser[group])
    except (configparser.Error, UnicodeDecodeError, OSError, KeyError):
        return {}  # the driver reports the error
    named = {}
    for key, value in settings.items():
        if value:
            named[_OTHER_NAMES.get(key, key)] = value.strip("'\"")
    return named


# The arguments that describe the app's server.
_OF_SERVER = (
    "host",
    "port",
    "user",
    "password",
    "passwd",
    "database",
    "db",
    "unix_socket",
    "bind_address",
    "read_default_file",
    "read_default_group",
    "password_creator",
    "auth_plugin_map",
    "auth_plugin",
    "server_public_key",
    "sock",
    "defer_connect",
)


def redirect(driver: str, address: Address, kwargs: dict[str, Any]) -> None:
    """Replace server, database and login with those of an address. Keep settings of the session.

    The driver does not read an option file, because it names the app's server.
    """
    charset = _file_settings(kwargs).get("default-character-set")
    for key in [*kwargs]:
        if key in _OF_SERVER or key.startswith("ssl"):
            del kwargs[key]
    if charset:
        kwargs.setdefault("charset", charset)
    _write_address(driver, address, kwargs)
    kwargs["user"] = address.user
    kwargs["password"] = address.password
    if address.is_encrypted and driver == "mysqldb":
        kwargs["ssl_mode"] = "REQUIRED"
    elif address.is_encrypted:
        kwargs["ssl"] = tls_context()
    elif driver == "pymysql" and needs_no_tls(address):
        kwargs["ssl_disabled"] = True


def _write_address(driver: str, address: Address, kwargs: dict[str, Any]) -> None:
    """Name the server and the database of an address. Keep the login."""
    # With a socket's file, a driver ignores the host.
    host = "localhost" if address.is_socket else address.host
    if driver == "mysqldb" and host == "localhost" and not address.is_socket:
        host = "127.0.0.1"  # with localhost, mysqlclient opens a socket
    kwargs["host"] = RedirectedHost.to(address, host)
    kwargs["port"] = address.port
    kwargs.pop("database", None)
    kwargs.pop("db", None)
    keyword = "db" if driver == "aiomysql" else "database"
    kwargs[keyword] = address.database
    kwargs.pop("unix_socket", None)
    if address.is_socket:
        kwargs["unix_socket"] = address.host


def is_redirected(kwargs: dict[str, Any]) -> bool:
    """Return whether arguments still name the address to which they were redirected."""
    host = kwargs.get("host")
    if not isinstance(host, RedirectedHost):
        return False
    address = host.address
    named = _named(kwargs)
    socket = address.host if address.is_socket else ""
    is_same_database = named.get("database") == address.database
    return is_same_database and named.get("unix_socket", "") == socket


def bound_locks(seconds: float, kwargs: dict[str, Any]) -> None:
    """Limit the time that a statement waits for a lock, unless the app's settings limit it.

    The server counts in whole seconds. If the app's command is no SET, it stays unchanged.
    """
    command = str(kwargs.get("init_command") or "")
    if "lock_wait_timeout" in command:
        return
    whole = math.ceil(seconds)
    limits = f"SESSION innodb_lock_wait_timeout = {whole}, SESSION lock_wait_timeout = {whole}"
    if not command:
        kwargs["init_command"] = f"SET {limits}"
    elif re.match(r"(?i)\s*SET\s+(?!NAMES|CHARACTER|TRANSACTION)[^;]*\Z", command):
        kwargs["init_command"] = f"{command}, {limits}"
