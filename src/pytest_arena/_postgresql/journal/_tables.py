"""Reads the tables and sequences of a database.

An image is the text of a row in the change journal.
"""

# ruff: noqa: S608 - conditions are the constants of this file, names are written by identifier()

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from pytest_arena._postgresql._control import Control, identifier, literal

# Reflection and Alembic skip a schema whose name begins with pg_. Only a superuser may create it.
HIDDEN_SCHEMA = "pg_arena"
PLAIN_SCHEMA = "arena_journal"
# True while pytest-arena writes: triggers record nothing, and event triggers note no change.
OURS = "pg_catalog.current_setting('arena.undo', true) OPERATOR(pg_catalog.=) '1'"


_MOST_COLUMNS = 1664  # of a query


@dataclass(frozen=True, slots=True)
class JournalGap:
    """A change that the journal cannot see or undo."""

    reason: str
    is_fatal: bool = False  # no journal can be installed


@dataclass(frozen=True, slots=True)
class JournalColumn:
    """A column of a table, or of the root of partitions. Dropped columns are omitted."""

    name: str
    not_null: bool
    generated: bool
    is_plain: bool  # equal values have the same text
    is_virtual: bool = False  # computed at each read, and absent in a trigger's rows
    is_xml: bool = False
    has_inner_xml: bool = False  # has xml inside an array or composite value
    varies: bool = False  # its text depends on settings of the session
    has_names: bool = False  # its text depends on the search_path

    def value(self, alias: str, name: str = "") -> str:
        """Write the expression for the value of this column, which a query may call ``name``."""
        if self.is_virtual:
            return "NULL"
        value = f"{alias}.{name or identifier(self.name)}"
        if self.is_xml:
            # Inside a row, xml would lose its declaration of an encoding.
            return f"{value}::pg_catalog.text"
        return value


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or partition."""

    oid: int
    schema: str
    name: str
    is_leaf: bool  # it stores rows
    # The names of the columns, if their order differs from the root's.
    order: tuple[str, ...] = ()

    @property
    def quoted(self) -> str:
        """The quoted name with its schema."""
        return f"{identifier(self.schema)}.{identifier(self.name)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalTable(Relation):
    """A table with rows, or the root of partitions."""

    columns: tuple[JournalColumn, ...]
    key: tuple[str, ...]  # the columns of a unique key, or ()
    partitions: tuple[Relation, ...]  # with the root, or ()
    is_inherited: bool
    by_row: bool  # has triggers for each row, because a statement's trigger would get wrong rows

    @property
    def relations(self) -> tuple[Relation, ...]:
        """The table and its partitions."""
        return self.partitions or (self,)

    @property
    def has_names(self) -> bool:
        """Whether its images depend on the search_path."""
        return any(column.has_names for column in self.columns)

    def image(self, alias: str) -> str:
        """Write the expression for the image of a row, by an alias of the table.

        A cast to the table's type restores the row, if ``xmloption`` is ``content``.
        """
        if not self.is_whole_row:
            values = ", ".join(column.value(alias) for column in self.columns)
            return f"ROW({values})::pg_catalog.text"
        # `alias::text` would be a column if a column has the alias as its name.
        return f"({alias}.*)::pg_catalog.text"

    @property
    def is_whole_row(self) -> bool:
        """Whether the text of a whole row is its image."""
        return not any(column.is_xml or column.is_virtual for column in self.columns)

    def image_in_trigger(self, alias: str, order: tuple[str, ...]) -> str:
        """Write the image of a row whose columns have this order, () for the table's.

        The expression names no column, so that a test may rename or drop columns.
        """
        if self.is_whole_row and not order:
            return self.image(alias)
        places = {}
        for place, name in enumerate(order or [column.name for column in self.columns]):
            places[name] = f"c{place}"
        values = [column.value("x", places[column.name]) for column in self.columns]
        # NULL replaces a column that a test has dropped.
        missing = ", NULL" * min(len(places), _MOST_COLUMNS - len(places))
        return (
            f"(SELECT ROW({', '.join(values)})::pg_catalog.text "
            f"FROM (SELECT {alias}.*{missing}) AS x ({', '.join(places.values())}))"
        )


class Setting(NamedTuple):
    """A setting on which images depend, and its value."""

    name: str
    value: str
    same: tuple[str, ...] = ()  # other values of the setting that give the same texts
    is_of_names: bool = False  # only the texts of names depend on the setting


# With ISO, the order of day and month has no effect on texts.
_FIXED = (
    Setting("DateStyle", "ISO, MDY", ("ISO, DMY", "ISO, YMD")),
    Setting("IntervalStyle", "postgres"),
    Setting("extra_float_digits", "1", ("2", "3")),
    Setting("bytea_output", "hex"),
)
_OF_DATABASE = ("TimeZone", "lc_monetary")
_NOW = "(SELECT name, reset_val AS value FROM pg_catalog.pg_settings)"
_UTC = (
    "UTC",
    "Etc/UTC",
    "GMT",
    "Etc/GMT",
    "Etc/UCT",
    "UCT",
    "Universal",
    "Zulu",
    "Etc/Zulu",
)
_OF_NAMES = (
    Setting("search_path", "", is_of_names=True),
    Setting("quote_all_identifiers", "off", is_of_names=True),
)


def read_canon(control: Control, of_database: str = _NOW) -> tuple[Setting, ...]:
    """Return all settings that an image depends on.

    The time zone is the database's, which the sessions of most apps use. ``of_database`` may be
    the journal's table of settings, because later images must have the settings of the first image.
    """
    names = ", ".join(map(literal, _OF_DATABASE))
    rows = control.rows(
        f"SELECT name, value FROM {of_database} s WHERE name IN ({names}) ORDER BY name DESC"
    )
    settings = [*_FIXED]
    for name, value in rows:
        same = _UTC if value in _UTC else ()
        settings.append(Setting(name, value, same))
    return (*settings, *_OF_NAMES)


def find_schema(control: Control) -> str:
    """Return the schema of the installed journal, "" without a journal."""
    rows = control.rows(
        "SELECT n.nspname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
        f"ON n.oid = c.relnamespace WHERE n.nspname IN ('{HIDDEN_SCHEMA}', '{PLAIN_SCHEMA}') "
        "AND c.relname = 'canon'"
    )
    return rows[0][0] if rows else ""


def read_tables(control: Control) -> list[JournalTable]:
    """Read all tables whose rows can be journaled, in the order of their oids.

    It omits temporary tables, foreign tables and the journal's tables. Cost: four round trips.

    Raises:
        ControlFailure: the server does not answer, or hides its catalog.
    """
    columns: dict[int, list[JournalColumn]] = defaultdict(list)
    for oid, *facts in control.rows(_COLUMNS):
        columns[oid].append(JournalColumn(*facts))
    keys: dict[int, tuple[str, ...]] = defaultdict(tuple)
    for oid, names in control.rows(_KEYS):  # the primary key first
        keys[oid] = keys[oid] or tuple(names)
    partitions: dict[int, list[Relation]] = defaultdict(list)
    for root, oid, schema, name, is_leaf, order in control.rows(_PARTITIONS):
        partition = Relation(oid, schema, name, is_leaf, tuple(order))
        partitions[root].append(partition)
    return [
        JournalTable(
            *facts,
            columns=tuple(columns[facts[0]]),
            key=keys[facts[0]],
            partitions=tuple(partitions[facts[0]]),
            is_inherited=is_inherited,
            by_row=is_inherited or has_foreign or is_misled,
        )
        for *facts, is_inherited, has_foreign, is_misled in control.rows(_TABLES)
    ]


def read_sequences(control: Control) -> list[tuple[int, str]]:
    """Read the oids of all sequences of the database, and their quoted names."""
    return [
        (oid, f"{identifier(schema)}.{identifier(name)}")
        for oid, schema, name in control.rows(_SEQUENCES)
    ]


APPS_OWN = (
    "n.nspname !~ '^pg_' AND n.nspname <> ALL ('{arena_journal,information_schema}') "
    "AND c.relpersistence <> 't'"
)
# MERGE (PostgreSQL 15) may move a row to another partition. Then a statement's trigger does not get
# the old row, and no key shows the error. If MERGE also inserts rows, in some minor versions the
# trigger gets an inserted row in place of an updated row. Triggers for each row get all rows.
_TABLES = f"""
SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind = 'r',
    c.relkind = 'r' AND EXISTS (
        SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid OR i.inhrelid = c.oid),
    c.relkind = 'p' AND EXISTS (
        SELECT FROM pg_catalog.pg_partition_tree(c.oid) t
        JOIN pg_catalog.pg_class l ON l.oid = t.relid WHERE l.relkind = 'f'),
    c.relkind = 'p' AND current_setting('server_version_num')::int4 >= 150000
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND {APPS_OWN}
ORDER BY c.oid
"""
_ORDER = """ARRAY(
        SELECT a.attname::text FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = {table}.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)"""
_PARTITIONS = f"""
SELECT c.oid::int8, l.oid::int8, n.nspname::text, l.relname::text, l.relkind = 'r',
    CASE WHEN {_ORDER.format(table="c")} <> {_ORDER.format(table="l")}
    THEN {_ORDER.format(table="l")} ELSE '{{}}' END
