"""May a test have asserted without anybody hearing of it?"""

from __future__ import annotations

import dis
import inspect
import sys
import unittest
from itertools import chain
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any
from unittest import mock

from pytest_arena._config._load import is_library

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["unheard"]

_DEPTH = 3  # helpers of helpers


def unheard(item: Any) -> str:
    """Return why assertions of a test cannot have been heard; "" where they can.

    pytest hears those of test files, conftest files, and modules that it was told of. What others
    assert is looked for by the names that the test uses. Costs some 100 µs.
    """
    function = _own_function(item)
    if function is None:
        return ""
    arguments = list(getattr(item, "funcargs", {}).values())
    used = [function, *_used(function, arguments, depth=_DEPTH)]
    for one in used:
        if any(map(_is_silent, _codes(one.__code__))):
            return _why(one, item)
    known = {*(one.__name__ for one in used), *_HEARD}
    others = (name for name in _names(function) if name.lower().startswith("assert"))
    name = next((one for one in others if one not in known), "")
    return f"nobody hears {name}() pass: assert what it compares" if name else ""


# `raise AssertionError` is no assertion that could pass; what unittest and mocks have is heard.
_HEARD = {"AssertionError", *dir(unittest.TestCase), *dir(mock.AsyncMock)}


def _why(function: FunctionType, item: Any) -> str:
    if function.__code__.co_filename == str(item.path):
        return "its file was compiled without calls for assertions"
    name, module = function.__qualname__, function.__module__
    how = f"pytest.register_assert_rewrite({module!r}) in conftest.py"
    return f"{name}() asserts in a module that pytest does not rewrite: {how}"


def _own_function(item: Any) -> FunctionType | None:
    function = getattr(item, "obj", None)
    given = getattr(function, "hypothesis", None)
    function = inspect.unwrap(given.inner_test if given else function)  # type: ignore[arg-type]  # None is its own
    function = getattr(function, "__func__", function)
    return function if isinstance(function, FunctionType) else None


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _codes(one)


def _is_silent(code: CodeType) -> bool:
    if "_call_assertion_pass" in code.co_names:
        return False
    return "_format_explanation" in code.co_names or any(
        "ASSERTION" in one.opname or one.argval is AssertionError
        for one in dis.get_instructions(code)
    )


def _used(function: FunctionType, more: Iterable[object], *, depth: int) -> Iterator[FunctionType]:
    """Functions of the user's that a function names, and those that these name."""
    names = _names(function)
    values = [function.__globals__.get(name, sys.modules.get(name)) for name in names]
    found = chain.from_iterable(_functions(value, names) for value in [*values, *more])
    for one in found:
        if not is_library(one.__code__.co_filename):
            yield one
            yield from _used(one, (), depth=depth - 1) if depth else ()


def _names(function: FunctionType) -> list[str]:
    return sorted({name for code in _codes(function.__code__) for name in code.co_names})


def _functions(value: object, names: list[str]) -> Iterator[FunctionType]:
    """A function itself; of a module, a class or an object those that are named."""
    if isinstance(value, FunctionType):
        yield value
        return
    owner = value if isinstance(value, ModuleType | type) else type(value)
    name = owner.__name__ if isinstance(owner, ModuleType) else owner.__module__
    if is_library(str(getattr(sys.modules.get(name), "__file__", None) or "<built-in>")):
        return
    for name in names:
        one = inspect.getattr_static(owner, name, None)
        one = getattr(one, "__func__", one)
        if isinstance(one, FunctionType):
            yield one
