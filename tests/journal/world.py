"""Databases with a change journal, apps at work in them, and a look past the journal."""

from __future__ import annotations

import re
import secrets
from collections import Counter
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import psycopg

from pytest_arena._postgresql.journal._capture import install
from pytest_arena._postgresql.journal._server import Restoration, ServerJournal
from tests.servers.postgresql import address, connect, create_database, rows, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Images = Mapping[tuple[str, str], int]
    Connection = psycopg.Connection[Any]

__all__ = [
    "DONE",
    "NOTHING",
    "World",
    "database",
    "journaled",
    "knows_xml",
    "schema_of_journal",
    "state_of",
    "tamper",
    "with_known_types",
]

DONE = Restoration(was_changed=True)
NOTHING = Restoration(was_changed=False)

_APPS = "n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'arena_journal')"
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
# A table as the journal has it: the root of partitions, or one with rows of its own.
_TABLES = f"""
SELECT format('"%s"."%s"', n.nspname, c.relname), format(
    'SELECT ROW(%s)::text FROM %s%I.%I t',
    string_agg(format('t.%I%s', a.attname, CASE
        WHEN t.oid = 'xml'::regtype OR t.typbasetype = 'xml'::regtype THEN '::text' END),
        ', ' ORDER BY a.attnum) FILTER (WHERE a.attnum > 0),
    CASE c.relkind WHEN 'r' THEN 'ONLY ' END, n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN {_COLUMNS} LEFT JOIN pg_type t ON t.oid = a.atttypid
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't' AND {_APPS}
GROUP BY c.oid, n.nspname, c.relname, c.relkind
"""


class World:
    """A database with a journal, and an app that is always connected to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.journal = ServerJournal(address(name))  # before anybody else, as arena does
        self.app: Connection = connect(name)
        self.witness: Connection = connect(name)  # looks, and is nobody's
        self.witness.execute("SET jit = off")  # it takes its time with questions of the catalog

    @property
    def schema(self) -> str:
        """The schema that the journal is in."""
        return schema_of_journal(self.name)

    def run(self, *statements: str) -> None:
        """Have the app do something, and commit it."""
        for statement in statements:
            self.app.execute(statement)

    def rows(self, question: str) -> list[tuple[Any, ...]]:
        """Have the app ask something."""
        return self.app.execute(question).fetchall()

    @contextmanager
    def another(self, *statements: str) -> Iterator[Connection]:
        """Connect once more."""
        with connect(self.name) as connection:
            for statement in statements:
                connection.execute(statement)
            yield connection

    def state(self) -> dict[str, object]:
        """All that stands, read past the journal."""
        return state_of(self.witness)

    def inside(self, question: str) -> list[tuple[Any, ...]]:
        """Look into the journal's own schema, `{s}`."""
        return self.witness.execute(question.format(s=self.schema).encode()).fetchall()

    def written(self) -> Images:
        """What the journal says was changed: table, image, and how many more there are of it."""
        found = self.inside(
            """SELECT format('"%s"."%s"', n.nspname, c.relname), j.r, sum(j.op)::int """
            "FROM {s}.j JOIN pg_class c ON c.oid = j.rel "
            "JOIN pg_namespace n ON n.oid = c.relnamespace GROUP BY 1, 2 HAVING sum(j.op) <> 0"
        )
        return {(table, image): count for table, image, count in found}

    def standing(self) -> Images:
        """All rows that stand now, as images."""
        return Counter(
            (table, image)
            for table, question in self.witness.execute(_TABLES).fetchall()
            for (image,) in self.witness.execute(question).fetchall()
        )

    def changed(self, before: Images) -> Images:
        """What has come since then (and gone, below 0), by the tables themselves."""
        after = self.standing()
        more = {image: after.get(image, 0) - before.get(image, 0) for image in {**after, **before}}
        return {image: count for image, count in more.items() if count}

    @contextmanager
    def rolled_back(self, work: str) -> Iterator[None]:
        """In this block it is done, in a transaction that then is rolled back."""
        try:
            self.witness.execute(f"BEGIN; {work}".encode())
            yield
        finally:
            self.witness.execute("ROLLBACK")

    def marks(self) -> list[str]:
        """What was noted of changes of the schema."""
        return [mark for (mark,) in self.inside("SELECT what FROM {s}.ddl")]

    def empty(self) -> None:
        """Start anew with an empty journal, from what stands."""
        schema = self.schema
        self.witness.execute(f"DELETE FROM {schema}.j; DELETE FROM {schema}.ddl".encode())

    def close(self) -> None:
        """Give all back."""
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


@cache
def knows_xml() -> bool:
    """Whether the server was built with libxml; those of wheels are not."""
    try:
        with connect("postgres") as connection:
            return connection.execute("SELECT xml '<a/>'").fetchone() is not None
    except psycopg.Error:
        return False


def with_known_types(sql: str) -> str:
    """Take text where the server does not know xml."""
    return sql if knows_xml() else re.sub(r"\bxml\b(?! version)", "text", sql)


def schema_of_journal(name: str) -> str:
    """Return the schema that a journal is in, "" where there is none."""
    question = "nspname IN ('pg_arena', 'arena_journal')"
    found = rows(f"SELECT nspname::text FROM pg_namespace WHERE {question}", name)
    return str(found[0][0]) if found else ""


@contextmanager
def database(*statements: str, template: str = "template1") -> Iterator[str]:
    """A database of the test's own, and what it begins with."""
    name = f"arena_test_{secrets.token_hex(6)}"
    create_database(name, template)
    try:
        run(*map(with_known_types, statements), database=name)
        yield name
    finally:
        run(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def journaled(*statements: str, template: str = "") -> Iterator[World]:
    """Such a database, with a journal: a template has it already."""
    with database(*statements, template=template or "template1") as name:
        if not template:
            found = install(address(name))
            assert not any(unfit.is_fatal for unfit in found), found
        world = World(name)
        try:
            yield world
        finally:
            world.close()


def tamper(name: str, pattern: str, new: str, *, of: str) -> int:
    """Plant a defect: replace a text in the journal's own functions in a database.

    ``of`` is a pattern of their names; OWN in ``new`` is the number in a function's name. Returns
    how often there was something to be replaced.
    """
    number = 0
    with connect(name) as connection:
        connection.execute("SET arena.undo = 1")  # no schema was changed
        functions = connection.execute(
            "SELECT proname::text, pg_get_functiondef(p.oid) FROM pg_proc p "
            "JOIN pg_namespace n ON n.oid = pronamespace "
            "WHERE nspname IN ('pg_arena', 'arena_journal') AND proname ~ %s",
            [of],
        )
        for function, text in functions.fetchall():
            wrong, times = re.subn(pattern, new.replace("OWN", str(function)[1:]), str(text))
            if times:
                connection.execute(wrong.encode())
            number += times
    return number
