"""Explains the errors of a failed test: stale instances, and errors of libraries."""

from __future__ import annotations

import ast
import traceback
from collections import Counter
from contextlib import suppress
from itertools import islice
from textwrap import dedent
from typing import TYPE_CHECKING

from sqlalchemy.exc import (
    DBAPIError,
    InvalidRequestError,
    MissingGreenlet,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstanceState, Session

from pytest_arena._config._load import blame, project_modules
from pytest_arena._config._supported import kind_of_error
from pytest_arena._databases._sessions import FreshSession
from pytest_arena._product import loaded

if TYPE_CHECKING:
    from collections.abc import (
        Container,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )

    from pytest_arena._changes import Change
    from pytest_arena._report import StoryPart
    from pytest_arena._values import CodeLine

    State = InstanceState[object]
    Values = Mapping[str, object]
    # A statement of the traceback, as source text, and the variables of its function.
    Statement = tuple[str, Values]


def stale_lines(
    statements: Sequence[Statement],
    parts: Sequence[StoryPart],
    fresh: Session,
    session_instances: Container[State],
    *,
    is_async: bool,
) -> list[str]:
    """Return a line for each instance that a failed assertion names, and whose row has changed.

    Args:
        statements: the user's statements of the traceback. The test's statement is the first.
        parts: the changes of the test, by request.
        fresh: a session without instances on the app's database.
        session_instances: the instances in pytest-arena's sessions when the test failed.
        is_async: whether the test is a coroutine.
    """
    lines: dict[int, str] = {}
    for source, variables in statements:
        for expression, value in _values_in(source, variables):
            state = _state_of(value)
            if not isinstance(state, InstanceState) or id(value) in lines:
                continue
            columns = _stale_columns(state, fresh)
            if columns:
                statement = _refresh_statement(
                    expression, state, variables, session_instances, is_async=is_async
                )
                lines[id(value)] = (
                    f"`{expression}` ({_shown_row(state)}) was loaded before "
                    f"{_changing_request(state, columns, parts)} changed its "
                    f"{', '.join(columns)}: `{statement}`"
                )
    return list(lines.values())


def _table_of(state: State) -> str:
    """Return the name of the table that an instance is mapped to."""
    return str(getattr(state.mapper.local_table, "name", ""))


def _shown_row(state: State) -> str:
    """Return the row of an instance as a message shows it: ``tickets id=1``."""
    columns = [column.name for column in state.mapper.primary_key]
    key = zip(columns, state.identity or (), strict=False)
    return " ".join([_table_of(state), *(f"{name}={value}" for name, value in key)])


# The values that a statement names, read from `__dict__`: reading an attribute may load rows.


def _values_in(source: str, variables: Values) -> Iterator[tuple[str, object]]:
    """Yield the values that a statement names, and their members, each after its expression."""
    for node in ast.walk(_syntax_tree(source)):
        if not isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
            continue
        value = None
        with suppress(Exception):  # a proxy of the user may have lost its object
            value = _value_of(node, variables)
        if value is not None:
            expression = ast.unparse(node)
            yield expression, value
            yield from _members(expression, value)


def _syntax_tree(source: str) -> ast.AST:
    text = dedent(source).strip()
    for candidate in (text, f"{text} pass"):  # `with …:` needs a body
        with suppress(SyntaxError, ValueError):
            return ast.parse(candidate)
    return ast.Module([], [])


def _value_of(node: ast.AST, variables: Values) -> object:
    """Return the value of a name, an attribute or an item. None if it is not loaded."""
    if isinstance(node, ast.Name):
        return variables.get(node.id)
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Attribute):
        return getattr(_value_of(node.value, variables), "__dict__", {}).get(node.attr)
    if isinstance(node, ast.Subscript):
        key = _value_of(node.slice, variables)
        if isinstance(key, int | str):
            return dict(_items(_value_of(node.value, variables))).get(key)
    return None


def _state_of(value: object) -> object:
    # SQLAlchemy's `inspect` connects an engine, and raises an error for an async connection.
    with suppress(Exception):  # as in `_values_in`
        return vars(value).get("_sa_instance_state")
    return None


def _members(expression: str, container: object) -> Iterator[tuple[str, object]]:
    for key, member in islice(_items(container), _MOST_MEMBERS):
        yield f"{expression}[{key!r}]", member


def _items(container: object) -> Iterable[tuple[object, object]]:
    if isinstance(container, list | tuple):
        return enumerate(container)
    return container.items() if isinstance(container, dict) else ()


