"""Finds writes that the app neither commits nor rolls back, by SQLAlchemy's events."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import AdaptedConnection, event
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.pool import Pool

from pytest_arena._config._supported import (
    SUPPORTED,
    facts_of_driver,
    kind_of_error,
    package_of,
)
from pytest_arena._gate import _gate_notes
from pytest_arena._gate._answers import ANSWER, UNCLOSED, note_closed
from pytest_arena._gate._orm_sessions import note_owner
from pytest_arena._gate._pending import (
    ADDS_OF_TESTS,
    ARENA,
    is_of_arena,
    pending_objects,
)
from pytest_arena._gate._pooled import PooledConnection, TableWrite, tables_of, wrote
from pytest_arena._gate._statements import (
    TEMPORARY_SCHEMAS,
    ends_transaction,
    written_table,
)
from pytest_arena._origin import (
    REQUEST,
    call_of_test,
    calling_library,
    line_that_pytest_called,
    user_line,
)
from pytest_arena._product import Core, raw_transactions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from sqlalchemy.engine import Connection, ExceptionContext

    from pytest_arena._gate._answers import RequestAnswer
    from pytest_arena._gate._pending import PendingObjects
    from pytest_arena._gate._registry import Registry
    from pytest_arena._origin import Call
    from pytest_arena._values import CodeLine


_NEXT = (
    "next: commit it first: {}session.commit()   "
    "(or a longer arena_lock_timeout, if the engine sets no timeout)"
)
_RAW_HOLDER = """\
a connection that no engine has opened is in a transaction: {}
next: commit it first: connection.commit(), or close the connection"""
_IN_POOL = """\
a connection in its pool has an open transaction, as after a COMMIT that failed
next: engine.dispose(), which closes the connection"""
_NO_LINE = "a line that cannot be seen"


@dataclass(frozen=True, slots=True)
class LostWork:
    """Writes of a transaction, or unflushed objects of a session, that ended without a commit."""

    words: str  # such as ``wrote stock (1 row)`` or ``added Order (2)``
    line: CodeLine | str  # the app's line of the first write or add, else of the close
    # The `RequestAnswer` of the request whose work closed the transaction or session.
    request: object = None
    # Whether the app committed after a failed statement, and the server rolled back.
    is_failed: bool = False
    is_unflushed: bool = False  # whether these are objects of a session
    # The library, or ``_APP``, that has caught the error of the commit.
    caught_by: str = ""
    # Whether the same call of the test into the app, such as a command, began and closed it.
    is_of_call: bool = False


class LostWrites:
    """Finds the writes and the unflushed objects that the app has lost.

    It queries the database only when a transaction with writes is closed.
    """

    def __init__(self, core: Core, registry: Registry) -> None:
        self._core = core
        self._registry = registry
        self.losses: list[tuple[int, LostWork]] = []  # with the serials of their levels
        # The lost work of existing wider fixtures, by the serials of their levels.
        self._of_fixtures: dict[int, list[LostWork]] = {}

    def take(self) -> list[LostWork]:
        """Return the lost work of the current level since the last call.

        A transaction is lost when its session or connection is closed, or returned to the pool,
        without a commit, a rollback or an error.
        """
        if not self.losses:
            return []
        lost = self.losses
        self.losses = []
        current = self._core.serial()
        return [each for serial, each in lost if serial == current]

    def of_fixtures(self) -> list[LostWork]:
        """Return the lost work of all existing wider fixtures."""
        return [*chain.from_iterable(self._of_fixtures.values())]

    def of_fixture(self, serial: int) -> list[LostWork]:
        """Return the lost work of the wider fixture whose level has this serial."""
        return list(self._of_fixtures.get(serial, ()))

    def forget_fixture(self, serial: int) -> None:
        """Forget the lost work of a wider fixture that ends."""
        self._of_fixtures.pop(serial, None)

    # SQLAlchemy's events.

    def before_execute(
        self,
        connection: Connection,
        _cursor: object,
        statement: str,
        parameters: Any,
        *_: object,
    ) -> tuple[str, Any]:
        """Note a statement of a request. Return the statement to execute, and its parameters."""
        # In a thread or a job of the request, only `REQUEST` is set.
        request = ANSWER.get() or REQUEST.get()
        if request is not None:
            request.statements.append(statement)
        if _READERS:
            pooled = _pooled(connection)
            if pooled is not None and pooled.handle is not None:
                statement = pooled.handle.before_execute(statement, connection)
        return statement, parameters

    def after_execute(
        self,
        connection: Connection,
        cursor: Any,
        statement: str,
        parameters: Any,
        context: Any,
        *_: object,
    ) -> None:
        """Note a statement that has run and may have written."""
        is_write = context.isinsert or context.isupdate or context.isdelete
        if not (is_write or context.is_text or statement.startswith("WITH")):
            return
        pooled = _pooled(connection)
        # Without a target the driver may be unknown, so do not read its cursor.
        if pooled is None or pooled.target is None:
            return
        table = written_table(statement)
        # The rows of a temporary table end with the connection.
        if table and not table.startswith(TEMPORARY_SCHEMAS):
            rows = _rows_of(cursor, parameters, context)
            if rows is not None:
                is_insert = statement.lstrip()[:6].upper() == "INSERT"
                self._note_write(pooled, table, rows, is_insert=is_insert)
        elif pooled.pending_writes is not None and ends_transaction(statement):
            pooled.end_writes()

    def _note_write(
        self, pooled: PooledConnection, table: str, rows: int, *, is_insert: bool
    ) -> None:
        writes = pooled.pending_writes
        serial = self._core.serial()
        if writes is None:
            writes = pooled.begin_writes(user_line(), serial)
            answer = ANSWER.get()
            if answer is not None:
                answer.note_write(writes)
        writes.add(TableWrite(table, rows, is_insert, serial))

    def failed(self, context: ExceptionContext) -> None:
        """Note a statement or a commit that has failed."""
        if context.connection is None:
            return  # no connection was opened
        pooled = _pooled(context.connection)
        if pooled is not None:
            pooled.fail_writes()
        error = context.original_exception
        self._explain_lock(error, pooled, context.statement or "")
        answer = ANSWER.get()
        if answer is not None:
            answer.note_error(error)

    def set_savepoint(self, connection: Connection, *_: object) -> None:
        """Note a savepoint that is set."""
        pooled = _pooled(connection)
        if pooled is not None and pooled.pending_writes is not None:
            pooled.pending_writes.set_savepoint()

    def release_savepoint(self, connection: Connection, *_: object) -> None:
        """Note that the last savepoint was released."""
        pooled = _pooled(connection)
        if pooled is not None and pooled.pending_writes is not None:
            pooled.pending_writes.release_savepoint()

    def roll_back_to_savepoint(self, connection: Connection, *_: object) -> None:
        """Forget the writes since the last savepoint."""
        pooled = _pooled(connection)
        if pooled is not None and pooled.pending_writes is not None:
            pooled.pending_writes.roll_back_to_savepoint()
            if not pooled.pending_writes.writes:
                pooled.end_writes()

    def commit(self, connection: Connection) -> None:
        """Note a commit that begins."""
        pooled = _pooled(connection)
        if pooled is None:
            return
        self._look_for_failure(pooled, connection)
        writes = pooled.pending_writes
        if writes is None:
            return
        if self._core.serial() == 0:
            self._note_outside_of_levels(pooled)
        # With autocommit no transaction is open.
        is_open = pooled.handle is not None and pooled.handle.is_begun
        pooled.end_writes()
        answer = ANSWER.get()
        if answer is not None and is_open:
            answer.note_commit(writes, connection.connection)

    def before_rollback(self, connection: Connection) -> None:
        """Look for lost writes before a rollback by the app or by SQLAlchemy.

        SQLAlchemy calls this for ``close``, too. Then none of its functions ``rollback`` is on the
        stack. An error, unless it is a redirect, explains the rollback.
        """
        pooled = _pooled(connection)
        if pooled is None or pooled.pending_writes is None:
            return
        error = error_on_its_way()
        is_lost = error is None or answers_well(error)
        if is_lost and (error is not None or not _is_called_by("rollback")):
            self._look_for_open_writes(pooled, connection)
        pooled.end_writes()

    def reset(self, _connection: object, entry: Any, *_: object) -> None:
        """Note the open writes of a connection that returns to its pool without a rollback.

        The garbage collector has found the connection. It may be unsafe to use, so pytest-arena
        sends no query on it.
        """
        pooled = PooledConnection.find(entry)
        writes = pooled.pending_writes if pooled is not None else None
        if pooled is None or writes is None:
            return
        is_begun = pooled.handle is not None and pooled.handle.is_begun
        if is_begun and not writes.has_failed and self._may_lose(pooled):
            self._record(pooled, is_collected=True)
        pooled.end_writes()

    # Called by a session's methods.

    def commit_failed(self, session: Session, error: Exception) -> None:
        """Note a failed commit of a request, if a library called it.

        The library may catch the error. For example, Advanced Alchemy commits for the app before
        the answer. A failed commit that the app itself calls is not noted, because the app may
        expect the error that it catches.
        """
        answer: RequestAnswer | None = REQUEST.get()
        if answer is None or is_of_arena(session) or not _is_called_by("commit"):
            return
        library = calling_library()
        if not library:
            return
        first_line = str(error).partition("\n")[0]
        words = f"{type(error).__name__}: {first_line}"
        self._add_failed(session, answer, words, library)

    def before_failed_close(self, session: Session) -> None:
        """Note that a request closes a session whose flush or commit has failed.

        The app has caught the error, and has not called ``rollback``.
        """
        answer: RequestAnswer | None = REQUEST.get()
        if answer is None or is_of_arena(session) or _is_closed_by_error():
            return
        if any(lost.request is answer and lost.caught_by for _, lost in self.losses):
            return  # `commit_failed` has noted it
        self._add_failed(session, answer, answer.failure or "a flush failed", _APP)

    def _add_failed(
        self, session: Session, answer: RequestAnswer, words: str, caught_by: str
    ) -> None:
        """Note a failed flush or commit of a request. ``words`` describe its error."""
        line = answer.lines_of_adds.get(session.hash_key) or user_line()
        lost = LostWork(
            words,
            line or _NO_LINE,
            answer,
            is_unflushed=True,
            caught_by=caught_by,
        )
        self._add(self._core.serial(), lost)

    def before_close(self, session: Session) -> None:
        """Look for objects that a session has not flushed, before it is closed."""
        # Cheaper than `new`, `dirty` and `deleted`, which build sets. `Session.flush` calls it.
        if session._is_clean() or is_of_arena(session):  # noqa: SLF001 - see above
            return
        if _is_closed_by_error():
            return
        pending = pending_objects(session)
        if pending:
            answer: RequestAnswer | None = REQUEST.get()
            lines = ADDS_OF_TESTS if answer is None else answer.lines_of_adds
            line = lines.get(session.hash_key) or user_line()
            call = _CALLS.get(session.hash_key, ()) if answer is None else ()
            lost = LostWork(
                str(pending),
                line or _NO_LINE,
                answer,
                is_unflushed=True,
                is_of_call=_is_same_call(call),
            )
            self._add(self._core.serial(), lost)

    def _look_for_open_writes(
        self, pooled: PooledConnection, connection: Connection
    ) -> None:
        if not self._may_lose(pooled):
            return
        if pooled.has_open_writes(connection.connection.dbapi_connection):
            self._record(pooled)

    def _look_for_failure(
        self, pooled: PooledConnection, connection: Connection
    ) -> None:
        """Look for lost writes before a commit after a failed statement.

        PostgreSQL rolls such a transaction back at its commit, without an error.
        """
        if pooled.pending_writes is None or pooled.handle is None:
            return
        if not (pooled.pending_writes.has_failed and pooled.handle.is_begun):
            return
        try:
            dbapi_connection = connection.connection.dbapi_connection
            pooled.handle.has_written(dbapi_connection, pooled.changes)
        except Exception:  # noqa: BLE001 - a driver's: the failed transaction accepts no statement
            if self._may_lose(pooled):
                self._record(pooled, is_failed=True)
            pooled.end_writes()

    def _note_outside_of_levels(self, pooled: PooledConnection) -> None:
        """Note a commit outside of all levels, which no level restores.

        A hook of a conftest, or a module during its import, may write such rows.
        """
        if pooled.pending_writes is None or pooled.target is None:
            return
        if pooled.target.key.kind == "building":
            return
        line = line_that_pytest_called()
        note = _gate_notes.commit_outside_of_levels(line, pooled.pending_writes.line)
        self._core.ledger.note(note)

    def _may_lose(self, pooled: PooledConnection) -> bool:
        writes = pooled.pending_writes
        if writes is None or pooled.target is None or not writes.writes:
            return False
        # A wider fixture may keep a transaction open during its tests.
        return bool(writes.serial) and writes.serial == self._core.serial()

    def _record(
        self,
        pooled: PooledConnection,
        *,
        is_failed: bool = False,
        is_collected: bool = False,
    ) -> None:
        writes = pooled.pending_writes
        if writes is None or pooled.target is None:
            return
        request = writes.request
        if not is_collected:
            request = REQUEST.get() or request
        lost = LostWork(
            wrote(tables_of(writes.writes), pooled.rows_written()),
            writes.line or _NO_LINE,
            request,
            is_failed=is_failed,
            is_of_call=request is None and _is_same_call(writes.call),
        )
        self._add(writes.serial, lost)

    def _add(self, serial: int, lost: LostWork) -> None:
        if serial < 0:
            self._of_fixtures.setdefault(serial, []).append(lost)
        elif serial > 0:
            self.losses.append((serial, lost))

    def _explain_lock(
        self,
        error: BaseException,
        own: PooledConnection | None,
        statement: str,
    ) -> None:
        """Add a note to the error of a lock timeout: the connections that may hold the lock."""
        if kind_of_error(error) != "lock timeout":
            return
        words = self._holders_of_lock(own)
        if not words:
            words = f"\n{_NEXT.format('')}"
            facts = facts_of_driver(error)
            unseen = facts.unseen_locks if facts is not None else {}
            for word, text in unseen.items():
                if word in statement.lower():
                    words = text
                    break
        error.add_note(
            f"the statement waited too long for a lock at {user_line()}{words}"
        )

    def _holders_of_lock(self, own: PooledConnection | None) -> str:
        """Return lines about transactions that may hold a lock, "" without any."""
        is_async = False
        holders = []
        open_ones = []
        for checkout in self._registry.checked_out():
            if checkout.connection is own:
                continue
            is_async |= isinstance(checkout.entry.dbapi_connection, AdaptedConnection)
            if checkout.pending_writes:
                holders.append(f"holds {checkout.pending_writes}")
            if checkout.handle and checkout.handle.is_begun:
                line = checkout.line
                open_ones.append(
                    f"has an open transaction, and was checked out at {line}"
                )
        raw = [] if holders else raw_transactions()
        if raw:
            return f"\n{_RAW_HOLDER.format(', '.join(raw))}"
        holders = holders or open_ones
        if holders:
            words = "".join(f"\nanother connection {holder}" for holder in holders)
            awaited = "await " if is_async else ""
            return f"{words}\n{_NEXT.format(awaited)}"
        if self._has_idle_transaction(own):
            return f"\n{_IN_POOL}"
        return ""

    def _has_idle_transaction(self, own: PooledConnection | None) -> bool:
        for pooled in self._registry.idle():
            if (
                pooled is not own
                and pooled.handle is not None
                and pooled.handle.is_begun
            ):
                return True
        return False


class WatchingGate(Protocol):
    """The part of a run's gate that this module needs."""

    lost: LostWrites


