"""Reads and replaces the database in connect arguments.

psycopg and psycopg2 have libpq's arguments
(https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS). asyncpg has others
(https://magicstack.github.io/asyncpg/current/api/index.html#asyncpg.connection.connect).
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from pytest_arena._postgresql import FACTS
from pytest_arena._product._server_connections import (
    RedirectedHost,
    ServerTarget,
    is_here,
    os_user,
)
from pytest_arena._values import ServerLogin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_arena._values import Address


_PORT = "5432"


def _login(user: Any, password: object) -> ServerLogin | None:
    if not user:
        return None
    return ServerLogin(str(user), str(password or ""))


def target(driver: str, args: object, kwargs: dict[str, object]) -> ServerTarget:
    """Return the servers and the database that arguments name.

    Raises:
        Exception: the driver's, for a string that it cannot parse.
    """
    if driver == "asyncpg":
        return _asyncpg_target(args, kwargs)
    return _libpq_target(_libpq_settings(driver, args, kwargs))


def redirect(
    driver: str, address: Address, args: list[object], kwargs: dict[str, object]
) -> None:
    """Replace server, database and user with those of an address. Keep settings of the session.

    Variables of the environment that name a server have no effect. Those that name a password have
    an effect if the address has none.
    """
    if driver == "asyncpg":
        _redirect_asyncpg(address, args, kwargs)
    else:
        _redirect_libpq(driver, address, args, kwargs)


def bound_locks(driver: str, seconds: float, kwargs: dict[str, Any]) -> None:
    """Limit the time that a statement waits for a lock, unless the app's settings limit it.

    It is an option of the login, which costs no round trip.
    """
    timeout = f"{seconds * 1000:.0f}"
    if driver == "asyncpg":
        settings = kwargs.get("server_settings") or {}
        kwargs["server_settings"] = {"lock_timeout": timeout, **settings}
    else:
        options = kwargs.get("options") or ""
        kwargs["options"] = f"-c lock_timeout={timeout} {options}"


def is_redirected(driver: str, args: object, kwargs: dict[str, object]) -> bool:
    """Return whether pytest-arena redirected the arguments and the app left them unchanged."""
    host = kwargs.get("host")
    if not isinstance(host, RedirectedHost):
        return False
    redirected = ServerTarget(
        FACTS.name, f"{host}:{host.address.port}", host.address.database
    )
    return target(driver, args, kwargs) == redirected


def _host_of(address: Address) -> RedirectedHost:
    # A driver reports the folder of a socket without a slash at its end.
    return RedirectedHost.to(address, address.host.rstrip("/"))


def opened_target(connection: Any) -> ServerTarget:
    """Return the server and the database of a driver's open connection."""
    info = getattr(connection, "info", None)
    if info is not None:  # psycopg, psycopg2
        server = f"{info.host or info.hostaddr}:{info.port}"
        return ServerTarget(FACTS.name, server, info.dbname)
    # asyncpg has no public names for them.
    server = shown_server(connection._addr)  # noqa: SLF001 - see above
    return ServerTarget(FACTS.name, server, connection._params.database)  # noqa: SLF001 - see above


# asyncpg

_ASYNCPG_USUAL = 5  # how many hosts asyncpg tries if none is named


def _parsed_by_asyncpg(args: object, kwargs: dict[str, object]) -> tuple[Any, Any]:
    """Return the addresses and the other parameters, by the function of asyncpg itself.

    Raises:
        Exception: asyncpg's, for arguments that it cannot parse.
    """
    parse: Any = import_module("asyncpg.connect_utils")._parse_connect_dsn_and_args  # noqa: SLF001 - there is no public function
    parameters = signature(parse).parameters
    arguments = {name: kwargs.get(name) for name in parameters}
    arguments["dsn"] = _dsn(args, kwargs)
    # With these values asyncpg reads no file of passwords or certificates.
    for name, value in (("password", ""), ("ssl", False), ("direct_tls", False)):
        if name in parameters:
            arguments[name] = value
    addresses, parsed = parse(**arguments)
    return addresses, parsed


def _asyncpg_target(args: object, kwargs: dict[str, object]) -> ServerTarget:
    """Return the database that arguments name. Raises as asyncpg does."""
    addresses, parsed = _parsed_by_asyncpg(args, kwargs)
    servers = [shown_server(address) for address in addresses]
    if len(servers) == _ASYNCPG_USUAL and servers[0].startswith("/run/"):
        servers = servers[-1:]  # localhost, after the usual folders of sockets
    dsn = urlparse(_dsn(args, kwargs))
    user = kwargs.get("user") or unquote(dsn.username or "")
    login = _login(user, kwargs.get("password") or unquote(dsn.password or ""))
    return ServerTarget(
        FACTS.name, ",".join(servers), parsed.database or parsed.user, login
    )


