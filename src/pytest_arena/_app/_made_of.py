"""Which handlers may an app of this factory have, by what the factory's code names?"""

from __future__ import annotations

import functools
import inspect
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pytest_arena._app._routes import endpoints
from pytest_arena._config._load import is_library

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

__all__ = ["code_of", "made_of", "place_of"]


def code_of(thing: Any) -> object:
    """Return the code of a handler or a factory, a handler's class for itself; None of a library's.

    Decorators that say what they wrap are looked through.
    """
    while isinstance(thing, functools.partial):
        thing = thing.func
    if inspect.isclass(thing):  # Starlette's HTTPEndpoint
        return None if is_library(_file_of(thing)) else thing
    code = _plain_code(thing) or getattr(type(thing).__call__, "__code__", None)
    return None if code is None or is_library(code.co_filename) else code


def place_of(code: object) -> object:
    """Return where code stands: two functions that read alike are equal to Python."""
    if not inspect.iscode(code):
        return code
    return code.co_filename, code.co_firstlineno, code.co_name


def made_of(factory: object) -> frozenset[object]:
    """Return the places of its closures, and of the handlers in routers that it names.

    So does each function of the user's that it names. Calls nothing.
    """
    return frozenset(place_of(one) for one in _handlers(factory, set()) if one is not None)


def _handlers(factory: Any, known: set[object]) -> Iterator[object]:
    function = _function(factory)
    code = getattr(function, "__code__", None)
    if code is None or code in known or is_library(code.co_filename):
        return
    known.add(code)
    yield from _nested(code)
    for value in _named(code, function.__globals__):
        if hasattr(value, "routes") or hasattr(value, "fn"):  # a router; a handler of Litestar's
            yield from map(code_of, _answering(value))
        elif inspect.isfunction(value):
            yield from _handlers(value, known)


def _answering(value: Any) -> Iterator[object]:
    if inspect.isfunction(getattr(value, "fn", None)):
        yield value.fn
    elif isinstance(getattr(value, "routes", None), list):
        yield from endpoints(value)


def _function(thing: Any) -> Any:
    while isinstance(thing, functools.partial):
        thing = thing.func
    return inspect.unwrap(getattr(thing, "__func__", thing))


def _plain_code(thing: Any) -> CodeType | None:
    code = getattr(_function(thing), "__code__", None)
    return code if inspect.iscode(code) else None


def _file_of(kind: type) -> str:
    return getattr(sys.modules.get(kind.__module__), "__file__", None) or "<none>"


def _nested(code: CodeType) -> Iterator[CodeType]:
    for one in code.co_consts:
        if inspect.iscode(one):
            yield one
            yield from _nested(one)


def _named(code: CodeType, seen: dict[str, Any]) -> Iterator[object]:
    """What the names in it mean, also those that it imports, and the members of lists."""
    names = code.co_names
    package = str(seen.get("__package__") or "")
    imported = (f"{package}.{name}" if package else name for name in names)
    found = [*map(seen.get, names), *map(sys.modules.get, (*names, *imported))]
    modules = [one for one in found if isinstance(one, ModuleType)]
    found += [vars(module).get(name) for module in modules for name in names]
    for one in found:
        if isinstance(one, list | tuple):
            yield from one
        elif one is not None:
            yield one
