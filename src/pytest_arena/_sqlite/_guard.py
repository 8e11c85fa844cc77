"""Refuses connections to the app's files, and prevents ATTACH."""

from __future__ import annotations

import _sqlite3
import os
import sqlite3
import sqlite3.dbapi2
import sys
from contextlib import suppress
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Any

from pytest_arena._interpreter import on_audit_events
from pytest_arena._sqlite import _messages as messages
from pytest_arena._sqlite import _sql as sql

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._product import Core

    CurrentCore = Callable[[], Core | None]

__tracebackhide__ = True  # a traceback ends at a line of the app or of the test

_BEFORE_FACTORY = 5  # the number of sqlite3.connect's parameters before `factory`


@cache
def watch_connections(core: CurrentCore) -> None:
    """Watch SQLite's connections until the process ends.

    An audit hook gets each file before SQLite opens it, and can refuse it. No code can remove the
    hook: https://docs.python.org/3/library/sys.html#sys.addaudithook. SQLite does not report which
    file a statement attaches, so ``sqlite3.connect`` sets the limit of attached files to 0.
    """
    on_audit_events({"sqlite3.connect": partial(_admit, core)})
    connect = sqlite3.connect

    @wraps(connect)
    def guarded(*args: Any, **kwargs: Any) -> object:
        if len(args) <= _BEFORE_FACTORY:
            kwargs.setdefault("factory", WeakConnection)
        connection = connect(*args, **kwargs)
        frame = sys._getframe(1)  # noqa: SLF001 - the documented way to a caller's frame
        is_of_coverage = str(frame.f_globals.get("__name__")).startswith("coverage.")
        # Coverage attaches its own files.
        if isinstance(connection, sqlite3.Connection) and not is_of_coverage:
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        return connection

    # A reload of sqlite3 takes its functions from _sqlite3.
    for module in (sqlite3, sqlite3.dbapi2, _sqlite3):
        vars(module)["connect"] = guarded


def _admit(core: CurrentCore, database: object, *_: object) -> None:
    """Refuse a connection to a file of the app."""
    now = core()
    if now is None or not isinstance(database, str | bytes | os.PathLike):
        return  # SQLite raises its own error for another type
    name = os.fsdecode(database)
    file = sql.requested(name, uri=name.startswith("file:")).file
    if not is_outside(now, file):
        now.refuse_late()
    elif now.files.belongs_to_app(file):
        raise now.ledger.refused(messages.production_file(file))


def is_outside(core: Core, file: str) -> bool:
    """Return whether a file is neither a test's database nor another file that tests may open."""
    return bool(file) and not core.is_inside(file) and not core.files.is_free(file)


class WeakConnection(sqlite3.Connection):
    """The connection that ``sqlite3.connect`` returns. It may have weak references."""

    def close(self) -> None:
        """Roll back and close. If a cursor still exists, SQLite alone would keep the locks."""
        with suppress(sqlite3.Error):
            self.rollback()
        super().close()
