"""Writes the journal's tables, and queries for changes that triggers do not record.

These are changes of sequences, large objects, event triggers, settings and the schema. The table
``state`` has their state at the start of a level. A level has a row only if its state differed from
the level below. Level 0 always has a row. If that row is missing, the server has crashed, because a
crash empties unlogged tables.
"""

# ruff: noqa: S608 - names are written by identifier() and literal() alone

from collections.abc import Sequence

from pytest_arena._postgresql._control import literal
from pytest_arena._postgresql.journal._tables import (
    HIDDEN_SCHEMA,
    OURS,
    JournalTable,
    Setting,
)

# Up to this number pytest-arena reads each sequence, which takes 2 µs. With more sequences it does
# not know the value of an unused sequence, and does not notice `setval(…, false)` on it.
EXACT_SEQUENCES = 100


def state_script(schema: str, sequences: Sequence[tuple[int, str]]) -> str:
    """Write the script that creates ``state``, with the current state as the start of level 0.

    A copy of the database starts at level 0 as well. A crash may have emptied its unlogged tables,
    and a copy lacks the database's settings. The first connection to a copy calls ``settle``.
    """
    return f"""
DROP TABLE IF EXISTS {schema}.state, {schema}.home;
CREATE UNLOGGED TABLE {schema}.state (
    level int4 PRIMARY KEY,
    number int8[] NOT NULL,
    called bool[] NOT NULL,
    objects text NOT NULL,
    settings text NOT NULL,
    shape text NOT NULL)
    WITH (autovacuum_enabled = false, toast_tuple_target = 8160);
CREATE TABLE {schema}.home AS SELECT 0::pg_catalog.oid AS oid;
CREATE OR REPLACE FUNCTION {schema}.settle() RETURNS void LANGUAGE plpgsql AS $arena$
DECLARE
    here oid := (
        SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database());
BEGIN
    UPDATE {schema}.home SET oid = here WHERE oid <> here;
    IF FOUND THEN
        -- This must survive a crash. Otherwise the next connection would take the emptied journal
        -- for a new copy.
        PERFORM pg_catalog.set_config('synchronous_commit', 'on', true);
        DELETE FROM {schema}.state;
        INSERT INTO {schema}.state SELECT 0, q.* FROM ({current_state(schema, sequences)}) q;
    END IF;
END
$arena$;
"""


def state_at_start(schema: str, level: str) -> str:
    """Write the query of the state at the start of a level, one row."""
    return f"""
    SELECT a.* FROM {schema}.state a
    WHERE a.level <= {level}
    ORDER BY a.level DESC LIMIT 1"""


def current_state(schema: str, sequences: Sequence[tuple[int, str]]) -> str:
    """Write the query of the current state: number, called, objects, settings, shape."""
    called = "'{}'::bool[]"
    if len(sequences) <= EXACT_SEQUENCES:
        called = "coalesce(array_agg(v.called), '{}')"
    return f"""
    SELECT
        coalesce(array_agg(v.number), '{{}}') AS number,
        {called} AS called,
        {_objects(schema)} AS objects,
        {_settings(schema)} AS settings,
        {schema}.shape() AS shape
    FROM ({_numbers(sequences)}) v"""


# Each change of a row writes a new version of the row, with the id of the transaction.
_OBJECT_VERSIONS = """(
                SELECT coalesce(sum(pg_catalog.hashint8extended(o.xmin::text::int8, 0)), 0)::text
                FROM pg_catalog.{catalog} o)"""


def _objects(schema: str) -> str:
    """Write an expression for large objects, event triggers and the indexes of CLUSTER.

    Only a superuser may read the content of large objects. Without that right pytest-arena installs
    no journal if large objects exist. No event trigger fires for CLUSTER, or for a change of an
    event trigger.
    """
    versions = _OBJECT_VERSIONS.format(catalog="pg_largeobject_metadata")
    if schema == HIDDEN_SCHEMA:
        versions += " || ' ' || " + _OBJECT_VERSIONS.format(catalog="pg_largeobject")
    # Most databases have no large object, so the query skips the sums.
    return f"""
        CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)
            THEN {versions}
            ELSE ''
        END || ARRAY(SELECT e.xmin FROM pg_catalog.pg_event_trigger e ORDER BY e.oid)::text
        || ARRAY(SELECT i.indexrelid FROM pg_catalog.pg_index i WHERE i.indisclustered
            ORDER BY i.indexrelid)::text"""


def _settings(schema: str) -> str:
    """Write an expression for the settings of the database.

    The rows have the order of their index, and ``settle`` has recorded the database's oid. So the
    query neither sorts nor searches.
    """
    return f"""
        ARRAY(
            SELECT g.setrole || ' ' || g.setconfig::text
            FROM pg_catalog.pg_db_role_setting g
            WHERE g.setdatabase = (SELECT h.oid FROM {schema}.home h)
            ORDER BY g.setrole)::text"""


