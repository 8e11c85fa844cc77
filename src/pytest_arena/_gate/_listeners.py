"""The only listener to SQLAlchemy's events: redirect, check, drop what is stale, keep count."""

from __future__ import annotations

import os
import sqlite3
import weakref
from functools import cache
from threading import get_ident
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import Pool

from pytest_arena._gate import _loops, _messages
from pytest_arena._gate._alive import alive
from pytest_arena._gate._arguments import describe, redirect
from pytest_arena._gate._engines import remember_engines, used_again
from pytest_arena._gate._entries import INFO, Checkout, EntryInfo, abandon
from pytest_arena._gate._holders import Holders
from pytest_arena._gate._lost import LostWrites, note_errors_on_leaving, watch_writes
from pytest_arena._gate._origin import user_line
from pytest_arena._gate._uses import Uses
from pytest_arena._postgresql import moving as _moving
from pytest_arena._postgresql._arguments import knows
from pytest_arena._postgresql._beyond import reaches_beyond
from pytest_arena._postgresql._handle import ServerHandle, alters_session, driver_connection
from pytest_arena._postgresql._identity import close_unseen, identity
from pytest_arena._postgresql._live_names import name_of
from pytest_arena._postgresql.drivers._guard import (
    admitted,
    install_raw_drivers,
    pooled,
    raw_connections,
)
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._factory import EngineFactory
from pytest_arena._sqlite._handle import SQLiteHandle, raw_of
from pytest_arena._sqlite._raw import listen_to_raw_connections

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from pytest_arena._gate._base import Key, LostWrite, Resolver

__all__ = ["Gate", "close", "install"]


# Arguments by which an app opens its connections itself, whatever the others say.
_OWN_WAYS = ("connection_factory", "connection_class")


