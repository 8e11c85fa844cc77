"""SQLAlchemy's sessions: their owners, their connections and their uncommitted objects."""

from __future__ import annotations

import weakref
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy.orm.session import Session, _sessions

from pytest_arena._origin import REQUEST, user_line
from pytest_arena._owner import OWNER, Owner, owner_here
from pytest_arena._process import alive

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from pytest_arena._ledger import Request
    from pytest_arena._values import CodeLine

# Sessions that have begun a transaction, until `sessions_in_use` finds them empty. The value says
# whether a task of a wider fixture has begun the last transaction. A search of all sessions could
# be slow: a framework's cache may keep the sessions of all tests.
_begun: weakref.WeakKeyDictionary[Session, bool] = weakref.WeakKeyDictionary()

# The keys in `Session.info`: the owner and the request of the code that created the session, and
# the first object that was added or flushed since the last commit.
_OWNER = "pytest_arena: owner"
_REQUEST = "pytest_arena: request"
UNCOMMITTED = "pytest_arena: uncommitted"


class Uncommitted(NamedTuple):
    """The first object that a session has added or flushed since its last commit."""

    line: CodeLine | None
    request: Request | None  # that added it


def is_of_arena(session: Session) -> bool:
    """Return whether pytest-arena has made a session: ``db_session``, ``arena.session()``."""
    return type(session).__module__.startswith("pytest_arena.")


# Called by SQLAlchemy's events.


def note_created(session: Session) -> None:
    """Note the owner and the request of the code that creates a session."""
    session.info[_OWNER] = owner_here()
    session.info[_REQUEST] = REQUEST.get()


def note_begun(session: Session) -> None:
    """Note that a session begins a transaction."""
    owner = OWNER.get()
    _begun[session] = owner is not None and owner.is_wide and owner.is_idle


def note_object(session: Session) -> None:
    """Note that a session adds or flushes an object. Costs some microseconds for the first one."""
    if UNCOMMITTED not in session.info:
        session.info[UNCOMMITTED] = Uncommitted(user_line(), REQUEST.get())


def forget_objects(session: Session) -> None:
    """Note that the transaction of a session has ended."""
    session.info.pop(UNCOMMITTED, None)


# Owners


def owner_of_session(session: Session) -> Owner | None:
    """Return the owner of a session, None if it was created during an import."""
    owner: Owner | None = session.info.get(_OWNER)
    return owner


def is_used_by_wide_fixture(session: Session) -> bool:
    """Return whether a task of a wider fixture has begun the session's last transaction."""
    return _begun.get(session, False)


# Sessions in use


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


def connections_of(session: Session) -> list[Connection]:
    """Return the open connections of the session's transaction.

    SQLAlchemy has no public way to them. The owner of a connection may have closed it before the
    end of a session's transaction on it.
    """
    transaction = session.get_transaction()
    if transaction is None:
        return []
    entries = set(transaction._connections.values())  # noqa: SLF001 - as above
    return [connection for connection, *_ in entries if not connection.closed]


def held_by_sessions() -> list[tuple[Session, Connection]]:
    """Return each session in a transaction with each of its connections."""
    held = []
    for session in alive(_begun):
        for connection in connections_of(session):
            held.append((session, connection))
    return held


def session_numbers() -> frozenset[int]:
    """Return the numbers of all sessions. `alive` says why the dictionary is read in one step."""
    return frozenset(_sessions.data)  # type: ignore[attr-defined] # typeshed has it not


# Uncommitted objects


def unflushed_words(session: Session) -> str:
    """Return words such as ``added Order (2), changed Stock``, "" without unflushed objects."""
    words = []
    parts = {
        "added": list(session.new),
        "changed": [each for each in session.dirty if session.is_modified(each)],
        "deleted": list(session.deleted),
    }
    for verb, instances in parts.items():
        counts = Counter(type(instance).__name__ for instance in instances)
        for name, count in counts.items():
            number = f" ({count:,})" if count > 1 else ""
            words.append(f"{verb} {name}{number}")
    return ", ".join(words)


def unflushed_by_tests() -> list[str]:
    """Return a line for each session whose unflushed objects a test or a fixture has added."""
    lines = []
    for session in sessions_in_use():
        uncommitted = session.info.get(UNCOMMITTED)
        if uncommitted is None or uncommitted.request or is_of_arena(session):
            continue
        with suppress(RuntimeError):  # another thread uses the session
            words = unflushed_words(session)
            if words:
                lines.append(f"{words} and did not commit it: {uncommitted.line}")
    return lines


def left_in_sessions_of_tests(request: Request) -> list[CodeLine | None]:
    """Return the lines of a request that have changed a session of the test without a commit."""
    lines = []
    for session in sessions_in_use():
        uncommitted = session.info.get(UNCOMMITTED)
        if uncommitted is None or uncommitted.request is not request:
            continue
        if session.info.get(_REQUEST) is not request:
            lines.append(uncommitted.line)
    return lines
