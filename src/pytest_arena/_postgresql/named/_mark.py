"""The mark by which an owner lets tests run in a database that is not empty.

The mark is in the comment of the database. Only the owner can write the comment, and the mark adds
no object to the database. A copy by ``TEMPLATE`` has no comment. ``pg_dump --create`` copies
comments, so the mark contains the oid of the database.
"""

# ruff: noqa: S608 - names and texts are written by identifier(), literal() and format() alone

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import ControlFailure, identifier, literal
from pytest_arena._postgresql.servers._find import NAMES_NO_TEST_DATABASE
from pytest_arena._product._server_targets import is_own_name
from pytest_arena._values import counted

if TYPE_CHECKING:
    from pytest_arena._postgresql._control import Control

_OF_USER = """
    nspname !~ '^pg_' AND nspname <> 'information_schema' AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend d
    WHERE d.classid = o.tableoid AND d.objid = o.oid AND d.deptype = 'e')
"""
_STATE = f"""
SELECT b.datname::text, b.oid::int8, b.datistemplate,
    coalesce(pg_catalog.shobj_description(b.oid, 'pg_database'), ''),
    NOT EXISTS (SELECT FROM pg_catalog.pg_class o
        JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace WHERE {_OF_USER})
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc o
        JOIN pg_catalog.pg_namespace n ON n.oid = o.pronamespace WHERE {_OF_USER})
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_type o
        JOIN pg_catalog.pg_namespace n ON n.oid = o.typnamespace
        WHERE o.typtype IN ('d', 'e', 'r') AND {_OF_USER})
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)
FROM pg_catalog.pg_database b WHERE b.datname = pg_catalog.current_database()
"""
_TABLES = f"""
SELECT pg_catalog.format('%I.%I', n.nspname, o.relname)
FROM pg_catalog.pg_class o JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace
WHERE o.relkind IN ('r', 'f') AND {_OF_USER} ORDER BY 1
"""
_MOST_ROWS = 1_000_000  # the most rows that are counted in a table


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """A database of a server, and whether tests may run in it."""

    name: str
    number: int
    is_template: bool
    comment: str
    is_empty: bool  # without objects, except those of extensions

    @property
    def mark(self) -> str:
        """The text in the comment of a marked database."""
        return f"pytest-arena may run tests in this database ({self.number})"

    @property
    def is_marked(self) -> bool:
        """Whether the owner lets tests run in the database."""
        return self.mark in self.comment

    @property
    def refusal(self) -> str:
        """Why tests never run in the database, "" if they may."""
        if self.name in NAMES_NO_TEST_DATABASE or self.is_template:
            return "new databases are copied from it, or tools connect to it"
        if is_own_name(self.name) or self.name.startswith("arena_registry"):
            return "it belongs to pytest-arena"
        return ""


def read_state(control: Control) -> DatabaseState:
    """Return the state of the connection's database. Raises as ``Control.rows`` does."""
    return DatabaseState(*control.rows(_STATE)[0])


def mark_sql(state: DatabaseState) -> str:
    """Write the statement that marks a database. It keeps the comment that the database has."""
    lines = [line for line in (state.comment, state.mark) if line]
    return _comment(state, "\n".join(lines))


def unmark_sql(state: DatabaseState) -> str:
    """Write the statement that removes the mark."""
    return _comment(state, state.comment.replace(state.mark, "").removesuffix("\n"))


def _comment(state: DatabaseState, text: str) -> str:
    value = literal(text) if text else "NULL"
    return f"COMMENT ON DATABASE {identifier(state.name)} IS {value}"


def counted_content(control: Control) -> str:
    """Return how many tables and rows a database has, in words."""
    tables = [name for (name,) in control.rows(_TABLES)]
    rows = 0
    hidden = 0
    more = ""
    for table in tables:
        limited = f"(SELECT FROM {table} LIMIT {_MOST_ROWS}) o"
        try:
            [(number,)] = control.rows(f"SELECT count(*) FROM {limited}")
        except ControlFailure as error:
            if error.is_lost:
                raise
            hidden += 1
            continue
        rows += number
        if number == _MOST_ROWS:
            more = "more than "
    text = f"{counted(len(tables), 'table')}, {more}{counted(rows, 'row')}"
    if hidden:
        text += f" ({counted(hidden, 'table')} cannot be read)"
    return text