def watch_writes(gates: Sequence[WatchingGate]) -> None:
    """Listen to SQLAlchemy until the process ends. The gate that is the last then is called."""

    def listen(owner: Any, name: str, method: str, **options: bool) -> None:
        def listener(*arguments: object) -> Any:
            return getattr(gates[-1].lost, method)(*arguments)

        event.listen(owner, name, listener, **options)

    listen(Engine, "before_cursor_execute", "before_execute", retval=True)
    listen(Engine, "after_cursor_execute", "after_execute")
    listen(Engine, "handle_error", "failed")
    listen(Engine, "savepoint", "set_savepoint")
    listen(Engine, "release_savepoint", "release_savepoint")
    listen(Engine, "rollback_savepoint", "roll_back_to_savepoint")
    listen(Engine, "commit", "commit")
    listen(Engine, "rollback", "before_rollback")
    listen(Pool, "reset", "reset")
    for kind in (AsyncSession, AsyncConnection):
        for name in ("close", "__aexit__"):
            setattr(kind, name, _noting(getattr(kind, name)))
    _watch_sessions(gates)


def _rows_of(cursor: Any, parameters: Any, context: Any) -> int | None:
    """Return the number of rows that a statement has written, None without any.

    It is 0 if the driver does not count them.
    """
    returns_rows = cursor.description is not None
    rows: int = cursor.rowcount
    if rows < 0:
        if returns_rows:
            return 0  # asyncpg never counts the rows of RETURNING
        return len(parameters) if context.executemany else 1
    return rows if rows or returns_rows else None