class Gate:
    """Stands between every engine of the process and the databases that it asks for.

    Redirecting costs some microseconds a connect; a checkout costs about five.
    """

    def __init__(self, resolver: Resolver, drivers: str = "refuse") -> None:
        self.resolver, self.drivers = resolver, drivers
        self.used: set[Key] = set()  # keys of the databases since somebody cleared it
        self._taken: weakref.WeakKeyDictionary[Any, Checkout] = weakref.WeakKeyDictionary()
        self._entries: weakref.WeakKeyDictionary[Any, None] = weakref.WeakKeyDictionary()
        self.holders = Holders()
        self.uses = Uses(self._keys_out)  # of databases on servers
        self.lost = LostWrites(resolver)
        self.has_raw = False  # whether anybody has ever opened a connection without an engine

    def connecting(
        self, dialect: Dialect, entry: Any, cargs: list[Any], cparams: dict[str, Any]
    ) -> None:
        """Decide where a connection goes, before it is opened."""
        __tracebackhide__ = True
        used_again(dialect)
        asked = describe(dialect, cargs, cparams)
        info = EntryInfo(self.resolver.aim(asked))
        if entry is not None:
            entry.info[INFO] = info
        if asked.product != "sqlite":
            self._prepare_server(info, dialect, cargs, cparams)
        else:
            self._prepare(info, cargs, cparams)
            if dialect.is_async:
                # aiosqlite has one thread for each connection, and nobody else works on it; so
                # that the settling thread may ask what the connection looks like.
                cparams["check_same_thread"] = False

    def _prepare(self, info: EntryInfo, cargs: list[Any], cparams: dict[str, Any]) -> None:
        def made(connection: sqlite3.Connection) -> None:
            raw = raw_of(connection)
            if raw is not None:
                info.handle = SQLiteHandle.to(raw)
                if info.aim is not None:
                    sql.leave_wal_alone(raw)

        base = cparams.get("factory", sqlite3.Connection)
        cparams["factory"] = EngineFactory(self.resolver, info.aim, base, made)
        if info.aim is not None:
            redirect(info.aim, cargs, cparams)

    def _prepare_server(
        self, info: EntryInfo, dialect: Dialect, cargs: list[Any], cparams: dict[str, Any]
    ) -> None:
        if info.aim is not None:
            redirect(info.aim, cargs, cparams, driver=dialect.driver)
            _moving.prepare(dialect, cparams, tell=self.resolver.ledger.note)
            _listen_to_statements()
        # What this listener sets up holds, unless another one has the last word after it.
        has_own_way = any(map(cparams.get, _OWN_WAYS))
        is_last = len(dialect.dispatch.do_connect) == 1 and not has_own_way
        info.is_led = info.aim is not None and is_last
        # Allowed by its arguments, which need not be the last word.
        info.is_doubtful = info.aim is None and not is_last and knows(dialect.driver)

    def connected(self, dbapi_connection: Any, entry: Any) -> None:
        """Check a live connection that did not come the way of ``connecting``."""
        __tracebackhide__ = True
        _loops.free_locks(dbapi_connection)
        _moving.note_owner(dbapi_connection)
        self._entries[entry] = None
        info: EntryInfo | None = entry.info.get(INFO)
        if info is None or not self._is_as_led(info, dbapi_connection):
            entry.info[INFO] = self._info_of_unseen(dbapi_connection)

    def _is_as_led(self, info: EntryInfo, dbapi_connection: Any) -> bool:
        if info.aim is None:
            return not info.is_doubtful
        if info.is_led:
            info.handle = ServerHandle(self.resolver, info.aim, dbapi_connection)
        return info.handle is not None and info.handle.is_of(dbapi_connection)

    def _info_of_unseen(self, dbapi_connection: Any) -> EntryInfo:
        __tracebackhide__ = True
        raw = raw_of(dbapi_connection)
        if raw is None:
            return self._info_of_unseen_server(dbapi_connection)
        file = sql.main_file(dbapi_connection)
        if file and not self.resolver.is_inside(file) and not self.resolver.files.is_free(file):
            raise self.resolver.ledger.refused(_messages.unknown_file(file))
        if not file:
            self.resolver.ledger.note(_messages.kept_memory())
        aim = self.resolver.aim_at(file) if file else None
        return EntryInfo(aim, SQLiteHandle.to(raw))

    def _info_of_unseen_server(self, dbapi_connection: Any) -> EntryInfo:
        """Whatever name it was opened by: the server says which one it is, and which database."""
        __tracebackhide__ = True
        known = admitted(driver_connection(dbapi_connection))
        if known is not None and known.address is None:
            return EntryInfo(None)  # as arena_allow has it
        found = identity(dbapi_connection)
        aim = self.resolver.aim_of(found) if found is not None else None
        if aim is not None:
            pooled(driver_connection(dbapi_connection))
            return EntryInfo(aim, ServerHandle(self.resolver, aim, dbapi_connection))
        description = name_of(dbapi_connection, found)
        if not self.resolver.files.is_allowed(description):
            close_unseen(dbapi_connection)
            raise self.resolver.ledger.refused(_messages.unknown_connection(description))
        return EntryInfo(None)

    def checked_out(self, dbapi_connection: Any, entry: Any) -> None:
        """Drop a stale connection, quietly: SQLAlchemy's pool opens another one at once."""
        __tracebackhide__ = True
        _loops.free_locks(dbapi_connection)
        if _moving.is_foreign(dbapi_connection):
            raise DisconnectionError("this connection belongs to another event loop")
        info = self._info_of(dbapi_connection, entry)
        aims = info.aims()
        if info.stale or any(self.resolver.current(aim.key) != aim for aim in aims):
            raise DisconnectionError("the database of this connection is not the test's any more")
        self.used.update([aim.key for aim in aims])
        info.begin_use()
        self._taken[entry] = Checkout(entry, info.handle, user_line(), self.resolver.serial())
        self.uses.begin(aims)

    def _info_of(self, dbapi_connection: Any, entry: Any) -> EntryInfo:
        """What is known of a connection that is taken, of which there may be another one now."""
        __tracebackhide__ = True
        if INFO not in entry.info:  # opened before the gate was there
            self.connected(dbapi_connection, entry)
        info: EntryInfo = entry.info[INFO]
        if info.process != os.getpid():
            abandon(entry)
            raise DisconnectionError("this connection belongs to the process that forked this one")
        if info.handle is not None and not info.handle.is_of(dbapi_connection):
            # A listener has put another one in its place.
            info = entry.info[INFO] = self._info_of_unseen(dbapi_connection)
        return info

    def checked_in(self, entry: Any) -> None:
        """The connection is back in its pool, or is gone."""
        taken = self._taken.get(entry)
        # Another thread may ask right now, and must not find it neither out nor counted.
        if taken is not None and isinstance(taken.handle, ServerHandle):
            self.uses.end(taken.handle.key)
        self._taken.pop(entry, None)

    def detached(self, entry: Any) -> None:
        """Somebody keeps the connection for good: no pool tells when it is used."""
        taken = self._taken.get(entry)
        if taken is not None and isinstance(taken.handle, ServerHandle):
            self.uses.unwatched(taken.handle.key)  # first, as above
        self._taken.pop(entry, None)

    def opened_raw(self, key: Key) -> None:
        """Somebody has opened a connection without an engine."""
        self.has_raw = True
        self.used.add(key)
        self.uses.unwatched(key)

    def _keys_out(self) -> list[Key]:
        return [one.handle.key for one in self.taken() if isinstance(one.handle, ServerHandle)]

    def take_lost(self) -> list[LostWrite]:
        """Return what was written in the level that stands, and lost, since this was called last.

        A transaction counts once it is over: its session or connection was closed, or given back
        to the pool, and nobody had committed it, rolled it back, or met an error.
        """
        return self.lost.take()

    def taken(self) -> list[Checkout]:
        """Return the connections that are out of their pools."""
        found = map(self._taken.get, alive(self._taken) if self._taken else ())  # thrice a test
        return [taken for taken in found if taken is not None]

    def let_go_of_stale(self) -> None:
        """Take away the connections to databases on servers that are no test's any more.

        A wider fixture that holds one would read on, and write, in the database of a test gone by.
        """
        for taken in self.taken():
            info: EntryInfo | None = taken.entry.info.get(INFO)
            is_led = info is not None and isinstance(info.handle, ServerHandle)
            # Another thread may be at it right now; the server ends it, with its database.
            is_ours = info is not None and (info.process, taken.thread) == (
                os.getpid(),
                get_ident(),
            )
            if info is None or not is_led or not is_ours:
                continue
            if any(self.resolver.current(aim.key) != aim for aim in info.aims()):
                self._taken.pop(taken.entry, None)  # first: its holder may take it anew at once
                if self.holders.give_up(taken):
                    self.resolver.ledger.note(_messages.lost_transaction(taken.line))

    def end_raw(self, serial: int) -> None:
        """End what drivers have opened by themselves in a level that is left."""
        for one in raw_connections():
            if one.serial == serial and one.pid:
                self.resolver.end_backend(one.aim.key, one.pid, cancel=False)

    def drop_altered(self) -> None:
        """Give up idle connections that do not look as they did when they were new.

        A test's temporary table would hide a real one from the next test; its lock would block it.
        """
        for entry in alive(self._entries):
            info: EntryInfo | None = entry.info.get(INFO)
            # One that is being closed, in a thread of its own, must not be touched: SQLite would
            # crash. Its entry knows no connection any more.
            is_idle = entry not in self._taken and entry.dbapi_connection is not None
            if info is not None and is_idle and info.end_use():
                _end_on_server(info)


