"""What does a statement read and write, and what of it has nobody committed, nor undone on purpose?

Every statement of an engine passes here once it has run. Whoever watches (`watch_statements`) gets
its text and the rows that it wrote; a transaction that is closed with writes in it is a lost one.
"""

from __future__ import annotations

import re
import sys
import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, wraps
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncSession,
    AsyncSessionTransaction,
    AsyncTransaction,
)
from sqlalchemy.orm import Session, SessionTransaction

from pytest_arena._gate import _gate_notes
from pytest_arena._gate._answers import ANSWER, UNCLOSED
from pytest_arena._gate._pending import is_of_arena, pending_objects
from pytest_arena._gate._registry import (
    INFO,
    ConnectionRecord,
    Part,
    Registry,
    UnnamedWrite,
    Written,
)
from pytest_arena._gate._unnamed import (
    MAY_WRITE,
    NOTIFIES,
    WRITES,
    unnamed_write,
)
from pytest_arena._origin import OF_WIDE_FIXTURE, REQUEST, WORK, user_line
from pytest_arena._product import ROOMS, Core, Key
from pytest_arena._values import STATEMENT_START as START

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

    from pytest_arena._changes import NamedValues
    from pytest_arena._gate._answers import RequestAnswer


# What a statement says of itself.

# How statements of SQLAlchemy's begin that do such things, and are neither a text nor known to it
# as a write.
COMPILED = ("WITH", "SAVEPOINT", "ROLLBACK TO")

_NAME = r'(?:"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]|[\w$]+)'
_WRITES = (
    r"(?:INSERT\s+(?:OR\s+\w+\s+)?INTO|REPLACE\s+INTO|DELETE\s+FROM(?:\s+ONLY)?|MERGE\s+INTO"
    r"|UPDATE(?:\s+OR\s+\w+)?(?:\s+ONLY)?)"
    rf"(?:\s+|(?=[\"`\[]))(?P<table>{_NAME}(?:\s*\.\s*{_NAME})*)"
)


def _at_start(pattern: str) -> re.Pattern[str]:
    return re.compile(START + pattern, re.IGNORECASE | re.DOTALL)


_WRITE = _at_start(_WRITES)
_ANY = _at_start(
    r"(?:INSERT|REPLACE|UPDATE|DELETE|MERGE|WITH|SAVEPOINT|ROLLBACK|COMMIT|END|ABORT)\b"
)
_INSIDE = re.compile(rf"\b{_WRITES}", re.IGNORECASE)
_WITH = _at_start(r"WITH\b")
_END = _at_start(r"(?:COMMIT|END|ROLLBACK|ABORT)\b")
_SAVEPOINT = _at_start(
    r"(?:SAVEPOINT|(?P<back>ROLLBACK(?:\s+(?:WORK|TRANSACTION))?\s+TO(?:\s+SAVEPOINT)?))"
    rf"\s+(?P<name>{_NAME})"
)
# What reads like one inside a statement: texts, and locks on rows.
_NO_WRITES = re.compile(
    r"'(?:[^']|'')*'|\bFOR\s+(?:NO\s+KEY\s+)?UPDATE\b", re.IGNORECASE
)
_PART = re.compile(_NAME)
_DEFAULT_SCHEMAS = ("main", "public")


def is_plain(statement: str) -> bool:
    """Whether a statement is none that anything here has a word for. Costs 0.3 µs."""
    return _ANY.match(statement) is None


def written_table(statement: str) -> str:
    """Return the table that a statement writes to, as an app names it; "" for none. Costs 1 µs."""
    found = _WRITE.match(statement)
    if found is None and _WITH.match(statement) is not None:
        found = _INSIDE.search(_NO_WRITES.sub("''", statement))
    return _plain(found["table"]) if found is not None else ""


def ends_transaction(statement: str) -> bool:
    """Whether it is one by which an app commits or rolls back without SQLAlchemy."""
    return _END.match(statement) is not None


def savepoint_in(statement: str) -> tuple[str, bool] | None:
    """Return the savepoint that a statement sets, or goes back to (True); None for neither."""
    found = _SAVEPOINT.match(statement)
    return (found["name"], found["back"] is not None) if found is not None else None


def _plain(name: str) -> str:
    parts = [
        part[1:-1].replace(part[-1] * 2, part[-1]) if part[0] in '"`[' else part
        for part in _PART.findall(name)
    ]
    return ".".join(
        parts[1:] if len(parts) > 1 and parts[0] in _DEFAULT_SCHEMAS else parts
    )


