"""Who answers at an address, and may arena work there?

It must be a PostgreSQL, new enough, and let the role create databases.
"""

from __future__ import annotations

import socket
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import (
    Control,
    ControlFailure,
    identifier,
    open_control,
)
from pytest_arena._postgresql.servers import Server, Unavailable
from pytest_arena._postgresql.servers._keeper import WELCOME, NotPostgreSQL, Wire
from pytest_arena._postgresql.servers._programs import OLDEST
from pytest_arena.errors import redact

if TYPE_CHECKING:
    from pytest_arena._values import Address


# One row: what the server is, and what this role may do on it.
_LOGIN = """
SELECT version(), current_setting('server_version_num'), current_setting('server_version'),
       rolcreatedb OR rolsuper, pg_is_in_recovery()
FROM pg_catalog.pg_roles WHERE rolname = current_user
"""
_KNOCK_SECONDS = 2.0
_FULL = "53300"
_NO_DATABASE = "3D000"


class Answer(Enum):
    """What a first message is answered with: the words are for where there is no PostgreSQL."""

    OPEN = "logged in without a password"
    PASSWORD = "asks for a password"  # noqa: S105 - an answer, not a password
    REFUSED = "says no"
    FOREIGN = "what answers on {0.server} is not PostgreSQL"
    SILENT = "nothing answers on {0.server}"
    NO_HOST = "there is no host {0.host}"


@dataclass(frozen=True, slots=True)
class Knocked:
    """An answer, with PostgreSQL's code and words where it said no."""

    answer: Answer
    sqlstate: str = ""
    text: str = ""


def knock(address: Address, *, seconds: float) -> Knocked:
    """Begin a login, look at the first answer, and leave."""
    try:
        wire = _connect(address, seconds)
    except socket.gaierror as error:
        return Knocked(Answer.NO_HOST, text=error.strerror or str(error))
    except OSError as error:
        return Knocked(
            Answer.SILENT, text=error.strerror or str(error) or type(error).__name__
        )
    try:
        wire.log_in(address.user, address.database)
        return _read(*wire.receive())
    except TimeoutError:
        # A server of another kind waits for words of its own protocol.
        return Knocked(Answer.FOREIGN, text="it says nothing")
    except (NotPostgreSQL, OSError):
        return Knocked(Answer.FOREIGN)
    finally:
        wire.close()


def _connect(address: Address, seconds: float) -> Wire:
    if address.is_socket:
        return Wire(
            socket.AF_UNIX, f"{address.host}/.s.PGSQL.{address.port}", seconds=seconds
        )
    refused = OSError("it has no address")
    places = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    for family, _, _, _, target in places:
        try:
            return Wire(family, target, seconds=seconds)
        except OSError as error:
            refused = error
    raise refused


def _read(kind: bytes, body: bytes) -> Knocked:
    if kind == b"R":
        return Knocked(Answer.OPEN if (kind, body) == WELCOME else Answer.PASSWORD)
    if kind == b"E" and body[:1].isalpha():
        parts = (part.decode(errors="replace") for part in body.split(b"\0") if part)
        fields = {part[0]: part[1:] for part in parts}
        return Knocked(Answer.REFUSED, fields.get("C", ""), fields.get("M", ""))
    return Knocked(Answer.FOREIGN)


class Elsewhere(Unavailable):
    """Another database or role will not do: it is the server itself that cannot be used."""


def enter(address: Address, where: str) -> Server:
    """Log in, ask, and leave. Nothing is changed on the server. ``where`` follows its version.

    Raises:
        Unavailable: why arena cannot work there.
    """
    try:
        with closing(open_control(address)) as control:
            return Server(address, f"PostgreSQL {_version(control, address)}{where}")
    except ControlFailure as failed:
        raise refusal(
            address, knock(address, seconds=_KNOCK_SECONDS), failed
        ) from failed


def _version(control: Control, address: Address) -> str:
    product, number, version, may_create, is_standby = control.rows(_LOGIN)[0]
    major = int(number) // 10000
    if not product.startswith("PostgreSQL"):
        raise Elsewhere(f"{address.server} is {product.split(' (')[0]}, not PostgreSQL")
    if major < OLDEST:
        raise Elsewhere(
            f"the server on {address.server} is PostgreSQL {version}, and arena needs {OLDEST}"
            " or newer",
            fix=f"use a newer server, for example: docker run -p 5433:5432 postgres:{OLDEST + 4}",
        )
    if is_standby:
        raise Elsewhere(
            f"the server on {address.server} is a standby, which is read-only"
        )
    if not may_create:
        raise Unavailable(
            f"role {address.user} on {address.server} may not create databases",
            fix=f"ALTER ROLE {identifier(address.user)} CREATEDB",
        )
    return str(version).split(" ", maxsplit=1)[0]


def refusal(address: Address, knocked: Knocked, failed: ControlFailure) -> Unavailable:
    """Word why a login failed.

    How much a driver knows of it depends on the driver: so the server was asked once more.
    """
    if knocked.answer in {Answer.FOREIGN, Answer.SILENT, Answer.NO_HOST}:
        text = f" ({knocked.text})" if knocked.text else ""
        return Elsewhere(knocked.answer.value.format(address) + text)
    state = failed.sqlstate or knocked.sqlstate
    if state == _FULL:
        return Elsewhere(
            f"the server on {address.server} has no connection free: {_words(knocked, failed)}",
            fix="close other clients, or raise max_connections in its postgresql.conf",
        )
    if state == _NO_DATABASE:
        return Unavailable(
            f'there is no database "{address.database}" on {address.server}'
        )
    if knocked.answer is not Answer.PASSWORD or state not in {"", "28P01"}:
        reason = (
            f"{address.server} refuses role {address.user}: {_words(knocked, failed)}"
        )
    elif not address.password:
        reason = f"{address.server} asks for a password of role {address.user}, and none was given"
    elif failed.sqlstate or "password" in str(failed):
        reason = f"{address.server} refuses the password of role {address.user}"
    else:
        reason = f"{address.server} refuses role {address.user}: {_words(None, failed)}"
    return Unavailable(reason)


def _words(knocked: Knocked | None, failed: ControlFailure) -> str:
    if knocked and knocked.text:
        return redact(knocked.text)
    return redact((str(failed).strip().splitlines() or ["no reason"])[-1])