def _numbers(sequences: Sequence[tuple[int, str]]) -> str:
    if not sequences:
        return "SELECT 0::int8 AS number, false AS called WHERE false"
    if len(sequences) <= EXACT_SEQUENCES:
        return " UNION ALL ".join(
            f"SELECT last_value AS number, is_called AS called FROM {name}"
            for _, name in sequences
        )
    return f"""
        SELECT pg_catalog.pg_sequence_last_value(o.oid::pg_catalog.regclass) AS number
        FROM unnest({_oids(sequences)}) o(oid)"""


def _oids(sequences: Sequence[tuple[int, str]]) -> str:
    oids = ",".join(str(oid) for oid, _ in sequences)
    return f"'{{{oids}}}'::pg_catalog.oid[]"


def restart_function(schema: str) -> str:
    """Write the function that sets a sequence and discards the values that sessions have cached.

    A session caches ``CACHE`` values of a sequence. Only an ALTER discards them.
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


def restore_sequences(schema: str, sequences: Sequence[tuple[int, str]]) -> str:
    """Write the statement that restores the sequences that have moved, by the record ``k``."""
    return f"""
        PERFORM CASE
            WHEN {_CACHE} > 1 THEN {schema}.restart(x.oid, x.number, x.called)
            ELSE pg_catalog.setval(x.oid::pg_catalog.regclass, x.number, x.called)
        END
        FROM ({_moved(sequences, "was")}) x"""


def discard_cached_numbers(schema: str, sequences: Sequence[tuple[int, str]]) -> str:
    """Write the statement that discards the values that sessions have cached, by ``k``.

    A sequence does not move if a session uses a cached value.
    """
    return f"""
            PERFORM {schema}.restart(x.oid, x.number, x.called)
            FROM ({_moved(sequences, "now")}) x
            WHERE {_CACHE} > 1"""


_CACHE = "(SELECT q.seqcache FROM pg_catalog.pg_sequence q WHERE q.seqrelid = x.oid)"


def _moved(sequences: Sequence[tuple[int, str]], to: str) -> str:
    """Write the query of the sequences that have moved: oid, number, called.

    ``to`` is "was" for the values at the start of the level, "now" for the current values.
    """
    # An `unnest` in FROM would store all rows first.
    numbers = f"""
                unnest({_oids(sequences)}) AS oid,
                unnest(k.was_number) AS was,
                unnest(k.number) AS now"""
    if len(sequences) <= EXACT_SEQUENCES:
        return f"""
            SELECT e.oid, e.{to} AS number, e.{to}_called AS called
            FROM (SELECT {numbers},
                unnest(k.was_called) AS was_called,
                unnest(k.called) AS now_called) e
            WHERE e.was <> e.now OR e.was_called <> e.now_called"""
    # The value of an unused sequence was not read. Such a sequence has its start value.
    start = "(SELECT q.seqstart FROM pg_catalog.pg_sequence q WHERE q.seqrelid = e.oid)"
    return f"""
            SELECT e.oid, coalesce(e.{to}, {start}) AS number, e.{to} IS NOT NULL AS called
            FROM (SELECT {numbers}) e
            WHERE e.was IS DISTINCT FROM e.now"""


# The journal's tables

# Autovacuum of the journal and writers would wait for each other. PostgreSQL does not compress long
# images, and stores them in the row as long as possible. This is two to four times as fast.
_IMAGES = (
    "WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false, "
    "toast_tuple_target = 8160)"
)
_SMALL = "WITH (autovacuum_enabled = false)"


def layout(schema: str) -> str:
    """Write the script that creates the schema and its tables, if they do not exist."""
    allow = ""
    if schema == HIDDEN_SCHEMA:
        allow = "SET LOCAL allow_system_table_mods = on;"
    return f"""{allow}
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE UNLOGGED TABLE IF NOT EXISTS {schema}.j (
    rel oid NOT NULL,
    op int4 NOT NULL,
    x xid8 NOT NULL,
    r text NOT NULL) {_IMAGES};
CREATE UNLOGGED TABLE IF NOT EXISTS {schema}.jold (
    level int4 NOT NULL,
    rel oid NOT NULL,
    op int4 NOT NULL,
    r text NOT NULL) {_IMAGES};
CREATE INDEX IF NOT EXISTS jold_level ON {schema}.jold (level);
CREATE UNLOGGED TABLE IF NOT EXISTS {schema}.ddl (
    what text NOT NULL,
    x xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id()) {_SMALL};
