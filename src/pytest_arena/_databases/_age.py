"""Makes the rows of a database older, which is what a test sees of a later time."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import Date, DateTime, MetaData, Table, inspect, select, text, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.sql import literal, type_coerce
from sqlalchemy.types import NULLTYPE

from pytest_arena._origin import shown_line
from pytest_arena.errors import IsolationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import timedelta

    from sqlalchemy import Column, Connection


def age(connection: Connection, delta: timedelta, also: Collection[str]) -> set[str]:
    """Make each date, each timestamp, and the numbers ``also`` of all rows older by ``delta``.

    It reads and writes each such row. The caller commits. Return the unknown columns of ``also``.

    Raises:
        IsolationError: the database does not accept the values, or a trigger sets others. A table
            with such values has no primary key.
    """
    if connection.dialect.name == "postgresql":
        # A trigger often sets `updated_at`. Only a superuser can switch triggers off for itself.
        with suppress(DBAPIError), connection.begin_nested():
            connection.execute(text("SET LOCAL session_replication_role = replica"))
    tables = list(_tables(connection))
    for table in tables:
        columns = []
        for column in table.columns:
            is_time = isinstance(column.type, (Date, DateTime)) and column.computed is None
            if is_time or str(column) in also:
                columns.append(column)
        try:
            problem = _age_table(connection, table, columns, delta) if columns else ""
        except (SQLAlchemyError, TypeError, ValueError, OverflowError) as error:
            problem = str(getattr(error, "orig", error))
        if problem:
            raise IsolationError(
                f"arena.age: the rows of {table} cannot be made older: {problem}",
                why="a part of the rows would be older than the others",
                cause=shown_line("arena.age()"),
                fix="write the older rows in the test",
            )
    return {*also} - {str(each) for table in tables for each in table.columns}


def _tables(connection: Connection) -> Iterator[Table]:
    inspector = inspect(connection)
    schemas: list[str | None] = [None]
    partitions: set[str] = set()
    if connection.dialect.name == "postgresql":
        # Their parent has their rows.
        partitions = set(connection.execute(text(_PARTITIONS)).scalars())
        ours = {"information_schema", "pg_arena", inspector.default_schema_name}
        schemas += [each for each in inspector.get_schema_names() if each not in ours]
    for schema in schemas:
        for name in inspector.get_table_names(schema):
            if f"{schema or inspector.default_schema_name}.{name}" not in partitions:
                yield Table(name, MetaData(schema), autoload_with=connection, resolve_fks=False)


_PARTITIONS = (
    "SELECT relnamespace::regnamespace::name || '.' || relname "
    "FROM pg_inherits JOIN pg_class ON oid = inhrelid"
)


def _age_table(
    connection: Connection, table: Table, columns: list[Column[Any]], delta: timedelta
) -> str:
    """Make the rows of a table older. Return why that is impossible, "" if they are."""
    keys = [type_coerce(key, NULLTYPE) for key in table.primary_key]  # BINARY is no number
    # The oldest first: no row gets a unique value that another one still has.
    rows = connection.execute(select(*keys, *columns).order_by(*columns)).all()
    older = []
    for row in rows:
        is_row = [key == literal(value, NULLTYPE) for key, value in zip(keys, row, strict=False)]
        older.append(tuple(_older(value, delta) for value in row[len(keys) :]))
        connection.execute(
            update(table).where(*is_row).values(dict(zip(columns, older[-1], strict=True)))
        )
    written = connection.execute(select(*columns).order_by(*columns)).all()
    if sorted(map(repr, written)) == sorted(map(repr, older)):
        return ""
    return "a trigger sets other values, or it has no primary key"


def _older(value: Any, delta: timedelta) -> Any:
    """Return an older value. A number is in seconds."""
    if isinstance(value, (int, float, Decimal)):
        return value - type(value)(delta.total_seconds())  # type: ignore[operator]
    return value and value - delta
