"""A database with a change journal, a connection of an app, and the state read past the journal."""

from __future__ import annotations

import re
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql.journal._journal import Journal, State
from pytest_arena._postgresql.journal._journal_templates import install
from tests.servers.postgresql import address, connect, create_database, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    Connection = psycopg.Connection[Any]

__all__ = ["World", "database", "journaled", "state_of", "tamper"]

_APPS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
_COLUMNS = "pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
_QUESTIONS = f"""
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
SELECT md5(string_agg(x, ' ')) FROM (
    SELECT format('%s %s %s %s', c.oid, relname, relkind, relacl)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_APPS}
    UNION ALL SELECT format('%s %s %s', tgrelid, tgname, tgenabled) FROM pg_trigger
    UNION ALL SELECT format('%s %s %s', c.oid, attname, atttypid)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN {_COLUMNS} WHERE {_APPS}
    ORDER BY 1) s (x)
"""


class World:
    """A database with a journal, and an app that is always connected to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.journal = Journal(address(name))
        self.base = self.journal.first_state()
        self.app: Connection = connect(name)
        self.witness: Connection = connect(name)
        self.witness.execute("SET jit = off")

    def run(self, *statements: str) -> None:
        """Execute and commit statements of the app."""
        for statement in statements:
            self.app.execute(statement)

    def rows(self, question: str) -> list[tuple[Any, ...]]:
        """Return the rows that the app sees."""
        return self.app.execute(question).fetchall()

    def enter(self) -> State:
        """Return the present state. There are no marks."""
        state, marks = self.journal.state(self.base)
        assert marks == ""
        return state

    def state(self) -> dict[str, object]:
        """Return all rows and sequences, and a digest of the catalog."""
        return state_of(self.witness)

    def close(self) -> None:
        """Close all connections."""
        self.journal.close()
        self.witness.close()
        self.app.close()


def state_of(connection: Connection) -> dict[str, object]:
    """Return all rows by table, all sequences, and a digest of the catalog."""
    questions = connection.execute(_QUESTIONS).fetchall()
    parts = [f"SELECT {position}, ({text})" for position, (_, text) in enumerate(questions)]
    found = dict(connection.execute(" UNION ALL ".join(parts)).fetchall()) if parts else {}
    named = {name: found[position] for position, (name, _) in enumerate(questions)}
    return {"catalog": connection.execute(_CATALOG).fetchall(), **named}


@contextmanager
def database(*statements: str, template: str = "template1") -> Iterator[str]:
    """Create a database, and drop it at the end."""
    name = f"arena_test_{secrets.token_hex(6)}"
    create_database(name, template)
    try:
        run(*statements, database=name)
        yield name
    finally:
        run(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def journaled(*statements: str, template: str = "") -> Iterator[World]:
    """Create a database with a journal. A template has it already."""
    with database(*statements, template=template or "template1") as name:
        if not template:
            install(address(name))
        world = World(name)
        try:
            yield world
        finally:
            world.close()


def tamper(name: str, pattern: str, new: str, *, of: str) -> int:
    """Plant a defect: replace a text in the journal's functions. Return how often it was found."""
    number = 0
    with connect(name) as connection:
        connection.execute("SET arena.undo = 1")
        functions = connection.execute(
            "SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE proname = %s "
            "AND pronamespace = 'pg_arena'::regnamespace",
            [of],
        )
        for (text,) in functions.fetchall():
            wrong, times = re.subn(pattern, new, str(text))
            if times:
                connection.execute(wrong.encode())
            number += times
    return number
