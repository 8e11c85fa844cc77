"""Digests of the content of a database.

Two digests that differ show which tables, sequences and definitions differ. They are read from the
database itself, not from a record of changes, so that they can check such a record.
"""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from pytest_arena._postgresql._control import (
    Control,
    ControlFailure,
    identifier,
    literal,
)


def content(control: Control) -> dict[str, str]:
    """Return a digest of each object in the connection's database.

    Equal digests mean equal content. The content of a table is the multiset of its rows. The
    content of a sequence is its value. The content of any other object is its definition, with its
    rights and its comment. The digests omit the change journal, temporary objects, foreign rows,
    and objects that the login may not read. They also omit sequences that it may not set.

    Cost: PostgreSQL reads all rows and catalogs, some ms, and 1 s for each million rows.

    Example::

        content(control)
        # {"table orders": "3 rows, …", "sequence orders_id_seq": "4, called",
        #  "definition of table orders": "…", "settings of the database": "…"}

    Raises:
        ControlFailure: another session locks a table (``55P03``), or the server does not answer.
    """
    with one_snapshot(control, _BEGIN):
        digests = [_digest(*relation) for relation in control.rows(_RELATIONS)]
        return {
            **dict(control.rows(_DEFINITIONS)),
            **dict(in_batches(control, digests)),
        }


def _digest(kind: str, name: str, quoted: str, columns: list[str]) -> str:
    """Return the query that computes the digest of a sequence or a relation.

    ``name`` has the schema, if that is not public.
    """
    key = literal(f"{kind} {name}")
    if kind == "sequence":
        called = "CASE WHEN is_called THEN ', called' ELSE ', not called' END"
        return f"SELECT {key}, last_value || {called} FROM {quoted}"
    # A sum does not depend on the order, and counts equal rows. Two sums of 64 bits, so that two
    # contents are not equal by accident.
    image = ", ".join(f"{identifier(column)}::text" for column in columns)
    digest = "coalesce(sum(pg_catalog.hashtextextended(image, {})), 0)"
    first, second = map(digest.format, (0, 1))
    return (
        f"SELECT {key}, count(*) || ' rows, ' || {first} || ' ' || {second} "
        f'FROM (SELECT ROW({image})::text COLLATE "C" AS image FROM ONLY {quoted}) AS r'
    )


# The app's functions may name objects without a schema. They need the search_path of the role and
# the database, until the transaction ends. PostgreSQL's names precede those of that path.
LIKE_THE_APP = """
SET LOCAL search_path TO DEFAULT;
SELECT pg_catalog.set_config('search_path', pg_catalog.rtrim(pg_catalog.concat(
    'pg_catalog, ', pg_catalog.current_setting('search_path')), ', '), true)"""
# With these settings equal values have equal texts. Settings of the login, of the database and of
# the connection have no effect.
_BEGIN_READING = """
    BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SET LOCAL search_path = pg_catalog;
    SET LOCAL lock_timeout = '1s';
    SET LOCAL statement_timeout = 0;
    SET LOCAL datestyle = 'ISO, YMD';
    SET LOCAL intervalstyle = 'postgres';
    SET LOCAL extra_float_digits = 1;
    SET LOCAL bytea_output = 'hex';
    SET LOCAL xmloption = 'content'
"""
# The columns of a table ``c``, and its primary key.
COLUMNS = """ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
        ORDER BY a.attnum)"""
KEY = """ARRAY(SELECT a.attname::text FROM pg_catalog.pg_index i
        CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts
        ORDER BY k.place)"""

_AT_ONCE = 50  # queries in one statement, which PostgreSQL plans as a whole


@contextmanager
def one_snapshot(control: Control, begin: str = _BEGIN_READING) -> Iterator[None]:
    """Read the same snapshot in all queries of the block, in one transaction.

    By default times have the database's time zone.
    """
    control.run(begin)
    try:
        yield
    finally:
        with suppress(ControlFailure):  # a lost connection has raised an error before
            control.run("ROLLBACK")


