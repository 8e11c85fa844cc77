"""Finds the variables of a function that have only values of the test, by a taint analysis.

A value is foreign (tainted) if other code returns it, gets it, or may change it. A value that is
computed from a foreign value is foreign, too. A variable is own if all its values come from the
literals and constants of the test file.
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
    BINDING_FIELDS,
    PURE_BUILTINS,
    SERIALIZED_ARGUMENTS,
    Function,
    bindings_in,
    constants_of,
    function_of,
    functions_with_parameter,
    helpers_in,
    names_in_string_literals,
    parameters_of,
    pure_imports,
)

_FOREIGN = ""  # among names of variables: any foreign value
_SCALAR_FUNCTIONS = frozenset(
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
_SCALAR_NODES = (ast.Constant, ast.JoinedStr, ast.Compare, ast.UnaryOp)
_NESTED_SCOPES = (ast.Lambda, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_OPAQUE_NODES = (*_NESTED_SCOPES, ast.Yield, ast.YieldFrom, ast.Import, ast.ImportFrom)
_REQUEST_METHODS = frozenset(
    {"get", "post", "put", "patch", "delete", "request", "stream"}
)
_MOCK_CLASSES = frozenset({"Mock", "MagicMock", "AsyncMock"})
_SUPPRESSING = re.compile(r"suppress|raises", re.IGNORECASE)

_Names = frozenset[str]


_NO_NAMES = _Names()
_CLOCK_METHODS = frozenset({"now", "today", "utcnow"})


@cache
def own_names(code: CodeType, own_inputs: _Names = _NO_NAMES) -> _Names:
    """Return the own variables of a function, and the constants of its module.

    A variable that the function yields is foreign, because the test may change its object. The
    first call for a function takes 1 ms.

    Args:
        code: the code of the function.
        own_inputs: the parameters and attributes that are own. An attribute of the test's class is
            called ``self.NAME``.
    """
    function = function_of(code)
    if function is None:
        return frozenset()
    file = code.co_filename
    own = _own_names_in(function, file, own_inputs, self_contained_helpers(file))
    for node in ast.walk(function):
        if isinstance(node, ast.Yield) and node.value:
            own -= names_read_by(node.value)
    return own


def _own_names_in(
    function: Function,
    file: str,
    own_inputs: _Names,
    self_contained: _Names,
) -> _Names:
    # A trusted function keeps no argument, and computes its result only from its arguments.
    trusted = PURE_BUILTINS | pure_imports(file) | self_contained
    trusted -= bindings_in([*ast.walk(function)]).keys()
    flows = _Flows(function, own_inputs, trusted)
    # Own names that the function reads and does not bind.
    unbound_own = (constants_of(file) | trusted | own_inputs) - flows.bound
    return flows.own(unbound_own) | unbound_own


@cache
def self_contained_helpers(file: str) -> _Names:
    """Return the functions of a module that read and change only their arguments.

    Such a function may call other self-contained functions.
    """
    helpers = helpers_in(file)
    self_contained = frozenset(helpers)
    while True:
        remaining = frozenset(
            name
            for name in self_contained
            if all(
                is_self_contained(helper, file, parameters_of(helper), self_contained)
                for helper in helpers[name]
            )
        )
        if remaining == self_contained:
            return self_contained
        self_contained = remaining


def is_self_contained(
    function: Function,
    file: str,
    own_parameters: _Names,
    self_contained: _Names,
) -> bool:
    """Return whether a function reads only own names, if these parameters are own."""
    own = _own_names_in(function, file, own_parameters, self_contained)
    for statement in function.body:
        match statement:
            case ast.Expr(value=ast.Yield(value=value)):
                read = names_read_by(value) if value else _NO_NAMES
            case _:
                read = names_read_by(statement)
        if not read <= own:
            return False
    return True


@cache
def keeps_own_value(file: str, name: str) -> bool:
    """Return whether the value of a shared fixture stays own in all functions of a file.

    No function puts a foreign value into it, or passes it to a function that is not trusted.

    Args:
        file: the file whose tests share the fixture.
        name: the name of the fixture, and of the parameters that receive it.
    """
    # `getfixturevalue("name")` gets the fixture without a parameter.
    if name in names_in_string_literals(file):
        return False
    self_contained = self_contained_helpers(file)
    return all(
        name in _own_names_in(function, file, frozenset({name}), self_contained)
        for function in functions_with_parameter(file, name)
    )


def names_read_by(node: ast.AST, without: Iterable[ast.AST] = ()) -> _Names:
    """Return the variables that an expression reads, and "" if it has another foreign value.

    An attribute of the test's class is a variable called ``self.NAME``.
    """
    names = set()
    skipped = set(without)
    for part in ast.walk(node):
        if part in skipped:
            continue
        if isinstance(part, ast.Call) and _makes_mock(part.func):
            skipped.update(ast.walk(part.func))
        if isinstance(part, _OPAQUE_NODES):
            names.add(_FOREIGN)
        match part:
            case ast.Attribute(value=ast.Name(id=owner) as name, attr=attribute):
                if owner == "self" or owner.startswith("Test"):
                    skipped.add(name)
                    names.add(f"{owner}.{attribute}")
            case ast.Name(id=name):
                names.add(name)
        if isinstance(part, ast.Attribute) and part.attr in _CLOCK_METHODS:
            names.add(_FOREIGN)
    return frozenset(names)


class _Flow(NamedTuple):
    """The flow of a value into a variable, or into the object that the variable refers to."""

    target: str
    sources: _Names
    """The variables that the value is computed from."""
    conditions: _Names
    """The variables of the conditions under which the statement runs."""
    contained: _Names
    """The variables whose objects the value contains. Other code may change them through it."""
    is_scalar: bool
    """Whether the value is immutable."""
    # Whether the value is assigned to the variable, not put into its object.
    is_binding: bool


class _Flows(ast.NodeVisitor):
    """The flows of values in a function."""

    def __init__(
        self,
        function: Function,
        own_parameters: _Names,
        trusted: _Names,
    ) -> None:
        self._trusted = trusted
        self._flows: list[_Flow] = []
        self._conditions: _Names = frozenset()
        self._serialized = frozenset(_serialized_in(function))
        parametrized = dict(_parametrized(function))
        for name, values in parametrized.items():
            self._bind(ast.Name(name), values)
        for statement in function.body:
            self.visit(statement)
        for name, times in Counter(_names_bound_without_assignment(function)).items():
            if name in own_parameters and times == 1:
                self._bind(ast.Name(name), ast.List([]))
            elif name not in parametrized:
                self._add(name, None, is_binding=True)
        self.bound = frozenset(flow.target for flow in self._flows if flow.is_binding)

    def own(self, unbound_own: _Names) -> _Names:
        """Return the variables that the function binds and into which no foreign value flows."""
        mutable = {
            flow.target
            for flow in self._flows
            if flow.is_binding and not flow.is_scalar
        }
        read = {name for flow in self._flows for name in flow.sources | flow.conditions}
        targets = {flow.target for flow in self._flows}
        foreign = (read | targets) - self.bound - unbound_own
        size = -1
        # Repeat until no flow makes another variable foreign.
        while size != len(foreign):
            size = len(foreign)
            for flow in self._flows:
                if (flow.sources | flow.conditions) & foreign:
                    foreign.add(flow.target)
                if flow.target in foreign:
                    foreign |= flow.contained & mutable
        return self.bound - foreign

    def _add(
        self,
        target: str,
        value: ast.AST | None,
        *,
        is_binding: bool = False,
    ) -> None:
        """Add the flow of a value into a variable. A value of None is foreign."""
        names = frozenset({_FOREIGN})
        contained = frozenset[str]()
        is_scalar = False
        if value is not None:
            names = names_read_by(value)
            is_scalar = _is_scalar(value)
            if not is_scalar:
                contained = names_read_by(value, self._serialized)
        flow = _Flow(
            target,
            names,
            self._conditions,
            contained,
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
                self._add_mutation(target, [value])

    def _add_mutation(self, owner: ast.expr, values: Iterable[ast.AST]) -> None:
        """Add the flows of values into the objects of all variables that an expression reads."""
        for name in names_read_by(owner) - self._trusted:
            for value in values:
                self._add(name, value)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Note an assignment. The targets of ``a = b = []`` share one object."""
        for target in node.targets:
            self._bind(target, node.value)
            for other in node.targets:
                if other is not target and not _is_scalar(node.value):
                    self._add_mutation(target, [other])
        self.generic_visit(node)

    def _visit_binding(
        self, node: ast.AugAssign | ast.AnnAssign | ast.NamedExpr
    ) -> None:
        """Note an assignment to one target."""
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
        self._conditions = outer | _loop_conditions(node)
        self._bind_items(node.target, node.iter)
        self.generic_visit(node)
        self._conditions = outer

    visit_AsyncFor = visit_For  # noqa: N815 - as ast names it

    def _visit_branches(self, node: ast.AST) -> None:
        """Note that the parts of a branch depend on all variables that the branch reads."""
        self._visit_conditionally(names_read_by(node), node)

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
        """Note the variables that a ``with`` binds.

        If the ``with`` suppresses errors, an error may skip the rest of its block.
        """
        for item in node.items:
            if item.optional_vars is not None:
                self._bind(item.optional_vars, item.context_expr)
        conditions = frozenset({_FOREIGN}) if suppresses_errors(node) else _NO_NAMES
        self._visit_conditionally(conditions, node)

    visit_AsyncWith = visit_With  # noqa: N815 - as ast names it

    def _visit_conditionally(self, conditions: _Names, node: ast.AST) -> None:
        outer = self._conditions
        self._conditions = outer | conditions
        self.generic_visit(node)
        self._conditions = outer

    def visit_Call(self, node: ast.Call) -> None:
        """Note that a call may put its arguments into other objects.

        These are the objects that the expression of the called function reads.
        """
        values = [*node.args, *node.keywords]
        if not _makes_mock(node.func) and not _is_assertion_method(node.func):
            # A call without arguments, such as `names.pop()`, may change its object too.
            self._add_mutation(node.func, values or [ast.Constant(None)])
        match node.func:
            case ast.Name(id=name) if name in self._trusted - PURE_BUILTINS:
                # A helper of the module may put one argument into another.
                for value in values:
                    others = [other for other in values if other is not value]
                    self._add_mutation_of_argument(value, others)
        self.generic_visit(node)

    def _add_mutation_of_argument(
        self, argument: ast.AST, values: Iterable[ast.AST]
    ) -> None:
        if isinstance(argument, ast.keyword | ast.Starred):
            argument = argument.value
        if isinstance(argument, ast.expr):
            self._add_mutation(argument, values)

    def _visit_scope(self, node: ast.AST) -> None:
        """Note that a nested function may change the objects of the variables that it reads."""
        self._add(_FOREIGN, node)
        for part in ast.walk(node):
            if isinstance(part, ast.Nonlocal):
                for name in part.names:
                    self._add(name, None)

    visit_Lambda = _visit_scope  # noqa: N815 - as ast names it
    visit_FunctionDef = _visit_scope  # noqa: N815 - as ast names it
    visit_AsyncFunctionDef = _visit_scope  # noqa: N815 - as ast names it
    visit_ClassDef = _visit_scope  # noqa: N815 - as ast names it


