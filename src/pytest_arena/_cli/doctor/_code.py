"""A parsed test file: its calls, tests, fixtures and imports."""

from __future__ import annotations

import ast
from collections import defaultdict
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, TypeVar

from pytest_arena._cli._imports import imported_names
from pytest_arena._cli.doctor._surroundings import surroundings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

AnyFunction = ast.FunctionDef | ast.AsyncFunctionDef
AnyWith = ast.With | ast.AsyncWith
_DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
Node = TypeVar("Node", bound=ast.AST)


@dataclass(frozen=True, eq=False)
class SuiteFunction:
    """A test or a fixture."""

    node: AnyFunction
    fixture: ast.expr | None
    """the decorator that makes it a fixture"""

    @property
    def scope(self) -> str:
        """The scope in the decorator of a fixture, if it is a literal."""
        return text_of(keyword(self.fixture, "scope")) or "function"

    @property
    def parameters(self) -> set[str]:
        """The names of the parameters."""
        nodes = all_below(self.node.args)
        return {argument.arg for argument in of_kind(ast.arg, nodes)}

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the body."""
        return all_below(*self.node.body)

    @cached_property
    def own_nodes(self) -> list[ast.AST]:
        """All nodes of the body, without functions and classes inside it."""
        pending: list[ast.AST] = list(self.node.body)
        nodes = []
        for node in pending:  # the loop also visits the nodes that it appends
            if not isinstance(node, _DEFINITIONS):
                nodes.append(node)
                pending.extend(children(node))
        return nodes


class Code:
    """A file of the suite.

    Attributes:
        project: the configuration and the app around the file.
        calls: all calls by the last part of the function's name.
        parents: the parent of each node.
        by_name: the outermost function of each name.
        tests: the tests.
        fixtures: the fixtures.
        suite_functions: the tests and the fixtures by their nodes.
        imports: the origin of each imported name, as ``imported_names`` yields it.
        import_lines: the statement that imports each name.
    """

    def __init__(self, path: Path, text: str, tree: ast.Module) -> None:
        self.path = path
        self.text = text
        self.tree = tree
        self.project = surroundings(path.absolute().parent)
        self._is_collected = path.match("test_*.py") or path.match("*_test.py")
        self.calls: dict[str, list[ast.Call]] = defaultdict(list)
        self.parents: dict[ast.AST, ast.AST] = {}
        self.suite_functions: dict[ast.AST, SuiteFunction] = {}
        self.tests: list[SuiteFunction] = []
        self.fixtures: list[SuiteFunction] = []
        self.by_name: dict[str, AnyFunction] = {}
        self.imports: dict[str, str] = {}
        self.import_lines: dict[str, ast.stmt] = {}
        self._read()

    def _read(self) -> None:
        pending: list[ast.AST] = [self.tree]
        for node in pending:  # the loop also visits the nodes that it appends
            for child in children(node):
                self.parents[child] = node
                pending.append(child)
            if isinstance(node, ast.Call):
                self.calls[last_name(node)].append(node)
            elif isinstance(node, AnyFunction):
                self._read_function(node)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                for name, origin in imported_names([node]):
                    self.imports[name] = origin
                    self.import_lines[name] = node

    def _read_function(self, node: AnyFunction) -> None:
        self.by_name.setdefault(node.name, node)
        for decorator in node.decorator_list:
            if last_name(decorator) == "fixture":
                fixture = SuiteFunction(node, decorator)
                self.suite_functions[node] = fixture
                self.fixtures.append(fixture)
                return
        owner = self.parents[node]
        if isinstance(owner, ast.ClassDef):
            owner = self.parents[owner]
        is_outer = owner is self.tree
        if self._is_collected and is_outer and node.name.startswith("test"):
            test = SuiteFunction(node, None)
            self.suite_functions[node] = test
            self.tests.append(test)

    def called(self, *names: str) -> Iterator[ast.Call]:
        """Yield the calls of functions with these last names."""
        for name in names:
            yield from self.calls.get(name, ())

    def nodes_of(self, kind: type[Node]) -> Iterator[Node]:
        """Yield all nodes of a kind."""
        return of_kind(kind, self.parents)

    def in_tests(self, kind: type[Node]) -> Iterator[Node]:
        """Yield the nodes of a kind in the tests, without functions inside them."""
        for test in self.tests:
            yield from of_kind(kind, test.own_nodes)

    def origin(self, expression: ast.AST | None) -> str:
        """Return the full name of an expression, such as ``httpx.AsyncClient``.

        If a parameter or a local variable hides the import, the name stays unchanged.
        """
        name = dotted(expression)
        first, dot, rest = name.partition(".")
        if first not in self.imports:
            return name
        for function in self.functions_around(expression):
            if first in local_names(function):
                return name
        return self.imports[first] + dot + rest

    def ancestors_of(self, node: ast.AST | None) -> Iterator[ast.AST]:
        """Yield the nodes around a node, the innermost first."""
        while node in self.parents:
            node = self.parents[node]
            yield node

    def functions_around(self, node: ast.AST | None) -> Iterator[AnyFunction]:
        """Yield the functions around a node, the innermost first."""
        for around in self.ancestors_of(node):
            if isinstance(around, AnyFunction):
                yield around

    def function_of(self, node: ast.AST) -> AnyFunction | None:
        """Return the innermost function around a node."""
        return next(self.functions_around(node), None)

    def test_of(self, node: ast.AST) -> SuiteFunction | None:
        """Return the outermost test or fixture around a node."""
        test = None
        for function in self.functions_around(node):
            test = self.suite_functions.get(function) or test
        return test

    def own_test_of(self, node: ast.AST) -> SuiteFunction | None:
        """Return the test or fixture whose body has a node. None inside of an inner function."""
        function = self.function_of(node)
        return self.suite_functions.get(function) if function else None

    def is_at_import(self, node: ast.AST) -> bool:
        """Return whether a node runs when the file is imported."""
        ancestors = self.ancestors_of(node)
        return not any(isinstance(ancestor, _DEFINITIONS) for ancestor in ancestors)

    def statement_of(self, node: ast.AST) -> ast.stmt:
        """Return the statement that contains a node."""
        nodes = (node, *self.ancestors_of(node))
        return next(of_kind(ast.stmt, nodes))

    def url_of(self, call: ast.Call) -> ast.expr | None:
        """Return the URL of an engine: the argument, or the value of a module's variable."""
        url = argument(call, "url")
        if not isinstance(url, ast.Name):
            return url
        for statement in self.tree.body:
            is_value = target_of(statement) == url.id
            if is_value and isinstance(statement, ast.Assign | ast.AnnAssign):
                return statement.value
        return url


