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
from pytest_arena._postgresql.journal._tables import HIDDEN_SCHEMA, OURS, JournalTable, Setting

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


# Up to so many are read themselves, each for 2 µs. Of more, an uncalled one's number is not known:
# `setval(…, false)` on it is not seen.
EXACT_SEQUENCES = 100

_HOME = "(SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())"
_OBJECTS = (
    "(SELECT count(*) || ' ' || coalesce(sum(l.oid::int8), 0) "
    "FROM pg_catalog.pg_largeobject_metadata l) || "
    # No event trigger fires for a change of one.
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
        DELETE FROM {schema}.state;
        INSERT INTO {schema}.state SELECT 0, q.* FROM ({now(schema, sequences)}) q;
    END IF;
END
$arena$;
"""


def latest(schema: str, level: str) -> str:
    """Write the query of what a level began with, one row."""
    return (
        f"SELECT a.* FROM {schema}.state a WHERE a.level <= {level} ORDER BY a.level DESC LIMIT 1"
    )


def now(schema: str, sequences: Sequence[tuple[int, str]]) -> str:
    """Write the query of what stands now: number, called, objects, settings, shape."""
    is_exact = len(sequences) <= EXACT_SEQUENCES
    called = "coalesce(array_agg(v.called), '{}')" if is_exact else "'{}'::bool[]"
    return (
        "SELECT coalesce(array_agg(v.number), '{}') AS number, "
        f"{called} AS called, "
        f"{_OBJECTS} AS objects, {_settings(schema)} AS settings, {schema}.shape() AS shape "
        f"FROM ({_numbers(sequences)}) v"
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
            f"SELECT last_value AS number, is_called AS called FROM {name}" for _, name in sequences
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
    "WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false, toast_tuple_target = 8160)"
)
# When its transaction was begun.
_BEGUN = "t timestamptz NOT NULL DEFAULT pg_catalog.now()"
_SMALL = "WITH (autovacuum_enabled = false)"


def layout(schema: str) -> str:
    """Write what makes the schema and its tables, where they are not there yet."""
    hidden = "SET LOCAL allow_system_table_mods = on; " if schema == HIDDEN_SCHEMA else ""
    return f"""{hidden}
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE UNLOGGED TABLE IF NOT EXISTS {schema}.j
    (rel oid NOT NULL, op int4 NOT NULL, x xid8 NOT NULL, r text NOT NULL, {_BEGUN}) {_IMAGES};
CREATE UNLOGGED TABLE IF NOT EXISTS {schema}.jold
    (level int4 NOT NULL, rel oid NOT NULL, op int4 NOT NULL, r text NOT NULL) {_IMAGES};
CREATE INDEX IF NOT EXISTS jold_level ON {schema}.jold (level);
CREATE UNLOGGED TABLE IF NOT EXISTS {schema}.ddl
    (what text NOT NULL, x xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(), {_BEGUN})
    {_SMALL};
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
_IS_LASTING = "{name} IS NULL OR {name} !~ '(^| on | for |\\.)\"?pg_temp(_[0-9]+)?\"?\\.'"
_CHANGED = f"""
SELECT DISTINCT command_tag ||
    coalesce(' ' || object_identity, ' on a ' || lower(object_type), '')
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
    function, trigger = f"{schema}.{name.removeprefix('!arena_')}", f'"{name}"'
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

# What a statement that changes rows alone never writes anew is told by its version. TRUNCATE makes
# another version of a table's entry, and so does RESTART of a sequence's: these are read.
_BY_VERSION = {
    "pg_namespace": "t.nspname = ANY (own.names)",
    "pg_proc": "t.pronamespace = ANY (own.oids)",
    "pg_type": "t.typnamespace = ANY (own.oids)",
    "pg_constraint": "t.connamespace = ANY (own.oids)",
    "pg_statistic_ext": "t.stxnamespace = ANY (own.oids)",
    "pg_operator": "t.oprnamespace = ANY (own.oids)",
    "pg_collation": "t.collnamespace = ANY (own.oids)",
    "pg_conversion": "t.connamespace = ANY (own.oids)",
    "pg_ts_config": "t.cfgnamespace = ANY (own.oids)",
    "pg_ts_config_map": "t.mapcfg >= 16384",
    "pg_ts_dict": "t.dictnamespace = ANY (own.oids)",
    "pg_index": "t.indrelid = ANY (own.relations)",
    "pg_trigger": "NOT t.tgisinternal AND t.tgrelid = ANY (own.relations)",
    "pg_rewrite": "t.ev_class = ANY (own.relations)",
    "pg_policy": "t.polrelid = ANY (own.relations)",
    "pg_attrdef": "t.adrelid = ANY (own.relations)",
    "pg_inherits": "t.inhrelid = ANY (own.relations)",
    "pg_enum": "true",
    "pg_extension": "true",
    "pg_default_acl": "true",
    "pg_cast": "true",
    "pg_foreign_server": "true",
    "pg_publication": "true",
    "pg_publication_rel": "true",
    "pg_description": "t.objoid >= 16384 AND NOT t.objoid = ANY (own.passing)",
}
_CLASS = (
    "t.oid, t.relname, t.relnamespace, t.relowner, t.relkind, t.relpersistence, t.relnatts, "
    "t.relchecks, t.relrowsecurity, t.relforcerowsecurity, t.relreplident, t.relispartition, "
    "t.relacl, t.reloptions, t.relpartbound::text, "
    # REFRESH gives a materialized view another file.
    "CASE t.relkind WHEN 'm' THEN t.relfilenode END"
)
_ATTRIBUTE = (
    "t.attrelid, t.attnum, t.attname, t.atttypid, t.atttypmod, t.attnotnull, t.attidentity, "
    "t.attgenerated, t.attisdropped, t.attcollation, t.attacl"
)
_READ = {
    "pg_class": (_CLASS, "t.oid = ANY (own.relations)"),
    "pg_attribute": (_ATTRIBUTE, "t.attnum > 0 AND t.attrelid = ANY (own.relations)"),
    "pg_sequence": ("t.*", "t.seqrelid = ANY (own.relations)"),
}


def shape_function(schema: str) -> str:
    """Write what tells one schema from another: `shape`, a text, and `alterations`, a number.

    Where event triggers tell it, the text is a constant and costs nothing; else some ms. The number
    costs nothing, and has moved where a table may have been made.
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
    CREATE OR REPLACE FUNCTION {schema}.shape() RETURNS text LANGUAGE sql STABLE
    AS $arena$ {_shape(schema)} $arena$;
    CREATE OR REPLACE FUNCTION {schema}.alterations() RETURNS int8 LANGUAGE sql STABLE
    AS $arena$ SELECT max(c.oid)::int8 FROM pg_catalog.pg_class c $arena$;
END IF;
END $arena_do$;
"""


def _shape(schema: str) -> str:
    by_version = (
        f"SELECT '{table} ' || t.xmin::text || ' ' || t.ctid::text FROM pg_catalog.{table} t, own "
        f"WHERE {which}"
        for table, which in _BY_VERSION.items()
    )
    read = (
        f"SELECT '{table} ' || ROW({columns})::text FROM pg_catalog.{table} t, own WHERE {which}"
        for table, (columns, which) in _READ.items()
    )
    return f"""
        WITH own AS MATERIALIZED (
            SELECT array_agg(n.oid) AS oids, array_agg(n.nspname) AS names,
                ARRAY(SELECT c.oid FROM pg_catalog.pg_class c
                    JOIN pg_catalog.pg_namespace m ON m.oid = c.relnamespace
                    WHERE m.nspname !~ '^pg_'
                    AND m.nspname NOT IN ('information_schema', '{schema}')) AS relations,
                ARRAY(SELECT c.oid FROM pg_catalog.pg_class c
                    JOIN pg_catalog.pg_namespace m ON m.oid = c.relnamespace
                    WHERE m.nspname ~ '^pg_temp') AS passing
            FROM pg_catalog.pg_namespace n
            WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', '{schema}'))
        SELECT coalesce(sum(hashtextextended(f.fact, 0)), 0)::text
        FROM ({" UNION ALL ".join([*by_version, *read])}) f(fact)"""
