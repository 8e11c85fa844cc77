"""The only listener to SQLAlchemy's events.

It redirects connections, checks them, and drops stale ones.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import cache, partial
from threading import get_ident
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import Pool

from pytest_arena._gate import _any_loop, _gate_notes
from pytest_arena._gate._answers import apart_from_requests
from pytest_arena._gate._engines import describe
from pytest_arena._gate._instrument import instrument
from pytest_arena._gate._known_engines import known_engines, watch_engines
from pytest_arena._gate._loop_bound import bind_to_loop, is_foreign
from pytest_arena._gate._registry import (
    INFO,
    Checkout,
    ConnectionRecord,
    watch_sessions,
)
from pytest_arena._gate._writes import (
    LostWrites,
    note_errors_on_leaving,
    watch_closed_sessions,
)
from pytest_arena._origin import is_own, user_line
from pytest_arena._process import hear, send_to_spawned, when_imported
from pytest_arena._product import (
    DRIVERS,
    ROOMS,
    UNNAMED,
    Core,
    Live,
    loaded,
    nothing,
    room,
)
from pytest_arena._values import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import Dialect

    from pytest_arena._gate._registry import Registry

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


# What a fork left to the child: SQLite forbids to use it there, and to close it as well.
_abandoned: list[Any] = []


class Gate:
    """Stands between every engine of the process and the databases that it asks for.

    Redirecting costs some microseconds a connect; a checkout costs about five.
    """

    def __init__(self, core: Core, registry: Registry) -> None:
        self.core, self.registry = core, registry
        self.lost = LostWrites(core, registry)
        self._bring_databases_back: Callable[[], None] = nothing

    def begin_inside(self) -> None:
        """Forget the databases of engines of the run in which this one begins."""
        self._bring_databases_back = known_engines.set_databases_aside()

    def end_inside(self) -> None:
        """Bring the databases of the other run back."""
        self._bring_databases_back()

    def connecting(
        self, dialect: Dialect, entry: Any, cargs: list[Any], cparams: dict[str, Any]
    ) -> None:
        """Decide where a connection goes, before it is opened."""
        known_engines.note_connect(dialect)
        if entry is not None:
            self.registry.come(entry)
        self.core.refuse_late()
        asked = describe(dialect, cargs, cparams)
        with apart_from_requests():  # the first connection may build a template
            info = ConnectionRecord(self.core.aim(asked))
            if entry is not None:
                entry.info[INFO] = info
            if asked.product in ROOMS:
                lead = room(asked.product).connections.lead
                info.opened = lead(self.core, dialect, info.aim, cargs, cparams)

    def connected(self, dbapi_connection: Any, entry: Any) -> None:
        """Check a live connection that did not come the way of ``connecting``."""
        _any_loop.free_locks(dbapi_connection)
        bind_to_loop(dbapi_connection)
        self.registry.add(entry)
        info: ConnectionRecord | None = entry.info.get(INFO)
        live = (
            info.opened(dbapi_connection) if info is not None and info.opened else None
        )
        if info is None or (live is None and (info.opened or info.aim)):
            info = entry.info[INFO] = self._info_of_unseen(dbapi_connection)
        elif live is not None:
            info.handle, info.opened = live.handle, None
        if info.handle is not None and info.handle.reads_statements:
            _listen_to_statements()

    def _info_of_unseen(self, dbapi_connection: Any) -> ConnectionRecord:
        """Nobody has led it: its product knows it, if it is one of arena's."""
        found = (
            each.connections.recognize(self.core, dbapi_connection)
            for each in [*loaded.values()]
        )
        live = next(filter(None, found), None)
        if live is None:
            connection = getattr(
                dbapi_connection, "driver_connection", dbapi_connection
            )
            driver = type(connection).__module__.partition(".")[0]
            live = Live(outside=f"{driver}://{UNNAMED}")
        if live.outside and not self.core.files.is_allowed(live.outside):
            # Its pool does not know of it yet; an async one is closed without awaiting.
            getattr(dbapi_connection, "terminate", dbapi_connection.close)()
            raise self.core.ledger.refused(_gate_notes.unknown_connection(live.outside))
        return ConnectionRecord(live.aim, live.handle)

    def checked_out(self, dbapi_connection: Any, entry: Any, _proxied: Any) -> None:
        """Drop a stale connection, quietly: SQLAlchemy's pool opens another one at once."""
        _any_loop.free_locks(dbapi_connection)
        self.registry.come(entry)
        self.core.refuse_late()
        if is_foreign(dbapi_connection):
            raise DisconnectionError("this connection belongs to another event loop")
        info = self._info_of(dbapi_connection, entry)
        aims = info.aims()
        if info.stale or any(self.core.current(aim.key) != aim for aim in aims):
            if info.kept_by:
                self.core.ledger.note(_gate_notes.lost_setting())
            raise DisconnectionError(
                "the database of this connection is not the test's any more"
            )
        info.begin_use(entry.info)
        checkout = Checkout(
            entry, info.handle, info.key, user_line(), self.core.serial()
        )
        self.registry.take(checkout, aims)
        # Again: its test may have ended since, without this connection among those checked out.
        self.core.refuse_late()

    def _info_of(self, dbapi_connection: Any, entry: Any) -> ConnectionRecord:
        """What is known of a connection that is taken, of which there may be another one now."""
        if INFO not in entry.info:  # opened before the gate was there
            self.connected(dbapi_connection, entry)
        info: ConnectionRecord = entry.info[INFO]
        if info.process != os.getpid():
            _abandoned.append(entry.dbapi_connection)
            entry.dbapi_connection = None
            raise DisconnectionError(
                "this connection belongs to the process that forked this one"
            )
        if info.handle is not None and not info.handle.is_of(dbapi_connection):
            # A listener has put another one in its place.
            info = entry.info[INFO] = self._info_of_unseen(dbapi_connection)
        return info

    def checked_in(self, _dbapi_connection: Any, entry: Any) -> None:
        """The connection is back in its pool, or is gone."""
        if (
            taken := self.registry.find(entry)
        ) is not None and taken.handle is not None:
            if taken.key and taken.handle.is_begun:  # its pool does not roll back
                self.registry.may_be_used(taken.key)
            taken.handle.returned()
        self.registry.give_back(entry)

    def detached(self, _dbapi_connection: Any, entry: Any) -> None:
        """Somebody keeps the connection for good: no pool tells when it is used."""
        if (taken := self.registry.find(entry)) is not None:
            self.registry.keep(taken)

    def let_go_of_stale(self) -> None:
        """Take away the connections to databases on servers that are no test's any more.

        A wider fixture that holds one would read on, and write, in the database of a test gone by.
        """
        for taken in self.registry.taken():
            info: ConnectionRecord | None = taken.entry.info.get(INFO)
            # Another thread may be at it right now; the server ends it, with its database.
            here = os.getpid(), get_ident()
            if (
                info is None
                or taken.key is None
                or (info.process, taken.thread) != here
            ):
                continue
            is_stale = any(self.core.current(aim.key) != aim for aim in info.aims())
            if is_stale and self.registry.give_up(taken):
                self.core.ledger.note(_gate_notes.lost_transaction(taken.line))

    def end_raw(self, serial: int) -> None:
        """End what drivers have opened by themselves in a level that is left."""
        for each in [*loaded.values()]:
            each.connections.end_raw(self.core, serial)

    @contextmanager
    def keeping_altered(self, serial: int) -> Iterator[None]:
        """Around a wide fixture's set-up: what it sets in connections is there for its tests."""
        others = [record for _, record in self.registry.idle() if record.used]
        yield
        for entry, record in self.registry.idle():
            if not any(record is one for one in others):
                record.keep(serial, entry.info)

    def drop_altered(self, serial: int) -> None:
        """Give up idle connections that do not look as they did when the level began.

        A test's temporary table would hide a real one from the next test; its lock would block it.
        """
        for entry, record in self.registry.idle():
            if record.aim and self.core.current(record.aim.key) is None:
                continue  # its database is gone: it is not looked at, and never taken again
            # Its pool drops it at its next checkout, which may be never; its advisory locks and
            # what it listens to would go on until then.
            is_new = (
                record.end_use(serial, entry.info)
                and record.key
                and record.process == os.getpid()
            )
            if is_new and record.handle is not None:
                record.handle.roll_back()


