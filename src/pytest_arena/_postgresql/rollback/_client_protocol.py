"""Serves a connection of the app in PostgreSQL's protocol, as a server does."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import APPLICATION_NAME
from pytest_arena._postgresql.rollback import _transaction_sql as sql
from pytest_arena._postgresql.rollback import _wire as wire
from pytest_arena._postgresql.rollback._session import Session
from pytest_arena._postgresql.rollback._shared_transaction import Packet
from pytest_arena._postgresql.rollback._sockets import Disconnected, ServedConnection
from pytest_arena._postgresql.rollback._wire import Message, Reader

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_arena._postgresql.rollback._session import Savepoint
    from pytest_arena._postgresql.rollback._shared_transaction import SharedTransaction
    from pytest_arena._postgresql.rollback._transaction_sql import Statement

_TERMINATED = "57P01"
_ABORTED = wire.error(
    "25P02",
    "current transaction is aborted, commands ignored until end of transaction block",
)
_CLONE = '@pytest.mark.arena(isolation="clone") for this test'
_NO_PREPARE = wire.error(
    "55000",
    "PREPARE, and two-phase commit, do not work with arena_isolation = rollback",
    hint=_CLONE,
)
_TOO_LATE = wire.error(
    "0A000",
    "SET TRANSACTION READ ONLY after a write or a SAVEPOINT does not work with "
    "arena_isolation = rollback",
    hint=f"set it before the transaction's first write, or {_CLONE}",
)
_NO_FUNCTION_CALL = wire.error(
    "0A000",
    "a large object of psycopg2 does not work with arena_isolation = rollback",
    hint=f"call lo_get and lo_put in SQL, or {_CLONE}",
)


class Client(ServedConnection):
    """A connection to the proxy, with a thread that serves it.

    The proxy itself executes some statements. In the extended protocol the server parses an empty
    statement in their place, and does not bind or execute it.
    """

    def __init__(
        self, shared: SharedTransaction, connection: socket.socket, number: int
    ) -> None:
        super().__init__(connection)
        self._shared = shared
        self._reader = Reader(connection)
        self._session = Session(number, self._note, self.end)
        # The prepared statements, each with its Parse message, and the portals.
        self._statements: dict[str, tuple[Statement, Message]] = {}
        self._portals: dict[str, Statement] = {}
        self._cursors: set[str] = (
            set()
        )  # cursors and portals, which end with the transaction
        # The names of the prepared statements that the real connection does not have.
        self._unprepared: set[str] = set()
        self._connections = shared.connections
        self._has_failed = False  # skip messages until Sync
        self._packet = Packet()
        self._answers: list[Message] = []
        self._collectors = {
            b"P": self._parse,
            b"B": self._bind,
            b"D": self._describe_or_close,
            b"E": self._execute,
            b"C": self._describe_or_close,
        }
        self._controls = {
            "begin": self._begin,
            "commit": self._commit,
            "rollback": self._roll_back,
            "savepoint": self._set_savepoint,
            "release": self._release,
            "rollback_to": self._roll_back_to,
            "mode": self._set_mode,
            "refused": self._refuse,
            "reset": self._reset,
            "reset_all": self._reset,
            "discard_all": self._discard_all,
            "nothing": self._do_nothing,
            "deallocate": self._deallocate_statement,
            "deallocate_all": self._deallocate_statement,
        }

    def end(self, message: str) -> None:
        """End the connection with an error."""
        with suppress(OSError):
            # The test must not wait for a client that reads no answers.
            self._socket.settimeout(0)
            self._send([wire.error(_TERMINATED, message, severity="FATAL")])
        self._close_socket()

    def _note(self, remark: str) -> None:
        """Report a limit of this isolation, unless pytest-arena itself is the client."""
        if self._session.startup.get("application_name") != APPLICATION_NAME:
            self._shared.note(remark)

    # The connection

    def _forget(self) -> None:
        """Roll back the client's open transaction. Close its prepared statements."""
        self._deallocate(self._statements)
        self._shared.forget(self._session)

    def _start(self) -> bool:
        code, body = self._reader.startup()
        while code in {wire.SSL_REQUEST, wire.GSS_REQUEST}:
            self._socket.sendall(b"N")
            code, body = self._reader.startup()
        if code == wire.CANCEL_REQUEST:
            self._shared.interrupt(wire.pid_of(body))
            return False
        session = self._session
        texts = iter(wire.strings(body))
        parameters = dict(zip(texts, texts, strict=False))
        session.start(parameters)
        self._shared.begin_session(session, parameters.get("user", ""))
        answers = [wire.AUTHENTICATED]
        for name, value in self._shared.statuses.items():
            own = session.startup.get(name.lower(), value)
            answers.append(wire.parameter_status(name, own))
        answers.append(wire.backend_key(session.pid))
        answers.append(wire.ready("I"))
        self._send(answers)
        return True

    def _send(self, messages: Sequence[Message]) -> None:
        self._socket.sendall(wire.data_of(messages))

    def _send_answers(self) -> None:
        self._send(self._answers)
        self._answers = []

    def _answer_next(self) -> bool:
        """Answer the next message. Return whether the client stays connected."""
        message = self._reader.message()
        kind = message.kind
        if kind == b"Q":
            text, _ = wire.first_string(message.body)
            self._simple_query(text)
            self._end_packet()
        elif kind == b"F":
            self._fail(_NO_FUNCTION_CALL)
            self._end_packet()
        elif kind == b"S":
            self._run_packet()
            self._end_packet()
        elif kind == b"H":
            self._run_packet()
            self._send_answers()
        elif not self._has_failed:
            self._collect(message)
        return kind != b"X"

    def _end_packet(self) -> None:
        """End an implicit transaction, and answer with ReadyForQuery."""
        session = self._session
        if session.is_implicit:
            self._end_transaction(is_committed=not self._has_failed)
        self._has_failed = False
        self._answers.append(wire.ready(session.state))
        self._send_answers()

    def _fail(self, error: Message) -> None:
        self._answers.append(error)
        self._note_failure()

    def _note_failure(self) -> None:
        self._has_failed = True
        self._session.fail()

    def _run_packet(self) -> None:
        """Execute the collected messages of the extended protocol."""
        packet = self._packet
        self._packet = Packet()
        if packet.messages and not self._has_failed:
            packet.add(wire.SYNC)
            self._run(packet)

    def _run(self, packet: Packet) -> None:
        session = self._session
        if not session.is_begun:
            session.begin(is_implicit=True)
        for statement in packet.statements:
            if statement.command_of_blocks and statement.name:
                self._cursors.add(statement.name)
        answer = self._shared.run(session, packet)
        messages = answer.messages
        for _ in range(packet.parsed_again):
            if messages[0].kind == b"1":
                del messages[0]  # the client has not sent this Parse
        self._answers += messages
        if answer.error is not None:
            self._note_failure()

    # The simple protocol

    def _simple_query(self, text: str) -> None:
        statements = sql.parsed(text)
        for statement in statements:
            if self._has_failed:
                return
            self._note_remark(statement)
            if statement.is_control:
                self._control(statement)
            elif self._session.state == "E":
                self._fail(_ABORTED)
            # Several statements of one message are a transaction block.
            elif len(statements) > 1 or self._is_permitted(statement):
                query = wire.query(statement.sql)
                self._run(Packet([query], [statement], self._copied_rows))

    def _is_permitted(self, statement: Statement) -> bool:
        """Return whether a statement has the transaction block that it needs."""
        command = statement.command_of_blocks
        if not command or self._session.in_block:
            return True
        self._run_packet()
        return self._is_in_block(command)

    def _note_remark(self, statement: Statement) -> None:
        if statement.remark:
            self._note(statement.remark)

    # The extended protocol

    def _collect(self, message: Message) -> None:
        """Collect a message for the server until the next Sync or Flush."""
        handler = self._collectors.get(message.kind)
        if handler is not None:
            handler(message)

    def _parse(self, message: Message) -> None:
        name, position = wire.first_string(message.body)
        text, position = wire.first_string(message.body, position)
        statements = sql.parsed(text)
        statement = statements[0]
        # The server refuses several statements in one Parse.
        if statement.is_control and len(statements) == 1:
            text = ""
        named = wire.packed(self._own_name(name)) + wire.packed(text)
        parse = wire.message(b"P", named + message.body[position:])
        self._note_new_connection()
        self._statements[name] = (statement, parse)
        self._packet.add(parse)

    def _answer(self, answer: Message) -> None:
        """Answer a message without the server, after the server has answered earlier messages."""
        self._run_packet()
        if not self._has_failed:
            self._answers.append(answer)

    def _own_name(self, name: str) -> str:
        """Return the server's name of a prepared statement of this client."""
        if name:
            return f"c{self._session.number}_{name}"
        return ""

    def _note_new_connection(self) -> None:
        """Note that a new real connection has none of the prepared statements."""
        if self._connections != self._shared.connections:
            self._connections = self._shared.connections
            self._unprepared = {*self._statements}

    def _statement(self, name: str) -> Statement | None:
        """Return a prepared statement.

        A packet of another client ends a statement without a name, and a new real connection has no
        statements. In both cases the server parses the statement again.
        """
        if name not in self._statements:
            return None
        statement, parse = self._statements[name]
        self._note_new_connection()
        is_ended = not name or name in self._unprepared
        if is_ended and parse not in self._packet.messages:
            self._packet.parse_again(parse)
        self._unprepared.discard(name)
        return statement

    def _bind(self, message: Message) -> None:
        portal, position = wire.first_string(message.body)
        name, position = wire.first_string(message.body, position)
        statement = self._statement(name)
        if statement is None:
            self._run_packet()
            text = f'prepared statement "{name}" does not exist'
            self._fail(wire.error("26000", text))
            return
        self._portals[portal] = statement
        if statement.is_control:
            self._answer(wire.BOUND)
            return
        if portal:
            self._cursors.add(portal)
            self._packet.pin()
        names = wire.packed(portal) + wire.packed(self._own_name(name))
        self._packet.add(wire.message(b"B", names + message.body[position:]))

    def _describe_or_close(self, message: Message) -> None:
        kind = message.body[:1]
        name, _ = wire.first_string(message.body, 1)
        if kind == b"S":
            if message.kind == b"D":
                self._statement(name)
            else:
                self._statements.pop(name, None)
            name = self._own_name(name)
        elif message.kind == b"D":
            statement = self._portals.get(name)
            if statement is not None and statement.is_control:
                self._answer(wire.NO_ROWS)
                return
        self._packet.add(wire.message(message.kind, kind + wire.packed(name)))

    def _execute(self, message: Message) -> None:
        portal, _ = wire.first_string(message.body)
        statement = self._portals.get(portal)
        if statement is None:
            # DECLARE has opened this cursor. Its packet must not be rolled back.
            self._packet.pin()
            self._packet.add(message)
            return
        self._note_remark(statement)
        if statement.is_control:
            self._run_packet()
            if not self._has_failed:
                self._control(statement)
        elif self._session.state == "E":
            self._run_packet()
            self._fail(_ABORTED)
        elif self._is_permitted(statement):
            self._packet.statements.append(statement)
            self._packet.add(message)

    def _copied_rows(self, answers: Sequence[Message]) -> Iterator[Message]:
        """Send the answers so far, and yield the client's rows of a COPY with their end message."""
        self._answers += answers
        self._send_answers()
        message = wire.message(b"d")
        while message.kind not in {b"c", b"f"}:
            try:
                message = self._reader.message()
            except Disconnected:
                message = wire.message(b"f", wire.packed("the client has disconnected"))
            if message.kind in {b"d", b"c", b"f"}:
                yield message

    # Statements that the proxy executes itself

    def _control(self, statement: Statement) -> None:
        """Execute a statement about transactions or the session."""
        if self._session.state == "E" and not statement.ends_failed_transaction:
            self._fail(_ABORTED)
        else:
            self._controls[statement.kind](statement)

    def _complete(self, tag: str) -> None:
        self._answers.append(wire.complete(tag))

    def _warn(self, sqlstate: str, text: str) -> None:
        self._answers.append(wire.warning(sqlstate, text))

    def _begin(self, statement: Statement) -> None:
        session = self._session
        if session.in_block:
            self._warn("25001", "there is already a transaction in progress")
        else:
            session.begin(is_read_only=statement.is_read_only)
        is_start = statement.sql[:5].upper() == "START"
        self._complete("START TRANSACTION" if is_start else "BEGIN")

    def _commit(self, statement: Statement) -> None:
        self._end_block(statement, is_committed=self._session.state != "E")

    def _roll_back(self, statement: Statement) -> None:
        self._end_block(statement, is_committed=False)

    def _end_block(self, statement: Statement, *, is_committed: bool) -> None:
        if not self._session.in_block:
            if statement.is_chained:
                self._is_in_block(f"{statement.kind.upper()} AND CHAIN")
                return
            self._warn("25P01", "there is no transaction in progress")
        self._end_transaction(is_committed=is_committed)
        if self._has_failed:
            return
        if statement.is_chained:
            self._session.begin()
        self._complete("COMMIT" if is_committed else "ROLLBACK")

    def _end_transaction(self, *, is_committed: bool) -> None:
        """End the transaction. Answer with the error of a constraint that it violates."""
        session = self._session
        error = None
        if is_committed:
            error = self._shared.commit(session)
        else:
            self._shared.roll_back(session)
        session.end(is_committed=is_committed and error is None)
        self._portals = {}
        if self._cursors:
            self._shared.close_cursors(session, self._cursors)
            self._cursors = set()
        if error is not None:
            self._fail(error)

    def _set_savepoint(self, statement: Statement) -> None:
        if self._is_in_block("SAVEPOINT"):
            self._session.add_savepoint(statement.name)
            self._complete("SAVEPOINT")

    def _is_in_block(self, verb: str) -> bool:
        """Return whether the app has begun a transaction. Otherwise answer with an error."""
        if not self._session.in_block:
            text = f"{verb} can only be used in transaction blocks"
            self._fail(wire.error("25P01", text))
        return self._session.in_block

    def _find_savepoint(self, statement: Statement, verb: str) -> Savepoint | None:
        """Return the last savepoint of a name. If none exists, answer with an error."""
        if not self._is_in_block(f"{verb} SAVEPOINT"):
            return None
        savepoint = self._session.find_savepoint(statement.name)
        if savepoint is None:
            text = f'savepoint "{statement.name}" does not exist'
            self._fail(wire.error("3B001", text))
        return savepoint

    def _release(self, statement: Statement) -> None:
        savepoint = self._find_savepoint(statement, "RELEASE")
        if savepoint is None:
            return
        session = self._session
        self._shared.release(session, savepoint)
        session.release(savepoint)
        self._complete("RELEASE")

    def _roll_back_to(self, statement: Statement) -> None:
        savepoint = self._find_savepoint(statement, "ROLLBACK TO")
        if savepoint is None:
            return
        session = self._session
        self._shared.roll_back_to(session, savepoint)
        session.roll_back_to(savepoint)
        self._complete("ROLLBACK")

    def _set_mode(self, statement: Statement) -> None:
        session = self._session
        if statement.is_of_all_transactions:
            value = "on" if statement.is_read_only else "off"
            session.set("default_transaction_read_only", value)
        elif session.in_block and statement.is_read_only:
            if session.first_write or session.savepoints:
                self._fail(_TOO_LATE)
                return
            session.forbid_writes()
        self._complete("SET")

    def _refuse(self, statement: Statement) -> None:
        del statement
        self._fail(_NO_PREPARE)

    def _reset(self, statement: Statement) -> None:
        if statement.kind == "reset_all":
            self._session.reset_all(keeps_role=True)
        else:
            self._session.reset(statement.name)
        self._complete(statement.sql.split()[0].upper())

    def _discard_all(self, statement: Statement) -> None:
        del statement
        if self._session.in_block:
            text = "DISCARD ALL cannot run inside a transaction block"
            self._fail(wire.error("25001", text))
            return
        self._session.reset_all()
        self._deallocate(self._statements)
        self._complete("DISCARD ALL")

    def _do_nothing(self, statement: Statement) -> None:
        """Answer as PostgreSQL does, without effect on the connection that clients share."""
        self._complete(" ".join(statement.sql.rstrip(" ;*").upper().split()))

    def _deallocate_statement(self, statement: Statement) -> None:
        if statement.kind == "deallocate_all":
            self._deallocate(self._statements)
            self._complete("DEALLOCATE ALL")
        else:
            self._deallocate([statement.name])
            self._complete("DEALLOCATE")

    def _deallocate(self, names: Iterable[str]) -> None:
        names = [name for name in names if name in self._statements]
        for name in names:
            del self._statements[name]
        if names:
            own_names = [self._own_name(name) for name in names]
            self._shared.close_statements(self._session, own_names)
