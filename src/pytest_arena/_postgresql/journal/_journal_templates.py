"""Builds templates with a journal.

Such a template is a copy of another template, with the journal installed.
"""

from __future__ import annotations

import hashlib
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import ControlFailure, open_control
from pytest_arena._postgresql._templates import derived
from pytest_arena.errors import IsolationError

if TYPE_CHECKING:
    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._values import Address

FIX_FOR_UNDO = "the URL of a superuser in arena_database, or arena_database = own"
_SCRIPT = Path(__file__).with_name("journal.sql")
_NO_LOCK = "53200"  # no memory for another lock


def install(address: Address) -> None:
    """Install the journal in a database.

    Raises:
        ControlFailure: the login is no superuser, or the server refuses.
    """
    with closing(open_control(address)) as control:
        control.run(_SCRIPT.read_text(encoding="utf-8"))


def journaled(registry: ServerRegistry, template: str | None) -> str:
    """Return the template that is a copy of a template, or of an empty database, with a journal.

    Cost: a derived template, and 3 ms a table for the installation of the journal.

    Raises:
        TemplateError: another process builds it for too long.
        IsolationError, ServerError: the template cannot be copied.
    """

    def change(address: Address) -> str:
        with registry.reporting("the change journal cannot be installed"):
            try:
                install(address)
            except ControlFailure as error:
                if error.sqlstate != _NO_LOCK:
                    raise
                raise IsolationError(
                    "the change journal cannot be installed in this database",
                    why="undo creates triggers on all tables in one transaction, which locks each "
                    "table",
                    cause=error.first_line,
                    fix="a larger max_locks_per_transaction on the server\n"
                    "or arena_isolation = clone",
                ) from error
        return ""

    # The names of templates are unique.
    fingerprint = f"journal {_layout()} {template or 'empty'}"
    return derived(registry, template, fingerprint, change)


@cache
def _layout() -> str:
    return hashlib.sha256(_SCRIPT.read_bytes()).hexdigest()[:16]


@cache
def why_no_undo(registry: ServerRegistry) -> str:
    """Return why the role of a run cannot undo tests, "" if it can.

    Raises:
        ArenaError: the server does not answer.
    """
    with registry.reporting("the rights for undo cannot be checked"):
        [(role, is_superuser)] = registry.control.rows(
            "SELECT current_user::text, current_setting('is_superuser') = 'on'"
        )
    return "" if is_superuser else f"the role {role} is no superuser"
