"""Records the drivers' connections, and checks their statements."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_arena._mysql.drivers._statements import (
    alters_session,
    begins_transaction,
    created_or_dropped_database,
    may_write,
)
from pytest_arena._origin import cause_of_connection, user_line
from pytest_arena._product import RawWrites, ReadSnapshot
from pytest_arena._product._raw_connections import ConnectionRecord, ConnectionRecords

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._product import ConnectTarget, Core
    from pytest_arena._product._admission import Admission, FindCore

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line

_IN_TRANSACTION = 1  # SERVER_STATUS_IN_TRANS, which each answer of the server has
_STATEMENT_WITHOUT_EFFECT = "DO 0"


class MySQLConnection(ConnectionRecord):
    """The facts about a connection of a driver."""

    def __init__(self) -> None:
        super().__init__()
        # The target of each connection to a test's database.
        self.target: ConnectTarget | None = None
        self.pid = 0  # the server's id of the session
        self.process = os.getpid()
        # Whether a transaction may be open although the driver's status does not show it. PyMySQL
        # and aiomysql do not read the status that follows rows.
        self.is_begun = False
        # The number of rows that the open transaction has changed.
        self.changed_rows = 0
        self._savepoints: dict[str, int] = {}
        self.isolation_level = ""  # the isolation level that a statement has set
        # The snapshot of the last transaction.
        self.snapshot: ReadSnapshot | None = None
        self.is_killed = False  # pytest-arena has ended the session
        # Whether the driver closed it in a transaction with changed rows, as when its loop ended.
        self.was_lost = False

    def admit(self, admission: Admission) -> None:
        """Note why the connection was admitted."""
        super().admit(admission)
        if admission.target is not None:
            self.target = admission.target

    def lead_to(self, target: ConnectTarget, pid: int) -> None:
        """Note the test's database on which an engine's connection is open."""
        self.target = target
        self.pid = pid
        self.join_pool()

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

    def sending(self, core: Core | None, statement: str, *, is_begun: bool) -> None:
        """Note a statement before the driver sends it."""
        if not is_begun:
            self.changed_rows = 0
            self._savepoints.clear()
            self.snapshot = None
            self.writes = RawWrites()
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
        if self.target is not None and self.target.database is not None:
            # A `MySQLIsolation`, whose module imports this package.
            isolation: Any = self.target.database.isolation
            if isolation is not None:
                isolation.note_statement(statement, self.target.generation)
                changes_session |= isolation.may_change_session(statement)
        self.session_changes += changes_session
        if self.admission is not None and self.admission.target is not None:
            serial = core.serial() if core is not None else 0
            self.writes.note(statement, serial)
            if changes_session:
                self.altered[serial] = user_line()

    def answered(self, *, has_rows: bool, autocommits: bool) -> None:
        """Note whether the last answer has rows. Drivers read the status only if it has no rows."""
        if not has_rows:
            self.is_begun = False
        elif not autocommits:
            self.is_begun = True

    def note_transaction(self, *, is_begun: bool) -> None:
        """Note whether a transaction is open, for a driver that has no status."""
        self.is_begun = is_begun

    def sent(self, statement: str, rows: object) -> None:
        """Note how many rows a statement has changed."""
        if may_write(statement, ()) and isinstance(rows, int):
            self.changed_rows += rows
            self.writes.ran(rows)


# How SQLAlchemy sets the isolation level of a connection. The word LEVEL and the level follow.
_SET_LEVEL = ["SET", "SESSION", "TRANSACTION", "ISOLATION"]


def is_closed(connection: Any) -> bool:
    """Return whether a driver's connection is closed."""
    if hasattr(connection, "open"):  # PyMySQL
        return not connection.open
    if hasattr(connection, "closed"):  # aiomysql
        return bool(connection.closed)
    return not connection.connected  # asyncmy


RECORDS = ConnectionRecords(MySQLConnection, is_closed)
record_of = RECORDS.of
known_record = RECORDS.known


def writers_in(database: str) -> set[int]:
    """Return the sessions of this process that have uncommitted rows in a database."""
    return {
        record.pid
        for connection, record in _connections_to(database)
        if has_written(connection)
    }


def sessions_inside(database: str) -> set[int]:
    """Return the sessions of this process that are inside a transaction in a database."""
    return {
        record.pid
        for connection, record in _connections_to(database)
        if is_in_transaction(connection)
    }


