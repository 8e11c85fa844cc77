"""A parsed file: its calls by name, its tests and fixtures, where its names come from."""

from __future__ import annotations

import ast
from collections import defaultdict
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, TypeVar, cast

from pytest_arena._cli.doctor._surroundings import surroundings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

AnyFunction = ast.FunctionDef | ast.AsyncFunctionDef
AnyWith = ast.With | ast.AsyncWith
SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
WIDE = {"session", "package", "module", "class"}
Node = TypeVar("Node", bound=ast.AST)


@dataclass(frozen=True, eq=False)
class Function:
    """A test or a fixture."""

    node: AnyFunction
    fixture: ast.expr | None  # the decorator that makes it one

    @property
    def scope(self) -> str:
        """The scope of a fixture, as far as it is written down."""
        return text_of(keyword(self.fixture, "scope")) or "function"

    @property
    def parameters(self) -> set[str]:
        """The names of its parameters."""
        return {
            each.arg for each in ast.walk(self.node.args) if isinstance(each, ast.arg)
        }

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All below its body, also in functions within it."""
        return all_below(*self.node.body)

    @cached_property
    def own_nodes(self) -> list[ast.AST]:
        """All below its body, but for what stands in functions and classes within it."""
        nodes: list[ast.AST] = [*self.node.body]
        own = []
        for each in nodes:
            if not isinstance(each, SCOPES):
                own.append(each)
                nodes.extend(children(each))
        return own


class Code:
    """A file of the suite.

    Attributes:
        calls: all calls, by the last name of what is called.
        defined: all functions, by their names; the first, the outermost, of a name.
        functions: the tests and the fixtures, by their nodes.
        imports: where each imported name comes from.
    """

    def __init__(self, path: Path, text: str, tree: ast.Module) -> None:
        self.path = path
        self.text = text
        self.tree = tree
        self.around = surroundings(path.absolute().parent)
        self.is_collected = path.name.startswith("test_") or path.name.endswith(
            "_test.py"
        )
        self.calls: dict[str, list[ast.Call]] = defaultdict(list)
        self.parents: dict[ast.AST, ast.AST] = {}
        self.functions: dict[ast.AST, Function] = {}
        self.defined: dict[str, AnyFunction] = {}
        self.imports: dict[str, str] = {}
        self.import_lines: dict[str, ast.stmt] = {}
        self._locals_by_function: dict[AnyFunction, set[str]] = {}
        self._read()

    def _read(self) -> None:
        nodes: list[ast.AST] = [self.tree]
        parents = self.parents
        for node in nodes:
            for child in children(node):
                parents[child] = node
                nodes.append(child)
            kind = type(node)
            if kind is ast.Call:
                self.calls[last_name(node)].append(cast("ast.Call", node))
            elif isinstance(node, AnyFunction):
                self._read_function(node)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                self._read_import(node)

    def _read_function(self, node: AnyFunction) -> None:
        self.defined.setdefault(node.name, node)
        owner = self.parents[node]
        fixture = next(
            (d for d in node.decorator_list if last_name(d) == "fixture"), None
        )
        outer = owner is self.tree or (
            isinstance(owner, ast.ClassDef) and owner in self.tree.body
        )
        if fixture is not None or (
            node.name.startswith("test") and outer and self.is_collected
        ):
            self.functions[node] = Function(node, fixture)

    def _read_import(self, node: ast.Import | ast.ImportFrom) -> None:
        origin = ""
        if isinstance(node, ast.ImportFrom):
            origin = (
                "." * node.level + (node.module or "") + ("." if node.module else "")
            )
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            plain = not origin and not alias.asname
            self.imports[name] = name if plain else origin + alias.name
            self.import_lines[name] = node

    @property
    def tests(self) -> list[Function]:
        """The tests of the file."""
        return [each for each in self.functions.values() if each.fixture is None]

    @property
    def fixtures(self) -> list[Function]:
        """The fixtures of the file."""
        return [each for each in self.functions.values() if each.fixture is not None]

    def called(self, *names: str) -> Iterator[ast.Call]:
        """The calls of functions with these last names."""
        for name in names:
            yield from self.calls.get(name, ())

    def every(self, kind: type[Node]) -> Iterator[Node]:
        """All nodes of a kind."""
        return of_kind(kind, self.parents)

    def in_tests(self, kind: type[Node]) -> Iterator[Node]:
        """The nodes of a kind in the tests, but for functions within them."""
        for test in self.tests:
            yield from of_kind(kind, test.own_nodes)

    def origin(self, expression: ast.AST | None) -> str:
        """Where a name comes from: ``httpx.AsyncClient``, however it was imported.

        A parameter or a variable of a function around comes from nowhere: its own name is returned.
        """
        first, dot, rest = dotted(expression).partition(".")
        around = (
            each for each in self.around_of(expression) if isinstance(each, AnyFunction)
        )
        if first in self.imports and any(
            first in self._locals(each) for each in around
        ):
            return first + dot + rest
        return self.imports.get(first, first) + dot + rest

    def _locals(self, function: AnyFunction) -> set[str]:
        if function not in self._locals_by_function:
            nodes = all_below(function)
            arguments = {each.arg for each in of_kind(ast.arg, nodes)}
            self._locals_by_function[function] = arguments | stored_in(nodes)
        return self._locals_by_function[function]

    def around_of(self, node: ast.AST | None) -> Iterator[ast.AST]:
        """What a node stands in, the innermost first."""
        while node in self.parents:
            node = self.parents[node]
            yield node

    def function_of(self, node: ast.AST) -> AnyFunction | None:
        """The innermost function that a node stands in."""
        return next(
            (each for each in self.around_of(node) if isinstance(each, AnyFunction)),
            None,
        )

    def test_of(self, node: ast.AST) -> Function | None:
        """The test or fixture that a node stands in."""
        around = [each for each in self.around_of(node) if each in self.functions]
        return self.functions[around[-1]] if around else None

    def own_test_of(self, node: ast.AST) -> Function | None:
        """The test or fixture that a node stands in, and in no function within it."""
        test = self.test_of(node)
        return test if test and test.node is self.function_of(node) else None

    def is_at_import(self, node: ast.AST) -> bool:
        """Whether it is run when the file is imported."""
        return not any(isinstance(each, SCOPES) for each in self.around_of(node))

    def statement_of(self, node: ast.AST) -> ast.stmt:
        """The statement that a node is part of."""
        return next(of_kind(ast.stmt, (node, *self.around_of(node))))

    def url_of(self, call: ast.Call) -> ast.expr | None:
        """The URL of an engine, as it is written; a name of the module stands for its value."""
        url = argument(call, "url")
        for statement in self.tree.body:
            match statement:
                case (
                    ast.Assign(targets=[ast.Name(id=name)], value=value)
                    | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
                ) if isinstance(url, ast.Name) and url.id == name:
                    return value
        return url


def dotted(node: ast.AST | None) -> str:
    """``a.b.c`` of a name, an attribute, a call or an index; "" of whatever else."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            return f"{dotted(value)}.{name}"
        case ast.Call(func=inner) | ast.Subscript(value=inner) | ast.Await(value=inner):
            return dotted(inner)
    return ""


