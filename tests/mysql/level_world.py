"""A database under an isolation for MySQL, with the connections that an app would have to it."""

from __future__ import annotations

from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pymysql

from pytest_arena._mysql._control import open_control
from pytest_arena._mysql._mysql_isolation import MySQLIsolation
from pytest_arena._mysql._sessions import begin_session, is_in_transaction, note_answer
from pytest_arena._product import ConnectTarget, Key
from pytest_arena._values import ServerLogin
from tests.isolation.server_world import CountedUsage, Uses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_arena._mysql._server_registry import MySQLRegistry
    from pytest_arena._values import Address

__all__ = ["LevelWorld", "made_template"]

SCHEMA = """
CREATE TABLE dancers (
    id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40) UNIQUE, style VARCHAR(40));
CREATE TABLE scores (
    judge VARCHAR(9), round INT, dancer INT, PRIMARY KEY (judge, round),
    FOREIGN KEY (dancer) REFERENCES dancers (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE remarks (
    judge VARCHAR(9), round INT, words VARCHAR(9),
    FOREIGN KEY (judge, round) REFERENCES scores (judge, round)
    ON DELETE SET NULL ON UPDATE CASCADE);
CREATE TABLE crews (
    id INT AUTO_INCREMENT PRIMARY KEY, up INT, dancer INT,
    FOREIGN KEY (up) REFERENCES crews (id) ON DELETE CASCADE,
    FOREIGN KEY (dancer) REFERENCES dancers (id) ON DELETE SET NULL);
CREATE TABLE plain (a INT);
CREATE TABLE words (
    k VARCHAR(5) PRIMARY KEY, named VARCHAR(40),
    FOREIGN KEY (named) REFERENCES dancers (name) ON UPDATE CASCADE ON DELETE SET NULL);
CREATE VIEW named AS SELECT name FROM dancers;
INSERT INTO dancers (name, style) VALUES ('Sand', 'toprock'), ('Dune', 'power'), ('Grain', NULL);
INSERT INTO scores VALUES ('x', 1, 1), ('x', 2, 2), ('y', 1, 1);
INSERT INTO remarks VALUES ('x', 1, 'good'), ('x', 1, 'good'), ('y', 1, NULL);
INSERT INTO crews (up, dancer) VALUES (NULL, 1), (1, 2), (2, NULL);
INSERT INTO plain VALUES (1), (1), (NULL);
INSERT INTO words VALUES ('k', 'Dune'), ('é', NULL)
"""
# Undo does not restore such a schema.
PROGRAMS = """
CREATE TABLE logged (what VARCHAR(40));
CREATE TRIGGER styled AFTER UPDATE ON dancers FOR EACH ROW INSERT INTO logged VALUES (NEW.style);
CREATE PROCEDURE more() INSERT INTO plain SELECT COUNT(*) FROM dancers
"""
# One second is the shortest timeout of MySQL, so that a lock of another connection costs little.
_SHORT_LOCK_TIMEOUTS = "SET SESSION lock_wait_timeout = 1, SESSION innodb_lock_wait_timeout = 1"


class Hand:
    """A connection to the live database, as a pool has it. A replaced database ends it."""

    def __init__(self, world: LevelWorld) -> None:
        self._world = world
        self._generation = -1
        self._connection: pymysql.Connection[Any] | None = None

    @property
    def is_out(self) -> bool:
        """Whether the connection is in a transaction, so no pool has it."""
        return self._connection is not None and is_in_transaction(self._connection)

    @property
    def raw(self) -> pymysql.Connection[Any]:
        """The driver's connection. It is opened again if the live database has been replaced."""
        world = self._world
        world.uses.number += 1
        is_stale = self._generation != world.isolation.generation
        if self._connection is None or is_stale or not self._connection.open:
            self.close()
            self._generation = world.isolation.generation
            self._connection = world.open()
            self._session = begin_session(self._connection, world.target())
        return self._connection

    def execute(self, sql: str) -> Any:
        """Execute one statement, and record it as the guard records an app's statement."""
        connection = self.raw
        self._session.sending(sql, is_begun=is_in_transaction(connection))
        cursor = connection.cursor()
        rows = cursor.execute(sql)
        note_answer(connection, sql, rows)
        return cursor

    def rollback(self) -> None:
        """Roll back the transaction. The server may have ended the connection."""
        with suppress(pymysql.err.MySQLError):
            self.execute("ROLLBACK")

    def close(self) -> None:
        """Close the driver's connection, if it is open."""
        if self._connection is not None:
            with suppress(pymysql.err.MySQLError):
                self._connection.close()
        self._connection = None


