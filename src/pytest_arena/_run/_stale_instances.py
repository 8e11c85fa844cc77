"""Which instances that a failed test compares were loaded before a request changed their rows?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstanceState, Session

from pytest_arena._run._long_sessions import shown_row, table_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Dialect

    from pytest_arena._changes import Change
    from pytest_arena._report import StoryPart

    # The source of a statement on the way to the error, and the variables of its function.
    Statement = tuple[str, Mapping[str, object]]


def stale_lines(
    statements: Sequence[Statement],
    parts: Sequence[StoryPart],
    dialect: Callable[[], Dialect],
    *,
    is_async: bool,
) -> list[str]:
    """Return a line for each instance in a failed assertion that has old values.

    Args:
        statements: the user's statements in the traceback, the test's first.
        parts: what the test changed, request by request.
        dialect: returns the dialect of the app's database, which converts values for the driver.
        is_async: whether the test is a coroutine.
    """
    lines: dict[int, str] = {}
    for source, variables in statements:
        for name, value in variables.items():
            is_compared = re.search(rf"\b{re.escape(name)}\b", source) is not None
            state: Any = inspect(value, raiseerr=False) if is_compared else None
            if not isinstance(state, InstanceState) or id(value) in lines:
                continue
            stale = _stale_columns(state, parts, dialect())
            if stale is not None:
                request, columns = stale
                refresh = _refresh(name, variables, is_async=is_async)
                lines[id(value)] = (
                    f"`{name}` ({shown_row(state)}) was loaded before {request} changed its "
                    f"{', '.join(columns)}: `{refresh}`"
                )
    return list(lines.values())


def _refresh(name: str, variables: Mapping[str, object], *, is_async: bool) -> str:
    """Return the call that loads an instance again, by the first session among the variables."""
    for variable, value in variables.items():
        if isinstance(value, AsyncSession):
            return f"await {variable}.refresh({name})"
        if isinstance(value, Session):
            return f"{variable}.refresh({name})"
    return f"await db_session.refresh({name})" if is_async else f"db_session.refresh({name})"


def _stale_columns(
    state: InstanceState[Any], parts: Sequence[StoryPart], dialect: Dialect
) -> tuple[str, list[str]] | None:
    """Return the first request that changed values of an instance, and their columns."""
    loaded = dict(_loaded(state, dialect))
    updates = list(_updates(state, parts, dialect))
    newest: dict[str, object] = {}
    for _, update in updates:
        newest.update({column: update.after[column] for column in update.columns})
    for request, update in updates:
        stale = [
            column
            for column in update.columns
            if column in loaded
            and _is_equal(loaded[column], update.before[column])
            and not _is_equal(loaded[column], newest[column])
        ]
        if stale:
            return request, stale
    return None


def _updates(
    state: InstanceState[Any], parts: Sequence[StoryPart], dialect: Dialect
) -> Iterator[tuple[str, Change]]:
    """Yield the updates of an instance's row, each with its request."""
    columns = state.mapper.primary_key
    key = {
        column.name: _bound(column, value, dialect)
        for column, value in zip(columns, state.identity or (), strict=False)
    }
    for part in parts:
        if not part.request:
            continue
        for change in part.changes or ():
            # With several databases a table is called analytics/visits, with schemas audit.log.
            table = change.table.rpartition("/")[2].rpartition(".")[2]
            if change.kind != "updated" or table != table_of(state):
                continue
            if all(_is_equal(value, change.before.get(name)) for name, value in key.items()):
                yield part.request, change


def _loaded(state: InstanceState[Any], dialect: Dialect) -> Iterator[tuple[str, object]]:
    for attribute in state.mapper.column_attrs:
        column = attribute.columns[0]
        if attribute.key in state.dict and getattr(column, "table", None) is not None:
            yield column.name, _bound(column, state.dict[attribute.key], dialect)


def _bound(column: ColumnElement[Any], value: object, dialect: Dialect) -> object:
    """Return a value as the driver has it."""
    try:
        process = column.type.dialect_impl(dialect).bind_processor(dialect)
        return value if process is None else process(value)
    except (SQLAlchemyError, TypeError, ValueError, LookupError, AttributeError):
        return value  # a type of the user's that takes other values


def _is_equal(value: object, other: object) -> bool:
    return str(value) == str(other) or bool(value == other)
