"""``rollback``: all connections of this process to a database share one real connection.

A pool gets facades of the real connection, whose transaction is never committed. The app's COMMIT
releases a savepoint, its ROLLBACK rolls back to it. Each level is a savepoint below that one. Each
statement runs inside a savepoint, so that a failed statement is undone alone.

One transaction at a time may write or change settings. Another one waits for it.

The real connection of an async driver belongs to an event loop of pytest-arena, so that each loop
and each thread of the app can use it.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.util import await_only, greenlet_spawn  # 2.1 also calls it await_

from pytest_arena._origin import user_line
from pytest_arena._postgresql._control import (
    Control,
    ControlFailure,
    literal,
    open_control,
)
from pytest_arena._postgresql._rows import read_content, read_digests, read_rows
from pytest_arena._postgresql.drivers._beyond import reaches_beyond, refused_beyond
from pytest_arena._process import async_rest, rest, seconds
from pytest_arena._product import Held, nothing
from pytest_arena._product._connection_loop import (
    LoopConnection,
    LoopCursor,
    LoopDriver,
    check_caller,
    connection_loop,
    has_sync_caller,
)
from pytest_arena._product._read_rows import ReadContent, compared
from pytest_arena._values import STATEMENT_START as START
from pytest_arena.errors import IsolationError, impossible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import NoReturn

    from sqlalchemy.engine import Connection, Dialect

    from pytest_arena._ledger import Ledger
    from pytest_arena._product import Core
    from pytest_arena._values import Address, CodeLine, TableRows

_STEP: Final = 0.002  # seconds between two looks at the transaction that writes
_READS = re.compile(
    START
    + r"(?:\Z|(?:SELECT|SHOW|VALUES|TABLE|EXPLAIN|FETCH|MOVE|CLOSE|DECLARE|DEALLOCATE"
    r"|WITH(?!.*\b(?:INSERT|UPDATE|DELETE|MERGE)\b))\b)",
    re.IGNORECASE | re.DOTALL,
)
_SAVEPOINTS = re.compile(
    START + r"(?:SAVEPOINT|RELEASE|ROLLBACK\s+(?:TRANSACTION\s+|WORK\s+)?TO)\b",
    re.IGNORECASE,
)
_UNDOES = re.compile(START + r"ROLLBACK", re.IGNORECASE)
_ENDS = re.compile(
    START + r"(?:BEGIN|START|COMMIT|END|ROLLBACK|ABORT|PREPARE\s+TRANSACTION)\b",
    re.IGNORECASE,
)
_DDL = re.compile(START + r"(?:CREATE|ALTER|DROP)\b", re.IGNORECASE)
_SET = re.compile(
    START + r"(?:SET(?!\s+CONSTRAINTS)|RESET)\s+(?:SESSION\s+|LOCAL\s+)?"
    r"(?:(?P<zone>TIME\s+ZONE)|(?P<name>[\w.\"]+))",
    re.IGNORECASE,
)
_SET_CONFIG = re.compile(
    r"\bset_config\s*\(\s*(?:'(?P<name>[^']+)'\s*,)?", re.IGNORECASE
)
_GUCS = {"authorization": "session_authorization"}  # names in SQL that differ
# What the shared transaction cannot show. The summary names it.
_NOT_SHOWN = {
    "NOTIFY and LISTEN reach no listener, since nothing is committed": re.compile(
        START + r"(?:NOTIFY|LISTEN)\b|\bpg_notify\s*\(", re.IGNORECASE
    ),
    "a lock excludes no other connection of the tests": re.compile(
        r"\b(?:SKIP\s+LOCKED|NOWAIT)\b|\bpg_(?:try_)?advisory_|^\s*LOCK\b",
        re.IGNORECASE,
    ),
}
# The statements that check deferred constraints as a COMMIT does, and defer them again.
_CHECKS = """
SELECT 'SET CONSTRAINTS ALL IMMEDIATE' UNION ALL
SELECT 'SET CONSTRAINTS ' || string_agg(DISTINCT format('%I.%I', n.nspname, c.conname), ', ')
    || ' DEFERRED'
FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace
WHERE c.condeferred HAVING count(*) > 0
"""
# The values of the sequences that the role may set. No rollback restores them.
_NUMBERS = """
SELECT s.seqrelid::bigint, coalesce(pg_catalog.pg_sequence_last_value(s.seqrelid), s.seqstart),
    pg_catalog.pg_sequence_last_value(s.seqrelid) IS NOT NULL
FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
WHERE c.relpersistence <> 't' AND CASE WHEN c.relkind = 'S' THEN
    has_schema_privilege(c.relnamespace, 'USAGE') AND has_sequence_privilege(c.oid, 'SELECT')
    AND has_sequence_privilege(c.oid, 'UPDATE') END
"""
# The driver raises its own error for this, as in a transaction that has failed on a server.
_FAILED = """
DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '25P02', MESSAGE = 'current transaction is aborted, '
'commands ignored until end of transaction block'; END $$
"""
_READING = "SAVEPOINT arena_reading"
_END_READING = "ROLLBACK TO SAVEPOINT arena_reading; RELEASE SAVEPOINT arena_reading"


def _real_of(connection: Any) -> Any:
    """Return the driver's connection behind a facade, or the connection itself."""
    return getattr(getattr(connection, "shared", None), "real", connection)


def _settings_of(text: str) -> list[str]:
    """Return the names of the settings that a statement changes, "" for a computed name."""
    names = [found["name"] or "" for found in _SET_CONFIG.finditer(text)]
    found = _SET.match(text)
    if found is not None:
        names.append(found["name"] or "timezone")
    names = [name.strip('"').lower() for name in names]
    names = [_GUCS.get(name, name) for name in names]
    return [
        name for name in names if name not in {"all", "transaction", "characteristics"}
    ]


