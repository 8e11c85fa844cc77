"""What the journal's schema holds, and how it is noticed what no table's trigger sees.

That is sequences, large objects, event triggers, settings and the schema.

What they were when a level began stands in ``state``: a row for each level at whose start something
was different from the level below. Level 0 has one always, and where it is missing, the server has
crashed: it empties unlogged tables then.
"""

# ruff: noqa: S608 - names are written by identifier() and literal() alone

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import literal
from pytest_arena._postgresql.journal._tables import (
    HIDDEN_SCHEMA,
    OURS,
    JournalTable,
    Setting,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


# Up to so many are read themselves, each for 2 µs. Of more, an uncalled one's number is not known:
# `setval(…, false)` on it is not seen.
EXACT_SEQUENCES = 100

_HOME = (
    "(SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())"
)
# A change of a row makes another version of it, with the number of its transaction.
_VERSIONS = "coalesce(sum(pg_catalog.hashint8extended(o.xmin::text::int8, 0)), 0)::text"
# No event trigger fires for a change of one.
_EVENT_TRIGGER_VERSIONS = (
    "ARRAY(SELECT e.xmin FROM pg_catalog.pg_event_trigger e ORDER BY e.oid)::text"
)


def state_table(schema: str, sequences: Sequence[tuple[int, str]]) -> str:
    """Write the table anew, with what stands now as the start of level 0.

    A copy of the database is at level 0 as well, whatever a crash has left of its unlogged tables,
    and the settings of a database are not copied with it: `settle` is called by who connects first.
    """
    return f"""
DROP TABLE IF EXISTS {schema}.state, {schema}.home;
CREATE UNLOGGED TABLE {schema}.state (
    level int4 PRIMARY KEY, number int8[] NOT NULL, called bool[] NOT NULL, objects text NOT NULL,
    settings text NOT NULL, shape text NOT NULL)
    WITH (autovacuum_enabled = false, toast_tuple_target = 8160);
CREATE TABLE {schema}.home AS SELECT 0::pg_catalog.oid AS oid;
CREATE OR REPLACE FUNCTION {schema}.settle() RETURNS void LANGUAGE plpgsql AS $arena$
BEGIN
    UPDATE {schema}.home SET oid = {_HOME} WHERE oid <> {_HOME};
    IF FOUND THEN
        -- Must survive a crash: else the next connection takes the emptied journal for a new copy.
        PERFORM pg_catalog.set_config('synchronous_commit', 'on', true);
        DELETE FROM {schema}.state;
        INSERT INTO {schema}.state SELECT 0, q.* FROM ({now(schema, sequences)}) q;
    END IF;
END
$arena$;
"""


def latest(schema: str, level: str) -> str:
    """Write the query of what a level began with, one row."""
    return (
        f"SELECT a.* FROM {schema}.state a WHERE a.level <= {level} "
        "ORDER BY a.level DESC LIMIT 1"
    )


def now(schema: str, sequences: Sequence[tuple[int, str]]) -> str:
    """Write the query of what stands now: number, called, objects, settings, shape."""
    is_exact = len(sequences) <= EXACT_SEQUENCES
    called = "coalesce(array_agg(v.called), '{}')" if is_exact else "'{}'::bool[]"
    return (
        "SELECT coalesce(array_agg(v.number), '{}') AS number, "
        f"{called} AS called, "
        f"{_objects(schema)} AS objects, {_settings(schema)} AS settings, "
        f"{schema}.shape() AS shape "
        f"FROM ({_numbers(sequences)}) v"
    )


def _objects(schema: str) -> str:
    """Write an expression of the large objects and the event triggers that there are.

    Only a superuser may read what large objects hold. Without one no journal is made beside them.
    """
    catalogs = ["pg_largeobject_metadata"]
    if schema == HIDDEN_SCHEMA:
        catalogs.append("pg_largeobject")
    versions = " || ' ' || ".join(
        f"(SELECT {_VERSIONS} FROM pg_catalog.{catalog} o)" for catalog in catalogs
    )
    # Most databases have none, and nothing is summed up there.
    return (
        "CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata) "
        f"THEN {versions} ELSE '' END || {_EVENT_TRIGGER_VERSIONS}"
    )


def _settings(schema: str) -> str:
    # In the index's order, and with what `settle` has looked up: nothing has to be sorted or found.
    return (
        "ARRAY(SELECT g.setrole || ' ' || g.setconfig::text FROM pg_catalog.pg_db_role_setting g "
        f"WHERE g.setdatabase = (SELECT h.oid FROM {schema}.home h) ORDER BY g.setrole)::text"
    )


def _numbers(sequences: Sequence[tuple[int, str]]) -> str:
    if not sequences:
        return "SELECT 0::int8 AS number, false AS called WHERE false"
    if len(sequences) <= EXACT_SEQUENCES:
        return " UNION ALL ".join(
            f"SELECT last_value AS number, is_called AS called FROM {name}"
            for _, name in sequences
        )
    return (
        "SELECT pg_catalog.pg_sequence_last_value(o.oid::pg_catalog.regclass) AS number "
        f"FROM unnest({_oids(sequences)}) o(oid)"
    )


def _oids(sequences: Sequence[tuple[int, str]]) -> str:
    return f"'{{{','.join(str(oid) for oid, _ in sequences)}}}'::pg_catalog.oid[]"


def restart_function(schema: str) -> str:
    """Write the function that sets a sequence, and takes from sessions the numbers that they hold.

    A session keeps ``CACHE`` numbers of a sequence to itself, and only an ALTER takes them from it.
    """
    return f"""
CREATE OR REPLACE FUNCTION {schema}.restart(which oid, number int8, called bool)
RETURNS int8 LANGUAGE plpgsql AS $arena$
BEGIN
    EXECUTE 'ALTER SEQUENCE ' || which::pg_catalog.regclass::text || ' RESTART';
    RETURN pg_catalog.setval(which::pg_catalog.regclass, number, called);
END
$arena$;
"""


def set_back(schema: str, sequences: Sequence[tuple[int, str]]) -> str:
    """Write the statement that sets what has moved to what it was, both of ``k``."""
    return f"""
        PERFORM CASE WHEN {_CACHE} > 1 THEN {schema}.restart(x.oid, x.number, x.called)
            ELSE pg_catalog.setval(x.oid::pg_catalog.regclass, x.number, x.called) END
        FROM ({_to_be_set(sequences, "was")}) x"""


def forestall(schema: str, sequences: Sequence[tuple[int, str]]) -> str:
    """Write the statement that has no session go on with numbers from before, of ``k``.

    They would not be seen to move.
    """
    return f"""
            PERFORM {schema}.restart(x.oid, x.number, x.called)
            FROM ({_to_be_set(sequences, "now")}) x
            WHERE {_CACHE} > 1"""


_CACHE = "(SELECT q.seqcache FROM pg_catalog.pg_sequence q WHERE q.seqrelid = x.oid)"


def _to_be_set(sequences: Sequence[tuple[int, str]], to: str) -> str:
    """Write the query of what has moved, with what it is to be set to: as it ``was``, or is."""
    # To unnest in FROM would store all of it first.
    each = (
        f"SELECT unnest({_oids(sequences)}) AS oid, unnest(k.was_number) AS was, "
        "unnest(k.number) AS now"
    )
    if len(sequences) <= EXACT_SEQUENCES:
        return (
            f"SELECT e.oid, e.{to} AS number, e.{to}_called AS called FROM ({each}, "
            "unnest(k.was_called) AS was_called, unnest(k.called) AS now_called) e "
            "WHERE e.was <> e.now OR e.was_called <> e.now_called"
        )
    # Of an uncalled one nothing was read: it begins where it was made to begin.
    start = "(SELECT q.seqstart FROM pg_catalog.pg_sequence q WHERE q.seqrelid = e.oid)"
    return (
        f"SELECT e.oid, coalesce(e.{to}, {start}) AS number, e.{to} IS NOT NULL AS called "
        f"FROM ({each}) e WHERE e.was IS DISTINCT FROM e.now"
    )


# The journal's own tables

# Autovacuum of the journal would wait for those who write, and they for it. A long image is not
# compressed, and moves out of its row as late as can be: two to four times as fast.
_IMAGES = (
    "WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false, "
    "toast_tuple_target = 8160)"
)
_SMALL = "WITH (autovacuum_enabled = false)"


def layout(schema: str) -> str:
    """Write what makes the schema and its tables, where they are not there yet."""
    hidden = (
        "SET LOCAL allow_system_table_mods = on; " if schema == HIDDEN_SCHEMA else ""
    )
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


def content(
    schema: str, tables: Sequence[JournalTable], canon: Sequence[Setting]
) -> list[str]:
    """Write what is known of the database as it stands."""
    settings = ", ".join(
        f"({literal(one.name)}, {literal(one.value)})" for one in canon
    )
    return [
        f"DELETE FROM {schema}.canon; INSERT INTO {schema}.canon VALUES {settings};",
        f"DELETE FROM {schema}.tables;",
        # A statement for each: as one of many parts, to plan them takes three times as long.
        *(f"INSERT INTO {schema}.tables {_known(table)};" for table in tables),
    ]


def _known(table: JournalTable) -> str:
    return (
        f"SELECT {table.oid}, {literal(f'{table.schema}.{table.name}')}, "
        f"NOT EXISTS (SELECT FROM {'ONLY ' if table.is_leaf else ''}{table.quoted}), "
        "(SELECT count(*) FROM pg_catalog.pg_attribute "
        f"WHERE attrelid = {table.oid} AND attisdropped)"
    )


# The schema, where event triggers may be had

_EVENT_TRIGGERS = ("!arena_changed", "!arena_dropped")
# As ADD COLUMN IF NOT EXISTS does where it is there: no catalog is changed without a number. Where
# wal_level is above minimal, to lock a table takes one as well, and it counts as a change.
_NOTHING_WRITTEN = "pg_catalog.pg_current_xact_id_if_assigned() IS NULL"
# Of a temporary table's triggers and policies, only the name tells where they are.
_IS_LASTING = (
    "{name} IS NULL OR {name} !~ '(^| on | for |\\.)\"?pg_temp(_[0-9]+)?\"?\\.'"
)
_CHANGED = f"""
SELECT DISTINCT command_tag || coalesce(
    ' ' || object_identity,
    CASE WHEN object_type LIKE '%S' THEN ' on ' ELSE ' on a ' END || lower(object_type), '')
FROM pg_catalog.pg_event_trigger_ddl_commands()
WHERE schema_name IS DISTINCT FROM 'pg_temp' AND command_tag <> 'REINDEX'
AND ({_IS_LASTING.format(name="object_identity")})
"""
# A column that is dropped is marked by its ALTER TABLE.
_DROPPED = f"""
SELECT DISTINCT 'DROP ' || upper(object_type) || coalesce(' ' || object_identity, '')
FROM pg_catalog.pg_event_trigger_dropped_objects()
WHERE original AND NOT is_temporary AND object_type <> 'table column'
AND ({_IS_LASTING.format(name="object_identity")})
"""


def event_triggers(schema: str) -> str:
    """Write what notes each change of the schema, one line an object, as a mark.

    A role that may not make event triggers goes without; whether they are there, the catalog says.
    """
    changed, dropped = _EVENT_TRIGGERS
    statements = [
        *_event_trigger(schema, changed, "ddl_command_end", _CHANGED),
        *_event_trigger(schema, dropped, "sql_drop", _DROPPED),
    ]
    return (
        f"DO $arena_do$ BEGIN {' '.join(statements)} "
        "EXCEPTION WHEN insufficient_privilege THEN NULL; END $arena_do$;"
    )


def _event_trigger(schema: str, name: str, event: str, question: str) -> Iterator[str]:
    function = f"{schema}.{name.removeprefix('!arena_')}"
    trigger = f'"{name}"'
    yield (
        f"CREATE OR REPLACE FUNCTION {function}() RETURNS event_trigger LANGUAGE plpgsql "
        f"SECURITY DEFINER SET search_path TO 'pg_catalog' AS $arena_body$ BEGIN "
        f"IF {OURS} OR {_NOTHING_WRITTEN} THEN RETURN; END IF; "
        f"INSERT INTO {schema}.ddl {question}; END $arena_body$;"
    )
    yield f"DROP EVENT TRIGGER IF EXISTS {trigger};"
    yield f"CREATE EVENT TRIGGER {trigger} ON {event} EXECUTE FUNCTION {function}();"
    yield f"ALTER EVENT TRIGGER {trigger} ENABLE ALWAYS;"


# The schema, where they may not

# Each change of a catalog's row makes another version of it, with the transaction's number. The
# numbers are compared. An app that writes rows changes none of these catalogs.
_NOT_COMPARED = (
    *(
        "pg_class",
        "pg_sequence",
    ),  # TRUNCATE and RESTART change rows of them, so values are read
    *("pg_statistic", "pg_statistic_ext_data"),  # ANALYZE
    *("pg_largeobject", "pg_largeobject_metadata"),  # compared by themselves
)
# A session's temporary objects and the journal's functions are no part of the schema. An id below
# 16384 is PostgreSQL's.
_OF_TEMPORARY = "= ANY (own.temporary)"
_IN_ANOTHER = "= ANY (own.other_schemas)"
_COMPARED = {
    "pg_attribute": f"t.attrelid >= 16384 AND NOT t.attrelid {_OF_TEMPORARY}",
    "pg_attrdef": f"NOT t.adrelid {_OF_TEMPORARY}",
    "pg_index": f"t.indexrelid >= 16384 AND NOT t.indrelid {_OF_TEMPORARY}",
    "pg_inherits": f"NOT t.inhrelid {_OF_TEMPORARY}",
    "pg_partitioned_table": f"NOT t.partrelid {_OF_TEMPORARY}",
    "pg_policy": f"NOT t.polrelid {_OF_TEMPORARY}",
    "pg_rewrite": f"t.oid >= 16384 AND NOT t.ev_class {_OF_TEMPORARY}",
    "pg_trigger": f"NOT t.tgrelid {_OF_TEMPORARY}",
    "pg_statistic_ext": f"NOT t.stxrelid {_OF_TEMPORARY}",
    "pg_collation": f"t.oid >= 16384 AND NOT t.collnamespace {_IN_ANOTHER}",
    "pg_constraint": f"t.oid >= 16384 AND NOT t.connamespace {_IN_ANOTHER}",
    "pg_conversion": f"t.oid >= 16384 AND NOT t.connamespace {_IN_ANOTHER}",
    "pg_namespace": f"NOT t.oid {_IN_ANOTHER}",
    "pg_operator": f"t.oid >= 16384 AND NOT t.oprnamespace {_IN_ANOTHER}",
    "pg_proc": f"t.oid >= 16384 AND NOT t.pronamespace {_IN_ANOTHER}",
    "pg_type": f"t.oid >= 16384 AND NOT t.typnamespace {_IN_ANOTHER}",
    "pg_aggregate": "t.aggfnoid >= 16384",
    "pg_amop": "t.oid >= 16384",
    "pg_amproc": "t.oid >= 16384",
    "pg_cast": "t.oid >= 16384",
    # Whose a sequence is, and what belongs to an extension. All else repeats other catalogs.
    "pg_depend": "t.refclassid = 'pg_catalog.pg_extension'::regclass OR t.objid >= 16384 "
    f"AND t.classid = 'pg_catalog.pg_class'::regclass AND NOT t.objid {_OF_TEMPORARY}",
    # 2200 is the schema public.
    "pg_description": f"(t.objoid >= 16384 OR t.objoid = 2200) AND NOT t.objoid {_OF_TEMPORARY}",
}
# Of pg_class, what VACUUM, ANALYZE and TRUNCATE change, and hints that are set late.
_NOT_READ = (
    *(
        "relpages",
        "reltuples",
        "relallvisible",
        "relallfrozen",
        "relfrozenxid",
        "relminmxid",
    ),
    *("relhasindex", "relhasrules", "relhastriggers", "relhassubclass", "relrewrite"),
    "relfilenode",
)


def shape_function(schema: str) -> str:
    """Return what makes two functions: `shape`, a text of the schema, and `alterations`, a number.

    With event triggers both cost nothing. Without, `shape` reads all catalogs: some ms, and nothing
    where no transaction of the server has ended since the last call. `alterations` costs nothing,
    and has moved where a table may have been made.
    """
    names = ", ".join(map(literal, _EVENT_TRIGGERS))
    return f"""
DO $arena_do$ BEGIN
IF (SELECT count(*) FROM pg_catalog.pg_event_trigger e
    WHERE e.evtname IN ({names}) AND e.evtenabled = 'A') = {len(_EVENT_TRIGGERS)}
THEN
    CREATE OR REPLACE FUNCTION {schema}.shape() RETURNS text LANGUAGE sql IMMUTABLE
    AS $arena$ SELECT '' $arena$;
    CREATE OR REPLACE FUNCTION {schema}.alterations() RETURNS int8 LANGUAGE sql STABLE
    AS $arena$ SELECT count(*) FROM {schema}.ddl $arena$;
ELSE
    EXECUTE format({literal(_SHAPE.format(s=schema))}, ({_questions()}));
    CREATE OR REPLACE FUNCTION {schema}.alterations() RETURNS int8 LANGUAGE sql STABLE
    AS $arena$ SELECT max(c.oid)::int8 FROM pg_catalog.pg_class c $arena$;
END IF;
END $arena_do$;
"""


# In PL/pgSQL, which keeps the plan. What was read under one snapshot is true as long as that is the
# snapshot: no transaction that has written has ended since then.
_SHAPE = """
CREATE OR REPLACE FUNCTION {s}.shape() RETURNS text LANGUAGE plpgsql STABLE AS $arena$
DECLARE
    moment text := pg_catalog.pg_current_snapshot()::text || ' ';
    known text := pg_catalog.current_setting('arena.shape', true);
BEGIN
    IF pg_catalog.starts_with(known, moment) THEN
        RETURN pg_catalog.substr(known, pg_catalog.length(moment) + 1);
    END IF;
    WITH own AS MATERIALIZED (
        SELECT ARRAY(SELECT c.oid FROM pg_catalog.pg_class c
                WHERE c.oid >= 16384 AND c.relpersistence = 't') AS temporary,
            ARRAY(SELECT n.oid FROM pg_catalog.pg_namespace n
                WHERE n.nspname ~ '^pg_(toast_)?temp_' OR n.nspname = '{s}') AS other_schemas)
    SELECT pg_catalog.string_agg(coalesce(f.digest, 0)::text, ' ') INTO known
    FROM (%s) f(digest);
    PERFORM pg_catalog.set_config('arena.shape', moment || known, false);
    RETURN known;
END
$arena$"""


def _questions() -> str:
    """Write the query of the text that asks for a digest of each catalog that there is.

    A version of PostgreSQL may have more of them, and more columns.
    """
    by_version = "SELECT sum(hashint8extended(t.xmin::text::int8, 0))"
    by_value = "SELECT sum(hashtextextended(ROW(%s)::text, 0))"
    not_compared = ", ".join(map(literal, _NOT_COMPARED))
    not_read = ", ".join(map(literal, _NOT_READ))
    conditions = ", ".join(
        f"({literal(catalog)}, {literal(condition)})"
        for catalog, condition in _COMPARED.items()
    )
    own_class = literal(
        f"{by_value} FROM pg_catalog.pg_class t, own "
        f"WHERE t.oid >= 16384 AND NOT t.oid {_OF_TEMPORARY}"
    )
    own_sequence = literal(
        "SELECT sum(hashtextextended(t::text, 0)) FROM pg_catalog.pg_sequence t, own "
        f"WHERE NOT t.seqrelid {_OF_TEMPORARY}"
    )
    return f"""
        SELECT pg_catalog.string_agg(q.question, ' UNION ALL ') FROM (
            SELECT format('{by_version} FROM pg_catalog.%I t, own WHERE %s',
                c.relname, coalesce(v.condition, 'true')) AS question
            FROM pg_catalog.pg_class c
            LEFT JOIN (VALUES {conditions}) v(catalog, condition) ON v.catalog = c.relname
            WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind = 'r'
            AND NOT c.relisshared AND has_table_privilege(c.oid, 'SELECT')
            AND c.relname NOT IN ({not_compared})
            UNION ALL
            SELECT format({own_class}, string_agg(format(
                CASE WHEN a.atttypid = 'pg_node_tree'::regtype THEN 't.%I::text' ELSE 't.%I' END,
                a.attname), ', ' ORDER BY a.attnum)
                || ', CASE t.relkind WHEN ''m'' THEN t.relfilenode END')
            FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = 'pg_catalog.pg_class'::regclass AND a.attnum > 0
            AND a.attname NOT IN ({not_read})
            UNION ALL SELECT {own_sequence}) q"""
