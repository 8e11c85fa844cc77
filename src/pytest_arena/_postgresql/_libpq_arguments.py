"""What do arguments in libpq's language mean? psycopg and psycopg2 speak it.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql._target import (
    DEFAULT_PORT,
    Led,
    Target,
    is_here,
    os_user,
    service_settings,
)

if TYPE_CHECKING:
    from pytest_arena._values import Address

__all__ = ["lead", "target"]

_VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "dbname": "PGDATABASE",
}
# What a string or a service file may say of the session: it holds on any server.
_OF_THE_SESSION = {
    *("application_name", "client_encoding", "connect_timeout", "fallback_application_name"),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    *("options", "replication", "tcp_user_timeout"),
}
# And what keywords say of the server and the way to it: it holds for the app's own alone.
_OF_THE_SERVER = {
    *("host", "hostaddr", "port", "user", "password", "passfile", "dbname", "database"),
    *("service", "servicefile", "dsn", "conninfo", "target_session_attrs", "load_balance_hosts"),
    *("requiressl", "sslmode", "sslnegotiation", "sslcompression", "sslcert", "sslkey"),
    *("sslcertmode", "sslpassword", "sslrootcert", "sslcrl", "sslcrldir", "sslsni"),
    *("sslkeylogfile", "ssl_min_protocol_version", "ssl_max_protocol_version"),
    *("requirepeer", "require_auth", "channel_binding", "gssencmode", "gssdelegation"),
    *("krbsrvname", "gsslib", "min_protocol_version", "max_protocol_version"),
    *("scram_client_key", "scram_server_key"),
    *("oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope"),
}
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


def target(driver: str, args: Any, kwargs: dict[str, Any]) -> Target:
    """Return which database is meant: by arguments, service, environment, default, in this order.

    Raises:
        Exception: the driver's own, for a string that it cannot read.
    """
    given = _given(driver, args, kwargs)
    variables = {key: os.environ[name] for key, name in _VARIABLES.items() if name in os.environ}
    said = {**variables, **service_settings(given), **given}
    return Target(_hosts(said), str(said.get("dbname") or said.get("user") or os_user()))


def lead(driver: str, address: Address, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Put another address in the place of the one that is meant, and keep the session as it is."""
    given = _given(driver, args, kwargs)
    service = service_settings(given) if given.get("service") else {}
    session = {key: value for key, value in {**service, **given}.items() if key in _OF_THE_SESSION}
    for key in _OF_THE_SERVER:
        kwargs.pop(key, None)
    if args:
        args[0] = ""
    outright = {key: value for key, value in _OUTRIGHT.items() if _knows(driver, key)}
    kwargs.update(outright | session | _of(address))


def _of(address: Address) -> dict[str, Any]:
    named = {
        "host": Led.to(address),
        "port": address.port,
        "user": address.user,
        "dbname": address.database,
        "sslmode": "disable" if is_here(address) else "prefer",
    }
    return named | ({"password": address.password} if address.password else {})


def _given(driver: str, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
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
        if type(error).__name__ != "ProgrammingError":  # of a module that is not ours to import
            raise
        return False
    return True


def _hosts(said: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    names, numbers, ports = (_listed(said.get(key)) for key in ("host", "hostaddr", "port"))
    count = max(len(names), len(numbers))
    ports = ports * count if len(ports) == 1 else ports
    rows = zip(*(_filled(one, count) for one in (names, numbers, ports)), strict=True)
    # The number is what is connected to; the name beside it is for certificates.
    return tuple(
        (number or name or "localhost", port or DEFAULT_PORT) for name, number, port in rows
    )


def _listed(value: Any) -> list[str]:
    # A Led stays what it is.
    return str(value).split(",") if value is not None else [""]


def _filled(values: list[str], count: int) -> list[str]:
    return [*values, *[""] * count][:count]
