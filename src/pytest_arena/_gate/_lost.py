"""What has the app written that nobody has committed, nor wanted to be rolled back?"""

from __future__ import annotations

import sys
import weakref
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, wraps
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from pytest_arena._gate._reads import (
    note_commit,
    note_doubt,
    note_opened,
    note_statement,
    noted_write,
)
from pytest_arena._gate._registry import INFO, ConnectionRecord, Written
from pytest_arena._gate._written import (
    COMPILED,
    ends_transaction,
    is_plain,
    savepoint_in,
    written_table,
)
from pytest_arena._origin import user_line
from pytest_arena._product import ROOMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from sqlalchemy.engine import Dialect

    from pytest_arena._product import Core, Key

__all__ = ["LostWrite", "LostWrites", "note_errors_on_leaving", "watch_writes"]


@dataclass(frozen=True, slots=True)
class LostWrite:
    """What a transaction wrote that was closed, with nobody committing or rolling it back."""

    key: Key
    tables: tuple[str, ...]  # by the app's statements, without those that triggers wrote to
    rows: int  # at least
    line: str  # of the app, that wrote first


class LostWrites:
    """Knows what each open transaction has written, and what became of it.

    The database is asked only where a transaction with writes is closed as it stands.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._found: list[tuple[int, LostWrite]] = []

    def take(self) -> list[LostWrite]:
        """Return what was lost in the level that stands, once."""
        found, self._found = self._found, []
        serial = self._core.serial() if found else 0
        return [lost for one, lost in found if one == serial]

    def executed(self, context: Any, cursor: Any, statement: str, parameters: Any) -> None:
        """A statement that may have written has ended."""
        table, pooled = written_table(statement), context.root_connection.connection
        if not table:
            _turn(pooled, statement)
            return
        info = _info_of(pooled)
        if info is None or info.aim is None:
            return  # before its driver is asked: it may be one that nobody here knows
        has_rows, rows = cursor.description is not None, cursor.rowcount
        if not (rows or has_rows):
            return
        if info.written is None:
            info.written = Written(user_line(), self._core.serial())
            note_opened(info)
        times = len(parameters) if context.executemany else 1
        # SQLite counts what RETURNING gives only when it has been read, asyncpg never.
        known = 0 if has_rows and rows <= 0 else max(rows, times if rows < 0 else 0)
        info.written.parts.append(noted_write(context, statement, parameters, (table, known)))

    def rolled_back(self, pooled: Any) -> None:
        """Its transaction is about to be rolled back, whoever wants that."""
        info = _info_of(pooled)
        if info is None or info.written is None:
            return
        note_doubt()  # with AUTOCOMMIT it stands all the same
        if not (_is_asked_for(sys._getframe()) or _is_leaving()):  # noqa: SLF001 - the documented way to a frame
            self._look_at(info, info.written, pooled)
        _end(info)

    def _look_at(self, info: ConnectionRecord, written: Written, pooled: Any) -> None:
        serial = self._core.serial()
        # What a wider fixture holds over its tests is not theirs to commit.
        is_of_a_test = 0 < written.serial == serial
        if info.aim is None or not is_of_a_test or written.has_failed or not written.parts:
            return
        if _is_there_to_lose(info, pooled):
            tables = tuple(dict.fromkeys(table for table, *_ in written.parts))
            line = str(written.line or "a line that cannot be seen")
            self._found.append((serial, LostWrite(info.aim.key, tables, _rows(info), line)))


def watch_writes(dialect: Dialect, lost: Callable[[], LostWrites | None]) -> None:
    """Have whoever is in charge then told of what the engines of a dialect write.

    Wraps five methods of the instance, once: 0.5 µs for a query, 3 µs for a write, some 15 µs more
    for the first write of a transaction. SQLAlchemy's events would cost each connection 16 µs and
    each statement 3 µs, wherever somebody listens to any of them.
    """
    if dialect in _watched:
        return
    _watched.add(dialect)
    instance: Any = dialect  # its methods are replaced, its class's are not
    instance.do_execute = _executing(dialect.do_execute, lost)
    instance.do_executemany = _executing(dialect.do_executemany, lost)
    instance.do_execute_no_params = _executing(dialect.do_execute_no_params, lost)
    commit, roll_back = dialect.do_commit, dialect.do_rollback

    def do_commit(pooled: Any) -> None:
        _ended(pooled)
        commit(pooled)

    def do_rollback(pooled: Any) -> None:
        if (to_tell := lost()) is not None:
            to_tell.rolled_back(pooled)
        roll_back(pooled)

    instance.do_commit, instance.do_rollback = do_commit, do_rollback


_watched: weakref.WeakSet[Dialect] = weakref.WeakSet()


def _executing(execute: Callable[..., Any], lost: Callable[[], LostWrites | None]) -> Any:
    @wraps(execute)
    def executed(cursor: Any, statement: str, *rest: Any, **named: Any) -> None:
        context: Any = named.get("context", rest[-1] if rest else None)
        try:
            execute(cursor, statement, *rest, **named)
        except BaseException:
            _failed(context)
            raise
        note_statement(statement, context, _info_in)
        if _may_matter(context, statement) and (to_tell := lost()) is not None:
            to_tell.executed(context, cursor, statement, rest[0])

    return executed


def _may_matter(context: Any, statement: str) -> bool:
    if not isinstance(context, DefaultExecutionContext):
        return False
    if context.isinsert or context.isupdate or context.isdelete:
        return True
    return not is_plain(statement) if context.is_text else statement.startswith(COMPILED)


def _failed(context: Any) -> None:
    """A statement was refused: whoever goes on has to roll back first, or wants to."""
    connection = context.root_connection if isinstance(context, DefaultExecutionContext) else None
    # One that is closed would be opened again.
    if connection is None or connection.closed or connection.invalidated:
        return
    info = _info_of(connection.connection)
    if info is not None and info.written is not None:
        info.written.has_failed = True


def _ended(pooled: Any, *, is_doubtful: bool = False) -> None:
    """The transaction is committed, or the app has asked for its end by itself."""
    info = _info_of(pooled)
    if info is not None and info.written is not None:
        note_commit(info.written.parts)
        if is_doubtful:
            note_doubt()
        _end(info)


def _turn(pooled: Any, statement: str) -> None:
    """The statement writes nothing, and may be about the transaction itself."""
    savepoint = savepoint_in(statement)
    if savepoint is None:
        if ends_transaction(statement):
            _ended(pooled, is_doubtful=True)
        return
    info = _info_of(pooled)
    if info is not None and info.written is not None:
        name, is_back = savepoint
        (info.written.go_back_to if is_back else info.written.mark)(name)
        if not info.written.parts:
            _end(info)


def _info_in(context: Any) -> ConnectionRecord | None:
    """What is known of the connection on which a statement has run."""
    if not isinstance(context, DefaultExecutionContext):
        return None
    return _info_of(context.root_connection.connection)


def _info_of(pooled: Any) -> ConnectionRecord | None:
    """What is known of a connection that is out of its pool."""
    try:
        info = pooled.info.get(INFO)
    except (AttributeError, NotImplementedError):
        return None  # the one by which SQLAlchemy learns to know a server
    return info if isinstance(info, ConnectionRecord) else None


def _end(info: ConnectionRecord) -> None:
    info.written = None
    info.changes = info.handle.changes() if info.handle else 0


def _is_there_to_lose(info: ConnectionRecord, pooled: Any) -> bool:
    """Ask whether the app has not committed it behind SQLAlchemy's back."""
    if info.handle is None or info.aim is None or not info.handle.is_begun:
        return False
    try:
        return info.handle.has_written(pooled.dbapi_connection, info.changes)
    except Exception:  # noqa: BLE001 - a driver's: it is closed, busy, or its transaction is broken
        return False


