"""Explains the error of a statement that has waited too long for a lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import AdaptedConnection

from pytest_arena._config._supported import facts_of_driver, kind_of_error
from pytest_arena._origin import user_line
from pytest_arena._product import raw_transactions

if TYPE_CHECKING:
    from pytest_arena._gate._pooled import PooledConnection
    from pytest_arena._gate._registry import Registry

_NEXT = (
    "\nnext: commit it first: {}session.commit()   "
    "(or a longer arena_lock_timeout, if the engine sets no timeout)"
)


def explain_lock(
    registry: Registry,
    error: BaseException,
    own: PooledConnection | None,
    statement: str,
) -> None:
    """Add a note to the error of a lock timeout: the transactions that may hold the lock."""
    if kind_of_error(error) != "lock timeout":
        return
    words = _holders_of_lock(registry, own)
    facts = facts_of_driver(error)
    if not words and facts is not None:
        for word, text in facts.unseen_locks.items():
            if word in statement.lower():
                words = text
                break
    error.add_note(
        f"the statement waited too long for a lock at {user_line()}"
        f"{words or _NEXT.format('')}"
    )


def _holders_of_lock(registry: Registry, own: PooledConnection | None) -> str:
    """Return lines about transactions that may hold a lock, "" without any."""
    writers = []
    readers = []
    is_async = False
    for checkout in registry.checked_out():
        if checkout.connection is own:
            continue
        is_async |= isinstance(checkout.entry.dbapi_connection, AdaptedConnection)
        if checkout.pending_writes is not None:
            writers.append(f"holds {checkout.pending_writes}")
        elif checkout.handle is not None and checkout.handle.is_begun:
            readers.append(
                f"has an open transaction, and was checked out at {checkout.line}"
            )
    for line in raw_transactions():
        readers.append(f"that no engine has opened is in a transaction: {line}")
    holders = writers or readers
    if not holders:
        return ""
    lines = "".join(f"\nanother connection {holder}" for holder in holders)
    return f"{lines}{_NEXT.format('await ' if is_async else '')}"
