"""May a connection attach this file, and which one is put in its place?"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_arena._sqlite import _messages
from pytest_arena._sqlite import _names as names
from pytest_arena._sqlite._attach_sql import attached_files, lead_attached, let_attach
from pytest_arena.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._product import Aim, Core

    Authorizer = Callable[..., int]

__all__ = ["attaching", "led", "watch"]


@contextmanager
def attaching(
    connection: sqlite3.Connection, core: Core | None, own: Authorizer | None
) -> Iterator[None]:
    """Let SQLite attach files, all of which it names: also the one that VACUUM INTO writes.

    ``own`` is the app's authorizer, which goes on being asked.
    """
    __tracebackhide__ = True
    if core is None:
        yield
        return
    refusing = _RefusesToWrite(core, own)
    sqlite3.Connection.set_authorizer(connection, refusing)
    let_attach(connection, allowed=True)
    try:
        yield
    except sqlite3.Error:
        if refusing.refused is not None:
            raise refusing.refused from None  # rather than SQLite's "not authorized"
        raise
    finally:
        let_attach(connection, allowed=False)
        sqlite3.Connection.set_authorizer(connection, own)


class _RefusesToWrite:
    """SQLite's authorizer while files are attached. What an ATTACH names was looked at before."""

    def __init__(self, core: Core, own: Authorizer | None) -> None:
        self._core, self._own = core, own
        self.refused: RefusedError | None = None

    def __call__(self, action: int, name: str | None, *rest: Any) -> int:
        if action == sqlite3.SQLITE_ATTACH and name and _is_the_apps(self._core, name):
            error = self._core.ledger.refused(_messages.vacuumed_into(_file_of(name)))
            self.refused = self.refused or error
            return sqlite3.SQLITE_DENY
        return self._own(action, name, *rest) if self._own else sqlite3.SQLITE_OK


def led(
    core: Core, leads: Callable[[str], Aim | None] | None, script: str, parameters: Any
) -> tuple[str, Any, list[Aim]]:
    """Return a script with the arena's files in the places of those that it attaches, and these."""
    __tracebackhide__ = True
    aims: list[Aim] = []

    def lead(name: str | None) -> str | None:
        __tracebackhide__ = True
        file = _file_of(name) if name else ""
        aim = leads(file) if leads and file else None
        if aim is None:
            _admit(core, name)
            return None
        aims.append(aim)
        return names.renamed(str(name), aim.file, uri=names.is_read_only(str(name), uri=True))

    return *lead_attached(script, parameters, lead), aims


def _admit(core: Core, name: str | None, *, of_engine: bool = False) -> None:
    """Refuse an ATTACH of the app's file, of any outside on an engine, and an unread one."""
    __tracebackhide__ = True
    if name is None:
        raise core.ledger.refused(_messages.attached_unread())
    if _is_the_apps(core, name) or (of_engine and _is_outside(core, name)):
        raise core.ledger.refused(_messages.attached(_file_of(name)))


def _is_outside(core: Core, name: str) -> bool:
    file = _file_of(name)
    return bool(file) and not core.is_inside(file) and not core.files.is_free(file)


def _is_the_apps(core: Core, name: str) -> bool:
    file = _file_of(name)
    return bool(file) and not core.is_inside(file) and core.files.belongs_to_app(file)


def _file_of(name: str) -> str:
    return names.file_of(name, uri=True)


def watch(core: Core, connection: sqlite3.Connection, *, of_engine: bool) -> None:
    """Have SQLite ask before it attaches a file, on a connection that is not of our class.

    What the app then sees is SQLite's own error; the refusal is kept, and reported.
    """
    connection.set_authorizer(_Watch(core, connection, of_engine=of_engine))


class _Watch:
    """SQLite's authorizer of a connection that is not of our class."""

    def __init__(self, core: Core, connection: sqlite3.Connection, *, of_engine: bool) -> None:
        self._core, self._connection, self._of_engine = core, connection, of_engine

    def __call__(self, action: int, name: str | None, *_: Any) -> int:
        if action != sqlite3.SQLITE_ATTACH:
            return sqlite3.SQLITE_OK
        if name is None:  # a parameter or an expression: known when the statement starts
            self._connection.set_trace_callback(self._at_start)
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_OK if self._admits(name) else sqlite3.SQLITE_DENY

    def _at_start(self, statement: str) -> None:
        if not all(self._admits(name) for name in attached_files(statement)):
            # A trace cannot refuse a statement; a limit that is looked at after it can.
            let_attach(self._connection, allowed=False)

    def _admits(self, name: str | None) -> bool:
        try:
            _admit(self._core, name, of_engine=self._of_engine)
        except RefusedError:
            return False
        return True