@dataclass(eq=False)
class LevelWorld:
    """One database, its isolation, and its connections."""

    own: MySQLRegistry
    isolation: MySQLIsolation
    uses: Uses
    lines: list[str] = field(default_factory=list)  # for the summary

    @classmethod
    def of(cls, own: MySQLRegistry, template: str, kind: str) -> LevelWorld:
        """Create a database from a template, under the isolation of this kind."""
        uses = Uses()
        lines: list[str] = []
        usage = CountedUsage(uses.count)
        address = own.address_of()
        login = ServerLogin(address.user, address.password)
        isolation = MySQLIsolation(own, template, kind, login=login, uses=usage, note=lines.append)
        return cls(own, isolation, uses, lines)

    def target(self) -> ConnectTarget:
        """Return the target of a new connection."""
        isolation = self.isolation
        database: Any = SimpleNamespace(isolation=isolation)
        return ConnectTarget(
            Key("server", "mysql/dancers"),
            "",
            (0, isolation.generation),
            self.own.address_of(isolation.live.name),
            database=database,
        )

    def open(self) -> pymysql.Connection[Any]:
        """Open a connection to the live database."""
        address = self.isolation.address
        place: dict[str, Any] = {"host": address.host, "port": address.port}
        if address.is_socket:
            place = {"unix_socket": address.host}
        return pymysql.connect(
            **place,
            user=address.user,
            password=address.password,
            database=address.database,
            autocommit=True,
            ssl_disabled=True,
            init_command=_SHORT_LOCK_TIMEOUTS,
        )

    def connect(self) -> Hand:
        """Return a connection that follows the live database. ``close()`` closes it."""
        hand = Hand(self)
        self.uses.hands.append(hand)  # type: ignore[arg-type]  # it has the methods of PostgreSQL's
        return hand

    def dump(self) -> list[object]:
        """Return the schema and the rows that a new connection reads."""
        self.uses.number += 1
        with closing(self.open()) as fresh:
            cursor = fresh.cursor()
            return _dump(cursor)

    def tables(self) -> dict[str, Counter[str]]:
        """Return the rows of each table, as texts."""
        with closing(self.open()) as fresh:
            cursor = fresh.cursor()
            cursor.execute("SHOW FULL TABLES WHERE table_type <> 'VIEW'")
            names = [name for name, _ in cursor.fetchall()]
            rows = {}
            for name in names:
                cursor.execute(f"SELECT * FROM `{name}`")
                rows[name] = Counter(map(shown, cursor.fetchall()))
            return rows

    def close(self) -> None:
        """Close the connections and the isolation."""
        for hand in self.uses.hands:
            hand.close()
        self.isolation.close()


def shown(row: Sequence[object]) -> str:
    """Return a row as a text, without NULLs at its end: a column may be added or dropped."""
    values = [*row]
    while values and values[-1] is None:
        values.pop()
    return repr(values)


def _dump(cursor: Any) -> list[object]:
    """Return definitions, rows, and the names of routines.

    The definition of a table has its next ``AUTO_INCREMENT`` number.
    """

    def rows(statement: str) -> list[tuple[Any, ...]]:
        cursor.execute(statement)
        return list(cursor.fetchall())

    kinds = rows("SHOW FULL TABLES")
    content: list[object] = []
    for name, kind in kinds:
        is_view = kind == "VIEW"
        kind_in_sql = "VIEW" if is_view else "TABLE"
        [definition] = rows(f"SHOW CREATE {kind_in_sql} `{name}`")
        content.append(definition[1])
        if not is_view:
            content.append(sorted(rows(f"SELECT * FROM `{name}`"), key=repr))
    content += [row[:5] for row in rows("SHOW TRIGGERS")]
    for kind in ("PROCEDURE", "FUNCTION"):
        listed = rows(f"SHOW {kind} STATUS WHERE Db = DATABASE()")
        content += [row[1:3] for row in listed]
    return content


def made_template(own: MySQLRegistry, address: Address, *script: str) -> str:
    """Create a template with SCHEMA or by a script, and return its name."""
    name = own.create("building")
    with closing(open_control(address)) as control:
        control.run(f"USE {name}; SET SESSION foreign_key_checks = 1")
        # Values of other times than now are the same in each run.
        control.run("SET timestamp = 1800000000")
        for statement in script or (SCHEMA,):
            control.run(statement)
    return own.finish_template(name, fingerprint=f"of-run-{name}", manifest="", title="")
