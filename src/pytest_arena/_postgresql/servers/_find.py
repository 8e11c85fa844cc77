"""Which server do the test databases live on?

The one that ``arena_database`` names by its URL; else a service that this machine runs anyway; else
a private server, from installed programs or a wheel's.
"""

from __future__ import annotations

import getpass
import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from pytest_arena._postgresql._arguments import is_here
from pytest_arena._postgresql._control import ControlFailure
from pytest_arena._postgresql.servers import Server, Unavailable
from pytest_arena._postgresql.servers._entrance import (
    Answer,
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
from pytest_arena._values import Address
from pytest_arena.errors import ServerError, redact_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._config._read import Config
    from pytest_arena._postgresql.servers._programs import Programs


_WHY = "arena makes a database for each test, on a server where it may create some"
_FORM = "ARENA_DATABASE=postgresql://user@host:5432/postgres pytest …"
_PORT, _USUAL_USER = 5432, "postgres"
_SOCKETS = ("/var/run/postgresql", "/tmp")  # noqa: S108 - where servers put theirs
# On this machine an answer takes a millisecond; a busy one may take some more.
_KNOCK_SECONDS = 1.0


def find_server(config: Config) -> Server:
    """Return the server that was asked for, or the first that there is.

    Raises:
        ServerError: it names every source that was tried, and why each failed.
    """
    if config.server_url:
        return _named_server(config)
    reasons: list[str] = []
    sources: tuple[tuple[str, Callable[[Config], Server]], ...] = (
        ("a local service", local_service),
        ("local binaries", installed_server),
        ("a wheel", wheel_server),
    )
    for name, find in sources:
        try:
            return find(config)
        except Unavailable as reason:
            reasons.append(f"{name}: {' '.join(str(reason).split())}")
    raise ServerError(
        "there is no PostgreSQL for the tests",
        why=_WHY,
        cause="\n".join(reasons),
        fix=f"pip install 'pytest-arena[postgresql]'\nor {_FORM}",
    )


def installed_server(config: Config) -> Server:
    """A private cluster, run by the first installed PostgreSQL that can."""
    _check_system()
    reasons: list[str] = []
    for folder in folders():
        try:
            return _private_server(read_programs(folder, str(folder)), config)
        except Unavailable as reason:
            reasons.append(str(reason))
    none = "no initdb: not in PGBIN, not by pg_config, not on PATH, not where systems put it"
    raise Unavailable("; ".join(reasons) or none)


def wheel_server(config: Config) -> Server:
    """A private cluster, run by the programs in a Python package."""
    _check_system()
    return _private_server(programs_of_wheel(), config)


def _check_system() -> None:
    if sys.platform == "win32":
        raise Unavailable("a private server listens on a socket alone: not for Windows")


def _private_server(programs: Programs, config: Config) -> Server:
    from pytest_arena._postgresql.servers._cluster import find_cluster  # noqa: PLC0415 - not on Windows

    return find_cluster(programs, cache=config.cache)


def local_service(config: Config) -> Server:
    """Return the first server of this machine that lets a usual role create databases.

    Tried as PGUSER, as the user of the system, as ``postgres``; on the sockets and by TCP.

    Raises:
        Unavailable: there is none, or none is wanted.
    """
    if config.database == "own":
        raise Unavailable("not asked for, a private server is")
    reasons: dict[str, None] = {}
    # It may be anybody's: a server elsewhere is used only if it is named for the tests.
    if (host := os.environ.get("PGHOST", "")) and not is_here(host):
        reasons[
            f"PGHOST={host} is another machine, which is used only if arena_database names it"
        ] = None
    for host, port in _places():
        try:
            return _service(host, port, config.turn_timeout)
        except Unavailable as reason:
            reasons[str(reason)] = None
    raise Unavailable("; ".join(reasons))


def _places() -> Iterator[tuple[str, int]]:
    port = _PORT
    with suppress(ValueError):
        port = int(os.environ.get("PGPORT", _PORT))
    if (host := os.environ.get("PGHOST", "")) and is_here(host):
        yield host, port
        return
    yield from ((folder, port) for folder in _socket_folders(port))
    yield "127.0.0.1", port


def _socket_folders(port: int) -> list[str]:
    return [folder for folder in _SOCKETS if Path(folder, f".s.PGSQL.{port}").exists()]


def _service(host: str, port: int, patience: float) -> Server:
    own_name = ""
    with suppress(KeyError, OSError):  # a container's user may have no name
        own_name = getpass.getuser()
    reasons: list[str] = []
    for user in dict.fromkeys((os.environ.get("PGUSER", ""), own_name, _USUAL_USER)):
        if not user:
            continue
        password = os.environ.get("PGPASSWORD", "")
        address = Address(
            "postgresql", host, port, user, "postgres", password, patience
        )
        # A driver waits ten seconds for what does not answer, and takes longer to say no.
        knocked = knock(address, seconds=_KNOCK_SECONDS)
        try:
            if (
                knocked.answer in {Answer.OPEN, Answer.PASSWORD}
                or knocked.sqlstate == "53300"
            ):
                return enter(address, f", a local service on {address.server}")
            raise refusal(
                address, knocked, ControlFailure(knocked.text, knocked.sqlstate)
            )
        except Elsewhere:
            raise
        except Unavailable as reason:
            reasons.append(str(reason))
    raise Unavailable("; ".join(reasons))


def _named_server(config: Config) -> Server:
    """Where one is named, nothing else is tried: by its URL's database, then the usual ones."""
    refused = Unavailable("")
    try:
        named = replace(read_url(config.server_url), patience=config.turn_timeout)
        for name in dict.fromkeys(
            (named.database or "postgres", "postgres", "template1")
        ):
            try:
                where = f" on {named.server}, from {config.places['database']}"
                return enter(replace(named, database=name), where)
            except Elsewhere:
                raise
            except Unavailable as reason:
                refused = reason
        # A missing database is not what the login failed for, where the next one fails too.
        raise refused
    except Unavailable as reason:
        raise ServerError(
            f"the server for the tests cannot be used: {reason}",
            why=_WHY,
            cause=f"{redact_url(config.server_url)} in {config.places['database']}",
            fix=reason.fix or _FORM,
        ) from reason


def read_url(text: str) -> Address:
    """Read a URL of one server. What it leaves open, libpq's variables say.

    Raises:
        Unavailable: it is none of PostgreSQL's, or one of several servers.
    """
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - the command `arena` does without it
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415 - as above

    try:
        url = make_url(text)
        usual = url.port or os.environ.get("PGPORT", _PORT)
        asked: dict[str, Any] = {"port": usual, **url.query}
        port = int(asked["port"])
    except (ArgumentError, ValueError) as error:
        raise Unavailable(
            "the URL cannot be read; arena needs that of one server"
        ) from error
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        raise Unavailable(f"{url.get_backend_name()} is not PostgreSQL's")
    host = asked.get("host") or asked.get("hostaddr") or unquote(url.host or "")
    if not isinstance(host, str) or "," in host:
        raise Unavailable("the URL names several hosts, and arena needs one")
    user = (
        asked.get("user")
        or url.username
        or os.environ.get("PGUSER")
        or getpass.getuser()
    )
    password = asked.get("password") or url.password or os.environ.get("PGPASSWORD", "")
    database = asked.get("dbname") or url.database or ""
    host = host or os.environ.get("PGHOST") or [*_socket_folders(port), "localhost"][0]
    return Address("postgresql", host, port, user, database, password)
