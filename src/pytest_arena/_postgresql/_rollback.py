"""``rollback``: all connections of this process to a database share one real connection.

A pool gets facades of the real connection, whose transaction is never committed. The app's COMMIT
releases a savepoint, its ROLLBACK rolls back to it. Each level is a savepoint below that one. Each
statement runs inside a savepoint, so that a failed statement is undone alone.

One transaction at a time may write. All other statements wait for its end, because they would see
its rows. Whether a statement writes is known from its text, else by PostgreSQL: it runs read-only
first.
"""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial, partialmethod
from math import inf
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.util import await_only, greenlet_spawn  # 2.1 also calls it await_
from sqlalchemy.util.concurrency import in_greenlet

from pytest_arena._facts import sqlstate
from pytest_arena._origin import user_line
from pytest_arena._postgresql._driver_guard import WORDS
from pytest_arena._postgresql._rows import in_one, read, read_content, read_rows
from pytest_arena._process import async_rest, seconds
from pytest_arena._product import Held, nothing
from pytest_arena._product._connection_loop import (
    LoopConnection,
    LoopCursor,
    LoopDriver,
    connection_loop,
    has_sync_caller,
    lasting_loops,
)
from pytest_arena._product._level_stack import compared
from pytest_arena._product._server_control import Control
from pytest_arena._product._statements import Reach, classify
from pytest_arena.errors import IsolationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import NoReturn

    from sqlalchemy.engine import Dialect

    from pytest_arena._ledger import Ledger
    from pytest_arena._product._level_stack import ReadContent
    from pytest_arena._product._statements import Statement
    from pytest_arena._values import Address, CodeLine, TableRows

_STEP: Final = 0.002  # seconds between two looks at the transaction that writes
_SAVEPOINTS = {"SAVEPOINT", "RELEASE", "ROLLBACK"}
# A setting would outlive the app's transaction.
_SETS = re.compile(r"(?i)\s*(?:SET(?!\s+CONSTRAINTS)|RESET)\b|.*\bset_config\b", re.DOTALL)
_READ_ONLY = "25006"  # the SQLSTATE of a statement that writes in a read-only transaction
# Checks deferred constraints as a COMMIT does. Its own rollback defers them again.
_CHECK_CONSTRAINTS = """
DO $$ BEGIN SET CONSTRAINTS ALL IMMEDIATE; RAISE SQLSTATE 'ARENA';
EXCEPTION WHEN SQLSTATE 'ARENA' THEN NULL; END $$
"""
# A query for each sequence that the role may set. No rollback restores their values.
_SEQUENCES = """
SELECT format('SELECT %s::bigint, last_value, is_called FROM %I.%I', c.oid, nspname, relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
WHERE relpersistence <> 't' AND CASE relkind WHEN 'S' THEN has_schema_privilege(n.oid, 'USAGE')
    AND has_sequence_privilege(c.oid, 'SELECT') AND has_sequence_privilege(c.oid, 'UPDATE') END
"""
# The driver raises its own error for this, as in a transaction that has failed on a server.
_FAILED = """
DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '25P02', MESSAGE = 'current transaction is aborted, '
'commands ignored until end of transaction block'; END $$
"""
_SAVEPOINT = "SAVEPOINT arena_reading"
_END_READING = "ROLLBACK TO SAVEPOINT arena_reading; RELEASE SAVEPOINT arena_reading"


@dataclass(slots=True, eq=False)
class _Level:
    """A level of the database, the lowest one below all tests."""

    is_open: bool = False  # its savepoint is set
    is_written: bool = False
    sequences: list[Any] = field(default_factory=list)  # their values at its start
    # The rows at the start of the level above, if they were read.
    above: ReadContent | None = None


_databases: dict[tuple[str, str], Rollback] = {}


ALL_OR_NONE = "rollback is the isolation of all tests of a run, or of none"


def shared_at(address: Address) -> Rollback | None:
    """Return the isolation ``rollback`` of a database, None for any other database."""
    return _databases.get((address.server, address.database))


