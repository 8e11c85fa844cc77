"""Listens to SQLAlchemy's events: redirects connections, checks them, and drops stale ones."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DisconnectionError, SAWarning
from sqlalchemy.pool import Pool

from pytest_arena._config._supported import DRIVERS, SUPPORTED
from pytest_arena._gate._engines import (
    describe,
    instrument_loops,
    known_engines,
    unbind_pools,
    watch_engines,
)
from pytest_arena._gate._lost_writes import LostWrites, watch_sessions
from pytest_arena._gate._registry import INFO, PooledConnection
from pytest_arena._interpreter import STARTS, on_audit_events, on_file_changes, when_imported
from pytest_arena._origin import REQUEST, is_own, request_here, shown_line
from pytest_arena._owner import Owned, owner_here
from pytest_arena._process import before_spawn
from pytest_arena._product import (
    UNNAMED,
    OpenConnection,
    Opener,
    connections_of,
    loaded,
)
from pytest_arena._product._connection_loop import has_sync_caller, lasting_loops
from pytest_arena._product._server_connections import driver_connection
from pytest_arena._product._statements import Reach, classify
from pytest_arena._values import Child
from pytest_arena.errors import ConfigError, RefusedError
from pytest_arena.warnings import LeakWarning

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Dialect
    from sqlalchemy.pool import PoolResetState

    from pytest_arena._databases._resolver import Databases
    from pytest_arena._gate._registry import Registry
    from pytest_arena._owner import Owner

__tracebackhide__ = True  # tracebacks end at the user's line

CLOSE_IT = (
    "commit, and close it where it is created, such as in a dependency: `(async) with maker() as "
    "session: yield session`. A scoped_session: remove(). A thread or a job: wait for its end"
)

# The parent's connections in a fork. SQLite forbids a fork to use or to close them.
_abandoned: list[object] = []


class Gate:
    """Redirects the connections of all engines of the process to the databases of the test.

    There is one, until the process ends. A redirected connection costs some microseconds, and a
    checkout about five.
    """

    core: Databases
    registry: Registry
    lost: LostWrites
    _is_installed = False

    def install(self, core: Databases, registry: Registry) -> None:
        """Serve the run of this process."""
        if self._is_installed:
            raise ConfigError(
                "pytest runs for a second time in this process",
                why="pytest-arena guards a process until its end, by the options of the first run",
                cause="a second call of pytest.main()",
                fix="start a process for each run: python -m pytest",
            )
        self._is_installed = True
        self.core = core
        self.registry = registry
        self.lost = LostWrites(core, registry)
        unbind_pools()
        watch_engines(self._remember)
        for name in EVENTS:
            event.listen(Engine, name, getattr(self, name, None) or getattr(self.lost, name))
        for name in ("connect", "checkout", "checkin", "reset"):
            event.listen(Pool, name, getattr(self, name))
        watch_sessions(self.lost.note_unflushed)
        # The watch begins before the import of SQLite's driver, because a conftest may remove a
        # file earlier.
        on_file_changes(self.core.check_change)
        on_audit_events({name: partial(self._on_child, name) for name in _FORKS | STARTS})
        # A process that multiprocessing spawns may use what a fork may use.
        before_spawn(partial(self._on_child, "os.fork"))
        for package, product in DRIVERS.items():
            when_imported(package, partial(self._watch_driver, product))

    def _watch_driver(self, product: str, _module: object) -> None:
        connections_of(product).watch(lambda: self.core)

    def _remember(self, engine: Engine) -> None:
        if known_engines.add(engine, self.core.level_owner()):
            instrument_loops(engine.dialect)

    # SQLAlchemy's events.

    def do_connect(
        self,
        dialect: Dialect,
        entry: Any,
        cargs: list[object],
        cparams: dict[str, object],
    ) -> None:
        """Redirect a connection before it is opened."""
        known = known_engines.of(dialect)
        known.is_disposed = False
        level = known.level()
        requested = describe(dialect, cargs, cparams)
        target = self.core.admit(Opener.ENGINE, requested.name, requested)
        identify = None
        if requested.product in SUPPORTED:
            connections = connections_of(requested.product)
            identify = connections.redirect(self.core, dialect, target, cargs, cparams)
        if entry is not None:
            pooled = PooledConnection.create(entry)
            pooled.target = target
            pooled.identify = identify
            if dialect.is_async and not has_sync_caller():  # else it lives in no loop of tests
                pooled.dialect = dialect
            if level is not None:
                self.registry.close_after(level, pooled)
        self.registry.running.begin(request_here())
        self.registry.set_busy(is_busy=True)

    def connect(self, dbapi_connection: object, entry: Any) -> None:
        """Check which database a new connection has opened."""
        pooled = entry.info.get(INFO)
        if pooled is None:  # a creator of the app has opened it
            self._add_unknown(dbapi_connection, entry)
        elif pooled.identify is not None or pooled.target is not None:
            live = pooled.identify(dbapi_connection) if pooled.identify else None
            pooled.note_opened(live or self._recognize(dbapi_connection))

    def checkout(self, dbapi_connection: object, entry: Any, _proxied: object) -> None:
        """Check a connection that a pool hands out."""
        pooled = entry.info.get(INFO)
        if pooled is None:  # opened before pytest-arena was installed
            pooled = self._add_unknown(dbapi_connection, entry)
        if pooled.process != os.getpid():
            _abandoned.append(entry.dbapi_connection)
            entry.dbapi_connection = None
            raise DisconnectionError("this connection belongs to the process that forked this one")
        is_away = pooled.dialect and lasting_loops.is_away(pooled.dialect, dbapi_connection)
        if is_away or pooled.is_stale or self._is_replaced(pooled):
            raise DisconnectionError("the database of this connection is no longer the test's")
        pooled.pending_writes = None
        if pooled.handle is not None:
            pooled.handle.note_checkout()
        self.registry.check_out(pooled)
        self.registry.running.begin(request_here())  # aiosqlite opens a cursor before the event
        # Read last: a test that ends from now on sees this checkout.
        if pooled.is_left:
            self.core.refuse_late()

    def checkin(self, _dbapi_connection: object, entry: Any) -> None:
        """Note that a connection was returned to its pool, or was closed."""
        pooled = entry.info.get(INFO)
        if pooled is not None:
            self.registry.check_in(pooled)

    def reset(self, _dbapi_connection: object, entry: Any, state: PoolResetState) -> None:
        """Note what the garbage collector ends: writes of a request, and an async connection.

        SQLAlchemy's warning of the connection, which would follow, names no line of the app.
        """
        if entry is None or INFO not in entry.info:  # it was detached, or is older than the run
            return
        pooled = entry.info[INFO]
        writes = pooled.pending_writes
        if writes and writes.request and pooled.handle and pooled.handle.is_begun:
            self.lost.note_end(writes)
        if not state.asyncio_safe:
            text = "The garbage collector is trying to clean up"
            warnings.filterwarnings("ignore", text, SAWarning)
            self.warn_of_leak(pooled)

    def warn_of_leak(self, pooled: PooledConnection) -> None:
        """Warn of an idle connection that no code has returned."""
        what = "no code has returned a connection to its pool, so it was closed"
        self.core.ledger.warn(LeakWarning, what, cause=pooled.place, fix=CLOSE_IT)

    def engine_connect(self, connection: Connection) -> None:
        """Note a Core connection that the app or a session creates."""
        self.registry.core_connections[connection] = Owned(owner_here())

    def before_cursor_execute(
        self,
        connection: Connection,
        _cursor: object,
        statement: str,
        _parameters: object,
        context: Any,
        *_: object,
    ) -> None:
        """Check a statement. Note its request, and whether it alters the session."""
        pooled = self.registry.before_sending(connection, statement)
        owner = owner_here()
        if owner is not None and owner.is_idle:
            self.core.ledger.left = f"a task of a lifespan or wide fixture works, {shown_line()}"
        request = request_here()
        if request is not None:
            request.statements.append(statement)
            if self.registry.schedule is None:
                self.registry.running.begin(request)
                self.registry.running.wait(request)
        if pooled is None:  # it is in use since before pytest-arena was installed
            self._recognize(connection.connection.dbapi_connection)
            return
        if pooled.handle is None:
            return
        if pooled.has_committed is None:
            pooled.has_committed = False
        words = pooled.handle.words
        meaning = classify(statement, words)
        if meaning.beyond or meaning.shared:
            self.core.refuse_statement(meaning, words)
        if request is not None:
            request.has_written |= meaning.reach is not Reach.NOTHING
        if meaning.alters_session:
            pooled.is_altered = True
            self.registry.close_after(self.core.level_owner(), pooled)
        context.arena = (pooled, meaning)

    def after_cursor_execute(
        self,
        _connection: Connection,
        cursor: Any,
        _statement: str,
        _parameters: object,
        context: Any,
        *_: object,
    ) -> None:
        """Note what a statement has written."""
        self.registry.running.end(REQUEST.get())
        self.registry.set_busy(is_busy=False)
        if not hasattr(context, "arena"):
            return
        pooled, meaning = context.arena
        if meaning.ends_transaction:
            pooled.pending_writes = None
            pooled.has_committed = True
        elif meaning.table and pooled.handle.has_changed_rows(cursor):
            self.lost.note_write(pooled, meaning.table)

    def _add_unknown(self, dbapi_connection: object, entry: Any) -> PooledConnection:
        """Return the record of a connection that pytest-arena has not redirected."""
        live = self._recognize(dbapi_connection)
        pooled = PooledConnection.create(entry)
        pooled.note_opened(live)
        return pooled

    def _recognize(self, dbapi_connection: Any) -> OpenConnection:
        """Describe a connection that pytest-arena has not redirected."""
        live = None
        try:
            for connections in [*loaded.values()]:
                live = live or connections.recognize(self.core, dbapi_connection)
            if live is None:
                driver, _, _ = type(driver_connection(dbapi_connection)).__module__.partition(".")
                self.core.admit(Opener.CREATOR, f"{driver}://{UNNAMED}")
        except RefusedError:
            # The pool does not have the connection yet. `terminate` closes it without awaiting.
            close = getattr(dbapi_connection, "terminate", dbapi_connection.close)
            with suppress(Exception):  # it is bound to another thread
                close()
            raise
        return live or OpenConnection()

    def _is_replaced(self, pooled: PooledConnection) -> bool:
        if pooled.target is None:
            return False
        now = self.core.current(pooled.target.key)
        # The identity is checked first because it is faster.
        return now is not pooled.target and now != pooled.target

    # Audit events.

    def _on_child(self, name: str, *values: object) -> None:
        if not is_own():
            self.core.before_child(child_of_event(name, values))

    # Called by levels.

    def invalidate_stale(self) -> None:
        """Invalidate checked-out connections to replaced or dropped databases.

        Otherwise a wide fixture would keep using the database of an earlier test.
        """
        here = (os.getpid(), get_ident())
        for pooled in self.registry.checked_out():
            if pooled.handle is None or not self._is_replaced(pooled):
                continue
            # Another thread may use its connection now. The drop of the database ends it.
            if (pooled.process, pooled.thread) == here:
                self.registry.invalidate(pooled)

    def end_raw(self, level: Owner) -> None:
        """End the connections that drivers have opened without an engine in a level."""
        if self.registry.has_raw:
            for connections in [*loaded.values()]:
                connections.end_raw(level)


# The events of `Engine` for which `Gate` or `LostWrites` has a method.
EVENTS = (
    "do_connect",
    "engine_connect",
    "before_cursor_execute",
    "after_cursor_execute",
    "handle_error",
    "rollback_savepoint",
    "commit",
    "rollback",
)
_FORKS = {"os.fork", "os.forkpty"}


def child_of_event(name: str, values: tuple[Any, ...]) -> Child:
    """Return the child process of an audit event."""
    if name in _FORKS:
        return Child(is_fork=True)
    folder = ""
    command = values[-2:][0]  # `os.system` has no other value
    if name == "subprocess.Popen":
        program, command, folder, _ = values
    elif name != "os.system":
        program = values[-3]
    # On Windows a command is one text.
    arguments = [command] if isinstance(command, str | bytes) else [program, *command]
    return Child(
        tuple(map(os.fsdecode, arguments)), os.fsdecode(folder or ""), environment=values[-1]
    )


gate = Gate()