CREATE UNLOGGED TABLE IF NOT EXISTS {schema}.filled (
    level int4 NOT NULL,
    rel oid NOT NULL) {_SMALL};
CREATE TABLE IF NOT EXISTS {schema}.tables (
    oid oid PRIMARY KEY,
    name text NOT NULL,
    was_empty bool NOT NULL,
    dropped_columns int8 NOT NULL) {_SMALL};
CREATE TABLE IF NOT EXISTS {schema}.canon (
    name text PRIMARY KEY,
    value text NOT NULL) {_SMALL};
ALTER TABLE {schema}.j ALTER r SET STORAGE EXTERNAL;
ALTER TABLE {schema}.jold ALTER r SET STORAGE EXTERNAL;
GRANT USAGE ON SCHEMA {schema} TO PUBLIC;
GRANT INSERT ON {schema}.j TO PUBLIC;
"""


def recorded_facts(
    schema: str, tables: Sequence[JournalTable], settings: Sequence[Setting]
) -> list[str]:
    """Write the statements that record the tables, and the settings of their images."""
    values = ", ".join(
        f"({literal(setting.name)}, {literal(setting.value)})" for setting in settings
    )
    statements = [
        f"DELETE FROM {schema}.canon; INSERT INTO {schema}.canon VALUES {values};",
        f"DELETE FROM {schema}.tables;",
    ]
    for table in tables:
        only = "ONLY" if table.is_leaf else ""
        name = literal(f"{table.schema}.{table.name}")
        # One statement with all tables would take three times as long to plan.
        statements.append(f"""
            INSERT INTO {schema}.tables
            SELECT {table.oid}, {name}, NOT EXISTS (SELECT FROM {only} {table.quoted}), (
                SELECT count(*) FROM pg_catalog.pg_attribute
                WHERE attrelid = {table.oid} AND attisdropped);""")
    return statements


# The schema, if the role may create event triggers

_EVENT_TRIGGERS = ("!arena_changed", "!arena_dropped")
# Each change of a catalog needs a transaction id. ADD COLUMN IF NOT EXISTS gets none if the column
# exists. If wal_level is above minimal, LOCK TABLE gets a transaction id, and counts as a change.
_NOTHING_WRITTEN = "pg_catalog.pg_current_xact_id_if_assigned() IS NULL"
# For a trigger or a policy, only the name shows that its table is temporary.
_IS_LASTING = (
    "{name} IS NULL OR {name} !~ '(^| on | for |\\.)\"?pg_temp(_[0-9]+)?\"?\\.'"
)
_CHANGED = f"""
        SELECT DISTINCT command_tag || coalesce(
            ' ' || object_identity,
            CASE WHEN object_type LIKE '%S' THEN ' on ' ELSE ' on a ' END || lower(object_type),
            '')
        FROM pg_catalog.pg_event_trigger_ddl_commands()
        WHERE schema_name IS DISTINCT FROM 'pg_temp' AND command_tag <> 'REINDEX'
        AND NOT in_extension
        AND ({_IS_LASTING.format(name="object_identity")})
"""
# The event of ALTER TABLE already records a dropped column.
_DROPPED = f"""
        SELECT DISTINCT 'DROP ' || upper(object_type) || coalesce(' ' || object_identity, '')
        FROM pg_catalog.pg_event_trigger_dropped_objects()
        WHERE original AND NOT is_temporary AND object_type <> 'table column'
        AND ({_IS_LASTING.format(name="object_identity")})
"""


def event_triggers(schema: str) -> str:
    """Write the script that creates the event triggers, which write a mark for each changed object.

    If the role may not create event triggers, the script has no effect. The catalog shows whether
    the triggers exist.
    """
    changed, dropped = _EVENT_TRIGGERS
    return f"""
