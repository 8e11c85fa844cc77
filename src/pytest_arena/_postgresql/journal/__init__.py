"""The change journal of a database on a server: what is written down, and how it is taken back."""

from pytest_arena._postgresql.journal._server import Left, Look, ServerJournal
from pytest_arena._postgresql.journal._templates import (
    Unjournaled,
    check_fit,
    grant_replica,
    install,
    journaled,
    lacking,
    remarks,
    what_would_do,
)

__all__ = [
    "Left",
    "Look",
    "ServerJournal",
    "Unjournaled",
    "check_fit",
    "grant_replica",
    "install",
    "journaled",
    "lacking",
    "remarks",
    "what_would_do",
]
