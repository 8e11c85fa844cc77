"""Which of PostgreSQL's databases do the arguments of a connect call mean, by whichever driver?

psycopg and psycopg2 speak libpq's language
(https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS), asyncpg one of its
own (https://magicstack.github.io/asyncpg/current/api/index.html#asyncpg.connection.connect).
"""

from __future__ import annotations

import configparser
import getpass
import os
import re
import sys
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, unquote, urlparse

from pytest_arena._product import RequestedDatabase
from pytest_arena._values import Address, ServerLogin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import Dialect

    from pytest_arena._product import ConnectTarget


_PORT = "5432"


@dataclass(frozen=True, slots=True)
class ServerTarget:
    """The servers that are tried in turn, and the name of the database on them."""

    hosts: tuple[tuple[str, str], ...]  # name, number or folder of the socket; port
    database: str
    login: ServerLogin | None = field(default=None, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each server, as ``arena_allow`` has them."""
        return tuple(
            f"postgresql://{host}:{port}/{self.database}" for host, port in self.hosts
        )

    @property
    def name(self) -> str:
        """All servers in one name, for a message."""
        servers = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"postgresql://{servers}/{self.database}"


class RedirectedHost(str):
    """The host in arguments that were led to the arena: whoever sees them again can tell.

    Drivers take it for the text that it is.
    """

    __slots__ = ("address",)
    address: Address

    @classmethod
    def to(cls, address: Address) -> RedirectedHost:
        """The host of an address."""
        led = cls(address.host.rstrip("/"))  # as drivers say it, of a folder
        led.address = address
        return led

    @property
    def target(self) -> ServerTarget:
        """What the arguments mean, as long as nobody changed them."""
        return ServerTarget(
            ((str(self), str(self.address.port)),), self.address.database
        )


# As the registry names them. No developer's database has such a name.
_OWN_NAME = re.compile(r"arena_[a-z]+_[0-9a-f]{16}")


def is_own_name(database: str) -> bool:
    """Return whether a database of this name belongs to pytest-arena."""
    return _OWN_NAME.fullmatch(database) is not None


def is_here(host: str) -> bool:
    """Whether the server is on this machine: encrypting the way there would only cost time."""
    is_loopback = host.startswith("127.") and host.replace(".", "").isdigit()
    return host.startswith("/") or host in {"localhost", "::1"} or is_loopback


def _os_user() -> str:
    """Who runs this process: a database without a name has this one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry
        return ""


def _service_settings(
    given: Mapping[str, Any], variables: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """What a connection service file says of the service that is asked for.

    https://www.postgresql.org/docs/current/libpq-pgservice.html
    """
    service = given.get("service") or variables.get("PGSERVICE", "")
    named = given.get("servicefile") or variables.get("PGSERVICEFILE")
    files = [Path(named) if named else Path("~/.pg_service.conf").expanduser()]
    if system := variables.get("PGSYSCONFDIR"):
        files.append(Path(system) / "pg_service.conf")
    return next((found for file in files if (found := _section(file, service))), {})


def _section(file: Path, service: str) -> dict[str, str]:
    # libpq's files have no escapes, no values over several lines and no defaults.
    parser = configparser.RawConfigParser(
        delimiters=("=",), comment_prefixes=("#",), default_section="", strict=False
    )
    try:
        parser.read(file)
    except (configparser.Error, UnicodeDecodeError, OSError):
        return {}  # the driver will say what is wrong with it
    return dict(parser[service]) if service in parser else {}


def requested(dialect: Dialect, meant: ServerTarget) -> RequestedDatabase:
    """Return the database that arguments mean, as the core knows it."""
    return RequestedDatabase(
        dialect, "postgresql", meant.name, database=meant.database, login=meant.login
    )


def _login(user: Any, password: Any) -> ServerLogin | None:
    return ServerLogin(str(user), str(password or "")) if user else None


# By preference, where no engine has said: the async driver most apps have, then those for all.
DRIVERS = ("asyncpg", "psycopg", "psycopg2")


def target(driver: str, args: Any, kwargs: dict[str, Any]) -> ServerTarget:
    """Return the servers and the database that are meant.

    Raises:
        Exception: the driver's own, for a string that it cannot read.
    """
    if driver == "asyncpg":
        return _asyncpg_target(args, kwargs)
    return _libpq_target(driver, args, kwargs)


def lead(
    driver: str, address: Address, args: list[Any], kwargs: dict[str, Any]
) -> None:
    """Put an address in the place of the one that is meant; the session stays as the app wants it.

    The user is the address's: who that is, ``_roles`` says. Of the environment's variables
    only those that say nothing of the server are still read, and, where the address has no
    password, those that know one.
    """
    if driver == "asyncpg":
        _asyncpg_lead(address, args, kwargs)
    else:
        _libpq_lead(driver, address, args, kwargs)


def address_for(target: ConnectTarget, login: ServerLogin | None) -> Address:
    """Return the address of a target with the role for a login of the app.

    A build connects with pytest-arena's login.
    """
    address = cast("Address", target.address)
    if target.database is None:
        return address
    product: Any = target.database.product  # importing its type is a cycle
    role: ServerLogin | None = product.roles.login_of(
        target.database, login, address.database
    )
    return address.as_(role) if role else address


def bound_locks(driver: str, seconds: float, kwargs: dict[str, Any]) -> None:
    """Have a statement wait only so long for a lock, unless the app's own settings say how long.

    From the connection's start on: to set it costs no round trip.
    """
    bound = f"{seconds * 1000:.0f}"
    if driver == "asyncpg":
        kwargs["server_settings"] = {"lock_timeout": bound} | (
            kwargs.get("server_settings") or {}
        )
    else:
        kwargs["options"] = f"-c lock_timeout={bound} {kwargs.get('options') or ''}"


def is_redirected(driver: str, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether the arguments were led to the arena, and nobody has led them elsewhere since."""
    host = kwargs.get("host")
    return (
        isinstance(host, RedirectedHost) and target(driver, args, kwargs) == host.target
    )


def name_outright(driver: str, address: Address, kwargs: dict[str, Any]) -> None:
    """Say the server and the database of an address that is meant already; keep the login."""
    if driver != "asyncpg":
        kwargs.pop("database", None)
        kwargs["hostaddr"] = ""
    database = "database" if driver == "asyncpg" else "dbname"
    kwargs.update(
        {
            "host": RedirectedHost.to(address),
            "port": address.port,
            database: address.database,
        }
    )


# asyncpg

# What the query of a DSN may say of the server; all else there are settings of the session.
_ASYNCPG_SERVER = {
    *("host", "port", "user", "password", "passfile", "dbname", "database", "service"),
    *(
        "sslmode",
        "sslcert",
        "sslkey",
        "sslrootcert",
        "sslcrl",
        "sslpassword",
        "sslnegotiation",
    ),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs"),
    *("krbsrvname", "gsslib"),
}
# Where asyncpg tries to find a server that nobody names: on this machine.
_ASYNCPG_USUAL = [
    "/run/postgresql",
    "/var/run/postgresql",
    "/tmp",  # noqa: S108 - a name, no file is made
    "/private/tmp",
    "localhost",
]


def _asyncpg_target(args: Any, kwargs: dict[str, Any]) -> ServerTarget:
    """Return which database is meant, by asyncpg's own function, so that both mean the same.

    Raises:
        Exception: asyncpg's own, for what it cannot read.
    """
    read: Any = import_module("asyncpg.connect_utils")._parse_connect_dsn_and_args  # noqa: SLF001 - nothing public tells it
    given = {name: kwargs.get(name) for name in signature(read).parameters}
    # Said outright: no file of passwords or certificates is looked into.
    unread = {"password": "", "ssl": False, "direct_tls": False}
    given |= {"dsn": _dsn(args, kwargs)} | {
        key: unread[key] for key in unread if key in given
    }
    addresses, found = read(**given)
    hosts = [_asyncpg_host(address) for address in addresses]
    if [host for host, _ in hosts] == _ASYNCPG_USUAL:
        hosts = hosts[-1:]
    dsn = urlparse(_dsn(args, kwargs))
    user = kwargs.get("user") or unquote(dsn.username or "")
    login = _login(user, kwargs.get("password") or unquote(dsn.password or ""))
    return ServerTarget(tuple(hosts), found.database or found.user, login)


def _asyncpg_host(address: Any) -> tuple[str, str]:
    host, port = (
        address if isinstance(address, tuple) else address.rsplit("/.s.PGSQL.", 1)
    )
    return str(host), str(port)


def _asyncpg_lead(address: Address, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Put another address in the place of the one that is meant, and keep the session as it is."""
    query = parse_qsl(urlparse(_dsn(args, kwargs)).query)
    settings = {name: value for name, value in query if name not in _ASYNCPG_SERVER}
    if settings or kwargs.get("server_settings"):
        kwargs["server_settings"] = {
            **settings,
            **(kwargs.get("server_settings") or {}),
        }
    args[:1] = [None] if args else []
    for key in ("dsn", "passfile", "service", "servicefile"):
        kwargs.update({key: None} if key in kwargs else {})
    kwargs |= {
        "host": RedirectedHost.to(address),
        "port": address.port,
        "user": address.user,
        "password": address.password or None,
        "database": address.database,
        "ssl": False if is_here(address.host) else "prefer",
        "direct_tls": False,
        "target_session_attrs": "any",
    }


def _dsn(args: Any, kwargs: Mapping[str, Any]) -> str:
    return str((args[0] if args else kwargs.get("dsn")) or "")


# libpq

_VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "dbname": "PGDATABASE",
}
# What a string or a service file may say of the session: it holds on any server.
_LIBPQ_SESSION = {
    *(
        "application_name",
        "client_encoding",
        "connect_timeout",
        "fallback_application_name",
    ),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    *("options", "replication", "tcp_user_timeout"),
}
# The drivers' own words for it.
_LIBPQ_TEXTS = {"database", "dsn", "conninfo"}
# Said outright, each keeps a variable of the environment from being read: PGHOSTADDR, PGOPTIONS, …
_OUTRIGHT = {
    "hostaddr": "",
    "options": "",
    "target_session_attrs": "any",
    "load_balance_hosts": "disable",
    "sslnegotiation": "postgres",
    "sslrootcert": "",
    "sslcertmode": "allow",
    "requirepeer": "",
    # Any of them: an empty one would refuse a server that asks for a password.
    "require_auth": "none,password,md5,scram-sha-256,gss,sspi",
    "channel_binding": "prefer",
    "gssencmode": "disable",
    "min_protocol_version": "3.0",
}


def _libpq_target(driver: str, args: Any, kwargs: dict[str, Any]) -> ServerTarget:
    """Return which database is meant.

    Raises:
        Exception: the driver's own, for a string that it cannot read.
    """
    return libpq_target(_libpq_given(driver, args, kwargs), os.environ)


def libpq_target(
    given: Mapping[str, Any], environment: Mapping[str, str]
) -> ServerTarget:
    """Return which database is meant: by settings, service, environment, default, in this order."""
    variables = {
        key: environment[name]
        for key, name in _VARIABLES.items()
        if name in environment
    }
    named = {**_service_settings(given, environment), **given}
    said = {**variables, **named}
    database = str(said.get("dbname") or said.get("user") or _os_user())
    login = _login(named.get("user"), named.get("password"))
    return ServerTarget(_libpq_hosts(said), database, login)


def _libpq_lead(
    driver: str, address: Address, args: list[Any], kwargs: dict[str, Any]
) -> None:
    """Put another address in the place of the one that is meant, and keep the session as it is."""
    given = _libpq_given(driver, args, kwargs)
    service = _service_settings(given) if given.get("service") else {}
    session = {
        key: value
        for key, value in {**service, **given}.items()
        if key in _LIBPQ_SESSION
    }
    # What else libpq knows says something of the server and the way to it: of the app's own.
    for key in [*kwargs]:
        if key in _LIBPQ_TEXTS or (key not in _LIBPQ_SESSION and _knows(driver, key)):
            del kwargs[key]
    if args:
        args[0] = ""
    outright = {key: value for key, value in _OUTRIGHT.items() if _knows(driver, key)}
    kwargs.update(outright | session)
    kwargs |= {
        "host": RedirectedHost.to(address),
        "port": address.port,
        "user": address.user,
        "dbname": address.database,
        "sslmode": "disable" if is_here(address.host) else "prefer",
    }
    kwargs |= {"password": address.password} if address.password else {}


def _libpq_given(driver: str, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    text = args[0] if args else kwargs.get("conninfo", kwargs.get("dsn"))
    named = {key: value for key, value in kwargs.items() if value is not None}
    if "database" in named:  # psycopg2's other word for it
        named["dbname"] = named.pop("database")
    return {**(_taken_apart(driver, text) if text else {}), **named}


def _taken_apart(driver: str, text: Any) -> dict[str, Any]:
    # By libpq itself, so that both mean the same. The driver is there: it is being called.
    if driver == "psycopg":
        return dict(sys.modules["psycopg.conninfo"].conninfo_to_dict(text))
    return dict(sys.modules["psycopg2.extensions"].parse_dsn(text))


@cache
def _knows(driver: str, keyword: str) -> bool:
    """Whether the libpq of a driver is new enough for a keyword."""
    try:
        _taken_apart(driver, f"{keyword}=''")
    except Exception as error:
        if (
            type(error).__name__ != "ProgrammingError"
        ):  # of a module that is not ours to import
            raise
        return False
    return True


def _libpq_hosts(said: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    names, numbers, ports = (
        _libpq_listed(said.get(key)) for key in ("host", "hostaddr", "port")
    )
    count = max(len(names), len(numbers))
    ports = ports * count if len(ports) == 1 else ports
    rows = zip(
        *(_filled(values, count) for values in (names, numbers, ports)), strict=True
    )
    # The number is what is connected to; the name beside it is for certificates.
    return tuple(
        (number or name or "localhost", port or _PORT) for name, number, port in rows
    )


def _libpq_listed(value: Any) -> list[str]:
    # A RedirectedHost stays what it is.
    return str(value).split(",") if value is not None else [""]


def _filled(values: list[str], count: int) -> list[str]:
    return [*values, *[""] * count][:count]
