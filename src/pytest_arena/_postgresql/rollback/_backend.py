"""The real connection, whose only transaction is never committed."""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from dataclasses import dataclass
from random import SystemRandom
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import literal, open_control
from pytest_arena._postgresql.rollback import _wire as wire
from pytest_arena._postgresql.rollback._sockets import Disconnected
from pytest_arena._postgresql.rollback._transaction_sql import ENDING_TIMEOUTS
from pytest_arena._postgresql.rollback._wire import Message, Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pytest_arena._values import Address

_SETTINGS = {
    "client_min_messages": "notice",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
}
_REPORTED = (
    "server_version",
    "server_encoding",
    "client_encoding",
    "application_name",
    "is_superuser",
    "session_authorization",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "integer_datetimes",
    "standard_conforming_strings",
    "search_path",
)
_READING = "arena_reading"  # the savepoint in which statements only read
# These settings are the last, because the connection's first role may change all settings. The
# session's user must precede its role.
_LAST = {"session_authorization": 1, "role": 2}
_RESET_ALL = "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL"
# A query for the value of each sequence, if the role may read and set the sequence.
SEQUENCES = """
SELECT coalesce(string_agg(format(
    'SELECT %1$s AS oid, %2$L AS name, last_value, is_called FROM %2$s',
    c.oid, format('%I.%I', n.nspname, c.relname)), ' UNION ALL ' ORDER BY c.oid), '')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND c.relpersistence <> 't'
AND CASE WHEN c.relkind = 'S' THEN has_schema_privilege(n.oid, 'USAGE')
    AND has_sequence_privilege(c.oid, 'SELECT') AND has_sequence_privilege(c.oid, 'UPDATE') END
"""
# A query for the statement that restores the current values. It returns a row for each sequence
# that has moved.
RESTORING = """
SELECT string_agg(format('SELECT setval(%1$s::regclass, %2$s, %3$L) FROM %4$s '
    'WHERE last_value <> %2$s OR is_called <> %3$L', oid, last_value, is_called, name),
    ' UNION ALL ') FROM ({}) sequences
"""
# A query for the statements that check deferrable constraints, and defer them again.
_CHECKS = """
SELECT CASE count(*) WHEN 0 THEN '' ELSE 'SET CONSTRAINTS ALL IMMEDIATE' END || coalesce(
    '; SET CONSTRAINTS ' || string_agg(DISTINCT format('%I.%I', n.nspname, c.conname), ', ')
    FILTER (WHERE c.condeferred) || ' DEFERRED', '')
FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace
WHERE c.condeferrable
"""


class BackendFailure(Exception):
    """PostgreSQL refused a statement of the proxy."""

    def __init__(self, answer: Message) -> None:
        self.answer = answer
        super().__init__(wire.fields_of(answer.body).get("M", ""))


@dataclass(slots=True)
class BackendAnswer:
    """The backend's answer: its messages without ReadyForQuery, and the error among them."""

    messages: list[Message]
    error: Message | None

    @property
    def sqlstate(self) -> str:
        """The SQLSTATE of the error, "" without an error."""
        if self.error is None:
            return ""
        return wire.fields_of(self.error.body).get("C", "")

    @property
    def tags(self) -> list[str]:
        """The tags of completed commands, such as INSERT 0 1."""
        return [
            wire.first_string(message.body)[0]
            for message in self.messages
            if message.kind == b"C"
        ]

    @property
    def rows(self) -> list[list[str | None]]:
        """The rows, in text format."""
        return [
            wire.row_of(message.body)
            for message in self.messages
            if message.kind == b"D"
        ]


