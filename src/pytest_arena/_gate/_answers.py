"""Finds requests that were answered before their commit.

FastAPI runs the code behind a dependency's ``yield`` after the answer. So may a middleware. The
gate calls this module at each commit, the client at each message of an answer.
"""

from __future__ import annotations

import sys
from asyncio import current_task
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Connection
from sqlalchemy.orm.session import _sessions

from pytest_arena._config._load import blame, is_library, package_of
from pytest_arena._gate._pending import (
    PendingObjects,
    connections_of,
    is_of_arena,
    pending_objects,
)
from pytest_arena._gate._pooled import PendingWrites, PooledConnection
from pytest_arena._origin import REQUEST, user_line
from pytest_arena._process import running_loop
from pytest_arena.errors import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy.orm import Session

    from pytest_arena._values import CodeLine


@dataclass(slots=True, eq=False)
class RequestAnswer:
    """The answer to one request, and the work that was uncommitted when the app sent it.

    Work that begins after the answer does not count, such as a background task's transaction. Work
    of tasks that the app's code creates does not count either: the request does not wait for it.
    """

    status: int | None = None
    is_sent: bool = False  # whether the client has the whole answer
    # Whether the app sent it before a commit of the request, or before a failure of that commit.
    is_early: bool = False
    statements: list[str] = field(default_factory=list)  # of the request, in order
    late_commits: list[CodeLine | None] = field(default_factory=list)
    failure: str = ""  # the last error of a statement or a commit, with the app's line
    # The error of a late commit, or of the code around it.
    error: BaseException | None = None
    error_line: CodeLine | None = None
    # The line that first added an object, by the session's number.
    lines_of_adds: dict[int, CodeLine | None] = field(default_factory=dict)
    # The objects in sessions that the request had not closed when the app returned.
    unflushed: list[PendingObjects] = field(default_factory=list)
    # The lines that wrote in a session of the test without a commit.
    lines_in_sessions_of_tests: list[CodeLine | None] = field(default_factory=list)
    _task: object = None  # the task that calls the app
    _token: Token[RequestAnswer | None] | None = None
    _request_token: Token[object] | None = None
    _is_over: bool = False  # the app has returned from the request
    _body_size: int | None = None  # from the header
    _bytes_sent: int = 0
    # The open sessions of the request. References keep Python from freeing them unnoticed.
    _sessions: set[Session] = field(default_factory=set)
    _writes: list[PendingWrites] = field(default_factory=list)  # of the request
    # The sessions and the writes that were not committed when the answer was sent.
    _late_sessions: list[Session] = field(default_factory=list)
    _late_writes: list[PendingWrites] = field(default_factory=list)
    # The error that the app handled when it sent the answer. Starlette raises it again.
    _answered_error: BaseException | None = None

    def begin(self) -> None:
        """Note that the app begins the answer in this task."""
        self._task = current_task() if running_loop() is not None else None
        self._token = ANSWER.set(self)
        self._request_token = REQUEST.set(self)

    # The client calls these methods.

    def note_sent(self, message: Mapping[str, Any]) -> None:
        """Note a message that the app has sent. The last byte of the body completes the answer.

        A middleware may send an empty message afterwards, when the app has finished.
        """
        if message["type"] == "http.response.start":
            self.status = message["status"]
            size = dict(message.get("headers", ())).get(_BODY_SIZE)
            if size is not None:
                self._body_size = int(size)
        elif message["type"] == "http.response.body" and not self.is_sent:
            self._bytes_sent += len(message.get("body", b""))
            has_more = message.get("more_body", False)
            if self._body_size is not None and self._bytes_sent >= self._body_size:
                has_more = False
            if not has_more:
                self._note_end()

    def _note_end(self) -> None:
        self.is_sent = True
        self._answered_error = sys.exc_info()[1]
        for written in self._writes:
            if not written.is_over:
                self._late_writes.append(written)
        self._late_sessions = self._pending_sessions()

    def _pending_sessions(self) -> list[Session]:
        pending = []
        for session in list(self._sessions):
            # Cheaper than `new`, `dirty` and `deleted`, which build sets. `Session.flush` calls it.
            if not session._is_clean():  # noqa: SLF001 - see above
                pending.append(session)
        return pending

    def end(self, error: Exception | None) -> None:
        """Note that the app has returned, or the error that it has raised."""
        is_answered = error is self._answered_error
        if error is not None and self._has_late_work and not is_answered:
            self.is_early = True
            self.error = error
            self.error_line = blame(error) or self.error_line
        self._is_over = True
        if error is None:
            self._note_sessions_of_tests()
        # Objects in sessions that the request has not closed.
        for session in self._pending_sessions():
            if is_of_arena(session):
                continue
            pending = pending_objects(session)
            if pending:
                pending.note_line(self.lines_of_adds.get(session.hash_key))
                session.info[UNCLOSED] = pending
                self.unflushed.append(pending)
        self.statements = []  # later statements of the app's tasks do not belong to the request
        self._sessions.clear()
        self._late_sessions.clear()
        if self._token is not None:
            ANSWER.reset(self._token)
        if self._request_token is not None:
            REQUEST.reset(self._request_token)
        # Break the reference cycle: a token refers to the context, and the context to this object.
        self._token = None
        self._request_token = None
        self._task = None
        self._answered_error = None

    def _note_sessions_of_tests(self) -> None:
        """Note uncommitted writes of the request in a session of the test.

        Such a session is ``db_session``, or a session on a connection that the suite rolls back.
        """
        sessions = list(self._sessions)
        if self.lines_of_adds:
            sessions += self._other_sessions()
        for session in sessions:
            bind = session.bind
            is_on_tests_connection = isinstance(bind, Connection) and not bind.closed
            if not (is_of_arena(session) or is_on_tests_connection):
                continue
            number = session.hash_key
            has_written = bool(pending_objects(session))
            if is_on_tests_connection and session.in_transaction():
                has_written = has_written or number in self.lines_of_adds
            line = self.lines_of_adds.get(number)
            for connection in connections_of(session):
                pooled = PooledConnection.find(connection.connection)
                writes = pooled.pending_writes if pooled is not None else None
                if writes is not None and writes.request is self:
                    has_written = True
                    line = line or writes.line
            if has_written:
                self.lines_in_sessions_of_tests.append(line)

    def _other_sessions(self) -> list[Session]:
        sessions = []
        for number in self.lines_of_adds:
            session = _sessions.get(number)
            if session is not None and session not in self._sessions:
                sessions.append(session)
        return sessions

    # The gate calls these methods.

    def note_session(self, session: Session) -> None:
        """Note that a session of the request begins a transaction."""
        if not self.is_sent and self._is_at_work():
            self._sessions.add(session)

    def forget_session(self, session: Session) -> None:
        """Note that a session was closed and holds no objects."""
        self._sessions.discard(session)

    def note_write(self, written: PendingWrites) -> None:
        """Note the first write of a transaction of the request."""
        if not self.is_sent and self._is_at_work():
            self._writes.append(written)

    def note_commit(self, written: PendingWrites, pooled: object) -> None:
        """Note that this connection has committed a transaction with writes."""
        if self._has_late_work and (
            written in self._late_writes or self._is_late(pooled)
        ):
            self.is_early = True
            self.late_commits.append(user_line())
            self.error = None

    def note_error(self, error: BaseException) -> None:
        """Note that a statement or a commit of the request has failed."""
        line = user_line()
        where = f" ({line.short})" if line is not None else ""
        first_line = str(error).partition("\n")[0]
        self.failure = redact(f"{type(error).__name__}: {first_line}{where}")
        if self._has_late_work:
            self.is_early = True
            self.error = error
            self.error_line = line

    def _is_at_work(self) -> bool:
        """Return whether the current task is the request's task, or a middleware's task for it.

        A task of SQLAlchemy that closes a session does not count: any task may have begun it.
        """
        task = current_task() if running_loop() is not None else None
        if task is None or task is self._task:
            return True
        code = getattr(task.get_coro(), "cr_code", None)
        if code is None:
            return True
        return (
            is_library(code.co_filename)
            and package_of(code.co_filename) != "sqlalchemy"
        )

    @property
    def _has_late_work(self) -> bool:
        has_work = bool(self._late_writes or self._late_sessions)
        return self.is_sent and has_work and not self._is_over

    def _is_late(self, pooled: object) -> bool:
        """Return whether a connection is in the transaction of a session with late work."""
        for session in self._late_sessions:
            for connection in connections_of(session):
                if connection.connection is pooled:
                    return True
        return False


_BODY_SIZE = b"content-length"

# The key in `Session.info` of the `PendingObjects` that a request has left in an open session.
UNCLOSED = "pytest_arena: unclosed"

ANSWER: ContextVar[RequestAnswer | None] = ContextVar(
    "arena: the answer of the request that runs here", default=None
)


def note_closed(session: Session) -> None:
    """Note in the current request that a session was closed."""
    answer = ANSWER.get()
    if answer is not None:
        answer.forget_session(session)


@contextmanager
def apart_from_requests() -> Iterator[None]:
    """Run a block outside of the current request, such as the build of a template."""
    token = ANSWER.set(None)
    request_token = REQUEST.set(None)
    try:
        yield
    finally:
        REQUEST.reset(request_token)
        ANSWER.reset(token)
