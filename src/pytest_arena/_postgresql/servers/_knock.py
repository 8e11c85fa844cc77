"""Who answers at an address, and what does it say before anybody has logged in?"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql.servers._keeper import WELCOME, NotPostgreSQL, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._values import Address

__all__ = ["Answer", "Knocked", "knock"]


class Answer(Enum):
    """What a first message is answered with."""

    OPEN = "logged in without a password"
    PASSWORD = "asks for a password"  # noqa: S105 - an answer, not a password
    REFUSED = "says no"
    FOREIGN = "is not PostgreSQL"
    SILENT = "does not answer"
    NO_HOST = "is no host"


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
        return Knocked(Answer.SILENT, text=error.strerror or str(error) or type(error).__name__)
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
    refused: OSError | None = None
    for family, target in _targets(address):
        try:
            return Wire(family, target, seconds=seconds)
        except OSError as error:
            refused = error
    raise refused or OSError("it has no address")


def _targets(address: Address) -> Iterator[tuple[int, Any]]:
    if address.is_socket:
        yield socket.AF_UNIX, f"{address.host}/.s.PGSQL.{address.port}"
        return
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    yield from ((family, target) for family, _, _, _, target in found)


def _read(kind: bytes, body: bytes) -> Knocked:
    if kind == b"R":
        return Knocked(Answer.OPEN if (kind, body) == WELCOME else Answer.PASSWORD)
    if kind == b"E" and body[:1].isalpha():
        parts = (part.decode(errors="replace") for part in body.split(b"\0") if part)
        fields = {part[0]: part[1:] for part in parts}
        return Knocked(Answer.REFUSED, fields.get("C", ""), fields.get("M", ""))
    return Knocked(Answer.FOREIGN)
