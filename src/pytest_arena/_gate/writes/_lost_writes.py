"""Finds writes that the app neither commits nor rolls back.

`_instrument` calls this module at each statement, commit and rollback of an engine.
"""

from __future__ import annotations

import sys
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, wraps
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import AdaptedConnection, Connection, event
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncSession,
    AsyncSessionTransaction,
    AsyncTransaction,
)
from sqlalchemy.orm import Session, SessionTransaction

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
    connections_of,
    is_of_arena,
    pending_objects,
)
from pytest_arena._gate._pooled import PooledConnection, TableWrite, tables_of, wrote
from pytest_arena._gate.writes._statements import (
    TEMPORARY_SCHEMAS,
    ends_transaction,
    savepoint_in,
    written_table,
)
from pytest_arena._origin import (
    REQUEST,
    call_of_test,
    calling_library,
    line_that_pytest_called,
    user_line,
)
from pytest_arena._owner import is_of_lifespan
from pytest_arena._product import (
    Core,
    raw_transactions,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from types import FrameType

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


@dataclass(frozen=True, slots=True)
class LifespanWrite:
    """A commit of a task or a thread that the app's lifespan has started."""

    tables: tuple[str, ...]
    line: str  # the app's line of the first write


_KEPT = 1000  # the most recorded commits of the lifespan


class LostWrites:
    """Finds the writes and the unflushed objects that the app has lost.

    It queries the database only when a transaction with writes is closed.
    """

    def __init__(self, core: Core, registry: Registry) -> None:
        self._core = core
        self._registry = registry
        # The last commits of the app's lifespan, each with the serial of its level.
        self._by_lifespan: deque[tuple[int, LifespanWrite]] = deque(maxlen=_KEPT)
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

    def by_lifespan(self, serials: Collection[int]) -> list[LifespanWrite]:
        """Return the commits of the lifespan's tasks and threads in these levels."""
        return [write for serial, write in list(self._by_lifespan) if serial in serials]

    # Called by a dialect's methods.

    def after_execute(
        self, context: Any, cursor: Any, statement: str, parameters: Any
    ) -> None:
        """Note a statement that has run and may have written."""
        pooled = PooledConnection.find(context.root_connection.connection)
        table = written_table(statement)
        if not table:
            _note_transaction_control(pooled, statement)
            return
        # Without a target the driver may be unknown, so do not read its cursor.
        # The rows of a temporary table end with the connection.
        is_temporary = table.startswith(TEMPORARY_SCHEMAS)
        if is_temporary or pooled is None or pooled.target is None:
            return
        returns_rows = cursor.description is not None
        rows = cursor.rowcount
        if not (rows or returns_rows):
            return
        writes = pooled.pending_writes
        serial = self._core.serial()
        if writes is None:
            writes = pooled.begin_writes(user_line(), serial)
            answer = ANSWER.get()
            if answer is not None:
                answer.note_write(writes)
        if rows < 0:
            rows = len(parameters) if context.executemany else 1
            if returns_rows:
                rows = 0  # asyncpg never counts the rows of RETURNING
        is_insert = context.isinsert or statement.lstrip()[:6].upper() == "INSERT"
        writes.add(TableWrite(table, rows, is_insert, serial))

    def after_failure(self, context: object, error: BaseException) -> None:
        """Note a statement that has failed."""
        pooled = None
        statement = ""
        if isinstance(context, DefaultExecutionContext):
            statement = context.statement or ""
            connection = context.root_connection
            # `connection.connection` would open a closed connection again.
            if not (connection.closed or connection.invalidated):
                pooled = PooledConnection.find(connection.connection)
        if pooled is not None:
            pooled.fail_writes()
        self._explain_lock(error, pooled, statement)

    def commit(self, commit: Callable[[object], None], proxied: Any) -> None:
        """Commit by the dialect's method, and note the commit."""
        pooled = PooledConnection.find(proxied)
        self._look_for_failure(pooled, proxied)
        if self._core.serial() == 0:
            self._note_outside_of_levels(pooled)
        write = self._written_by_lifespan(pooled)
        answer = ANSWER.get()
        try:
            if answer is None:
                end_writes(pooled)
                commit(proxied)
            else:
                _commit_for_request(answer, commit, proxied, pooled)
        except BaseException as error:
            self._explain_lock(error, pooled)
            raise
        if write is not None:
            # Read the serial now: the level may have begun during the commit.
            self._by_lifespan.append((self._core.serial(), write))

    def before_rollback(self, proxied: Any) -> None:
        """Look for lost writes before a rollback by the app or by SQLAlchemy."""
        pooled = PooledConnection.find(proxied)
        if pooled is None or pooled.pending_writes is None:
            return
        if self.note_if_collected(pooled):
            pooled.end_writes()
            return
        error = error_on_its_way()
        if id(error) == pooled.pending_writes.handled_error:
            # The app wrote in its `except` block, so the error does not explain the rollback.
            error = None
        who = _caller_of_rollback(sys._getframe())  # noqa: SLF001 - the documented way to a frame
        is_lost = not who or (who == _APP and calling_library() not in _NO_LIBRARY)
        if error is not None:
            # The client sees a redirect as a success, but the app rolls back because of it.
            is_lost = answers_well(error) and who != _ARENA
        if is_lost:
            self._look_for_open_writes(pooled, proxied)
        pooled.end_writes()

    def before_invalidate(self, connection: Connection) -> None:
        """Look for lost writes before the app invalidates a connection.

        The connection may be unsafe to use, so pytest-arena sends no query on it.
        """
        if connection.closed or connection.invalidated:
            return
        pooled = PooledConnection.find(connection.connection)
        if pooled is None or pooled.pending_writes is None:
            return
        error = error_on_its_way()
        if id(error) == pooled.pending_writes.handled_error:
            error = None
        is_lost = error is None or answers_well(error)
        if is_lost and self._has_open_writes(pooled):
            self._record(pooled)
        pooled.end_writes()

    def _has_open_writes(self, pooled: PooledConnection) -> bool:
        """Return whether the open transaction may have writes of the test. Send no query."""
        writes = pooled.pending_writes
        if writes is None or writes.has_failed:
            return False
        if pooled.handle is None or not pooled.handle.is_begun:
            return False
        return self._may_lose(pooled)

    def note_if_collected(self, pooled: PooledConnection) -> bool:
        """Note the open writes of a request if the garbage collector has found its connection.

        The collector runs in any code, so its caller and a current error have no meaning. Return
        whether the collector has found the connection of a request.
        """
        writes = pooled.pending_writes
        if writes is None or writes.request is None:
            return False
        if not _is_collected(sys._getframe()):  # noqa: SLF001 - the documented way to a frame
            return False
        if self._has_open_writes(pooled):
            self._record(pooled, is_collected=True)
        return True

    # Called by a session's methods.

    def commit_failed(self, session: Session, error: Exception) -> None:
        """Note a failed commit of a request, if a library called it.

        The library may catch the error. For example, Advanced Alchemy commits for the app before
        the answer. A failed commit that the app itself calls is not noted, because the app may
        expect the error that it catches.
        """
        answer: RequestAnswer | None = REQUEST.get()
        frame = sys._getframe()  # noqa: SLF001 - the documented way to a frame
        if answer is None or _frame_of_sqlalchemy(frame, "commit") is None:
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
        if answer is None or is_of_arena(session) or _is_closed_by_error(session):
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
        if _is_closed_by_error(session):
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

    def _look_for_open_writes(self, pooled: PooledConnection, proxied: Any) -> None:
        if not self._may_lose(pooled):
            return
        if pooled.has_open_writes(proxied.dbapi_connection):
            self._record(pooled)

    def _look_for_failure(self, pooled: PooledConnection | None, proxied: Any) -> None:
        """Look for lost writes before a commit after a failed statement.

        PostgreSQL rolls such a transaction back at its commit, without an error.
        """
        if pooled is None or pooled.pending_writes is None or pooled.handle is None:
            return
        if not (pooled.pending_writes.has_failed and pooled.handle.is_begun):
            return
        try:
            pooled.handle.has_written(proxied.dbapi_connection, pooled.changes)
        except Exception:  # noqa: BLE001 - a driver's: the failed transaction accepts no statement
            if self._may_lose(pooled):
                self._record(pooled, is_failed=True)
            pooled.end_writes()

    def _written_by_lifespan(
        self, pooled: PooledConnection | None
    ) -> LifespanWrite | None:
        """Return the writes that a task or a thread of the lifespan is about to commit."""
        if pooled is None or pooled.pending_writes is None or not is_of_lifespan():
            return None
        writes = pooled.pending_writes
        tables = tables_of(writes.writes)
        line = str(writes.line or _NO_LINE)
        return LifespanWrite(tables, line)

    def _note_outside_of_levels(self, pooled: PooledConnection | None) -> None:
        """Note a commit outside of all levels, which no level restores.

        A hook of a conftest, or a module during its import, may write such rows.
        """
        if pooled is None or pooled.pending_writes is None:
            return
        if pooled.target is None or pooled.target.key.kind == "building":
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
        statement: str = "",
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


def _note_transaction_control(pooled: PooledConnection | None, statement: str) -> None:
    """Note a statement that may set a savepoint, roll back to one, or end the transaction."""
    savepoint = savepoint_in(statement)
    if savepoint is None:
        if ends_transaction(statement):
            end_writes(pooled)
        return
    name, is_rollback = savepoint
    if pooled is None or pooled.pending_writes is None:
        return
    writes = pooled.pending_writes
    if is_rollback:
        writes.roll_back_to(name)
    else:
        writes.mark_savepoint(name)
    if not writes.writes:
        pooled.end_writes()


def end_writes(pooled: PooledConnection | None) -> None:
    """Note the end of the transaction."""
    if pooled is not None and pooled.pending_writes is not None:
        pooled.end_writes()


def _commit_for_request(
    answer: RequestAnswer,
    commit: Callable[[Any], None],
    proxied: object,
    pooled: PooledConnection | None,
) -> None:
    """Commit work of a request, and note the commit in its answer."""
    writes = pooled.pending_writes if pooled is not None else None
    if pooled is None or writes is None:
        commit(proxied)
        return
    # With autocommit no transaction is open.
    is_open = pooled.handle is not None and pooled.handle.is_begun
    end_writes(pooled)
    writes.reopen()  # until the database has committed it
    try:
        commit(proxied)
    except BaseException as error:
        answer.note_error(error)
        raise
    finally:
        writes.end()
    if is_open:
        answer.note_commit(writes, proxied)


# pytest-arena's packages that wrap the calls between SQLAlchemy and a database. Their frames do not
# show the caller of a rollback.
_BELOW = tuple(
    f"{name}." for name in ("pytest_arena._gate", *map(package_of, SUPPORTED))
)


# Callers that are no library. pytest calls the clean-ups of a test, such as `addfinalizer`.
_NO_LIBRARY = {"", "_pytest"}
_APP = "the app"
_ARENA = "pytest-arena"


def _caller_of_rollback(frame: FrameType | None) -> str:
    """Return the caller of a rollback: ``_APP``, ``_ARENA``, or "" if SQLAlchemy closes.

    ``close`` causes the same event as ``rollback``. Only the frames differ.
    """
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        is_own = module.startswith("pytest_arena.")
        if not (is_own or module.startswith("sqlalchemy.")):
            return ""
        if frame.f_code.co_name == "rollback" and not is_own:
            return _APP
        if is_own and not module.startswith(_BELOW):
            return _ARENA
        frame = frame.f_back
    return ""


def _frame_of_sqlalchemy(frame: FrameType | None, function: str) -> FrameType | None:
    """Return the frame of a function of SQLAlchemy above this one, if no other code is between."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if not module.startswith(("pytest_arena.", "sqlalchemy.")):
            return None
        if frame.f_code.co_name == function and module.startswith("sqlalchemy."):
            return frame
        frame = frame.f_back
    return None


def _is_collected(frame: FrameType | None) -> bool:
    """Return whether the pool takes back a connection that the garbage collector has found."""
    fairy = _frame_of_sqlalchemy(frame, "_finalize_fairy")
    return fairy is not None and bool(fairy.f_locals.get("is_gc_cleanup"))


# The error that closes an async session or connection. SQLAlchemy closes in a greenlet or in
# another task, where `sys.exception()` does not return this error.
_leaving: ContextVar[BaseException | None] = ContextVar(
    "arena: an error that closes a session", default=None
)


# By the number of a session: the id of the error that the app was handling when it created the
# session. This error is not the cause of the session's close, because the app writes in its
# `except` block.
_MADE_IN: dict[int, int] = {}


def error_on_its_way() -> BaseException | None:
    """Return the error that the app is raising or handling now, else None.

    GeneratorExit is no error: Python raises it in a generator that its caller has left.
    """
    error = sys.exception() or _leaving.get()
    return None if isinstance(error, GeneratorExit) else error


def _is_closed_by_error(session: Session) -> bool:
    """Return whether an error closes a session. A redirect is no error."""
    error = error_on_its_way()
    if error is None or id(error) == _MADE_IN.get(session.hash_key):
        return False
    return not answers_well(error)


# By the number of a session: the call of a test that created it.
_CALLS: dict[int, Call] = {}


def _note_making(session: Session) -> None:
    """Record the error that the app handles as it creates a session, and the test's call."""
    error = sys.exception()
    if error is not None:
        _MADE_IN[session.hash_key] = id(error)
    call = call_of_test() if REQUEST.get() is None else ()
    if call:
        _CALLS[session.hash_key] = call


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


@cache
def note_errors_on_leaving() -> None:
    """Patch SQLAlchemy to note which error closes an async session or connection."""
    for kind in (AsyncSession, AsyncConnection):
        for name in ("close", "rollback", "invalidate", "__aexit__"):
            setattr(kind, name, _noting(getattr(kind, name)))
    for transaction in (AsyncSessionTransaction, AsyncTransaction):
        for name in ("rollback", "__aexit__"):
            setattr(transaction, name, _noting(getattr(transaction, name)))


def _noting(end: Callable[..., Any]) -> Callable[..., object]:
    @wraps(end)
    async def noted(self: object, *args: Any, **options: object) -> object:
        if len(args) > 1:  # of `__aexit__`, which knows the error of its block
            raised = args[1]
        else:
            raised = sys.exception() or _leaving.get()
            if id(raised) == _MADE_IN.get(_number_of_session(self)):
                raised = None
        token = _leaving.set(raised)
        try:
            return await end(self, *args, **options)
        finally:
            _leaving.reset(token)

    return noted


def _number_of_session(ended: object) -> int:
    """Return the number of an AsyncSession, or of the session of a transaction, else 0."""
    session = getattr(ended, "session", ended)
    sync_session = getattr(session, "sync_session", None)
    return sync_session.hash_key if sync_session is not None else 0


def watch_closed_sessions(gates: Sequence[WatchingGate]) -> None:
    """Patch SQLAlchemy to examine each session before its close, rollback or invalidation.

    The gate that is the last at that moment examines the session. This costs microseconds.
    SQLAlchemy has no event before a close.
    """
    make = Session.__init__
    reset = Session.reset
    roll_back = SessionTransaction.rollback

    @wraps(make)
    def making(self: Session, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        note_owner(self)
        is_of_test = REQUEST.get() is None and not type(self).__module__.startswith(
            ARENA
        )
        if is_of_test or sys.exception() is not None:
            _note_making(self)

    @wraps(reset)
    def resetting(self: Session) -> None:
        gates[-1].lost.before_close(self)
        reset(self)
        ADDS_OF_TESTS.pop(self.hash_key, None)

    @wraps(roll_back)
    def rolling_back(self: SessionTransaction, *args: Any, **kwargs: Any) -> None:
        session = self.session
        error = error_on_its_way()
        _give_up(session)
        # Check this first: it is fast, and most sessions are clean.
        is_clean = session._is_clean()  # noqa: SLF001 - as in `before_close`
        if not is_clean and _is_for_success(error):
            gates[-1].lost.before_close(session)
        elif isinstance(error, Exception):
            gates[-1].lost.commit_failed(session, error)
        if not self.nested:
            ADDS_OF_TESTS.pop(session.hash_key, None)
        roll_back(self, *args, **kwargs)

    Session.__init__ = making  # type: ignore[method-assign] # SQLAlchemy has no event
    for name in ("close", "invalidate"):
        setattr(Session, name, _closing(getattr(Session, name), gates))
    Session.reset = resetting  # type: ignore[method-assign] # no event
    SessionTransaction.rollback = rolling_back  # type: ignore[method-assign] # no event
    event.listen(Session, "transient_to_pending", _on_add)
    event.listen(Session, "after_commit", _on_commit)


def _closing(
    close: Callable[[Session], None], gates: Sequence[WatchingGate]
) -> Callable[[Session], None]:
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
        _MADE_IN.pop(self.hash_key, None)

    return closing


def watch_invalidated_connections(gates: Sequence[WatchingGate]) -> None:
    """Patch SQLAlchemy to examine each connection before the app invalidates it.

    ``Session.invalidate`` also calls the patched method. If SQLAlchemy invalidates a connection by
    itself, it passes an error.
    """
    invalidate = Connection.invalidate

    @wraps(invalidate)
    def invalidating(self: Connection, exception: BaseException | None = None) -> None:
        if exception is None:
            gates[-1].lost.before_invalidate(self)
        invalidate(self, exception)

    Connection.invalidate = invalidating  # type: ignore[method-assign] # SQLAlchemy has no event


def _is_for_success(error: BaseException | None) -> bool:
    """Return whether the app answers with a success in spite of a rollback.

    The cause is a raised redirect, or a library without an error. For example, Advanced Alchemy
    rolls back at an answer of 303.
    """
    if error is None:
        return bool(calling_library())
    return answers_well(error)


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
    if answer is None:
        _note_outer_transaction(session)
    else:
        answer.lines_of_adds.pop(session.hash_key, None)


def _note_outer_transaction(session: Session) -> None:
    """Note writes that a commit of the session leaves in a transaction of its connection."""
    if session.in_nested_transaction():
        return
    for connection in connections_of(session):
        if not connection.in_transaction():
            continue
        pooled = PooledConnection.find(connection)
        if pooled is not None and pooled.pending_writes is not None:
            pooled.pending_writes.join_outer()