_gates: list[Gate] = []


def install(core: Core, registry: Registry) -> Gate:
    """Set up the gate, for good: from here until the process ends no engine goes around it.

    A run inside this run (pytester in-process) sets up its own on top.
    """
    gate = Gate(core, registry)
    if _gates:
        gate.begin_inside()
    _gates.append(gate)
    _listen()
    return gate


@cache
def _listen() -> None:
    """Listeners cannot be taken back, so this happens once."""
    _any_loop.install()
    watch_engines(_remember)
    watch_sessions()
    note_errors_on_leaving()
    watch_closed_sessions(lambda: _gates[-1].lost)
    for owner, name, method in (
        (Engine, "do_connect", "connecting"),
        (Pool, "connect", "connected"),
        (Pool, "checkout", "checked_out"),
        (Pool, "checkin", "checked_in"),
        (Pool, "detach", "detached"),
    ):
        event.listen(owner, name, _of_last_gate(method))
    hear({event: partial(_on_child, event) for event in _CHILDREN})
    send_to_spawned(_before_spawn)
    for package, product in DRIVERS.items():
        when_imported(package, partial(_watch_driver, product))


def _remember(engine: Engine) -> None:
    level = _gates[-1].core.serial() if _gates else 0
    if known_engines.remember(engine, level):
        instrument(engine.dialect, lambda: _gates[-1].lost)