# What is done in a stretch of time, for whoever watches.

_MOST_VALUES = 50  # statements of which the values are kept


@dataclass(slots=True, eq=False)
class Doings:
    """What has been done to the databases in one stretch of time, by the statements of engines."""

    statements: set[str] = field(
        default_factory=set
    )  # that were run: what they read is in them
    written: list[Part] = field(default_factory=list)  # and committed
    executed: int = 0  # rows that statements wrote, committed or not
    values: list[Any] = field(
        default_factory=list
    )  # parameters of statements that wrote
    named: list[NamedValues] = field(
        default_factory=list
    )  # those that SQLAlchemy has names for
    is_unsure: bool = (
        False  # whether it may be that other rows were written, too, or not these
    )
    opened: list[tuple[ConnectionRecord, Written]] = field(default_factory=list)
    pending: dict[int, tuple[Part, ...]] = field(default_factory=dict)
    """What stood uncommitted when this stretch began, by connections."""
    shared: set[int] = field(default_factory=set)  # those of them that were used in it

    apart: Doings | None = None  # what the app has done meanwhile, by itself
    answers: Any = None  # who listens to what its queries are given

    def of_the_app(self) -> Doings:
        """Return where it belongs what the app does by itself, as it starts and ends."""
        if self.apart is None:
            self.apart = Doings()
        return self.apart

    def see_pending(self, before: Iterable[Doings]) -> None:
        """Begin with what connections of others have written, and not committed yet."""
        for other in before:
            self.pending |= {
                id(info): tuple(written.parts) for info, written in other.still_open()
            }

    def still_open(self) -> list[tuple[ConnectionRecord, Written]]:
        """Return those that have not been ended."""
        return [
            (info, written) for info, written in self.opened if info.written is written
        ]

    def joined(self) -> list[Part]:
        """Return what of the pending stood in the transactions in which this stretch took part."""
        return [part for place in sorted(self.shared) for part in self.pending[place]]


_finders: list[Callable[[], Doings | None]] = []


def watch_statements(find: Callable[[], Doings | None]) -> Callable[[], None]:
    """Have each statement noted in what ``find`` returns then. Returns what ends that, once.

    Cost: 0.2 µs a statement, and what ``find`` takes; 0.05 µs where nobody watches.
    """
    _finders.append(find)
    return lambda: _finders.remove(find)


def _doings() -> Doings | None:
    return _finders[-1]() if _finders else None


def note_statement(statement: str, context: Any) -> None:
    """Note a statement that has run, if a watcher wants it."""
    if (doings := _doings()) is not None:
        doings.statements.add(statement)
        if doings.answers is not None:
            doings.answers.listen(statement, context)
        if doings.pending and isinstance(context, DefaultExecutionContext):
            place = id(record_of(context.root_connection.connection))
            doings.shared |= {place} & doings.pending.keys()


def _noted_write(
    context: Any, statement: str, parameters: Any, part: tuple[str, int]
) -> Part:
    """A statement has written rows to a table: return what is known of that."""
    table, rows = part
    is_insert = context.isinsert or statement.lstrip()[:6].upper() == "INSERT"
    if (doings := _doings()) is not None:
        rows = rows or _rows_inserted(context)
        doings.executed += rows or 1
        if len(doings.values) < _MOST_VALUES:
            doings.values.append(parameters)
            if context.compiled is not None:
                doings.named.append((table, context.compiled_parameters))
    return table, rows, is_insert


_NOBODY_COUNTED, _COUNTED = 0, "_arena_counted"


def _rows_inserted(context: Any) -> int:
    """Say how many rows an insert of SQLAlchemy's has made that returns some: no driver counts.

    0 where nobody can tell: an insert from a query, one with a word on conflicts, a later batch.
    """
    statement = (
        context.compiled.statement if context.isinsert and context.compiled else None
    )
    is_told = statement is None or (
        getattr(statement, "_post_values_clause", None)
        or getattr(statement, "select", None) is not None
        or getattr(statement, "_multi_values", None)
        or hasattr(context, _COUNTED)
    )
    if is_told:
        return _NOBODY_COUNTED
    setattr(context, _COUNTED, True)
    return len(context.compiled_parameters)


# What is lost, and what is waited for in vain.

