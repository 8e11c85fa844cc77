"""The real connection, whose only transaction is never committed."""

from __future__ import annotations

import select
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import open_control
from pytest_arena._postgresql.rollback import _wire as wire
from pytest_arena._postgresql.rollback._wire import Message, Reader

if TYPE_CHECKING:
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
GUARD = "arena_guard"
Numbers = dict[
    str, tuple[str, str]
]  # of sequences: last_value and is_called by the oid
# Each sequence with its number. The connection's role may read them all, or none is restored.
_SEQUENCES = """
SELECT coalesce(string_agg(format(
    'SELECT %s::oid, last_value, is_called FROM %I.%I', c.oid, n.nspname, c.relname),
    ' UNION ALL ' ORDER BY c.oid), '')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND c.relpersistence <> 't'
AND CASE WHEN c.relkind = 'S' THEN has_schema_privilege(n.oid, 'USAGE')
    AND has_sequence_privilege(c.oid, 'SELECT') AND has_sequence_privilege(c.oid, 'UPDATE') END
"""
_DEFERRED = """
SELECT string_agg(DISTINCT format('%I.%I', n.nspname, c.conname), ', ')
FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace
WHERE c.condeferred
"""


class BackendFailure(Exception):
    """PostgreSQL refused a statement of the proxy."""

    def __init__(self, answer: Message) -> None:
        self.answer = answer
        fields = wire.fields_of(answer.body)
        self.sqlstate = fields.get("C", "")
        super().__init__(fields.get("M", ""))


@dataclass(slots=True)
class BackendAnswer:
    """The messages with which the backend answers a packet, without ReadyForQuery."""

    messages: list[Message] = field(default_factory=list)

    @property
    def error(self) -> Message | None:
        """The ErrorResponse, if there is one."""
        for message in self.messages:
            if message.kind == b"E":
                return message
        return None

    @property
    def sqlstate(self) -> str:
        """The code of the error, "" for none."""
        error = self.error
        return wire.fields_of(error.body).get("C", "") if error else ""

    @property
    def tags(self) -> list[str]:
        """The tags of the commands that are complete, such as INSERT 0 1."""
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

    Raises:
        ControlFailure: the server does not answer, or refuses the login.
        Disconnected: the server has ended the connection.
        BackendFailure: the server refuses a statement of the proxy.
    """

    def __init__(self, address: Address, lock_timeout: float) -> None:
        settings = {**_SETTINGS, "lock_timeout": f"{lock_timeout * 1000:.0f}"}
        self._control = open_control(address, settings, is_plain=True)
        self.pid = self._control.pid
        self.statuses = self._control.statuses(_REPORTED)
        self._socket = self._control.copy_socket()
        self._socket.settimeout(0)
        self._reader = Reader(self._socket)
        self.sequences_query = ""
        self._prepared = 0
        self._deferred: str | None = None
        self.query("BEGIN")

    def send(self, data: bytes) -> None:
        """Send a packet. Read meanwhile, because the server may wait for that."""
        rest = memoryview(data)
        while rest:
            readable, writable = self._wait(writes=True)
            if readable:
                self._reader.feed()
            if writable:
                try:
                    sent = self._socket.send(rest)
                except OSError as error:
                    raise wire.Disconnected from error
                rest = rest[sent:]

    def _wait(self, *, writes: bool) -> tuple[bool, bool]:
        """Wait until the socket can be read, or written. Return whether each is so."""
        places = [self._socket]
        try:
            readable, writable, _ = select.select(places, places if writes else [], [])
        except (OSError, ValueError) as error:  # another thread has closed it
            raise wire.Disconnected from error
        return bool(readable), bool(writable)

    def message(self) -> Message:
        """Wait for the next message."""
        message = self._reader.buffered_message()
        while message is None:
            self._wait(writes=False)
            self._reader.feed()
            message = self._reader.buffered_message()
        return message

    def answer(self) -> BackendAnswer:
        """Read until ReadyForQuery."""
        messages: list[Message] = []
        while True:
            message = self.message()
            if message.kind == b"Z":
                if message.body == b"I":
                    raise wire.Disconnected  # the transaction has ended
                return BackendAnswer(messages)
            messages.append(message)

    def query(self, sql: str) -> BackendAnswer:
        """Run statements of the proxy."""
        self.send(wire.query(sql).data)
        answer = self.answer()
        if answer.error is not None:
            raise BackendFailure(answer.error)
        return answer

    def note_ddl(self) -> None:
        """Forget what a change of the schema may have changed."""
        self.sequences_query = ""
        self._deferred = None

    def deferred(self) -> str:
        """Return the names of constraints that are checked at a commit."""
        if self._deferred is None:
            [[names]] = self.query(_DEFERRED).rows
            self._deferred = names or ""
        return self._deferred

    def sequences(self, query: str = "", *, after: str = "") -> Numbers:
        """Return the numbers of all sequences. ``query`` is an earlier ``sequences_query``.

        ``after`` is a statement without rows that is executed before, in the same round trip.
        """
        if not query:
            if not self.sequences_query:
                self.sequences_query = self._prepare_sequences()
            query = self.sequences_query
        rows = self.query(after + query).rows
        return {str(oid): (str(last), str(called)) for oid, last, called in rows}

    def _prepare_sequences(self) -> str:
        """Prepare the query of all sequences, because each level runs it twice."""
        [[text]] = self.query(_SEQUENCES).rows
        self._prepared += 1
        name = f"arena_sequences_{self._prepared}"
        self.query(f"PREPARE {name} AS {text or 'SELECT 0, 0, false WHERE false'}")
        return f"EXECUTE {name}"

    def restart(self) -> None:
        """Begin another transaction. It has another time."""
        self.query("ROLLBACK; BEGIN")

    def commit(self) -> None:
        """Commit. The database is about to be kept, and has no other use."""
        self.query("COMMIT AND CHAIN")

    def cancel(self) -> None:
        """Cancel the running statement."""
        self._control.cancel()

    def close(self) -> None:
        """Close the connection, which rolls back."""
        with suppress(OSError):
            self._socket.close()
        self._control.close()
