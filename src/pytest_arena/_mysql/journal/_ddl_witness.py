"""Notices changes that fire no row trigger: TRUNCATE, changes of the schema, and moved counters.

InnoDB gives a table a new id when it is truncated or rebuilt. On MySQL this uses the id of the
table's tablespace, because the view of the tables waits for locks of all databases.

The server counts statements that change a schema, of all connections and databases. If the count
has moved, the witness compares a digest of this database's schema.
"""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena._mysql._control import MySQLFailure, identifier, literal
from pytest_arena._mysql.journal._journal_control import NO_PROCESS_RIGHT
from pytest_arena._values import digest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pytest_arena._mysql._control import MySQLControlLine

_COUNTER_IN_DDL = re.compile(r" AUTO_INCREMENT=\d+")
_TABLESPACES = "INNODB_TABLESPACES_BRIEF"  # of MySQL
_PARTITION = re.compile("#p#(?:(?!#p#).)*$", re.IGNORECASE | re.DOTALL)


@dataclass(slots=True)
class SchemaState:
    """Numbers of the server that change with a database's schema. They are cheap to read."""

    ids: dict[
        int, str
    ]  # the tables, by InnoDB's ids of the tables and of their partitions
    counters: dict[str, int]  # the next AUTO_INCREMENT values, by table
    alters: int  # the number of ALTER TABLE statements in all databases
    other_ddl: int  # the number of other statements that change a schema

    def is_same_schema(self, other: SchemaState) -> bool:
        """Return whether no statement between both states changed a schema or truncated a table."""
        return (
            self.ids == other.ids
            and self.alters == other.alters
            and self.other_ddl == other.other_ddl
        )

    def new_tables(self, earlier: SchemaState) -> list[str]:
        """Return the tables with a new id."""
        return [name for number, name in self.ids.items() if number not in earlier.ids]

    def add_alter(self) -> None:
        """Count an ALTER TABLE of pytest-arena."""
        self.alters += 1

    def add_ddl(self) -> None:
        """Count another statement of pytest-arena that changes a schema."""
        self.other_ddl += 1

    def restore_counters(self, counters: dict[str, int]) -> None:
        """Note that the counters were restored."""
        self.counters = counters


_DDL_COUNTS = "^Com_(alter|create|drop|rename|truncate)"
_ALTER = "Com_alter_table"


def is_mariadb(control: MySQLControlLine) -> bool:
    """Return whether the server is MariaDB."""
    [(version,)] = control.rows("SELECT VERSION()")
    return "mariadb" in version.lower()


def may_read_counters(control: MySQLControlLine) -> bool:
    """Return whether the login may read InnoDB's counters, for which it needs PROCESS."""
    view = "INNODB_SYS_TABLESTATS" if is_mariadb(control) else _TABLESPACES
    try:
        # With LIMIT 0 the server checks no right.
        control.rows(f"SELECT 1 FROM information_schema.{view} LIMIT 1")
    except MySQLFailure as error:
        if error.number != NO_PROCESS_RIGHT:
            raise
        return False
    return True


def table_ids(control: MySQLControlLine, database: str) -> dict[int, str]:
    """Return the names of a database's tables by the ids of InnoDB."""
    if is_mariadb(control):
        # InnoDB's names have the character set of file names, which a driver would convert.
        names = control.rows(f"""
            SELECT TABLE_NAME, CAST(CONCAT(
                CAST(CONVERT(TABLE_SCHEMA USING filename) AS BINARY), '/',
                CAST(CONVERT(TABLE_NAME USING filename) AS BINARY)) AS CHAR)
            FROM information_schema.TABLES WHERE TABLE_SCHEMA = {literal(database)}""")
        listed = control.rows(
            "SELECT TABLE_ID, NAME, NAME FROM information_schema.INNODB_SYS_TABLES"
        )
    else:
        # MySQL cannot convert to the character set of file names. The path of a tablespace has it,
        # and its name does not.
        names = control.rows(f"""
            SELECT TABLE_NAME, CONCAT(TABLE_SCHEMA, '/', TABLE_NAME)
            FROM information_schema.TABLES WHERE TABLE_SCHEMA = {literal(database)}""")
        listed = control.rows(
            f"SELECT SPACE, PATH, NAME FROM information_schema.{_TABLESPACES} "
            f"WHERE {_is_tablespace_of(database)}"
        )
    # On macOS and Windows InnoDB's names are in lower case.
    tables = {inner.casefold(): name for name, inner in names}
    tables.update((inner, name) for name, inner in names)
    ids: dict[int, str] = {}
    for number, encoded, inner in listed:
        is_partition = _PARTITION.search(encoded) is not None
        name = _table_of(inner, tables, is_partition=is_partition)
        if name is not None:
            ids[int(number)] = name
    return ids