_NEXT = (
    "next: commit it first: await session.commit()   (or a longer arena_lock_timeout)"
)
_NO_HOLDER = """
no open transaction of this process holds it: a result that was not read to its end may
next: read it to its end before the request: session.scalars(…).all()"""


@dataclass(frozen=True, slots=True)
class LostWrite:
    """What a transaction wrote that was closed without a commit or a rollback.

    ``is_failed`` says that it was committed after a failed statement: the server rolled it back.
    """

    key: Key
    tables: tuple[
        str, ...
    ]  # by the app's statements, without those that triggers wrote to
    rows: int  # at least
    line: str  # of the app, that wrote first
    is_failed: bool = False
    # Words for the first of the statements, if none of them names a table.
    by: str = ""
    # The `RequestAnswer` of the request that has begun what closed it.
    request: object = None


@dataclass(frozen=True, slots=True)
class LostObjects:
    """What a session had to write that was closed without a flush, a commit or a rollback."""

    words: str  # as ``added Order (2)``
    line: str  # of the app, that added the first of them, or that closed the session
    request: object = None  # as above


class LostWrites:
    """Knows what each open transaction has written, and what became of it.

    The database is asked only where a transaction with writes is closed as it stands.
    """

    def __init__(self, core: Core, registry: Registry) -> None:
        self._core, self._registry = core, registry
        self._found: list[tuple[int, LostWrite | LostObjects]] = []

    def take(self) -> list[LostWrite | LostObjects]:
        """Return what was written in the level that stands, and lost, since this was called last.

        A transaction counts once it is over: its session or connection was closed, or given back
        to the pool, and nobody had committed it, rolled it back, or met an error.
        """
        if not self._found:  # as nearly always
            return []
        found, self._found = self._found, []
        serial = self._core.serial()
        return [lost for where, lost in found if where == serial]

    def refuse_late(self) -> None:
        """Raise a LateWorkError if the caller works for a test that is over. Costs 0.1 µs.

        The work has kept its connection: the end of a test cannot see those of each thread.
        """
        work = WORK.get()
        if self._registry.late or (work is not None and work.is_over):
            self._core.refuse_late(is_statement=True)

    def note_older_thread(self, pooled: Any) -> None:
        """Note in a test that a thread is about to commit which is older than the test."""
        began = self._registry.when_began(threading.current_thread())
        # Such a thread may do the work of a test, or of a wider fixture, in its pool or its loop.
        is_known = WORK.get() is not None or OF_WIDE_FIXTURE.get()
        if not began or is_known or self._core.serial() <= 0:
            return
        info = record_of(pooled)
        if info is not None and info.aim is not None and info.written is not None:
            tables = ", ".join(dict.fromkeys(table for table, *_ in info.written.parts))
            line = info.written.line
            self._core.ledger.note(
                _gate_notes.commit_of_older_thread(began, tables, line)
            )

    def executed(
        self, context: Any, cursor: Any, statement: str, parameters: Any
    ) -> None:
        """A statement that may have written has ended."""
        table, pooled = written_table(statement), context.root_connection.connection
        if not table:
            _turn(pooled, statement)
            self._note_unnamed(pooled, statement)
            return
        info = record_of(pooled)
        if info is None or info.aim is None:
            return  # before its driver is asked: it may be one that nobody here knows
        has_rows, rows = cursor.description is not None, cursor.rowcount
        if not (rows or has_rows):
            return
        if info.written is None:
            info.written = Written(user_line(), self._core.serial())
            answer = ANSWER.get()
            if answer is not None:
                answer.note_write(info.written)
            if (doings := _doings()) is not None:
                doings.opened = [*doings.still_open(), (info, info.written)]
        times = len(parameters) if context.executemany else 1
        # SQLite counts what RETURNING gives only when it has been read, asyncpg never.
        known = 0 if has_rows and rows <= 0 else max(rows, times if rows < 0 else 0)
        info.written.parts.append(
            _noted_write(context, statement, parameters, (table, known))
        )

    def explain(self, error: BaseException, own: ConnectionRecord | None) -> None:
        """Say in an error who holds the lock that a statement has waited for."""
        state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        if state != "55P03" and "database is locked" not in str(
            error
        ):  # PostgreSQL's, SQLite's
            return
        others = [
            one for one in self._registry.taken() if one.entry.info.get(INFO) is not own
        ]
        held = [f"holds {one.written}" for one in others if one.written]
        begun = (one.line for one in others if one.handle and one.handle.is_begun)
        held = held or [
            f"has a transaction open, and was taken at {line}" for line in begun
        ]
        whose = "".join(f"\nanother connection {what}" for what in held) + f"\n{_NEXT}"
        if not held and state is None:  # SQLite
            whose = _NO_HOLDER
        error.add_note(f"it waited in vain for a lock at {user_line()}{whose}")

    def committing(self, pooled: Any) -> None:
        """A transaction is about to be committed. If a statement failed, the server may refuse.

        PostgreSQL rolls such a transaction back at its commit, and says nothing.
        """
        info = record_of(pooled)
        if info is None or info.written is None or not info.written.has_failed:
            return
        if info.handle is None or not info.handle.is_begun:
            return
        try:
            info.handle.has_written(pooled.dbapi_connection, info.changes)
        except Exception:  # noqa: BLE001 - a driver's: no statement is accepted any more
            if self._may_lose(info, info.written):
                self._keep_lost(info, info.written, is_failed=True)
            _end(info)

    def rolled_back(self, pooled: Any) -> None:
        """Its transaction is about to be rolled back, whoever wants that."""
        info = record_of(pooled)
        if info is None or (info.written is None and info.unnamed is None):
            return
        if info.written is not None and (doings := _doings()) is not None:
            doings.is_unsure = True  # with AUTOCOMMIT it stands all the same
        error = error_on_its_way()
        who = _who_ends(sys._getframe())  # noqa: SLF001 - the documented way to a frame
        is_lost = not who
        if error is not None:
            # The client takes a redirect for a success, and the app rolls back because of it.
            is_lost = answers_well(error) and who != _ARENA
        if is_lost and info.written is not None:
            self._look_at(info, info.written, pooled)
        elif is_lost and info.unnamed is not None:
            self._look_at_unnamed(info, info.unnamed, pooled)
        _end(info)

    def closing(self, session: Session) -> None:
        """Look for objects that a session of a request has not flushed. Its end follows."""
        answer: RequestAnswer | None = REQUEST.get()
        if answer is None:
            return
        has_pending = session.new or session.dirty or session.deleted
        if not has_pending or is_of_arena(session):
            return
        error = error_on_its_way()
        if error is not None and not answers_well(error):
            return
        pending = pending_objects(session)
        if pending:
            line = answer.lines_of_adds.get(session.hash_key) or user_line()
            where = str(line or "a line that cannot be seen")
            lost = LostObjects(str(pending), where, answer)
            self._found.append((self._core.serial(), lost))

    def _look_at(self, info: ConnectionRecord, written: Written, pooled: Any) -> None:
        if written.has_failed or not self._may_lose(info, written):
            return
        if _is_there_to_lose(info, pooled):
            self._keep_lost(info, written)

    def _note_unnamed(self, pooled: Any, statement: str) -> None:
        """Note a statement of a request that may have written, and names no table."""
        kind, words = unnamed_write(statement)
        info = record_of(pooled)
        if not kind or REQUEST.get() is None or info is None or info.aim is None:
            return
        unnamed = info.begin_unnamed(self._core.serial())
        if unnamed.note(kind, words):
            unnamed.note_line(user_line())

    def _look_at_unnamed(
        self, info: ConnectionRecord, unnamed: UnnamedWrite, pooled: Any
    ) -> None:
        is_open = info.handle is not None and info.handle.is_begun
        is_of_a_test = 0 < unnamed.serial == self._core.serial()
        if not (unnamed.kind and is_open and is_of_a_test) or unnamed.has_temporary:
            return
        if info.aim is None:
            return
        if unnamed.kind == NOTIFIES:
            is_lost = True  # the server sends it at the commit, and gives no id before
        elif unnamed.kind == MAY_WRITE and unnamed.has_locks:
            is_lost = False  # the transaction has an id by its locks
        elif unnamed.kind == WRITES and not info.aim.address:
            is_lost = True  # SQLite counts no change of a schema
        else:
            is_lost = _is_there_to_lose(info, pooled)
        if not is_lost:
            return
        line = str(unnamed.line or "a line that cannot be seen")
        lost = LostWrite(
            info.aim.key, (), 0, line, by=unnamed.words, request=REQUEST.get()
        )
        self._found.append((unnamed.serial, lost))

    def _may_lose(self, info: ConnectionRecord, written: Written) -> bool:
        # What a wider fixture holds over its tests is not theirs to commit.
        is_of_a_test = 0 < written.serial == self._core.serial()
        return info.aim is not None and is_of_a_test and bool(written.parts)

    def _keep_lost(
        self, info: ConnectionRecord, written: Written, *, is_failed: bool = False
    ) -> None:
        if info.aim is None:
            return
        tables = tuple(dict.fromkeys(table for table, *_ in written.parts))
        line = str(written.line or "a line that cannot be seen")
        lost = LostWrite(
            info.aim.key,
            tables,
            _rows(info),
            line,
            is_failed=is_failed,
            request=REQUEST.get(),
        )
        self._found.append((written.serial, lost))