# Not empty if a connection reads its statements. Each statement then takes a microsecond longer.
_READERS: list[str] = []


def read_statements() -> None:
    """Let connections read each statement before it is executed, from now on."""
    _READERS.append("a server")


def _pooled(connection: Connection) -> PooledConnection | None:
    if connection.closed or connection.invalidated:
        return None  # the property would open another connection
    return PooledConnection.find(connection.connection)


# pytest-arena's packages that SQLAlchemy calls. Their frames do not show the caller.
_BELOW = tuple(
    f"{name}." for name in ("pytest_arena._gate", *map(package_of, SUPPORTED))
)
_APP = "the app"


def _is_called_by(function: str) -> bool:
    """Return whether this function of SQLAlchemy led here, or a session of pytest-arena.

    No other code may be between.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to a frame
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("sqlalchemy."):
            if frame.f_code.co_name == function:
                return True
        elif not module.startswith("pytest_arena."):
            return False
        elif not module.startswith(_BELOW):
            return True
        frame = frame.f_back
    return False


# The error that closes an async session or connection. SQLAlchemy closes in a greenlet or in
# another task, where `sys.exception()` does not return this error.
_leaving: ContextVar[BaseException | None] = ContextVar(
    "arena: an error that closes a session", default=None
)


def error_on_its_way() -> BaseException | None:
    """Return the error that the app is raising or handling now, else None.

    GeneratorExit is no error: Python raises it in a generator that its caller has left.
    """
    error = sys.exception() or _leaving.get()
    return None if isinstance(error, GeneratorExit) else error


def _is_closed_by_error() -> bool:
    """Return whether an error closes a session. A redirect is no error."""
    error = error_on_its_way()
    return error is not None and not answers_well(error)


# By the number of a session: the call of a test that created it.
_CALLS: dict[int, Call] = {}


def _is_same_call(call: Call) -> bool:
    return bool(call) and call == call_of_test()


# Frameworks whose errors are answers of the app.
_FRAMEWORKS = {"starlette", "litestar", "werkzeug"}


def answers_well(error: BaseException) -> bool:
    """Return whether an error is an answer of a web framework below 400: ``HTTPException(303)``."""
    packages = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    if packages.isdisjoint(_FRAMEWORKS):
        return False  # an HTTP client's error has the status of another service
    statuses = (
        getattr(error, "status_code", None),
        getattr(error, "code", None),
        getattr(getattr(error, "response", None), "status_code", None),
    )
    return any(isinstance(status, int) and 100 <= status < 400 for status in statuses)  # noqa: PLR2004 - HTTP's


def _noting(end: Callable[..., Any]) -> Callable[..., object]:
    @wraps(end)
    async def noted(self: object, *args: Any) -> object:
        # `__aexit__` has the error of its block.
        raised = args[1] if args else sys.exception() or _leaving.get()
        token = _leaving.set(raised)
        try:
            return await end(self, *args)
        finally:
            _leaving.reset(token)

    return noted


def _watch_sessions(gates: Sequence[WatchingGate]) -> None:
    """Patch SQLAlchemy's methods for which it has no event: a session's creation and end."""
    make = Session.__init__
    close = Session.close

    @wraps(make)
    def making(self: Session, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        note_owner(self)
        if REQUEST.get() is None and not is_of_arena(self):
            call = call_of_test()
            if call:
                _CALLS[self.hash_key] = call

    @wraps(close)
    def closing(self: Session) -> None:
        _give_up(self)
        lost = gates[-1].lost
        if not self.is_active:
            lost.before_failed_close(self)
        lost.before_close(self)
        close(self)
        note_closed(self)
        ADDS_OF_TESTS.pop(self.hash_key, None)
        _CALLS.pop(self.hash_key, None)

    def rolled_back(session: Session, transaction: Any) -> None:
        _give_up(session)
        error = error_on_its_way()
        if isinstance(error, Exception):
            gates[-1].lost.commit_failed(session, error)
        if not transaction.nested:
            ADDS_OF_TESTS.pop(session.hash_key, None)

    Session.__init__ = making  # type: ignore[method-assign] # SQLAlchemy has no event
    Session.close = closing  # type: ignore[method-assign] # no event
    event.listen(Session, "after_soft_rollback", rolled_back)
    event.listen(Session, "transient_to_pending", _on_add)
    event.listen(Session, "after_commit", _on_commit)


def _give_up(session: Session) -> None:
    """Note that the app has ended a session that a request had left open."""
    pending: PendingObjects | None = session.info.pop(UNCLOSED, None)
    if pending is not None:
        pending.give_up()


def _on_add(session: Session, _: object) -> None:
    answer: RequestAnswer | None = REQUEST.get()
    if answer is None and type(session).__module__.startswith(ARENA):
        return
    lines = ADDS_OF_TESTS if answer is None else answer.lines_of_adds
    if session.hash_key not in lines:
        lines[session.hash_key] = user_line()


def _on_commit(session: Session) -> None:
    ADDS_OF_TESTS.pop(session.hash_key, None)
    answer: RequestAnswer | None = REQUEST.get()
    if answer is not None:
        answer.lines_of_adds.pop(session.hash_key, None)