class Rollback:
    """The isolation ``rollback``. Enter is free. Leave costs one or two round trips."""

    name = "rollback"

    def __init__(
        self,
        address: Address,
        ledger: Ledger,
        patience: float,
        drop: Callable[[], object],
    ) -> None:
        self.address = address
        self.ledger = ledger
        self.generation = 0
        self.check: Callable[[], object] = nothing
        self.real: Any = None  # the driver's connection, adapted by SQLAlchemy if async
        self._patience = patience
        self._drop = drop
        self._process = os.getpid()
        self._user = ""  # the login of all connections
        self._mutex = asyncio.Lock()  # held while the real connection is used
        self._levels = [_Level()]
        self._writer: SharedTransaction | None = None
        self.has_connect_settings = False
        self._lost = ""  # why the shared transaction has ended
        _databases[address.server, address.database] = self

    # Facades

    def facade(
        self, dialect: Dialect, connect: Callable[..., Any], cargs: Any, cparams: Any
    ) -> SharedTransaction:
        """Return a connection for a pool. The first one opens the real connection."""
        user = str(cparams.get("user"))
        if dialect.driver != "asyncpg" or self._user not in {"", user}:
            raise self.refused(
                f"a connection by {dialect.driver} as {user}",
                "use asyncpg and one login in tests",
            )
        if self._process != os.getpid():
            raise self.refused("a connection of a forked process", "use a thread")
        self._user = user
        lasting_loops.homeless.add(dialect)
        self.call(self._open, partial(connect, *cargs, **cparams))
        return SharedTransaction(self, has_sync_caller=has_sync_caller())

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function where the real connection lives."""
        return connection_loop().call(function, *args, **kwargs)

    def alone(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of the real connection while no other caller uses it."""
        with self._alone():
            return function(*args, **kwargs)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        await_only(self._mutex.acquire())
        try:
            yield
        finally:
            self._mutex.release()

    def _open(self, connect: Callable[[], Any]) -> None:
        with self._alone():
            if self.real is None:
                self.real = connect()
                self.send("SET idle_in_transaction_session_timeout = 0")
                self._levels[0].sequences = self._read_sequences()

    def refused(self, what: str, fix: str, line: CodeLine | None = None) -> IsolationError:
        """Record and return the error for a use that one shared transaction does not allow."""
        error = IsolationError(
            f"arena_isolation = rollback does not allow {what}",
            why="all connections of the tests share one connection, whose transaction is never "
            "committed",
            cause=str(user_line() or line),
            fix=f"{fix}\nor arena_isolation = undo",
        )
        return self.ledger.refused(error)

    def refuse_transaction(self, text: str) -> None:
        """Refuse a statement that begins or ends a transaction."""
        statement = classify(text, WORDS)
        verb = "".join(statement.words[:1])
        if statement.ends_transaction or verb in {"BEGIN", "START"}:
            raise self.refused(
                f"{verb} in a statement",
                "call commit() or rollback() of the session",
            )

    # Statements. These methods run where the real connection lives.

    def execute(
        self, facade: SharedTransaction, call: Callable[..., Any], text: str, *args: Any
    ) -> Any:
        """Execute a statement of a facade inside a savepoint."""
        statement = classify(text, WORDS)
        verb = "".join(statement.words[:1])
        if verb in _SAVEPOINTS:
            self._take(facade)
            if verb == "ROLLBACK":
                facade.has_failed = False
            return self.alone(call, text, *args)
        if facade.has_failed:
            return self.alone(self._in_savepoint, partial(self.send, _FAILED))
        self._begin(facade, statement)
        try:
            answer = self._run(facade, partial(call, text, *args))
        except BaseException:
            facade.has_failed = facade.is_begun
            if facade.autocommit:
                self.roll_back(facade)
            raise
        if facade.autocommit:
            self.commit(facade)
        return answer

    def _begin(self, facade: SharedTransaction, statement: Statement) -> None:
        facade.is_begun = not facade.autocommit
        if statement.reach is not Reach.NOTHING and not facade.readonly:
            self._take(facade)
        else:
            self._wait_for(facade)

    def _run(self, facade: SharedTransaction, call: Callable[[], Any]) -> Any:
        """Run a statement read-only, unless it is known to write."""
        if self._writer is facade:
            return self.alone(self._in_savepoint, call)
        try:
            return self.alone(self._in_savepoint, call, is_read_only=True)
        except Exception as error:
            if facade.readonly or sqlstate(error) != _READ_ONLY:
                raise
        self._take(facade)
        return self.alone(self._in_savepoint, call)

    def execute_raw(self, function: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        """Call a coroutine function of the driver's connection, which may write."""
        self._wait_for(None)
        with self._alone():
            self._note_write()
            return self._in_savepoint(lambda: await_only(function(*args, **kw)))

    def _in_savepoint(self, call: Callable[[], Any], *, is_read_only: bool = False) -> Any:
        self._open_levels()
        self.send("SAVEPOINT arena_statement")
        try:
            if is_read_only:  # until the savepoint's end
                self.send("SET LOCAL transaction_read_only = on")
            answer = call()
        except BaseException:
            with suppress(Exception):  # the connection is lost
                self._undo("arena_statement")
            raise
        self.send("RELEASE SAVEPOINT arena_statement")
        return answer

    def _undo(self, savepoint: str) -> None:
        self.send(f"ROLLBACK TO SAVEPOINT {savepoint}")
        self.send(f"RELEASE SAVEPOINT {savepoint}")

    def send(self, text: str) -> list[Any]:
        """Execute a statement of pytest-arena."""
        cursor = self.real.cursor()
        try:
            cursor.execute(text)
            return list(cursor.fetchall()) if cursor.description else []
        finally:
            cursor.close()

    def _take(self, facade: SharedTransaction) -> None:
        """Wait until no other transaction has written, and open a savepoint for this one."""
        self._wait_for(facade)
        if self._writer is None:
            self._writer = facade
            with self._alone():
                self._note_write()
                self.send("SAVEPOINT arena_transaction")

    def _wait_for(self, facade: SharedTransaction | None) -> None:
        """Wait until no other transaction has written."""
        end = seconds() + (self._patience or inf)
        while True:
            writer = self._writer
            if writer is None or writer is facade:
                return
            if writer.is_closed:
                self.roll_back(writer)
                return
            if seconds() > end:
                raise self.refused(
                    f"a second transaction while an open one has written ({writer.line})",
                    "commit or roll back the first transaction before the second one begins",
                    facade.line if facade else None,
                )
            await_only(async_rest(_STEP))

    def commit(self, facade: SharedTransaction) -> None:
        """Release the facade's savepoint, after the deferred constraints."""
        if self._writer is not facade or facade.has_failed:
            self.roll_back(facade)
            return
        try:
            with self._alone():
                self.send(_CHECK_CONSTRAINTS)
                self.send("RELEASE SAVEPOINT arena_transaction")
        except BaseException:
            self.roll_back(facade)
            raise
        self._end(facade)

    def roll_back(self, facade: SharedTransaction) -> None:
        """Roll back to the facade's savepoint, if it has one."""
        if self._writer is facade:
            self.alone(self._undo, "arena_transaction")
        self._end(facade)

    def _end(self, facade: SharedTransaction) -> None:
        facade.end()
        if self._writer is facade:
            self._writer = None

    def _open_levels(self) -> None:
        for number, level in enumerate(self._levels):
            if number and not level.is_open:
                level.sequences = self._read_sequences()
                self.send(f"SAVEPOINT arena_level_{number}")
                level.is_open = True

    def _note_write(self) -> None:
        """Note the first write of the top level. Read the rows if no other session can."""
        self._open_levels()
        *below, top = self._levels
        if not top.is_written and any(level.is_written for level in below):
            below[-1].above = below[-1].above or read_rows(_Reader(self))
        top.is_written = True
        top.above = None

    def _undo_level(self, number: int, level: _Level) -> None:
        with self._alone():
            self._undo(f"arena_level_{number}")
            values = [
                f"setval({sequence}::regclass, {value}, {str(is_called).lower()})"
                for sequence, value, is_called in level.sequences
            ]
            if values:
                self.send(f"SELECT {', '.join(values)}")
            if number == 1 and not self._levels[0].is_written:
                self.real.rollback()  # the next test has another time of the transaction
        if self.has_connect_settings:
            # The facades of this level have lost the settings of their `connect` listeners.
            self.has_connect_settings = False
            self.generation += 1

    def _read_sequences(self) -> list[Any]:
        reader = _Reader(self)
        return in_one(reader, [text for (text,) in reader.rows(_SEQUENCES)])

    # Levels

    @property
    def depth(self) -> int:
        """The number of entered levels."""
        return len(self._levels) - 1

    @property
    def writer(self) -> SharedTransaction | None:
        """The open transaction that has written."""
        writer = self._writer
        return None if writer is None or writer.is_closed else writer

    def enter(self, isolation: str = "") -> str:
        """Open a level, whose savepoint is set at the first statement."""
        self._check_for_writer()
        self._check_transaction()
        self._levels.append(_Level())
        return "" if isolation in {"", self.name} else ALL_OR_NONE

    def _check_for_writer(self) -> None:
        writer = self.writer
        if writer is not None:
            raise Held(f"an open transaction has written ({writer.line})")

    def _check_transaction(self) -> None:
        if self._lost:
            raise IsolationError(
                "the transaction that all connections of the tests share has ended",
                why="rows of wide fixtures are lost",
                cause=f"a test has ended its connection, or the server has stopped: {self._lost}",
                fix="pytest …   # again\nor arena_isolation = undo",
            )

    def leave(self) -> bool:
        """Roll back to the level's start, and leave it. Return whether it has written."""
        self._check_for_writer()
        self._undo_top()
        self._check_transaction()
        self.check()
        return self._levels.pop().is_written

    def leave_by_force(self) -> None:
        """Roll back to the level's start, also an open transaction."""
        self._undo_top()
        self._levels.pop()

    def _undo_top(self) -> None:
        self._writer = None
        level = self._levels[-1]
        if level.is_open:
            level.is_open = False
            try:
                self.call(self._undo_level, self.depth, level)
            except Exception as error:  # noqa: BLE001 - the driver's, without a connection
                if any(below.is_written for below in self._levels[:-1]):
                    self._lost = str(error).partition("\n")[0]
                self.drop_connection()

    def forget(self) -> None:
        """Forget the top level, which has not written. Its savepoint ends with the level below."""
        self._levels.pop()

    def is_clean(self) -> bool:
        """Return whether no statement of the top level may have written."""
        return not self._levels[-1].is_written and self.writer is None

    def close(self) -> None:
        """Roll back, and drop the database."""
        self.drop_connection()
        self._drop()

    def drop_connection(self) -> None:
        """Roll back all. The next facade opens another real connection."""
        if self.real is not None and self._process == os.getpid():
            with suppress(Exception):  # it has ended
                self.call(self.real.close)
        self.real = None
        self._user = ""
        self._writer = None
        for level in self._levels:
            level.is_open = False
        self.generation += 1

    # Content

    def ask(self, question: Callable[[Any], Any]) -> Any:
        """Ask the shared connection, or another one before the first facade."""
        if self.real is None:
            return read(self.address, question)
        return self.call(self.alone, question, _Reader(self))

    def moment(self, *, exact: bool = False) -> object:
        """Return None, or all rows with ``exact``."""
        return self.ask(read_rows) if exact else None

    def rows_changed(
        self,
        since: object = None,
        until: object = None,
        *,
        depth: int = 0,
        limit: int | None = None,
    ) -> list[TableRows]:
        """Compare the rows with those at the start of the top level, or with a moment."""
        if depth or not self._levels[-1].is_written:
            return []
        if since is None and self.depth:
            since = self._levels[-2].above
        # If no level below has written, another session sees the start.
        before: Any = read(self.address, read_rows) if since is None else since
        after: Any = self.ask(read_rows) if until is None else until
        return compared(before, after, limit)

    def content(self) -> Mapping[str, str]:
        """Return digests of the whole content."""
        content: Mapping[str, str] = self.ask(read_content)
        return content

    def replace(self, content: object) -> None:
        """Refuse other content, which needs another database."""
        self.save(content)

    def save(self, place: object) -> NoReturn:
        """Refuse a copy, because nothing is committed."""
        del place
        raise IsolationError(
            f"another database is needed beside {self.address.database}",
            why="with rollback tests have only one database and one transaction, which is never "
            "committed. So no test has another schema or seed, and no database is kept",
            cause="arena_isolation = rollback",
            fix="arena_isolation = undo",
        )


class _Reader(Control):
    """The shared connection, as one of pytest-arena's."""

    def __init__(self, shared: Rollback) -> None:
        super().__init__(lambda: shared, reconnects=False)

    def run(self, sql: str) -> None:
        """Execute statements. A transaction for reading is a savepoint."""
        if sql == "ROLLBACK":
            sql = _END_READING
        for statement in re.sub(r"BEGIN ISOLATION[\w ]+", _SAVEPOINT, sql).split(";"):
            self.rows(statement)

    def _execute(self, sql: str, *, fetch: bool) -> list[tuple[Any, ...]]:
        del fetch
        return [tuple(row) for row in self._connection.send(sql)]


class SharedTransaction(LoopConnection):
    """A connection of a pool: the real connection, with a transaction of the pool's own."""

    __setattr__ = object.__setattr__  # type: ignore[assignment]  # names of parameters
    ping = nothing  # of a pool: the gate's check at the checkout comes after it

    def __init__(self, shared: Rollback, *, has_sync_caller: bool) -> None:
        self.shared = shared
        self.is_connecting = True  # until the first checkout
        self.is_closed = False
        self.readonly = False  # set by SQLAlchemy, as the next one
        self.autocommit = False
        self._has_sync_caller = has_sync_caller
        self._driver = LoopDriver(shared.real.driver_connection, self._await)
        self.end()

    def end(self) -> None:
        """Note that no transaction is open."""
        self.is_begun = False
        self.has_failed = False  # as PostgreSQL's transaction after an error
        self.line: CodeLine | None = None  # of its first statement

    @property
    def real(self) -> Any:
        """The connection of all facades."""
        return self.shared.real

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of the real connection while no other caller uses it."""
        return self.call_shared(self.shared.alone, function, *args, **kwargs)

    def call_shared(self, function: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        """Call a function where the real connection lives."""
        if not (self._has_sync_caller or in_greenlet()):
            await_only(None)  # type: ignore[arg-type]  # raises, for sync code of the app
        return self.shared.call(function, *args, **kw)

    async def _await(self, function: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        if args and isinstance(args[0], str):
            self.shared.refuse_transaction(args[0])
        run = partial(self.shared.execute_raw, function)
        return await connection_loop().wait(greenlet_spawn(run, *args, **kw))

    def cursor(self, *args: Any, **kwargs: Any) -> SharedCursor:
        """Return a cursor."""
        return SharedCursor(self, args, kwargs)

    def _end(self, name: str) -> None:
        if self.is_begun:
            end = self.shared.commit if name == "commit" else self.shared.roll_back
            self.call_shared(end, self)

    commit = partialmethod(_end, "commit")
    rollback = partialmethod(_end, "rollback")

    def close(self) -> None:
        """Note the end. The next user of the real connection rolls back."""
        self.is_closed = True

    terminate = close

    def run_async(self, fn: Callable[[Any], Any]) -> Any:
        """Call a coroutine function with the driver's connection, where it lives."""
        return self.call_shared(self.shared.execute_raw, fn, self.real.driver_connection)

    def set_isolation_level(self, level: str) -> None:
        """Set AUTOCOMMIT. All other levels act as READ COMMITTED."""
        self.autocommit = level == "autocommit"


class SharedCursor(LoopCursor):
    """A cursor of a facade."""

    def _send(self, name: str, *args: Any) -> Any:
        facade = self._facade
        return facade.shared.execute(facade, getattr(self._opened(), name), *args)

    def _run(self, name: str, *args: Any) -> Any:
        """Check a statement in the caller's thread, and send it."""
        text = args[0]
        facade = self._facade
        shared = facade.shared
        shared.refuse_transaction(text)
        if classify(text, WORDS).alters_session or _SETS.match(text):
            if not facade.is_connecting:
                raise shared.refused(
                    "a setting, a temporary table, a lock of the session, LISTEN or PREPARE",
                    "make settings in a `connect` listener of the engine",
                )
            shared.has_connect_settings = True
        if not facade.is_begun:
            facade.line = user_line()
        return facade.call_shared(self._send, name, *args)