def tables_without_id(control: MySQLControlLine, database: str) -> list[str]:
    """Return the tables of InnoDB for which the server shows no id."""
    listed = {*table_ids(control, database).values()}
    names = control.rows(
        "SELECT TABLE_NAME FROM information_schema.TABLES "
        f"WHERE TABLE_SCHEMA = {literal(database)} AND ENGINE = 'InnoDB'"
    )
    return [name for (name,) in names if name not in listed]


def _is_tablespace_of(database: str) -> str:
    """Write the condition for tablespaces of a database's tables. MySQL uses an index for it."""
    after_slash = chr(ord("/") + 1)
    return (
        f"NAME > {literal(database + '/')} AND NAME < {literal(database + after_slash)}"
    )


def _table_of(
    inner: str, tables: Mapping[str, str], *, is_partition: bool
) -> str | None:
    """Return the name of a table, by InnoDB's name of the table or of a partition."""
    if is_partition:
        inner = _PARTITION.sub("", inner)
    # The name of a partition may itself contain `#p#`.
    while inner not in tables and _PARTITION.search(inner):
        inner = _PARTITION.sub("", inner)
    return tables.get(inner)


class DdlWitness:
    """Reads the state of a database's schema.

    ``counted`` are the tables with an AUTO_INCREMENT column.
    """

    def __init__(
        self, control: MySQLControlLine, database: str, counted: Collection[str]
    ) -> None:
        self._control = control
        self._database = database
        self._counted = counted
        self.is_mariadb = is_mariadb(control)
        self._ids = table_ids(control, database)
        unknown = sorted({*counted} - {*self._ids.values()})
        if unknown:
            raise MySQLFailure(f"InnoDB does not list the tables {unknown}", 0)

    def read(self) -> SchemaState:
        """Return the current state. Cost: one round trip, on MySQL three, 0.8 ms for 20 tables."""
        state = self._read()
        if state.ids != self._ids:
            self._ids = table_ids(self._control, self._database)
            state = self._read()
        # MariaDB reports 0 for a table that is not open.
        closed = [name for name, counter in state.counters.items() if counter == 0]
        for name in closed:
            self._control.rows(f"SELECT 1 FROM {self._quoted(name)} LIMIT 0")
        if closed:
            state = self._read()
        return state

    def _read(self) -> SchemaState:
        if self.is_mariadb:
            return self._read_mariadb()
        return self._read_mysql()

    def _known_ids(self) -> str:
        return ", ".join(map(str, self._ids)) or "0"

    def _read_mariadb(self) -> SchemaState:
        ids: dict[int, str] = {}
        counters: dict[str, int] = {}
        is_alter = f"VARIABLE_NAME LIKE '{_ALTER}'"
        # Without a cast the sums are DOUBLE, and UNION rounds counters above 2^53 to that type.
        *tables, (_, alters, other_ddl) = self._control.rows(f"""
            SELECT TABLE_ID, AUTOINC, 0 FROM information_schema.INNODB_SYS_TABLESTATS
            WHERE TABLE_ID IN ({self._known_ids()})
            UNION ALL
            SELECT 0, CAST(SUM(IF({is_alter}, VARIABLE_VALUE, 0)) AS UNSIGNED),
                CAST(SUM(IF({is_alter}, 0, VARIABLE_VALUE)) AS UNSIGNED)
            FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME RLIKE '{_DDL_COUNTS}'""")
        for number, counter, _ in tables:
            name = self._ids[int(number)]
            ids[int(number)] = name
            if name in self._counted:
                # The counter of a partitioned table is the largest of its partitions.
                counters[name] = max(counters.get(name, 0), int(counter))
        return SchemaState(ids, counters, int(alters), int(other_ddl))

    def _read_mysql(self) -> SchemaState:
        """Read three views. No view of InnoDB has the counters of partitioned tables."""
        ids: dict[int, str] = {}
        for (number,) in self._control.rows(
            f"SELECT SPACE FROM information_schema.{_TABLESPACES} "
            f"WHERE {_is_tablespace_of(self._database)} AND SPACE IN ({self._known_ids()})"
        ):
            ids[int(number)] = self._ids[int(number)]
        counters: dict[str, int] = {}
        # The server reports NULL for a counter of 1.
        for name, counter in self._control.rows(
            "SELECT TABLE_NAME, COALESCE(AUTO_INCREMENT, 1) FROM information_schema.TABLES "
            f"WHERE TABLE_SCHEMA = {literal(self._database)}"
        ):
            if name in self._counted:
                counters[name] = int(counter)
        alters = 0
        other_ddl = 0
        # The tables of performance_schema do not have these variables.
        for variable, value in self._control.rows(
            f"SHOW GLOBAL STATUS WHERE VARIABLE_NAME RLIKE '{_DDL_COUNTS}'"
        ):
            if variable == _ALTER:
                alters += int(value)
            else:
                other_ddl += int(value)
        return SchemaState(ids, counters, alters, other_ddl)

    def _quoted(self, name: str) -> str:
        return f"{identifier(self._database)}.{identifier(name)}"

    def digest(self, *, tables_only: bool = False) -> dict[str, str]:
        """Return digests of the schema, by the kinds of objects.

        Cost: a round trip for each table, and some more.
        """
        names = self._control.rows(
            "SELECT TABLE_NAME FROM information_schema.TABLES "
            f"WHERE TABLE_SCHEMA = {literal(self._database)} ORDER BY TABLE_NAME"
        )
        texts: list[str] = []
        for (name,) in names:
            [row] = self._control.rows(f"SHOW CREATE TABLE {self._quoted(name)}")
            texts.append(_COUNTER_IN_DDL.sub("", repr(row)))
        schema = {"a table or a view": digest("\n".join(texts))}
        if not tables_only:
            for kind, question in _OTHER_OBJECTS.items():
                rows = self._control.rows(
                    question.format(database=literal(self._database))
                )
                schema[kind] = digest(repr(rows))
        return schema