def _rows(info: ConnectionRecord) -> int:
    parts = info.written.parts if info.written else []
    if any(not rows for _, rows, _ in parts) and info.handle is not None:
        counted = info.handle.changes() - info.changes
        return counted or sum(rows or 1 for _, rows, _ in parts)
    return sum(rows for _, rows, _ in parts)


# Rooms that stand between an engine and its database: what passes through them is the app's.
_BELOW = tuple(f"{name}." for name in ("pytest_arena._gate", *ROOMS.values()))


def _is_asked_for(frame: FrameType | None) -> bool:
    """Whether somebody has called ``rollback``, on whatever SQLAlchemy has one; or it is arena.

    ``close`` makes the same call in the end, and the same event, as ``rollback`` does; nothing but
    the way that led there tells them apart.
    """
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        is_arenas = module.startswith("pytest_arena.")
        if not (is_arenas or module.startswith("sqlalchemy.")):
            return False
        if frame.f_code.co_name == "rollback" and not is_arenas:
            return True
        if is_arenas and not module.startswith(_BELOW):
            return True
        frame = frame.f_back
    return False


# Whether an async session or connection is closed because of an error: it is closed in a greenlet,
# or in a task of its own, where the error cannot be seen.
_leaving: ContextVar[bool] = ContextVar("arena_leaving_by_error", default=False)


def _is_leaving() -> bool:
    return _leaving.get() or sys.exc_info()[0] is not None


@contextmanager
def _left(*, by_error: bool) -> Iterator[None]:
    token = _leaving.set(by_error or _is_leaving())
    try:
        yield
    finally:
        _leaving.reset(token)


@cache
def note_errors_on_leaving() -> None:
    """From here on note of async sessions and connections whether an error closes them.

    SQLAlchemy has no event that says so.
    """
    for kind in (AsyncSession, AsyncConnection):
        kind.close = _closing(kind.close)  # type: ignore[method-assign]  # as said above
        kind.__aexit__ = _exiting(kind.__aexit__)  # type: ignore[method-assign]  # as said above


def _closing(close: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(close)
    async def noted(self: Any) -> None:
        with _left(by_error=False):
            await close(self)

    return noted


def _exiting(leave: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(leave)
    async def noted(self: Any, kind: Any, value: Any, traceback: Any) -> Any:
        with _left(by_error=kind is not None):
            return await leave(self, kind, value, traceback)

    return noted
