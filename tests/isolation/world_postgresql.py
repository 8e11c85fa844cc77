"""A database of PostgreSQL under ``undo`` or ``clone``."""

from __future__ import annotations

import re
import secrets
from collections import Counter
from contextlib import closing, suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
from psycopg.pq import TransactionStatus

from pytest_arena._postgresql._isolation import ServerIsolation
from pytest_arena._product import Manifest
from tests.isolation.random_schema import WORK, Schema
from tests.isolation.world import World
from tests.servers.postgresql import connect, run

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from pytest_arena._postgresql._server_registry import ServerRegistry
    from tests.isolation.world import Hand

ROLE = f"arena_app_{secrets.token_hex(4)}"  # of the second connection
SCHEMA = """
CREATE TABLE dancers (id serial PRIMARY KEY, name text UNIQUE, style text);
CREATE TABLE plain (a int);
CREATE UNLOGGED TABLE unlogged (a int, b int GENERATED ALWAYS AS (a + 1) STORED);
CREATE SEQUENCE tickets CACHE 10;
INSERT INTO dancers (name, style) VALUES ('Sand', 'toprock'), ('Dune', 'power');
INSERT INTO plain VALUES (1), (1), (NULL);
INSERT INTO unlogged VALUES (1);
SELECT nextval('tickets')
"""
TRANSACTIONS = (
    *("BEGIN", "BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ", "SAVEPOINT s", "ROLLBACK TO s"),
    *("COMMIT", "COMMIT", "ROLLBACK"),
)
# Most statements are of `Schema`. With these a copy replaces the database.
DEFINITIONS = (
    "CREATE TABLE IF NOT EXISTS extra (id serial PRIMARY KEY, a int)",
    "INSERT INTO extra (a) VALUES (3)",
    "DROP TABLE IF EXISTS extra",
    "ALTER TABLE plain ADD COLUMN IF NOT EXISTS b int DEFAULT 3",
    "ALTER TABLE plain DROP COLUMN IF EXISTS b",
    "ALTER SEQUENCE tickets RESTART",
    "COMMENT ON TABLE plain IS 'x'",
    "GRANT SELECT ON plain TO PUBLIC",
    "CREATE OR REPLACE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1'",
    "CREATE MATERIALIZED VIEW IF NOT EXISTS m AS SELECT 1 AS a",
    "CREATE SCHEMA IF NOT EXISTS tenant",
    "CREATE TEMP TABLE IF NOT EXISTS dancers (a int)",
    "ALTER TABLE plain DISABLE TRIGGER ALL",
    "VACUUM plain",
    "ANALYZE",
    "SELECT pg_advisory_lock(1)",
    "(reconnect)",
)
_HAS_MARK = re.compile("after [A-Z]{4}")
_APPS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relpersistence <> 't'"
_COLUMNS = "pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
_CONTENTS = f"""
SELECT 'table ' || n.nspname || '.' || c.relname, format(
    'SELECT ARRAY(SELECT ROW(tableoid::regclass%s)::text FROM ONLY %I.%I ORDER BY 1)',
    string_agg(', ' || quote_ident(a.attname) || '::text', '' ORDER BY a.attnum),
    n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN {_COLUMNS}
WHERE c.relkind = 'r' AND {_APPS} GROUP BY n.nspname, c.relname
UNION ALL
SELECT 'sequence ' || c.oid::regclass,
    format('SELECT ARRAY[last_value::text, is_called::text] FROM %I.%I', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'S' AND {_APPS}
"""
_CATALOG = f"""
SELECT concat_ws(' ', relname, relkind, relacl, relrowsecurity, obj_description(c.oid, 'pg_class'))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_APPS}
UNION ALL SELECT concat_ws(' ', relname, attname, format_type(atttypid, atttypmod), attnotnull)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN {_COLUMNS} WHERE {_APPS}
UNION ALL SELECT concat_ws(' ', tgrelid::regclass, tgname, tgenabled) FROM pg_trigger
    WHERE NOT tgisinternal AND tgname !~ '^!arena'
UNION ALL SELECT concat_ws(' ', proname, prosrc) FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT concat_ws(' ', nspname, nspacl) FROM pg_namespace
    WHERE nspname !~ '^pg_((toast_)?temp|arena)'
UNION ALL SELECT concat_ws(' ', setrole, setconfig) FROM pg_db_role_setting
    WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY 1
"""
_COUNTS = """
SELECT CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || c.relname,
    format('ONLY %I.%I', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't'
AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""


class PostgreSQLWorld(World):
    """A database on the suite's server. The second connection has another role."""

    errors: ClassVar[type[Exception]] = psycopg.Error
    is_read_by_old_connections = False  # they may have temporary tables

    def __init__(
        self, own: ServerRegistry, template: str, kind: str, schema: Schema | None = None
    ) -> None:
        super().__init__()
        self.own = own
        self.schema = schema
        self._template = template
        self.knows_open_transactions = kind == "undo"
        self.isolation: Any = ServerIsolation(
            own, template, kind, owner_script=lambda _: "", uses=self.usage, note=self.lines.append
        )

    def open(self) -> psycopg.Connection[Any]:
        return connect(self.isolation.address.database)

    def prepare(self, connection: psycopg.Connection[Any], number: int) -> None:
        if self.schema is not None and number == 1:
            connection.execute(f"SET ROLE {ROLE}")

    def recover(self, hand: Hand) -> None:
        """Roll back to the savepoint, or the transaction: no other statement is possible."""
        for statement in ("ROLLBACK TO s", "ROLLBACK"):
            if hand.raw.info.transaction_status == TransactionStatus.INERROR:
                with suppress(psycopg.Error):
                    hand.execute(statement)

    def is_begun(self, connection: psycopg.Connection[Any]) -> bool:
        return not connection.closed and connection.info.transaction_status > 0

    def has_ended(self, connection: psycopg.Connection[Any]) -> bool:
        return connection.closed

    def execute(self, connection: psycopg.Connection[Any], sql: str) -> Any:
        """Execute one statement. ``fetchone`` returns None if there are no rows."""
        cursor = connection.execute(sql.encode())
        return cursor if cursor.description else _NoRows()

    def content_of(self, connection: psycopg.Connection[Any]) -> dict[str, object]:
        """Return rows, sequences, and the catalog."""
        connection.execute("SET lock_timeout = '50ms'")
        connection.execute("SET jit = off")
        questions = connection.execute(_CONTENTS).fetchall()
        parts = [f"SELECT {position}, ({text})" for position, (_, text) in enumerate(questions)]
        found = dict(connection.execute(" UNION ALL ".join(parts).encode()).fetchall())
        named = {name: found[position] for position, (name, _) in enumerate(questions)}
        return {"catalog": connection.execute(_CATALOG.encode()).fetchall(), **named}

    def rows_of(self, connection: psycopg.Connection[Any]) -> dict[str, Counter[str]]:
        connection.execute("SET lock_timeout = '50ms'")
        questions = connection.execute(_COUNTS.encode()).fetchall()
        parts = [
            f"SELECT {position}, (SELECT count(*) FROM {table})"
            for position, (_, table) in enumerate(questions)
        ]
        found = connection.execute(" UNION ALL ".join(parts).encode()).fetchall()
        return {questions[position][0]: Counter({"row": number}) for position, number in found}

    def shown(self, row: Sequence[object]) -> str:
        del row
        return "row"

    def statement(self, chance: random.Random) -> str:
        assert self.schema is not None
        number = chance.random()
        if number < 0.02:
            return chance.choice(DEFINITIONS)
        if number < 0.25:
            return chance.choice(TRANSACTIONS)
        if number < 0.32:
            return chance.choice(self.schema.settings)
        return self.schema.statement()

    def failed_undo(self) -> list[str]:
        """Return the lines without a statement that only a copy undoes."""
        return [line for line in self.lines if not _HAS_MARK.search(line)]

    def template(self) -> str:
        return self._template


class _NoRows:
    def fetchone(self) -> None:
        """Return None."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        return []


def filled(own: ServerRegistry, schema: Schema | None = None, *script: str) -> str:
    """Make a template by a script, or of `SCHEMA` and a random schema. Return its name."""
    name = own.create("building")
    run(*(script or SCHEMA.split(";")), database=name)
    if schema is not None:
        # Thus RESET ALL does not reset it.
        run(f"ALTER DATABASE {name} SET lock_timeout = '20ms'")
        with closing(connect(name)) as app:
            for statement in schema.statements:
                with suppress(*((psycopg.Error,) if statement.startswith(WORK) else ())):
                    app.execute(statement.replace("{role}", ROLE).encode())
    return own.finish(SimpleNamespace(address=own.address_of(name)), f"of {name}", Manifest(1.0))