_MOST_MEMBERS = 50  # the most members of a container that are examined


def _refresh_statement(
    expression: str,
    state: State,
    variables: Values,
    session_instances: Container[State],
    *,
    is_async: bool,
) -> str:
    """Return the statement that reloads an instance, by a session in a variable of the test."""
    session_name = ""
    for name, session in _sessions_in(variables):
        if isinstance(session, FreshSession):
            session_name = session_name or name
        elif session is state.session:
            awaited = "await " if state.async_session is not None else ""
            return f"{awaited}{name}.refresh({expression})"
    session_name = session_name or "db_session"
    awaited = "await " if is_async else ""
    if state in session_instances:
        return f"{awaited}{session_name}.refresh({expression})"
    keys = tuple(state.identity or ())
    key = keys[0] if len(keys) == 1 else keys
    return (
        f"{expression} = {awaited}{session_name}.get({state.class_.__name__}, {key!r})"
    )


def _sessions_in(variables: Values) -> Iterator[tuple[str, object]]:
    """Yield the sync sessions that variables of a test and attributes of ``self`` have."""
    named = dict(variables)
    attributes = getattr(variables.get("self"), "__dict__", {})
    named |= {f"self.{name}": value for name, value in attributes.items()}
    for name, value in named.items():
        if isinstance(value, AsyncSession):
            yield name, value.sync_session
        elif isinstance(value, Session):
            yield name, value


# The old values of an instance


def _stale_columns(state: State, fresh: Session) -> list[str]:
    """Return the columns whose loaded, unchanged values differ from those of the present row."""
    if state.identity is None:
        return []
    present = fresh.get(state.class_, state.identity)
    if present is None:
        return []
    columns = []
    for attribute in state.mapper.column_attrs:
        key = attribute.key
        is_loaded = key in state.dict and key not in state.committed_state
        if is_loaded and _differ(state.dict[key], getattr(present, key)):
            columns.append(attribute.columns[0].name or key)
    return columns


def _differ(value: object, other: object) -> bool:
    with suppress(Exception):  # the `==` of arrays has no truth value
        return not bool(value == other)
    return False


def _changing_request(
    state: State, columns: list[str], parts: Sequence[StoryPart]
) -> str:
    """Return the first request that changed any of these columns of an instance's row."""
    for part in parts:
        for change in part.changes or ():
            is_update = bool(part.request) and change.kind == "updated"
            is_of_columns = not set(columns).isdisjoint(change.columns)
            if is_update and is_of_columns and _is_row_of(state, change):
                return part.request
    return "another session"


def _is_row_of(state: State, change: Change) -> bool:
    # The table's name has a prefix for its database (analytics/visits) or schema (audit.log).
    name_in_database = change.table.rpartition("/")[2]
    if name_in_database.rpartition(".")[2] != _table_of(state):
        return False
    keys = zip(state.mapper.primary_key, state.identity or (), strict=False)
    return all(
        str(change.before.get(column.name)) == str(value) for column, value in keys
    )


# Explanations of errors of SQLAlchemy and of drivers


def ended_transaction(error: BaseException) -> str:
    """Explain that the commit before a request ended a transaction, a savepoint or a result.

    Call this only if pytest-arena has committed a session of the test before a request.
    """
    if isinstance(error, DBAPIError):
        is_ended = kind_of_error(error) == "no cursor"
    else:
        is_ended = isinstance(error, InvalidRequestError) and (
            "closed transaction inside context manager" in str(error)
            or "This transaction is closed" in str(error)
        )
    return _ENDED_TRANSACTION if is_ended else ""


_ENDED_TRANSACTION = """\
pytest-arena commits `db_session` before each request. The commit ended the transaction of a block
(`db_session.begin()`), a savepoint (`begin_nested()`), or a result that was not read to its end
next: end the block, or read the whole result by `.all()`, before the request
or use a session that is not committed: `arena.session(commit_before_requests=False)`"""


def connection_of_earlier_test(error: BaseException) -> str:
    """Explain an error of a driver's connection or pool that an earlier test has opened."""
    for product in [*loaded.values()]:
        explanation = product.connections.explain(error)
        if explanation:
            return explanation
    return ""