def suppresses_errors(node: ast.With | ast.AsyncWith) -> bool:
    """Return whether a ``with`` may suppress an error of its block."""
    return any(
        _SUPPRESSING.search(ast.unparse(item.context_expr)) for item in node.items
    )


def _makes_mock(function: ast.expr) -> bool:
    """Return whether a call of this function makes a mock."""
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in _MOCK_CLASSES
    return False


def _is_assertion_method(function: ast.expr) -> bool:
    """Return whether a function is an assertion method, which keeps none of its arguments."""
    match function:
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            return name.startswith("assert")
        case ast.Attribute(value=ast.Name(id="check" | "pytest_check")):
            return True
    return False


def _is_scalar(value: ast.AST) -> bool:
    """Return whether a value is immutable."""
    match value:
        case ast.Call(func=ast.Name(id=name)):
            return name in _SCALAR_FUNCTIONS
        case ast.List(elts=values) | ast.Tuple(elts=values):
            return isinstance(value, ast.Tuple) and all(map(_is_scalar, values))
    return isinstance(value, _SCALAR_NODES)


def _loop_conditions(loop: ast.For | ast.AsyncFor) -> _Names:
    """Return the variables that decide how often a loop runs."""
    for node in ast.walk(loop):
        if isinstance(node, ast.Break | ast.Continue):
            return names_read_by(loop)
    return names_read_by(loop.iter)


def _serialized_in(function: Function) -> Iterator[ast.AST]:
    """Yield the nodes of request arguments that a client serializes, and so does not change."""
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Attribute(attr=method)) if (
                method in _REQUEST_METHODS
            ):
                serialized = [
                    each for each in node.keywords if each.arg in SERIALIZED_ARGUMENTS
                ]
                yield from chain.from_iterable(map(ast.walk, serialized))


def _names_bound_without_assignment(function: Function) -> Iterator[str]:
    """Yield the names that a function binds without an assignment."""
    for node in ast.walk(function):
        if isinstance(node, ast.Global):
            yield from node.names
        if isinstance(node, ast.keyword):
            continue
        for attribute in BINDING_FIELDS:
            name = getattr(node, attribute, None)
            if isinstance(name, str):
                yield name


def _parametrized(function: Function) -> Iterator[tuple[str, ast.expr]]:
    """Yield the parameters of ``@pytest.mark.parametrize``, each with its list of values."""
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
