"""Reads and replaces the database in connect arguments of the drivers.

PyMySQL, aiomysql, asyncmy and mysqlclient have nearly the same arguments
(https://pymysql.readthedocs.io/en/latest/modules/connections.html).
"""

from __future__ import annotations

import configparser
import getpass
import math
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pytest_arena._mysql import FACTS
from pytest_arena._mysql._control import needs_no_tls, tls_context
from pytest_arena._product import RequestedDatabase
from pytest_arena._values import Address, ServerLogin

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from pytest_arena._product import ConnectTarget

# In the order of preference if no engine shows the app's driver.
ASYNC_DRIVERS = ("asyncmy", "aiomysql")
DRIVERS = (*ASYNC_DRIVERS, "pymysql", "mysqldb")
PACKAGES = {"mysqldb": "MySQLdb"}  # the others have the names of their drivers
PORT = 3306
# The database of a connection whose arguments name none.
_NO_NAME = FACTS.maintenance_database


@dataclass(frozen=True, slots=True)
class MySQLTarget:
    """The server and the database that arguments name."""

    host: str
    port: str
    database: str
    login: ServerLogin | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """The name, in the form of ``arena_allow``."""
        return f"mysql://{self.host}:{self.port}/{self.database}"


class RedirectedMySQLHost(str):
    """The host in redirected arguments, by which pytest-arena recognizes them.

    For a driver it is a text.
    """

    __slots__ = ("address",)
    address: Address

    @classmethod
    def to(cls, address: Address, driver: str = "") -> RedirectedMySQLHost:
        """Return the host of an address. A driver ignores it beside the file of a socket."""
        name = address.host
        if address.is_socket:
            name = "localhost"
        elif driver == "mysqldb" and name == "localhost":
            name = "127.0.0.1"  # mysqlclient would open the usual socket
        host = cls(name)
        host.address = address
        return host


# The names in the registry. No developer's database has such a name.
_OWN_NAME = re.compile(r"arena_[a-z]+_[0-9a-f]{8,16}")


def is_own_name(database: str) -> bool:
    """Return whether a database of this name belongs to pytest-arena."""
    return _OWN_NAME.fullmatch(database) is not None


def requested(dialect: Dialect, server: MySQLTarget) -> RequestedDatabase:
    """Return the requested database for the core."""
    return RequestedDatabase(
        dialect,
        FACTS.name,
        server.name,
        database=server.database,
        login=server.login,
    )


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
    return MySQLTarget(
        str(settings.get("host") or "localhost"),
        str(settings.get("port") or PORT),
        str(settings.get("database") or _NO_NAME),
        login,
    )


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
    return option_file(str(file or "/etc/my.cnf"), str(group or "client"))


def option_file(file: str, group: str) -> dict[str, str]:
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

    An option file names the app's server, so the driver does not read it.
    """
    charset = _file_settings(kwargs).get("default-character-set")
    keeps_tls = address.tls == () and _asks_for_tls(kwargs)
    for key in [*kwargs]:
        if key in _OF_SERVER or (key.startswith("ssl") and not keeps_tls):
            del kwargs[key]
    if charset:
        kwargs.setdefault("charset", charset)
    name_outright(driver, address, kwargs)
    kwargs["user"] = address.user
    kwargs["password"] = address.password
    if address.tls is not None and not keeps_tls:
        kwargs.update(_tls_arguments(driver, address.tls))
    elif driver == "pymysql" and needs_no_tls(address):
        kwargs["ssl_disabled"] = True


def _tls_arguments(driver: str, options: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Return a driver's arguments for the options of a URL."""
    context = tls_context(options)
    if driver != "mysqldb":
        return {"ssl": context}
    # mysqlclient would encrypt by a context, and not verify the server.
    mode = "REQUIRED"
    if context.check_hostname:
        mode = "VERIFY_IDENTITY"
    elif context.verify_mode is ssl.CERT_REQUIRED:
        mode = "VERIFY_CA"
    files = {
        name.removeprefix("ssl_"): value
        for name, value in options
        if name != "ssl_check_hostname"
    }
    return {"ssl": files, "ssl_mode": mode}


def address_for(target: ConnectTarget, login: ServerLogin | None) -> Address:
    """Return the address of a target with the user for a login of the app.

    A build connects with pytest-arena's login.
    """
    address = cast("Address", target.address)
    if target.database is None:
        return address
    product: Any = target.database.product  # importing its type is a cycle
    accounts = product.accounts
    user = accounts.login_of(target.database, login, address.database)
    return address.as_(user) if user is not None else address


def _asks_for_tls(kwargs: dict[str, Any]) -> bool:
    names = [key for key, value in kwargs.items() if key.startswith("ssl") and value]
    return bool(names) and "ssl_disabled" not in names


def name_outright(driver: str, address: Address, kwargs: dict[str, Any]) -> None:
    """Name the server and the database of an address. Keep the login."""
    kwargs["host"] = RedirectedMySQLHost.to(address, driver)
    kwargs["port"] = address.port
    kwargs.pop("database", None)
    kwargs.pop("db", None)
    keyword = "db" if driver == "aiomysql" else "database"
    kwargs[keyword] = address.database
    kwargs.pop("unix_socket", None)
    if address.is_socket:
        kwargs["unix_socket"] = address.host


def redirected_to(kwargs: dict[str, Any]) -> Address | None:
    """Return the address to which the arguments were redirected, None if they were not."""
    host = kwargs.get("host")
    return host.address if isinstance(host, RedirectedMySQLHost) else None


def are_unchanged(kwargs: dict[str, Any], address: Address) -> bool:
    """Return whether the app has not changed redirected arguments since."""
    named = _named(kwargs)
    socket = address.host if address.is_socket else ""
    is_same_database = named.get("database") == address.database
    return is_same_database and named.get("unix_socket", "") == socket


def bound_locks(seconds: float, kwargs: dict[str, Any]) -> None:
    """Limit the time that a statement waits for a lock, unless the app's settings limit it.

    The server counts in whole seconds. A command of the app that is no SET is left alone.
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


def os_user() -> str:
    """Return the user of this process, which is the default login."""
    with suppress(KeyError, OSError):  # a container's user without an entry
        return getpass.getuser()
    return ""
