"""Finds the variables of a test that always have the answer to a request.

Any other variable, such as one with ``next(…, None)``, may have None after another answer.
"""

import ast
import inspect
import re
from functools import cache
from inspect import getattr_static
from types import CodeType, FrameType
from typing import Any

from pytest_arena._config._load import is_library
from pytest_arena.scenarios.assertions._own_parameters import (
    Fixtures,
    classes_of,
    passed_to,
)
from pytest_arena.scenarios.assertions._test_files import (
    Function,
    bindings_in,
    function_of,
    functions_in,
    parameters_of,
    set_up_attributes,
)

METHODS = frozenset(
    {"get", "post", "put", "patch", "delete", "head", "options", "request"}
)
"""The methods of a client that send a request."""

_CLIENT = re.compile(r"(?:\w*client|http|api|browser)\w*", re.IGNORECASE)
_PATH = re.compile(r"[\"']?(?:f[\"'])?(?:/|https?:)")


def is_always_answer(frame: FrameType, name: str, fixtures: Fixtures) -> bool:
    """Return whether a variable has the answer to a request, whatever the app answers."""
    code = frame.f_code
    function = function_of(code)
    if function is None:
        return False
    if name not in parameters_of(function):
        return _is_answered(function, name, code.co_filename)
    if code.co_name.startswith("test"):
        made = _function_of_fixture(name, fixtures)
        return made is not None and _returns_answer(*made)
    call, caller = passed_to(frame)
    match call.get(name):
        case ast.Name(id=passed) if caller is not None:
            return is_always_answer(caller, passed, fixtures)
        case ast.expr() as value:
            return is_request(value)
    return False


def is_request(node: ast.AST) -> bool:
    """Return whether an expression sends a request and has the answer as its value."""
    if isinstance(node, ast.Await):
        node = node.value
    match node:
        case ast.Call(func=ast.Attribute(value=owner, attr=method), args=arguments):
            if method not in METHODS:
                return False
            name = ast.unparse(owner).rpartition(".")[2]
            paths = [ast.unparse(each) for each in arguments]
            return bool(_CLIENT.fullmatch(name)) or any(map(_PATH.match, paths))
    return False


@cache
def _is_answered(function: Function, name: str, file: str) -> bool:
    """Return whether a function binds a variable to answers only."""
    nodes = list(ast.walk(function))
    answered = 0
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=value):
                answered += target == name and _is_answer(value, file)
            case ast.withitem(context_expr=value, optional_vars=ast.Name(id=target)):
                answered += target == name and ".stream(" in ast.unparse(value)
    return 0 < answered == bindings_in(nodes)[name]


def _is_answer(value: ast.expr, file: str) -> bool:
    """Return whether an expression sends a request, or calls a function that does."""
    if is_request(value):
        return True
    call = value.value if isinstance(value, ast.Await) else value
    match call:
        case ast.Call(func=ast.Name(id=name)):
            function = functions_in(file).get(name)
            return function is not None and _returns_answer(function, file)
    return False


@cache
def _returns_answer(function: Function, file: str) -> bool:
    """Return whether a function returns or yields answers only."""
    values = _returned_by(function)
    return bool(values) and all(
        is_request(value)
        or (isinstance(value, ast.Name) and _is_answered(function, value.id, file))
        for value in values
    )


def _returned_by(function: Function) -> list[ast.expr]:
    return [
        node.value or ast.Constant(None)
        for node in ast.walk(function)
        if isinstance(node, ast.Return | ast.Yield)
    ]


def _function_of_fixture(name: str, fixtures: Fixtures) -> tuple[Function, str] | None:
    """Return the function of a fixture, and its file."""
    definition = fixtures.get(name)
    if definition is None:
        return None
    code: CodeType = inspect.unwrap(definition.func).__code__
    function = function_of(code)
    return None if function is None else (function, code.co_filename)


# Clients, sessions and apps.

_PACKAGES = frozenset(
    {"fastapi", "starlette", "litestar", "sqlalchemy", "httpx", "httpx2"}
)
_TOOLS = re.compile(
    r"(?:Async)?(?:Client|TestClient|Session|Engine|Connection|sessionmaker)|Starlette|Litestar"
    r"|(?:async_)?sessionmaker"
)


def is_tool(frame: FrameType, name: str, value: object, fixtures: Fixtures) -> bool:
    """Return whether a variable has a client, a session or an app, whatever the app answers.

    It is a variable of the module, a fixture, or a variable that the test binds once to a new
    object.
    """
    if not _is_tool_class_of(value):
        return False
    function = function_of(frame.f_code)
    if function is None:
        return False
    if name not in frame.f_code.co_varnames:
        return name in frame.f_globals
    if name in parameters_of(function) and name in fixtures:
        definition = fixtures[name]
        if is_library(inspect.unwrap(definition.func).__code__.co_filename):
            return True
        made = _function_of_fixture(name, fixtures)
        return made is not None and _returns_new(made[0], value)
    return _binds_new(function, name, value)


def is_tool_of_set_up(test: object, attribute: str) -> bool:
    """Return whether the set-up assigns a new client, session or app to an attribute."""
    if not _is_tool_class_of(getattr_static(test, attribute, None)):
        return False
    values = set_up_attributes(classes_of(test)).get(attribute)
    return values is not None and all(map(_makes_tool, values))


def _makes_tool(value: ast.expr) -> bool:
    """Return whether an expression makes a client, a session or an app.

    The call may be the argument of a method such as ``enterContext``.
    """
    match value:
        case ast.Await(value=call):
            return _makes_tool(call)
        case ast.Call(func=ast.Attribute(attr=method), args=[call]) if (
            method.startswith("enter")
        ):
            return _makes_tool(call)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return _TOOLS.fullmatch(name) is not None
    return False


def _is_tool_class_of(value: object) -> bool:
    kinds = type(value).__mro__
    return any(_is_tool_class(kind) for kind in kinds)


def _is_tool_class(kind: type) -> bool:
    package = kind.__module__.partition(".")[0]
    return package in _PACKAGES and _TOOLS.fullmatch(kind.__name__) is not None


def _returns_new(function: Function, value: object) -> bool:
    match _returned_by(function):
        case [ast.Name(id=name)]:
            return _binds_new(function, name, value)
        case [ast.Call() as call]:
            return _makes(call, value)
    return False


def _binds_new(function: Function, name: str, value: object) -> bool:
    """Return whether a function binds a variable once, by ``with`` or to a new object."""
    nodes = list(ast.walk(function))
    is_new = False
    for node in nodes:
        match node:
            case ast.withitem(context_expr=made, optional_vars=ast.Name(id=target)):
                is_new |= target == name and isinstance(made, ast.Call)
            case ast.Assign(targets=[ast.Name(id=target)], value=made):
                is_new |= target == name and _makes(made, value)
    return is_new and bindings_in(nodes)[name] == 1


def _makes(call: ast.expr, value: Any) -> bool:
    """Return whether an expression calls the class of a value."""
    match call:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in {kind.__name__ for kind in type(value).__mro__}
    return False
