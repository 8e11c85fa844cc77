"""Notices what row triggers do not see: TRUNCATE, changes of the schema, and moved counters.

InnoDB gives a table a new id when it is truncated or rebuilt. The server counts statements that
change a schema, of all connections and databases. If the count has moved, the witness compares a
digest of this database's schema.
"""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pytest_arena._mysql._control import MySQLFailure, identifier, literal
from pytest_arena._mysql.journal._journal_control import NO_PROCESS_RIGHT
from pytest_arena._values import digest

if TYPE_CHECKING:
    from collections.abc import Collection

    from pytest_arena._mysql._control import MySQLControlLine

_COUNTER_IN_DDL = re.compile(r" AUTO_INCREMENT=\d+")
_PARTITION = re.compile("#p#", re.IGNORECASE)


@dataclass(slots=True)
class SchemaState:
    """What the server reports about a database, without reading its schema."""

    ids: dict[int, str]  # names of tables, by InnoDB's ids of them and their partitions
    counters: dict[str, int]  # the next AUTO_INCREMENT, by the names of tables
    alters: int  # of all databases: ALTER TABLE
    other_ddl: int

    def is_same_schema(self, other: SchemaState) -> bool:
        """Return whether no statement has changed a schema or truncated a table in between."""
        return (
            self.ids == other.ids
            and self.alters == other.alters
            and self.other_ddl == other.other_ddl
        )

    def new_tables(self, earlier: SchemaState) -> list[str]:
        """Return the tables with a new id."""
        names: list[str] = []
        for number, name in self.ids.items():
            if number not in earlier.ids:
                names.append(name)
        return names

    def add_alter(self) -> None:
        """Count an ALTER TABLE of pytest-arena."""
        self.alters += 1

    def add_ddl(self) -> None:
        """Count another statement of pytest-arena that changes a schema."""
        self.other_ddl += 1

    def restore_counters(self, counters: dict[str, int]) -> None:
        """Note that the counters were restored."""
        self.counters = counters


class _Views(NamedTuple):
    tables: str
    counters: str
    status: str


_MARIADB = _Views(
    "information_schema.INNODB_SYS_TABLES",
    "information_schema.INNODB_SYS_TABLESTATS",
    "information_schema.GLOBAL_STATUS",
)
_MYSQL = _Views(
    "information_schema.INNODB_TABLES",
    "information_schema.INNODB_TABLESTATS",
    "performance_schema.global_status",
)


def _views(control: MySQLControlLine) -> _Views:
    [(version,)] = control.rows("SELECT VERSION()")
    return _MARIADB if "mariadb" in version.lower() else _MYSQL


def may_read_counters(control: MySQLControlLine) -> bool:
    """Return whether the login may read InnoDB's counters, for which it needs PROCESS."""
    try:
        # With LIMIT 0 the server checks no right.
        control.rows(f"SELECT 1 FROM {_views(control).counters} LIMIT 1")
    except MySQLFailure as error:
        if error.number != NO_PROCESS_RIGHT:
            raise
        return False
    return True


class DdlWitness:
    """Reads the state of a database's schema.

    ``counted`` are the tables with an AUTO_INCREMENT.
    """

    def __init__(
        self, control: MySQLControlLine, database: str, counted: Collection[str]
    ) -> None:
        self._control = control
        self._database = database
        self._counted = counted
        self._views = _views(control)
        self._ids = self._read_ids()
        unknown = sorted({*counted} - {*self._ids.values()})
        if unknown:
            raise MySQLFailure(f"InnoDB does not list the tables {unknown}", 0)

    def _read_ids(self) -> dict[int, str]:
        """Return the names of the tables by the ids of InnoDB."""
        # InnoDB's names have the character set of file names. A driver would convert it.
        names = self._control.rows(f"""
            SELECT TABLE_NAME, CAST(CONCAT(
                CAST(CONVERT(TABLE_SCHEMA USING filename) AS BINARY), '/',
                CAST(CONVERT(TABLE_NAME USING filename) AS BINARY)) AS CHAR)
            FROM information_schema.TABLES WHERE TABLE_SCHEMA = {literal(self._database)}""")
        # On macOS and Windows InnoDB's names have small letters.
        tables = {inner.casefold(): name for name, inner in names}
        tables.update((inner, name) for name, inner in names)
        ids: dict[int, str] = {}
        for number, inner in self._control.rows(
            f"SELECT TABLE_ID, NAME FROM {self._views.tables}"
        ):
            name = tables.get(_PARTITION.split(inner)[0])
            if name is not None:
                ids[int(number)] = name
        return ids

    def read(self) -> SchemaState:
        """Return the state now. Cost: one round trip, 0.8 ms for 20 tables."""
        state = self._read()
        if state.ids != self._ids:
            self._ids = self._read_ids()
            state = self._read()
        # InnoDB reports 0 for a table that it has not opened, or has closed.
        closed = [name for name, counter in state.counters.items() if counter == 0]
        for name in closed:
            self._control.rows(f"SELECT 1 FROM {self._quoted(name)} LIMIT 0")
        if closed:
            state = self._read()
        return state

    def _read(self) -> SchemaState:
        ids: dict[int, str] = {}
        counters: dict[str, int] = {}
        known = ", ".join(map(str, self._ids)) or "0"
        is_alter = "VARIABLE_NAME LIKE 'Com_alter_table'"
        *tables, (_, alters, other_ddl) = self._control.rows(f"""
            SELECT TABLE_ID, AUTOINC, 0 FROM {self._views.counters} WHERE TABLE_ID IN ({known})
            UNION ALL
            SELECT 0, SUM(IF({is_alter}, VARIABLE_VALUE, 0)),
                SUM(IF({is_alter}, 0, VARIABLE_VALUE))
            FROM {self._views.status}
            WHERE VARIABLE_NAME RLIKE '^Com_(alter|create|drop|rename|truncate)'""")
        for number, counter, _ in tables:
            name = self._ids[int(number)]
            ids[int(number)] = name
            if name in self._counted:
                # The counter of a partitioned table is the largest of its partitions.
                counters[name] = max(counters.get(name, 0), int(counter))
        return SchemaState(ids, counters, int(alters), int(other_ddl))

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
        FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {database}
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