DO $arena_do$ BEGIN
    {_event_trigger(schema, changed, "ddl_command_end", _CHANGED)}
    {_event_trigger(schema, dropped, "sql_drop", _DROPPED)}
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $arena_do$;
"""


def _event_trigger(schema: str, name: str, event: str, marks: str) -> str:
    function = f"{schema}.{name.removeprefix('!arena_')}"
    return f"""
    CREATE OR REPLACE FUNCTION {function}() RETURNS event_trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path TO 'pg_catalog' AS $arena_body$
    BEGIN
        IF {OURS} OR {_NOTHING_WRITTEN} THEN RETURN; END IF;
        INSERT INTO {schema}.ddl {marks};
    END $arena_body$;
    DROP EVENT TRIGGER IF EXISTS "{name}";
    CREATE EVENT TRIGGER "{name}" ON {event} EXECUTE FUNCTION {function}();
    ALTER EVENT TRIGGER "{name}" ENABLE ALWAYS;"""


# The schema, if the role may not create event triggers

# Each change of a row in a catalog writes a new version, with the id of its transaction.
# pytest-arena compares the ids. An app that writes rows changes none of these catalogs.
_NOT_COMPARED = (
    "pg_class",  # TRUNCATE changes its rows, so pytest-arena compares values
    "pg_sequence",  # RESTART changes its rows, so pytest-arena compares values
    "pg_statistic",  # ANALYZE changes it
    "pg_statistic_ext_data",
    "pg_largeobject",  # part of `objects`
    "pg_largeobject_metadata",
)
# A session's temporary objects and the journal's functions are not part of the schema. PostgreSQL's
# objects have oids below 16384.
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
    # Only the owners of sequences and the members of extensions. Other catalogs have the rest.
    "pg_depend": "t.refclassid = 'pg_catalog.pg_extension'::regclass OR t.objid >= 16384 "
    f"AND t.classid = 'pg_catalog.pg_class'::regclass AND NOT t.objid {_OF_TEMPORARY}",
    # 2200 is the oid of the schema public.
    "pg_description": f"(t.objoid >= 16384 OR t.objoid = 2200) AND NOT t.objoid {_OF_TEMPORARY}",
}
# Columns of pg_class that VACUUM, ANALYZE and TRUNCATE change, and hints that PostgreSQL sets late.
_NOT_READ = (
    "relpages",
    "reltuples",
    "relallvisible",
    "relallfrozen",
    "relfrozenxid",
    "relminmxid",
    "relhasindex",
    "relhasrules",
    "relhastriggers",
    "relhassubclass",
    "relrewrite",
    "relfilenode",
)


def shape_function(schema: str) -> str:
    """Write the script that creates the functions ``shape`` and ``alterations``.

    ``shape`` returns a text that changes with the schema. ``alterations`` returns a number that
    changes if a table may have been created. With event triggers both are cheap. Without them
    ``shape`` reads all catalogs, which takes some ms, if a transaction of the server has ended
    since the last call.
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
    EXECUTE format({literal(_SHAPE.format(s=schema))}, ({_digest_queries()}));
    CREATE OR REPLACE FUNCTION {schema}.alterations() RETURNS int8 LANGUAGE sql STABLE
    AS $arena$ SELECT max(c.oid)::int8 FROM pg_catalog.pg_class c $arena$;
END IF;
END $arena_do$;
"""


# PL/pgSQL keeps the plan. A digest is valid as long as the snapshot is the same, because then no
# transaction with a write has ended.
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


def _digest_queries() -> str:
    """Write a query that returns the text of another query, for a digest of each catalog.

    PostgreSQL writes that text, because its versions differ in catalogs and columns.
    """
    by_version = "SELECT sum(hashint8extended(t.xmin::text::int8, 0))"
    by_value = "SELECT sum(hashtextextended(ROW(%s)::text, 0))"
    not_compared = ", ".join(map(literal, _NOT_COMPARED))
    not_read = ", ".join(map(literal, _NOT_READ))
    conditions = ", ".join(
        f"({literal(catalog)}, {literal(condition)})"
        for catalog, condition in _COMPARED.items()
    )
    of_class = literal(
        f"{by_value} FROM pg_catalog.pg_class t, own "
        f"WHERE t.oid >= 16384 AND NOT t.oid {_OF_TEMPORARY}"
    )
    of_sequence = literal(
        "SELECT sum(hashtextextended(t::text, 0)) FROM pg_catalog.pg_sequence t, own "
        f"WHERE NOT t.seqrelid {_OF_TEMPORARY}"
    )
    return f"""
        SELECT pg_catalog.string_agg(q.question, ' UNION ALL ') FROM (
            SELECT format(
                '{by_version} FROM pg_catalog.%I t, own WHERE %s',
                c.relname, coalesce(v.condition, 'true')) AS question
            FROM pg_catalog.pg_class c
            LEFT JOIN (VALUES {conditions}) v(catalog, condition) ON v.catalog = c.relname
            WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind = 'r'
            AND NOT c.relisshared AND has_table_privilege(c.oid, 'SELECT')
            AND c.relname NOT IN ({not_compared})
            UNION ALL
            SELECT format({of_class}, string_agg(format(
                CASE WHEN a.atttypid = 'pg_node_tree'::regtype THEN 't.%I::text' ELSE 't.%I' END,
                a.attname), ', ' ORDER BY a.attnum)
                || ', CASE t.relkind WHEN ''m'' THEN t.relfilenode END')
            FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = 'pg_catalog.pg_class'::regclass AND a.attnum > 0
            AND a.attname NOT IN ({not_read})
            UNION ALL
            SELECT {of_sequence}) q"""
