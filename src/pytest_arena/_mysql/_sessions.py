"""What statements have done in the open transaction of each driver connection."""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_arena._mysql._statements import (
    alters_session,
    begins_transaction,
    may_write,
)
from pytest_arena._product import ReadSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._product import ConnectTarget

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line

_IN_TRANSACTION = 1  # SERVER_STATUS_IN_TRANS, which each answer of the server has
# How SQLAlchemy sets the isolation level of a connection. The word LEVEL and the level follow.
_SET_LEVEL = ["SET", "SESSION", "TRANSACTION", "ISOLATION"]


class MySQLSession:
    """The session of a driver's connection to a test's database."""

    def __init__(self, target: ConnectTarget, pid: int) -> None:
        self.target = target
        self.pid = pid  # the server's id of the session
        self.process = os.getpid()
        # Whether a transaction may be open although the driver's status does not show it. PyMySQL
        # and aiomysql do not read the status that follows rows.
        self.is_begun = False
        self.changed_rows = 0  # by the open transaction
        self._savepoints: dict[str, int] = {}
        self.isolation_level = ""  # that a statement has set
        self.snapshot: ReadSnapshot | None = None  # of the last transaction
        self.changes = 0  # the number of statements that have changed the session
        self.is_killed = False  # pytest-arena has ended the session
        # Whether the driver closed it in a transaction with changed rows, as when its loop ended.
        self.was_lost = False

    def note_pid(self, pid: int) -> None:
        """Note the server's id of a new session. A driver may replace an ended session."""
        self.pid = pid
        self.is_killed = False

    def kill(self) -> None:
        """Note that pytest-arena has ended the session."""
        self.is_killed = True
        self.was_lost = False

    def close(self, *, has_written: bool) -> None:
        """Note that the driver closes the connection."""
        self.was_lost = has_written

    def sending(self, statement: str, *, is_begun: bool) -> None:
        """Note a statement before the driver sends it."""
        if not is_begun:
            self.changed_rows = 0
            self._savepoints.clear()
            self.snapshot = None
        words = statement.upper().split()
        if words[:1] == ["SAVEPOINT"]:
            self._savepoints[words[-1]] = self.changed_rows
        elif words[:1] == ["ROLLBACK"] and "TO" in words:
            self.changed_rows = self._savepoints.get(words[-1], self.changed_rows)
        elif words[:1] == ["SELECT"] and "UPDATE" not in words[-4:]:  # FOR UPDATE
            self.snapshot = self.snapshot or ReadSnapshot()
            self.snapshot.read()
        elif words[:4] == _SET_LEVEL:
            self.isolation_level = " ".join(words[5:])
        changes_session = alters_session(statement)
        if self.target.database is not None:
            # A `MySQLIsolation`, whose module imports this one.
            isolation: Any = self.target.database.isolation
            if isolation is not None:
                _, generation = self.target.generation
                changes_session |= isolation.note_statement(statement, generation)
        self.changes += changes_session

    def sent(self, statement: str, rows: object) -> None:
        """Note how many rows a statement has changed."""
        if may_write(statement, ()) and isinstance(rows, int):
            self.changed_rows += rows

    def answered(self, *, has_rows: bool, autocommits: bool) -> None:
        """Note whether the last answer has rows. Drivers read the status only if it has no rows."""
        if not has_rows:
            self.is_begun = False
        elif not autocommits:
            self.is_begun = True

    def note_transaction(self, *, is_begun: bool) -> None:
        """Note whether a transaction is open, for a driver that has no status."""
        self.is_begun = is_begun


_SESSIONS: weakref.WeakKeyDictionary[object, MySQLSession] = weakref.WeakKeyDictionary()


def begin_session(connection: object, target: ConnectTarget) -> MySQLSession:
    """Record the session of a connection to a test's database."""
    session = MySQLSession(target, pid_of(connection))
    _SESSIONS[connection] = session
    return session


def known_session(connection: object) -> MySQLSession | None:
    """Return the session of a driver's connection, None for one that is not recorded."""
    try:
        return _SESSIONS.get(connection)
    except TypeError:  # an app's object that is not hashable
        return None


def is_closed(connection: Any) -> bool:
    """Return whether a driver's connection is closed."""
    if hasattr(connection, "open"):  # PyMySQL
        return not connection.open
    if hasattr(connection, "closed"):  # aiomysql
        return bool(connection.closed)
    return not connection.connected  # asyncmy


def pid_of(connection: Any) -> int:
    """Return the server's id of a connection's session, 0 if it is not connected."""
    with suppress(Exception):  # the driver's error, if it is not connected yet
        return int(connection.thread_id())
    return 0


def writers_in(database: str) -> set[int]:
    """Return the sessions of this process that have uncommitted rows in a database."""
    return {
        session.pid
        for connection, session in _sessions_in(database)
        if has_written(connection)
    }


def sessions_inside(database: str) -> set[int]:
    """Return the sessions of this process that are inside a transaction in a database."""
    return {
        session.pid
        for connection, session in _sessions_in(database)
        if is_in_transaction(connection)
    }


def _sessions_in(database: str) -> Iterator[tuple[object, MySQLSession]]:
    # Copied, because other threads change the dictionary.
    for reference in _SESSIONS.keyrefs():
        connection = reference()
        session = _SESSIONS.get(connection) if connection is not None else None
        if session is None or session.process != os.getpid():
            continue
        address = session.target.address
        if address is not None and address.database == database:
            yield connection, session


def is_in_transaction(connection: Any) -> bool:
    """Return whether a transaction is open, by the server's last answers, without a round trip."""
    if connection is None or is_closed(connection):
        return False
    status = getattr(connection, "server_status", 0) or 0
    session = known_session(connection)
    if session is not None and session.is_killed:
        return False
    may_be_begun = session is not None and session.is_begun
    return may_be_begun or bool(status & _IN_TRANSACTION)


def has_written(connection: object) -> bool:
    """Return whether the open transaction of a connection has changed rows."""
    session = known_session(connection)
    if session is None or not session.changed_rows:
        return False
    return is_in_transaction(connection)


def note_answer(connection: Any, statement: str, rows: object) -> None:
    """Note the server's answer to a statement, and how many rows it has changed."""
    session = known_session(connection)
    if session is None:
        return
    if hasattr(connection, "server_status"):
        session.sent(statement, rows)
        result = getattr(connection, "_result", None)
        session.answered(
            has_rows=bool(getattr(result, "field_count", 0)),
            autocommits=connection.get_autocommit(),
        )
        return
    # mysqlclient. The rows of an INSERT … RETURNING are not fetched yet.
    has_rows = connection.field_count()
    session.sent(statement, 1 if has_rows else int(connection.affected_rows()))
    is_begun = begins_transaction(
        statement, autocommits=bool(connection.get_autocommit())
    )
    if is_begun is not None:
        session.note_transaction(is_begun=is_begun)