def last_name(node: ast.AST | None) -> str:
    """The last part of a dotted name."""
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case ast.Call(func=inner):
            return last_name(inner)
    return ""


def keyword(node: ast.AST | None, name: str) -> ast.expr | None:
    """The value of a keyword argument of a call."""
    words = node.keywords if isinstance(node, ast.Call) else []
    return next((each.value for each in words if each.arg == name), None)


def argument(call: ast.Call, name: str) -> ast.expr | None:
    """The first argument of a call, which may also be given by this name."""
    return call.args[0] if call.args else keyword(call, name)


def given(call: ast.Call) -> list[ast.expr]:
    """All that a call is given, by place and by name."""
    return [*call.args, *(each.value for each in call.keywords)]


def text_of(node: ast.AST | None) -> str:
    """The text of a literal string, also the literal parts of an f-string; "" of whatever else."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(text_of(each) or "{}" for each in values)
    return ""


def target_of(statement: ast.AST) -> str:
    """The name that a statement assigns to, "" where it is none that does."""
    return dotted(statement.targets[0]) if isinstance(statement, ast.Assign) else ""


def all_below(*nodes: ast.AST) -> list[ast.AST]:
    """These nodes, and all below them."""
    every = list(nodes)
    for each in every:
        every.extend(children(each))
    return every


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes below one, but for those without a value, such as the context of a name.

    Twice as fast as `ast.iter_child_nodes`, and most of what an examination takes.
    """
    found = []
    for value in node.__dict__.values():
        if type(value) is list:
            found += [each for each in value if isinstance(each, ast.AST)]
        elif isinstance(value, ast.AST) and value.__dict__:
            found.append(value)
    return found


def of_kind(kind: type[Node], nodes: Iterable[ast.AST]) -> Iterator[Node]:
    """Those of a kind among nodes."""
    return (each for each in nodes if isinstance(each, kind))


def names_in(*nodes: ast.AST | None) -> set[str]:
    """The names that are read or written below these nodes."""
    return {each.id for each in of_kind(ast.Name, all_below(*filter(None, nodes)))}


def stored_in(nodes: Iterable[ast.AST]) -> set[str]:
    """The names that are given a value among these nodes."""
    return {
        each.id for each in of_kind(ast.Name, nodes) if isinstance(each.ctx, ast.Store)
    }


def call_names(nodes: Iterable[ast.AST]) -> set[str]:
    """The dotted names of all that is called among these nodes."""
    return {dotted(each.func) for each in of_kind(ast.Call, nodes)}


@cache
def functions_in(text: str) -> list[AnyFunction]:
    """Return the functions of an app's module, or none if the module cannot be parsed."""
    try:
        return [node for node in ast.parse(text).body if isinstance(node, AnyFunction)]
    except SyntaxError:
        return []
