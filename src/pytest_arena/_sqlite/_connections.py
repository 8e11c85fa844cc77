"""Which file does a connect call mean, how is another put there, and what is open?"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, Any

from pytest_arena._product import Aim, Asked, Live
from pytest_arena._sqlite import _messages as messages
from pytest_arena._sqlite import _names as names
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._factory import EngineFactory
from pytest_arena._sqlite._handle import SQLiteHandle, raw_of
from pytest_arena._sqlite._raw import watch_raw_connections

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Dialect

    from pytest_arena._product import Core

__all__ = ["SQLiteConnections"]


class SQLiteConnections:
    """Connections of ``sqlite3``, and those in aiosqlite's threads."""

    def describe(self, dialect: Dialect, cargs: Any, cparams: Any) -> Asked:
        """The file, or the memory database."""
        database, uri = _database(cargs, cparams)
        file, memory = names.file_of(database, uri=uri), names.memory_of(database, uri=uri)
        return Asked(dialect, "sqlite", file, memory)

    def lead(
        self,
        core: Core,
        dialect: Dialect,
        aim: Aim | None,
        cargs: list[Any],
        cparams: dict[str, Any],
    ) -> Callable[[Any], Live | None]:
        """By the file's name, and by a factory that looks at the statements."""
        handles: list[SQLiteHandle] = []

        def made(connection: sqlite3.Connection) -> None:
            raw = raw_of(connection)
            if raw is not None:
                handles[:] = [SQLiteHandle.to(raw)]
                if aim is not None:
                    sql.leave_wal_alone(raw)

        def opened(dbapi_connection: Any) -> Live | None:
            handle = handles[0] if handles else None
            if aim is not None and (handle is None or not handle.is_of(dbapi_connection)):
                return None
            return Live(aim, handle)

        base = cparams.get("factory", sqlite3.Connection)
        cparams["factory"] = EngineFactory(core, aim, base, made)
        if aim is not None:
            database, uri = _database(cargs, cparams)
            cparams.pop("database", None)
            # uri stays: the app may attach by URI
            cargs[:1] = [names.renamed(database, aim.file, uri=uri)]
        if dialect.is_async:
            # aiosqlite has one thread for each connection, and nobody else works on it; so that
            # the settling thread may ask what the connection looks like.
            cparams["check_same_thread"] = False
        return opened

    def recognize(self, core: Core, dbapi_connection: Any) -> Live | None:
        """By the file that SQLite says is open."""
        __tracebackhide__ = True
        raw = raw_of(dbapi_connection)
        if raw is None:
            return None
        file = sql.main_file(dbapi_connection)
        if file and not core.is_inside(file) and not core.files.is_free(file):
            raise core.ledger.refused(messages.unknown_file(file))
        if not file:
            core.ledger.note(messages.kept_memory())
        return Live(core.aim_at(file) if file else None, SQLiteHandle.to(raw))

    def watch(self, core: Callable[[], Core | None]) -> None:
        """Each ``sqlite3.connect``."""
        watch_raw_connections(core)

    def end_raw(self, core: Core, serial: int) -> None:
        """They hold nothing that the next test would meet: the file is put back under them."""


def _database(cargs: Any, cparams: Any) -> tuple[str, bool]:
    database = cargs[0] if cargs else cparams.get("database", "")
    return os.fsdecode(database), bool(cparams.get("uri"))
