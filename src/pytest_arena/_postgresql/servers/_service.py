"""A PostgreSQL that runs on this machine anyway."""

from __future__ import annotations

import getpass
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import Failed
from pytest_arena._postgresql.servers._base import Found, Server, Unavailable, Wanted
from pytest_arena._postgresql.servers._entrance import Elsewhere, Entered, enter, refusal
from pytest_arena._postgresql.servers._knock import Answer, knock
from pytest_arena._values import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ServiceSource"]

_SOCKETS = ("/var/run/postgresql", "/run/postgresql", "/tmp")  # noqa: S108 - where servers put theirs
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_PORT = 5432
# On this machine an answer takes a millisecond; a busy one may take some more.
_KNOCK_SECONDS = 1.0


class ServiceSource:
    """Tried as PGUSER, as the user of the system, as ``postgres``; on the sockets and by TCP."""

    name = "a local service"

    def find(self, wanted: Wanted) -> Server:
        """Return the first that lets one of them create databases."""
        if wanted.own:
            raise Unavailable("not asked for, a private server is")
        reasons = dict.fromkeys(_another_machine())
        for host, port in _places():
            try:
                entered = _enter(host, port)
            except Unavailable as reason:
                reasons[str(reason)] = None
            else:
                where = f"a local service on {entered.address.server}"
                return Found(entered.address, f"PostgreSQL {entered.version}, {where}")
        raise Unavailable("; ".join(reasons))


def _another_machine() -> Iterator[str]:
    # It may be anybody's: a server elsewhere is used only if it is named for the tests.
    if (host := os.environ.get("PGHOST", "")) and not _is_here(host):
        yield f"PGHOST={host} is another machine, which is used only if arena_database names it"


def _is_here(host: str) -> bool:
    return host.startswith("/") or host in _LOOPBACK


def _places() -> Iterator[tuple[str, int]]:
    port = _PORT
    with suppress(ValueError):
        port = int(os.environ.get("PGPORT", _PORT))
    if (host := os.environ.get("PGHOST", "")) and _is_here(host):
        yield host, port
        return
    files = (Path(folder, f".s.PGSQL.{port}") for folder in _SOCKETS if hasattr(os, "getuid"))
    # /var/run is /run on most systems: one socket is asked once.
    folders: dict[Path, str] = {}
    for file in files:
        if file.exists():
            folders.setdefault(file.resolve(), str(file.parent))
    yield from ((folder, port) for folder in folders.values())
    yield "127.0.0.1", port


def _enter(host: str, port: int) -> Entered:
    reasons: list[str] = []
    for user in _users():
        try:
            return _enter_as(Address("postgresql", host, port, user, "postgres", _password()))
        except Elsewhere:
            raise
        except Unavailable as reason:
            reasons.append(str(reason))
    raise Unavailable("; ".join(reasons))


def _enter_as(address: Address) -> Entered:
    # A driver waits ten seconds for what does not answer, and takes longer to say no.
    knocked = knock(address, seconds=_KNOCK_SECONDS)
    if knocked.answer in {Answer.OPEN, Answer.PASSWORD}:
        return enter(address)
    raise refusal(address, knocked, Failed(knocked.text, knocked.sqlstate))


def _users() -> Iterator[str]:
    yield from dict.fromkeys(
        name for name in (os.environ.get("PGUSER", ""), _own_name(), "postgres") if name
    )


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return ""


def _password() -> str:
    return os.environ.get("PGPASSWORD", "")
