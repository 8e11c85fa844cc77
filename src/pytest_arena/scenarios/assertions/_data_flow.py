"""Finds the variables whose values a function made itself, only from literals.

A value that other code gets or returns is foreign. All values that are computed from it, and lists
that other code may change, are foreign too.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from types import CodeType
from typing import NamedTuple

from pytest_arena.scenarios.assertions._test_files import (
    BINDING,
    PURE,
    SENT,
    Function,
    bindings_in,
    constants_of,
    function_of,
    functions_with_parameter,
    helpers_in,
    names_in_texts,
    parameters_of,
    pure_imports,
)

_FOREIGN = ""  # the source of a value without a variable
_TO_SCALARS = frozenset(
    {
        "all",
        "any",
        "bool",
        "float",
        "hasattr",
        "int",
        "isinstance",
        "len",
        "repr",
        "str",
    }
)
_SCALARS = (ast.Constant, ast.JoinedStr, ast.Compare, ast.UnaryOp)
_SCOPES = (ast.Lambda, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_UNKNOWN = (*_SCOPES, ast.Yield, ast.YieldFrom, ast.Import, ast.ImportFrom)
_METHODS = frozenset({"get", "post", "put", "patch", "delete", "request", "stream"})
_MOCKS = frozenset({"Mock", "MagicMock", "AsyncMock"})
_SWALLOWING = re.compile(r"suppress|raises", re.IGNORECASE)

_Names = frozenset[str]


_NO_NAMES = _Names()
_CLOCK = frozenset({"now", "today", "utcnow"})


@cache
def own_names(code: CodeType, own_inputs: _Names = _NO_NAMES) -> _Names:
    """Return the variables that a function made itself, and the constants of its module.

    The first call for a function takes 1 ms.

    Args:
        code: the code of the function.
        own_inputs: the parameters and attributes that have only values of the test. An attribute
            of the test's class is called ``self.NAME``.
    """
    function = function_of(code)
    if function is None:
        return frozenset()
    file = code.co_filename
    return _own_in(function, file, own_inputs, closed_helpers(file))


def _own_in(
    function: Function,
    file: str,
    own_inputs: _Names,
    closed: _Names,
) -> _Names:
    harmless = PURE | pure_imports(file) | closed
    harmless -= bindings_in([*ast.walk(function)]).keys()
    flows = _Flows(function, own_inputs, harmless)
    known = (constants_of(file) | harmless | own_inputs) - flows.bound
    return flows.own(known) | known


@cache
def closed_helpers(file: str) -> _Names:
    """Return the functions of a module that read and change only their arguments.

    Such a function may call other such functions.
    """
    helpers = helpers_in(file)
    closed = frozenset(helpers)
    while True:
        remaining = frozenset(
            name
            for name in closed
            if all(
                is_closed(helper, file, parameters_of(helper), closed)
                for helper in helpers[name]
            )
        )
        if remaining == closed:
            return closed
        closed = remaining


def is_closed(
    function: Function,
    file: str,
    own_parameters: _Names,
    closed: _Names,
) -> bool:
    """Return whether a function reads only these parameters and the values that it makes."""
    own = _own_in(function, file, own_parameters, closed)
    for statement in function.body:
        match statement:
            case ast.Expr(value=ast.Yield(value=value)):
                read = sources(value) if value else _NO_NAMES
            case _:
                read = sources(statement)
        if not read <= own:
            return False
    return True


@cache
def is_kept_own(file: str, name: str) -> bool:
    """Return whether a shared fixture keeps its own value in all functions of a file.

    A function may not put foreign values into the fixture, or pass the fixture to other functions.

    Args:
        file: the file whose tests share the fixture.
        name: the name of the fixture, and of the parameters that have its value.
    """
    # `getfixturevalue("name")` gets the fixture without a parameter.
    if name in names_in_texts(file):
        return False
    closed = closed_helpers(file)
    return all(
        name in _own_in(function, file, frozenset({name}), closed)
        for function in functions_with_parameter(file, name)
    )


def sources(node: ast.AST, without: Iterable[ast.AST] = ()) -> _Names:
    """Return the variables that an expression reads. The variable "" means other sources.

    An attribute of the test's class is a variable: ``self.NAME``.
    """
    names = set()
    skipped = set(without)
    for part in ast.walk(node):
        if part in skipped:
            continue
        if isinstance(part, ast.Call) and _is_mock(part.func):
            skipped.update(ast.walk(part.func))
        if isinstance(part, _UNKNOWN):
            names.add(_FOREIGN)
        match part:
            case ast.Attribute(value=ast.Name(id=owner) as name, attr=attribute):
                if owner == "self" or owner.startswith("Test"):
                    skipped.add(name)
                    names.add(f"{owner}.{attribute}")
            case ast.Name(id=name):
                names.add(name)
        if isinstance(part, ast.Attribute) and part.attr in _CLOCK:
            names.add(_FOREIGN)
    return frozenset(names)


class _Flow(NamedTuple):
    """The flow of a value into a variable, or into an object that the variable has."""

    target: str
    sources: _Names
    """The variables that the value is computed from."""
    conditions: _Names
    """The variables that decide whether the value flows."""
    kept: _Names
    """The variables whose objects are parts of the value."""
    is_scalar: bool
    """Whether the value is immutable."""
    is_binding: bool


class _Flows(ast.NodeVisitor):
    """The flows of values in a function."""

    def __init__(
        self,
        function: Function,
        own_parameters: _Names,
        harmless: _Names,
    ) -> None:
        self._harmless = harmless
        self._flows: list[_Flow] = []
        self._conditions: _Names = frozenset()
        self._sent = frozenset(_sent_in(function))
        parametrized = dict(_parametrized(function))
        for name, values in parametrized.items():
            self._bind(ast.Name(name), values)
        for statement in function.body:
            self.visit(statement)
        for name, times in Counter(_bound_otherwise(function)).items():
            if name in own_parameters and times == 1:
                self._bind(ast.Name(name), ast.List([]))
            elif name not in parametrized:
                self._add(name, None, is_binding=True)
        self.bound = frozenset(flow.target for flow in self._flows if flow.is_binding)

    def own(self, constants: _Names) -> _Names:
        """Return the variables without foreign values."""
        unscalar = {
            flow.target
            for flow in self._flows
            if flow.is_binding and not flow.is_scalar
        }
        read = {name for flow in self._flows for name in flow.sources | flow.conditions}
        targets = {flow.target for flow in self._flows}
        foreign = (read | targets) - self.bound - constants
        size = -1
        while size != len(foreign):
            size = len(foreign)
            for flow in self._flows:
                if (flow.sources | flow.conditions) & foreign:
                    foreign.add(flow.target)
                if flow.target in foreign:
                    foreign |= flow.kept & unscalar
        return self.bound - foreign

    def _add(
        self,
        target: str,
        value: ast.AST | None,
        *,
        is_binding: bool = False,
    ) -> None:
        """Add the flow of a value. None is a foreign value."""
        names = frozenset({_FOREIGN})
        kept = frozenset[str]()
        is_scalar = False
        if value is not None:
            names = sources(value)
            is_scalar = _is_scalar(value)
            if not is_scalar:
                kept = sources(value, self._sent)
        flow = _Flow(
            target,
            names,
            self._conditions,
            kept,
            is_scalar,
            is_binding,
        )
        self._flows.append(flow)

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        """Add the flows of an assignment."""
        match target, value:
            case ast.Name(id=name), _:
                self._add(name, value, is_binding=True)
            case ast.Tuple(elts=targets), ast.Tuple(elts=values) if len(targets) == len(
                values
            ):
                for each, part in zip(targets, values, strict=True):
                    self._bind(each, part)
            case ast.Tuple(elts=targets) | ast.List(elts=targets), _:
                for each in targets:
                    self._bind(each, value)
            case ast.Starred(value=inner), _:
                self._bind(inner, value)
            case _:
                self._change(target, [value])

    def _change(self, owner: ast.expr, values: Iterable[ast.AST]) -> None:
        """Add the flows of values into the objects that an expression names."""
        for name in sources(owner) - self._harmless:
            for value in values:
                self._add(name, value)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Note the value of an assignment. Several variables may share it."""
        for target in node.targets:
            self._bind(target, node.value)
            for other in node.targets:
                if other is not target and not _is_scalar(node.value):
                    self._change(target, [other])
        self.generic_visit(node)

    def _visit_binding(
        self, node: ast.AugAssign | ast.AnnAssign | ast.NamedExpr
    ) -> None:
        """Note the value of one variable."""
        if node.value is not None:
            self._bind(node.target, node.value)
        self.generic_visit(node)

    visit_AugAssign = _visit_binding  # noqa: N815 - as ast names it
    visit_AnnAssign = _visit_binding  # noqa: N815 - as ast names it
    visit_NamedExpr = _visit_binding  # noqa: N815 - as ast names it

    def visit_comprehension(self, node: ast.comprehension) -> None:
        """Note the items of a comprehension."""
        self._bind_items(node.target, node.iter)
        self.generic_visit(node)

    def _bind_items(self, target: ast.expr, items: ast.expr) -> None:
        match items:
            case ast.List(elts=elements) | ast.Tuple(elts=elements) if elements:
                for element in elements:
                    self._bind(target, element)
            case _:
                self._bind(target, items)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        """Note the items of a loop, and the variables that decide how often it runs."""
        outer = self._conditions
        self._conditions = outer | _deciders(node)
        self._bind_items(node.target, node.iter)
        self.generic_visit(node)
        self._conditions = outer

    visit_AsyncFor = visit_For  # noqa: N815 - as ast names it

    def _visit_branches(self, node: ast.AST) -> None:
        """Note that a statement decides which of its parts run."""
        self._visit_under(sources(node), node)

    visit_If = _visit_branches  # noqa: N815 - as ast names it
    visit_IfExp = _visit_branches  # noqa: N815 - as ast names it
    visit_BoolOp = _visit_branches  # noqa: N815 - as ast names it
    visit_ListComp = _visit_branches  # noqa: N815 - as ast names it
    visit_SetComp = _visit_branches  # noqa: N815 - as ast names it
    visit_DictComp = _visit_branches  # noqa: N815 - as ast names it
    visit_GeneratorExp = _visit_branches  # noqa: N815 - as ast names it
    visit_While = _visit_branches  # noqa: N815 - as ast names it
    visit_Match = _visit_branches  # noqa: N815 - as ast names it
    visit_Try = _visit_branches  # noqa: N815 - as ast names it
    visit_TryStar = _visit_branches  # noqa: N815 - as ast names it

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        """Note the variables of a ``with``.

        If it suppresses errors, the rest of its block may not run.
        """
        for item in node.items:
            if item.optional_vars is not None:
                self._bind(item.optional_vars, item.context_expr)
        conditions = frozenset({_FOREIGN}) if is_swallowing(node) else _NO_NAMES
        self._visit_under(conditions, node)

    visit_AsyncWith = visit_With  # noqa: N815 - as ast names it

    def _visit_under(self, conditions: _Names, node: ast.AST) -> None:
        outer = self._conditions
        self._conditions = outer | conditions
        self.generic_visit(node)
        self._conditions = outer

    def visit_Call(self, node: ast.Call) -> None:
        """Note that a call may pass its arguments to all objects that its function names."""
        values = [*node.args, *node.keywords]
        if not _is_mock(node.func) and not _is_check(node.func):
            # A call without arguments, such as `names.pop()`, may change its object too.
            self._change(node.func, values or [ast.Constant(None)])
        match node.func:
            case ast.Name(id=name) if name in self._harmless - PURE:
                # A helper may fill an argument with the values of the others.
                for value in values:
                    others = [other for other in values if other is not value]
                    self._change_argument(value, others)
        self.generic_visit(node)

    def _change_argument(self, argument: ast.AST, values: Iterable[ast.AST]) -> None:
        if isinstance(argument, ast.keyword | ast.Starred):
            argument = argument.value
        if isinstance(argument, ast.expr):
            self._change(argument, values)

    def _visit_scope(self, node: ast.AST) -> None:
        """Note that another function may change the objects that it names."""
        self._add(_FOREIGN, node)
        for part in ast.walk(node):
            if isinstance(part, ast.Nonlocal):
                for name in part.names:
                    self._add(name, None)

    visit_Lambda = _visit_scope  # noqa: N815 - as ast names it
    visit_FunctionDef = _visit_scope  # noqa: N815 - as ast names it
    visit_AsyncFunctionDef = _visit_scope  # noqa: N815 - as ast names it
    visit_ClassDef = _visit_scope  # noqa: N815 - as ast names it


