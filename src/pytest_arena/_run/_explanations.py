"""Explains the errors of a failed test: stale instances, and errors of libraries."""

from __future__ import annotations

import re
import traceback
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

from sqlalchemy.exc import MissingGreenlet, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import InstanceState

from pytest_arena._config._load import blame
from pytest_arena._config._supported import kind_of_error
from pytest_arena._gate._connections import is_of_arena

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy.orm import Session

    from pytest_arena._values import CodeLine

    State = InstanceState[object]
    # A statement of the traceback, as source text, and the variables of its function.
    SourceStatement = tuple[str, Mapping[str, object]]


def stale_lines(
    statements: Sequence[SourceStatement],
    fresh: Session,
    *,
    is_async: bool,
) -> list[str]:
    """Return a line for each instance that a failed assertion names, and whose row has changed.

    Args:
        statements: the user's statements of the traceback.
        fresh: a session without instances on the app's database.
        is_async: whether the test is a coroutine.
    """
    lines: dict[int, str] = {}
    awaited = "await " if is_async else ""
    for source, variables in statements:
        for name, value in _values_in(source, variables):
            state = _state_of(value)
            if state is None or id(value) in lines:
                continue
            columns = _stale_columns(state, fresh)
            if not columns:
                continue
            keys = tuple(state.identity or ())
            key = keys[0] if len(keys) == 1 else keys
            lines[id(value)] = (
                f"`{name}` ({_shown_row(state)}) was loaded before another session changed "
                f"its {', '.join(columns)}: "
                f"`{name} = {awaited}db_session.get({state.class_.__name__}, {key!r})`"
            )
    return list(lines.values())


_MOST_MEMBERS = 50  # the most members of a container that are examined


def _values_in(
    source: str, variables: Mapping[str, object]
) -> Iterator[tuple[str, object]]:
    """Yield the variables that a statement names, and the members of lists and dictionaries."""
    for name, value in variables.items():
        if not re.search(rf"\b{re.escape(name)}\b", source):
            continue
        yield name, value
        members: Iterable[tuple[object, object]] = ()
        if isinstance(value, list | tuple):
            members = enumerate(value)
        elif isinstance(value, dict):
            members = value.items()
        for key, member in islice(members, _MOST_MEMBERS):
            yield f"{name}[{key!r}]", member


def _state_of(value: object) -> State | None:
    # Read `__dict__`, because reading an attribute may load rows.
    state = getattr(value, "__dict__", {}).get("_sa_instance_state")
    return state if isinstance(state, InstanceState) else None


def _shown_row(state: State) -> str:
    """Return the row of an instance as a message shows it: ``tickets id=1``."""
    columns = [column.name for column in state.mapper.primary_key]
    key = zip(columns, state.identity or (), strict=False)
    return " ".join([_table_of(state), *(f"{name}={value}" for name, value in key)])


def _table_of(state: State) -> str:
    """Return the name of the table that an instance is mapped to."""
    return str(getattr(state.mapper.local_table, "name", ""))


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
        if is_loaded and state.dict[key] != getattr(present, key):
            columns.append(attribute.columns[0].name or key)
    return columns


# Explanations of errors of SQLAlchemy and of drivers


def explanation(error: BaseException, held: Iterable[CodeLine | None]) -> str:
    """Return an explanation of an error, "" without one.

    ``held`` are the lines that hold a connection.
    """
    if isinstance(error, PoolTimeout):
        return _empty_pool(held)
    if kind_of_error(error) == "no connection":
        return _NO_CONNECTION_LEFT
    # The text of pytest's own error.
    if "_function_scoped_runner" in str(getattr(error, "msg", "")):
        return _WIDER_LOOP
    if isinstance(error, RuntimeError) and _OTHER_LOOP in str(error):
        return _bound_to_another_loop(error)
    return _not_loaded(error)


_OTHER_LOOP = "is bound to a different event loop"
_BOUND_TO_LOOP = """\
an asyncio.{0} belongs to the event loop that used it first, most often an earlier test's
{1} uses it in another loop
next: make it in the app's lifespan: app.state.name = asyncio.{0}()
or run all tests in one loop, in pytest's configuration (pytest-asyncio):
asyncio_default_test_loop_scope = session and asyncio_default_fixture_loop_scope = session"""


def _bound_to_another_loop(error: RuntimeError) -> str:
    """Explain an error of a lock, an event or a queue that another event loop has used."""
    primitive = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "_get_loop":
            primitive = frame.f_locals.get("self")
    if primitive is None:
        return ""
    line = blame(error)
    where = line.short if line is not None else "a library"
    return _BOUND_TO_LOOP.format(type(primitive).__name__, where)


def _empty_pool(held: Iterable[CodeLine | None]) -> str:
    """Name the lines that hold the connections of an exhausted pool."""
    numbers = Counter(line.short for line in held if line is not None)
    shown = [f"{line} ({number} times)" for line, number in numbers.most_common(3)]
    return _EMPTY_POOL.format("\n    ".join(shown)) if shown else ""


_EMPTY_POOL = """\
no connection of the pool is free. These lines checked one out and have not returned it:
    {}
next: open the session or the connection by `with`, which returns it"""
_NO_CONNECTION_LEFT = """\
all connections of the server are taken. Each test process opens the app's pools, two
connections of pytest-arena, and one more for each database of the app
next: pytest -n 2, a smaller pool_size in tests, or a larger max_connections on the server"""
_WIDER_LOOP = """\
an async fixture has a wider scope than the event loop that pytest-asyncio runs it in
next: @pytest_asyncio.fixture(scope="session", loop_scope="session")
and, for tests that use it: asyncio_default_test_loop_scope = session"""


def _not_loaded(error: BaseException) -> str:
    """Explain that an async session cannot load an attribute when code reads it, or return ""."""
    original = error.orig if isinstance(error, StatementError) else error
    if not isinstance(original, MissingGreenlet):
        return ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        state = frame.f_locals.get("state")
        key = str(frame.f_locals.get("key"))
        if isinstance(state, InstanceState) and key in state.attrs:
            name = f"{state.class_.__name__}.{key}"
            words = _NOT_LOADED.format(name, _shown_row(state), key)
            if key in state.mapper.relationships:
                words += _LOADER_OPTION.format(name)
                if state.session is not None and is_of_arena(state.session):
                    words += _FORGOTTEN
            return words
    return ""


_NOT_LOADED = """\
`{0}` ({1}) is not loaded, and an async session cannot load it when it is read
next: `await session.refresh(instance, ["{2}"])`"""
_LOADER_OPTION = """, or load it by each query: `options(selectinload({0}))`"""
_FORGOTTEN = """
A query by `db_session` reads a row again, and forgets a relationship that it does not load"""