FROM pg_catalog.pg_class c, pg_catalog.pg_partition_tree(c.oid) t
JOIN pg_catalog.pg_class l ON l.oid = t.relid
JOIN pg_catalog.pg_namespace n ON n.oid = l.relnamespace
WHERE c.relkind = 'p' AND NOT c.relispartition AND l.relkind IN ('r', 'p')
"""
_SEQUENCES = f"""
SELECT c.oid::int8, n.nspname::text, c.relname::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND {APPS_OWN}
ORDER BY c.oid
"""
# Equal values of the first types have one text. No setting changes the text of the second types.
# pytest-arena assumes that the text of any other type varies, such as an extension's type.
_PLAIN = (
    "{bool,int2,int4,int8,oid,text,varchar,name,char,uuid,bytea,"
    "date,time,timestamp,timestamptz}"
)
_STEADY = (
    "{bool,int2,int4,int8,oid,numeric,text,varchar,bpchar,name,char,uuid,json,jsonb,xml,"
    "inet,cidr,macaddr,macaddr8,bit,varbit,tsvector,tsquery}"
)
_NAMES = (
    "{regclass,regproc,regprocedure,regoper,regoperator,regtype,regrole,regnamespace,regconfig,"
    "regdictionary,regcollation}"
)
_COLUMNS = f"""
WITH RECURSIVE
col AS (
    SELECT a.* FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND {APPS_OWN}
    AND a.attnum > 0 AND NOT a.attisdropped),
