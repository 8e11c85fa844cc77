"""Writes the function that restores the rows of all tables.

The function's statements are static, so PostgreSQL plans each of them once. A binary tree of IFs
leads to the statements of a table. The function first cancels equal images of old and new rows, as
multisets, so that the order of the changes does not matter. Then it deletes the remaining new rows
of a table and inserts the remaining old rows.
"""

# ruff: noqa: S608 - names are written by identifier() alone

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_arena._postgresql.journal._tables import JournalTable


# The functions run with the app's search_path, so PostgreSQL's names need their schema.
_EQUALS = "OPERATOR(pg_catalog.=)"
CONTRADICTION = "AR001"  # the SQLSTATE of a journal that contradicts its table

# The query omits an image that was added as often as removed.
_NET = """
        SELECT n.rel,
            EXISTS (SELECT FROM {s}.tables e WHERE e.oid = n.rel AND e.was_empty)
            AND NOT EXISTS (SELECT FROM {s}.filled f WHERE f.rel = n.rel AND f.level < begun)
            AND begun IS NOT NULL AS was_empty,
            pg_catalog.array_agg(n.r) FILTER (WHERE n.c > 0) AS added,
            pg_catalog.array_agg(n.c) FILTER (WHERE n.c > 0) AS added_times,
            pg_catalog.array_agg(n.r) FILTER (WHERE n.c < 0) AS removed,
            pg_catalog.array_agg(-n.c) FILTER (WHERE n.c < 0) AS removed_times,
            pg_catalog.max(pg_catalog.abs(n.c)) AS most
        FROM (
            SELECT m.rel, m.r, pg_catalog.sum(m.op) AS c
            FROM (SELECT j.rel, j.op, j.r FROM {s}.j WHERE with_j
                UNION ALL
                SELECT o.rel, o.op, o.r FROM {s}.jold o WHERE o.level BETWEEN lowest AND highest) m
            GROUP BY m.rel, m.r HAVING pg_catalog.sum(m.op) <> 0) n
        GROUP BY n.rel
"""


def apply_function(schema: str, tables: Sequence[JournalTable]) -> str:
    """Write the function that undoes the journaled changes of all tables.

    ``with_j`` includes ``j``. ``lowest`` and ``highest`` are the levels in ``jold``. ``begun`` is
    the level whose start is restored, or NULL. If a table was empty at that start, the function
    empties it and ignores its entries.
    """
    known = sorted(tables, key=lambda table: table.oid)
    return f"""
CREATE OR REPLACE FUNCTION {schema}.apply(with_j bool, lowest int, highest int, begun int)
RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $arena$
DECLARE
    t record;
    n int8;
BEGIN
    FOR t IN {_NET.format(s=schema)} LOOP
{_tree(schema, known)}
    END LOOP;
END
$arena$;
"""


def _tree(schema: str, tables: Sequence[JournalTable]) -> str:
    if not tables:
        return _contradiction("t.rel::pg_catalog.regclass::pg_catalog.text")
    if len(tables) == 1:
        return _restore(schema, tables[0])
    middle = len(tables) // 2
    lower = _tree(schema, tables[:middle])
    upper = _tree(schema, tables[middle:])
    return f"IF t.rel < {tables[middle].oid} THEN\n{lower}\nELSE\n{upper}\nEND IF;"


def _contradiction(name: str) -> str:
    """Write the error for a table. ``name`` is an SQL expression."""
    return (
        f"RAISE EXCEPTION USING ERRCODE = '{CONTRADICTION}', MESSAGE = "
        f"'the journal contradicts table ' || {name} || ': changed past its triggers';"
    )


def _restore(schema: str, table: JournalTable) -> str:
    """Write the statements that restore one table."""
    error = _contradiction(literal(f"{table.schema}.{table.name}"))
    is_wrong = f"t.rel <> {table.oid}"
    number = "(SELECT pg_catalog.sum(a.c) FROM pg_catalog.unnest(t.added_times) a(c))"
    if table.key:
        # Only a table without a key may have equal rows.
        is_wrong += " OR t.most > 1"
        number = "pg_catalog.cardinality(t.added)"
    return f"""
IF {is_wrong} THEN {error} END IF;
IF t.was_empty THEN
    DELETE FROM {_only(table)};
ELSE
    IF t.added IS NOT NULL THEN
        {_delete(schema, table)}
        IF n <> {number} THEN {error} END IF;
    END IF;
    IF t.removed IS NOT NULL THEN {_insert(table)}; END IF;
END IF;"""


