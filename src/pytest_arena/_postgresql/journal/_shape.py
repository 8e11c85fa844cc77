"""Is the schema another one than before, where no event trigger may be had that notes it?"""

# ruff: noqa: S608 - the schema is one of our own two

from __future__ import annotations

from pytest_arena._postgresql._control import literal
from pytest_arena._postgresql.journal._ddl import EVENT_TRIGGERS

__all__ = ["shape_function"]

# What a statement that changes rows alone never writes anew is told by its version. TRUNCATE makes
# another version of a table's entry, and so does RESTART of a sequence's: these are read.
_BY_VERSION = {
    "pg_namespace": "t.nspname = ANY (own.names)",
    "pg_proc": "t.pronamespace = ANY (own.oids)",
    "pg_type": "t.typnamespace = ANY (own.oids)",
    "pg_constraint": "t.connamespace = ANY (own.oids)",
    "pg_statistic_ext": "t.stxnamespace = ANY (own.oids)",
    "pg_operator": "t.oprnamespace = ANY (own.oids)",
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
    "pg_description": "t.objoid >= 16384 AND NOT t.objoid = ANY (own.passing)",
}
_CLASS = (
    "t.oid, t.relname, t.relnamespace, t.relowner, t.relkind, t.relpersistence, t.relnatts, "
    "t.relchecks, t.relrowsecurity, t.relforcerowsecurity, t.relreplident, t.relispartition, "
    "t.relacl, t.reloptions, t.relpartbound::text"
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
    names = ", ".join(map(literal, EVENT_TRIGGERS))
    return f"""
DO $arena_do$ BEGIN
IF (SELECT count(*) FROM pg_catalog.pg_event_trigger e
    WHERE e.evtname IN ({names}) AND e.evtenabled = 'A') = {len(EVENT_TRIGGERS)}
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