def _connections_to(database: str) -> Iterator[tuple[object, MySQLConnection]]:
    """Yield the connections of this process to a test's database, with their records."""
    for connection, record in RECORDS.all():
        target = record.target
        is_of_parent = record.process != os.getpid()
        if is_of_parent or target is None or target.address is None:
            continue
        if target.address.database == database:
            yield connection, record


def pid_of(connection: Any) -> int:
    """Return the server's id of a connection's session, 0 if it is not connected."""
    with suppress(Exception):  # the driver's error, if it is not connected yet
        return int(connection.thread_id())
    return 0


def is_in_transaction(connection: Any) -> bool:
    """Return whether a transaction is open, by the server's last answers, without a round trip."""
    if is_closed(connection):
        return False
    status = getattr(connection, "server_status", 0) or 0
    record = known_record(connection)
    if record is not None and record.is_killed:
        return False
    may_be_begun = record is not None and record.is_begun
    return may_be_begun or bool(status & _IN_TRANSACTION)


def changed_rows_of(connection: Any) -> int:
    """Return the number of rows that mysqlclient's last statement has changed."""
    if (
        connection.field_count()
    ):  # the rows of an INSERT … RETURNING are not fetched yet
        return 1
    return int(connection.affected_rows())


def note_answer(connection: Any, statement: str) -> None:
    """Note the server's answer to a statement."""
    record = known_record(connection)
    if record is None:
        return
    if not hasattr(connection, "server_status"):  # mysqlclient
        is_begun = begins_transaction(
            statement, autocommits=bool(connection.get_autocommit())
        )
        if is_begun is not None:
            record.note_transaction(is_begun=is_begun)
    else:
        result = getattr(connection, "_result", None)
        record.answered(
            has_rows=bool(getattr(result, "field_count", 0)),
            autocommits=connection.get_autocommit(),
        )


def has_written(connection: object) -> bool:
    """Return whether the open transaction of a connection has changed rows."""
    record = known_record(connection)
    if record is None or not record.changed_rows:
        return False
    return is_in_transaction(connection)


def has_lost(connection: object) -> bool:
    """Return whether a connection was closed while its transaction had changed rows."""
    record = known_record(connection)
    return record is not None and record.was_lost


# A pool sends these statements at a checkout or a checkin.
_OF_POOLS = {"", "SELECT 1", "ROLLBACK", "COMMIT"}
_NOT_SENT = (
    "pytest-arena did not send the statement, because an engine on any database reaches the test's "
    "database. Delete the fixture, and name the source of the tables by"
)


def text_of(statement: object) -> str:
    """Return the text of a statement that a driver gets."""
    if isinstance(statement, bytes | bytearray):
        return bytes(statement).decode(errors="surrogateescape")
    return str(statement)


def to_send(find_core: FindCore, connection: object, statement: object) -> str | None:
    """Note a statement. Return a replacement for it, None to send the statement itself.

    The test database that a fixture creates is not needed.
    """
    record = known_record(connection)
    core = find_core()
    if record is None:
        return None
    text = text_of(statement)
    if core is not None and record.target is not None:
        name = created_or_dropped_database(text)
        if name and core.accept_fixture_database(record.target.key, name):
            _note_not_sent(core, name)
            return _STATEMENT_WITHOUT_EFFECT
    is_of_pool = text.strip(" ;").upper() in _OF_POOLS
    if core is not None and record.idle_key is not None and not is_of_pool:
        # The suite has kept the driver's connection, and uses it without a checkout.
        core.opened_raw(record.idle_key)
    record.sending(core, text, is_begun=is_in_transaction(connection))
    return None


def _note_not_sent(core: Core, name: str) -> None:
    if not any(_NOT_SENT in note for note in core.ledger.notes):
        core.ledger.note(
            f"a fixture creates or drops a test database: {cause_of_connection()}. {_NOT_SENT} "
            f"a line `{name} = <module>:<Base>` in arena_schema"
        )


def give_up(
    find_core: FindCore, connection: object, *, is_collected: bool = False
) -> None:
    """Note the writes of an open transaction whose connection is about to end."""
    record = known_record(connection)
    if record is None or is_closed(connection):
        return
    is_lost = has_written(connection)
    record.close(has_written=is_lost)
    core = find_core()
    admission = record.admission
    if core is None or admission is None or admission.target is None or not is_lost:
        return
    writes = record.writes
    record.sending(core, "", is_begun=False)  # the transaction ends with the connection
    core.lost_raw(writes, is_collected=is_collected)
