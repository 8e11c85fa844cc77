"""Finds the variables whose values a function made itself, out of literals alone.

A value that other code gets or returns is foreign, and so is all that is computed from it. A list
that other code may change is foreign too.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from types import CodeType
from typing import NamedTuple

Function = ast.FunctionDef | ast.AsyncFunctionDef

PURE = frozenset(
    {"abs", "all", "any", "bool", "dict", "enumerate", "float", "frozenset", "hasattr"}
    | {"int", "isinstance", "len", "list", "max", "min", "range", "repr", "reversed"}
    | {"round", "set", "sorted", "str", "sum", "tuple", "type", "zip"}
)
"""The functions of Python that change nothing and read nothing but their arguments."""

_FOREIGN = ""  # the source of what is no variable
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
# The attributes of nodes that bind a name: arguments, functions, modules, exceptions.
_BINDING = ("arg", "name", "asname", "rest")
_METHODS = frozenset({"get", "post", "put", "patch", "delete", "request", "stream"})
_SENT = frozenset({"json", "data", "params", "headers", "content"})
_MOCKS = frozenset({"Mock", "MagicMock", "AsyncMock"})
_SWALLOWING = re.compile(r"suppress|raises", re.IGNORECASE)

_Names = frozenset[str]


@cache
def own_names(code: CodeType) -> _Names:
    """Return the variables that a function made itself, and constants of its module.

    Costs 1 ms, once for each function.
    """
    function = function_of(code)
    if function is None:
        return frozenset()
    flows = _Flows(function)
    constants = _constants(code.co_filename) - flows.bound
    return flows.own(constants) | constants | (PURE - flows.bound)


def sources(node: ast.AST, without: Iterable[ast.AST] = ()) -> _Names:
    """Return the variables that an expression reads; "" among them for other sources."""
    names = set()
    skipped = set(without)
    for part in ast.walk(node):
        if isinstance(part, ast.Call) and _is_mock(part.func):
            skipped.update(ast.walk(part.func))
        if isinstance(part, _UNKNOWN):
            names.add(_FOREIGN)
        if isinstance(part, ast.Name) and part not in skipped:
            names.add(part.id)
    return frozenset(names)


class _Flow(NamedTuple):
    """A value gets into a variable, or into an object that the variable has."""

    target: str
    sources: _Names
    """The variables that the value is computed from."""
    conditions: _Names
    """The variables that decide whether it gets there."""
    kept: _Names
    """The variables whose objects are part of the value."""
    is_scalar: bool
    """Whether nobody can change the value."""
    is_binding: bool


class _Flows(ast.NodeVisitor):
    """The flows of values in a function."""

    def __init__(self, function: Function) -> None:
        self._flows: list[_Flow] = []
        self._conditions: _Names = frozenset()
        self._sent = frozenset(_sent_in(function))
        parametrized = dict(_parametrized(function))
        for name, values in parametrized.items():
            self._bind(ast.Name(name), values)
        for statement in function.body:
            self.visit(statement)
        for name in _bound_otherwise(function):
            if name not in parametrized:
                self._add(name, None, is_binding=True)
        self.bound = frozenset(flow.target for flow in self._flows if flow.is_binding)

    def own(self, constants: _Names) -> _Names:
        """Return the variables that nothing foreign gets into."""
        unscalar = {
            flow.target
            for flow in self._flows
            if flow.is_binding and not flow.is_scalar
        }
        read = {name for flow in self._flows for name in flow.sources | flow.conditions}
        targets = {flow.target for flow in self._flows}
        foreign = (read | targets) - self.bound - PURE - constants
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
        """Add the flow of a value, None for a foreign one."""
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
        for name in sources(owner) - PURE:
            for value in values:
                self._add(name, value)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Note a value, and that several variables may share it."""
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
        """Note the items of a loop, and what decides how often it runs."""
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
    visit_While = _visit_branches  # noqa: N815 - as ast names it
    visit_Match = _visit_branches  # noqa: N815 - as ast names it
    visit_Try = _visit_branches  # noqa: N815 - as ast names it
    visit_TryStar = _visit_branches  # noqa: N815 - as ast names it

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        """Note the variables of a ``with``. One that swallows errors decides what runs."""
        conditions = frozenset[str]()
        for item in node.items:
            if item.optional_vars is not None:
                self._bind(item.optional_vars, item.context_expr)
            if _SWALLOWING.search(ast.unparse(item.context_expr)):
                conditions = frozenset({_FOREIGN})
        self._visit_under(conditions, node)

    visit_AsyncWith = visit_With  # noqa: N815 - as ast names it

    def _visit_under(self, conditions: _Names, node: ast.AST) -> None:
        outer = self._conditions
        self._conditions = outer | conditions
        self.generic_visit(node)
        self._conditions = outer

    def visit_Call(self, node: ast.Call) -> None:
        """Note that a call may pass its arguments to all objects that its function names."""
        if not _is_mock(node.func) and not _is_check(node.func):
            self._change(node.func, [*node.args, *node.keywords])
        self.generic_visit(node)

    def _visit_scope(self, node: ast.AST) -> None:
        """Note that another function may change what it names."""
        self._add(_FOREIGN, node)
        for part in ast.walk(node):
            if isinstance(part, ast.Nonlocal):
                for name in part.names:
                    self._add(name, None)

    visit_Lambda = _visit_scope  # noqa: N815 - as ast names it
    visit_FunctionDef = _visit_scope  # noqa: N815 - as ast names it
    visit_AsyncFunctionDef = _visit_scope  # noqa: N815 - as ast names it
    visit_ClassDef = _visit_scope  # noqa: N815 - as ast names it


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
    """Yield what a function sends in requests. A client serializes it, and keeps nothing."""
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Attribute(attr=method)) if method in _METHODS:
                sent = [each for each in node.keywords if each.arg in _SENT]
                yield from chain.from_iterable(map(ast.walk, sent))


def _bound_otherwise(function: Function) -> Iterator[str]:
    """Yield the names that a function binds without an assignment."""
    for node in ast.walk(function):
        if isinstance(node, ast.Global):
            yield from node.names
        if isinstance(node, ast.keyword):
            continue
        for attribute in _BINDING:
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


# Functions of a file.


def function_of(code: CodeType) -> Function | None:
    """Return the syntax tree of a function, or None if its source is not known."""
    return _functions(code.co_filename).get(code.co_firstlineno)


@cache
def _functions(file: str) -> dict[int, Function]:
    """Return the functions in a file by their first lines, decorators included."""
    functions = {}
    for node in ast.walk(_tree(file)):
        if isinstance(node, Function):
            decorators = [decorator.lineno for decorator in node.decorator_list]
            functions[min([node.lineno, *decorators])] = node
    return functions


@cache
def _tree(file: str) -> ast.Module:
    """Return the syntax tree of a file, an empty one if it has none."""
    try:
        return ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])


@cache
def _constants(file: str) -> _Names:
    """Return the variables of a module that have a constant, and are bound nowhere else."""
    tree = _tree(file)
    bindings = bindings_in([*ast.walk(tree)])
    names = set()
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant()):
                if bindings[name] == 1:
                    names.add(name)
    return frozenset(names)


def bindings_in(nodes: Sequence[ast.AST]) -> Counter[str]:
    """Count how often each name is bound."""
    bindings = Counter[str]()
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bindings[node.id] += 1
        elif isinstance(node, ast.Global):
            bindings.update(node.names)
        for attribute in _BINDING:
            name = getattr(node, attribute, None)
            if isinstance(name, str):
                bindings[name] += 1
    return bindings