class Backend:
    """A connection to the real database, inside a transaction. One thread at a time may use it.

    It knows the transaction's savepoints, and for each the settings that a rollback restores.
    Statements about savepoints are sent with the next statement, in the same round trip.

    Raises:
        ControlFailure: the server does not answer, or refuses the login.
        Disconnected: the server has ended the connection.
        BackendFailure: the server refuses a statement of the proxy.
    """

    def __init__(self, address: Address, lock_timeout: float) -> None:
        self._address = address
        self._options = {**_SETTINGS, "lock_timeout": f"{lock_timeout * 1000:.0f}"}
        self.has_ddl = False  # the schema was changed in a level that is open
        self._sequences: str | None = None
        self._checks: str | None = None
        self._connect()
        self.statuses = self._control.statuses(_REPORTED)

    def _connect(self) -> None:
        """Open the real connection, and begin its transaction."""
        self._control = open_control(self._address, self._options, is_plain=True)
        self._socket = self._control.copy_socket()
        self._socket.settimeout(None)
        self._reader = Reader(self._socket)
        self._pending: list[str] = []
        self._settings: Mapping[str, str] = {}
        # The settings at the start of each savepoint.
        self._savepoints: dict[str, Mapping[str, str]] = {}
        self._prepared = ""  # the prepared statement that restores sequences
        self.query("BEGIN")

    def send(self, data: bytes) -> None:
        """Send a packet. If the socket is full, read, because the server may wait for that."""
        rest = memoryview(data)
        try:
            while rest:
                try:
                    sent = self._socket.send(rest, socket.MSG_DONTWAIT)
                    rest = rest[sent:]
                except BlockingIOError:
                    self._read_until_writable()
        except (OSError, ValueError) as error:  # another thread has closed the socket
            raise Disconnected from error

    def _read_until_writable(self) -> None:
        places = [self._socket]
        readable, _, _ = select.select(places, places, [])
        if readable:
            self._reader.feed()

    def answer(
        self, copy_rows: Callable[[list[Message]], Iterable[Message]] | None = None
    ) -> BackendAnswer:
        """Read until ReadyForQuery. If the server waits for rows, send those of ``copy_rows``."""
        messages: list[Message] = []
        error = None
        while True:
            message = self._reader.message()
            if message.kind == b"Z":
                if message.body == b"I":
                    raise Disconnected  # the transaction has ended
                return BackendAnswer(messages, error)
            messages.append(message)
            if message.kind == b"E":
                error = message
            elif message.kind == b"G" and copy_rows is not None:
                for row in copy_rows(messages):
                    self.send(row.data)
                messages = []

    def note_settings(self, settings: Mapping[str, str]) -> None:
        """Note the settings after a client's statements."""
        self._settings = settings

    def execute_later(self, sql: str) -> None:
        """Send a statement together with the next one."""
        self._pending.append(sql)

    def has(self, savepoint: str) -> bool:
        """Return whether the transaction has a savepoint."""
        return savepoint in self._savepoints

    @property
    def last_savepoint(self) -> str:
        """The name of the last open savepoint."""
        return next(reversed(self._savepoints))

    def set_savepoint(self, name: str) -> None:
        """Open a savepoint."""
        self.execute_later(f"SAVEPOINT {name}")
        self._savepoints[name] = self._settings

    def release(self, name: str) -> None:
        """Release a savepoint, and keep the changes since then."""
        if name != _READING:
            self.end_reading()
        self.execute_later(f"RELEASE SAVEPOINT {name}")
        self._forget_after(name)
        del self._savepoints[name]

    def roll_back_to(self, name: str) -> None:
        """Roll back to a savepoint, which stays open."""
        self.execute_later(f"ROLLBACK TO SAVEPOINT {name}")
        self._forget_after(name)
        self._settings = self._savepoints[name]
        if self.has_ddl and name != _READING:
            self.note_ddl()

    def undo(self, name: str) -> None:
        """Roll back to a savepoint, and release it."""
        self.roll_back_to(name)
        self.release(name)

    def _forget_after(self, name: str) -> None:
        while self.last_savepoint != name:
            self._savepoints.popitem()

    def undo_failed(self) -> None:
        """Roll back to the last savepoint, as the server demands after an error."""
        if self.has(_READING):
            self.end_reading()  # a rollback to this savepoint alone would allow writes
        else:
            self.roll_back_to(self.last_savepoint)

    def begin_reading(self) -> None:
        """Open the savepoint for statements that only read."""
        if not self.has(_READING):
            self.set_savepoint(_READING)
            self.be_read_only()

    def be_read_only(self) -> None:
        """Refuse writes until a rollback to the last savepoint."""
        self.execute_later("SET LOCAL transaction_read_only = on")

    def end_reading(self) -> None:
        """Roll back and release the savepoint of statements that only read."""
        if self.has(_READING):
            self.undo(_READING)

    def use_settings(self, settings: Mapping[str, str]) -> None:
        """Give the connection these settings and no others. The server may refuse a value.

        Without settings the connection has pytest-arena's role and rights.
        """
        if settings == self._settings:
            return
        if self._settings:
            self.execute_later(_RESET_ALL)
        names = sorted(
            settings.keys() - ENDING_TIMEOUTS, key=lambda name: _LAST.get(name, 0)
        )
        calls = [
            f"set_config({literal(name)}, {literal(settings[name])}, false)"
            for name in names
        ]
        if calls:
            self.execute_later(f"SELECT {', '.join(calls)}")
        self._settings = settings

    def exchange(
        self,
        data: bytes,
        copy_rows: Callable[[list[Message]], Iterable[Message]] | None = None,
    ) -> BackendAnswer:
        """Execute the pending statements and a packet. Return the packet's answer."""
        pending = self._pending_query()
        self.send(pending + data)
        error = self.answer().error if pending else None
        answer = self.answer(copy_rows)
        if error is not None:
            raise BackendFailure(error)
        return answer

    def execute_pending(self) -> None:
        """Execute the pending statements."""
        self.query("")

    def query(self, sql: str) -> BackendAnswer:
        """Execute statements of the proxy. Return their answer."""
        answer = self.exchange(wire.query(sql).data)
        if answer.error is not None:
            raise BackendFailure(answer.error)
        return answer

    def _pending_query(self) -> bytes:
        if not self._pending:
            return b""
        query = wire.query("; ".join(self._pending))
        self._pending = []
        return query.data

    def close_statements(self, names: Iterable[str]) -> None:
        """Close prepared statements."""
        self.send(wire.data_of([*map(wire.close_statement, names), wire.SYNC]))
        self.answer()

    def close_cursors(self, names: Iterable[str]) -> None:
        """Close cursors and portals. The server ignores unknown names."""
        self.send(wire.data_of([*map(wire.close_portal, names), wire.SYNC]))
        self.answer()

    def note_ddl(self) -> None:
        """Note a change of the schema. Discard cached queries of sequences and constraints."""
        self.has_ddl = True
        self._sequences = None
        self._checks = None

    def forget_ddl(self) -> None:
        """Note that no open level has changed the schema."""
        self.has_ddl = False

    def check_constraints(self) -> None:
        """Check deferred constraints as a COMMIT does."""
        if self._checks is None:
            [[self._checks]] = self.query(_CHECKS).rows
        if self._checks:
            self.query(self._checks)

    def restoring(self) -> str:
        """Return the statement that restores the current values of all sequences, or ""."""
        if self._sequences is None:
            [[self._sequences]] = self.query(SEQUENCES).rows
        if not self._sequences:
            return ""
        [[statement]] = self.query(RESTORING.format(self._sequences)).rows
        return str(statement)

    def restore_sequences(self, restoring: str) -> bool:
        """Execute the statement of ``restoring()``. Return whether a sequence had moved.

        ``setval()`` gives ``currval()`` a value in the session. This discards that value.
        """
        if not restoring:
            self.query("DISCARD SEQUENCES")
            return False
        if restoring != self._prepared:
            if self._prepared:
                self.execute_later("DEALLOCATE arena_restore")
            self.execute_later(f"PREPARE arena_restore AS {restoring}")
            self._prepared = restoring
        return bool(self.query("EXECUTE arena_restore; DISCARD SEQUENCES").rows)

    def reset_session_later(self) -> None:
        """Release the session's advisory locks and seed ``random()``, before the next statement.

        A rollback changes neither of them.
        """
        seed = SystemRandom().uniform(-1, 1)
        self.execute_later(
            f"SELECT pg_catalog.pg_advisory_unlock_all(), pg_catalog.setseed({seed})"
        )

    def restart(self) -> None:
        """Begin another transaction, so that ``now()`` has a new value."""
        # If a client cancelled between ROLLBACK and BEGIN, its statement would run outside of any
        # transaction. AND CHAIN also keeps the read-only mode of the last savepoint.
        self._pending += ["ROLLBACK AND CHAIN", "SET TRANSACTION READ WRITE"]
        self._savepoints = {}
        self._settings = {}

    def reconnect(self) -> None:
        """Replace the real connection by a new one. The server rolls back.

        Raises:
            ControlFailure: the server does not answer, or refuses the login.
        """
        self.close()
        self._connect()

    def commit(self) -> None:
        """Commit, because the database is kept for inspection."""
        self.query("COMMIT AND CHAIN")
        self._savepoints = {}

    def cancel(self) -> None:
        """Cancel the running statement."""
        self._control.cancel()

    def close(self) -> None:
        """Close the connection, which rolls back."""
        self._control.close()
        with suppress(OSError):
            self._socket.shutdown(
                socket.SHUT_RDWR
            )  # wakes a thread that reads the socket
        self._socket.close()