def in_batches(control: Control, queries: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of many queries, in few round trips.

    The transaction has the app's search_path from here on.
    """
    control.run(LIKE_THE_APP)
    for start in range(0, len(queries), _AT_ONCE):
        yield from control.rows(" UNION ALL ".join(queries[start : start + _AT_ONCE]))


# A database may have other values of these settings.
_BEGIN = f"{_BEGIN_READING}; SET LOCAL timezone = 'UTC'; SET LOCAL lc_monetary = 'C'"

_SPACES = """
    SELECT oid, nspname, nspowner, nspacl,
           CASE nspname WHEN 'public' THEN '' ELSE nspname || '.' END AS prefix
    FROM pg_namespace
    WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'arena_journal')
"""

# Views and foreign tables have no rows. The rows of a partitioned table are in its partitions.
_RELATIONS = f"""
    SELECT CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'm' THEN 'materialized view'
                          ELSE 'table' END,
           s.prefix || c.relname,
           quote_ident(s.nspname) || '.' || quote_ident(c.relname),
           ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid
                 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attname)
    FROM pg_class c JOIN ({_SPACES}) s ON s.oid = c.relnamespace
    WHERE c.relpersistence <> 't' AND has_schema_privilege(s.oid, 'USAGE')
      AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT')
                                   AND has_sequence_privilege(c.oid, 'UPDATE')
                         WHEN 'r' THEN has_table_privilege(c.oid, 'SELECT')
                         WHEN 'm' THEN has_table_privilege(c.oid, 'SELECT') AND c.relispopulated
                         ELSE false END
