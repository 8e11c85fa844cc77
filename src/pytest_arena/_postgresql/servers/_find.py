"""Finds the server for the test databases.

``arena_database`` may name the server by a URL. Without a URL, the server is a local service of
this machine. If no service can be used, it is a private server of installed programs or of a wheel.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from pytest_arena._postgresql import STANDARD_DATABASES
from pytest_arena._postgresql._control import TOO_MANY_CONNECTIONS, ControlFailure
from pytest_arena._postgresql.servers._entrance import (
    Answer,
    CreatesNone,
    Elsewhere,
    enter,
    knock,
    refusal,
)
from pytest_arena._postgresql.servers._programs import (
    folders,
    programs_of_wheel,
    read_programs,
)
from pytest_arena._product._server_targets import is_here, os_user
from pytest_arena._product.servers import (
    Server,
    Unavailable,
    check_system,
    first_usable,
    foreign_host,
    named_unusable,
)
from pytest_arena._values import TURN_SECONDS, Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._config._read import Config
    from pytest_arena._postgresql.servers._programs import PostgreSQLPrograms


_FORM = "ARENA_DATABASE=postgresql://user@host:5432/postgres pytest …"
_FIX = f"pip install 'pytest-arena[postgresql]'\nor {_FORM}"
_PORT = 5432
_USUAL_USER = "postgres"
# "" is the database of a URL without a database.
NAMES_NO_TEST_DATABASE = {"", *STANDARD_DATABASES}
_SOCKETS = ("/var/run/postgresql", "/tmp")  # noqa: S108 - the servers' default folders
_KNOCK_SECONDS = 1.0  # a local server answers within a millisecond


def find_server(config: Config) -> Server:
    """Return the server that ``arena_database`` names, or the first usable server.

    Raises:
        ServerError: no server can be used. The error lists each source and the reason.
    """
    if config.server_url:
        return _named_server(config)
    sources = {
        "a local service": local_service,
        "local binaries": installed_server,
        "a wheel": wheel_server,
    }
    return first_usable("PostgreSQL", sources, config, fix=_FIX)


def installed_server(config: Config) -> Server:
    """Return a private cluster of the first installed PostgreSQL that works."""
    check_system()
    reasons = []
    for folder in folders():
        try:
            return _private_server(read_programs(folder, str(folder)), config)
        except Unavailable as reason:
            reasons.append(str(reason))
    if not reasons:
        reasons.append(
            "no initdb: not in PGBIN, not by pg_config, not on PATH, not in the usual folders"
        )
    raise Unavailable("; ".join(reasons))


def wheel_server(config: Config) -> Server:
    """Return a private cluster of the programs in a Python package."""
    check_system()
    return _private_server(programs_of_wheel(), config)


def _private_server(programs: PostgreSQLPrograms, config: Config) -> Server:
    from pytest_arena._postgresql.servers._cluster import CLUSTERS  # noqa: PLC0415 - not on Windows

    return CLUSTERS.find(programs, cache=config.cache)


def local_service(config: Config) -> Server:
    """Return the first server of this machine that lets a usual role create databases.

    The roles are PGUSER, the user of the system, and ``postgres``. Sockets are tried before TCP.

    Raises:
        Unavailable: no such server exists, or ``arena_database = own``.
    """
    reasons = foreign_host(config, "PGHOST")
    for host, port in _local_places():
        try:
            return _service(host, port)
        except Unavailable as reason:
            reasons.append(str(reason))
    raise Unavailable("; ".join(dict.fromkeys(reasons)))


def _local_places() -> Iterator[tuple[str, int]]:
    port = _PORT
    with suppress(ValueError):
        port = int(os.environ.get("PGPORT", _PORT))
    host = os.environ.get("PGHOST", "")
    if host and is_here(host):
        yield host, port
        return
    for folder in _socket_folders(port):
        yield folder, port
    yield "127.0.0.1", port


def _socket_folders(port: int) -> list[str]:
    return [folder for folder in _SOCKETS if Path(folder, f".s.PGSQL.{port}").exists()]


def _service(host: str, port: int) -> Server:
    users = (os.environ.get("PGUSER", ""), os_user(), _USUAL_USER)
    password = os.environ.get("PGPASSWORD", "")
    reasons = []
    for user in filter(None, dict.fromkeys(users)):
        address = Address(
            "postgresql", host, port, user, "postgres", password, TURN_SECONDS
        )
        # libpq would wait ten seconds for a server that does not answer.
        knocked = knock(address, seconds=_KNOCK_SECONDS)
        may_enter = knocked.answer in {Answer.OPEN, Answer.PASSWORD}
        try:
            if may_enter or knocked.sqlstate == TOO_MANY_CONNECTIONS:
                return enter(address, f", a local service on {address.server}")
            failure = ControlFailure(knocked.text, knocked.sqlstate)
            raise refusal(address, knocked, failure)
        except Elsewhere:
            raise
        except Unavailable as reason:
            reasons.append(str(reason))
    raise Unavailable("; ".join(reasons))


def _named_server(config: Config) -> Server:
    """Log in to the database of the URL, or else to ``postgres`` or ``template1``.

    If the role may not create databases, ``rollback`` uses the URL's database itself.
    """
    try:
        named = replace(read_url(config.server_url), patience=TURN_SECONDS)
        return _enter_by_any(named)
    except CreatesNone as reason:
        refused: Unavailable = reason
        name = reason.server.address.database
        if name not in NAMES_NO_TEST_DATABASE:
            if config.isolation == "rollback":
                return replace(reason.server, is_named=True)
            reason.suggest_rollback()
    except Unavailable as reason:
        refused = reason
    raise named_unusable(config, refused, _FORM) from refused


def _enter_by_any(named: Address) -> Server:
    """Log in to the address's database, or else to a database that each server has.

    Raises:
        Unavailable: no database can be used. The error has the last reason, because the first may
            only be that the named database does not exist.
    """
    refused = Unavailable("")
    for name in dict.fromkeys((named.database or "postgres", "postgres", "template1")):
        try:
            where = f" on {named.server}, from arena_database"
            return enter(replace(named, database=name), where)
        except (CreatesNone, Elsewhere):
            raise
        except Unavailable as reason:
            refused = reason
    raise refused


def read_url(text: str) -> Address:
    """Read a URL of one server. libpq's variables replace missing parts of the URL.

    Raises:
        Unavailable: the URL names another product, or several hosts.
    """
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - the command `arena` does without it
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415 - as above

    try:
        url = make_url(text)
        default_port = url.port or os.environ.get("PGPORT", _PORT)
        options: dict[str, Any] = {"port": default_port, **url.query}
        port = int(options["port"])
    except (ArgumentError, ValueError) as error:
        raise Unavailable(
            "the URL cannot be read. pytest-arena needs a URL of one server"
        ) from error
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        raise Unavailable(f"{url.get_backend_name()} is not PostgreSQL's")
    host = options.get("host") or options.get("hostaddr") or unquote(url.host or "")
    if not isinstance(host, str) or "," in host:
        raise Unavailable("the URL names several hosts, and pytest-arena needs one")
    user = options.get("user") or url.username or os.environ.get("PGUSER")
    user = user or os_user()
    password = options.get("password") or url.password
    password = password or os.environ.get("PGPASSWORD", "")
    database = options.get("dbname") or url.database or ""
    host = host or os.environ.get("PGHOST") or [*_socket_folders(port), "localhost"][0]
    return Address("postgresql", host, port, user, database, password)