_OTHER_OBJECTS = {
    "the database": """
        SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME
        FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {database}""",
    "a trigger": """
        SELECT EVENT_OBJECT_TABLE, TRIGGER_NAME, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER,
            ACTION_STATEMENT, DEFINER, SQL_MODE
        FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = {database}
        ORDER BY TRIGGER_NAME""",
    "a procedure or a function": """
        SELECT r.ROUTINE_TYPE, r.ROUTINE_NAME, r.DTD_IDENTIFIER, r.ROUTINE_DEFINITION, r.DEFINER,
            r.IS_DETERMINISTIC, r.SQL_DATA_ACCESS, r.SECURITY_TYPE, r.ROUTINE_COMMENT, (
                SELECT GROUP_CONCAT(CONCAT_WS(' ', PARAMETER_MODE, PARAMETER_NAME, DTD_IDENTIFIER)
                    ORDER BY ORDINAL_POSITION)
                FROM information_schema.PARAMETERS p
                WHERE p.SPECIFIC_SCHEMA = {database} AND p.SPECIFIC_NAME = r.SPECIFIC_NAME)
        FROM information_schema.ROUTINES r WHERE r.ROUTINE_SCHEMA = {database}
        ORDER BY r.ROUTINE_TYPE, r.ROUTINE_NAME""",
    "an event": """
        SELECT EVENT_NAME, EVENT_DEFINITION, EVENT_TYPE, EXECUTE_AT, INTERVAL_VALUE, INTERVAL_FIELD,
            STATUS, DEFINER
        FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {database} ORDER BY EVENT_NAME""",
}
