"""Which statements make what a metadata describes?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects.postgresql import DOMAIN, ENUM, CreateDomainType, CreateEnumType
from sqlalchemy.schema import (
    CreateIndex,
    CreateSchema,
    CreateSequence,
    CreateTable,
    SetColumnComment,
    SetTableComment,
)
from sqlalchemy.types import SchemaType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Column, MetaData, Table
    from sqlalchemy.engine import Dialect
    from sqlalchemy.sql.ddl import ExecutableDDLElement

__all__ = ["all_ddl", "has_listeners", "schemas_of"]


def has_listeners(target: Any, *names: str) -> bool:
    """Whether somebody listens to these events of a metadata or table.

    Types do that themselves to be made in the database, which the DDL shows.
    """
    heard = (listener for name in names for listener in getattr(target.dispatch, name))
    return not all(isinstance(_owner(listener), SchemaType) for listener in heard)


def _owner(listener: Any) -> object:
    """The object whose method it is, if it is one; SQLAlchemy wraps it in the one or other way."""
    return getattr(getattr(listener, "func", listener), "__self__", None) or getattr(
        listener, "target", None
    )


def schemas_of(metadata: MetaData) -> list[CreateSchema]:
    """Return what makes the schemas in which tables, types and sequences stand."""
    types = (column.type for table in metadata.tables.values() for column in table.columns)
    named = [*metadata.tables.values(), *metadata._sequences.values(), *types]  # noqa: SLF001 - there is no public way
    names = {getattr(each, "schema", None) for each in named}
    return [CreateSchema(name, if_not_exists=True) for name in sorted(filter(None, names))]


def all_ddl(metadata: MetaData, dialect: Dialect) -> Iterator[ExecutableDDLElement]:
    """Yield all that ``create_all`` executes, beside what listeners of the user's do."""
    if dialect.supports_sequences:
        for _, sequence in sorted(metadata._sequences.items()):  # noqa: SLF001 - there is no public way
            yield CreateSequence(sequence)
    for _, table in sorted(metadata.tables.items()):  # sorted_tables warns of a circle
        for column in table.columns:
            yield from _types(column.type, dialect)
        yield CreateTable(table)
        yield from (CreateIndex(index) for index in sorted(table.indexes, key=str))
        if dialect.supports_comments and not dialect.inline_comments:
            yield from _comments(table)


def _types(given: Any, dialect: Dialect) -> Iterator[ExecutableDDLElement]:
    """A type that has a name in the database, as PostgreSQL's enums and domains do."""
    kind = given.dialect_impl(dialect)
    kind = getattr(kind, "impl_instance", kind)  # what stands behind a TypeDecorator
    if isinstance(kind, ENUM):
        yield CreateEnumType(kind)
    elif isinstance(kind, DOMAIN):
        yield CreateDomainType(kind)
    elif (item := getattr(kind, "item_type", None)) is not None:
        yield from _types(item, dialect)


def _comments(table: Table) -> Iterator[ExecutableDDLElement]:
    if table.comment is not None:
        yield SetTableComment(table)
    commented: list[Column[Any]] = [one for one in table.columns if one.comment is not None]
    yield from (SetColumnComment(column) for column in commented)
