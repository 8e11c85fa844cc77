"""SQLAlchemy's sessions in use, and their connections."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from sqlalchemy import event
from sqlalchemy.orm.session import Session, _sessions

from pytest_arena._gate._answers import ANSWER
from pytest_arena._gate._pending import (
    ADDS_OF_TESTS,
    connections_of,
    pending_objects,
)
from pytest_arena._owner import OWNER, Owner, owner_here
from pytest_arena._process import alive

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.engine import Connection

    from pytest_arena._gate._pending import PendingObjects

# Sessions that have begun a transaction, until `sessions_in_use` finds them empty. The value says
# whether a task of a wider fixture has begun the last transaction. A search of all sessions could
# be slow: a framework's cache may keep the sessions of all tests.
_begun: weakref.WeakKeyDictionary[Session, bool] = weakref.WeakKeyDictionary()


def is_used_by_wide_fixture(session: Session) -> bool:
    """Return whether a task of a wider fixture has begun the session's last transaction."""
    return _begun.get(session, False)


# The key in `Session.info` of the owner of the code that created the session.
_OWNER = "pytest_arena: owner"


def note_owner(session: Session) -> None:
    """Note the owner of the code that creates a session."""
    session.info[_OWNER] = owner_here()


def owner_of_session(session: Session) -> Owner | None:
    """Return the owner of a session, None if it was created during an import."""
    owner: Owner | None = session.info.get(_OWNER)
    return owner


def watch_sessions() -> None:
    """Note each session that begins a transaction. Costs a microsecond for each transaction."""
    for reference in _sessions.valuerefs():  # copied in one step, see `alive`
        session = reference()
        if session is not None:
            _begun[session] = False
    event.listen(Session, "after_transaction_create", _on_transaction)


def _on_transaction(session: Session, _: object) -> None:
    owner = OWNER.get()
    _begun[session] = owner is not None and owner.is_wide and owner.is_idle
    answer = ANSWER.get()
    if answer is not None:
        answer.note_session(session)


def sessions_in_use() -> list[Session]:
    """Return the sessions that hold an instance, or have begun a transaction."""
    in_use = []
    for session in alive(_begun):
        is_of_wide_fixture = _begun.pop(session, False)
        # Checked after the removal, because another thread may begin a transaction now.
        if session.in_transaction() or session.identity_map:
            _begun.setdefault(session, is_of_wide_fixture)
            in_use.append(session)
    return in_use


def held_by_sessions() -> list[tuple[Session, Connection]]:
    """Return each session in a transaction with each of its connections."""
    held = []
    for session in alive(_begun):
        for connection in connections_of(session):
            held.append((session, connection))
    return held


def unflushed(sessions: Iterable[Session]) -> list[object]:
    """Return the instances that a flush would write."""
    instances: list[object] = []
    for session in sessions:
        instances += [*session.new, *session.dirty, *session.deleted]
    return instances


def unflushed_by_tests() -> list[PendingObjects]:
    """Return the unflushed objects of sessions to which a test or a fixture has added an object."""
    all_pending = []
    for session in sessions_in_use():
        number = session.hash_key
        if number not in ADDS_OF_TESTS or not unflushed([session]):
            continue
        with suppress(RuntimeError):  # another thread uses the session
            pending = pending_objects(session)
            if pending:
                pending.note_line(ADDS_OF_TESTS.get(number))
                all_pending.append(pending)
    return all_pending


def session_numbers() -> frozenset[int]:
    """Return the numbers of all sessions. `alive` says why the dictionary is read in one step."""
    return frozenset(_sessions.data)  # type: ignore[attr-defined] # typeshed has it not