def commit_for_request(
    answer: RequestAnswer, commit: Callable[[Any], None], pooled: Any
) -> None:
    """Commit the work of a request, and note the commit in the record of its answer."""
    info = record_of(pooled)
    written = info.written if info is not None else None
    if info is None or written is None:
        commit(pooled)
        return
    # An autocommitted transaction is not open any more.
    is_open = info.handle is not None and info.handle.is_begun
    end_writes(pooled)
    written.is_over = False  # until the database has committed it
    try:
        commit(pooled)
    except BaseException as error:
        answer.note_error(error)
        raise
    finally:
        written.is_over = True
    if is_open:
        answer.note_commit(written, pooled)


def may_write(context: Any, statement: str) -> bool:
    """Return whether a statement may write, or be about the transaction itself."""
    if not isinstance(context, DefaultExecutionContext):
        return False
    if context.isinsert or context.isupdate or context.isdelete:
        return True
    if REQUEST.get() is not None and unnamed_write(statement)[0]:
        return True
    return (
        not is_plain(statement) if context.is_text else statement.startswith(COMPILED)
    )


def fail_writes(context: Any) -> ConnectionRecord | None:
    """A statement was refused: whoever goes on has to roll back first, or wants to."""
    connection = (
        context.root_connection
        if isinstance(context, DefaultExecutionContext)
        else None
    )
    # One that is closed would be opened again.
    if connection is None or connection.closed or connection.invalidated:
        return None
    info = record_of(connection.connection)
    if info is not None and info.written is not None:
        info.written.has_failed = True
    if info is not None and info.unnamed is not None:
        info.forget_unnamed()  # the server has given up the transaction
    return info