within (type, part, is_inner) AS (
    SELECT DISTINCT atttypid, atttypid, false FROM col
    UNION
    SELECT w.type, p.part, w.is_inner OR t.typtype <> 'd'
    FROM within w JOIN pg_catalog.pg_type t ON t.oid = w.part
    CROSS JOIN LATERAL (
        SELECT t.typbasetype WHERE t.typtype = 'd'
        UNION ALL SELECT t.typelem WHERE t.typinput = 'pg_catalog.array_in'::pg_catalog.regproc
        UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid
        UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
            WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0
            AND NOT a.attisdropped) p (part)),
kind AS (
    SELECT w.type,
        bool_or(NOT (t.typtype IN ('e', 'c', 'd')
            OR t.typinput = 'pg_catalog.array_in'::pg_catalog.regproc
            OR b.is_builtin AND t.typname = ANY ('{_STEADY}'))) AS varies,
        bool_or(b.is_builtin AND t.typname = ANY ('{_NAMES}')) AS has_names,
        bool_or(t.oid = 'pg_catalog.xml'::pg_catalog.regtype) AS has_xml,
        bool_or(t.oid = 'pg_catalog.xml'::pg_catalog.regtype AND w.is_inner) AS has_inner_xml
    FROM within w JOIN pg_catalog.pg_type t ON t.oid = w.part
    CROSS JOIN LATERAL (
        SELECT t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace AS is_builtin) b
    GROUP BY w.type)
SELECT col.attrelid::int8, col.attname::text,
    col.attnotnull AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = col.attrelid
        AND k.contype = 'n' AND k.conkey[1] = col.attnum AND NOT k.convalidated),
    col.attgenerated <> '',
    (t.typtype = 'e' OR n.nspname = 'pg_catalog' AND t.typname = ANY ('{_PLAIN}'))
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_collation l
        WHERE l.oid = col.attcollation AND NOT l.collisdeterministic),
    col.attgenerated = 'v',
    kind.has_xml AND t.typtype IN ('b', 'd') AND e.oid IS NULL,
    kind.has_inner_xml,
    kind.varies,
    kind.has_names
FROM col JOIN pg_catalog.pg_type t ON t.oid = col.atttypid
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_type e
    ON e.oid = t.typelem AND t.typinput = 'pg_catalog.array_in'::pg_catalog.regproc
JOIN kind ON kind.type = col.atttypid
ORDER BY col.attrelid, col.attnum
"""
# The operators of a key must not need a search_path.
_KEYS = f"""
SELECT c.oid::int8, array_agg(col.attname::text ORDER BY part.place)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_index x ON x.indrelid = c.oid
CROSS JOIN LATERAL unnest(x.indkey::int2[], x.indclass::oid[])
    WITH ORDINALITY part (attnum, opclass, place)
JOIN pg_catalog.pg_attribute col ON col.attrelid = c.oid AND col.attnum = part.attnum
LEFT JOIN pg_catalog.pg_opclass f ON f.oid = part.opclass
LEFT JOIN pg_catalog.pg_amop p ON p.amopfamily = f.opcfamily AND p.amopstrategy = 3
    AND p.amoplefttype = f.opcintype AND p.amoprighttype = f.opcintype AND p.amoppurpose = 's'
LEFT JOIN pg_catalog.pg_operator o ON o.oid = p.amopopr
WHERE x.indisunique AND x.indisvalid AND x.indexprs IS NULL AND x.indpred IS NULL
AND NOT x.indisexclusion AND part.place <= x.indnkeyatts
AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND {APPS_OWN}
GROUP BY c.oid, x.indexrelid, x.indisprimary
HAVING bool_and(
    col.attnotnull
    AND coalesce(o.oprnamespace = 'pg_catalog'::pg_catalog.regnamespace, false)
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid
        AND k.contype = 'n' AND k.conkey[1] = col.attnum AND NOT k.convalidated))
ORDER BY NOT x.indisprimary, x.indexrelid
"""
