"""Checks the version of a server and the rights of the role."""

from __future__ import annotations

import socket
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import (
    TOO_MANY_CONNECTIONS,
    Control,
    ControlFailure,
    identifier,
    open_control,
)
from pytest_arena._postgresql.servers._postgresql_wire import (
    WELCOME,
    NotPostgreSQL,
    Wire,
)
from pytest_arena._postgresql.servers._programs import OLDEST
from pytest_arena._product.servers import Server, Unavailable
from pytest_arena.errors import redact

if TYPE_CHECKING:
    from pytest_arena._values import Address


# One row: the server's product and version, and the role's rights.
_LOGIN = """
SELECT version(), current_setting('server_version_num'), current_setting('server_version'),
       rolcreatedb OR rolsuper, pg_is_in_recovery()
FROM pg_catalog.pg_roles WHERE rolname = current_user
"""
_KNOCK_SECONDS = 2.0

_NO_DATABASE = "3D000"


class Answer(Enum):
    """A server's answer to the first message of a login."""

    OPEN = "logged in without a password"
    PASSWORD = "asks for a password"  # noqa: S105 - an answer, not a password
    REFUSED = "refuses the login"
    FOREIGN = "the server on {0.server} is not PostgreSQL"
    SILENT = "nothing answers on {0.server}"
    NO_HOST = "the host {0.host} does not exist"


@dataclass(frozen=True, slots=True)
class Knocked:
    """An answer. If PostgreSQL refused, it has the SQLSTATE and the message."""

    answer: Answer
    sqlstate: str = ""
    text: str = ""


def knock(address: Address, *, seconds: float) -> Knocked:
    """Begin a login, read the first answer, and disconnect."""
    try:
        wire = _connect(address, seconds)
    except socket.gaierror as error:
        return Knocked(Answer.NO_HOST, text=error.strerror or str(error))
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        return Knocked(Answer.SILENT, text=reason)
    try:
        wire.log_in(address.user, address.database)
        return _read(*wire.receive())
    except TimeoutError:
        # Another product waits for a message of its protocol.
        return Knocked(Answer.FOREIGN, text="it sends no message")
    except (NotPostgreSQL, OSError):
        return Knocked(Answer.FOREIGN)
    finally:
        wire.close()


def _connect(address: Address, seconds: float) -> Wire:
    if address.is_socket:
        path = f"{address.host}/.s.PGSQL.{address.port}"
        return Wire(socket.AF_UNIX, path, seconds=seconds)
    failure = OSError("it has no address")
    targets = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    for family, _, _, _, target in targets:
        try:
            return Wire(family, target, seconds=seconds)
        except OSError as error:
            failure = error
    raise failure


def _read(kind: bytes, body: bytes) -> Knocked:
    if kind == b"R":
        return Knocked(Answer.OPEN if (kind, body) == WELCOME else Answer.PASSWORD)
    if kind == b"E" and body[:1].isalpha():
        parts = (part.decode(errors="replace") for part in body.split(b"\0") if part)
        fields = {part[0]: part[1:] for part in parts}
        return Knocked(Answer.REFUSED, fields.get("C", ""), fields.get("M", ""))
    return Knocked(Answer.FOREIGN)


class Elsewhere(Unavailable):
    """The server cannot be used with any database and role."""


class CreatesNone(Unavailable):
    """The role may not create databases. ``server`` can be used without that right."""

    def __init__(self, server: Server) -> None:
        address = server.address
        super().__init__(
            f"role {address.user} on {address.server} may not create databases",
            fix=f"ALTER ROLE {identifier(address.user)} CREATEDB",
        )
        self.server = server

    def suggest_rollback(self) -> None:
        """Add to the next step that tests may use the named database."""
        name = self.server.address.database
        self.fix += (
            "\nor arena_isolation = rollback   "
            f"(tests use {name} itself, and never commit there)"
        )


def enter(address: Address, where: str) -> Server:
    """Log in and check the server, without changing it. ``where`` follows its version.

    Raises:
        Unavailable: pytest-arena cannot use the server.
    """
    try:
        with closing(open_control(address)) as control:
            version, may_create = _checked(control, address)
    except ControlFailure as error:
        knocked = knock(address, seconds=_KNOCK_SECONDS)
        raise refusal(address, knocked, error) from error
    server = Server(address, f"PostgreSQL {version}{where}")
    if not may_create:
        raise CreatesNone(server)
    return server


def _checked(control: Control, address: Address) -> tuple[str, bool]:
    """Return the server's version, and whether the role may create databases."""
    product, number, version, may_create, is_standby = control.rows(_LOGIN)[0]
    major = int(number) // 10000
    if not product.startswith("PostgreSQL"):
        raise Elsewhere(f"{address.server} is {product.split(' (')[0]}, not PostgreSQL")
    if major < OLDEST:
        raise Elsewhere(
            f"the server on {address.server} is PostgreSQL {version}, and pytest-arena needs "
            f"{OLDEST} or newer",
            fix=f"use a newer server, for example: docker run -p 5433:5432 postgres:{OLDEST + 4}",
        )
    if is_standby:
        raise Elsewhere(
            f"the server on {address.server} is a standby, which is read-only"
        )
    return str(version).split(" ", maxsplit=1)[0], bool(may_create)


def refusal(address: Address, knocked: Knocked, error: ControlFailure) -> Unavailable:
    """Return why a login failed. libpq reports no SQLSTATE, but ``knocked`` has it."""
    if knocked.answer in {Answer.FOREIGN, Answer.SILENT, Answer.NO_HOST}:
        text = f" ({knocked.text})" if knocked.text else ""
        return Elsewhere(knocked.answer.value.format(address) + text)
    state = error.sqlstate or knocked.sqlstate
    if state == TOO_MANY_CONNECTIONS:
        return Elsewhere(
            f"the server on {address.server} has no free connection: {_words(knocked, error)}",
            fix="close other clients, or raise max_connections in its postgresql.conf",
        )
    if state == _NO_DATABASE:
        return Unavailable(
            f'the database "{address.database}" does not exist on {address.server}'
        )
    if knocked.answer is not Answer.PASSWORD or state not in {"", "28P01"}:
        reason = (
            f"{address.server} refuses role {address.user}: {_words(knocked, error)}"
        )
    elif not address.password:
        reason = f"{address.server} asks for a password of role {address.user}, and none was given"
    elif error.sqlstate or "password" in str(error):
        reason = f"{address.server} refuses the password of role {address.user}"
    else:
        reason = f"{address.server} refuses role {address.user}: {_words(None, error)}"
    return Unavailable(reason)


def _words(knocked: Knocked | None, error: ControlFailure) -> str:
    if knocked and knocked.text:
        return redact(knocked.text)
    lines = str(error).strip().splitlines()
    return redact(lines[-1] if lines else "no reason")