def end_writes(pooled: Any, *, is_doubtful: bool = False) -> None:
    """The transaction is committed, or the app has asked for its end by itself."""
    info = record_of(pooled)
    if info is not None and info.unnamed is not None:
        info.forget_unnamed()
    if info is not None and info.written is not None:
        if (doings := _doings()) is not None:
            doings.written.extend(info.written.parts)
            doings.is_unsure |= is_doubtful
        _end(info)


def _turn(pooled: Any, statement: str) -> None:
    """The statement writes nothing, and may be about the transaction itself."""
    savepoint = savepoint_in(statement)
    if savepoint is None:
        if ends_transaction(statement):
            end_writes(pooled, is_doubtful=True)
        return
    info = record_of(pooled)
    name, is_back = savepoint
    if info is not None and is_back:
        info.forget_unnamed()  # it may be undone, and its transaction still has an id
    if info is not None and info.written is not None:
        (info.written.go_back_to if is_back else info.written.mark)(name)
        if not info.written.parts:
            _end(info)


def record_of(pooled: Any) -> ConnectionRecord | None:
    """What is known of a connection that is out of its pool."""
    try:
        info = pooled.info.get(INFO)
    except (AttributeError, NotImplementedError):
        return None  # the one by which SQLAlchemy learns to know a server
    return info if isinstance(info, ConnectionRecord) else None


def _end(info: ConnectionRecord) -> None:
    if info.written is not None:
        info.written.is_over = True
    info.written = None
    if info.unnamed is not None:
        info.forget_unnamed()
    info.changes = info.handle.changes() if info.handle else 0


def _is_there_to_lose(info: ConnectionRecord, pooled: Any) -> bool:
    """Ask whether the app has not committed it behind SQLAlchemy's back."""
    if info.handle is None or not info.handle.is_begun:
        return False
    try:
        return info.handle.has_written(pooled.dbapi_connection, info.changes)
    except Exception:  # noqa: BLE001 - a driver's: it is closed, busy, or its transaction is broken
        return False


