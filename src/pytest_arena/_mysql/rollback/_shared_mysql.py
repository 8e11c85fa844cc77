"""The transaction that all connections of a test share.

Each transaction of the app is a savepoint in the shared transaction. A statement outside of a
transaction needs no savepoint, because the server itself rolls back a failed statement. A statement
that commits, such as CREATE TABLE, commits the shared transaction. Then a copy has to replace the
database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._mysql.drivers._reach import may_write
from pytest_arena._mysql.rollback import _packets as packets
from pytest_arena._mysql.rollback._mysql_backend import (
    MySQLBackend,
    StatementRefused,
)
from pytest_arena._mysql.rollback._mysql_session import MySQLSession
from pytest_arena._mysql.rollback._packets import ServerAnswer
from pytest_arena._product.sharing._shared_connection import (
    ONE_WRITER,
    SharedConnection,
    TurnRefused,
)
from pytest_arena._product.sharing._sharing_session import shown
from pytest_arena._product.sharing._sockets import Disconnected

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._mysql.rollback._statement_meaning import MySQLStatement
    from pytest_arena._values import Address

CLONE = 'Next, for this test: @pytest.mark.arena(isolation="clone")'
_LOST = (
    "the connection that all connections of the tests share has ended, by KILL, a timeout or a "
    "restart of the server"
)
_ROLLED_BACK = (
    "{}: the server has rolled back all rows of this test, because all connections share one "
    f"transaction. {CLONE}"
)
_ENDED = f"{{}} has ended the transaction that all connections share. {CLONE}"
# Errors after which the server rolls back the whole transaction: a deadlock, and by a setting also
# a lock timeout.
_OF_TRANSACTION = {1205, 1213, 1614}
_READ_ONLY = packets.error(
    1792, "25006", "Cannot execute statement in a READ ONLY transaction."
)
_CANCELLED = packets.error(1317, "70100", "Query execution was interrupted")


class SharedMySQL(SharedConnection[MySQLSession, MySQLBackend]):
    """The shared transaction, which sessions use in turn. Any thread may call its methods.

    Raises:
        MySQLFailure: the server does not answer, or refuses the login.
    """

    lost_text = _LOST
    ended_text = "Connection was killed"

    def __init__(
        self,
        address: Address,
        names_that_write: Callable[[], tuple[str, ...]],
        *,
        note: Callable[[str], None],
        lock_timeout: float,
    ) -> None:
        super().__init__(MySQLBackend(address), note=note, lock_timeout=lock_timeout)
        self.version = self._backend.version
        self.largest_packet = self._backend.largest_packet
        self.database = address.database
        self._names_that_write = names_that_write
        self._is_used = False  # a client has sent a statement since the last restart
        self.may_have_written = False
        # Whether the app has committed rows into the shared transaction.
        self.has_committed_rows = False
        # Whether the server has really committed, so that no rollback restores the database.
        self.is_committed = False

    def begin_session(self, session: MySQLSession, collation: int) -> None:
        """Register a connection of the app, with the character set of its login."""
        from pymysql.charset import charset_by_id  # noqa: PLC0415 - an extra

        self.register(session)
        try:
            charset = charset_by_id(collation)
        except KeyError:
            return  # a collation that PyMySQL does not know. The driver also sends SET NAMES
        with self._turn(session):
            self._backend.use_settings({})
            names = f"SET NAMES {charset.name}"
            answer = self._backend.exchange(f"{names} COLLATE {charset.collation}")
            if answer.error:  # the server lacks the collation, so it uses its default
                answer = self._backend.exchange(names)
            self._note_settings(session, answer)

    # Statements

    def writes(self, statement: MySQLStatement) -> bool:
        """Return whether a statement may write, or locks rows."""
        names = self._names_that_write()
        return statement.locks or may_write(statement.sql, names)

    def run(
        self, session: MySQLSession, statement: MySQLStatement, *, writes: bool
    ) -> ServerAnswer:
        """Execute a statement of a client, and return the answer."""
        if writes and session.is_read_only and not statement.locks:
            return ServerAnswer([_READ_ONLY])
        try:
            with self._turn(session, writes=writes):
                self._is_used = True
                if writes:
                    self._begin_to_write(session, statement)
                elif statement.reads_rows:
                    self._note_other_writer(session)
                return self._execute(session, statement, writes=writes)
        except TurnRefused as refused:
            return _refusal(refused)
        except StatementRefused as refused:
            return refused.answer

    def _begin_to_write(self, session: MySQLSession, statement: MySQLStatement) -> None:
        if not statement.locks:
            self.may_have_written = True
        if session.in_block:
            self._take(session)

    def _execute(
        self, session: MySQLSession, statement: MySQLStatement, *, writes: bool
    ) -> ServerAnswer:
        backend = self._backend
        backend.use_settings(session.values)
        if statement.is_program:
            answer = backend.exchange_program(statement.sql)
        else:
            answer = backend.exchange(statement.sql)
        if not backend.is_begun:
            self._note_end(session, statement, answer)
        elif writes and (answer.affected_rows or statement.is_more_than_rows):
            if session.in_block:
                session.note_write(shown(statement.sql))
            else:
                self._count_change()
        self._note_settings(session, answer)
        return answer

    def _note_settings(self, session: MySQLSession, answer: ServerAnswer) -> None:
        changed = self._backend.changed_settings(answer)
        session.note_settings(changed)
        if changed:
            self._backend.note_settings(session.values)

    def _note_end(
        self, session: MySQLSession, statement: MySQLStatement, answer: ServerAnswer
    ) -> None:
        """Note that the server has ended the real transaction.

        Raises:
            Disconnected: the rows of the transaction are lost, or unknown.
        """
        if answer.error in _OF_TRANSACTION:
            self._end_by(_ROLLED_BACK.format(answer.error_text))
        if statement.is_program:
            self._end_by(_ENDED.format(shown(statement.sql)))
        self.is_committed = True
        self._holder = None
        if session.in_block:
            session.end(is_committed=True)
        self._count_change()
        self._backend.begin()

    def _end_by(self, reason: str) -> None:
        self.lost_text = reason
        self.note(reason)
        raise Disconnected

    # Transactions

    def commit(self, session: MySQLSession) -> None:
        """Keep the changes of a session's transaction."""
        if self._holder is session:
            with self._turn(session):
                self._commit_holder(session)

    def _count_change(self) -> None:
        self.has_committed_rows = True

    # Levels

    def restart(self) -> None:
        """Roll back all changes that the server has not really committed.

        Raises:
            Disconnected: the server has ended the connection.
        """
        with self._turn(None):
            self._cut_off()
            if self._is_used or self.may_have_written:
                self._backend.restart()
            self._is_used = False
            self.may_have_written = False
            self.has_committed_rows = False

    def refresh(self) -> None:
        """Start a new session of the server for the next level, if no open transaction has rows."""
        if self._holder is None and not self.is_lost and not self.may_have_written:
            self.restart()

    def commit_all(self) -> None:
        """Really commit the app's committed rows, before a copy of the database."""
        with self._turn(None):
            self._cut_off()
            self._backend.commit()
            self.is_committed = True

    def note_copied(self) -> None:
        """Note that a copy has all committed rows."""
        self.is_committed = False
        self.may_have_written = False
        self.has_committed_rows = False

    def note_replaced(self) -> None:
        """Note that the database has to be replaced."""
        self.is_committed = True


def _refusal(refused: TurnRefused) -> ServerAnswer:
    if refused.is_cancelled:
        return ServerAnswer([_CANCELLED])
    text = f"Lock wait timeout exceeded: {refused.reason}; {ONE_WRITER}"
    return ServerAnswer([packets.error(1205, "HY000", text)])
