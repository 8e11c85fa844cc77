"""Finds the parameters of a running function that have no values of the app.

These are fixtures that return constants, and arguments that only have values of the caller.
"""

import ast
import inspect
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from decimal import Decimal
from functools import cache
from inspect import getattr_static
from types import CodeType, FrameType
from typing import Any
from uuid import UUID

from pytest_arena._config._load import is_library
from pytest_arena._origin import is_of_tests
from pytest_arena.scenarios.assertions._data_flow import (
    is_self_contained,
    keeps_own_value,
    names_read_by,
    own_names,
    self_contained_helpers,
)
from pytest_arena.scenarios.assertions._test_files import (
    Classes,
    Function,
    bindings_in,
    calls_in,
    function_of,
    is_unchanged_attribute,
    parameters_of,
    set_up_attributes,
)

_IMMUTABLE = (str, bytes, int, float, type(None), Decimal, date, UUID)
_NOTHING = frozenset[str]()

Fixtures = Mapping[str, Any]
"""pytest's definitions of the fixtures that a test requests, by their names."""


def own_parameters(frame: FrameType, fixtures: Fixtures) -> frozenset[str]:
    """Return the parameters of a running function that have no foreign values.

    Args:
        frame: the frame of a test, or of a helper that it calls.
        fixtures: the fixtures of the test.
    """
    code = frame.f_code
    function = function_of(code)
    if function is None:
        return _NOTHING
    parameters = parameters_of(function)
    if code.co_name.startswith("test"):
        return frozenset(
            name
            for name in parameters
            if _is_own_fixture(name, fixtures, code.co_filename)
        )
    arguments, caller = passed_to(frame)
    if caller is None:
        return _NOTHING
    read = [names_read_by(value) for value in arguments.values()]
    own = own_names(caller.f_code)
    if not all(names <= own for names in read):
        own = own_names(caller.f_code, own_parameters(caller, fixtures))
    return frozenset(
        name for name, value in arguments.items() if names_read_by(value) <= own
    )


def own_attributes(code: CodeType, test: object) -> frozenset[str]:
    """Return the attributes to which the set-up of a class assigns constants, as ``self.NAME``.

    Args:
        code: the code of a method. Only the attributes that it names are returned.
        test: the object to which the method belongs.
    """
    constants = _constants_of_set_up(classes_of(test))
    names = set()
    for name in constants.keys() & code.co_names:
        # A function of another file may have assigned another value.
        if getattr_static(test, name, ...) in constants[name]:
            names.add(f"self.{name}")
    return frozenset(names)


@cache
def _constants_of_set_up(classes: Classes) -> Mapping[str, list[object]]:
    """Return the attributes to which a set-up assigns only constants, and these constants."""
    constants = {}
    for name, values in set_up_attributes(classes).items():
        if all(is_unchanged_attribute(classes, name, value) for value in values):
            with suppress(ValueError):  # a dict has a variable as a key
                constants[name] = [ast.literal_eval(value) for value in values]
    return constants


def classes_of(test: object) -> Classes:
    """Return an object's class and its bases, without classes of libraries."""
    kind: type = type(test)
    return _own_bases(kind)


@cache
def _own_bases(kind: type) -> Classes:
    bases = set()
    for base in kind.__mro__:
        module = sys.modules.get(base.__module__)
        file = str(getattr(module, "__file__", None) or "")
        if file and not is_library(file):
            bases.add((file, base.__name__))
    return frozenset(bases)


def passed_to(frame: FrameType) -> tuple[Mapping[str, ast.expr], FrameType | None]:
    """Return the arguments of a helper by its parameters, and the frame of its caller.

    Return nothing if the caller does not call the helper by its name, or if the app is a caller.
    """
    function = function_of(frame.f_code)
    caller = frame.f_back
    if caller is None or function is None:
        return {}, None
    call = _call_at(caller.f_code, caller.f_lasti)
    if call is None or not _calls(call, frame, caller) or not _is_of_test(caller):
        return {}, None
    return _arguments_of(call, function), caller


def _is_of_test(frame: FrameType) -> bool:
    """Return whether a frame is a test's function, or a helper that such a function calls."""
    code = frame.f_code
    if not is_of_tests(code.co_filename):
        return False
    return code.co_name.startswith("test") or passed_to(frame)[1] is not None