"""


def _rights(column: str) -> str:
    """Write the expression for an array of rights as one sorted text."""
    return f"(SELECT string_agg(acl::text, ' ' ORDER BY acl::text) FROM unnest({column}) AS u(acl))"


def _role(column: str) -> str:
    return f"pg_get_userbyid({column})::text"


# Each query adds lines to the definition of an object: its key, and the line as an array.
_PARTS = (
    # Relations, their columns and their parents.
    f"""
    SELECT key, ARRAY['relation', relpersistence::text, {_role("relowner")}, {_rights("relacl")},
        reloptions::text, relreplident::text, relispopulated::text,
        relrowsecurity::text, relforcerowsecurity::text, reloftype::regtype::text,
        (SELECT amname::text FROM pg_am WHERE oid = relam),
        (SELECT spcname::text FROM pg_tablespace WHERE oid = reltablespace),
        pg_get_expr(relpartbound, oid),
        CASE WHEN relkind = 'p' THEN pg_get_partkeydef(oid) END,
        CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid) END]
    FROM relation
    """,
    """
    SELECT key, ARRAY['parent', i.inhseqno::text, i.inhparent::regclass::text]
    FROM relation r JOIN pg_inherits i ON i.inhrelid = r.oid
    """,
    f"""
    SELECT key, ARRAY['column',
        (row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum))::text, a.attname::text,
        format_type(a.atttypid, a.atttypmod), a.attnotnull::text, a.attidentity::text,
        a.attgenerated::text, a.attstorage::text, to_jsonb(a) ->> 'attcompression',
        CASE WHEN a.attcollation <> 0 THEN a.attcollation::regcollation::text END,
        to_jsonb(a) ->> 'attstattarget', a.attoptions::text, a.attfdwoptions::text,
        {_rights("a.attacl")}, pg_get_expr(d.adbin, d.adrelid)]
    FROM relation r
    JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    """,
    """
    SELECT key, ARRAY['sequence', s.seqtypid::regtype::text, s.seqstart::text,
        s.seqincrement::text, s.seqmin::text, s.seqmax::text, s.seqcache::text, s.seqcycle::text,
        (SELECT d.refobjid::regclass || ' ' || d.refobjsubid FROM pg_depend d
         WHERE d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid
         AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') LIMIT 1)]
    FROM relation r JOIN pg_sequence s ON s.seqrelid = r.oid
    """,
    # Objects that belong to a table.
    """
    SELECT key, ARRAY['constraint', c.conname::text, pg_get_constraintdef(c.oid),
                      c.convalidated::text, c.conislocal::text, c.coninhcount::text]
    FROM relation r JOIN pg_constraint c ON c.conrelid = r.oid
    """,
    """
    SELECT key, ARRAY['index', pg_get_indexdef(i.indexrelid), i.indisvalid::text,
                      i.indisclustered::text, i.indisreplident::text]
    FROM relation r JOIN pg_index i ON i.indrelid = r.oid
    """,
    """
    SELECT key, ARRAY['trigger', t.tgenabled::text, pg_get_triggerdef(t.oid)]
    FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal
    JOIN pg_proc f ON f.oid = t.tgfoid JOIN space s ON s.oid = f.pronamespace
    """,
    """
    SELECT key, ARRAY['rule', w.ev_enabled::text, pg_get_ruledef(w.oid)]
    FROM relation r JOIN pg_rewrite w ON w.ev_class = r.oid AND w.rulename <> '_RETURN'
    """,
    """
    SELECT key, ARRAY['policy', p.polname::text, p.polcmd::text, p.polpermissive::text,
        (SELECT string_agg(CASE role WHEN 0 THEN 'public' ELSE pg_get_userbyid(role) END, ' '
                           ORDER BY role) FROM unnest(p.polroles) AS u(role)),
        pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)]
    FROM relation r JOIN pg_policy p ON p.polrelid = r.oid
    """,
    """
    SELECT key, ARRAY['statistics', pg_get_statisticsobjdef(x.oid)]
    FROM relation r JOIN pg_statistic_ext x ON x.stxrelid = r.oid
    """,
    """
    SELECT key, ARRAY['publication', p.pubname::text]
    FROM relation r JOIN pg_publication_rel x ON x.prrelid = r.oid
    JOIN pg_publication p ON p.oid = x.prpubid
    """,
    # All other objects.
    f"""
    SELECT 'schema ' || nspname, ARRAY['schema', {_role("nspowner")}, {_rights("nspacl")}]
    FROM space
    """,
    f"""
    SELECT 'function ' || f.oid::regprocedure, ARRAY['function', f.prokind::text,
        {_role("f.proowner")}, {_rights("f.proacl")}, f.prosrc,
        pg_get_function_result(f.oid),
        CASE WHEN f.prokind <> 'a' THEN pg_get_functiondef(f.oid) END,
        (SELECT (to_jsonb(a) - 'aggfnoid')::text FROM pg_aggregate a WHERE a.aggfnoid = f.oid)]
    FROM pg_proc f JOIN space s ON s.oid = f.pronamespace
    WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass
                      AND d.objid = f.oid AND d.deptype = 'e')
    """,
    f"""
    SELECT 'type ' || t.oid::regtype, ARRAY['type', t.typtype::text, {_role("t.typowner")},
        {_rights("t.typacl")}, t.typdefault, t.typnotnull::text,
        CASE WHEN t.typbasetype <> 0 THEN format_type(t.typbasetype, t.typtypmod) END,
        (SELECT string_agg(pg_get_constraintdef(c.oid), ' ' ORDER BY c.conname)
         FROM pg_constraint c WHERE c.contypid = t.oid),
        (SELECT string_agg(quote_literal(e.enumlabel), ' ' ORDER BY e.enumsortorder)
         FROM pg_enum e WHERE e.enumtypid = t.oid),
        (SELECT g.rngsubtype::regtype::text FROM pg_range g WHERE g.rngtypid = t.oid)]
    FROM pg_type t JOIN space s ON s.oid = t.typnamespace
    WHERE t.typtype IN ('e', 'd', 'r', 'b') AND t.typelem = 0
    """,
    """
    SELECT 'extension ' || e.extname, ARRAY['extension', e.extversion, n.nspname::text]
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    """,
    """
    SELECT 'collation ' || l.oid::regcollation, ARRAY['collation', l.collprovider::text,
        l.collisdeterministic::text, l.collcollate::text, l.collctype::text]
    FROM pg_collation l JOIN space s ON s.oid = l.collnamespace
    """,
    """
    SELECT 'publication ' || p.pubname, ARRAY['publication', (to_jsonb(p) - 'oid')::text]
    FROM pg_publication p
    """,
    """
    SELECT 'conversion ' || s.prefix || v.conname, ARRAY['conversion', (to_jsonb(v) - 'oid')::text]
    FROM pg_conversion v JOIN space s ON s.oid = v.connamespace
    """,
    """
    SELECT 'text search configuration ' || s.prefix || c.cfgname, ARRAY['configuration',
        (SELECT string_agg(m.maptokentype || ' ' || m.mapdict::regdictionary, ', '
                           ORDER BY m.maptokentype, m.mapseqno)
         FROM pg_ts_config_map m WHERE m.mapcfg = c.oid)]
    FROM pg_ts_config c JOIN space s ON s.oid = c.cfgnamespace
    """,
    """
    SELECT 'text search dictionary ' || s.prefix || d.dictname,
        ARRAY['dictionary', d.dicttemplate::text, d.dictinitoption]
    FROM pg_ts_dict d JOIN space s ON s.oid = d.dictnamespace
    """,
    """
    SELECT 'event trigger ' || e.evtname, ARRAY['event trigger', e.evtevent::text,
        e.evtenabled::text, e.evttags::text, f.oid::regprocedure::text]
    FROM pg_event_trigger e JOIN pg_proc f ON f.oid = e.evtfoid
    JOIN space s ON s.oid = f.pronamespace
    """,
    """
    SELECT 'operator ' || o.oid::regoperator, ARRAY['operator', o.oprcode::regprocedure::text]
    FROM pg_operator o JOIN space s ON s.oid = o.oprnamespace
    """,
    """
    SELECT 'cast ' || c.castsource::regtype || ' to ' || c.casttarget::regtype,
           ARRAY['cast', c.castcontext::text, c.castmethod::text]
    FROM pg_cast c WHERE c.oid >= 16384
    """,
    f"""
    SELECT 'default rights', ARRAY['rights', {_role("a.defaclrole")}, a.defaclobjtype::text,
        (SELECT nspname::text FROM space WHERE oid = a.defaclnamespace),
        {_rights("a.defaclacl")}]
    FROM pg_default_acl a
    """,
    """
    SELECT 'comments', ARRAY['comment',
        pg_describe_object(d.classoid, d.objoid, d.objsubid), d.description]
    FROM pg_description d WHERE d.objoid >= 16384 OR d.objoid = to_regnamespace('public')
    """,
)

_KINDS_IN_WORDS = """
    CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'f' THEN 'foreign table'
        WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence'
        ELSE 'type' END
"""

_LINES = " UNION ALL ".join(_PARTS)

# One line for each object, and one for the settings of the database. Roles belong to the server.
_DEFINITIONS = f"""
    WITH space AS ({_SPACES}), relation AS (
        SELECT c.*, {_KINDS_IN_WORDS} || ' ' || s.prefix || c.relname AS key
        FROM pg_class c JOIN space s ON s.oid = c.relnamespace
        WHERE c.relpersistence <> 't' AND c.relkind NOT IN ('i', 'I', 't')
    )
    SELECT 'definition of ' || key,
           encode(sha256(convert_to(string_agg(line::text, E'\\n' ORDER BY line::text COLLATE "C"),
                                    'UTF8')), 'hex')
    FROM ({_LINES}) AS part(key, line) GROUP BY key
    UNION ALL
    SELECT 'settings of the database', coalesce(string_agg(
        coalesce(r.rolname || ': ', '') || s.setconfig::text, ' ' ORDER BY r.rolname), '')
    FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole
    WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL
    SELECT 'large objects', count(*) || ' ' || coalesce(sum(oid::bigint), 0)
    FROM pg_largeobject_metadata
"""
