"""Listens to SQLAlchemy's events: redirects connections, checks them, and drops stale ones."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import cache, partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import Pool

from pytest_arena._config._supported import DRIVERS, SUPPORTED
from pytest_arena._gate import _gate_notes
from pytest_arena._gate._answers import apart_from_requests
from pytest_arena._gate._engines import describe
from pytest_arena._gate._known_engines import (
    drop_early_connections,
    existing_engines,
    known_engines,
    watch_engines,
)
from pytest_arena._gate._loops import hand_out_newest, instrument_loops, unbind_locks
from pytest_arena._gate._loops import install as unbind_pools
from pytest_arena._gate._lost_writes import LostWrites, read_statements, watch_writes
from pytest_arena._gate._orm_sessions import watch_sessions
from pytest_arena._gate._pooled import PooledConnection
from pytest_arena._gate._removals import watch_removals
from pytest_arena._interpreter import on_audit_events, when_imported
from pytest_arena._origin import is_own
from pytest_arena._process import before_spawn
from pytest_arena._product import (
    UNNAMED,
    Core,
    OpenConnection,
    loaded,
    nothing,
    product_package,
)
from pytest_arena._product._raw_guard import driver_connection
from pytest_arena._values import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import Dialect

    from pytest_arena._gate._registry import Checkout, Registry
    from pytest_arena._product import ConnectTarget, Key

__tracebackhide__ = True  # tracebacks end at the user's line


# The parent's connections in a fork. SQLite forbids a fork to use or to close them.
_abandoned: list[object] = []


class Resolver(Core, Protocol):
    """Resolves databases for the gate, and prepares them for other processes."""

    def current(self, key: Key) -> ConnectTarget | None:
        """Return the present target of connections to this database, None if it was dropped."""

    def before_child(self, child: Child) -> None:
        """Prepare the databases that a child process may use.

        Raises:
            RefusedError: its arguments name a database of the app.
        """

    def before_spawn(self) -> None:
        """Build the databases of all engines before multiprocessing spawns a process."""


class Gate:
    """Redirects the connections of all engines of the process to the databases of the test.

    A redirected connection costs some microseconds, and a checkout about five.
    """

    def __init__(self, core: Resolver, registry: Registry) -> None:
        self.core = core
        self.registry = registry
        self.lost = LostWrites(core, registry)
        self._restore_databases: Callable[[], None] = nothing

    def begin_inner_run(self) -> None:
        """Forget the databases of the outer run's engines."""
        self._restore_databases = known_engines.set_databases_aside()

    def end_inner_run(self) -> None:
        """Restore the databases of the outer run's engines."""
        self._restore_databases()

    # SQLAlchemy's events.

    def connecting(
        self,
        dialect: Dialect,
        entry: Any,
        cargs: list[object],
        cparams: dict[str, object],
    ) -> None:
        """Redirect a connection before it is opened."""
        known_engines.note_connect(dialect)
        pooled = None
        if entry is not None:
            pooled = PooledConnection.create(entry)
            self.registry.reserve(pooled)
        self.core.refuse_late()
        requested = describe(dialect, cargs, cparams)
        with apart_from_requests():  # this may build a template
            target = self.core.ensure_target(requested)
            identify = None
            if requested.product in SUPPORTED:
                connections = product_package(requested.product).connections
                identify = connections.redirect(
                    self.core, dialect, target, cargs, cparams
                )
        if pooled is not None:
            pooled.begin_connect(target, identify)

    def connected(self, dbapi_connection: object, entry: Any) -> None:
        """Check which database a new connection has opened."""
        pooled = PooledConnection.find(entry)
        if pooled is None:  # a creator of the app has opened it
            pooled = self._add_unknown(dbapi_connection, entry)
        elif pooled.identify is not None or pooled.target is not None:
            live = pooled.identify(dbapi_connection) if pooled.identify else None
            pooled.note_opened(live or self._recognize(dbapi_connection))
        if pooled.key is not None:
            _watch_core_connections()
        if pooled.handle is not None and pooled.handle.reads_statements:
            _read_statements()

    def checked_out(
        self, dbapi_connection: object, entry: Any, _proxied: object
    ) -> None:
        """Check a connection that a pool hands out.

        Raises:
            DisconnectionError: it is stale, or belongs to another process. The pool then opens
                another connection.
        """
        unbind_locks(dbapi_connection)
        pooled = PooledConnection.find(entry)
        if pooled is None:  # opened before pytest-arena was installed
            pooled = self._add_unknown(dbapi_connection, entry)
        self.registry.reserve(pooled)
        self.core.refuse_late()
        if pooled.process != os.getpid():
            _abandoned.append(entry.dbapi_connection)
            entry.dbapi_connection = None
            raise DisconnectionError(
                "this connection belongs to the process that forked this one"
            )
        if pooled.handle is not None and not pooled.handle.is_of(dbapi_connection):
            # A listener of the app has replaced the connection.
            pooled = self._add_unknown(dbapi_connection, entry)
        targets = pooled.targets()
        # A new connection, or one with settings of a wide fixture, is not checked for leftovers.
        is_of_earlier_test = pooled.settings is not None and not pooled.is_used
        has_leftovers = False
        if (
            pooled.handle is not None
            and is_of_earlier_test
            and not pooled.settings_kept_by
        ):
            has_leftovers = pooled.handle.has_leftovers
        if pooled.is_stale or has_leftovers or self._are_stale(targets):
            if pooled.settings_kept_by:
                self.core.ledger.note(_gate_notes.lost_setting())
            raise DisconnectionError(
                "the database of this connection is no longer the test's"
            )
        pooled.begin_use()
        self.registry.check_out(pooled, entry, targets)
        # The test may have ended since the first check, without seeing this checkout.
        self.core.refuse_late()

    def checked_in(self, _dbapi_connection: object, entry: Any) -> None:
        """Note that a connection was returned to its pool, or was closed."""
        checkout = self.registry.find(entry)
        if checkout is not None:
            key = checkout.connection.key
            handle = checkout.connection.handle
            if handle is not None:
                if key and handle.is_begun:  # the pool has not rolled back
                    self.registry.may_be_used(key)
                handle.note_checkin()
        self.registry.check_in(entry)

    def detached(self, _dbapi_connection: object, entry: Any) -> None:
        """Note that the app detaches a connection from its pool. No event reports its later uses.

        SQLAlchemy also detaches an async connection that the garbage collector has found.
        """
        checkout = self.registry.find(entry)
        if checkout is not None:
            self.registry.detach(checkout)

    def _add_unknown(self, dbapi_connection: object, entry: Any) -> PooledConnection:
        """Return the record of a connection that pytest-arena has not redirected.

        Raises:
            RefusedError: its database is not one of the tests' databases.
        """
        live = self._recognize(dbapi_connection)
        pooled = PooledConnection.create(entry)
        pooled.note_opened(live)
        self.registry.add(pooled)
        return pooled

    def _recognize(self, dbapi_connection: Any) -> OpenConnection:
        """Describe a connection that pytest-arena has not redirected.

        Raises:
            RefusedError: its database is not one of the tests' databases.
        """
        live = None
        for product in [*loaded.values()]:
            live = live or product.connections.recognize(self.core, dbapi_connection)
        if live is None:
            connection = driver_connection(dbapi_connection)
            driver, _, _ = type(connection).__module__.partition(".")
            live = OpenConnection(outside=f"{driver}://{UNNAMED}")
        if live.outside and not self.core.files.is_allowed(live.outside):
            # The pool does not have the connection yet. `terminate` closes it without awaiting.
            close = getattr(dbapi_connection, "terminate", dbapi_connection.close)
            close()
            raise self.core.ledger.refused(_gate_notes.unknown_connection(live.outside))
        return live

    def _are_stale(self, targets: tuple[ConnectTarget, ...]) -> bool:
        for target in targets:
            now = self.core.current(target.key)
            # The identity is checked first because it is faster.
            if now is not target and now != target:
                return True
        return False

    # Called by levels.

    def invalidate_stale(
        self, ended: int | None = None, *, is_restored: bool = False
    ) -> None:
        """Invalidate checked-out connections to replaced or dropped databases on servers.

        Otherwise a wider fixture would keep using the database of an earlier test. If the level
        ``ended`` was left, also invalidate connections that keep something of that level.
        """
        here = (os.getpid(), get_ident())
        for checkout in self.registry.checked_out():
            pooled = checkout.connection
            is_stale = pooled.key is not None and self._are_stale(pooled.targets())
            # Another thread may use its connection now. Its event loop invalidates it. Without a
            # loop, the drop of the database ends it.
            if (pooled.process, checkout.thread) != here:
                if is_stale:
                    self.registry.invalidate_in_loop(checkout)
                continue
            if not is_stale and ended is not None:
                is_stale = self._must_reconnect(
                    checkout, ended, is_restored=is_restored
                )
            if not is_stale:
                continue
            if pooled.settings_kept_by:
                self.core.ledger.note(_gate_notes.lost_setting())
            if self.registry.is_raw(checkout):
                self.core.ledger.note(_gate_notes.closed_raw(checkout.line))
            if self.registry.invalidate(checkout):
                self.core.ledger.note(_gate_notes.lost_transaction(checkout.line))
        if self.registry.has_raw:
            self.end_raw(None)

    def _must_reconnect(
        self, checkout: Checkout, serial: int, *, is_restored: bool
    ) -> bool:
        """Return whether a wider fixture's connection keeps settings or rows of a level that ended.

        A note names a connection that cannot reconnect: one to a file, a raw one, or a Core
        connection in a transaction. A transaction that has written stays, because the suite may
        undo each test by a savepoint in it. A task of the fixture returns its connection itself.
        """
        pooled = checkout.connection
        is_left = pooled.is_altered(serial)
        if is_restored and not is_left and checkout.handle is not None:
            dbapi_connection = checkout.entry.dbapi_connection
            is_left = checkout.handle.keeps_snapshot(dbapi_connection)
        if not is_left or checkout.in_transaction or checkout.is_in_background:
            return False
        if pooled.key is None or not self.registry.can_reconnect(checkout):
            pooled.keep_until_returned()
            self.core.ledger.note(_gate_notes.left_in_connection(checkout.line))
            return False
        return True

    def end_raw(self, serial: int | None) -> list[str]:
        """End the connections that drivers have opened without an engine in a level.

        Also end such connections of all levels to replaced databases. Return the lines of lost
        writes.
        """
        lost: list[str] = []
        if self.registry.has_raw:
            for product in [*loaded.values()]:
                lost += product.connections.end_raw(self.core, serial)
        return lost

    @contextmanager
    def keeping_settings(self, serial: int) -> Iterator[None]:
        """Keep the settings that the set-up of a wide fixture changes in connections."""
        used_before = {pooled for pooled in self.registry.idle() if pooled.is_used}
        yield
        for pooled in self.registry.idle():
            if pooled not in used_before:
                pooled.keep_settings(serial)
        for checkout in self.registry.checked_out():
            checkout.connection.keep_held_settings(serial)

    def end_idle_transactions(self) -> None:
        """Roll back open transactions of idle connections.

        After a failed COMMIT (a deferred foreign key), SQLAlchemy leaves the transaction open on
        SQLite. Its lock would block the restore.
        """
        for pooled in self.registry.idle():
            if pooled.target and pooled.handle is not None and pooled.handle.is_begun:
                pooled.retire()

    def end_level(self, serial: int, *, is_restored: bool) -> None:
        """Drop the connections that must not outlive the level that was left."""
        self.invalidate_stale(serial, is_restored=is_restored)
        self.drop_altered(serial)

    def drop_altered(self, serial: int) -> None:
        """Drop idle connections whose settings changed in the level that ends.

        A temporary table of a test would hide a real table from the next test. A lock would block
        the next test.
        """
        for pooled in self.registry.idle():
            if pooled.target and self.core.current(pooled.target.key) is None:
                continue  # no pool hands out a connection to a dropped database
            # Reading settings in a replaced SQLite file would write a log beside the new file.
            is_replaced = not pooled.key and self._are_stale(pooled.targets())
            is_dropped = pooled.end_level(serial, is_stale=is_replaced)
            # The pool drops it only at the next checkout. Until then the connection would hold its
            # advisory locks and receive notifications.
            if is_dropped and pooled.key and pooled.process == os.getpid():
                pooled.retire()


