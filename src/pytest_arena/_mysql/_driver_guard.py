"""Watches the drivers' calls that open connections, and the statements of all connections.

An engine's connection still has the arguments that the gate has written. Any other connection is
refused, redirected or admitted before a socket opens. It ends with its idle owner, else with the
level. The statements tell which tables a level may have written.
"""

from __future__ import annotations

import re
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Any

from pytest_arena._interpreter import patch, when_imported
from pytest_arena._mysql import _arguments as arguments
from pytest_arena._product._server_connections import (
    RawConnection,
    RawConnections,
    RawGuard,
    then,
)
from pytest_arena._product._statements import Reach, Words, bare, classify

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from pytest_arena._product import ConnectTarget
    from pytest_arena._product._server_connections import FindCore
    from pytest_arena._product._statements import Statement

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


class MySQLSession:
    """The session of a driver's connection to a test's database."""

    def __init__(self, connection: object, target: ConnectTarget) -> None:
        self.target = target
        self._reference = weakref.ref(connection)
        self._is_begun = False  # whether a statement has begun a transaction
        self._changed_rows = 0  # by the open transaction

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
        """Whether the open transaction has changed rows, perhaps before a rolled back savepoint."""
        return self._changed_rows > 0 and self.is_begun

    def end_transaction(self) -> None:
        """Note that no transaction is open."""
        self._is_begun = False
        self._changed_rows = 0

    def note_before(self, statement: Statement, *, autocommits: bool) -> None:
        """Note a statement before the driver sends it."""
        if statement.ends_transaction:
            self.end_transaction()
            self._is_begun = statement.words[0] in {"BEGIN", "START"}
        elif not autocommits:
            self._is_begun = True
        if self.target.isolation is not None:
            self.target.isolation.note_statement(statement, self.target.generation[1])

    def note_after(self, statement: Statement, rows: object) -> None:
        """Note how many rows a statement has changed."""
        if statement.reach is not Reach.NOTHING and isinstance(rows, int) and self._is_begun:
            self._changed_rows += rows


SESSIONS: weakref.WeakKeyDictionary[object, MySQLSession] = weakref.WeakKeyDictionary()


def begin_session(connection: object, target: ConnectTarget) -> MySQLSession:
    """Record the session of a connection to a test's database."""
    session = MySQLSession(connection, target)
    SESSIONS[connection] = session
    return session


def writers_in(database: str) -> set[int]:
    """Return the sessions of this process that have uncommitted rows in a database."""
    # Copied, because other threads change the dictionary.
    sessions = [SESSIONS.get(reference()) for reference in SESSIONS.keyrefs()]
    writers = [session for session in sessions if session is not None and session.has_written]
    return {
        session.pid
        for session in writers
        if session.target.address and session.target.address.database == database
    }


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


CONNECTIONS = RawConnections(pid_of)
_LONG = 4096  # characters
# Of the constructors of aiomysql and mysqlclient. The others have only named parameters.
_POSITIONAL = ("host", "user", "password", "db", "port", "unix_socket")


