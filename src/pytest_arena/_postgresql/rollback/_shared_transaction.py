"""The transaction that all connections of a test share. It is never committed.

Each transaction of the app, and each level, is a savepoint in the shared transaction. Statements
that only read share one savepoint, which is rolled back before the next write. If such a statement
writes after all, PostgreSQL refuses it, and the proxy executes it again as a write. So a
transaction that has only read keeps no savepoint.

Savepoints are a stack, so a second transaction that writes waits for the first. After an error the
proxy rolls back to the last savepoint of the transaction, because the app has to do the same next.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import literal
from pytest_arena._postgresql.rollback import _wire as wire
from pytest_arena._postgresql.rollback._backend import (
    Backend,
    BackendAnswer,
    BackendFailure,
)
from pytest_arena._postgresql.rollback._shared_connection import (
    ONE_WRITER,
    SharedConnection,
    TurnRefused,
)
from pytest_arena._postgresql.rollback._transaction_sql import setting_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pytest_arena._postgresql.rollback._session import Session
    from pytest_arena._postgresql.rollback._transaction_sql import (
        SettingChange,
        Statement,
    )
    from pytest_arena._postgresql.rollback._wire import Message
    from pytest_arena._values import Address

_READ_ONLY = "25006"
_IN_BLOCK = ("25001", "2D000", "55P04")
_NO_LOCK = "55P03"
_CANCELLED = "57014"
# The role's settings, and last its settings for the database. The query omits settings that the
# login may not change.
_ROLE_SETTINGS = """
SELECT split_part(pair, '=', 1), substr(pair, strpos(pair, '=') + 1)
FROM pg_catalog.pg_roles r
JOIN pg_catalog.pg_db_role_setting s ON s.setrole = r.oid AND s.setdatabase IN (
    0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
CROSS JOIN unnest(s.setconfig) pair
LEFT JOIN pg_catalog.pg_settings p ON p.name = split_part(pair, '=', 1)
WHERE r.rolname = {user} AND (coalesce(p.context, 'user') = 'user'
    OR p.context = 'superuser' AND current_setting('is_superuser') = 'on')
ORDER BY s.setdatabase
"""
# Tags of commands without a change that another transaction could see.
_NO_CHANGE = re.compile(
    r"(?:INSERT 0|UPDATE|DELETE|MERGE|COPY) 0\Z"
    r"|(?:DECLARE|FETCH|MOVE|CLOSE|SET|LOCK|DEALLOCATE|NOTIFY|LISTEN|SHOW|EXPLAIN)\b"
)
_DDL = re.compile(r"(?:CREATE|ALTER|DROP|DO|CALL|IMPORT)\b")
_LOST = (
    "the connection that all connections of the tests share has ended, by pg_terminate_backend, a "
    "timeout or a restart of the server. With arena_isolation = rollback there is one connection. "
    'If this test ends it: @pytest.mark.arena(isolation="clone")'
)
_NO_BLOCK_HINT = (
    "with arena_isolation = rollback all statements run in one transaction. "
    'For this test, with CREATEDB: @pytest.mark.arena(isolation="clone")'
)


def _no_rows(_answers: list[Message]) -> Iterable[Message]:
    """Fail a COPY in the extended protocol. No driver of Python sends such a COPY."""
    text = "arena_isolation = rollback takes the rows of COPY in a simple query only"
    return [wire.message(b"f", wire.packed(text)), wire.SYNC]


@dataclass(slots=True)
class Packet:
    """Messages of a client that the proxy sends to the backend in one packet.

    ``copy_rows`` sends the client the answers before the rows of a COPY, and returns its rows.
    """

    messages: list[Message] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    copy_rows: Callable[[list[Message]], Iterable[Message]] = _no_rows
    is_pinned: bool = False  # a portal must outlive the packet
    parsed_again: int = (
        0  # the number of first messages that are Parses of earlier packets
    )

    def add(self, message: Message) -> None:
        """Add a message of the client."""
        self.messages.append(message)

    def parse_again(self, parse: Message) -> None:
        """Insert a Parse of an earlier packet at the start."""
        self.messages.insert(0, parse)
        self.parsed_again += 1

    def pin(self) -> None:
        """Note that a portal must outlive the packet."""
        self.is_pinned = True

    @property
    def is_read(self) -> bool:
        """Whether no statement seems to write."""
        return not self.is_pinned and not self.writes

    @property
    def writes(self) -> bool:
        """Whether a statement seems to write."""
        return any(statement.kind != "read" for statement in self.statements)


@dataclass(slots=True)
class _Level:
    """A level, and the savepoint to which the backend rolls back when the level is left."""

    savepoint: str
    changes: int = 0  # the number of statements that have changed data in the level
    restoring: str = ""  # the statement that restores the values of sequences
    has_ddl: bool = False  # the schema was changed in the level

    def note_restoring(self, restoring: str) -> None:
        """Note the statement that restores the values of sequences."""
        self.restoring = restoring

    def add_changes(self, number: int) -> None:
        """Count changes."""
        self.changes += number

    def note_ddl(self) -> None:
        """Note that the schema was changed."""
        self.has_ddl = True


class SharedTransaction(SharedConnection):
    """The shared transaction, which sessions use in turn. Any thread may call its methods.

    Raises:
        ControlFailure: the server does not answer, or refuses the login.
    """

    lost_text = _LOST
    ended_text = "terminating connection due to administrator command"

    def __init__(
        self,
        address: Address,
        *,
        note: Callable[[str], None],
        lock_timeout: float = 0.0,
    ) -> None:
        backend = Backend(address, lock_timeout)
        super().__init__(backend, note=note, lock_timeout=lock_timeout)
        self.statuses = backend.statuses
        self._login = address.user
        self._callers: re.Pattern[str] | None = None
        self._function_settings: list[SettingChange] = []
        self._level_numbers = count()
        self._levels = [_Level("")]  # the first level has no savepoint
        self._is_restart_due = False
        # The statement that restores the current values of sequences, None if it is outdated.
        self._restoring: str | None = None
        self.connections = (
            1  # how many real connections were opened, one after the other
        )

    def watch_functions(
        self, callers: re.Pattern[str] | None, settings: Sequence[SettingChange]
    ) -> None:
        """Note the settings that functions change, and the statements that call such functions."""
        self._callers = callers
        self._function_settings = [*settings]

    # Sessions

    def begin_session(self, session: Session, user: str) -> None:
        """Register a connection of the app, with the rights and settings of its user."""
        self.register(session)
        if user not in {"", self._login}:
            with self._turn(session):
                self._backend.use_settings({})
                query = _ROLE_SETTINGS.format(user=literal(user))
                rows = self._backend.query(query).rows
            defaults = {setting_name(str(name)): str(value) for name, value in rows}
            session.add_defaults({**defaults, "session_authorization": user})

    def close_statements(self, session: Session, names: Sequence[str]) -> None:
        """Close prepared statements."""
        with self._turn(session):
            self._backend.close_statements(names)

    def close_cursors(self, session: Session, names: Iterable[str]) -> None:
        """Close cursors and portals. Some of them may already be closed."""
        with self._turn(session):
            self._backend.close_cursors(names)

    # Statements

    def run(self, session: Session, packet: Packet) -> BackendAnswer:
        """Execute statements of a client, and return the answers."""
        has_written = self._holder is session and session.first_write
        try:
            if packet.is_read and not has_written:
                with self._turn(session):
                    answer = self._read(session, packet)
                if session.is_read_only or answer.sqlstate != _READ_ONLY:
                    return _with_hint(answer)
            with self._turn(session, writes=True):
                return _with_hint(self._write(session, packet))
        except TurnRefused as refused:
            return _refusal(refused)
        except BackendFailure as failure:
            return BackendAnswer([failure.answer], failure.answer)

    def _read(self, session: Session, packet: Packet) -> BackendAnswer:
        """Execute statements that only read."""
        self._restart_if_due()
        if any(statement.reads_rows for statement in packet.statements):
            self._note_other_writer(session)
        self._backend.begin_reading()
        return self._execute(session, packet)

    def _write(self, session: Session, packet: Packet) -> BackendAnswer:
        """Execute statements in the session's transaction."""
        self._backend.end_reading()
        self._restart_if_due()
        self._open_levels()
        self._take(session)
        answer = self._execute(session, packet)
        if answer.error is None:
            self._note_changes(session, packet, answer)
        return answer

    def _execute(self, session: Session, packet: Packet) -> BackendAnswer:
        """Execute statements with the session's settings."""
        data = wire.data_of(packet.messages)
        try:
            self._backend.use_settings(session.values)
            answer = self._backend.exchange(data, packet.copy_rows)
            self._is_restart_due = False
            if answer.error is None:
                self._note_settings(session, packet)
        except BackendFailure:
            # After a cancelled restart the transaction may lack its savepoints. The next statement
            # restarts it again.
            if not self._is_restart_due:
                self._backend.undo_failed()
            raise
        if answer.error is not None:
            self._backend.undo_failed()
        return answer

    def _note_changes(
        self, session: Session, packet: Packet, answer: BackendAnswer
    ) -> None:
        if any(map(_DDL.match, answer.tags)):
            self._backend.note_ddl()
            self._levels[-1].note_ddl()
        if packet.is_pinned and not packet.writes:
            return
        if not all(map(_NO_CHANGE.match, answer.tags)):
            session.note_write(_shown(packet.statements[0].sql))

    # Transactions

    def commit(self, session: Session) -> Message | None:
        """Keep the changes of a session's transaction, or return the error of a constraint."""
        if self._holder is not session:
            return None
        with self._turn(session):
            self._backend.end_reading()
            try:
                self._backend.check_constraints()
            except BackendFailure as failure:
                self._undo_holder(session)
                return failure.answer
            if session.is_read_only:
                self._backend.roll_back_to(session.savepoint)
            self._commit_holder(session)
        return None

    def _count_change(self) -> None:
        self._levels[-1].add_changes(1)

    # Settings

    def _note_settings(self, session: Session, packet: Packet) -> None:
        """Note the values of the settings that a client's statements have changed."""
        changes = self._changed_settings(packet)
        if not changes:
            return
        calls = [f"current_setting({literal(change.name)}, true)" for change in changes]
        [values] = self._backend.query(f"SELECT {', '.join(calls)}").rows
        present = {}
        for change, value in zip(changes, values, strict=True):
            session.set(change.name, value, is_local=change.is_local)
            if value is not None:
                present[change.name] = value
        # If the session has another value, `use_settings` sets it before the next statement.
        self._backend.note_settings({**session.values, **present})

    def _changed_settings(self, packet: Packet) -> list[SettingChange]:
        """Return the settings that statements change, also by functions."""
        changes: list[SettingChange] = []
        for statement in packet.statements:
            changes += statement.settings
            if statement.unnamed_setting is not None:
                parameters = wire.data_of(packet.messages)
                changes += statement.settings_named_by(parameters)
            if self._callers is not None and self._callers.search(statement.sql):
                changes += self._function_settings
        return changes

    # Levels

    def _restart_if_due(self) -> None:
        """Begin another transaction if this one is empty, so that ``now()`` is in the test."""
        if self._is_restart_due:
            self._backend.restart()

    def _open_levels(self) -> None:
        """Open the savepoints of levels before a write."""
        for level in self._levels[1:]:
            if not self._backend.has(level.savepoint):
                if self._restoring is None:
                    self._backend.use_settings({})
                    self._restoring = self._backend.restoring()
                level.note_restoring(self._restoring)
                self._backend.set_savepoint(level.savepoint)
        self._restoring = None  # the write may move sequences

    def enter(self) -> None:
        """Open a level. The backend opens its savepoint at the first write.

        Raises:
            ControlFailure: the server refuses a new real connection.
        """
        with self._turn(None):
            has_levels = any(map(self._is_open, self._levels))
            is_used = self._holder is not None or self._levels[0].changes > 0
            self._is_restart_due = not has_levels and not is_used
            self._levels.append(_Level(f"arena_level_{next(self._level_numbers)}"))

    def _is_open(self, level: _Level) -> bool:
        """Return whether the backend has the savepoint of a level."""
        return self._backend.has(level.savepoint)

    @property
    def depth(self) -> int:
        """The number of open levels."""
        return len(self._levels) - 1

    @property
    def version(self) -> tuple[int, ...]:
        """A value that changes with the changes of the open levels."""
        return tuple(level.changes for level in self._levels)

    def leave_to(self, depth: int) -> bool:
        """Leave levels until only ``depth`` are open. Return whether one of them had changed."""
        was_changed = False
        while self.depth > depth:
            was_changed |= self.leave()
        return was_changed

    def leave(self) -> bool:
        """Restore the state of the matching ``enter``. Return whether it had changed.

        Open transactions are rolled back.
        """
        with self._turn(None):
            level = self._levels[-1]
            is_changed = level.changes > 0
            self._cut_off()
            if self._is_open(level):
                is_changed |= self._restore(level)
            self._backend.reset_session_later()
            self._levels.pop()
            if len(self._levels) == 1:
                self._backend.forget_ddl()
        return is_changed

    def _restore(self, level: _Level) -> bool:
        """Roll back to a level's start. Return whether a sequence has moved."""
        self._backend.undo(level.savepoint)
        self._backend.use_settings({})
        has_moved = self._backend.restore_sequences(level.restoring)
        if not self._backend.has_ddl:
            self._restoring = level.restoring
        return has_moved

    def forget_level(self) -> None:
        """Close the top level, and keep its changes."""
        with self._turn(None):
            level = self._levels.pop()
            below = self._levels[-1]
            if level.has_ddl:
                below.note_ddl()
            if self._is_open(level):
                if self._holder is None:
                    self._backend.release(level.savepoint)
                below.add_changes(level.changes)

    def commit_all(self) -> None:
        """Commit all changes, because the database is kept for inspection."""
        with self._turn(None):
            self._cut_off()
            self._backend.end_reading()
            self._backend.commit()

    # Questions

    def has_moved_numbers(self) -> bool:
        """Return whether a sequence has moved since the top level's start."""
        with self._turn(None):
            level = self._levels[-1]
            if not self._is_open(level):
                return False
            self._backend.use_settings({})
            return self._backend.restoring() != level.restoring

    def has_ddl(self) -> bool:
        """Return whether the schema was changed in the top level."""
        return self._levels[-1].has_ddl

    def is_changed(self) -> bool:
        """Return whether the top level has changes."""
        return self._levels[-1].changes > 0

    def has_changes(self, *, below: int) -> bool:
        """Return whether one of the first ``below`` levels has changes."""
        return any(level.changes for level in self._levels[:below])


def _shown(statement: str) -> str:
    """Return a statement in one line of a message."""
    line = " ".join(statement.split())
    return line if len(line) <= 100 else line[:97] + "..."  # noqa: PLR2004 - fits a line


def _refusal(refused: TurnRefused) -> BackendAnswer:
    if refused.is_cancelled:
        error = wire.error(_CANCELLED, "canceling statement due to user request")
    else:
        text = f"canceling statement due to lock timeout: {refused.reason}"
        error = wire.error(_NO_LOCK, text, hint=ONE_WRITER)
    return BackendAnswer([error], error)


def _with_hint(answer: BackendAnswer) -> BackendAnswer:
    """Explain an error that only the shared transaction can cause."""
    error = answer.error
    if error is None or answer.sqlstate not in _IN_BLOCK:
        return answer
    fields = wire.fields_of(error.body)
    fields["H"] = _NO_BLOCK_HINT
    explained = wire.message(b"E", wire.pack_fields(fields))
    messages = [
        explained if message is error else message for message in answer.messages
    ]
    return BackendAnswer(messages, explained)
