"""What in a database can the journal not see, or not bring back?

What is fatal would be wrong in silence. All else is either not the database's own, or is noticed at
the latest when it is to be undone, and the database is replaced then.
"""

# ruff: noqa: S608 - names are written by identifier(), conditions by PostgreSQL itself

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import identifier
from pytest_arena._postgresql.journal._state import EXACT_SEQUENCES
from pytest_arena._postgresql.journal._tables import APPS_OWN, Unfit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_arena._postgresql._control import Control
    from pytest_arena._postgresql.journal._tables import JournalTable

__all__ = ["unfit"]

_BIG = 16 * 1024 * 1024


def unfit(
    control: Control, tables: Sequence[JournalTable], sequences: Sequence[tuple[int, str]] = ()
) -> list[Unfit]:
    """Look at a schema and its rows, in a few round trips.

    Returns:
        A line for each thing; an undo beside those that are not fatal keeps all that it promises.

    Raises:
        Failed: the server is gone, or hides its catalog.
    """
    return [
        *_asked(control, _XML, is_fatal=True),
        *_asked(control, _TRIGGERS, is_fatal=True),
        *_asked(control, _RULES, is_fatal=True),
        *_asked(control, _HIDDEN, is_fatal=True),
        *_asked(control, _FOREIGN, is_fatal=False),
        *_asked(control, _OBJECTS, is_fatal=False),
        *_violated(control),
        *_without_key(control, tables),
        *_too_many(sequences),
    ]


def _asked(control: Control, question: str, *, is_fatal: bool) -> Iterator[Unfit]:
    for (reason,) in control.rows(question):
        yield Unfit(reason, is_fatal)


def _violated(control: Control) -> Iterator[Unfit]:
    """A row that breaks such a check stands all the same, and could not be put back."""
    for schema, table, constraint, condition in control.rows(_NOT_VALID):
        name = f"{identifier(schema)}.{identifier(table)}"
        if control.rows(f"SELECT FROM ONLY {name} WHERE NOT ({condition}) LIMIT 1"):
            yield Unfit(
                f"rows of {schema}.{table} break its constraint {constraint}, which is NOT VALID: "
                "a test that changes them gets a new database afterwards",
                is_fatal=False,
            )


def _without_key(control: Control, tables: Sequence[JournalTable]) -> Iterator[Unfit]:
    for table in tables:
        if not table.key and not _has_plain(table) and _size(control, table) > _BIG:
            yield Unfit(
                f"{table.schema}.{table.name} has neither a key nor a column that is NOT NULL: "
                "whatever is changed there, all its rows are read to undo it",
                is_fatal=False,
            )


def _too_many(sequences: Sequence[tuple[int, str]]) -> Iterator[Unfit]:
    if len(sequences) > EXACT_SEQUENCES:
        yield Unfit(
            f"{len(sequences)} sequences, more than are read one by one: setval(…, false) on one "
            "that was never used is not seen",
            is_fatal=False,
        )


def _has_plain(table: JournalTable) -> bool:
    return any(column.not_null and column.is_plain for column in table.columns)


def _size(control: Control, table: JournalTable) -> int:
    oids = ",".join(str(oid) for oid, _, _ in table.leaves)
    sizes = control.rows(
        "SELECT coalesce(sum(pg_catalog.pg_relation_size(o)), 0)::int8 "
        f"FROM unnest('{{{oids}}}'::regclass[]) o"
    )
    return int(sizes[0][0])


_NAMED = "n.nspname || '.' || c.relname"
_RELATIONS = (
    f"pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND {APPS_OWN}"
)
# Written out inside of another value, xml loses the encoding that it declares.
_XML = f"""
WITH RECURSIVE within (rel, attname, part, depth) AS (
    SELECT c.oid, a.attname, a.atttypid, 0 FROM {_RELATIONS}
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
    WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
    UNION
    SELECT w.rel, w.attname, p.part, greatest(w.depth, p.deeper) FROM within w
    JOIN pg_catalog.pg_type t ON t.oid = w.part
    CROSS JOIN LATERAL (
        SELECT t.typbasetype, 0 WHERE t.typtype = 'd'
        UNION ALL
        SELECT t.typelem, 1 WHERE t.typinput = 'pg_catalog.array_in'::pg_catalog.regproc
        UNION ALL
        SELECT a.atttypid, 1 FROM pg_catalog.pg_attribute a WHERE t.typtype = 'c'
            AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) p (part, deeper))
SELECT DISTINCT {_NAMED} || '.' || w.attname || ' holds xml inside of an array or composite value, '
    'which cannot be brought back to the letter'
FROM within w JOIN {_RELATIONS} ON c.oid = w.rel
WHERE w.part = 'pg_catalog.xml'::pg_catalog.regtype AND w.depth > 0
"""
_TRIGGERS = f"""
SELECT {_NAMED} || ' has the trigger ' || t.tgname || ', which is ENABLE ' ||
    CASE t.tgenabled WHEN 'A' THEN 'ALWAYS' ELSE 'REPLICA' END ||
    ': it would fire when rows are put back'
FROM {_RELATIONS} JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid
JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
JOIN pg_catalog.pg_namespace f ON f.oid = p.pronamespace
WHERE t.tgenabled IN ('A', 'R') AND f.nspname NOT IN ('pg_arena', 'arena_journal')
AND c.relkind IN ('r', 'p') ORDER BY 1
"""
_RULES = f"""
SELECT {_NAMED} || ' has the rule ' || r.rulename || ', which is ENABLE ' ||
    CASE r.ev_enabled WHEN 'A' THEN 'ALWAYS' ELSE 'REPLICA' END ||
    ': it would change what is done to put rows back'
FROM {_RELATIONS} JOIN pg_catalog.pg_rewrite r ON r.ev_class = c.oid
WHERE r.ev_enabled IN ('A', 'R') AND c.relkind IN ('r', 'p') ORDER BY 1
"""
_HIDDEN = f"""
SELECT {_NAMED} || ' has row-level security, and this role does not see all of its rows '
    '(ALTER ROLE ' || pg_catalog.quote_ident(current_user) || ' BYPASSRLS)'
FROM {_RELATIONS} WHERE c.relkind IN ('r', 'p') AND pg_catalog.row_security_active(c.oid)
ORDER BY 1
"""
_FOREIGN = f"""
SELECT {_NAMED} || ' is a foreign table: what is written to it lies elsewhere, and stays'
FROM {_RELATIONS} WHERE c.relkind = 'f' ORDER BY 1
"""
_OBJECTS = """
SELECT 'there are large objects: those that a test makes or removes are noticed, what it writes to '
    'one that was there is not'
WHERE EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)
"""
_NOT_VALID = f"""
SELECT n.nspname::text, c.relname::text, k.conname::text,
    CASE WHEN k.contype = 'c' THEN pg_catalog.pg_get_expr(k.conbin, k.conrelid)
    ELSE pg_catalog.quote_ident(a.attname) || ' IS NOT NULL' END
FROM {_RELATIONS} JOIN pg_catalog.pg_constraint k ON k.conrelid = c.oid
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.conkey[1]
WHERE c.relkind = 'r' AND k.contype IN ('c', 'n') AND NOT k.convalidated
ORDER BY 1, 2, 3
"""