def _end_on_server(info: EntryInfo) -> None:
    # Its pool drops it at its next checkout, which may be never; its advisory locks and what it
    # listens to would go on until then.
    if isinstance(info.handle, ServerHandle) and info.process == os.getpid():
        info.handle.roll_back()


_gates: list[Gate] = []
_installed = False


def install(resolver: Resolver, *, drivers: str = "refuse") -> Gate:
    """Set up the gate, for good: from here until the process ends no engine goes around it.

    A run inside this run (pytester in-process) sets up its own on top. ``drivers`` says what is
    to be done with connections to servers that no engine opens.
    """
    global _installed  # noqa: PLW0603 - listeners cannot be taken back, so it happens once
    _gates.append(Gate(resolver, drivers))
    if not _installed:
        _installed = True
        _loops.install()
        remember_engines(lambda dialect: watch_writes(dialect, _lost))
        note_errors_on_leaving()
        _listen()
        listen_to_raw_connections(_resolver)
        install_raw_drivers(_resolver, _drivers, _used)
    return _gates[-1]


def _resolver() -> Resolver | None:
    return _gates[-1].resolver if _gates else None


def _drivers() -> str:
    return _gates[-1].drivers if _gates else "off"


def _used(key: Key) -> None:
    if _gates:
        _gates[-1].opened_raw(key)


def _lost() -> LostWrites | None:
    return _gates[-1].lost if _gates else None


def close(gate: Gate) -> bool:
    """The run of this gate is over. Returns whether it was inside another run, which goes on.

    The outermost gate stays: its resolver refuses everything until the process ends.
    """
    inside = len(_gates) > 1
    if inside:
        _gates.remove(gate)
    return inside


def _listen() -> None:
    event.listen(Engine, "do_connect", _on_connecting)
    event.listen(Pool, "connect", _on_connected)
    event.listen(Pool, "checkout", _on_checked_out)
    event.listen(Pool, "checkin", _on_checked_in)
    event.listen(Pool, "detach", _on_detached)


@cache
def _listen_to_statements() -> None:
    # Not before an engine on a server connects: each statement of every engine pays for it.
    event.listen(Engine, "before_cursor_execute", _on_statement)
    event.listen(Engine, "engine_connect", _on_engine_connect)


def _on_engine_connect(connection: Any, *_: Any) -> None:
    _gates[-1].holders.made(connection, _gates[-1].resolver.serial())


def _on_statement(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
    __tracebackhide__ = True
    beyond = reaches_beyond(statement)
    if not (beyond or alters_session(statement)):
        return
    info = connection.connection.info.get(INFO)
    if isinstance(info, EntryInfo) and isinstance(info.handle, ServerHandle):
        if beyond:
            raise _gates[-1].resolver.ledger.refused(_messages.beyond(beyond))
        info.handle.altered()


def _on_connecting(dialect: Any, entry: Any, cargs: Any, cparams: Any) -> None:
    __tracebackhide__ = True
    _gates[-1].connecting(dialect, entry, cargs, cparams)


def _on_connected(dbapi_connection: Any, entry: Any) -> None:
    __tracebackhide__ = True
    _gates[-1].connected(dbapi_connection, entry)


def _on_checked_out(dbapi_connection: Any, entry: Any, _proxy: Any) -> None:
    __tracebackhide__ = True
    _gates[-1].checked_out(dbapi_connection, entry)


def _on_checked_in(dbapi_connection: Any, entry: Any) -> None:
    _moving.at_checkin(dbapi_connection)
    _gates[-1].checked_in(entry)


def _on_detached(_dbapi_connection: Any, entry: Any) -> None:
    _gates[-1].detached(entry)
