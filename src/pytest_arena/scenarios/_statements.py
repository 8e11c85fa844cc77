"""What stands in the line that asserts, and may a test have asserted unheard?"""

from __future__ import annotations

import ast
import dis
import functools
import inspect
import linecache
import os
import sys
import unittest
from contextlib import suppress
from itertools import chain
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any
from unittest import mock

from pytest_arena._config._load import is_library
from pytest_arena._others import own_function

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType


__all__ = ["relative", "statement", "text_at", "unheard"]

_LONGEST = 30  # lines of one statement


def text_at(frame: FrameType) -> str:
    """Return what is asserted in the line of a frame; see `statement`."""
    return statement(frame.f_code.co_filename, frame.f_lineno)


@functools.cache
def statement(file: str, line: int) -> str:
    """Return what an ``assert`` that begins in this line asserts, without its message.

    Of another statement all of it. Costs up to 100 µs, once for each line.
    """
    first = text = linecache.getline(file, line).strip()
    for number in range(line + 1, line + _LONGEST):
        if (found := _asserted(text)) is not None:
            return found
        text += f"\n{linecache.getline(file, number).rstrip()}"
    return first.rpartition("assert ")[2]  # of an `else: assert …`, which nobody can read alone


def _asserted(text: str) -> str | None:
    """Return what is asserted in a statement; None where it is none, or goes on."""
    for whole in (text, f"{text} pass"):  # the head of a `with pytest.raises(…):`
        try:
            tree = ast.parse(whole)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        found = [one.test for one in ast.walk(tree) if isinstance(one, ast.Assert)]
        return "; ".join(ast.get_source_segment(whole, one) or "" for one in found) or text
    return None


def relative(path: Path, root: Path) -> str:
    """Return a path from the root folder, with ``/``: the same on each machine."""
    with suppress(ValueError):  # Windows: on another drive
        path = Path(os.path.relpath(path, root)) if path.is_absolute() else path
    return path.as_posix()


_DEPTH = 3  # helpers of helpers


def unheard(item: Any) -> str:
    """Return why assertions of a test cannot have been heard; "" where they can.

    pytest hears those of test files, conftest files, and modules that it was told of. What others
    assert is looked for by the names that the test uses. Costs some 100 µs.
    """
    function = own_function(item)[2]
    function = inspect.unwrap(getattr(function, "__func__", function)) if function else None
    if not isinstance(function, FunctionType):
        return ""
    arguments = list(getattr(item, "funcargs", {}).values())
    used = [function, *_used(function, arguments, depth=_DEPTH)]
    for one in used:
        if any(map(_is_silent, _codes(one.__code__))):
            if one.__code__.co_filename == str(item.path):
                return "its file was compiled without calls for assertions"
            how = f"pytest.register_assert_rewrite({one.__module__!r}) in conftest.py"
            where = f"{one.__qualname__}() asserts in a module that pytest does not rewrite"
            return f"{where}: {how}"
    known = {*(one.__name__ for one in used), *_HEARD}
    others = (name for name in _names(function) if name.lower().startswith("assert"))
    name = next((one for one in others if one not in known), "")
    return f"nobody hears {name}() pass: assert what it compares" if name else ""


# `raise AssertionError` is no assertion that could pass; what unittest and mocks have is heard.
_HEARD = {"AssertionError", *dir(unittest.TestCase), *dir(mock.AsyncMock)}


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
