"""Writes the functions that enter, leave and forget a level.

The functions are in the journal's schema, so that each call is one round trip. Their argument is
the number of the level. These tables hold all state:

- ``j``: the changes of the top level.
- ``jold``: the changes of the levels below, and the changes of the top level before a level above
  it was entered.
- ``ddl``: marks, which name changes that the journal cannot undo. If it has a mark, the functions
  do nothing.
- ``state``: the state that triggers do not see, at the start of a level. The row of a level stays
  until a level below is entered or left, so that a level can be left twice.
- ``filled``: the tables that were empty in level 0, and the level that has filled them.
"""

# ruff: noqa: S608 - names are written by identifier() alone

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import literal
from pytest_arena._postgresql.journal import _state as state
from pytest_arena._postgresql.journal._apply import apply_function, taking_function

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_arena._postgresql.journal._tables import JournalTable


CRASHED = "the server was restarted, and has lost its journal"
ALTERED = "the schema was changed"

_UNSEEN = {
    "objects": "event triggers, large objects or the index of a CLUSTER were changed",
    "settings": "settings of the database were changed",
    "shape": ALTERED,
}
# The mark of a DROP that no event trigger has recorded.
DROPPED = "a table or a sequence was dropped"
# The state at the start of the level, and the current state.
_WAS_AND_NOW = """
        was.number AS was_number,
        was.called AS was_called,
        was.objects AS was_objects,
        was.settings AS was_settings,
        was.shape AS was_shape,
        now.*
    INTO k FROM ({was}) was, ({now}) now"""
# A larger journal is undone in parts that fit into memory.
_LARGE = 2 * 1024 * 1024
_PART_ROWS = 20_000
_PART_BYTES = 32 * 1024 * 1024
# For more rows a DELETE costs more than a TRUNCATE, although a TRUNCATE invalidates all plans.
_MANY = 200_000


def undo_script(
    schema: str, tables: Sequence[JournalTable], sequences: Sequence[tuple[int, str]]
) -> str:
    """Write the functions that undo levels, for the existing tables and sequences.

    The script runs last in the transaction that creates the journal's tables and triggers. It
    deletes earlier entries of the journal, so that the current content is the start of level 0.
    """
    text = {
        "s": schema,
        "k": _WAS_AND_NOW.format(
            was=state.state_at_start(schema, "top"),
            now=state.current_state(schema, sequences),
        ),
        "unseen": _unseen(),
        "dropped": DROPPED,
        "crashed": CRASHED,
        "restore_sequences": state.restore_sequences(schema, sequences),
        "discard_cached": state.discard_cached_numbers(schema, sequences),
        "size_j": f"pg_relation_size('{schema}.j') + pg_relation_size({schema}.toast())",
        "large": str(_LARGE),
        "rows": str(_PART_ROWS),
        "bytes": str(_PART_BYTES),
        "many": str(_MANY),
    }
    parts = (_APPLY_LARGE, _ENTER, _LEAVE, _REWIND, _FORGET, _LOOK, _REDO)
    return "".join(
        [
            f"DELETE FROM {schema}.j; DELETE FROM {schema}.jold; DELETE FROM {schema}.filled;",
            f"DELETE FROM {schema}.ddl;",
            _TOAST.format(s=schema),
            state.shape_function(schema),
            state.state_script(schema, sequences),
            state.restart_function(schema),
            *(taking_function(schema, table) for table in tables if not table.key),
            apply_function(schema, tables),
            *(part.format(**text) for part in parts),
            f"SET LOCAL search_path = ''; SELECT {schema}.settle();",
        ]
    )


def _unseen() -> str:
    """Write an array of the marks for changes that no trigger sees, by the record ``k``."""
    marks = (
        f"CASE WHEN k.{name} <> k.was_{name} THEN {literal(mark)} END"
        for name, mark in _UNSEEN.items()
    )
    return f"pg_catalog.array_remove(ARRAY[{', '.join(marks)}], NULL)"