@cache
def _call_at(code: CodeType, instruction: int) -> ast.Call | None:
    """Return the call in a function that an instruction executes, or None without a call."""
    function = function_of(code)
    if function is None:
        return None
    positions = list(code.co_positions())[instruction // 2]
    for node in calls_in(function):
        place = (node.lineno, node.end_lineno, node.col_offset, node.end_col_offset)
        call = node.value if isinstance(node, ast.Await) else node
        if place == positions and isinstance(call, ast.Call):
            return call
    return None


def _calls(call: ast.Call, frame: FrameType, caller: FrameType) -> bool:
    """Return whether a call names the function of a frame.

    The caller or its module may have assigned the function to another name.
    """
    match call.func:
        case ast.Attribute(value=ast.Name("self"), attr=name):
            return name == frame.f_code.co_name
        case ast.Name(id=name):
            names = _assigned_to(caller.f_code, name)
            helpers = [caller.f_globals.get(each) for each in names]
            codes = [getattr(helper, "__code__", None) for helper in helpers]
            return name == frame.f_code.co_name or frame.f_code in codes
    return False


@cache
def _assigned_to(code: CodeType, name: str) -> frozenset[str]:
    """Return the names whose values a function assigns to a variable outside of branches.

    Return the name of the variable if the function does not bind it. Return nothing if the function
    binds it in another way.
    """
    function = function_of(code)
    if function is None:
        return _NOTHING
    assigned = []
    for statement in function.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Name(id=value)):
                if target == name:
                    assigned.append(value)
    bindings = bindings_in([*ast.walk(function)])[name]
    if bindings == 0:
        return frozenset({name})
    return frozenset(assigned) if bindings == len(assigned) else _NOTHING


def _arguments_of(call: ast.Call, function: Function) -> Mapping[str, ast.expr]:
    """Return the arguments of a call by the names of parameters. Empty for ``*args``."""
    names = [each.arg for each in [*function.args.posonlyargs, *function.args.args]]
    defaults = function.args.defaults
    arguments = dict(zip(reversed(names), reversed(defaults), strict=False))
    if isinstance(call.func, ast.Attribute):
        names = names[1:]
    if any(isinstance(value, ast.Starred) for value in call.args):
        return {}
    arguments |= dict(zip(names, call.args, strict=False))
    for keyword in call.keywords:
        if keyword.arg is None:
            return {}
        arguments[keyword.arg] = keyword.value
    return arguments


def _is_own_fixture(name: str, fixtures: Fixtures, file: str) -> bool:
    """Return whether a fixture has a constant that no other fixture and no test can change.

    Args:
        name: the name of the fixture.
        fixtures: the fixtures of the test.
        file: the file of the test. A wide fixture is shared by other tests of this file.
    """
    definition = fixtures.get(name)
    if definition is None or not _is_constant_fixture(name, fixtures):
        return False
    value = definition.cached_result[0] if definition.cached_result else None
    if isinstance(value, _IMMUTABLE):
        return True
    for key, other in fixtures.items():
        if _can_get(other, name) and not _is_constant_fixture(key, fixtures):
            return False
    if definition.scope == "function":
        return True
    defining_file = inspect.unwrap(definition.func).__code__.co_filename
    return keeps_own_value(file, name) and keeps_own_value(defining_file, name)


def _can_get(definition: Any, name: str) -> bool:
    """Return whether a fixture can request another one."""
    code = inspect.unwrap(definition.func).__code__
    return name in definition.argnames or "getfixturevalue" in code.co_names


def _is_constant_fixture(name: str, fixtures: Fixtures) -> bool:
    """Return whether the function of a fixture reads only other fixtures that have constants."""
    definition = fixtures.get(name)
    if definition is None:
        return False
    code = inspect.unwrap(definition.func).__code__
    function = function_of(code)
    if function is None:
        return False
    names = parameters_of(function)
    if name in names or is_library(code.co_filename):
        return False
    if not all(_is_constant_fixture(each, fixtures) for each in names):
        return False
    return _is_closed_fixture(code)


@cache
def _is_closed_fixture(code: CodeType) -> bool:
    function = function_of(code)
    file = code.co_filename
    if function is None:
        return False
    return is_self_contained(
        function, file, parameters_of(function), self_contained_helpers(file)
    )
