"""A template, its copy with a journal, and a look at all content past the journal."""

from __future__ import annotations

import secrets
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import pymysql

from pytest_arena._mysql._control import identifier
from pytest_arena._mysql.journal._key_journal import KeyJournal
from tests.mysql.server import TestControl, connect

if TYPE_CHECKING:
    from collections.abc import Sequence

    Content = dict[str, list[str]]

_FLOAT = ("float", "double")
# Collations that do not pad texts by spaces.
_NOPAD_OF_MARIADB = "utf8mb4_unicode_nopad_ci"
_NOPAD_OF_MYSQL = "utf8mb4_0900_ai_ci"


class LeftJournal(KeyJournal):
    """A journal whose levels are left in one step."""

    def leave(self) -> bool:
        """Restore the start of the top level, and drop the level. Return whether rows differed."""
        is_changed = self.rewind()
        self.cut_to(self.depth - 1)
        return is_changed


class MySQLWorld:
    """One database of an app, built by a script from an empty database."""

    socket: ClassVar[str]
    opened: ClassVar[list[MySQLWorld]] = []

    def __init__(self, *script: str, is_journaled: bool = True) -> None:
        name = f"arena_test_{secrets.token_hex(4)}"
        self.template = f"{name}_t"
        self.database = f"{name}-live"  # a name that InnoDB encodes
        self.side = f"{name}_s"
        self.opened.append(self)
        self.control = TestControl(self.socket)
        self.build(self.template, script)
        self.build(self.database, script)
        self.script = script
        self.app = self.connect()
        self.ran: list[str] = []
        if is_journaled:
            self.build(self.side, ())
            self.journal = LeftJournal(self.control, self.database, self.template, self.side)

    def build(self, database: str, script: Sequence[str]) -> None:
        """Create a database by a script."""
        with connect(self.socket) as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {identifier(database)}")
            cursor.execute(f"CREATE DATABASE {identifier(database)}")
            cursor.execute(f"USE {identifier(database)}")
            # Values of other times than now are the same in both databases.
            cursor.execute("SET timestamp = 1800000000, sql_mode = 'NO_ENGINE_SUBSTITUTION'")
            nopad = _NOPAD_OF_MARIADB if self.is_mariadb() else _NOPAD_OF_MYSQL
            for statement in script:
                cursor.execute(statement.replace(_NOPAD_OF_MARIADB, nopad))

    @classmethod
    @cache
    def is_mariadb(cls) -> bool:
        """Return whether the server is MariaDB, not MySQL."""
        with connect(cls.socket) as connection:
            return "MariaDB" in connection.get_server_info()

    @classmethod
    @cache
    def has_type(cls, kind: str) -> bool:
        """Return whether the server has a type of MariaDB: UUID exists since 10.7."""
        with connect(cls.socket) as connection, connection.cursor() as cursor:
            try:
                cursor.execute(f"SELECT CAST(NULL AS {kind})")
            except pymysql.err.Error:
                return False
        return True

    def connect(self, **options: Any) -> pymysql.Connection[Any]:
        """Open a connection of the app."""
        return connect(self.socket, self.database, **options)

    def run(self, *statements: str, connection: pymysql.Connection[Any] | None = None) -> list[Any]:
        """Execute statements of the app, and return the rows of the last."""
        with (connection or self.app).cursor() as cursor:
            for statement in statements:
                self.ran.append(statement)
                cursor.execute(statement)
            return list(cursor.fetchall())

    def pid(self, connection: pymysql.Connection[Any]) -> int:
        """Return the server's number of a connection."""
        [(number,)] = self.run("SELECT CONNECTION_ID()", connection=connection)
        return int(number)

    def content(self) -> Content:
        """Return all rows of all tables as texts, and the counters."""
        found: Content = {}
        raw = connect(self.socket, self.database, conv={}, use_unicode=False)
        with raw, raw.cursor() as cursor:
            cursor.execute("SET time_zone = '+00:00'")
            cursor.execute(
                "SELECT TABLE_NAME, AUTO_INCREMENT FROM information_schema.TABLES "
                "WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'BASE TABLE'"
            )
            for table, counter in cursor.fetchall():
                name = table.decode()
                cursor.execute(
                    "SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS "
                    f"WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {raw.escape(name)} "
                    "ORDER BY ORDINAL_POSITION"
                )
                columns = [
                    f"CAST({identifier(column.decode())} AS DOUBLE)"
                    if kind.decode() in _FLOAT
                    else identifier(column.decode())
                    for column, kind in cursor.fetchall()
                ]
                cursor.execute(f"SELECT {', '.join(columns)} FROM {identifier(name)}")
                rows = sorted(map(repr, cursor.fetchall()))
                cursor.execute(f"CHECKSUM TABLE {identifier(name)}")
                found[name] = [*rows, repr(cursor.fetchone()), f"counter {counter}"]
        return found

    def close(self) -> None:
        """Drop the databases."""
        self.app.close()
        self.control.rows("SET foreign_key_checks = 0")
        for database in (self.template, self.database, self.side):
            self.control.rows(f"DROP DATABASE IF EXISTS {identifier(database)}")
        self.control.close()

    @classmethod
    def drop_all(cls) -> None:
        """Drop the databases of all worlds."""
        while cls.opened:
            cls.opened.pop().close()