def _only(table: JournalTable) -> str:
    """Return the table for FROM, with its partitions, without tables that inherit from it."""
    if table.is_inherited:
        return f"ONLY {table.quoted}"
    return table.quoted


def _delete(schema: str, table: JournalTable) -> str:
    """Write the statements that delete the added rows and count them in ``n``."""
    keys = [identifier(name) for name in table.key]
    if not keys:
        return f"n := {schema}.take_{table.oid}(t.added, t.added_times);"
    rows = f"pg_catalog.unnest(t.added::{table.quoted}[]) u"
    if len(keys) == 1:
        # Three times as fast as a join.
        which = (
            f"WHERE x.{keys[0]} {_EQUALS} ANY (ARRAY(SELECT u.{keys[0]} FROM {rows}))"
        )
    else:
        equal = " AND ".join(f"x.{key} {_EQUALS} u.{key}" for key in keys)
        which = f"USING {rows} WHERE {equal}"
    return f"DELETE FROM {_only(table)} x {which}; GET DIAGNOSTICS n = ROW_COUNT;"


def _insert(table: JournalTable) -> str:
    """Write the statement that inserts the removed rows."""
    names = [
        identifier(column.name) for column in table.columns if not column.generated
    ]
    images = "t.removed"
    if not table.key:
        images = """ARRAY(
            SELECT w.r
            FROM ROWS FROM (pg_catalog.unnest(t.removed), pg_catalog.unnest(t.removed_times))
                w(r, c),
            pg_catalog.generate_series(1, w.c))"""
    columns = ""
    if names:
        columns = f"({', '.join(names)}) OVERRIDING SYSTEM VALUE"
    values = ", ".join(f"u.{name}" for name in names)
    rows = f"pg_catalog.unnest({images}::{table.quoted}[]) u"
    return f"INSERT INTO {table.quoted} {columns} SELECT {values} FROM {rows}"


def taking_function(schema: str, table: JournalTable) -> str:
    """Write the function that deletes given numbers of equal rows, for a table without a key.

    It reads the whole table, so it allows plans that the connection switches off. Its parameters
    have no names, because a column could have the same name.
    """
    path = "SET search_path FROM CURRENT"
    if table.has_names:
        path = "SET search_path = ''"
    return f"""
CREATE OR REPLACE FUNCTION {schema}.take_{table.oid}(text[], int8[]) RETURNS int8
LANGUAGE plpgsql SET enable_hashjoin = on SET enable_seqscan = on {path} AS $arena$
DECLARE
    n int8;
BEGIN
    WITH found AS (
        SELECT c.ctid AS place, c.tableoid AS part, w.times,
            pg_catalog.row_number() OVER (PARTITION BY w.image) AS number
        FROM {_only(table)} c JOIN {_join_with_images(table)}
    )
    {_delete_found(table)};
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END
$arena$;
"""


def _join_with_images(table: JournalTable) -> str:
    """Write the right side of a join: the images in ``$1``, their counts in ``$2``, and ``ON``.

    Two rows are equal if their images are equal. The join compares plain columns first, so that
    PostgreSQL can use a hash join. Equal values of plain columns have equal texts.
    """
    conditions = []
    names = ["image", "times"]
    for index, column in enumerate(table.columns):
        names.append(f"v{index}")
        if column.is_plain and column.not_null and not column.generated:
            conditions.append(f"c.{identifier(column.name)} {_EQUALS} w.v{index}")
    conditions.append(f"{table.image('c')} = w.image")
    source = "pg_catalog.unnest($1), pg_catalog.unnest($2)"
    if table.columns:
        source += f", pg_catalog.unnest($1::{table.quoted}[])"
    return f"ROWS FROM ({source}) w({', '.join(names)}) ON {' AND '.join(conditions)}"


def _delete_found(table: JournalTable) -> str:
    if table.is_leaf:
        places = "SELECT f.place FROM found f WHERE f.number <= f.times"
        return f"DELETE FROM {_only(table)} d WHERE d.ctid = ANY (ARRAY({places}))"
    return (
        f"DELETE FROM {_only(table)} d USING found f "
        "WHERE d.ctid = f.place AND d.tableoid = f.part AND f.number <= f.times"
    )