# The table of large images is a constant, because its search doubles the cost of a size.
_TOAST = """
DO $arena_do$ BEGIN
EXECUTE format('CREATE OR REPLACE FUNCTION {s}.toast() RETURNS pg_catalog.regclass LANGUAGE sql '
    'IMMUTABLE AS %L', 'SELECT ' || (SELECT c.reltoastrelid::oid FROM pg_catalog.pg_class c
    WHERE c.oid = '{s}.j'::pg_catalog.regclass) || '::pg_catalog.oid::pg_catalog.regclass');
END $arena_do$;
"""
# The net changes are stored in parts, as levels below 0. All deletes precede the first insert.
_APPLY_LARGE = """
CREATE OR REPLACE FUNCTION {s}.apply_large(
    with_j bool, lowest int, highest int, begun int, direction int)
RETURNS void LANGUAGE plpgsql AS $arena$
DECLARE
    emptied oid[];
BEGIN
    emptied := ARRAY(
        SELECT e.oid FROM {s}.tables e WHERE e.was_empty AND begun IS NOT NULL
        AND NOT EXISTS (SELECT FROM {s}.filled f WHERE f.rel = e.oid AND f.level < begun)
        AND (EXISTS (SELECT FROM {s}.j WHERE j.rel = e.oid AND with_j) OR EXISTS (
            SELECT FROM {s}.jold o WHERE o.rel = e.oid AND o.level BETWEEN lowest AND highest)));
    INSERT INTO {s}.jold (level, rel, op, r) SELECT -1, e.oid, 1, '' FROM unnest(emptied) e(oid);
    INSERT INTO {s}.jold (level, rel, op, r)
    SELECT -2 - (row_number() OVER w / {rows} + sum(octet_length(n.r)) OVER w / {bytes})::int4,
        n.rel, n.c, n.r
    FROM (
        SELECT m.rel, m.r, sum(m.op) * direction AS c
        FROM (SELECT j.rel, j.op, j.r FROM {s}.j WHERE with_j
            UNION ALL
            SELECT o.rel, o.op, o.r FROM {s}.jold o WHERE o.level BETWEEN lowest AND highest) m
        WHERE m.rel <> ALL (emptied)
        GROUP BY m.rel, m.r HAVING sum(m.op) <> 0) n
    WINDOW w AS (ORDER BY n.c < 0, n.rel ROWS UNBOUNDED PRECEDING);
    FOR part IN REVERSE -1 .. coalesce((SELECT min(o.level) FROM {s}.jold o), 0) LOOP
        PERFORM {s}.apply(false, part, part, begun);
    END LOOP;
    DELETE FROM {s}.jold WHERE level < 0;
END
$arena$;
"""
# One statement moves the entries. If another session commits a change meanwhile, the change belongs
# to the new level.
_ENTER = """
CREATE OR REPLACE FUNCTION {s}.enter(top int) RETURNS text[] LANGUAGE plpgsql AS $arena$
DECLARE
    k record;
BEGIN
    SELECT EXISTS (SELECT FROM {s}.ddl) AS is_marked, EXISTS (SELECT FROM {s}.j) AS is_changed,
        EXISTS (SELECT FROM {s}.state a WHERE a.level > top) AS has_upper,
        {k};
    IF NOT FOUND THEN
        RETURN ARRAY['0', '{crashed}'];
    END IF;
    -- Objects and settings that have changed are no reason to replace the database here.
    IF k.is_marked OR k.shape <> k.was_shape THEN
        RETURN ARRAY['0'] || ARRAY(SELECT DISTINCT d.what FROM {s}.ddl d) || {unseen};
    END IF;
    IF k.is_changed THEN
        WITH deleted AS (DELETE FROM {s}.j RETURNING rel, op, r),
        kept AS (
            INSERT INTO {s}.jold (level, rel, op, r)
            SELECT top - 1, d.rel, sum(d.op), d.r FROM deleted d
            GROUP BY d.rel, d.r HAVING sum(d.op) <> 0 RETURNING rel)
        INSERT INTO {s}.filled (level, rel)
        SELECT DISTINCT top - 1, c.rel FROM kept c JOIN {s}.tables e ON e.oid = c.rel
        WHERE e.was_empty;
    END IF;
    IF k.number <> k.was_number OR k.called <> k.was_called
        OR k.objects <> k.was_objects OR k.settings <> k.was_settings
    THEN
        BEGIN
            {discard_cached};
        EXCEPTION WHEN lock_not_available THEN
            NULL; -- an open transaction has used a sequence: it keeps its cached numbers
        END;
        INSERT INTO {s}.state VALUES (top, k.number, k.called, k.objects, k.settings, k.shape)
        ON CONFLICT (level) DO UPDATE SET number = excluded.number, called = excluded.called,
            objects = excluded.objects, settings = excluded.settings, shape = excluded.shape;
    END IF;
    IF k.has_upper THEN
        DELETE FROM {s}.state WHERE level > top;
    END IF;
    IF k.is_changed THEN
        RETURN ARRAY[{s}.size()::text];
    END IF;
    RETURN NULL;
END
$arena$;
CREATE OR REPLACE FUNCTION {s}.size() RETURNS int8 LANGUAGE sql AS $arena$
    SELECT pg_table_size('{s}.j') + pg_table_size('{s}.jold')
$arena$;
"""
_LEAVE = """
CREATE OR REPLACE FUNCTION {s}.leave(top int) RETURNS text[] LANGUAGE plpgsql AS $arena$
DECLARE
    k record;
    is_changed bool := false;
    size int8 := 0;
BEGIN
    -- An open transaction that has written holds a lock on one of them.
    LOCK TABLE {s}.j, {s}.ddl IN EXCLUSIVE MODE NOWAIT;
    -- A prepared transaction may hold other locks, and has no session.
    IF EXISTS (SELECT FROM pg_catalog.pg_prepared_xact() p
        WHERE p.dbid = (SELECT h.oid FROM {s}.home h))
    THEN
        RAISE lock_not_available USING MESSAGE = 'a transaction is prepared';
    END IF;
    SELECT EXISTS (SELECT FROM {s}.ddl) AS is_marked, EXISTS (SELECT FROM {s}.j) AS has_new,
        EXISTS (SELECT FROM {s}.jold o WHERE o.level = top) AS has_old,
        EXISTS (SELECT FROM {s}.state a WHERE a.level > top) AS has_upper,
        {k};
    IF NOT FOUND THEN
        RETURN ARRAY['0', '{crashed}'];
    END IF;
    IF k.is_marked OR k.objects <> k.was_objects OR k.settings <> k.was_settings
        OR k.shape <> k.was_shape
    THEN
        RETURN ARRAY['0'] || ARRAY(SELECT DISTINCT d.what FROM {s}.ddl d) || {unseen};
    END IF;
    IF k.has_new OR k.has_old THEN
        is_changed := true;
        size := {size_j};
        IF k.has_old THEN
            size := size + pg_table_size('{s}.jold');
        END IF;
        IF size > {large} THEN
            PERFORM {s}.apply_large(true, top, top, top, 1);
            PERFORM {s}.clear();
            size := {s}.size();
        ELSE
            PERFORM {s}.apply(true, top, top, top);
            DELETE FROM {s}.j;
        END IF;
        IF k.has_old THEN
            DELETE FROM {s}.jold WHERE level = top;
            DELETE FROM {s}.filled WHERE level = top;
        END IF;
    END IF;
    IF k.number <> k.was_number OR k.called <> k.was_called THEN
        is_changed := true;
        {restore_sequences};
    END IF;
    IF k.has_upper THEN
        DELETE FROM {s}.state WHERE level > top;
    END IF;
    IF is_changed THEN
        RETURN ARRAY[size::text];
    END IF;
    RETURN NULL;
END
$arena$;
CREATE OR REPLACE FUNCTION {s}.clear() RETURNS void LANGUAGE plpgsql AS $arena$
BEGIN
    IF (SELECT count(*) FROM (SELECT FROM {s}.j LIMIT {many}) m) = {many} THEN
        TRUNCATE {s}.j;
    ELSE
        DELETE FROM {s}.j;
    END IF;
END
$arena$;
"""
_REWIND = """
CREATE OR REPLACE FUNCTION {s}.rewind(top int) RETURNS void LANGUAGE plpgsql AS $arena$
DECLARE
    k record;
BEGIN
    SELECT {k};
    IF k.number <> k.was_number OR k.called <> k.was_called THEN
        {restore_sequences};
    END IF;
EXCEPTION WHEN lock_not_available THEN
    NULL; -- an open transaction has cached numbers
END
$arena$;
"""
_FORGET = """
CREATE OR REPLACE FUNCTION {s}.forget(top int) RETURNS void LANGUAGE plpgsql AS $arena$
BEGIN
    UPDATE {s}.jold SET level = top - 1 WHERE level = top;
    UPDATE {s}.filled SET level = top - 1 WHERE level = top;
    DELETE FROM {s}.state WHERE level >= top AND level > 0;
END
$arena$;
"""
# The functions take no lock, so that writers can run at the same time. A statement locks its table
# at its start. At its first row it locks the journal and gets a transaction id.
_LOOK = """
CREATE OR REPLACE FUNCTION {s}.at_work() RETURNS int[] LANGUAGE sql STABLE AS $arena$
    SELECT ARRAY(
        SELECT a.pid FROM pg_catalog.pg_stat_activity a
        WHERE a.datname = current_database() AND a.state = 'active'
        AND a.backend_type = 'client backend' AND a.pid <> pg_catalog.pg_backend_pid()
        AND EXISTS (
            SELECT FROM pg_catalog.pg_locks h WHERE h.pid = a.pid AND h.database = a.datid
            AND h.locktype = 'relation' AND h.mode = 'RowExclusiveLock' AND h.granted))
$arena$;
CREATE OR REPLACE FUNCTION {s}.look(
    top int, archived int, OUT is_changed bool, OUT has_rows bool, OUT marks text[],
    OUT writers int[], OUT prepared text[])
LANGUAGE plpgsql AS $arena$
DECLARE
    k record;
BEGIN
    marks := ARRAY(SELECT DISTINCT d.what FROM {s}.ddl d);
    is_changed := true;
    has_rows := true;
    IF marks = '{{}}' THEN
        BEGIN
            SELECT EXISTS (SELECT FROM {s}.j)
                    OR EXISTS (SELECT FROM {s}.jold o WHERE o.level = archived) AS has_rows,
                {k};
            marks := CASE WHEN FOUND THEN {unseen} ELSE ARRAY['{crashed}'] END;
            has_rows := cardinality(marks) > 0 OR k.has_rows;
            is_changed := has_rows
                OR k.number <> k.was_number OR k.called <> k.was_called;
        EXCEPTION WHEN undefined_table THEN
            marks := ARRAY['{dropped} (' || SQLERRM || ')'];
        WHEN OTHERS THEN
            marks := ARRAY[SQLERRM];
        END;
    END IF;
    writers := ARRAY(
        SELECT h.pid FROM pg_catalog.pg_locks h
        WHERE h.database = (
            SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
        AND h.pid <> pg_catalog.pg_backend_pid() AND h.locktype = 'relation'
        AND h.relation IN ('{s}.j'::regclass, '{s}.ddl'::regclass)
        AND h.mode = 'RowExclusiveLock' AND h.granted) || {s}.at_work() || ARRAY(
        SELECT a.pid FROM pg_catalog.pg_stat_activity a
        WHERE a.datname = current_database() AND a.backend_xid IS NOT NULL
        AND a.pid <> pg_catalog.pg_backend_pid() AND a.backend_type = 'client backend');
    prepared := ARRAY(
        SELECT p.gid FROM pg_catalog.pg_prepared_xacts p WHERE p.database = current_database());
END
$arena$;
"""
# Called in a copy of the template, after the archived entries of the levels below were inserted.
_REDO = """
CREATE OR REPLACE FUNCTION {s}.redo(top int) RETURNS void LANGUAGE plpgsql AS $arena$
DECLARE
    k record;
BEGIN
    PERFORM {s}.apply_large(false, 0, top - 1, NULL, -1);
    SELECT {k};
    {restore_sequences};
END
$arena$;
"""
