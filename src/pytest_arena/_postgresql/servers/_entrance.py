"""May arena work on this server? It must be a PostgreSQL, new enough, and let the role create."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import Control, Failed, open_control
from pytest_arena._postgresql._server import ABOUT_LOGIN, let_create
from pytest_arena._postgresql.servers._base import Unavailable
from pytest_arena._postgresql.servers._knock import Answer, Knocked, knock
from pytest_arena._postgresql.servers._programs import OLDEST
from pytest_arena.errors import redact

if TYPE_CHECKING:
    from pytest_arena._values import Address

__all__ = ["OLDEST", "Elsewhere", "Entered", "enter", "refusal"]


_KNOCK_SECONDS = 2.0
_FULL = "53300"
_NO_DATABASE = "3D000"
_NO_SERVER = {
    Answer.NO_HOST: "there is no host {0.host}",
    Answer.SILENT: "nothing answers on {0.server}",
    Answer.FOREIGN: "what answers on {0.server} is not PostgreSQL",
}


class Elsewhere(Unavailable):
    """Another database or role will not do: it is the server itself that cannot be used."""


@dataclass(frozen=True, slots=True)
class Entered:
    """A login that was tried, and the server's version: ``15.20``."""

    address: Address
    version: str


def enter(address: Address) -> Entered:
    """Log in, ask, and leave. Nothing is changed on the server.

    Raises:
        Unavailable: why arena cannot work there.
    """
    try:
        with closing(open_control(address)) as control:
            return Entered(address, _checked(control, address))
    except Failed as failed:
        raise refusal(address, knock(address, seconds=_KNOCK_SECONDS), failed) from failed


def _checked(control: Control, address: Address) -> str:
    product, number, version, may_create, is_standby = control.rows(ABOUT_LOGIN)[0]
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
        raise Elsewhere(f"the server on {address.server} is a standby, which is read-only")
    if not may_create:
        raise Unavailable(
            f"role {address.user} on {address.server} may not create databases",
            fix=let_create(address.user),
        )
    return str(version).split(" ", maxsplit=1)[0]


def refusal(address: Address, knocked: Knocked, failed: Failed) -> Unavailable:
    """Word why a login failed.

    How much a driver knows of it depends on the driver: so the server was asked once more.
    """
    if knocked.answer in _NO_SERVER:
        text = f" ({knocked.text})" if knocked.text else ""
        return Elsewhere(_NO_SERVER[knocked.answer].format(address) + text)
    state = failed.sqlstate or knocked.sqlstate
    if state == _FULL:
        return Elsewhere(
            f"the server on {address.server} has no connection free: {_words(knocked, failed)}",
            fix="close other clients, or raise max_connections in its postgresql.conf",
        )
    if state == _NO_DATABASE:
        return Unavailable(f'there is no database "{address.database}" on {address.server}')
    if knocked.answer is Answer.PASSWORD and state in {"", "28P01"}:
        return _password(address, failed)
    return Unavailable(
        f"{address.server} refuses role {address.user}: {_words(knocked, failed)}",
    )


def _password(address: Address, failed: Failed) -> Unavailable:
    if not address.password:
        reason = f"{address.server} asks for a password of role {address.user}, and none was given"
    elif failed.sqlstate or "password" in str(failed):
        reason = f"{address.server} refuses the password of role {address.user}"
    else:
        reason = f"{address.server} refuses role {address.user}: {_last_line(failed)}"
    return Unavailable(reason)


def _words(knocked: Knocked, failed: Failed) -> str:
    return redact(knocked.text) if knocked.text else _last_line(failed)


def _last_line(failed: Failed) -> str:
    return redact(str(failed).strip().splitlines()[-1] if str(failed).strip() else "no reason")