@dataclass(frozen=True)
class _DriverGuard(RawGuard):
    """Decides on each connection, and notes its statements."""

    # The connections that no engine opens, until their first statement.
    admitted: weakref.WeakKeyDictionary[object, RawConnection] = field(
        default_factory=weakref.WeakKeyDictionary
    )

    def constructor(self, driver: str, original: Callable[..., Any]) -> Callable[..., None]:
        """Return a constructor that first decides on the connection."""

        def __init__(connection: object, *args: object, **kwargs: Any) -> None:  # noqa: N807 - replaces it
            named = {**dict(zip(_POSITIONAL, args, strict=False)), **kwargs}
            raw = self.admit(driver, [], named)
            if raw is not None:
                self.admitted[connection] = raw
            original(connection, **named)
            self.note_named(driver, [], named, connection)
            self._begin(connection)  # a sync driver has connected

        return __init__

    def watched_query(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return a method that notes each statement and the number of rows that it changes."""

        def send(connection: object, sql: object, *args: object, **options: object) -> Any:
            statement = self._note_before(connection, sql)
            answer = original(connection, sql, *args, **options)
            return then(answer, partial(_note_rows, connection, statement))

        return send

    def _note_before(self, connection: Any, sql: Any) -> Statement | None:
        """Note a statement before the driver sends it."""
        self._begin(connection)
        session = SESSIONS.get(connection)
        if session is None:
            return None
        if isinstance(sql, bytes | bytearray):
            sql = sql.decode(errors="surrogateescape")
        text = bare(sql, WORDS)
        # The results for long statements, which have data, are not kept.
        read = classify if len(text) < _LONG else classify.__wrapped__
        statement = read(text, WORDS)
        session.note_before(statement, autocommits=bool(connection.get_autocommit()))
        return statement

    def _begin(self, connection: object) -> None:
        """Note a new connection that no engine has opened."""
        raw = self.admitted.get(connection)
        core = self.find_core()
        if raw is None or core is None or not pid_of(connection):
            return
        del self.admitted[connection]
        CONNECTIONS.add(core, raw, connection)
        if raw.target is not None:
            begin_session(connection, raw.target)


def _note_rows(connection: Any, statement: Statement | None, rows: object) -> None:
    session = SESSIONS.get(connection)
    if session is None or statement is None:
        return
    if rows is None and hasattr(connection, "affected_rows"):  # mysqlclient
        rows = connection.affected_rows()
    session.note_after(statement, rows)


def _ending(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that ends a transaction, and notes that."""

    def end(connection: object) -> Any:
        return then(original(connection), partial(_note_end, connection))

    return end


def _note_end(connection: object, _answer: object) -> None:
    session = SESSIONS.get(connection)
    if session is not None:
        session.end_transaction()


def _replace(
    kind: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., object]]
) -> None:
    """Replace a method of a driver's class by the method that ``make`` returns."""
    original = getattr(kind, name)
    patch(kind, name, wraps(original)(make(original)))


def _guard_driver(driver: str, guard: _DriverGuard, module: ModuleType) -> None:
    kind = module.Connection
    _replace(kind, "__init__", partial(guard.constructor, driver))
    _replace(kind, "query", guard.watched_query)
    if hasattr(kind, "prepare"):  # asyncmy executes such a statement without `query`
        _replace(kind, "prepare", guard.watched_query)
    _replace(kind, "commit", _ending)
    _replace(kind, "rollback", _ending)


_MODULES = {
    "pymysql.connections": "pymysql",
    "aiomysql.connection": "aiomysql",
    "asyncmy.connection": "asyncmy",
    "MySQLdb.connections": "mysqldb",
}


@cache
def watch_drivers(find_core: FindCore) -> None:
    """Watch the drivers until the process ends. Imports none of them."""
    guard = _DriverGuard(find_core, arguments, CONNECTIONS)
    for module, driver in _MODULES.items():
        when_imported(module, partial(_guard_driver, driver, guard))


WORDS = Words(
    altering=re.compile(
        r"(?ix) (?:\A|;)\s* (?: SET \b (?!\s+(?:TRANSACTION)\b) | PREPARE\b | USE\b "
        r"| LOCK\s+TABLES?\b | CREATE\s+(?:OR\s+REPLACE\s+)?TEMPORARY\b | EXECUTE\s+IMMEDIATE\b )"
        r"| := | \bGET_LOCK\s*\( | \bINTO\s+@"
    ),
    # A statement that changes the schema commits first.
    ending=re.compile(
        r"(?isx) \s* (?: BEGIN | START | COMMIT | ROLLBACK(?!.*\bTO\b) | SET\b.*\bAUTOCOMMIT"
        r"| (?:CREATE | ALTER | DROP | RENAME | TRUNCATE)"
        r"(?!\s+(?:OR\s+REPLACE\s+)?TEMPORARY\b) )\b"
    ),
    # An app may change the password of its own user, with which other runs connect, too.
    beyond=re.compile(
        r"(?i)(?:\A|;)\s*(?P<verb>(?:CREATE|DROP)\s+(?:DATABASE|SCHEMA)|ALTER\s+USER|SET\s+PASSWORD)\b"
    ),
    # A comment with `!` has statements that the server executes. The search is fast because each
    # alternative begins with a fixed character.
    parts=re.compile(
        r"""(?sx) (?P<text> '[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+'
            | "[^"\\]*+(?:(?:\\.|"")[^"\\]*+)*+" )
        | (?P<name> `[^`]*+(?:``[^`]*+)*+` )
        | --(?=\s|\Z)[^\n]* | \#[^\n]* | /\*M?!\d* | /\*.*?\*/ | \*/
        | (?P<number> (?<![\w$])\d++(?:\.\d++)?+(?![\w$]) )"""
    ),
)