def shown_server(address: Any) -> str:
    """Return one of asyncpg's addresses as a host and a port."""
    if isinstance(address, str):  # the file of a socket
        address = address.rsplit("/.s.PGSQL.", 1)
    return "{}:{}".format(*address)


def _redirect_asyncpg(
    address: Address, args: list[object], kwargs: dict[str, Any]
) -> None:
    _, parsed = _parsed_by_asyncpg(args, kwargs)
    if parsed.server_settings:
        kwargs["server_settings"] = parsed.server_settings
    if args:
        args[0] = None
    for key in ("dsn", "passfile", "service", "servicefile"):
        if key in kwargs:
            kwargs[key] = None
    kwargs |= {
        "host": _host_of(address),
        "port": address.port,
        "user": address.user,
        "password": address.password or None,
        "database": address.database,
        "ssl": False if is_here(address.host) else "prefer",
        "direct_tls": False,
        "target_session_attrs": "any",
    }


def _dsn(args: Any, kwargs: Mapping[str, object]) -> str:
    return str((args[0] if args else kwargs.get("dsn")) or "")


# libpq

_VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "dbname": "PGDATABASE",
}
# Settings of the session in a string. They are kept on any server.
_LIBPQ_SESSION = {
    "application_name",
    "client_encoding",
    "connect_timeout",
    "fallback_application_name",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "options",
    "replication",
    "tcp_user_timeout",
}
# Arguments that describe the app's server, with those whose names begin with ssl, gss or krb.
_OF_SERVER = {
    *("host", "hostaddr", "port", "dbname", "database", "dsn", "conninfo", "service"),
    *("user", "password", "passfile", "require_auth", "channel_binding", "requirepeer"),
    *("target_session_attrs", "load_balance_hosts", "min_protocol_version"),
}
# With these explicit values libpq ignores variables such as PGHOSTADDR and PGOPTIONS.
_EXPLICIT = {
    "hostaddr": "",
    "options": "",
    "target_session_attrs": "any",
    "gssencmode": "disable",
}


def _libpq_target(settings: Mapping[str, object]) -> ServerTarget:
    """Return the named database, by settings, environment and default, in this order.

    pytest-arena does not read service files. Such a server has the name of its service, which
    ``arena_allow`` cannot name.
    """
    effective = dict(settings)
    for key, variable in _VARIABLES.items():
        if variable in os.environ:
            effective.setdefault(key, os.environ[variable])
    database = effective.get("dbname") or effective.get("user") or os_user()
    login = _login(settings.get("user"), settings.get("password"))
    host = effective.get("hostaddr") or effective.get("host") or "localhost"
    server = f"{host}:{effective.get('port') or _PORT}"
    service = settings.get("service") or os.environ.get("PGSERVICE")
    if service and not settings.get("host"):
        server = f"service={service}"
    return ServerTarget(FACTS.name, server, str(database), login)


def _redirect_libpq(
    driver: str, address: Address, args: list[object], kwargs: dict[str, object]
) -> None:
    session = _libpq_session(driver, args, kwargs)
    for key in [*kwargs]:
        if key in _OF_SERVER or key.startswith(("ssl", "gss", "krb")):
            del kwargs[key]
    if args:
        args[0] = ""  # the connection string
    # The app's `options` replace the value in `_EXPLICIT`.
    kwargs |= {**_EXPLICIT, **session}
    kwargs |= {
        "host": _host_of(address),
        "port": address.port,
        "user": address.user,
        "dbname": address.database,
        "sslmode": "disable" if is_here(address.host) else "prefer",
    }
    if address.password:
        kwargs["password"] = address.password


def _libpq_session(
    driver: str, args: object, kwargs: dict[str, object]
) -> dict[str, object]:
    """Return the settings of the session."""
    settings = _libpq_settings(driver, args, kwargs)
    return {key: settings[key] for key in _LIBPQ_SESSION if key in settings}


def _libpq_settings(
    driver: str, args: Any, kwargs: dict[str, object]
) -> dict[str, object]:
    text = args[0] if args else kwargs.get("conninfo", kwargs.get("dsn"))
    settings = _parse(driver, text) if text else {}
    settings |= {key: value for key, value in kwargs.items() if value is not None}
    if "database" in settings:  # psycopg2's alias
        settings["dbname"] = settings.pop("database")
    return settings


def _parse(driver: str, text: object) -> dict[str, object]:
    """Parse a libpq string with the driver's libpq. The app has imported the driver."""
    if driver == "psycopg":
        return dict(sys.modules["psycopg.conninfo"].conninfo_to_dict(text))
    return dict(sys.modules["psycopg2.extensions"].parse_dsn(text))
