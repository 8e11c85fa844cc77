"""The engines of the process, and the only listener to SQLAlchemy's events.

It redirects connections, checks them, drops what is stale, and keeps count.
"""

from __future__ import annotations

import gc
import itertools
import os
import weakref
from contextlib import contextmanager
from functools import cache, partial, wraps
from threading import get_ident
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import Dialect, Engine
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import Pool

from pytest_arena._gate import _gate_notes, _loops
from pytest_arena._gate._answers import apart_from_requests
from pytest_arena._gate._engines import describe
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
    watch_writes,
)
from pytest_arena._origin import is_own, user_line
from pytest_arena._process import hear, send_to_spawned, when_imported
from pytest_arena._product import DRIVERS, ROOMS, UNNAMED, Core, Live, loaded, room
from pytest_arena._values import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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

    def connecting(
        self, dialect: Dialect, entry: Any, cargs: list[Any], cparams: dict[str, Any]
    ) -> None:
        """Decide where a connection goes, before it is opened."""
        _find_again(dialect)
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
        _loops.free_locks(dbapi_connection)
        _loops.note_owner(dbapi_connection)
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
        _loops.free_locks(dbapi_connection)
        self.registry.come(entry)
        self.core.refuse_late()
        if _loops.is_foreign(dbapi_connection):
            raise DisconnectionError("this connection belongs to another event loop")
        info = self._info_of(dbapi_connection, entry)
        aims = info.aims()
        if info.stale or any(self.core.current(aim.key) != aim for aim in aims):
            if info.kept_by:
                self.core.ledger.note(_gate_notes.lost_setting())
            raise DisconnectionError(
                "the database of this connection is not the test's any more"
            )
        info.begin_use()
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
        for _, record in self.registry.idle():
            if not any(record is one for one in others):
                record.keep(serial)

    def drop_altered(self, serial: int) -> None:
        """Give up idle connections that do not look as they did when the level began.

        A test's temporary table would hide a real one from the next test; its lock would block it.
        """
        for _, record in self.registry.idle():
            if record.aim and self.core.current(record.aim.key) is None:
                continue  # its database is gone: it is not looked at, and never taken again
            # Its pool drops it at its next checkout, which may be never; its advisory locks and
            # what it listens to would go on until then.
            is_new = (
                record.end_use(serial) and record.key and record.process == os.getpid()
            )
            if is_new and record.handle is not None:
                record.handle.roll_back()


# By their age: a number is given once. Weak, so that an engine ends when its app lets go of it.
_known: weakref.WeakValueDictionary[int, Engine] = weakref.WeakValueDictionary()
_disposed: weakref.WeakSet[Dialect] = weakref.WeakSet()
# By their dialects, of which several engines may have one.
_engines: weakref.WeakKeyDictionary[Dialect, weakref.WeakSet[Engine]] = (
    weakref.WeakKeyDictionary()
)
# Serials of the levels in which the first of them were made.
_levels: weakref.WeakKeyDictionary[Dialect, int] = weakref.WeakKeyDictionary()
_ages = itertools.count()


def find_engines() -> list[Engine]:
    """Return the engines that exist now, the oldest first, without those that are passed over.

    Costs a microsecond for each.
    """
    return [engine for known in _known.valuerefs() if (engine := known()) is not None]


def engines_in_use() -> list[Engine]:
    """Return the engines that exist, without those that were disposed of and not used since."""
    return [engine for engine in find_engines() if engine.dialect not in _disposed]


def engines_by(dialect: Dialect) -> list[Engine]:
    """Return those of them that have this dialect. Costs no more where there are many others."""
    return [] if dialect in _disposed else [*_engines.get(dialect, ())]


def pass_over(dialects: list[Dialect]) -> None:
    """Have their engines count as disposed of, and not be found, until one connects again."""
    _disposed.update(dialects)
    for known in _known.valuerefs():
        if (engine := known()) is not None and engine.dialect in dialects:
            _known.pop(known.key, None)


def _find_again(dialect: Dialect) -> None:
    if dialect in _disposed:
        _disposed.discard(dialect)
        hidden = {*_engines.get(dialect, ())} - {*find_engines()}
        _known.update({next(_ages): engine for engine in hidden})


def level_of(dialect: Dialect) -> int:
    """Return the serial of the level in which its first engine was made; 0 outside of any."""
    return _levels.get(dialect, 0)


def remember_engines() -> None:
    """Know all engines from here on, and what they write: those that exist, and each that is made.

    SQLAlchemy has no event for a new engine. Its dialect is told of each, which is what is
    wrapped; ``Engine.__init__`` is not, since ``create_engine`` reads its signature.
    """
    for engine in _made_before():
        _remember(engine)
    dispose = Engine.dispose

    @wraps(dispose)
    def disposing(self: Engine, *args: Any, **kwargs: Any) -> None:
        dispose(self, *args, **kwargs)
        _disposed.add(self.dialect)

    # There is an event; but where anybody listens to one of an engine's, each statement pays 10 µs.
    Engine.dispose = disposing  # type: ignore[method-assign]  # as said above
    created = vars(Dialect)["engine_created"].__func__

    @wraps(created)
    def engine_created(cls: type[Dialect], engine: Engine) -> None:
        _remember(engine)
        created(cls, engine)

    Dialect.engine_created = classmethod(engine_created)  # type: ignore[assignment,method-assign]  # as said above


def _remember(engine: Engine) -> None:
    if engine.dialect not in _engines:
        _engines[engine.dialect] = weakref.WeakSet()
        _levels[engine.dialect] = _gates[-1].core.serial() if _gates else 0
        _loops.drop_quietly(engine.dialect)
        watch_writes(engine.dialect, lambda: _gates[-1].lost)
    _engines[engine.dialect].add(engine)
    _known[next(_ages)] = engine


def _made_before() -> list[Engine]:
    """Ask the garbage collector for the engines that exist, which costs some ten milliseconds."""
    # Referrers come generation by generation, the youngest first; within a generation, objects
    # stand in the order in which they were made.
    # Not isinstance, which asks a lazy proxy for its __class__: that may raise, or load something.
    referrers = gc.get_referrers(Engine)
    wanted = {
        id(found): found for found in referrers if issubclass(type(found), Engine)
    }
    if len(wanted) <= 1:
        return list(wanted.values())
    objects = (
        found for generation in (2, 1, 0) for found in gc.get_objects(generation)
    )
    found_again = [wanted.pop(id(found)) for found in objects if id(found) in wanted]
    return [
        *found_again,
        *wanted.values(),
    ]  # a collection meanwhile moves one past the search


_gates: list[Gate] = []


def install(core: Core, registry: Registry) -> Gate:
    """Set up the gate, for good: from here until the process ends no engine goes around it.

    A run inside this run (pytester in-process) sets up its own on top.
    """
    _gates.append(Gate(core, registry))
    _listen()
    return _gates[-1]


@cache
def _listen() -> None:
    """Listeners cannot be taken back, so this happens once."""
    _loops.install()
    remember_engines()
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
