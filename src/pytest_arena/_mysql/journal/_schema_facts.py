"""Reads tables, keys and foreign keys of a database. Finds tables that cannot be restored."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena._mysql._control import identifier, literal
from pytest_arena._mysql.journal._ddl_witness import (
    may_read_counters,
    tables_without_id,
)

if TYPE_CHECKING:
    from pytest_arena._mysql._control import MySQLControlLine


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """A column of the key that identifies a row."""

    name: str
    definition: str  # the type, with character set and collation


@dataclass(frozen=True, slots=True)
class AppTable:
    """A table of the app.

    ``key`` has the columns of the primary key, or of another unique index without NULLs. If it is
    (), the table is always restored whole. ``columns`` has no generated columns.
    """

    number: int
    name: str
    columns: tuple[str, ...]
    key: tuple[KeyColumn, ...]
    has_primary_key: bool
    has_counter: bool

    @property
    def signature(self) -> tuple[str, ...]:
        """The types of the key. Tables with the same signature share a journal."""
        return tuple(column.definition for column in self.key)

    def write_columns(self, alias: str = "") -> str:
        """Write the list of the columns."""
        prefix = f"{alias}." if alias else ""
        return ", ".join(prefix + identifier(column) for column in self.columns)


@dataclass(frozen=True, slots=True)
class CascadingKey:
    """A foreign key that changes rows of its table if a row of the parent changes."""

    child: str
    parent: str
    columns: tuple[tuple[str, str], ...]  # pairs of a child's and a parent's column
    on_delete: bool
    on_update: bool


@dataclass(frozen=True, slots=True)
class SchemaFacts:
    """The tables of a database, and the foreign keys that cascade."""

    tables: dict[str, AppTable]
    cascades: tuple[CascadingKey, ...]

    def cascades_from(self, parent: str) -> tuple[CascadingKey, ...]:
        """Return the foreign keys that change rows if a row of a table changes."""
        return tuple(key for key in self.cascades if key.parent == parent)


_INACTIVE = ("RESTRICT", "NO ACTION")
_LACKS_SUPER = """
    SELECT @@log_bin AND NOT @@log_bin_trust_function_creators AND NOT EXISTS (
        SELECT 1 FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE = 'SUPER'
        AND GRANTEE = CONCAT(QUOTE(SUBSTRING_INDEX(CURRENT_USER(), '@', 1)), '@',
            QUOTE(SUBSTRING_INDEX(CURRENT_USER(), '@', -1))))"""


def find_reasons_against_undo(
    control: MySQLControlLine, database: str
) -> dict[str, str]:
    """Return the reasons why undo cannot restore a database, by the names of its tables.

    A reason of the whole database or server has the name "".
    """
    reasons: dict[str, str] = {}
    if not may_read_counters(control):
        reasons[""] = (
            "the login lacks the right PROCESS, so that pytest-arena does not notice a TRUNCATE "
            "(GRANT PROCESS ON *.* TO ...)"
        )
    elif control.rows(_LACKS_SUPER) == [(1,)]:
        reasons[""] = (
            "the server writes a binary log, so that a trigger needs SUPER "
            "(or SET GLOBAL log_bin_trust_function_creators = 1)"
        )
    reasons.update(
        control.rows(f"""
        SELECT TABLE_NAME, CASE
            WHEN TABLE_TYPE = 'SEQUENCE' THEN 'a sequence keeps numbers in the server''s memory'
            WHEN TABLE_TYPE <> 'BASE TABLE'
                THEN CONCAT(TABLE_TYPE, ': the server keeps earlier rows, and a copy has none')
            ELSE CONCAT('the engine ', ENGINE, ' has no transactions') END
        FROM information_schema.TABLES
        WHERE TABLE_SCHEMA = {literal(database)} AND TABLE_TYPE NOT LIKE '%VIEW'
            AND (TABLE_TYPE <> 'BASE TABLE' OR ENGINE <> 'InnoDB')
        UNION ALL
        SELECT TABLE_NAME,
            CONCAT('a foreign key leads from ', CONSTRAINT_SCHEMA, ' to ', UNIQUE_CONSTRAINT_SCHEMA)
        FROM information_schema.REFERENTIAL_CONSTRAINTS
        WHERE CONSTRAINT_SCHEMA = {literal(database)}
            AND CONSTRAINT_SCHEMA <> UNIQUE_CONSTRAINT_SCHEMA
        UNION ALL
        SELECT DISTINCT TABLE_NAME, 'MATCH would miss rows, as the table has a VIRTUAL column'
        FROM information_schema.STATISTICS JOIN information_schema.COLUMNS
            USING (TABLE_SCHEMA, TABLE_NAME)
        WHERE TABLE_SCHEMA = {literal(database)} AND INDEX_TYPE = 'FULLTEXT'
            AND EXTRA LIKE '%VIRTUAL%'""")
    )
    if "" not in reasons:
        for name in tables_without_id(control, database):
            reasons.setdefault(name, "the table has no tablespace of its own")
    return reasons


def read_schema(control: MySQLControlLine, database: str) -> SchemaFacts:
    """Return the tables and the cascading foreign keys of a database."""
    columns: dict[str, list[str]] = defaultdict(list)
    definitions: dict[tuple[str, str], str] = {}
    counters: set[str] = set()
    # Two queries: MariaDB would open each table of the server for a join of these views.
    listed = control.rows(
        "SELECT TABLE_NAME FROM information_schema.TABLES "
        f"WHERE TABLE_SCHEMA = {literal(database)} AND TABLE_TYPE = 'BASE TABLE'"
    )
    names = {name for (name,) in listed}
    read = control.rows(f"""
        SELECT c.TABLE_NAME, c.COLUMN_NAME, c.COLUMN_TYPE, c.CHARACTER_SET_NAME,
            c.COLLATION_NAME, c.EXTRA, COALESCE(c.GENERATION_EXPRESSION, '')
        FROM information_schema.COLUMNS c WHERE c.TABLE_SCHEMA = {literal(database)}
        ORDER BY c.TABLE_NAME, c.ORDINAL_POSITION""")
    for table, column, kind, charset, collation, extra, generated in read:
        if generated or table not in names:
            continue
        columns[table].append(column)
        definition = kind
        if charset:
            definition += f" CHARACTER SET {charset} COLLATE {collation}"
        definitions[table, column] = definition
        if "auto_increment" in str(extra).lower():
            counters.add(table)
    keys = _read_keys(control, database, definitions)
    tables: dict[str, AppTable] = {}
    for number, name in enumerate(columns):
        index, key = keys.get(name, ("", ()))
        tables[name] = AppTable(
            number=number,
            name=name,
            columns=tuple(columns[name]),
            key=key,
            has_primary_key=index == "PRIMARY",
            has_counter=name in counters,
        )
    return SchemaFacts(tables, _read_cascades(control, database))


def _read_keys(
    control: MySQLControlLine, database: str, definitions: dict[tuple[str, str], str]
) -> dict[str, tuple[str, tuple[KeyColumn, ...]]]:
    """Return, for each table with a key, its index and columns, the primary key if possible."""
    indexes: dict[tuple[str, str], list[KeyColumn]] = defaultdict(list)
    unusable: set[tuple[str, str]] = set()
    read = control.rows(f"""
        SELECT TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART, NULLABLE, INDEX_TYPE
        FROM information_schema.STATISTICS
        WHERE TABLE_SCHEMA = {literal(database)} AND NON_UNIQUE = 0
        ORDER BY TABLE_NAME, INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX""")
    for table, index, column, part, nullable, kind in read:
        place = (table, index)
        definition = definitions.get((table, column))
        indexes[place].append(KeyColumn(column, definition or ""))
        is_exact = part is None and nullable != "YES" and kind == "BTREE"
        if definition is None or not is_exact:
            unusable.add(place)
    keys: dict[str, tuple[str, tuple[KeyColumn, ...]]] = {}
    for (table, index), key in indexes.items():
        if (table, index) not in unusable:
            keys.setdefault(table, (index, tuple(key)))
    return keys


def _read_cascades(
    control: MySQLControlLine, database: str
) -> tuple[CascadingKey, ...]:
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    read = control.rows(f"""
        SELECT TABLE_NAME, CONSTRAINT_NAME, COLUMN_NAME, REFERENCED_COLUMN_NAME
        FROM information_schema.KEY_COLUMN_USAGE
        WHERE TABLE_SCHEMA = {literal(database)} AND REFERENCED_COLUMN_NAME IS NOT NULL
        ORDER BY TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION""")
    for table, constraint, column, referenced in read:
        pairs[table, constraint].append((column, referenced))
    cascades: list[CascadingKey] = []
    rules = control.rows(f"""
        SELECT TABLE_NAME, CONSTRAINT_NAME, REFERENCED_TABLE_NAME, DELETE_RULE, UPDATE_RULE
        FROM information_schema.REFERENTIAL_CONSTRAINTS
        WHERE CONSTRAINT_SCHEMA = {literal(database)}
        ORDER BY TABLE_NAME, CONSTRAINT_NAME""")
    for child, constraint, parent, on_delete, on_update in rules:
        key = CascadingKey(
            child=child,
            parent=parent,
            columns=tuple(pairs[child, constraint]),
            on_delete=on_delete not in _INACTIVE,
            on_update=on_update not in _INACTIVE,
        )
        if key.on_delete or key.on_update:
            cascades.append(key)
    return tuple(cascades)
