"""The real connection. Its transaction is committed only before a copy of the database."""

from __future__ import annotations

import re
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from pytest_arena._mysql._control import MySQLFailure, literal, open_control
from pytest_arena._mysql.rollback import _packets as packets
from pytest_arena._mysql.rollback._packets import PacketStream, read_answer
from pytest_arena._product.sharing._savepoints import SavepointStack
from pytest_arena._product.sharing._sockets import Disconnected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_arena._mysql.rollback._packets import ServerAnswer
    from pytest_arena._values import Address

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_TRACK = "SET SESSION session_track_system_variables = '*'"
_BEGIN = "START TRANSACTION READ WRITE"
# The server reports these settings, but they are not a client's. MySQL counts statements by the
# last one.
_OWN_SETTINGS = {"autocommit", "session_track_system_variables", "statement_id"}
COLLATION = "collation_connection"
# This setting also changes the collation, which the server does not report.
_WITH_COLLATION = "character_set_connection"
LAST_ID = "last_insert_id"
_PROBE = "arena_probe"


class StatementRefused(Exception):
    """The server refused a statement of the proxy."""

    def __init__(self, answer: ServerAnswer) -> None:
        self.answer = answer
        super().__init__(answer.error_text)


class MySQLBackend(SavepointStack):
    """A connection to the real database, inside a transaction. One thread at a time may use it.

    Raises:
        MySQLFailure: the server does not answer, or refuses the login.
        Disconnected: the server has ended the connection.
        StatementRefused: the server refuses a statement of the proxy.
    """

    def __init__(self, address: Address) -> None:
        super().__init__()
        self._address = address
        # SQLAlchemy's drivers count the rows that an UPDATE has matched.
        self._control = open_control(
            address, abilities=packets.FOUND_ROWS | packets.SESSION_TRACK
        )
        self.version = self._control.version
        self._stream = PacketStream(self._control.socket)
        self.is_begun = False  # the server is inside the transaction
        [(size,)] = self._control.rows("SELECT @@max_allowed_packet")
        self.largest_packet = int(size)
        self.restart()

    def restart(self) -> None:
        """Roll back, and begin another transaction in a new session.

        The server drops temporary tables, and discards variables, named locks and settings.
        """
        self._stream.command(packets.RESET)
        answer = read_answer(self._stream)
        if answer.error:
            raise StatementRefused(answer)
        self._settings = {}
        self._pending = []
        self.query(_TRACK)
        self.begin()

    def begin(self) -> None:
        """Begin a transaction. No transaction is open."""
        self._savepoints = {}
        self._pending = []
        self.query(_BEGIN)

    def commit(self) -> None:
        """Commit, and begin another transaction."""
        self.query("COMMIT")
        self.begin()

    def execute_pending(self) -> None:
        """Execute the pending statements."""
        self.query("DO 0")

    def query(self, sql: str) -> ServerAnswer:
        """Execute a statement of the proxy."""
        answer = self.exchange(sql)
        if answer.error:
            raise StatementRefused(answer)
        return answer

    def exchange(self, sql: str) -> ServerAnswer:
        """Execute the pending statements, and then a client's statement. Return its answer."""
        pending = self._pending
        self._pending = []
        for statement in (*pending, sql):
            data = statement.encode(errors="surrogateescape")
            self._stream.command(packets.QUERY, data)
        refused = None
        for _ in pending:
            answer = read_answer(self._stream)
            if answer.error and refused is None:
                refused = answer
        answer = read_answer(self._stream)
        if refused is not None:
            raise StatementRefused(refused)
        self._note_status(answer)
        return answer

    def _note_status(self, answer: ServerAnswer) -> None:
        """Note whether the transaction is open. An error has no status, so ask again after it."""
        status = answer.status
        if answer.error:
            self._stream.command(packets.QUERY, b"DO 0")
            status = read_answer(self._stream).status
        self.is_begun = bool(status & packets.IN_TRANSACTION)

    def exchange_program(self, sql: str) -> ServerAnswer:
        """Execute a statement that may end the transaction and begin another transaction."""
        self.execute_later(f"SAVEPOINT {_PROBE}")
        answer = self.exchange(sql)
        try:
            self.query(f"RELEASE SAVEPOINT {_PROBE}")
        except StatementRefused:
            self.is_begun = False
        return answer

    # Settings

    def use_settings(self, settings: Mapping[str, str]) -> None:
        """Give the session these settings. All other settings get the server's values."""
        if settings == self._settings:
            return
        before = self._settings
        dropped = [name for name in before if name not in settings]
        changes = dict.fromkeys(dropped, "DEFAULT")
        if LAST_ID in changes:
            changes[LAST_ID] = "0"
        changes |= {
            name: _written(name, value)
            for name, value in settings.items()
            if before.get(name) != value
        }
        # A character set changes the collation.
        if COLLATION in settings and _WITH_COLLATION in changes:
            changes[COLLATION] = literal(settings[COLLATION])
        names = sorted(changes, key=lambda name: name == COLLATION)
        assignments = ", ".join(f"SESSION {name} = {changes[name]}" for name in names)
        self.execute_later(f"SET {assignments}")
        self._settings = settings

    def changed_settings(self, answer: ServerAnswer) -> dict[str, str]:
        """Return the settings that a statement has changed, with their new values."""
        changed = {
            name: value
            for name, value in answer.settings.items()
            if name not in _OWN_SETTINGS
        }
        if _WITH_COLLATION in changed:
            try:
                # PyMySQL may use the socket between two statements.
                [(changed[COLLATION],)] = self._control.rows(f"SELECT @@{COLLATION}")
            except MySQLFailure as error:
                raise Disconnected from error
        insert_id = max((end.insert_id for end in answer.ends), default=0)
        if insert_id:
            changed[LAST_ID] = str(insert_id)
        return changed

    # The end

    def cancel(self) -> None:
        """Cancel the running statement."""
        with suppress(MySQLFailure), closing(open_control(self._address)) as control:
            control.run(f"KILL QUERY {self._control.pid}")

    def close(self) -> None:
        """Close the connection, which rolls back."""
        with suppress(Disconnected):
            self._stream.command(packets.QUIT)
        self._stream.close()
        self._control.close()


def _written(name: str, value: str) -> str:
    if _NUMBER.fullmatch(value):
        return value
    if not value and name.startswith("character_set"):
        return "NULL"
    return literal(value)