class SharedConnection:
    """The real connection to a database, and the savepoints in its transaction."""

    def __init__(self, address: Address, ledger: Ledger, patience: float) -> None:
        self.address = address
        self.ledger = ledger
        self.written = [False]  # for each level
        self.generation = 0
        self._patience = patience
        self._process = os.getpid()
        self._real: Any = None
        self._connect: Callable[[], Any] = nothing
        self._opened_by: tuple[object, ...] = ()
        self._dialects: list[Dialect] = []
        self._call: Callable[..., Any] = _call_here
        self._opening = threading.Lock()
        self._mutex: Any = None  # held while the real connection is used
        self._level = 0  # the number of levels whose savepoint is open
        self._numbers: list[
            list[Any]
        ] = []  # of sequences, before all levels and at each open one
        self._writer: SharedTransaction | None = None
        self._has_ddl = False
        self._has_connect_settings = False
        self._checks: list[str] | None = None
        # The lowest level whose rows are lost with an earlier real connection.
        self._lost: int | None = None
        # The rows at the start of each level, if a level below has written. The last item is for
        # the next level.
        self._starts: list[ReadContent | None] = [None, None]

    @property
    def depth(self) -> int:
        """The number of entered levels."""
        return len(self.written) - 1

    # Facades

    def facade(
        self, dialect: Dialect, connect: Callable[..., Any], cargs: Any, cparams: Any
    ) -> SharedTransaction:
        """Return a connection for a pool. The first one opens the real connection.

        Raises:
            IsolationError: a second driver or login, a function of the app that opens the
                connection, or a forked process.
        """
        opener = (dialect.driver, dialect.is_async, cparams.get("user"))
        if dialect.driver == "psycopg2":
            raise self.refused("a connection by psycopg2", "use asyncpg or psycopg")
        if self._opened_by not in {(), opener}:
            raise self.refused(
                f"a second driver or login on one database ({dialect.driver} as "
                f"{cparams.get('user')})",
                "use one driver and one login in tests",
            )
        if self._process != os.getpid():
            raise self.refused("a connection of a forked process", "use a thread")
        if self._real is None:
            self._opened_by = opener
            self._connect = partial(connect, *cargs, **cparams)
            if dialect.is_async:
                self._call = connection_loop().call
            with self._opening:
                if self._mutex is None:
                    is_async = dialect.is_async
                    self._mutex = asyncio.Lock() if is_async else threading.Lock()
            self._call(self._open)
        if dialect not in self._dialects:
            self._dialects.append(dialect)
            if not dialect.is_async:
                # psycopg looks for the connection behind the facade.
                instance: Any = dialect
                instance.get_driver_connection = _real_of
        return SharedTransaction(
            self, has_sync_caller=has_sync_caller() or not dialect.is_async
        )

    @property
    def real(self) -> Any:
        """The driver's connection, adapted by SQLAlchemy if it is async."""
        return self._real

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function where the real connection lives."""
        return self._call(function, *args, **kwargs)

    def alone(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of the real connection while no other caller uses it."""
        with self._alone():
            return function(*args, **kwargs)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if isinstance(self._mutex, asyncio.Lock):
            await_only(self._mutex.acquire())
        else:
            self._mutex.acquire()
        try:
            yield
        finally:
            self._mutex.release()

    def _open(self) -> None:
        with self._alone():
            if self._real is not None:
                return
            self._real = self._connect()
            if not self._numbers:
                self._numbers = [self.send(_NUMBERS)]
            del self._numbers[1:]
            self._restore_numbers(
                self._numbers[0]
            )  # after an earlier connection has ended
            driver = getattr(self._real, "driver_connection", self._real)
            for name in ("commit", "rollback", "close"):
                # The app can reach psycopg's connection, which would end the transaction.
                if hasattr(driver, "pgconn"):
                    setattr(driver, f"arena_{name}", getattr(driver, name))
                    setattr(driver, name, partial(self._refuse_call, name))

    def refused(self, what: str, fix: str) -> IsolationError:
        """Record and return the error for a use that one shared transaction does not allow."""
        error = IsolationError(
            f"arena_isolation = rollback does not allow {what}",
            why="all connections of the tests share one connection, whose transaction is never "
            "committed",
            cause=str(user_line()),
            fix=f"{fix}\nor arena_isolation = undo",
        )
        return self.ledger.refused(error)

    def _refuse_call(self, name: str) -> NoReturn:
        fix = f"call {name}() of the session"
        raise self.refused(f"{name}() of the driver's connection", fix)

    # Statements. These methods run where the real connection lives.

    def execute(
        self, facade: SharedTransaction, call: Callable[..., Any], text: str, *args: Any
    ) -> Any:
        """Execute a statement of a facade inside a savepoint."""
        if _SAVEPOINTS.match(text):
            self._take(facade)
            if _UNDOES.match(text):
                facade.has_failed = False
            with self._alone():
                return call(text, *args)
        if facade.has_failed:
            text = _FAILED
            args = ()
        names = _settings_of(text)
        if facade.is_connecting:
            self._has_connect_settings |= bool(names)
            names = []
        elif names or not _READS.match(text):
            self._take(facade, is_alone=bool(names))
        else:
            self._wait_for(facade)
        facade.is_begun = not (facade.autocommit or facade.is_connecting)
        try:
            with self._alone():
                self._open_levels()
                self._keep_settings(facade, names)
                answer = self._in_savepoint(lambda: call(text, *args))
        except BaseException:
            facade.has_failed = facade.is_begun
            if facade.autocommit:
                self.roll_back(facade)
            raise
        if _DDL.match(text):
            self._has_ddl = True
            self._note_ddl()
        if facade.autocommit:
            self.commit(facade)
        return answer

    def _keep_settings(self, facade: SharedTransaction, names: list[str]) -> None:
        for name in names:
            if name not in facade.settings:
                value = f"current_setting({literal(name)}, true)"
                [[facade.settings[name]]] = self.send(f"SELECT {value}")

    def execute_raw(self, function: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        """Call a coroutine function of the driver's connection, which may write."""
        self._wait_for(None)
        with self._alone():
            self._open_levels()
            self._note_write()
            return self._in_savepoint(lambda: await_only(function(*args, **kw)))

    def _in_savepoint(self, call: Callable[[], Any]) -> Any:
        self.send("SAVEPOINT arena_statement")
        try:
            answer = call()
        except BaseException:
            with suppress(Exception):  # the connection is lost
                self.send("ROLLBACK TO SAVEPOINT arena_statement")
                self.send("RELEASE SAVEPOINT arena_statement")
            raise
        self.send("RELEASE SAVEPOINT arena_statement")
        return answer

    def send(self, text: str) -> list[Any]:
        """Execute a statement of pytest-arena."""
        cursor = self._real.cursor()
        try:
            cursor.execute(text)
            return list(cursor.fetchall()) if cursor.description else []
        finally:
            cursor.close()

    def _take(self, facade: SharedTransaction, *, is_alone: bool = False) -> None:
        """Wait until no other transaction has written, and open a savepoint for this one."""
        self._wait_for(facade, is_writer=True)
        if self._writer is None:
            self._writer = facade
            with self._alone():
                self._open_levels()
                self._note_write()
                self.send("SAVEPOINT arena_transaction")
        facade.is_alone |= is_alone

    def _wait_for(
        self, facade: SharedTransaction | None, *, is_writer: bool = False
    ) -> None:
        end = seconds() + self._patience
        while True:
            self.drop_closed()
            writer = self._writer
            if writer is None or writer is facade:
                return
            if not (is_writer or writer.is_alone):
                return
            if seconds() > end:
                raise _Busy(writer.line)
            if isinstance(self._mutex, asyncio.Lock):
                await_only(async_rest(_STEP))
            else:
                rest(_STEP)

    def _end(self, facade: SharedTransaction) -> None:
        facade.has_failed = False
        facade.is_begun = False
        facade.is_alone = False
        facade.settings = {}
        if self._writer is facade:
            self._writer = None

    def commit(self, facade: SharedTransaction) -> None:
        """Release the facade's savepoint, after the deferred constraints."""
        if self._writer is not facade or facade.has_failed:
            self.roll_back(facade)
            return
        with self._alone():
            try:
                if self._checks is None:
                    self._checks = [text for (text,) in self.send(_CHECKS)]
                if len(self._checks) > 1:
                    for text in self._checks:
                        self.send(text)
                for name, value in facade.settings.items():
                    before = literal(value or "")
                    self.send(f"SELECT set_config({literal(name)}, {before}, false)")
            except BaseException:
                self._undo()
                self._end(facade)
                raise
            self.send("RELEASE SAVEPOINT arena_transaction")
            self._end(facade)

    def roll_back(self, facade: SharedTransaction) -> None:
        """Roll back to the facade's savepoint, if it has one."""
        if self._writer is facade:
            with self._alone():
                self._undo()
        self._end(facade)

    def _undo(self) -> None:
        self.send("ROLLBACK TO SAVEPOINT arena_transaction")
        self.send("RELEASE SAVEPOINT arena_transaction")

    def drop_closed(self) -> None:
        """Roll back the transaction that writes if its facade is closed."""
        if self._writer is not None and self._writer.is_closed:
            self.roll_back(self._writer)

    def _open_levels(self) -> None:
        while self._level < self.depth:
            self._level += 1
            if len(self._numbers) == self._level:
                self._numbers.append(self.send(_NUMBERS))
            self.send(f"SAVEPOINT arena_level_{self._level}")
        del self._numbers[self._level + 1 :]  # of levels that have ended

    def _note_write(self) -> None:
        """Note the first write of the top level. Read the rows if no other session can."""
        is_first = not self.written[-1] and any(self.written[:-1])
        if is_first and self._starts[-2] is None:
            self._starts[-2] = read_rows(_Reader(self))
        self.written[-1] = True
        self._starts[-1] = None

    # Levels

    @property
    def writer(self) -> SharedTransaction | None:
        """The open transaction that has written."""
        if self._writer is not None and self._writer.is_closed:
            self.call(self.drop_closed)
        return self._writer

    def enter(self) -> None:
        """Open a level, whose savepoint is opened at the first statement."""
        if self._is_lost():
            self._reconnect("it has ended between two tests")
        self._check_rows("an earlier error of this run names the cause")
        self.written.append(False)
        self._starts.append(None)

    def leave(self) -> bool:
        """Roll back the top level. Return whether it has written."""
        try:
            if self._level >= self.depth:
                self.call(self._leave)
        except Exception as error:  # noqa: BLE001 - the driver's, of a lost connection
            self._reconnect(str(error).partition("\n")[0])
        was_changed = self.written.pop()
        self._starts.pop()
        self._writer = None
        if self._lost is not None and self._lost > self.depth:
            self._lost = None
        return was_changed

    def _leave(self) -> None:
        with self._alone():
            self.send(f"ROLLBACK TO SAVEPOINT arena_level_{self._level}")
            self.send(f"RELEASE SAVEPOINT arena_level_{self._level}")
            self._restore_numbers(self._numbers[self._level])
            self._level -= 1
            if self._level == 0 and not self.written[0]:
                # The next test has another time of the transaction.
                driver = getattr(self._real, "driver_connection", self._real)
                if hasattr(driver, "pgconn") and not hasattr(self._real, "run_async"):
                    driver.arena_rollback()
                elif hasattr(driver, "pgconn"):
                    await_only(driver.arena_rollback())
                else:
                    self._real.rollback()
        if self._has_ddl:
            self._has_ddl = False
            self._note_ddl()
        if self._has_connect_settings:
            # The facades of this level have lost the settings of their `connect` listeners.
            self._has_connect_settings = False
            self.generation += 1

    def _note_ddl(self) -> None:
        self._checks = None
        for dialect in self._dialects:
            # The statements that asyncpg has prepared return columns of the earlier schema.
            getattr(dialect, "_invalidate_schema_cache", nothing)()

    def _restore_numbers(self, before: list[Any]) -> None:
        now = {number: state for number, *state in self.send(_NUMBERS)}
        moved = [
            f"setval({number}::regclass, {value}, {str(is_called).lower()})"
            for number, value, is_called in before
            if number in now and now[number] != [value, is_called]
        ]
        if moved:
            self.send(f"SELECT {', '.join(moved)}")

    def forget(self) -> None:
        """Add the top level to the level below."""
        if self._level >= self.depth:
            self.call(
                self.alone, self.send, f"RELEASE SAVEPOINT arena_level_{self._level}"
            )
            self._level -= 1
            del self._numbers[self._level + 1 :]
        is_written = self.written.pop()
        self._starts.pop()
        if is_written:
            self.written[-1] = True
            self._starts[-1] = None

    def _is_lost(self) -> bool:
        driver = getattr(self._real, "driver_connection", self._real)
        if hasattr(driver, "is_closed"):
            return bool(driver.is_closed())
        return bool(getattr(driver, "closed", False))

    def _reconnect(self, reason: str) -> None:
        """Open a new real connection for the next facade.

        Raises:
            IsolationError: rows of wider levels, or the schema, are lost.
        """
        if any(self.written[:-1]) or (self.depth == 0 and self.written[0]):
            self._lost = self.written.index(True)
        self.close()
        self.ledger.note(
            f"rollback: {{test}}: the shared connection was replaced: {reason}"
        )
        self._check_rows(reason)

    def _check_rows(self, reason: str) -> None:
        if self._lost is not None:
            raise IsolationError(
                "the rows of wider fixtures, or the schema, are lost: the connection that all "
                "connections of the tests share has ended",
                why="rollback never commits them",
                cause=f"a test has ended it, or the server has restarted: {reason}",
                fix="pytest …   # again\nor arena_isolation = undo",
            )

    def close(self) -> None:
        """Close the real connection. The server rolls back."""
        real = self._real
        if real is not None and self._process == os.getpid():
            with suppress(Exception):  # it has ended
                self.call(self._restore_numbers, self._numbers[0])
        self._real = None
        self._mutex = None
        self._opened_by = ()
        self._writer = None
        self._level = 0
        self.written[0] = False
        self.generation += 1
        if real is not None and self._process == os.getpid():
            driver = getattr(real, "driver_connection", real)
            with suppress(Exception):  # it has ended
                self.call(_close, driver, real)

    # Content

    def rows_at_start(self, number: int) -> ReadContent | Callable[..., ReadContent]:
        """Return the rows at the start of a level, or a function that reads them."""
        start = self._starts[number]
        if start is not None:
            return start

        def read(question: Callable[[Any], ReadContent]) -> ReadContent:
            with closing(open_control(self.address)) as control:
                return question(control)

        return read

    def ask(self, question: Callable[[Any], Any]) -> Any:
        """Ask the shared connection."""
        if self._real is None:
            with closing(open_control(self.address)) as control:
                return question(control)
        return self.call(self.alone, question, _Reader(self))

    def build(self, work: Callable[[Any], Any]) -> None:
        """Run a script below all levels, on the open connection."""
        self.written[-1] = True
        self._checks = None
        self.call(self.alone, work, _Runner(self))


def _close(driver: Any, real: Any) -> None:
    if hasattr(driver, "pgconn"):
        driver.pgconn.finish()
    else:
        real.close()


def _call_here(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


class _Busy(Exception):
    """Another transaction writes for too long."""

    def __init__(self, line: CodeLine | None) -> None:
        self.line = line


class _Reader(Control):
    """The shared connection, with the methods of `Control`."""

    def __init__(self, shared: SharedConnection) -> None:  # no connection is opened
        self._shared = shared

    def run(self, sql: str) -> None:
        """Execute statements. A transaction for reading is a savepoint."""
        if sql == "ROLLBACK":
            sql = _END_READING
        for statement in re.sub(r"BEGIN ISOLATION[\w ]+", _READING, sql).split(";"):
            self.rows(statement)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Execute a statement, and return its rows."""
        try:
            return [tuple(row) for row in self._shared.send(sql)]
        except Exception as error:
            raise ControlFailure(str(error), drivers_sqlstate(error)) from error


class _Runner(_Reader):
    """Runs the statements of a script. Its own transactions have no effect."""

    def run(self, sql: str) -> None:
        """Execute a statement."""
        if not _ENDS.match(sql):
            self.rows(sql)


def drivers_sqlstate(error: object) -> str:
    """Return the SQLSTATE of a driver's error."""
    return str(getattr(error, "sqlstate", "") or "")


class SharedTransaction(LoopConnection):
    """A connection of a pool: the real connection, with a transaction of the pool's own."""

    __slots__ = (
        "autocommit",
        "has_failed",
        "is_alone",
        "is_begun",
        "is_closed",
        "is_connecting",
        "line",
        "settings",
        "shared",
    )
    __setattr__ = object.__setattr__  # type: ignore[assignment]  # names of parameters

    def __init__(self, shared: SharedConnection, *, has_sync_caller: bool) -> None:
        self.shared = shared
        self.is_connecting = True  # until the first checkout
        self.is_begun = False
        self.is_closed = False
        self.has_failed = False  # as PostgreSQL's transaction after an error
        self.is_alone = False  # it has changed a setting
        self.autocommit = False
        self.settings: dict[str, str | None] = {}  # the values before its changes
        self.line: CodeLine | None = None  # of the first statement of its transaction
        self._has_sync_caller = has_sync_caller
        real = getattr(shared.real, "driver_connection", shared.real)
        self._connection = real
        if type(real).__module__.startswith("asyncpg"):
            self._connection = LoopDriver(real, self._await)

    @property
    def real(self) -> Any:
        """The connection of all facades."""
        return self.shared.real

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of the real connection while no other caller uses it."""
        return self.call_shared(self.shared.alone, function, *args, **kwargs)

    def call_shared(self, function: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        """Call a function where the real connection lives."""
        check_caller(is_sync=self._has_sync_caller)
        return self.shared.call(function, *args, **kw)

    async def _await(self, function: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        if args and isinstance(args[0], str) and _ENDS.match(args[0]):
            what = f"{args[0].split()[0]} in a statement"
            raise self.shared.refused(what, "call commit() of the session")
        run = partial(self.shared.execute_raw, function)
        return await connection_loop().wait(greenlet_spawn(run, *args, **kw))

    def cursor(self, *args: Any, **kwargs: Any) -> SharedCursor:
        """Return a cursor."""
        return SharedCursor(self, args, kwargs)

    def commit(self) -> None:
        """Commit for the app: nothing is committed on the server."""
        if self.is_begun:
            self.call_shared(self.shared.commit, self)

    def rollback(self) -> None:
        """Roll back to the start of the transaction."""
        if self.is_begun:
            self.call_shared(self.shared.roll_back, self)

    def close(self) -> None:
        """Note the end. The next user of the real connection rolls back.

        Sends nothing: the garbage collector may call it in any thread.
        """
        self.is_closed = True

    terminate = close

    def run_async(self, fn: Callable[[Any], Any]) -> Any:
        """Call a coroutine function with the driver's connection, where it lives."""
        return self.call_shared(
            self.shared.execute_raw, fn, self.real.driver_connection
        )

    def set_isolation_level(self, level: object) -> None:
        """Set AUTOCOMMIT. All other levels act as READ COMMITTED."""
        name = str(getattr(level, "name", level) or "read_committed").lower()
        self.autocommit = name == "autocommit"
        if name not in {"autocommit", "read_committed", "read committed"}:
            self.shared.ledger.note(
                f"rollback: isolation level {name} acts as READ COMMITTED"
            )

    isolation_level = property(lambda _: None, set_isolation_level)

    def set_autocommit(self, value: object) -> None:
        """Set AUTOCOMMIT, as psycopg names it."""
        self.autocommit = bool(value)

    def set_read_only(self, value: object) -> None:
        """Note that the transaction is not read-only."""
        if value:
            self.shared.ledger.note("rollback: a read-only transaction may write")

    read_only = property(lambda _: False, set_read_only)
    readonly = read_only
    set_deferrable = read_only.fget
    deferrable = property(lambda _: False, lambda _self, _value: None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("tpc_"):
            raise self.shared.refused("a two-phase commit", "commit without it")
        return super().__getattr__(name)


class SharedCursor(LoopCursor):
    """A cursor of a facade."""

    def _send(self, name: str, *args: Any) -> Any:
        facade = self._facade
        call = getattr(self._opened(), name)
        return facade.shared.execute(facade, call, *args)

    def _checked(self, name: str, text: Any, *rest: Any) -> Any:
        """Check a statement in the caller's thread, and send it."""
        facade = self._facade
        shared = facade.shared
        written = text if isinstance(text, str) else str(text)
        if _ENDS.match(written) and not _SAVEPOINTS.match(written):
            raise shared.refused(
                f"{written.split()[0].upper()} in a statement",
                "call commit() or rollback() of the session",
            )
        if "" in _settings_of(written):
            raise shared.refused(
                "set_config with a computed name",
                "write the name into the statement: set_config('app.tenant', …)",
            )
        for remark, pattern in _NOT_SHOWN.items():
            if pattern.search(written):
                shared.ledger.note(f"rollback: {remark}")
        if not facade.is_begun:
            facade.line = user_line()
        try:
            return facade.call_shared(self._send, name, text, *rest)
        except _Busy as busy:
            raise shared.refused(
                "a second transaction that writes. Another one is open, and has written or "
                f"changed a setting ({busy.line})",
                "commit or roll back the first transaction before the second one writes",
            ) from None

    def execute(self, *args: Any, **named: Any) -> Any:
        """Execute a statement."""
        del named
        self._checked("execute", *args)
        return self

    def executemany(self, *args: Any) -> Any:
        """Execute a statement for each of several parameters."""
        return self._checked("executemany", *args)


class SharedHandle:
    """The gate's view of a facade."""

    reads_statements = True
    has_leftovers = False

    def __init__(self, core: Core, facade: SharedTransaction) -> None:
        self._core = core
        self._facade = facade

    def is_of(self, dbapi_connection: object) -> bool:
        """Return whether this is the handle's facade."""
        return dbapi_connection is self._facade

    @property
    def in_transaction(self) -> bool:
        """Whether the open transaction has written."""
        return self._facade.shared.writer is self._facade

    @property
    def is_begun(self) -> bool:
        """Whether a transaction is open."""
        return self._facade.is_begun

    def keeps_snapshot(self, dbapi_connection: object) -> bool:
        """Return False: the transaction sees later commits."""
        del dbapi_connection
        return False

    def changes(self) -> int:
        """Return 0: no driver counts the changed rows."""
        return 0

    def has_written(self, dbapi_connection: object, since: int) -> bool:
        """Return whether the open transaction has written."""
        del dbapi_connection, since
        return self.in_transaction

    def interrupt(self) -> None:
        """Do nothing: the statement belongs to the connection of all."""

    @contextmanager
    def alone(self, seconds: float = 0) -> Iterator[bool]:
        """Yield True, because pytest-arena does not use the facade itself."""
        del seconds
        yield True

    def roll_back(self) -> None:
        """End the transaction. The pool drops the facade."""
        self._facade.close()

    end = roll_back

    def session(self, dbapi_connection: object) -> object:
        """Return a constant: a setting ends with its transaction."""
        del dbapi_connection
        return True

    def note_checkout(self, *, is_first: bool) -> int:
        """Note a checkout. The `connect` listeners are over."""
        del is_first
        self._facade.is_connecting = False
        return 0

    def before_execute(self, statement: str, connection: Connection) -> str:
        """Refuse a statement that reaches beyond the database."""
        __tracebackhide__ = True
        del connection
        beyond = reaches_beyond(statement)
        if beyond:
            raise self._core.ledger.refused(refused_beyond(beyond))
        return statement

    def note_checkin(self) -> None:
        """Do nothing."""


_shared: dict[tuple[str, str], SharedConnection] = {}


def share(shared: SharedConnection) -> None:
    """Give facades to each engine that connects to the database."""
    _shared[shared.address.server, shared.address.database] = shared


def shared_at(address: Address) -> SharedConnection | None:
    """Return the shared connection to a database, None for any other database."""
    return _shared.get((address.server, address.database))


def share_connect(dialect: Dialect) -> None:
    """Let a dialect return facades for shared databases."""
    if "arena_shares" not in vars(dialect):
        vars(dialect)["arena_shares"] = True
        dialect.connect = _SharedConnect(dialect)  # type: ignore[method-assign]  # of this instance


class _SharedConnect:
    """The ``connect`` of a dialect, which returns a facade for a shared database."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._connect = dialect.connect

    def __call__(self, *cargs: Any, **cparams: Any) -> Any:
        __tracebackhide__ = True
        address = getattr(cparams.get("host"), "address", None)
        shared = shared_at(address) if address is not None else None
        if shared is None:
            return self._connect(*cargs, **cparams)
        return shared.facade(self._dialect, self._connect, cargs, cparams)


class RollbackIsolation:
    """The isolation ``rollback``. Enter is free. Leave costs one or two round trips."""

    name = "rollback"

    def __init__(
        self, shared: SharedConnection, drop: Callable[[], object] = nothing
    ) -> None:
        self.shared = shared
        self.address = shared.address
        self._drop = drop
        self._check: Callable[[], None] = nothing
        share(shared)

    @property
    def generation(self) -> int:
        """A number that changes when pools must open new facades."""
        return self.shared.generation

    @property
    def depth(self) -> int:
        """The number of open levels."""
        return self.shared.depth

    def call_after_leave(self, check: Callable[[], None]) -> None:
        """Call a function at the end of each ``leave``."""
        self._check = check

    def enter(self) -> None:
        """Open a level above the current state.

        Raises:
            Held: an open transaction has written.
        """
        self._check_for_writer()
        self.shared.enter()

    def _check_for_writer(self) -> None:
        writer = self.shared.writer
        if writer is not None:
            raise Held(f"an open transaction has written ({writer.line})")

    def leave(self) -> bool:
        """Roll back to the level's start. Return whether there was a change.

        Raises:
            Held: an open transaction has written.
        """
        if not self.depth:
            raise impossible("a level was left that had not been entered")
        self._check_for_writer()
        was_changed = self.shared.leave()
        self._check()
        return was_changed

    def leave_by_force(self) -> None:
        """Roll back to the level's start, also an open transaction."""
        if self.depth:
            self.shared.leave()
            self.shared.generation += 1

    def is_free(self) -> bool:
        """Return whether no open transaction has written."""
        return self.shared.writer is None

    def is_untouched(self) -> bool:
        """Return whether no statement of the top level may have written."""
        return not self.shared.written[-1]

    def is_clean(self) -> bool:
        """Return whether the top level is untouched, and no transaction has written."""
        return self.is_untouched() and self.is_free()

    def forget(self, *, is_undone: bool = False) -> None:
        """Drop the top level, and keep its changes."""
        del is_undone
        self.shared.forget()

    def moment(self, *, exact: bool = False) -> object:
        """Return None, or all rows with ``exact``."""
        return self.shared.ask(read_rows) if exact else None

    def rows_changed(
        self,
        since: object = None,
        until: object = None,
        *,
        depth: int = 0,
        limit: int | None = None,
    ) -> list[TableRows]:
        """Compare the rows with those at the level's start, or with a moment."""
        number = self.depth - depth
        if number < 0 or not self.shared.written[number]:
            return []
        first = since if isinstance(since, ReadContent) and not depth else None
        start = first or self.shared.rows_at_start(number)
        after = until if isinstance(until, ReadContent) and not depth else None
        if depth:
            later = self.shared.rows_at_start(number + 1)
            after = later if isinstance(later, ReadContent) else None
        if isinstance(start, ReadContent):
            new = after or self.shared.ask(partial(read_rows, unlike=start))
            return compared(start, new, limit=limit)
        new = after or self.shared.ask(partial(read_rows, unlike=start(read_digests)))
        return compared(start(partial(read_rows, unlike=new)), new, limit=limit)

    def content(self) -> Mapping[str, str]:
        """Return digests of the whole content, without sequences, which no rollback restores."""
        digests = self.shared.ask(read_content)
        return {
            name: digest
            for name, digest in digests.items()
            if not name.startswith("sequence ")
        }

    def replace(self, content: object) -> None:
        """Begin with a new build. Refuse other content in a level, which needs another database."""
        if self.depth:
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

    def close(self) -> None:
        """Roll back, and drop the database if pytest-arena has created it."""
        self.shared.close()
        _shared.pop((self.address.server, self.address.database), None)
        self._drop()