def bound_to_another_loop(error: BaseException) -> str:
    """Explain an error of a lock, an event or a queue that another event loop has used."""
    if isinstance(error, BaseExceptionGroup):
        explanations = map(bound_to_another_loop, error.exceptions)
        return next(filter(None, explanations), "")
    if not (isinstance(error, RuntimeError) and _OTHER_LOOP in str(error)):
        return ""
    primitive = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "_get_loop":
            primitive = frame.f_locals.get("self")
    if primitive is None:
        return ""
    kind = type(primitive).__name__
    line = blame(error)
    where = line.short if line is not None else "a library"
    named = _global_name(primitive)
    owner = f"`{named}` (asyncio.{kind})" if named else f"an asyncio.{kind}"
    fact = _BOUND_TO_LOOP.format(owner, where)
    return f"{fact}\n{_CREATE_IN_LIFESPAN.format(kind)}"


_OTHER_LOOP = "is bound to a different event loop"
_BOUND_TO_LOOP = """\
{0} belongs to the event loop that used it first, most often an earlier test's
{1} uses it in another loop"""
_CREATE_IN_LIFESPAN = """\
next: make it in the app's lifespan: app.state.name = asyncio.{0}()
or run all tests in one loop, in pytest's configuration (pytest-asyncio):
asyncio_default_test_loop_scope = session and asyncio_default_fixture_loop_scope = session"""


def _global_name(value: object) -> str:
    """Return the name of an object that is a global of the user, such as ``app.JOBS``, or ""."""
    for module, _ in project_modules():
        for name, member in [*vars(module).items()]:
            if member is value:
                return f"{module.__name__}.{name}"
    return ""


def empty_pool(error: BaseException, held: Iterable[CodeLine | None]) -> str:
    """Name the lines that hold the connections of an exhausted pool, "" for another error."""
    if not isinstance(error, PoolTimeout):
        return ""
    numbers = Counter(line.short for line in held if line is not None)
    shown = [f"{line} ({number} times)" for line, number in numbers.most_common(3)]
    return _EMPTY_POOL.format("\n    ".join(shown)) if shown else ""


_EMPTY_POOL = """\
no connection of the pool is free. These lines checked one out and have not returned it:
    {}
next: open the session or the connection by `with`, which returns it"""


def no_connection_left(error: BaseException) -> str:
    """Explain that the server has no free connection. Return "" for another error."""
    return _NO_CONNECTION_LEFT if kind_of_error(error) == "no connection" else ""


_NO_CONNECTION_LEFT = """\
all connections of the server are taken. Each test process opens the app's pools, two
connections of pytest-arena, and one more for each database of the app
next: pytest -n 2, a smaller pool_size in tests, or a larger max_connections on the server"""


def not_loaded(error: BaseException) -> str:
    """Explain that an async session cannot load an attribute when code reads it, or return ""."""
    is_missing = isinstance(error, MissingGreenlet)
    if not is_missing and isinstance(error, StatementError):
        is_missing = isinstance(error.orig, MissingGreenlet)
    if not is_missing:
        return ""
    for state, key in _attributes_being_loaded(error):
        name = f"{state.class_.__name__}.{key}"
        words = _NOT_LOADED.format(name, _shown_row(state), key)
        is_relationship = key in state.mapper.relationships
        return words + _LOADER_OPTION.format(name) if is_relationship else words
    return ""


_WIDER_LOOP = """\
an async fixture has a wider scope than the event loop that pytest-asyncio runs it in
next: @pytest_asyncio.fixture(scope="session", loop_scope="session")
and, for tests that use it: asyncio_default_test_loop_scope = session"""


def narrow_loop(error: BaseException) -> str:
    """Explain that a wide async fixture runs in a test's loop. Return "" for another error."""
    text = str(getattr(error, "msg", ""))  # of pytest's own errors
    return _WIDER_LOOP if "_function_scoped_runner" in text else ""


def _attributes_being_loaded(error: BaseException) -> Iterator[tuple[State, str]]:
    """Yield the attributes that SQLAlchemy was loading when the error occurred."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        state = frame.f_locals.get("state")
        key = frame.f_locals.get("key")
        if (
            isinstance(state, InstanceState)
            and isinstance(key, str)
            and key in state.attrs
        ):
            yield state, key


_NOT_LOADED = """\
`{0}` ({1}) is not loaded, and an async session cannot load it when it is read
next: `await session.refresh(instance, ["{2}"])`"""
_LOADER_OPTION = """, or load it by each query: `options(selectinload({0}))`
A query by `db_session` reads a row again, and forgets a relationship that it does not load"""