_gates: list[Gate] = []


def install(core: Resolver, registry: Registry, *, has_engines: bool) -> Gate:
    """Install the gate until the process ends.

    An inner run in this process (pytester) installs another gate on top. ``has_engines`` says
    whether engines may exist already.

    Raises:
        ConfigError: an engine has a connection in use.
    """
    gate = Gate(core, registry)
    if _gates:
        gate.begin_inner_run()
        _gates.append(gate)
        return gate
    engines = existing_engines() if has_engines else []
    drop_early_connections(engines, core.files.is_allowed)
    _gates.append(gate)
    for engine in engines:
        _remember(engine)
    _listen()
    return gate


def _listen() -> None:
    """Listen to SQLAlchemy, once: the listeners stay until the process ends."""
    unbind_pools()
    watch_engines(_remember)
    watch_sessions()
    watch_writes(_gates)
    for owner, name, method in (
        (Engine, "do_connect", "connecting"),
        (Pool, "connect", "connected"),
        (Pool, "checkout", "checked_out"),
        (Pool, "checkin", "checked_in"),
        (Pool, "detach", "detached"),
    ):
        event.listen(owner, name, _of_last_gate(method))
    watch_removals(lambda: _gates[-1].core)
    on_audit_events({event: partial(_on_child, event) for event in CHILD_EVENTS})
    before_spawn(_before_spawn)
    for package, product in DRIVERS.items():
        when_imported(package, partial(_watch_driver, product))


