"""What statements have done in the open transaction of each driver connection."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_arena._product._statements import Reach

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._product import ConnectTarget
    from pytest_arena._product._statements import Statement

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line

# These begin no transaction.
_OUTSIDE = {"SET", "SHOW", "USE", "DO", "KILL", "PREPARE"}
_ENDING = {"COMMIT", "ROLLBACK", "CREATE", "ALTER", "DROP", "RENAME", "TRUNCATE"}


def _ends_transaction(verb: str, others: list[str]) -> bool:
    if verb == "SET":
        return "AUTOCOMMIT" in "".join(others)
    return verb in _ENDING and "TEMPORARY" not in others


class MySQLSession:
    """The session of a driver's connection to a test's database."""

    def __init__(self, connection: object, target: ConnectTarget) -> None:
        self.target = target
        self._reference = weakref.ref(connection)
        self._is_begun = False  # whether a statement has begun a transaction
        self._changed_rows = 0  # by the open transaction
        self._savepoints: dict[str, int] = {}

    @property
    def pid(self) -> int:
        """The server's id of the session, 0 if it is not connected."""
        return pid_of(self._reference())

    @property
    def is_begun(self) -> bool:
        """Whether a transaction is open, by the statements, without a round trip."""
        connection = self._reference()
        return self._is_begun and connection is not None and not _is_closed(connection)

    @property
    def has_written(self) -> bool:
        """Whether the open transaction has changed rows."""
        return self._changed_rows > 0 and self.is_begun

    def end_transaction(self) -> None:
        """Note that no transaction is open."""
        self._is_begun = False
        self._changed_rows = 0
        self._savepoints.clear()

    def sending(self, statement: Statement, *, autocommits: bool) -> None:
        """Note a statement before the driver sends it."""
        verb, *others = statement.words or ("",)
        if verb in {"BEGIN", "START"}:
            self.end_transaction()
            self._is_begun = True
        elif verb == "SAVEPOINT":
            self._savepoints[others[-1]] = self._changed_rows
        elif verb == "ROLLBACK" and "TO" in others:
            self._changed_rows = self._savepoints.get(others[-1], self._changed_rows)
        elif _ends_transaction(verb, others):
            self.end_transaction()
        elif not autocommits and verb not in _OUTSIDE:
            self._is_begun = True
        if self.target.database is not None:
            # A `MySQLIsolation`, whose module imports this one.
            isolation: Any = self.target.database.isolation
            if isolation is not None:
                isolation.note_statement(statement, self.target.generation[1])

    def sent(self, statement: Statement, rows: object) -> None:
        """Note how many rows a statement has changed."""
        may_write = statement.reach is not Reach.NOTHING
        if may_write and isinstance(rows, int) and self._is_begun:
            self._changed_rows += rows


_SESSIONS: weakref.WeakKeyDictionary[object, MySQLSession] = weakref.WeakKeyDictionary()


def begin_session(connection: object, target: ConnectTarget) -> MySQLSession:
    """Record the session of a connection to a test's database."""
    session = MySQLSession(connection, target)
    _SESSIONS[connection] = session
    return session


def known_session(connection: object) -> MySQLSession | None:
    """Return the session of a driver's connection, None for one that is not recorded."""
    try:
        return _SESSIONS.get(connection)
    except TypeError:  # an app's object that is not hashable
        return None


def is_in_transaction(connection: object) -> bool:
    """Return whether the session of a driver's connection is inside a transaction."""
    session = known_session(connection)
    return session is not None and session.is_begun


def sessions_in(database: str) -> Iterator[MySQLSession]:
    """Yield the sessions of this process in a database."""
    # Copied, because other threads change the dictionary.
    for reference in _SESSIONS.keyrefs():
        session = known_session(reference())
        address = session.target.address if session is not None else None
        if session and address and address.database == database:
            yield session


def writers_in(database: str) -> set[int]:
    """Return the sessions of this process that have uncommitted rows in a database."""
    return {session.pid for session in sessions_in(database) if session.has_written}


def _is_closed(connection: Any) -> bool:
    if hasattr(connection, "open"):  # PyMySQL, mysqlclient
        return not connection.open
    if hasattr(connection, "closed"):  # aiomysql
        return bool(connection.closed)
    return not connection.connected  # asyncmy


def pid_of(connection: Any) -> int:
    """Return the server's id of a connection's session, 0 if it is not connected."""
    with suppress(Exception):  # the driver's error, if it is not connected
        return int(connection.thread_id())
    return 0
