"""The change journal of a database on a server: what is written down, and how it is taken back."""

from pytest_arena._postgresql.journal._journal_templates import (
    Unjournaled,
    check_fit,
    grant_replica,
    install,
    journaled,
    lacking,
    remarks,
    what_would_do,
)
from pytest_arena._postgresql.journal._server import Look, Restoration, ServerJournal

__all__ = [
    "Look",
    "Restoration",
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
