"""What does the journal's own schema hold?"""

# ruff: noqa: S608 - the schema is one of our own two

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import literal
from pytest_arena._postgresql.journal._tables import HIDDEN_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_arena._postgresql.journal._tables import JournalTable, Setting

__all__ = ["content", "layout"]

# Autovacuum of the journal would wait for those who write, and they for it. A long image is not
# compressed, and moves out of its row as late as can be: two to four times as fast.
_IMAGES = (
    "WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false, toast_tuple_target = 8160)"
)
_SMALL = "WITH (autovacuum_enabled = false)"


def layout(schema: str) -> str:
    """Write what makes the schema and its tables, where they are not there yet."""
    hidden = "SET LOCAL allow_system_table_mods = on; " if schema == HIDDEN_SCHEMA else ""
    return f"""{hidden}
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE UNLOGGED TABLE IF NOT EXISTS {schema}.j
    (rel oid NOT NULL, op int4 NOT NULL, x xid8 NOT NULL, r text NOT NULL) {_IMAGES};
CREATE UNLOGGED TABLE IF NOT EXISTS {schema}.jold
    (level int4 NOT NULL, rel oid NOT NULL, op int4 NOT NULL, r text NOT NULL) {_IMAGES};
CREATE INDEX IF NOT EXISTS jold_level ON {schema}.jold (level);
CREATE UNLOGGED TABLE IF NOT EXISTS {schema}.ddl
    (what text NOT NULL, x xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id()) {_SMALL};
CREATE UNLOGGED TABLE IF NOT EXISTS {schema}.filled
    (level int4 NOT NULL, rel oid NOT NULL) {_SMALL};
CREATE TABLE IF NOT EXISTS {schema}.tables
    (oid oid PRIMARY KEY, name text NOT NULL, was_empty bool NOT NULL, gone int8 NOT NULL) {_SMALL};
CREATE TABLE IF NOT EXISTS {schema}.canon (name text PRIMARY KEY, value text NOT NULL) {_SMALL};
ALTER TABLE {schema}.j ALTER r SET STORAGE EXTERNAL;
ALTER TABLE {schema}.jold ALTER r SET STORAGE EXTERNAL;
GRANT USAGE ON SCHEMA {schema} TO PUBLIC;
GRANT INSERT ON {schema}.j TO PUBLIC;
"""


def content(schema: str, tables: Sequence[JournalTable], canon: Sequence[Setting]) -> list[str]:
    """Write what is known of the database as it stands."""
    settings = ", ".join(f"({literal(one.name)}, {literal(one.value)})" for one in canon)
    return [
        f"DELETE FROM {schema}.canon; INSERT INTO {schema}.canon VALUES {settings};",
        f"DELETE FROM {schema}.tables;",
        # A statement for each: as one of many parts, to plan them takes three times as long.
        *(f"INSERT INTO {schema}.tables {_known(table)};" for table in tables),
    ]


def _known(table: JournalTable) -> str:
    is_one = table.leaves == ((table.oid, table.schema, table.name),)
    return (
        f"SELECT {table.oid}, {literal(f'{table.schema}.{table.name}')}, "
        f"NOT EXISTS (SELECT FROM {'ONLY ' if is_one else ''}{table.quoted}), "
        "(SELECT count(*) FROM pg_catalog.pg_attribute "
        f"WHERE attrelid = {table.oid} AND attisdropped)"
    )
