"""Reads and replaces the database in connect arguments.

psycopg and psycopg2 have libpq's arguments
(https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS). asyncpg has others
(https://magicstack.github.io/asyncpg/current/api/index.html#asyncpg.connection.connect).
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

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

    from sqlalchemy.engine import URL

    from pytest_arena._values import Address


_PORT = "5432"


def target(driver: str, args: object, kwargs: dict[str, object]) -> ServerTarget:
    """Return the servers and the database that arguments name.

    Raises:
        Exception: the driver's, for a string that it cannot parse.
    """
    return _libpq_target(_settings(driver, args, kwargs))


def redirect(driver: str, address: Address, args: list[object], kwargs: dict[str, object]) -> None:
    """Replace server, database and user with those of an address. Keep settings of the session.

    Variables of the environment that name a server have no effect. Those that name a password have
    an effect if the address has none.
    """
    if driver == "asyncpg":
        _redirect_asyncpg(address, args, kwargs)
    else:
        _redirect_libpq(driver, address, args, kwargs)
    if address.lock_timeout:
        _bound_locks(driver, address.lock_timeout, kwargs)


def _bound_locks(driver: str, seconds: float, kwargs: dict[str, Any]) -> None:
    """Limit the time that a statement waits for a lock, unless the app's settings limit it.

    It is an option of the login, which costs no round trip.
    """
    timeout = f"{seconds * 1000:.0f}"
    if driver == "asyncpg":
        settings = kwargs.get("server_settings") or {}
        kwargs["server_settings"] = {"lock_timeout": timeout, **settings}
    else:
        kwargs["options"] = f"-c lock_timeout={timeout} {kwargs.get('options') or ''}"


def is_redirected(driver: str, args: object, kwargs: dict[str, object]) -> bool:
    """Return whether pytest-arena redirected the arguments and the app left them unchanged."""
    host = kwargs.get("host")
    if not isinstance(host, RedirectedHost):
        return False
    redirected = ServerTarget(FACTS.name, f"{host}:{host.address.port}", host.address.database)
    return target(driver, args, kwargs) == redirected


def _host_of(address: Address) -> RedirectedHost:
    # A driver reports the folder of a socket without a slash at its end.
    return RedirectedHost.to(address, address.host.rstrip("/"))


# asyncpg


def _dsn(args: Any, kwargs: Mapping[str, object]) -> URL:
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - the command `arena` does without it

    text = args[0] if args else kwargs.get("dsn")
    return make_url(str(text or "postgresql://"))


def _asyncpg_settings(args: object, kwargs: Mapping[str, Any]) -> dict[str, object]:
    dsn = _dsn(args, kwargs)
    of_dsn = {
        "user": dsn.username,
        "password": dsn.password,
        "host": unquote(dsn.host or ""),
        "port": dsn.port,
        "database": dsn.database,
    }
    settings: dict[str, Any] = {"hostaddr": ""}  # asyncpg does not read PGHOSTADDR
    sources: list[Mapping[str, Any]] = [dsn.query, of_dsn, kwargs]
    for source in sources:
        for key, value in source.items():
            if value:
                several = isinstance(value, list | tuple)
                settings[key] = ",".join(map(str, value)) if several else value
    return settings


def _redirect_asyncpg(address: Address, args: list[object], kwargs: dict[str, Any]) -> None:
    dsn = _dsn(args, kwargs)
    of_dsn = {key: value for key, value in dsn.query.items() if not _is_of_server(key)}
    kwargs["server_settings"] = of_dsn | (kwargs.get("server_settings") or {})
    _remove_server(kwargs)
    if args:
        args[0] = None
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


# libpq

_VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "dbname": "PGDATABASE",
}
# Arguments that describe the app's server, with those whose names begin with ssl, gss or krb. All
# others describe the session, and stay.
_OF_SERVER = {
    *("host", "hostaddr", "port", "dbname", "database", "dsn", "conninfo"),
    *("service", "servicefile"),
    *("user", "password", "passfile", "require_auth", "channel_binding", "requirepeer"),
    *("target_session_attrs", "load_balance_hosts", "min_protocol_version"),
}


def _is_of_server(key: str) -> bool:
    return key in _OF_SERVER or key.startswith(("ssl", "gss", "krb"))


def _remove_server(kwargs: dict[str, Any]) -> None:
    for key in [*kwargs]:
        if _is_of_server(key):
            del kwargs[key]


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
    login = None
    if settings.get("user"):
        login = ServerLogin(str(settings["user"]), str(settings.get("password") or ""))
    host = effective.get("hostaddr") or effective.get("host") or "localhost"
    server = f"{host}:{effective.get('port') or _PORT}"
    service = settings.get("service") or os.environ.get("PGSERVICE")
    if service and not settings.get("host"):
        server = f"service={service}"
    return ServerTarget(FACTS.name, server, str(database), login)


def _redirect_libpq(
    driver: str, address: Address, args: list[object], kwargs: dict[str, object]
) -> None:
    settings = _settings(driver, args, kwargs)
    _remove_server(kwargs)
    if args:
        args[0] = ""  # the connection string
    # The app's `options` replace the value in `_EXPLICIT`.
    kwargs |= _EXPLICIT
    kwargs |= {key: value for key, value in settings.items() if not _is_of_server(key)}
    kwargs |= {
        "host": _host_of(address),
        "port": address.port,
        "user": address.user,
        "dbname": address.database,
        "sslmode": "disable" if is_here(address.host) else "prefer",
    }
    if address.password:
        kwargs["password"] = address.password


def _settings(driver: str, args: Any, kwargs: dict[str, object]) -> dict[str, object]:
    """Return the arguments under libpq's names."""
    if driver == "asyncpg":
        settings = _asyncpg_settings(args, kwargs)
    else:
        text = args[0] if args else kwargs.get("conninfo", kwargs.get("dsn"))
        settings = _parse(driver, text) if text else {}
        settings |= {key: value for key, value in kwargs.items() if value is not None}
    if "database" in settings:  # of asyncpg, and psycopg2's alias
        settings["dbname"] = settings.pop("database")
    return settings


def _parse(driver: str, text: object) -> dict[str, object]:
    """Parse a libpq string with the driver's libpq. The app has imported the driver."""
    if driver == "psycopg2":
        return dict(sys.modules["psycopg2.extensions"].parse_dsn(text))
    return dict(sys.modules["psycopg.conninfo"].conninfo_to_dict(text))
