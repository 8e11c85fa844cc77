"""What do the arguments of asyncpg's connect call mean?

https://magicstack.github.io/asyncpg/current/api/index.html#asyncpg.connection.connect
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlparse

from pytest_arena._postgresql._target import (
    DEFAULT_PORT,
    Led,
    Target,
    is_here,
    os_user,
    service_settings,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_arena._values import Address

__all__ = ["lead", "target"]

# What the query of a DSN may say of the server; all else there are settings of the session.
_OF_THE_SERVER = {
    *("host", "port", "user", "password", "passfile", "dbname", "database", "service"),
    *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs"),
    *("krbsrvname", "gsslib"),
}
_FOLDER_AND_PORT = re.compile(r"(.*)/\.s\.PGSQL\.(\d+)")  # a socket may be named by its file


def target(args: Any, kwargs: dict[str, Any]) -> Target:
    """Return which database is meant: by arguments, DSN, service, environment, in this order."""
    layers = _layers(args, kwargs)
    user = _first(layers, "user") or os.environ.get("PGUSER") or os_user()
    named = _first(layers, "database", "dbname")
    database = os.environ.get("PGDATABASE") if named is None else named
    return Target(_hosts(layers), database or user)


def lead(address: Address, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Put another address in the place of the one that is meant, and keep the session as it is."""
    dsn = _dsn(args, kwargs)
    settings = {name: value for name, value in _query(dsn).items() if name not in _OF_THE_SERVER}
    if settings or kwargs.get("server_settings"):
        kwargs["server_settings"] = {**settings, **(kwargs.get("server_settings") or {})}
    args[:1] = [None] if args else []
    for key in ("dsn", "passfile", "service", "servicefile"):
        kwargs.update({key: None} if key in kwargs else {})
    kwargs.update(_of(address))


def _of(address: Address) -> dict[str, Any]:
    return {
        "host": Led.to(address),
        "port": address.port,
        "user": address.user,
        "password": address.password or None,
        "database": address.database,
        "ssl": False if is_here(address) else "prefer",
        "direct_tls": False,
        "target_session_attrs": "any",
    }


def _dsn(args: Any, kwargs: Mapping[str, Any]) -> str:
    return str((args[0] if args else kwargs.get("dsn")) or "")


def _query(dsn: str) -> dict[str, str]:
    return dict(parse_qsl(urlparse(dsn).query))


def _layers(args: Any, kwargs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is said at each place, the strongest first."""
    dsn = _dsn(args, kwargs)
    if not dsn:  # without one, asyncpg does not look for a service
        return [kwargs]
    query = _query(dsn)
    service = kwargs.get("service") or query.get("service")
    named = {"service": service, "servicefile": kwargs.get("servicefile")}
    return [kwargs, _place(dsn), query, service_settings(named) if service else {}]


def _place(dsn: str) -> dict[str, str]:
    """The user, the hosts and the database of a DSN. There may be several hosts in it."""
    parts = urlparse(dsn)
    login, at, hosts = parts.netloc.partition("@")
    said = {"host": hosts if at else login, "user": login.partition(":")[0] if at else ""}
    found = {name: text for name, text in said.items() if text}
    if parts.path:
        found["database"] = parts.path.removeprefix("/")
    return {name: text if name == "host" else unquote(text) for name, text in found.items()}


def _first(layers: list[Mapping[str, Any]], *keys: str) -> str | None:
    values = (layer.get(key) for layer in layers for key in keys)
    return next((str(value) for value in values if value is not None), None)


def _hosts(layers: list[Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    arguments, *others = layers
    hosts = _listed(arguments.get("host"))
    ports = _listed(arguments.get("port"))
    for layer in (*others, {"host": os.environ.get("PGHOST")}):
        ports = ports or _split(layer.get("port"))
        if not hosts:
            hosts, ports = _with_ports(_split(layer.get("host")), ports)
    ports = ports or _usual_ports()
    hosts = hosts or ["localhost"]  # after the folders in which a socket may be
    rows = zip(hosts, ports * len(hosts) if len(ports) == 1 else ports, strict=False)
    return tuple(_socket(host, port) for host, port in rows)


def _listed(value: Any) -> list[str]:
    if isinstance(value, list | tuple):
        return [str(one) for one in value]
    return [str(value)] if value else []


def _split(value: Any) -> list[str]:
    return str(value).split(",") if value else []


def _usual_ports() -> list[str]:
    return _split(os.environ.get("PGPORT")) or [DEFAULT_PORT]


def _with_ports(specs: list[str], ports: list[str]) -> tuple[list[str], list[str]]:
    """Hosts that may bring their ports along, unless ports were said before."""
    pairs = [_parted(spec) for spec in specs]
    usual = _usual_ports()
    usual = usual * len(pairs) if len(usual) == 1 else usual
    own = [port or default for (_, port), default in zip(pairs, usual, strict=False)]
    return [host for host, _ in pairs], ports or own


def _parted(spec: str) -> tuple[str, str]:
    if spec.startswith("/"):
        return unquote(spec), ""
    if (bracketed := re.match(r"\[([^\]]+)\](?::(\d+))?", spec)) is not None:
        return bracketed[1], bracketed[2] or ""
    host, _, port = spec.partition(":")
    return unquote(host), unquote(port)


def _socket(host: str, port: str) -> tuple[str, str]:
    file = _FOLDER_AND_PORT.fullmatch(host)
    return (file[1], file[2]) if file else (host, port)
