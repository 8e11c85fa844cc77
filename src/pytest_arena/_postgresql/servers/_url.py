"""A server by its URL: in any form that SQLAlchemy or libpq reads."""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from pytest_arena._postgresql.servers._base import Found, Server, Unavailable, Wanted
from pytest_arena._postgresql.servers._entrance import Elsewhere, Entered, enter
from pytest_arena._values import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Url", "addresses", "read_url"]

_PORT = 5432
_SOCKETS = ("/var/run/postgresql", "/run/postgresql", "/tmp")  # noqa: S108 - where servers put theirs
_ENTRANCES = ("postgres", "template1")


@dataclass(frozen=True, slots=True)
class Url:
    """What a URL says. What it leaves open, libpq's variables say."""

    hosts: tuple[tuple[str, int], ...]
    user: str
    password: str
    database: str


class UrlSource:
    """The server that the user has named. Where one is named, nothing else is tried."""

    name = "the URL"

    def find(self, wanted: Wanted) -> Server:
        """Try its hosts in turn; on each, the database that it names, then the usual ones."""
        reasons: list[Unavailable] = []
        for group in addresses(read_url(wanted.url)):
            try:
                entered = _first(group)
            except Unavailable as reason:
                reasons.append(reason)
            else:
                where = f"on {entered.address.server}, from {wanted.place}"
                return Found(entered.address, f"PostgreSQL {entered.version} {where}")
        raise Unavailable("; ".join(map(str, reasons)), fix=reasons[0].fix)


def _first(group: list[Address]) -> Entered:
    reasons: list[Unavailable] = []
    for address in group:
        try:
            return enter(address)
        except Elsewhere:
            raise
        except Unavailable as reason:
            reasons.append(reason)
    # A missing database is not what the login failed for, where the next one fails too.
    raise reasons[-1]


def addresses(url: Url) -> Iterator[list[Address]]:
    """Give for each host what may be tried there, in this order."""
    databases = dict.fromkeys(name for name in (url.database, *_ENTRANCES) if name)
    for host, port in url.hosts:
        yield [
            Address("postgresql", host, port, url.user, name, url.password) for name in databases
        ]


def read_url(text: str) -> Url:
    """Read a URL.

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
    said = dict(query)
    return Url(
        hosts,
        said.get("user") or unquote(user) or os.environ.get("PGUSER") or getpass.getuser(),
        said.get("password") or unquote(password) or os.environ.get("PGPASSWORD", ""),
        said.get("dbname") or unquote(parts.path.lstrip("/")),
    )


def _hosts(places: str, query: list[tuple[str, str]]) -> Iterator[tuple[str, int]]:
    """The hosts before the path and in the query; the latter win, as with SQLAlchemy and libpq."""
    named = _listed(query, "host") or _listed(query, "hostaddr")
    places_named = named or [unquote(place) for place in places.split(",") if place]
    ports = _listed(query, "port")
    default = int(os.environ.get("PGPORT", _PORT))
    for number, place in enumerate(places_named or [_usual_host(default)]):
        host, port = _split(place)
        by_query = ports[min(number, len(ports) - 1)] if ports else ""
        yield host or _usual_host(default), int(port or by_query or default)


def _listed(query: list[tuple[str, str]], name: str) -> list[str]:
    return [part for key, value in query if key == name for part in value.split(",") if part]


def _split(place: str) -> tuple[str, str]:
    """Split ``host:port``. An IPv6 number with a port stands in brackets."""
    if place.count(":") > 1 and not place.startswith("["):
        return place, ""
    host, _, port = place.rpartition(":") if ":" in place.rpartition("]")[2] else (place, "", "")
    return host.strip("[]"), port


def _usual_host(port: int) -> str:
    sockets = (folder for folder in _SOCKETS if os.path.exists(f"{folder}/.s.PGSQL.{port}"))  # noqa: PTH110 - a name, not a path, is what comes out
    return os.environ.get("PGHOST") or next(sockets, "localhost")
