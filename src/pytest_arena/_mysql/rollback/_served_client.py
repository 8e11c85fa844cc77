"""Serves a connection of the app in MySQL's protocol, as a server does."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_arena._mysql._control import PROGRAM_NAME
from pytest_arena._mysql.rollback import _packets as packets
from pytest_arena._mysql.rollback._mysql_session import MySQLSession
from pytest_arena._mysql.rollback._packets import (
    ClientLogin,
    OkPacket,
    PacketStream,
    ServerAnswer,
)
from pytest_arena._mysql.rollback._shared_mysql import CLONE, SharedMySQL
from pytest_arena._mysql.rollback._statement_meaning import (
    read_statement,
    statements_in,
)
from pytest_arena._product.sharing._sockets import Disconnected, ServedConnection

if TYPE_CHECKING:
    import socket

    from pytest_arena._mysql.rollback._statement_meaning import MySQLStatement

_DONE = ServerAnswer([OkPacket()])
_MATCHED = re.compile(rb"matched: \d+\s+Changed: (?P<changed>\d+)")


def _failure(number: int, sqlstate: str, text: str) -> ServerAnswer:
    return ServerAnswer([packets.error(number, sqlstate, text)])


_NO_COMMAND = _failure(
    1047,
    "08S01",
    "prepared statements of a driver, and other commands than queries, do not work with "
    f"arena_isolation = rollback. {CLONE}",
)
_TOO_LARGE = _failure(
    1153, "08S01", "Got a packet bigger than 'max_allowed_packet' bytes"
)


# Why the shared transaction makes the server refuse a statement, by the number of the error.
_NO_FILES = "the proxy of arena_isolation = rollback sends no files of the client"
_CAUSES = {
    1178: "arena_isolation = rollback needs savepoints, which an engine may lack",
    1694: "with arena_isolation = rollback all connections share one open transaction",
    3948: _NO_FILES,
    4166: _NO_FILES,
}


class MySQLClient(ServedConnection):
    """A connection to the proxy, with a thread that serves it."""

    def __init__(
        self, shared: SharedMySQL, connection: socket.socket, number: int
    ) -> None:
        super().__init__(connection)
        self._shared = shared
        self._stream = PacketStream(connection)
        self._session = MySQLSession(number, self._note, self.end)
        self._login = ClientLogin(0, 0, "", b"")
        self._controls = {
            "begin": self._begin,
            "commit": self._commit,
            "rollback": self._roll_back,
            "savepoint": self._set_savepoint,
            "release": self._release,
            "rollback_to": self._roll_back_to,
            "autocommit": self._set_autocommit,
            "next": self._set_next,
            "lock": self._lock,
            "unlock": self._unlock,
            "use": self._use,
            "refused": self._refuse,
        }

    def end(self, message: str) -> None:
        """End the connection with an error."""
        with suppress(Disconnected, OSError):
            # The test must not wait for a client that reads no answers.
            self._socket.settimeout(0)
            self._stream.answer([packets.error(1927, "70100", message)])
        self._close_socket()

    def _note(self, remark: str) -> None:
        """Report a limit of this isolation, unless pytest-arena itself is the client."""
        if PROGRAM_NAME.encode() not in self._login.body:
            self._shared.note(remark)

    # The connection

    def _start(self) -> bool:
        greeting = packets.greeting(self._shared.version, self._session.pid)
        self._stream.greet(greeting)
        self._login = ClientLogin.read(self._stream.read())
        self._shared.begin_session(self._session, self._login.collation)
        self._stream.answer(_DONE.data(self._session.status, is_last=True))
        return True

    def _forget(self) -> None:
        self._shared.forget(self._session)

    def _answer_next(self) -> bool:
        body = self._stream.read()
        command = body[0]
        if command == packets.QUIT:
            return False
        if command == packets.QUERY and len(body) <= self._shared.largest_packet:
            self._query(body[1:].decode(errors="surrogateescape"))
            return True
        answer = _NO_COMMAND
        if len(body) > self._shared.largest_packet:
            # The server would end the connection.
            answer = _TOO_LARGE
        elif command == packets.PING:
            answer = _DONE
        elif command == packets.INIT_DB:
            answer = self._use_database(body[1:].decode(errors="surrogateescape"))
        elif command == packets.RESET:
            self._end_transaction(is_committed=False)
            self._session.reset()
            answer = _DONE
        self._stream.answer(answer.data(self._session.status, is_last=True))
        return True

    def _query(self, text: str) -> None:
        """Answer a text with one statement or several. The first error ends the answer."""
        statements = statements_in(text)
        if not self._login.abilities & packets.MULTI_STATEMENTS and len(statements) > 1:
            statements = (read_statement(text),)
        data: list[bytes] = []
        for number, statement in enumerate(statements, 1):
            answer = self._answer(statement)
            is_last = number == len(statements)
            data += answer.data(self._session.status, is_last=is_last)
            if answer.error:
                break
        self._stream.answer(data)

    def _answer(self, statement: MySQLStatement) -> ServerAnswer:
        if statement.remark:
            self._note(statement.remark)
        if statement.kind:
            return self._controls[statement.kind](statement)
        return self._run(statement)

    def _run(self, statement: MySQLStatement) -> ServerAnswer:
        session = self._session
        writes = self._shared.writes(statement)
        if not session.is_begun:
            if session.autocommits:
                session.begin(is_implicit=True)
            elif writes or statement.reads_rows:
                session.begin()
        answer = self._shared.run(session, statement, writes=writes)
        if session.is_implicit:
            session.end(is_committed=True)
        if not self._login.abilities & packets.FOUND_ROWS:
            answer = _with_changed_rows(answer)
        return _with_cause(answer)

    # Statements that the proxy executes itself

    def _end_transaction(self, *, is_committed: bool) -> None:
        if is_committed:
            self._shared.commit(self._session)
        else:
            self._shared.roll_back(self._session)
        self._session.end(is_committed=is_committed)

    def _begin(self, statement: MySQLStatement) -> ServerAnswer:
        self._end_transaction(is_committed=True)
        self._session.begin(is_read_only=statement.is_read_only)
        return _DONE

    def _commit(self, statement: MySQLStatement) -> ServerAnswer:
        return self._end_block(statement, is_committed=True)

    def _roll_back(self, statement: MySQLStatement) -> ServerAnswer:
        return self._end_block(statement, is_committed=False)

    def _end_block(
        self, statement: MySQLStatement, *, is_committed: bool
    ) -> ServerAnswer:
        self._end_transaction(is_committed=is_committed)
        if statement.is_chained:
            self._session.begin()
        return _DONE

    def _set_savepoint(self, statement: MySQLStatement) -> ServerAnswer:
        session = self._session
        if not session.is_begun and not session.autocommits:
            session.begin()
        if session.in_block:
            session.add_savepoint(statement.name.lower())
        return _DONE

    def _release(self, statement: MySQLStatement) -> ServerAnswer:
        savepoint = self._session.find_savepoint(statement.name.lower())
        if savepoint is None:
            return _no_savepoint(statement)
        self._shared.release(self._session, savepoint)
        self._session.release(savepoint)
        return _DONE

    def _roll_back_to(self, statement: MySQLStatement) -> ServerAnswer:
        savepoint = self._session.find_savepoint(statement.name.lower())
        if savepoint is None:
            return _no_savepoint(statement)
        self._shared.roll_back_to(self._session, savepoint)
        self._session.roll_back_to(savepoint)
        return _DONE

    def _set_autocommit(self, statement: MySQLStatement) -> ServerAnswer:
        """Change autocommit for this session. Switching it on commits the transaction."""
        session = self._session
        if statement.autocommits and not session.autocommits:
            self._end_transaction(is_committed=True)
        session.use_autocommit(is_on=statement.autocommits)
        if statement.without_autocommit:
            return self._run(read_statement(statement.without_autocommit))
        return _DONE

    def _set_next(self, statement: MySQLStatement) -> ServerAnswer:
        """Answer SET TRANSACTION. Its isolation level has no effect."""
        del statement
        if self._session.in_block:
            return _failure(
                1568,
                "25001",
                "Transaction characteristics can't be changed while a transaction is in progress",
            )
        return _DONE

    def _lock(self, statement: MySQLStatement) -> ServerAnswer:
        """Answer LOCK TABLES, which commits. Its locks have no effect between connections."""
        del statement
        self._end_transaction(is_committed=True)
        return _DONE

    def _unlock(self, statement: MySQLStatement) -> ServerAnswer:
        del statement
        return _DONE

    def _use(self, statement: MySQLStatement) -> ServerAnswer:
        return self._use_database(statement.name)

    def _use_database(self, name: str) -> ServerAnswer:
        if name == self._shared.database:
            return _DONE
        text = f"arena_isolation = rollback: no access to the database {name}"
        return _failure(1044, "42000", text)

    def _refuse(self, statement: MySQLStatement) -> ServerAnswer:
        del statement
        text = f"XA does not work with arena_isolation = rollback. {CLONE}"
        return _failure(1399, "XAE07", text)


def _no_savepoint(statement: MySQLStatement) -> ServerAnswer:
    return _failure(1305, "42000", f"SAVEPOINT {statement.name} does not exist")


def _with_cause(answer: ServerAnswer) -> ServerAnswer:
    """Add the cause and the next step to an error that this isolation causes."""
    cause = _CAUSES.get(answer.error)
    if cause is None:
        return answer
    text = f"{answer.error_text}: {cause}. {CLONE}"
    error = packets.error(answer.error, "HY000", text)
    return ServerAnswer([*answer.packets[:-1], error])


def _with_changed_rows(answer: ServerAnswer) -> ServerAnswer:
    """Report the changed rows of an UPDATE in place of the matched rows."""
    packets = [*answer.packets]
    for number, packet in enumerate(packets):
        if isinstance(packet, OkPacket):
            match = _MATCHED.search(packet.info)
            if match is not None:
                changed = int(match["changed"])
                packets[number] = replace(packet, affected_rows=changed)
    return ServerAnswer(packets)