def dotted(node: ast.AST | None) -> str:
    """Return ``a.b.c`` for a name, an attribute, a call or an index, or ""."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            return f"{dotted(value)}.{name}"
        case ast.Call(func=inner) | ast.Subscript(value=inner) | ast.Await(value=inner):
            return dotted(inner)
    return ""


def last_name(node: ast.AST | None) -> str:
    """Return the last part of a dotted name."""
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case ast.Call(func=inner):
            return last_name(inner)
    return ""


def keyword(node: ast.AST | None, name: str) -> ast.expr | None:
    """Return the value of a keyword argument of a call."""
    if isinstance(node, ast.Call):
        for word in node.keywords:
            if word.arg == name:
                return word.value
    return None


def argument(call: ast.Call, name: str) -> ast.expr | None:
    """Return the first argument of a call, or the keyword argument of this name."""
    if call.args:
        return call.args[0]
    return keyword(call, name)


def arguments(call: ast.Call) -> list[ast.expr]:
    """Return the values of all arguments of a call."""
    values = [word.value for word in call.keywords]
    return [*call.args, *values]


def text_of(node: ast.AST | None) -> str:
    """Return the text of a string literal, or "". Expressions in an f-string become ``{}``."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            texts = [text_of(part) or "{}" for part in parts]
            return "".join(texts)
    return ""


def target_of(statement: ast.AST) -> str:
    """Return the name to which a statement assigns, or ""."""
    match statement:
        case ast.Assign(targets=[target, *_]) | ast.AnnAssign(target=target):
            return dotted(target)
    return ""


def all_below(*nodes: ast.AST) -> list[ast.AST]:
    """Return these nodes and all nodes below them."""
    pending = list(nodes)
    for node in pending:  # the loop also visits the nodes that it appends
        pending.extend(children(node))
    return pending


def children(node: ast.AST) -> list[ast.AST]:
    """Return the child nodes, except nodes without fields such as ``ast.Load``.

    This is twice as fast as `ast.iter_child_nodes`. `arena doctor` spends most of its time here.
    """
    nodes = []
    for value in node.__dict__.values():
        if type(value) is list:
            nodes += [part for part in value if isinstance(part, ast.AST)]
        elif isinstance(value, ast.AST) and value.__dict__:
            nodes.append(value)
    return nodes


def of_kind(kind: type[Node], nodes: Iterable[ast.AST]) -> Iterator[Node]:
    """Yield the nodes of a kind."""
    return (node for node in nodes if isinstance(node, kind))


def names_in(*nodes: ast.AST | None) -> set[str]:
    """Return the names that these nodes and the nodes below them read or write."""
    below = all_below(*filter(None, nodes))
    return {name.id for name in of_kind(ast.Name, below)}


def stored_in(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names to which these nodes assign."""
    names = of_kind(ast.Name, nodes)
    return {name.id for name in names if isinstance(name.ctx, ast.Store)}


def call_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the dotted names of the functions that these nodes call."""
    return {dotted(call) for call in of_kind(ast.Call, nodes)}


@cache
def local_names(function: AnyFunction) -> set[str]:
    """Return the parameters and local variables of a function."""
    nodes = all_below(function)
    parameters = {argument.arg for argument in of_kind(ast.arg, nodes)}
    return parameters | stored_in(nodes)
