"""A parsed file: its calls by name, its tests and fixtures, where its names come from."""

from __future__ import annotations

import ast
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_arena._cli.doctor._surroundings import Surroundings

AnyFunction = ast.FunctionDef | ast.AsyncFunctionDef
SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
WIDE = {"session", "package", "module", "class"}


@dataclass(frozen=True, eq=False)
class Function:
    """A test or a fixture."""

    node: AnyFunction
    fixture: ast.expr | None  # the decorator that makes it one
    owner: ast.ClassDef | None

    @property
    def is_async(self) -> bool:
        """Whether it is a coroutine function."""
        return isinstance(self.node, ast.AsyncFunctionDef)

    @property
    def scope(self) -> str:
        """The scope of a fixture, as far as it is written down."""
        return text_of(keyword(self.fixture, "scope")) or "function"

    @cached_property
    def parameters(self) -> set[str]:
        """The names of its parameters."""
        arguments = self.node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        return {each.arg for each in every} - {"self", "cls"}

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All below its body, also in functions within it."""
        return all_below(*self.node.body)

    @cached_property
    def own_nodes(self) -> list[ast.AST]:
        """All below its body, but for what stands in functions and classes within it."""
        return [node for statement in self.node.body for node in walk_scope(statement)]

    def calls(self, *names: str) -> Iterator[ast.Call]:
        """Its calls of functions with these last names."""
        for node in self.nodes:
            if isinstance(node, ast.Call) and last_name(node.func) in names:
                yield node


class Code:
    """A file of the suite.

    Attributes:
        calls: all calls, by the last name of what is called.
    """

    def __init__(self, path: Path, text: str, tree: ast.Module, around: Surroundings) -> None:
        self.path, self.text, self.tree, self.around = path, text, tree, around
        self.calls: dict[str, list[ast.Call]] = defaultdict(list)
        self.parents: dict[ast.AST, ast.AST] = {}
        self.functions: list[Function] = []
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
        owner = self.parents[node]
        fixture = next((d for d in node.decorator_list if last_name(d) == "fixture"), None)
        cls = owner if isinstance(owner, ast.ClassDef) else None
        outer = isinstance(owner, ast.Module) or cls in self.tree.body
        if fixture is not None or (node.name.startswith("test") and outer and self.is_collected):
            self.functions.append(Function(node, fixture, cls))

    def _read_import(self, node: ast.Import | ast.ImportFrom) -> None:
        origin = ""
        if isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "") + ("." if node.module else "")
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            plain = not origin and not alias.asname
            self.imports[name] = name if plain else origin + alias.name
            self.import_lines[name] = node

    @cached_property
    def is_collected(self) -> bool:
        """Whether pytest looks for tests in it, by its name."""
        return self.path.name.startswith("test_") or self.path.name.endswith("_test.py")

    @property
    def tests(self) -> list[Function]:
        """The tests of the file."""
        return [each for each in self.functions if each.fixture is None]

    @property
    def fixtures(self) -> list[Function]:
        """The fixtures of the file."""
        return [each for each in self.functions if each.fixture is not None]

    def called(self, *names: str) -> Iterator[ast.Call]:
        """The calls of functions with these last names."""
        for name in names:
            yield from self.calls.get(name, ())

    def origin(self, expression: ast.expr) -> str:
        """Where a name comes from: ``httpx.AsyncClient``, however it was imported.

        A parameter or a variable of a function around comes from nowhere: its own name is returned.
        """
        first, dot, rest = dotted(expression).partition(".")
        around = (each for each in self.around_of(expression) if isinstance(each, AnyFunction))
        if first in self.imports and any(first in self._locals(each) for each in around):
            return first + dot + rest
        return self.imports.get(first, first) + dot + rest

    def _locals(self, function: AnyFunction) -> set[str]:
        if function not in self._locals_by_function:
            nodes = all_below(function)
            arguments = {each.arg for each in nodes if isinstance(each, ast.arg)}
            stored = {
                e.id for e in nodes if isinstance(e, ast.Name) and isinstance(e.ctx, ast.Store)
            }
            self._locals_by_function[function] = arguments | stored
        return self._locals_by_function[function]

    def around_of(self, node: ast.AST) -> Iterator[ast.AST]:
        """What a node stands in, the innermost first."""
        while node in self.parents:
            node = self.parents[node]
            yield node

    def function_of(self, node: ast.AST) -> AnyFunction | None:
        """The innermost function that a node stands in."""
        return next((each for each in self.around_of(node) if isinstance(each, AnyFunction)), None)

    def test_of(self, node: ast.AST) -> Function | None:
        """The test or fixture that a node stands in."""
        outer = {each for each in self.around_of(node) if isinstance(each, AnyFunction)}
        return next((each for each in self.functions if each.node in outer), None)

    def is_at_import(self, node: ast.AST) -> bool:
        """Whether it is run when the file is imported."""
        return not any(isinstance(each, SCOPES) for each in self.around_of(node))

    def statement_of(self, node: ast.AST) -> ast.stmt:
        """The statement that a node is part of."""
        around = (node, *self.around_of(node))
        return next(each for each in around if isinstance(each, ast.stmt))

    def assigned(self, name: str) -> ast.expr | None:
        """What a name is given at the level of the module."""
        for statement in self.tree.body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                    return value
                case ast.AnnAssign(target=ast.Name(id=target), value=value) if target == name:
                    return value
        return None

    def has(self, *words: str) -> bool:
        """Whether the text of the file has one of these words."""
        return any(word in self.text for word in words)


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
    if not isinstance(node, ast.Call):
        return None
    return next((each.value for each in node.keywords if each.arg == name), None)


def text_of(node: ast.AST | None) -> str:
    """The text of a literal string, also the literal parts of an f-string; "" of whatever else."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(text_of(each) or "{}" for each in values)
    return ""


def walk_scope(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below one, without what stands in functions and classes of their own."""
    nodes = [node]
    for each in nodes:
        if not isinstance(each, SCOPES):
            yield each
            nodes.extend(children(each))


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


def names_in(*nodes: ast.AST | None) -> set[str]:
    """The names that are read or written below these nodes."""
    every = (each for node in nodes if node is not None for each in ast.walk(node))
    return {each.id for each in every if isinstance(each, ast.Name)}


def call_names(nodes: list[ast.AST]) -> set[str]:
    """The last names of all that is called among these nodes."""
    return {last_name(each.func) for each in nodes if isinstance(each, ast.Call)}
