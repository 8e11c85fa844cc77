"""A database under an isolation for MySQL, with the connections that an app would have to it."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import pymysql

from pytest_arena._mysql._control import open_control
from pytest_arena._mysql._driver_guard import SESSIONS, WORDS, begin_session
from pytest_arena._mysql._isolation import MySQLIsolation
from pytest_arena._product import ConnectTarget, Key, Manifest
from pytest_arena._product._statements import classify
from pytest_arena._values import ServerLogin
from tests.isolation.world import World

if TYPE_CHECKING:
    import random

    from pytest_arena._mysql._server_registry import MySQLRegistry

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
ROWS = (
    "INSERT INTO dancers (name) VALUES ('{n}')",
    "INSERT INTO dancers (name) VALUES ('{n}'), ('Sand')",
    "INSERT IGNORE INTO dancers (name) VALUES ('{n}'), ('Sand')",
    "INSERT INTO dancers (id, name) VALUES ({n}, 'n') ON DUPLICATE KEY UPDATE style = 'again'",
    "REPLACE INTO dancers (id, name, style) VALUES ({n}, 'n{n}', 'new')",
    "INSERT INTO dancers (name) SELECT CONCAT(name, {n}) FROM dancers ORDER BY id",
    "UPDATE dancers SET style = '{n}'",
    "UPDATE dancers SET id = id + 10 ORDER BY id DESC",
    "UPDATE dancers d JOIN scores s ON s.dancer = d.id SET d.style = 'm', s.round = s.round + 1",
    "DELETE FROM dancers WHERE id % 2 = 0",
    "DELETE FROM dancers WHERE id = {n}",
    "INSERT INTO scores VALUES ('z', {n}, 1)",
    "INSERT INTO crews (up, dancer) VALUES ({n}, NULL)",
    "INSERT INTO crews (up) SELECT id FROM crews ORDER BY id",
    "DELETE FROM crews WHERE id = {n}",
    "INSERT INTO plain VALUES (1), ({n})",
    "UPDATE plain SET a = 1",
    "DELETE FROM plain WHERE a = {n}",
    "UPDATE dancers SET name = UPPER(name)",
    "UPDATE dancers SET name = 'sand ' WHERE id = {n}",
    "DELETE FROM `dancers` USING dancers JOIN crews ON crews.dancer = dancers.id",
    "UPDATE scores SET judge = 'w' WHERE round = {n}",
    "INSERT INTO remarks SELECT judge, round, '{n}' FROM scores",
    "DELETE FROM remarks LIMIT 1",
    "INSERT IGNORE INTO words VALUES ('K', NULL), ('e', NULL), ('{n}', NULL)",
    "UPDATE words SET k = CONCAT(k, ' ')",
    "REPLACE words VALUES ('k', 'Sand')",
    "UPDATE named SET name = '{n}' LIMIT 1",
    "/* no comment */ DELETE FROM words WHERE k IN (SELECT name FROM dancers)",
    "TRUNCATE plain",
    "TRUNCATE TABLE remarks",
    "SET SESSION foreign_key_checks = 0",
    "SET SESSION foreign_key_checks = 1",
    "SELECT * FROM dancers",
    "SELECT * FROM plain FOR UPDATE",
    "BEGIN",
    "BEGIN",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "COMMIT",
    "COMMIT",
    "ROLLBACK",
    "SET autocommit = 0",
    "SET autocommit = 1",
    "(reconnect)",
)
DEFINITIONS = (
    "CREATE TABLE IF NOT EXISTS extra (id INT AUTO_INCREMENT PRIMARY KEY, a INT)",
    "INSERT INTO extra (a) VALUES ({n})",
    "DROP TABLE IF EXISTS extra",
    "ALTER TABLE plain ADD COLUMN b INT DEFAULT 3",
    "ALTER TABLE plain DROP COLUMN b",
    "ALTER TABLE dancers AUTO_INCREMENT = 70",
    "CREATE INDEX by_style ON dancers (style)",
    "DROP INDEX by_style ON dancers",
    "RENAME TABLE plain TO other",
    "RENAME TABLE other TO plain",
    "CREATE OR REPLACE VIEW named AS SELECT style FROM dancers",
    "OPTIMIZE TABLE dancers",
    "ANALYZE TABLE plain",
)
# One second is the shortest timeout of MySQL, so that a lock of another connection costs little.
_SHORT_LOCK_TIMEOUTS = "SET SESSION lock_wait_timeout = 1, SESSION innodb_lock_wait_timeout = 1"


class LevelWorld(World):
    """One database, its isolation, and its connections."""

    errors: ClassVar[type[Exception]] = pymysql.err.MySQLError
    is_read_by_old_connections = False  # a transaction may have an older snapshot
    knows_open_transactions = False

    def __init__(self, own: MySQLRegistry, template: str, kind: str) -> None:
        super().__init__()
        self.own = own
        self._template = template
        address = own.address_of()
        login = ServerLogin(address.user, address.password)
        self.isolation: MySQLIsolation = MySQLIsolation(
            own, template, kind, login=login, uses=self.usage, note=self.lines.append
        )

    def target(self) -> ConnectTarget:
        isolation = self.isolation
        database: Any = SimpleNamespace(isolation=isolation)
        return ConnectTarget(
            Key("server", "mysql/dancers"),
            "",
            (0, isolation.generation),
            self.own.address_of(isolation.live.name),
            database=database,
        )

    def open(self, **options: Any) -> pymysql.Connection[Any]:
        address = self.isolation.address
        return pymysql.connect(
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password,
            database=address.database,
            autocommit=True,
            ssl_disabled=True,
            init_command=_SHORT_LOCK_TIMEOUTS,
            **options,
        )

    def is_begun(self, connection: pymysql.Connection[Any]) -> bool:
        session = SESSIONS.get(connection)
        return session is not None and session.is_begun

    def has_ended(self, connection: pymysql.Connection[Any]) -> bool:
        return not connection.open

    def prepare(self, connection: pymysql.Connection[Any], number: int) -> None:
        del number
        begin_session(connection, self.target())

    def execute(self, connection: pymysql.Connection[Any], sql: str) -> Any:
        """Execute one statement, and record it as the guard records an app's statement."""
        session = SESSIONS[connection]
        statement = classify(sql, WORDS)
        session.note_before(statement, autocommits=bool(connection.get_autocommit()))
        cursor = connection.cursor()
        session.note_after(statement, cursor.execute(sql))
        return cursor

    def content_of(self, connection: pymysql.Connection[Any]) -> dict[str, object]:
        return _dump(connection.cursor())

    def rows_of(self, connection: pymysql.Connection[Any]) -> dict[str, Counter[str]]:
        cursor = connection.cursor()
        cursor.execute("SHOW FULL TABLES WHERE table_type <> 'VIEW'")
        names = [name for name, _ in cursor.fetchall()]
        rows = {}
        for name in names:
            cursor.execute(f"SELECT * FROM `{name}`")
            rows[name] = Counter(map(self.shown, cursor.fetchall()))
        return rows

    def statement(self, chance: random.Random) -> str:
        statements = ROWS if chance.random() < 0.95 else DEFINITIONS
        return chance.choice(statements).format(n=chance.randrange(1, 9))

    def template(self) -> str:
        return self._template


def _dump(cursor: Any) -> dict[str, object]:
    """Return rows, and definitions with the next ``AUTO_INCREMENT`` numbers."""

    def rows(statement: str) -> list[tuple[Any, ...]]:
        cursor.execute(statement)
        return list(cursor.fetchall())

    kinds = rows("SHOW FULL TABLES")
    content: dict[str, object] = {}
    for name, kind in kinds:
        is_view = kind == "VIEW"
        [definition] = rows(f"SHOW CREATE {'VIEW' if is_view else 'TABLE'} `{name}`")
        found: list[object] = [definition[1]]
        if not is_view:
            found += sorted(rows(f"SELECT * FROM `{name}`"), key=repr)
        content[name] = found
    return content


def made_template(own: MySQLRegistry, *script: str) -> str:
    """Create a template with SCHEMA or by a script, and return its name."""
    name = own.create("building")
    with closing(open_control(own.address_of(name))) as control:
        control.run("SET SESSION foreign_key_checks = 1")
        # Values of other times than now are the same in each run.
        control.run("SET timestamp = 1800000000")
        for statement in script or (SCHEMA,):
            control.run(statement)
    built = SimpleNamespace(address=own.address_of(name))
    return own.finish(built, f"of-run-{name}", Manifest(1.0))
