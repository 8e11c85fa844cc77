"""A database on a server under an isolation, and connections to it that go where the gate leads."""

from __future__ import annotations

from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from pytest_arena._postgresql.isolation import ServerIsolation
from tests.servers.postgresql import connect, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._values import Address

__all__ = ["SCHEMA", "CountedUsage", "Hand", "ServerWorld", "dump_of", "made_template"]

SCHEMA = """
CREATE TABLE dancers (id serial PRIMARY KEY, name text UNIQUE, style text);
CREATE TABLE scores (judge text, round int, points real, PRIMARY KEY (judge, round));
CREATE TABLE plain (a int);
CREATE UNLOGGED TABLE unlogged (a int);
CREATE TABLE many (id bigint GENERATED ALWAYS AS IDENTITY, a text);
CREATE SEQUENCE tickets CACHE 10;
CREATE VIEW named AS SELECT name FROM dancers;
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1';
INSERT INTO dancers (name, style) VALUES ('Sand', 'toprock'), ('Dune', 'power');
INSERT INTO scores VALUES ('x', 1, 9.5);
INSERT INTO plain VALUES (1), (1), (NULL);
INSERT INTO unlogged VALUES (1);
SELECT nextval('tickets');
"""

_OBJECTS = """
SELECT c.relname::text, c.relkind::text, coalesce(c.relacl::text, ''),
    coalesce(obj_description(c.oid, 'pg_class'), ''),
    ARRAY(SELECT attname || ' ' || format_type(atttypid, atttypmod) || attnotnull FROM pg_attribute
          WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1, 2
"""
_OTHERS = """
SELECT 'function', proname::text, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT 'schema', nspname::text, coalesce(nspacl::text, '') FROM pg_namespace
    WHERE nspname !~ '^pg_(toast_)?temp'
UNION ALL SELECT 'large', loid::text, data::text FROM pg_largeobject
UNION ALL SELECT 'setting', setrole::text, setconfig::text FROM pg_db_role_setting
    WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
UNION ALL SELECT 'statistics', stxname::text, '' FROM pg_statistic_ext
ORDER BY 1, 2, 3
"""


@dataclass(slots=True)
class CountedUsage:
    """The uses of a database, by a function that counts them."""

    count: Callable[[], int]

    def __call__(self) -> int:
        """Return the number."""
        return self.count()

    def may_have_others(self) -> bool:
        """There is no other process."""
        return False

    def alone(self) -> AbstractContextManager[None]:
        """There are no other threads."""
        return nullcontext()


@dataclass(slots=True)
class Uses:
    """How often somebody had a connection, as the arena counts it: also as long as one is out."""

    number: int = 0
    hands: list[Hand] = field(default_factory=list)

    def count(self) -> int:
        """Return a number that has moved where somebody may have used the database."""
        self.number += any(hand.is_out for hand in self.hands)
        return self.number


class Hand:
    """A connection that goes where the live database is: the pool's, between two transactions."""

    def __init__(self, world: ServerWorld) -> None:
        self._world = world
        self._generation = -1
        self._connection: psycopg.Connection[Any] | None = None
        self._is_executing = False

    @property
    def raw(self) -> psycopg.Connection[Any]:
        """The driver's connection, opened anew where it has become stale."""
        isolation = self._world.isolation
        self._world.uses.number += 1
        if self._connection is None or self._generation != isolation.generation:
            self.close()
            self._generation = isolation.generation
            self._connection = connect_to(isolation.address)
        return self._connection

    @property
    def is_out(self) -> bool:
        """Whether it is inside a transaction: no pool would have it back by now."""
        # libpq's status is "idle" for a moment after the statement was sent.
        if self._is_executing:
            return True
        driver = self._connection
        return driver is not None and not driver.closed and driver.info.transaction_status > 0

    def execute(self, sql: str, values: list[object] | None = None) -> psycopg.Cursor[Any]:
        """Execute one statement; values are marked as SQLite does."""
        connection = self.raw
        self._is_executing = True
        try:
            return connection.execute(sql.replace("?", "%s"), values)
        finally:
            self._is_executing = False

    def executescript(self, script: str) -> None:
        """Execute several, each in a transaction of its own."""
        for statement in script.split(";"):
            if statement.strip():
                self.raw.execute(statement)

    def rollback(self) -> None:
        """End the transaction."""
        self.raw.execute("ROLLBACK")

    def dump(self) -> list[object]:
        """Return all that it sees."""
        return dump_of(self.raw)

    def close(self) -> None:
        """Close it."""
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
        self._connection = None


@dataclass(eq=False)
class ServerWorld:
    """One database, its isolation, and its connections."""

    own: ServerRegistry
    isolation: Any
    uses: Uses
    template: str | None
    told: list[str] = field(default_factory=list)  # lines for the summary

    @classmethod
    def of(cls, own: ServerRegistry, template: str | None, kind: str) -> ServerWorld:
        """Make one from a template."""
        uses, told = Uses(), list[str]()
        usage = CountedUsage(uses.count)
        isolation: Any = ServerIsolation(own, template, kind, uses=usage, note=told.append)
        return cls(own, isolation, uses, template, told)

    def connect(self) -> Hand:
        """Open a connection that goes along."""
        self.uses.hands.append(Hand(self))
        return self.uses.hands[-1]

    def dump(self) -> list[object]:
        """Return all that a new connection sees."""
        self.uses.number += 1
        with closing(connect_to(self.isolation.address)) as fresh:
            fresh.execute("SET lock_timeout = '1s'")
            return dump_of(fresh)

    def disconnect(self) -> None:
        """Close all connections of the app's."""
        for hand in self.uses.hands:
            hand.close()
        self.uses.hands.clear()

    def close(self) -> None:
        """Close all."""
        self.disconnect()
        self.isolation.close()


def connect_to(address: Address) -> psycopg.Connection[Any]:
    """Connect to a live database, where pytest-arena leads its connections."""
    if not address.is_socket:
        return connect(address.database)
    return psycopg.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        dbname=address.database,
        autocommit=True,
    )


def dump_of(connection: psycopg.Connection[Any]) -> list[object]:
    """Return rows, sequences, schema, rights, comments, functions, large objects, settings."""
    objects = connection.execute(_OBJECTS).fetchall()
    rows = [(name, *_content(connection, name, kind)) for name, kind, *_ in objects]
    return [objects, rows, connection.execute(_OTHERS).fetchall()]


def _content(connection: psycopg.Connection[Any], name: str, kind: str) -> Iterator[object]:
    if kind == "r":
        yield sorted(connection.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr)
    if kind == "S":
        yield connection.execute(f'SELECT last_value, is_called FROM "{name}"').fetchall()


def made_template(own: ServerRegistry) -> str:
    """Make a template with something of everything."""
    name = own.create("building")
    run(*[part for part in SCHEMA.split(";") if part.strip()], database=name)
    own.freeze(name)
    return own.finish_template(name, fingerprint="dancers", manifest="")
