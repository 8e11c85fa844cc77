"""Which connections and files a test may open."""

from __future__ import annotations

import _sqlite3
import os
import sqlite3
import sqlite3.dbapi2
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena import _process
from pytest_arena._origin import frames
from pytest_arena._sqlite import _messages as messages
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._guarded_connection import (
    GuardedConnection,
    guarded_class,
    is_outside,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from pytest_arena._product import ConnectTarget, Core

__tracebackhide__ = True  # a traceback ends at a line of the app or of the test

_BEFORE_FACTORY = 5  # the number of sqlite3.connect's parameters before `factory`


@dataclass(frozen=True, slots=True)
class EngineFactory:
    """The ``factory`` of an engine's connections. It checks the file, then opens it.

    ``base`` is the app's own ``factory``. ``target`` is the engine's database, None if it keeps its
    own. ``made`` receives each new connection.
    """

    core: Core
    target: ConnectTarget | None
    base: object
    made: Callable[[sqlite3.Connection], None]

    def __call__(
        self, database: Any, *args: object, **kwargs: object
    ) -> sqlite3.Connection:
        """Open the file.

        Raises:
            RefusedError: it is not the test's.
        """
        core = self.core
        file = sql.file_of(os.fsdecode(database), uri=bool(kwargs.get("uri")))
        is_target = self.target is not None and file == self.target.file
        if not is_target and is_outside(core, file):
            of_app = core.files.belongs_to_app(file)
            raise core.ledger.refused(messages.unknown_file(file, of_app=of_app))
        kwargs.pop("factory", None)
        make = guarded_class(self.base)
        connection: sqlite3.Connection = make(database, *args, **kwargs)
        _guard(core, connection)
        if isinstance(connection, GuardedConnection):
            connection.arena_serve(
                partial(core.ensure_attached_target, beside=self.target),
                core.ledger.made_table if self.target else None,
            )
        self.made(connection)
        return connection


def _guard(core: Core, connection: sqlite3.Connection) -> None:
    """Guard the statements of an open connection.

    A connection of a class that is not guarded may attach no file, because its statements cannot be
    read. The app gets SQLite's error, and the report names the refusal.
    """
    if isinstance(connection, GuardedConnection):
        connection.arena_guard(core)
        return
    if isinstance(connection, sql.OwnConnection):
        return

    def authorize(action: int, name: str | None, *_: object) -> int:
        if action != sqlite3.SQLITE_ATTACH:
            return sqlite3.SQLITE_OK
        core.ledger.refused(messages.attached_unseen(sql.file_of(name or "")))
        return sqlite3.SQLITE_DENY

    connection.set_authorizer(authorize)


@cache
def watch_raw_connections(core: Callable[[], Core | None]) -> None:
    """Watch ``sqlite3.connect`` and the app's files until the process ends.

    An audit hook sees a file before it is opened, and can refuse it. No code can remove the hook:
    https://docs.python.org/3/library/sys.html#sys.addaudithook. ``sqlite3.connect`` is also
    wrapped, because a hook cannot guard the connection that is about to be made.
    """
    _process.on_audit_events(
        {
            "sqlite3.connect": partial(_admit, core),
            "open": partial(_admit_open, core),
            "os.remove": partial(_admit_removal, core),
            "os.rename": partial(_admit_renaming, core),
            "os.truncate": partial(_admit_truncation, core),
        }
    )
    connect = _guarded_connect(core)
    # A reload of sqlite3 takes its functions from _sqlite3.
    for module in (sqlite3, sqlite3.dbapi2, _sqlite3):
        vars(module)["connect"] = connect


def _guarded_connect(core: Callable[[], Core | None]) -> Callable[..., object]:
    connect = sqlite3.connect

    @wraps(connect)
    def guarded(*args: Any, **kwargs: Any) -> object:
        factory = kwargs.get("factory", GuardedConnection)
        if isinstance(factory, EngineFactory):
            return connect(*args, **kwargs)
        # A caller that asks for sqlite3's class gets it.
        if len(args) <= _BEFORE_FACTORY and factory is not sqlite3.Connection:
            kwargs["factory"] = guarded_class(factory)
        connection = connect(*args, **kwargs)
        now = core()
        if now is not None and isinstance(connection, sqlite3.Connection):
            _guard(now, connection)
            if isinstance(connection, GuardedConnection):
                _place(now, connection, args[0] if args else kwargs["database"])
        return connection

    return guarded


def _place(core: Core, connection: GuardedConnection, database: object) -> None:
    """Set the file of a raw connection."""
    file = _raw_file(database)
    if not file:
        return
    if core.is_inside(file):
        target = core.target_at(file)
        connection.arena_serve(partial(core.ensure_attached_target, beside=target))
    else:
        connection.arena_watch(core.files.register_opened(file))


def _raw_file(database: Any) -> str:
    name = os.fsdecode(database)
    return sql.file_of(name, uri=name.startswith("file:"))


def _admit(core: Callable[[], Core | None], database: object, *_: object) -> None:
    """Refuse a raw connection to a file of the app.

    Raises:
        RefusedError: it is one.
    """
    now = core()
    if now is None or not isinstance(database, str | bytes | os.PathLike):
        return  # SQLite raises its own error for another type
    file = _raw_file(database)
    if not is_outside(now, file):
        now.refuse_late()
        return
    of_app = now.files.belongs_to_app(file)
    if _is_opened_by_engine():
        raise now.ledger.refused(messages.unknown_file(file, of_app=of_app))
    if of_app:
        raise now.ledger.refused(messages.production_file(file))


def _admit_open(core: Callable[[], Core | None], name: object, *_: object) -> None:
    """Refuse to let a test open a database file of the app by its path. Costs 2 µs.

    The test's database is another file: the app would read or overwrite the developer's file.
    """
    now = core()
    if (
        now is None
        or not now.ledger.test
        or not isinstance(name, str | bytes | os.PathLike)
    ):
        return
    file = os.fsdecode(name)
    has_name = file.endswith(now.files.names)
    is_of_app = has_name and now.files.is_replaced(os.path.realpath(file))
    if is_of_app or now.files.is_link_into_app(file):
        raise now.ledger.refused(messages.opened_file(file))


def _admit_removal(
    core: Callable[[], Core | None], name: object, folder: int = -1, *_: object
) -> None:
    """Refuse to let a test remove a database file of the app. A file must be there.

    A fixture may remove an empty file that ``tempfile`` has made for its engine.
    """
    file = _entry(name, folder)
    now = core()
    if now is not None and now.files.give_up_empty(file):
        return
    _admit_change(core, file, f"removing {file}", is_there=os.path.lexists(file))


def _admit_renaming(
    core: Callable[[], Core | None],
    old: object,
    new: object,
    old_folder: int = -1,
    new_folder: int = -1,
) -> None:
    """Refuse to let a test rename a database file of the app, or put another in its place."""
    source = _entry(old, old_folder)
    target = _entry(new, new_folder)
    _admit_change(core, source, f"renaming {source}", is_there=os.path.lexists(source))
    _admit_change(core, target, f"renaming {source} to {target}")


def _admit_truncation(core: Callable[[], Core | None], name: Any, *_: object) -> None:
    """Refuse to let a test truncate a database file of the app."""
    file = "" if isinstance(name, int) else os.path.realpath(os.fsdecode(name))
    is_there = Path(file).is_file()
    _admit_change(
        core, file, f"truncating {file}", is_there=is_there, follows_links=True
    )


def _admit_change(
    core: Callable[[], Core | None],
    file: str,
    action: str,
    *,
    is_there: bool = True,
    follows_links: bool = False,
) -> None:
    now = core()
    if now is None or not now.ledger.test or not is_there:
        return
    database = _without_log(file)
    has_name = database.endswith(now.files.names)
    is_of_app = has_name and now.files.is_replaced(database)
    if is_of_app or (follows_links and now.files.is_link_into_app(file)):
        raise now.ledger.refused(messages.changed_file(database, action))


_LOGS = ("-wal", "-journal")  # SQLite keeps what was written last beside the file


def _without_log(file: str) -> str:
    for suffix in _LOGS:
        file = file.removesuffix(suffix)
    return file


def _entry(name: Any, folder: int) -> str:
    """Return the path of an entry of a folder. An entry that is a link is not followed.

    ``shutil.rmtree`` names a file by an open folder. Linux knows the path of that.
    """
    path = Path(os.fsdecode(name))
    if folder >= 0:
        with suppress(OSError):
            path = Path(f"/proc/self/fd/{folder}").readlink() / path
    return str(path.absolute().parent.resolve() / path.name)


def _is_opened_by_engine() -> bool:
    """Return whether a pool opens the connection, by a creator of the app."""
    inner: FrameType | None = None
    for frame in frames():
        is_pool = _module(frame) == "sqlalchemy.pool.base"
        if is_pool and frame.f_code.co_name == "__connect":
            return inner is not None and not _is_beside_creator(inner)
        # The pool wraps a creator without parameters in a function of the same module.
        if not is_pool:
            inner = frame
    return False


def _is_beside_creator(frame: FrameType) -> bool:
    """Return whether the code that a pool calls here opens a connection for itself.

    That is a handler of its log, a listener, or a ``do_connect`` listener before the engine's own
    connection is opened. ``EngineFactory`` checks that one.
    """
    module = _module(frame)
    if module == "sqlalchemy.engine.create":
        return frame.f_code.co_name == "connect"
    return module.startswith(("logging", "sqlalchemy.log", "sqlalchemy.event."))


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