def _rows(info: ConnectionRecord) -> int:
    parts = info.written.parts if info.written else []
    is_unknown = any(not rows for _, rows, _ in parts)
    counted = info.handle.changes() - info.changes if is_unknown and info.handle else 0
    return counted or sum(rows or 1 for _, rows, _ in parts)


# Rooms that stand between an engine and its database: what passes through them is the app's.
_BELOW = tuple(f"{name}." for name in ("pytest_arena._gate", *ROOMS.values()))


_APP, _ARENA = "the app", "pytest-arena"


def _who_ends(frame: FrameType | None) -> str:
    """Return who has asked for a rollback: ``_APP``, ``_ARENA``, or "" for a close.

    ``close`` makes the same call in the end, and the same event, as ``rollback`` does; nothing but
    the way that led there tells them apart.
    """
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        is_arenas = module.startswith("pytest_arena.")
        if not (is_arenas or module.startswith("sqlalchemy.")):
            return ""
        if frame.f_code.co_name == "rollback" and not is_arenas:
            return _APP
        if is_arenas and not module.startswith(_BELOW):
            return _ARENA
        frame = frame.f_back
    return ""


# The error because of which an async session or connection is closed: it is closed in a greenlet,
# or in a task of its own, where the error cannot be seen.
_leaving: ContextVar[BaseException | None] = ContextVar(
    "arena: an error that closes a session", default=None
)


def error_on_its_way() -> BaseException | None:
    """Return the error that the app is raising here, None for none."""
    error = sys.exc_info()[1]
    return error if error is not None else _leaving.get()


def answers_well(error: BaseException) -> bool:
    """Return whether an error is an answer below 400: ``HTTPException(303)``."""
    statuses = (
        getattr(error, "status_code", None),
        getattr(error, "code", None),
        getattr(getattr(error, "response", None), "status_code", None),
    )
    return any(isinstance(status, int) and 100 <= status < 400 for status in statuses)  # noqa: PLR2004 - HTTP's


@cache
def note_errors_on_leaving() -> None:
    """From here on note of async sessions and connections whether an error closes them.

    SQLAlchemy has no event that says so.
    """
    for kind in (AsyncSession, AsyncConnection):
        for name in ("close", "rollback", "__aexit__"):
            setattr(kind, name, _noting(getattr(kind, name)))
    for transaction in (AsyncSessionTransaction, AsyncTransaction):
        for name in ("rollback", "__aexit__"):
            setattr(transaction, name, _noting(getattr(transaction, name)))


def _noting(end: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(end)
    async def noted(self: Any, *error: Any) -> Any:
        raised = error[1] if len(error) > 1 else None
        token = _leaving.set(error_on_its_way() if raised is None else raised)
        try:
            return await end(self, *error)
        finally:
            _leaving.reset(token)

    return noted


@cache
def watch_closed_sessions(lost: Callable[[], LostWrites]) -> None:
    """From here on look at each session of a request before it is closed, or rolled back.

    SQLAlchemy has no event before that. Costs some microseconds.
    """
    close, reset = Session.close, Session.reset
    roll_back = SessionTransaction.rollback

    @wraps(close)
    def closing(self: Session) -> None:
        _give_up(self)
        lost().closing(self)
        close(self)

    @wraps(reset)
    def resetting(self: Session) -> None:
        lost().closing(self)
        reset(self)

    @wraps(roll_back)
    def rolling_back(self: SessionTransaction, *args: Any, **kwargs: Any) -> None:
        error = error_on_its_way()
        _give_up(self.session)
        if error is not None and answers_well(error):
            lost().closing(self.session)
        roll_back(self, *args, **kwargs)

    Session.close = closing  # type: ignore[method-assign] # as said
    Session.reset = resetting  # type: ignore[method-assign] # as said
    SessionTransaction.rollback = rolling_back  # type: ignore[method-assign] # as said
    event.listen(Session, "transient_to_pending", _on_add)


def _give_up(session: Session) -> None:
    """Note that somebody has ended a session which a request had left open."""
    pending = UNCLOSED.pop(session.hash_key, None)
    if pending is not None:
        pending.is_given_up = True


def _on_add(session: Session, _: object) -> None:
    answer: RequestAnswer | None = REQUEST.get()
    if answer is not None and session.hash_key not in answer.lines_of_adds:
        answer.lines_of_adds[session.hash_key] = user_line()