def _of_last_gate(method: str) -> Callable[..., None]:
    def listener(*given: Any) -> None:
        getattr(_gates[-1], method)(*given)

    return listener


def _watch_driver(product: str, _module: object) -> None:
    room(product).connections.watch(lambda: _gates[-1].core)


_CHILDREN = {"subprocess.Popen", "os.fork", "os.posix_spawn", "os.system", "os.spawn"}


def _on_child(name: str, *values: Any) -> None:
    if not is_own():
        _gates[-1].core.before_child(_child(name, values))


def _before_spawn() -> list[object]:
    return _gates[-1].core.before_spawn()


def _child(name: str, values: tuple[Any, ...]) -> Child:
    """Return the child process that an audit event announces.

    https://docs.python.org/3/library/audit_events.html
    """
    folder = None
    variables = None
    if name == "os.fork":
        return Child(is_fork=True)
    if name == "os.system":
        command = values[0]
    elif name == "subprocess.Popen":
        _, command, folder, variables = values
    else:
        *_, command, variables = values
    # On Windows a command is one text.
    arguments = [command] if isinstance(command, str | bytes) else command
    environment = variables
    if variables:
        environment = {
            os.fsdecode(key): os.fsdecode(variables[key]) for key in variables
        }
    return Child(
        tuple(os.fsdecode(argument) for argument in arguments),
        os.fsdecode(folder or ""),
        environment,
    )


def close(gate: Gate) -> bool:
    """The run of this gate is over. Returns whether it was inside another run, which goes on.

    The outermost gate stays: its core refuses everything until the process ends, or lets all go
    where a test of a run without arena had begun this one.
    """
    inside = len(_gates) > 1
    if inside:
        _gates.remove(gate)
        gate.end_inside()
    return inside


@cache
def _listen_to_statements() -> None:
    # Not before an engine on a server connects: each statement of every engine pays for it.
    event.listen(Engine, "before_cursor_execute", _on_statement, retval=True)
    event.listen(Engine, "engine_connect", _on_engine_connect)


def _on_engine_connect(connection: Any, *_: Any) -> None:
    _gates[-1].registry.hold(connection, _gates[-1].core.serial())


def _on_statement(
    connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any
) -> tuple[str, Any]:
    info = connection.connection.info.get(INFO)
    if isinstance(info, ConnectionRecord) and info.handle is not None:
        statement = info.handle.executing(statement, connection)
    return statement, parameters
