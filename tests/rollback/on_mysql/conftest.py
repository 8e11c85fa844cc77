"""A database with a proxy before it, and connections of the drivers."""

from __future__ import annotations

import secrets
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pymysql
import pytest
from pymysql.constants import CLIENT

from pytest_arena._mysql.rollback._mysql_proxy import MySQLProxy
from pytest_arena._values import Address
from tests.conformance.story_mysql_server import server_arguments
from tests.mysql.conftest import server

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["server"]

SCHEMA = """
CREATE TABLE dancer (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50) UNIQUE, photo LONGBLOB);
INSERT INTO dancer (name) VALUES ('Sand');
CREATE PROCEDURE commits() BEGIN INSERT INTO dancer (name) VALUES ('by it'); COMMIT; END;
CREATE PROCEDURE begins() BEGIN START TRANSACTION; END;
CREATE PROCEDURE adds() BEGIN INSERT INTO dancer (name) VALUES ('added'); SELECT 1; SELECT 2; END
"""
INSERT = "INSERT INTO dancer (name) VALUES (%s)"


@dataclass
class SharedDatabase:
    """A proxy, and what it has reported."""

    proxy: MySQLProxy
    login: dict[str, Any]
    database: str
    notes: list[str] = field(default_factory=list)

    @property
    def place(self) -> dict[str, Any]:
        """Where it listens, as drivers want it."""
        address = self.proxy.address
        return {"unix_socket": address.host, "user": address.user}

    def connect(self, **options: Any) -> Any:
        """Connect by PyMySQL. Each statement is committed, unless an option says otherwise."""
        options = {"autocommit": True, "database": self.database, **options}
        return closing(pymysql.connect(**self.place, **options))

    def directly(self, **options: Any) -> Any:
        """Connect to the server, past the proxy."""
        options = {"autocommit": True, "database": self.database, **options}
        return closing(pymysql.connect(**self.login, ssl_disabled=True, **options))

    def names(self) -> list[str]:
        """Return the names that a new connection sees."""
        with self.connect() as connection:
            return names(connection)

    def committed_names(self) -> list[str]:
        """Return the names that the database itself has."""
        with self.directly() as connection:
            return names(connection)


def ask(connection: Any, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Execute a statement and return its rows."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return list(cursor.fetchall())


def names(connection: Any) -> list[str]:
    """Return the names that a connection sees."""
    return [name for (name,) in ask(connection, "SELECT name FROM dancer ORDER BY id")]


@contextmanager
def opened(
    database: str, kind: type[MySQLProxy] = MySQLProxy, lock_timeout: float = 0.0
) -> Iterator[SharedDatabase]:
    """Open a proxy before a database."""
    login = server_arguments()
    address = Address(
        "mysql", login["host"], login["port"], login["user"], database, login["password"]
    )
    notes: list[str] = []
    proxy = kind(address, lambda: ("writes",), note=notes.append, lock_timeout=lock_timeout)
    try:
        yield SharedDatabase(proxy, login, database, notes)
    finally:
        proxy.close()


@pytest.fixture(name="database")
def _database() -> Iterator[str]:
    login = server_arguments()
    name = f"arena_test_{secrets.token_hex(6)}"
    flags = CLIENT.MULTI_STATEMENTS
    connection = pymysql.connect(**login, ssl_disabled=True, autocommit=True, client_flag=flags)
    with closing(connection):
        ask(connection, f"CREATE DATABASE {name}")
        connection.select_db(name)
        for statement in SCHEMA.split(";\n"):
            ask(connection, statement)
        yield name
        ask(connection, f"DROP DATABASE {name}")


@pytest.fixture(name="shared")
def _shared(database: str) -> Iterator[SharedDatabase]:
    with opened(database) as shared:
        yield shared