def is_swallowing(node: ast.With | ast.AsyncWith) -> bool:
    """Return whether a ``with`` may swallow an error of its block."""
    return any(
        _SWALLOWING.search(ast.unparse(item.context_expr)) for item in node.items
    )


def _is_mock(function: ast.expr) -> bool:
    """Return whether a call of this function makes a mock."""
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in _MOCKS
    return False


def _is_check(function: ast.expr) -> bool:
    """Return whether a function compares its arguments and keeps none of them."""
    match function:
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            return name.startswith("assert")
        case ast.Attribute(value=ast.Name(id="check" | "pytest_check")):
            return True
    return False


def _is_scalar(value: ast.AST) -> bool:
    """Return whether a value has no parts that other code could change."""
    match value:
        case ast.Call(func=ast.Name(id=name)):
            return name in _TO_SCALARS
        case ast.List(elts=values) | ast.Tuple(elts=values):
            return isinstance(value, ast.Tuple) and all(map(_is_scalar, values))
    return isinstance(value, _SCALARS)


def _deciders(loop: ast.For | ast.AsyncFor) -> _Names:
    """Return the variables that decide how often a loop runs."""
    for node in ast.walk(loop):
        if isinstance(node, ast.Break | ast.Continue):
            return sources(loop)
    return sources(loop.iter)


def _sent_in(function: Function) -> Iterator[ast.AST]:
    """Yield the values that a function sends in requests. A client only serializes them."""
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Attribute(attr=method)) if method in _METHODS:
                sent = [each for each in node.keywords if each.arg in SENT]
                yield from chain.from_iterable(map(ast.walk, sent))


def _bound_otherwise(function: Function) -> Iterator[str]:
    """Yield the names that a function binds without an assignment."""
    for node in ast.walk(function):
        if isinstance(node, ast.Global):
            yield from node.names
        if isinstance(node, ast.keyword):
            continue
        for attribute in BINDING:
            name = getattr(node, attribute, None)
            if isinstance(name, str):
                yield name


def _parametrized(function: Function) -> Iterator[tuple[str, ast.expr]]:
    """Yield the arguments that ``@pytest.mark.parametrize`` gives literals."""
    for decorator in function.decorator_list:
        match decorator:
            case ast.Call(
                func=ast.Attribute(attr="parametrize"),
                args=[ast.Constant(value=str() as names), ast.List(elts=rows)],
                keywords=keywords,
            ) if not any(keyword.arg == "indirect" for keyword in keywords):
                values = ast.Tuple(rows, ast.Load())
                for name in names.split(","):
                    yield name.strip(), values
