"""The connections of an app to the proxy, each with its virtual transaction and session."""

from __future__ import annotations

import re
import secrets
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pytest_arena._postgresql._control import APPLICATION_NAME
from pytest_arena._postgresql.rollback import _transaction_sql as sql
from pytest_arena._postgresql.rollback import _wire as wire
from pytest_arena._postgresql.rollback._wire import Message, Reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_arena._postgresql.rollback._backend import BackendAnswer
    from pytest_arena._postgresql.rollback._transaction_sql import Statement

Values = dict[str, "str | None"]
_ABORTED = wire.error(
    "25P02",
    "current transaction is aborted, commands ignored until end of transaction block",
)
_NO_BLOCK = "can only be used in transaction blocks"
_OPTION = re.compile(r"(?:-c\s*|--)([\w.\-]+)=((?:\\.|[^\s\\])*)")
_DURATION = re.compile(r"\s*([\d.]+)\s*(us|ms|s|min|h|d|)\s*")
_UNITS = {"": 1e-3, "us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400}
BE_READ_ONLY = "SET LOCAL transaction_read_only = on"
_FIRST_PID = 1_000_000_000  # no process has such a number
# Each response that ends the answer to a message of the extended protocol.
_ENDS = {
    b"P": b"1",
    b"B": b"2",
    b"C": b"3",
    b"D": b"Tn",
    b"E": b"CIs",
}
_UTF8 = {"utf8", "utf-8", "unicode"}


class TransactionOfAll(Protocol):
    """Executes in one transaction what all clients send. `SharedTransaction` implements it."""

    lock_timeout: float | None

    def begin_session(self, client: Client) -> None:
        """Give a client the rights of its user."""

    def statuses(self) -> dict[str, str]:
        """Return the settings that the server reports to a new connection."""

    def run(self, client: Client, request: Packet) -> BackendAnswer:
        """Execute statements of a client."""

    def commit(self, client: Client) -> Message | None:
        """Keep a client's transaction. Return the error of a constraint that it violates."""

    def roll_back(self, client: Client) -> None:
        """Roll back a client's transaction."""

    def roll_back_to(self, client: Client, index: int) -> None:
        """Roll back to a savepoint of a client."""

    def release(self, client: Client, index: int) -> None:
        """Release a savepoint of a client."""

    def close_statements(self, client: Client, names: Sequence[str]) -> None:
        """Close prepared statements at the backend."""

    def cancel(self, pid: int, secret: int) -> None:
        """Cancel what a client waits for."""

    def forget(self, client: Client) -> None:
        """Roll back what a client has left, and forget it."""

    def note(self, remark: str) -> None:
        """Report what this isolation cannot show."""


@dataclass(slots=True)
class Packet:
    """Messages of a client that go to the backend in one packet."""

    messages: list[Message] = field(default_factory=list)
    inserted: set[int] = field(default_factory=set)  # the proxy's own messages
    statements: list[Statement] = field(default_factory=list)
    is_pinned: bool = False  # a portal must outlive the packet
    is_extended: bool = True

    def add(self, message: Message) -> None:
        """Add a message of the client."""
        self.messages.append(message)

    def insert(self, message: Message) -> None:
        """Add a message whose answer the client does not get."""
        self.inserted.add(len(self.messages))
        self.messages.append(message)

    def pin(self) -> None:
        """Note that a portal must outlive the packet."""
        self.is_pinned = True

    @property
    def data(self) -> bytes:
        """The packet."""
        data = wire.data_of(self.messages)
        return data + wire.SYNC.data if self.is_extended else data

    @property
    def is_copy_in(self) -> bool:
        """Whether the client sends rows."""
        return any(statement.is_copy_in for statement in self.statements)

    def answers(self, messages: Sequence[Message]) -> list[Message]:
        """Leave out the answers to inserted messages."""
        if not self.inserted:
            return [*messages]
        answers = []
        number = 0
        for message in messages:
            if message.kind == b"E" or number not in self.inserted:
                answers.append(message)
            is_end = (
                number < len(self.messages)
                and message.kind in _ENDS[self.messages[number].kind]
            )
            number += is_end
        return answers

    def answers_before_copy(self, messages: Sequence[Message]) -> list[Message]:
        """Return the answers before rows are sent. The rest belongs to the last message."""
        answers = self.answers(messages)
        self.inserted.clear()
        return answers


@dataclass(slots=True)
class Savepoint:
    """A savepoint of an app's transaction. ``is_open``: the backend has it."""

    name: str
    values: Values
    is_open: bool = False

    def open(self) -> None:
        """Note that the backend has it."""
        self.is_open = True


class Client:
    """One connection to the proxy, served by a thread of its own."""

    def __init__(
        self, proxy: TransactionOfAll, connection: socket.socket, number: int
    ) -> None:
        self._proxy = proxy
        self._socket = connection
        self._reader = Reader(connection)
        self.number = number
        self.pid = _FIRST_PID + number
        self.secret = secrets.randbits(31)
        self.state = "I"  # as in ReadyForQuery
        self.is_implicit = False  # the transaction of an extended query until its Sync
        self.is_read_only = False
        self.is_open = False  # the backend has the savepoint of the transaction
        self.has_written = False
        self.defers = False
        self.first_write = ""
        self.savepoints: list[Savepoint] = []
        self.startup: Values = {}
        self.values: Values = {}
        self.begin_values: Values = {}
        self.user = ""
        # Settings of the open transaction only, with the values that they had before.
        self._locals: Values = {}
        self._statements: dict[str, Statement] = {}
        self._portals: dict[str, Statement] = {}
        self._is_skipping = False  # after an error, until Sync
        self._request = Packet()
        self._answers: list[Message] = []

    @property
    def lock_timeout(self) -> float | None:
        """Seconds to wait for another transaction. None: without a limit."""
        text = self.values.get("lock_timeout")
        if text is None:
            return self._proxy.lock_timeout
        return seconds_of(text)

    @property
    def prefix(self) -> str:
        """Begins the names of its statements and portals at the backend."""
        return f"c{self.number}_"

    @property
    def savepoint(self) -> str:
        """The name of the savepoint of its transaction."""
        return f"arena_client_{self.number}"

    def open_savepoints(self) -> list[str]:
        """Return what opens the savepoints of its transaction that the backend lacks."""
        opening = []
        if not self.is_open:
            opening.append(f"SAVEPOINT {self.savepoint}")
            if self.is_read_only:
                opening.append(BE_READ_ONLY)
            self.is_open = True
        for index, savepoint in enumerate(self.savepoints):
            if not savepoint.is_open:
                opening.append(f"SAVEPOINT {self.savepoint_at(index)}")
                savepoint.open()
        return opening

    def note_write(self, statement: Statement) -> None:
        """Note a statement that has changed something in its transaction."""
        self.first_write = self.first_write or statement.shown
        self.has_written = True

    def note_deferring(self) -> None:
        """Note that its transaction defers constraints."""
        self.defers = True

    def close_savepoint(self) -> None:
        """Note that the backend has rolled back its transaction."""
        self.is_open = False

    def savepoint_at(self, index: int) -> str:
        """Return the backend's name of a savepoint of the app."""
        return f"{self.savepoint}_{index}"

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self.state != "I" or self.is_implicit

    # The connection

    def serve(self) -> None:
        """Answer messages until the client or the server ends the connection."""
        try:
            if self._start():
                while self._answer_next():
                    pass
        except (wire.Disconnected, OSError):
            pass
        finally:
            with suppress(wire.Disconnected, OSError):
                self._proxy.forget(self)
            self.close()

    def close(self) -> None:
        """Close the connection."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def send(self, messages: Sequence[Message]) -> None:
        """Send messages to the client."""
        self._socket.sendall(wire.data_of(messages))

    def end(self, sqlstate: str, message: str) -> None:
        """End the connection with an error."""
        with suppress(OSError):
            self.send([wire.error(sqlstate, message, severity="FATAL")])
        self.close()

    def _start(self) -> bool:
        while True:
            code, body = self._reader.startup()
            if code in {wire.SSL_REQUEST, wire.GSS_REQUEST}:
                self._socket.sendall(b"N")
            elif code == wire.CANCEL_REQUEST:
                self._proxy.cancel(*wire.backend_key_of(body))
                return False
            else:
                break
        texts = wire.strings(body)
        parameters = dict(zip(texts[::2], texts[1::2], strict=False))
        self._configure(parameters)
        statuses = self._proxy.statuses()
        for name in statuses:
            value = self.startup.get(name.lower())
            statuses[name] = statuses[name] if value is None else value
        reports = [wire.parameter_status(*status) for status in statuses.items()]
        key = wire.backend_key(self.pid, self.secret)
        self.send([wire.AUTHENTICATED, *reports, key, wire.ready("I")])
        return True

    def _configure(self, parameters: dict[str, str]) -> None:
        self.user = parameters.pop("user", "")
        parameters.pop("database", None)
        parameters.pop("replication", None)
        options = parameters.pop("options", "")
        for name, value in _OPTION.findall(options):
            unescaped = re.sub(r"\\(.)", r"\1", value)
            self.startup[sql.setting_name(name.replace("-", "_"))] = unescaped
        for name, value in parameters.items():
            if name and not name.startswith("_pq_"):
                self.startup[sql.setting_name(name)] = value
        encoding = self.startup.get("client_encoding") or ""
        if encoding.lower() in _UTF8:
            del self.startup["client_encoding"]
        timeout = self.startup.get("lock_timeout")
        if timeout is not None and seconds_of(timeout) == self._proxy.lock_timeout:
            del self.startup["lock_timeout"]
        self._proxy.begin_session(self)
        self.values = {**self.startup}

    def _answer_next(self) -> bool:
        """Answer the messages up to the next Sync, Flush or simple query."""
        message = self._reader.message()
        if message.kind == b"X":
            return False
        if message.kind == b"Q":
            text, _ = wire.first_string(message.body)
            self._answers = []
            self._simple_query(text)
            if self.is_implicit:
                # asyncpg sends COPY so after a Flush, and no Sync.
                self._skip_after_error()
                self._end_implicit()
                self._is_skipping = False
            self._answers.append(wire.ready(self.state))
            self.send(self._answers)
            self._answers = []
        elif message.kind == b"S":
            self._sync()
        elif message.kind == b"H":
            self._flush()
        elif message.kind == b"F":
            self._call_function(message)
        elif message.kind in _ENDS and not self._is_skipping:
            self._extended(message)
        return True

    def _call_function(self, message: Message) -> None:
        """Call a function by its number, as psycopg2 does for large objects."""
        answers = [_ABORTED]
        if self.state != "E":
            statements = [sql.Statement("a function call", "write")]
            request = Packet([message], statements=statements, is_extended=False)
            answers = self._proxy.run(self, request).messages
        if any(answer.kind == b"E" for answer in answers):
            self.note_error()
        self.send([*answers, wire.ready(self.state)])

    # The simple protocol

    def _simple_query(self, text: str) -> None:
        for statement in sql.parsed(text):
            self._note_remark(statement)
            if statement.is_control:
                self._control(statement)
            elif self.state == "E":
                self._answers.append(_ABORTED)
            else:
                named = self._with_own_names(statement)
                request = Packet(is_extended=False, statements=[statement])
                request.add(wire.query(named))
                self._answers += self._proxy.run(self, request).messages
            if any(answer.kind == b"E" for answer in self._answers):
                self.note_error()
                return

    def _with_own_names(self, statement: Statement) -> str:
        """Return the text with the client's names. Note a statement that PREPARE makes."""
        prepared = sql.prepared_name(statement.sql)
        if prepared:
            self._statements[prepared] = statement
        return sql.with_own_names(statement.sql, self.prefix)

    def _note_remark(self, statement: Statement) -> None:
        if statement.remark:
            self.note(statement.remark)

    def note(self, remark: str) -> None:
        """Report what this isolation cannot show, unless pytest-arena itself is the client."""
        if self.startup.get("application_name") != APPLICATION_NAME:
            self._proxy.note(remark)

    def note_error(self) -> None:
        """Note that the transaction has failed. The guard has undone the statement."""
        if self.state == "T":
            self.state = "E"

    # The extended protocol

    def _extended(self, message: Message) -> None:
        handler = {
            b"P": self._parse,
            b"B": self._bind,
            b"D": self._describe,
            b"E": self._execute,
            b"C": self._close,
        }
        handler[message.kind](message)

    def _parse(self, message: Message) -> None:
        name, position = wire.first_string(message.body)
        text, position = wire.first_string(message.body, position)
        types = message.body[position:]
        statements = sql.parsed(text)
        statement = statements[0]
        if self.state == "E" and not _ends_transaction(statement):
            self._fail_with(_ABORTED)
            return
        self._statements[name] = statement
        if statement.is_control and len(statements) == 1:
            self._run_request()
            self._answer(wire.PARSED)
            return
        if not name:
            self._request.insert(wire.close_statement(self.prefix))
        named = sql.with_own_names(text, self.prefix)
        body = wire.packed(self.prefix + name) + wire.packed(named) + types
        self._request.add(Message(b"P", body))

    def _bind(self, message: Message) -> None:
        portal, position = wire.first_string(message.body)
        name, position = wire.first_string(message.body, position)
        statement = self._statements.get(name)
        if statement is None:
            self._fail("26000", f'prepared statement "{name}" does not exist')
            return
        if self.state == "E" and not _ends_transaction(statement):
            self._fail_with(_ABORTED)
            return
        self._portals[portal] = statement
        if statement.is_control:
            self._run_request()
            self._answer(wire.BOUND)
            return
        if portal:
            self._request.pin()
        else:
            self._request.insert(wire.close_portal(self.prefix))
        names = wire.packed(self.prefix + portal) + wire.packed(self.prefix + name)
        self._request.add(Message(b"B", names + message.body[position:]))

    def _describe(self, message: Message) -> None:
        kind = message.body[:1]
        name, _ = wire.first_string(message.body, 1)
        known = self._statements if kind == b"S" else self._portals
        statement = known.get(name)
        if statement is not None and statement.is_control:
            self._run_request()
            if kind == b"S":
                self._answer(wire.NO_PARAMETERS)
            self._answer(wire.NO_DATA)
            return
        self._request.add(Message(b"D", kind + self._packed_name(kind, name)))

    def _execute(self, message: Message) -> None:
        portal, _ = wire.execute_of(message.body)
        statement = self._portals.get(portal)
        if statement is None:
            # A cursor that DECLARE has opened. Its packet must not be rolled back.
            self._request.pin()
            self._request.add(message)
            return
        self._note_remark(statement)
        if statement.is_control:
            self._run_request()
            if not self._is_skipping:
                self._control(statement)
                self._skip_after_error()
            return
        if self.state == "E":
            self._fail_with(_ABORTED)
            return
        self._request.statements.append(statement)
        limit = message.body[-4:]
        self._request.add(Message(b"E", wire.packed(self.prefix + portal) + limit))
        if statement.is_copy_in:
            self._run_request()

    def _close(self, message: Message) -> None:
        kind = message.body[:1]
        name, _ = wire.first_string(message.body, 1)
        known = self._statements if kind == b"S" else self._portals
        named = kind + self._packed_name(kind, name)
        statement = known.pop(name, None)
        if statement is not None and statement.is_control:
            self._run_request()
            self._answer(wire.CLOSED)
            return
        self._request.add(Message(b"C", named))

    def _packed_name(self, kind: bytes, name: str) -> bytes:
        """Return a name at the backend. A cursor that DECLARE has opened keeps its name."""
        if kind == b"P" and name not in self._portals:
            return wire.packed(name)
        return wire.packed(self.prefix + name)

    def _answer(self, message: Message) -> None:
        if not self._is_skipping:
            self._answers.append(message)

    def _fail(self, sqlstate: str, text: str) -> None:
        self._fail_with(wire.error(sqlstate, text))

    def _fail_with(self, error: Message) -> None:
        self._run_request()
        self._answer(error)
        self._is_skipping = True
        self.note_error()

    def _skip_after_error(self) -> None:
        if self._answers and self._answers[-1].kind == b"E":
            self._is_skipping = True
            self.note_error()

    def _run_request(self) -> None:
        """Send the messages that were collected, and collect their answers."""
        request = self._request
        self._request = Packet()
        if not request.messages or self._is_skipping:
            return
        answer = self._proxy.run(self, request)
        self._answers += request.answers(answer.messages)
        if answer.error is not None:
            self._is_skipping = True
            self.note_error()

    def _flush(self) -> None:
        if not self.in_transaction:
            self._begin()
            self.state = "I"
            self.is_implicit = True
        self._run_request()
        self.send(self._answers)
        self._answers = []

    def _sync(self) -> None:
        self._run_request()
        if self.is_implicit:
            self._end_implicit()
        self._is_skipping = False
        self._answers.append(wire.ready(self.state))
        self.send(self._answers)
        self._answers = []

    def _end_implicit(self) -> None:
        if self._is_skipping:
            self._proxy.roll_back(self)
            self._end_transaction(is_committed=False)
            return
        error = self._proxy.commit(self)
        self._end_transaction(is_committed=error is None)
        if error is not None:
            self._answers.append(error)

    # Copy

    def send_before_copy(self, answers: Sequence[Message]) -> None:
        """Send all answers so far, so that the client sends rows."""
        self.send([*self._answers, *answers])
        self._answers = []

    def next_copy_message(self) -> Message:
        """Return the next message of rows, or the one that ends them."""
        while True:
            message = self._reader.message()
            if message.kind in {b"d", b"c", b"f"}:
                return message

    def note_setting(self, name: str, value: str | None, *, is_local: bool) -> None:
        """Note the value that a statement has given to a setting. ``is_local``: until a commit."""
        if name == "role" and value == "none":
            value = self.startup.get("role")
        if is_local:
            if not self.in_transaction:
                return
            before = self.values.get(name)
            self._locals.setdefault(name, before)
        else:
            self._locals.pop(name, None)
        self.values[name] = value

    # Transactions

    def _begin(self) -> None:
        self.state = "T"
        self.is_read_only = False
        self.begin_values = {**self.values}

    def _end_transaction(self, *, is_committed: bool) -> None:
        if not is_committed:
            self.values = {**self.begin_values}
        elif self._locals:
            self.values = {**self.values, **self._locals}
        self._locals = {}
        self.state = "I"
        self.is_implicit = False
        self.is_read_only = False
        self.is_open = False
        self.has_written = False
        self.defers = False
        self.first_write = ""
        self.savepoints = []
        self._portals = {}

    def cut_off(self) -> None:
        """Note that the level of its transaction was left, and with it the transaction."""
        was_open = self.in_transaction
        self._end_transaction(is_committed=False)
        if was_open:
            self.begin_values = {**self.values}
            self.state = "E"

    def _control(self, statement: Statement) -> None:
        """Execute a statement about transactions or the session."""
        if self.state == "E" and not _ends_transaction(statement):
            self._answers.append(_ABORTED)
            return
        handlers = {
            "begin": self._do_begin,
            "commit": self._do_commit,
            "rollback": self._do_rollback,
            "savepoint": self._do_savepoint,
            "release": self._do_release,
            "rollback_to": self._do_rollback_to,
            "mode": self._do_mode,
            "prepared": self._do_prepared,
            "reset_all": self._do_reset,
            "reset": self._do_reset,
            "discard_all": self._do_discard_all,
            "close_all": self._do_nothing,
            "unlisten": self._do_nothing,
            "discard": self._do_nothing,
            "deallocate": self._do_deallocate,
            "deallocate_all": self._do_deallocate,
        }
        handlers[statement.kind](statement)

    def _complete(self, tag: str) -> None:
        self._answers.append(wire.complete(tag))

    def _do_begin(self, statement: Statement) -> None:
        if self.state == "I":
            was_implicit = self.is_implicit
            self.is_implicit = False
            if was_implicit:
                self.state = "T"
            else:
                self._begin()
            self.is_read_only = statement.is_read_only
        else:
            text = "there is already a transaction in progress"
            self._answers.append(wire.warning("25001", text))
        is_start = statement.sql[:5].upper() == "START"
        self._complete("START TRANSACTION" if is_start else "BEGIN")

    def _do_commit(self, statement: Statement) -> None:
        if not self.in_transaction:
            text = "there is no transaction in progress"
            self._answers.append(wire.warning("25P01", text))
        was_aborted = self.state == "E"
        error = None
        if was_aborted:
            self._proxy.roll_back(self)
        else:
            error = self._proxy.commit(self)
        self._end_transaction(is_committed=not was_aborted and error is None)
        if error is not None:
            self._answers.append(error)
            return
        if statement.is_chained:
            self._begin()
        self._complete("ROLLBACK" if was_aborted else "COMMIT")

    def _do_rollback(self, statement: Statement) -> None:
        if not self.in_transaction:
            text = "there is no transaction in progress"
            self._answers.append(wire.warning("25P01", text))
        else:
            self._proxy.roll_back(self)
            self._end_transaction(is_committed=False)
        if statement.is_chained:
            self._begin()
        self._complete("ROLLBACK")

    def _do_savepoint(self, statement: Statement) -> None:
        if not self.in_transaction:
            self._answers.append(wire.error("25P01", f"SAVEPOINT {_NO_BLOCK}"))
            return
        self.savepoints.append(Savepoint(statement.name, {**self.values}))
        self._complete("SAVEPOINT")

    def _find_savepoint(self, statement: Statement) -> int | None:
        """Return the index of the last savepoint of a name. Without one answer with an error."""
        verb = "RELEASE SAVEPOINT"
        if statement.kind == "rollback_to":
            verb = "ROLLBACK TO SAVEPOINT"
        if not self.in_transaction:
            self._answers.append(wire.error("25P01", f"{verb} {_NO_BLOCK}"))
            return None
        for index in reversed(range(len(self.savepoints))):
            if self.savepoints[index].name == statement.name:
                return index
        text = f'savepoint "{statement.name}" does not exist'
        self._answers.append(wire.error("3B001", text))
        return None

    def _do_release(self, statement: Statement) -> None:
        index = self._find_savepoint(statement)
        if index is None:
            return
        if self.savepoints[index].is_open:
            self._proxy.release(self, index)
        del self.savepoints[index:]
        self._complete("RELEASE")

    def _do_rollback_to(self, statement: Statement) -> None:
        index = self._find_savepoint(statement)
        if index is None:
            return
        if self.savepoints[index].is_open:
            self._proxy.roll_back_to(self, index)
        self.values = {**self.savepoints[index].values}
        del self.savepoints[index + 1 :]
        if self.state == "E":
            self.state = "T"
        self._complete("ROLLBACK")

    def _do_mode(self, statement: Statement) -> None:
        if self.state == "T" and statement.is_read_only:
            self.is_read_only = True
        self._complete("SET")

    def _do_prepared(self, statement: Statement) -> None:
        text = "two-phase commit does not work with arena_isolation = rollback"
        hint = '@pytest.mark.arena(isolation="clone") for this test'
        self._answers.append(wire.error("55000", text, hint=hint))
        del statement

    # The session

    def _do_reset(self, statement: Statement) -> None:
        if statement.kind == "reset_all":
            role = self.values.get("role")
            self.values = {**self.startup}
            if role is not None:
                self.values["role"] = role
        else:
            self.values.pop(statement.name, None)
            if statement.name in self.startup:
                self.values[statement.name] = self.startup[statement.name]
        self._complete("RESET")

    def _do_discard_all(self, statement: Statement) -> None:
        del statement
        if self.in_transaction:
            text = "DISCARD ALL cannot run inside a transaction block"
            self._answers.append(wire.error("25001", text))
            return
        self.values = {**self.startup}
        self._deallocate([*self._statements])
        self._complete("DISCARD ALL")

    def _do_nothing(self, statement: Statement) -> None:
        """Answer as PostgreSQL does. There is nothing to close or discard, and no channel."""
        tag = " ".join(statement.sql.rstrip(" ;").upper().split())
        if statement.kind == "unlisten":
            tag = "UNLISTEN"
        elif statement.kind == "close_all":
            tag = "CLOSE CURSOR ALL"
        self._complete(tag)

    def _do_deallocate(self, statement: Statement) -> None:
        if statement.kind == "deallocate_all":
            self._deallocate([*self._statements])
            self._complete("DEALLOCATE ALL")
            return
        self._deallocate([statement.name])
        self._complete("DEALLOCATE")

    def _deallocate(self, names: Sequence[str]) -> None:
        for name in names:
            self._statements.pop(name, None)
        self._proxy.close_statements(self, [self.prefix + name for name in names])

    @property
    def statement_names(self) -> list[str]:
        """The backend's names of its prepared statements."""
        return [self.prefix + name for name in self._statements]


def seconds_of(duration: str) -> float | None:
    """Return the seconds of a setting such as 500ms. None: it sets no limit."""
    match = _DURATION.fullmatch(duration)
    if match is None:
        return None
    return float(match[1]) * _UNITS[match[2]] or None


def _ends_transaction(statement: Statement) -> bool:
    return statement.kind in {"commit", "rollback", "rollback_to"}


def start_thread(client: Client) -> None:
    """Serve a client in a thread of its own."""
    name = f"pytest-arena-client-{client.number}"
    threading.Thread(target=client.serve, name=name, daemon=True).start()
