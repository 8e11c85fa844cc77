"""The change journal of a database on a server: what is written down, and how it is taken back."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import Failed, open_control
from pytest_arena._postgresql.journal._capture import fitting_schema
from pytest_arena._postgresql.journal._capture import install as _install
from pytest_arena._postgresql.journal._server import Left, Look, ServerJournal
from pytest_arena._postgresql.journal._tables import Unfit
from pytest_arena._postgresql.journal._templates import (
    Unjournaled,
    check_fit,
    grant_replica,
    journaled,
    lacking,
    remarks,
    what_would_do,
)

if TYPE_CHECKING:
    from pytest_arena._values import Address

__all__ = [
    "Failed",
    "Left",
    "Look",
    "ServerJournal",
    "Unfit",
    "Unjournaled",
    "check_fit",
    "grant_replica",
    "install",
    "journaled",
    "lacking",
    "remarks",
    "what_would_do",
]


def install(address: Address) -> list[Unfit]:
    """Install a journal in a database, by a connection that is made for it."""
    with closing(open_control(address)) as control:
        return _install(control, fitting_schema(control))
