"""Finds writes that the app neither commits nor rolls back, by SQLAlchemy's events.

A rollback loses writes unless an error is under way, or a line asks for it. A line that cleans up
counts only after a failed statement or outside of a request. The page of limits lists the gaps.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncSession,
    AsyncSessionTransaction,
    AsyncTransaction,
    async_sessionmaker,
)
from sqlalchemy.orm import Session

from pytest_arena._config._load import is_library
from pytest_arena._config._supported import kind_of_error
from pytest_arena._gate._registry import (
    BEGUN,
    INFO,
    PendingWrites,
    PooledConnection,
    SessionRecord,
    pooled_of,
    record_of,
    unflushed_words,
)
from pytest_arena._interpreter import patch
from pytest_arena._ledger import READING
from pytest_arena._origin import (
    CALLER,
    NO_LINE,
    REQUEST,
    request_here,
    shown_line,
    this_task,
    user_frame,
    user_line,
)
from pytest_arena._owner import Phase, is_in_task_of_app, owner_here
from pytest_arena.errors import in_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Connection, ExceptionContext

    from pytest_arena._gate._registry import Registry
    from pytest_arena._ledger import Request
    from pytest_arena._owner import Owner
    from pytest_arena._product import Core
    from pytest_arena._values import CodeLine

_IS_GENERATOR = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
# Functions that run at the end of work, whether it has failed or not. The last two are Flask's.
_EXITS = frozenset({"__exit__", "__aexit__", "do_teardown_request", "do_teardown_appcontext"})


_COMMIT = (
    "session.commit(), with await if it is async, or `with engine.begin() as connection:`. "
    "If it should not be written: "
)


@dataclass(frozen=True, slots=True)
class Uncommitted:
    """Writes of a transaction, or unflushed objects of a session, that ended without a commit."""

    what: str  # such as ``wrote stock and never committed it: lost``
    fix: str
    line: CodeLine | str  # the app's line of the first write or add, else of the close
    # The request whose work closed the transaction or session. None is the test, or a fixture.
    request: Request | None
    is_of_fixture: bool  # whether a test's fixtures were set up then

    @property
    def is_lost(self) -> bool:
        """Whether no request, or one below 400, has lost them."""
        return self.request is None or not self.request.is_refused


class LostWrites:
    """Notes the transactions of the app, and what ended without a commit."""

    def __init__(self, core: Core, registry: Registry) -> None:
        self._core = core
        self._registry = registry
        self.by_level: dict[Owner, list[Uncommitted]] = {}  # by the owner of the level

    def note_write(self, pooled: PooledConnection, table: str) -> None:
        """Note that a statement has written to a table."""
        writes = pooled.pending_writes
        if writes is None:
            writes = PendingWrites(user_line(), self._core.level_owner(), REQUEST.get())
            pooled.pending_writes = writes
        writes.tables.append(table)

    # SQLAlchemy's events.

    def handle_error(self, context: ExceptionContext) -> None:
        """Note a statement or a commit that has failed."""
        self._registry.set_busy(is_busy=False)
        if context.connection is None:
            return  # no connection was opened
        pooled = pooled_of(context.connection)
        if pooled and pooled.pending_writes:
            pooled.pending_writes.has_failed = True
        error = context.original_exception
        _explain_lock(self._registry, error, pooled)
        request = request_here()
        if request is not None:
            line = user_line()
            where = f" ({line.short})" if line is not None else ""
            request.failure = in_words(error).partition("\n")[0] + where

    def rollback_savepoint(self, connection: Connection, *_: object) -> None:
        """Note that a failed statement was undone."""
        pooled = pooled_of(connection)
        if pooled and pooled.pending_writes:
            pooled.pending_writes.has_failed = False

    def commit(self, connection: Connection) -> None:
        """Note a commit that begins."""
        pooled = self._registry.before_sending(connection, "COMMIT")
        if pooled:
            pooled.has_committed = True
        if not (pooled and pooled.pending_writes and pooled.handle):
            return
        writes = pooled.pending_writes
        if writes.has_failed and pooled.handle.is_aborted(connection.connection.dbapi_connection):
            self.note_end(writes, is_failed=True)
        # FastAPI runs the code behind the ``yield`` of a dependency after the answer, and so may a
        # middleware. With autocommit no transaction is open.
        session = pooled.session_record
        request = session.begun_by if session is not None else None
        if request and request.is_answered and not request.is_over and pooled.handle.is_begun:
            request.late_commits.append(user_line() or NO_LINE)
        writer = writes.request
        if writer is not None and writer.is_over:
            self._registry.running.late.append(writer)
        pooled.pending_writes = None

    def rollback(self, connection: Connection) -> None:
        """Look for lost writes before a rollback by the app or by SQLAlchemy.

        SQLAlchemy calls this for ``close``, too.
        """
        pooled = self._registry.before_sending(connection, "ROLLBACK")
        if not (pooled and pooled.pending_writes):
            return
        if pooled.handle is None or not pooled.handle.is_begun:
            pooled.has_committed = True  # AUTOCOMMIT
        elif not _is_meant(pooled.pending_writes):
            self.note_end(pooled.pending_writes)
        pooled.pending_writes = None

    def note_unflushed(self, session: Session, request: Request | None) -> None:
        """Note objects that a session has not flushed, before it is rolled back or closed."""
        level = self._core.level_owner()
        # An endpoint may change what it has read only for its answer.
        method = request.method if request else ""
        words = unflushed_words(session, has_changed=method not in READING)
        if level is not None and words:
            line = record_of(session).line or user_line() or NO_LINE
            what = f"{words}, and never flushed or committed it: lost"
            self._note(level, what, f"{_COMMIT}session.expunge(…)", line, request)

    def note_end(self, writes: PendingWrites, *, is_failed: bool = False) -> None:
        """Note writes that end without a commit."""
        level = writes.level
        if level is not None and writes.tables:
            what = f"{writes.words} and never committed it: lost"
            fix = f"{_COMMIT}session.rollback()"
            if is_failed:
                what = f"{writes.words}, and committed after a failed statement: rolled back, lost"
                fix = "(async) with session.begin_nested():   around the statement that may fail"
            self._note(level, what, fix, writes.line or NO_LINE, writes.request or REQUEST.get())

    def _note(
        self, level: Owner, what: str, fix: str, line: CodeLine | str, request: Request | None
    ) -> None:
        test = Phase.test
        is_of_fixture = test is not None and not test.is_set_up
        works = self.by_level.setdefault(level, [])
        works.append(Uncommitted(what, fix, line, request, is_of_fixture))


def _explain_lock(registry: Registry, error: BaseException, own: PooledConnection | None) -> None:
    """Add a note to the error of a lock timeout: the transactions that may hold the lock."""
    if kind_of_error(error) != "lock timeout":
        return
    lines = [f"the statement waited too long for a lock at {shown_line()}"]
    for writes in registry.pending_writes():
        if own is None or writes is not own.pending_writes:
            lines.append(f"another connection has {writes}")
    lines.append(
        "next: commit it first: session.commit(), with await if it is async   "
        "(or a longer arena_lock_timeout, if the engine sets no timeout)"
    )
    error.add_note("\n".join(lines))


# The error that ends the work of an async session or connection. SQLAlchemy ends it in a greenlet
# or in another task, where `sys.exception()` does not return this error.
_leaving: ContextVar[BaseException | None] = ContextVar(
    "arena: an error that closes a session", default=None
)


def _is_meant(writes: PendingWrites | None = None, *, is_rollback: bool = False) -> bool:
    """Return whether the app, or a test, means to discard what it has written.

    It does if it raises or handles an error, or if a line that does not clean up calls
    ``rollback``. Code cleans up that also runs when nothing is wrong. After a failed statement,
    or outside of a request, any line may call it.
    """
    error = sys.exception() or _leaving.get()
    # Python raises GeneratorExit in a generator that its caller has left.
    if error is not None and not isinstance(error, GeneratorExit):
        return True
    if not (is_rollback or _is_rollback()):
        return False
    if writes and writes.has_failed:
        return True
    # The suite's isolation may roll back what requests have written.
    if REQUEST.get() is None:
        return True
    frame = user_frame()
    while frame is not None:  # of the user's code, up to a library that has called it
        code = frame.f_code
        if code.co_flags & _IS_GENERATOR or code.co_name in _EXITS:
            return False
        if is_library(code.co_filename):
            break
        frame = frame.f_back
    return True


def _is_rollback() -> bool:
    """Return whether ``rollback`` of SQLAlchemy led here, and no code of others."""
    frame = inspect.currentframe()
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("sqlalchemy."):
            if frame.f_code.co_name == "rollback":
                return True
        elif not module.startswith("pytest_arena._gate."):
            break
        frame = frame.f_back
    return False


def _watch_async_ends() -> None:
    sessions = (AsyncSession, AsyncSessionTransaction, type(async_sessionmaker().begin()))
    for kind in (*sessions, AsyncConnection, AsyncTransaction):
        for name in vars(kind).keys() & {"close", "rollback", "__aexit__"}:
            patch(kind, name, _noting_error(getattr(kind, name)))


def _noting_error(end: Callable[..., Any]) -> Callable[..., object]:
    @wraps(end)
    async def noted(self: object, *args: Any) -> object:
        # `__aexit__` has the error of its block.
        raised = args[1] if args else sys.exception() or _leaving.get()
        token = _leaving.set(raised)
        caller = CALLER.get() or (this_task() if args else None)
        caller_token = CALLER.set(caller)
        try:
            return await end(self, *args)
        finally:
            CALLER.reset(caller_token)
            _leaving.reset(token)

    return noted


def watch_sessions(before_end: Callable[..., None]) -> None:
    """Listen to the sessions. SQLAlchemy has no event for their creation and their end."""
    _watch_async_ends()
    make = Session.__init__

    @wraps(make)
    def making(self: Session, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        owner = owner_here()
        self.info[INFO] = SessionRecord(owner, is_of_app=REQUEST.get() is not None or owner is None)

    def noting(end: Callable[[Session], None]) -> Callable[[Session], None]:
        @wraps(end)
        def ending(self: Session) -> None:
            is_empty = not (self.new or self.dirty or self.deleted)
            if not (is_empty or _is_meant(is_rollback=end.__name__ == "rollback")):
                before_end(self, REQUEST.get())
            end(self)

        return ending

    patch(Session, "__init__", making)
    for name in ("close", "rollback"):
        patch(Session, name, noting(getattr(Session, name)))
    event.listen(Session, "after_transaction_create", _note_begun)
    event.listen(Session, "after_begin", _note_connected)
    event.listen(Session, "after_transaction_end", _note_ended)
    event.listen(Session, "transient_to_pending", _note_changed)
    event.listen(Session, "after_flush", _note_changed)


def _note_begun(session: Session, transaction: Any) -> None:
    if transaction.parent is not None:
        return  # a savepoint or a flush
    BEGUN.add(session)
    record = record_of(session)
    owner = owner_here()
    record.is_used_by_wide_fixture = owner is not None and owner.is_idle and owner.is_wide
    request = request_here()
    if request is not None and (request.is_answered or is_in_task_of_app()):
        request = None  # the client has its answer, or the answer does not wait for the task
    record.begun_by = request


def _note_connected(session: Session, _: object, connection: Connection) -> None:
    record = record_of(session)
    record.connections.add(connection)
    pooled = pooled_of(connection)
    if pooled is not None:
        pooled.session = weakref.ref(record)


def _note_ended(session: Session, transaction: Any) -> None:
    if transaction.parent is None:
        record = record_of(session)
        record.connections.clear()
        record.line = None
        record.changed_by = None


def _note_changed(session: Session, *_: object) -> None:
    record = record_of(session)
    if record.line is None:
        record.line = user_line()
        record.changed_by = REQUEST.get()