def _remember(engine: Engine) -> None:
    hand_out_newest(engine.pool)
    level = 0
    if _gates:
        level = _gates[-1].core.serial()
    if known_engines.add(engine, level):
        instrument_loops(engine.dialect)


def _of_last_gate(method: str) -> Callable[..., None]:
    def listener(*arguments: object) -> None:
        getattr(_gates[-1], method)(*arguments)

    return listener


def _watch_driver(product: str, _module: object) -> None:
    product_package(product).connections.watch(lambda: _gates[-1].core)


CHILD_EVENTS = {
    "subprocess.Popen",
    "os.fork",
    "os.posix_spawn",
    "os.system",
    "os.spawn",
}


def _on_child(name: str, *values: object) -> None:
    if not is_own():
        _gates[-1].core.before_child(child_of_event(name, values))


def _before_spawn() -> None:
    _gates[-1].core.before_spawn()


def child_of_event(name: str, values: tuple[Any, ...]) -> Child:
    """Return the child process of an audit event.

    https://docs.python.org/3/library/audit_events.html
    """
    folder = None
    if name == "os.fork":
        return Child(is_fork=True)
    if name == "os.system":
        command = values[0]
    elif name == "subprocess.Popen":
        _, command, folder, _ = values
    else:
        *_, command, _ = values
    # On Windows a command is one text.
    arguments = [command] if isinstance(command, str | bytes) else command
    texts = tuple(map(os.fsdecode, arguments))
    return Child(texts, os.fsdecode(folder or ""))


def close(gate: Gate) -> bool:
    """End the run of a gate. Return whether it was an inner run.

    The gate of the outermost run stays installed, and its core refuses connections until the
    process ends. The core refuses none if a test of a run without pytest-arena has started this
    run.
    """
    is_inner = len(_gates) > 1
    if is_inner:
        _gates.remove(gate)
        gate.end_inner_run()
    return is_inner


@cache
def _read_statements() -> None:
    """Make connections read their statements. Called for the first product that needs this."""
    read_statements()


@cache
def _watch_core_connections() -> None:
    """Record the Core connection of each checkout. Called at the first connection to a server."""
    event.listen(Engine, "engine_connect", _on_engine_connect)


def _on_engine_connect(connection: Any, *_: object) -> None:
    _gates[-1].registry.note_core_connection(connection)
