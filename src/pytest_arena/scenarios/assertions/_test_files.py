"""Finds the functions and the constants of a test file by its source."""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import CodeType

Function = ast.FunctionDef | ast.AsyncFunctionDef

PURE_BUILTINS = frozenset(
    {"abs", "all", "any", "bool", "dict", "enumerate", "float", "frozenset", "hasattr"}
    | {"int", "isinstance", "len", "list", "max", "min", "range", "repr", "reversed"}
    | {"round", "set", "sorted", "str", "sum", "tuple", "type", "zip"}
)
"""The builtin functions that change nothing and read only their arguments."""

SERIALIZED_ARGUMENTS = frozenset({"json", "data", "params", "headers", "content"})
"""The arguments of a request that a client serializes."""

# The functions of these modules also read only their arguments. `pytest` has `pytest.approx`.
_PURE_MODULES = frozenset(
    {"base64", "collections", "copy", "datetime", "decimal", "fractions", "hashlib"}
    | {"html", "itertools", "json", "math", "pytest", "re", "statistics", "string"}
    | {"textwrap", "types", "uuid"}
)
BINDING_FIELDS = ("arg", "name", "asname", "rest")
"""The fields of syntax nodes that bind a name: of an argument, a function or an import."""

_Names = frozenset[str]


def function_of(code: CodeType) -> Function | None:
    """Return the syntax tree of a function, or None if its source is not known."""
    return _functions(code.co_filename).get(code.co_firstlineno)


@cache
def calls_in(function: Function) -> list[ast.Call | ast.Await]:
    """Return the calls in a function, and its awaited expressions."""
    nodes = ast.walk(function)
    return [node for node in nodes if isinstance(node, ast.Call | ast.Await)]


@cache
def _functions(file: str) -> dict[int, Function]:
    """Return the functions in a file by their first lines. Decorators precede ``def``."""
    functions = {}
    for node in ast.walk(_tree(file)):
        if isinstance(node, Function):
            decorators = [decorator.lineno for decorator in node.decorator_list]
            functions[min([node.lineno, *decorators])] = node
    return functions


def parameters_of(function: Function) -> _Names:
    """Return the names of a function's parameters."""
    arguments = function.args
    names = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return frozenset(name.arg for name in names)


def functions_with_parameter(file: str, name: str) -> list[Function]:
    """Return the functions of a file that have a parameter of this name."""
    functions = _functions(file).values()
    return [function for function in functions if name in parameters_of(function)]


@cache
def _tree(file: str) -> ast.Module:
    """Return the syntax tree of a file, or an empty one if it cannot be parsed."""
    try:
        return ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])


@cache
def _bindings(file: str) -> Counter[str]:
    return bindings_in([*ast.walk(_tree(file))])


@cache
def helpers_in(file: str) -> Mapping[str, Sequence[ast.FunctionDef]]:
    """Return the undecorated functions of a module, by each name that refers to them.

    A name may refer to several functions. An assignment ``alias = helper`` gives a helper another
    name. A name that the module also binds in another way is left out.
    """
    helpers: dict[str, list[ast.FunctionDef]] = {}
    bindings = Counter[str]()
    for node in _tree(file).body:
        match node:
            case ast.FunctionDef(name=name, decorator_list=[], args=arguments):
                defaults = [*arguments.defaults, *filter(None, arguments.kw_defaults)]
                if all(map(_is_immutable, defaults)):
                    bindings[name] += 1
                    helpers.setdefault(name, []).append(node)
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name(id=assigned)):
                if assigned in helpers:
                    bindings[name] += 1
                    helpers.setdefault(name, []).extend(helpers[assigned])
    return {
        name: functions
        for name, functions in helpers.items()
        if _bindings(file)[name] == bindings[name]
    }


@cache
def functions_in(file: str) -> Mapping[str, Function]:
    """Return a module's top-level functions by name. The module binds each name once."""
    functions = {}
    for node in _tree(file).body:
        if isinstance(node, Function) and _bindings(file)[node.name] == 1:
            functions[node.name] = node
    return functions


@cache
def pure_imports(file: str) -> _Names:
    """Return the names that a module imports from modules whose functions have no effects."""
    names = set()
    for node in _tree(file).body:
        for name, module in _imports_of(node):
            if module in _PURE_MODULES and _bindings_without_arguments(file)[name] == 1:
                names.add(name)
    return frozenset(names)


def _imports_of(node: ast.stmt) -> Iterator[tuple[str, str]]:
    """Yield the names that a statement imports, each with its module."""
    match node:
        case ast.Import(names=aliases):
            for alias in aliases:
                yield alias.asname or alias.name, alias.name
        case ast.ImportFrom(module=str() as module, names=aliases):
            for alias in aliases:
                yield alias.asname or alias.name, module


@cache
def _bindings_without_arguments(file: str) -> Counter[str]:
    nodes = [
        node
        for node in ast.walk(_tree(file))
        if not isinstance(node, ast.arg | ast.keyword)
    ]
    return bindings_in(nodes)


@cache
def constants_of(file: str) -> _Names:
    """Return the constants of a module and of its test classes, as ``NAME`` and ``self.NAME``.

    The file binds each constant once. No string literal of the file has its name, because
    ``monkeypatch.setattr`` may get such a string.
    """
    names = set()
    for statement in _tree(file).body:
        if isinstance(statement, ast.ClassDef):
            inner = {_constant_bound_by(part, file) for part in statement.body} - {""}
            names |= {f"self.{name}" for name in inner}
            names |= {f"{statement.name}.{name}" for name in inner}
        else:
            names.add(_constant_bound_by(statement, file))
    return frozenset(names - {""})


Classes = frozenset[tuple[str, str]]
"""A test class and its bases, each with its file and its name."""


@cache
def set_up_attributes(classes: Classes) -> Mapping[str, Sequence[ast.expr]]:
    """Return the attributes that only the set-up of a test class assigns, with their values.

    Return nothing if a method passes ``self`` to a function, because it may assign attributes.
    """
    if any(_passes_self_on(file, name) for file, name in classes):
        return {}
    values: dict[str, list[ast.expr]] = {}
    assignments = Counter[str]()
    names_in_strings = set[str]()
    for file in {file for file, _ in classes}:
        assignments += _stored_attributes(file)
        names_in_strings |= names_in_string_literals(file)
        for function in filter(_is_set_up_method, _functions(file).values()):
            for name, value in _attributes_assigned_in(function):
                values.setdefault(name, []).append(value)
    return {
        name: assigned
        for name, assigned in values.items()
        if len(assigned) == assignments[name] and name not in names_in_strings
    }


def _passes_self_on(file: str, name: str) -> bool:
    """Return whether a class of a file uses ``self`` in another way than ``self.NAME``."""
    for node in _tree(file).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            parts = list(ast.walk(node))
            owners = {part.value for part in parts if isinstance(part, ast.Attribute)}
            names = [part for part in parts if isinstance(part, ast.Name)]
            if any(part.id == "self" and part not in owners for part in names):
                return True
    return False


_SET_UP_METHODS = frozenset(
    {"setUp", "asyncSetUp", "setUpClass", "setup_method", "setup_class"}
)


def _is_set_up_method(function: Function) -> bool:
    decorators = map(ast.unparse, function.decorator_list)
    return function.name in _SET_UP_METHODS or any(
        "fixture" in each for each in decorators
    )


def _attributes_assigned_in(function: Function) -> Iterator[tuple[str, ast.expr]]:
    """Yield the attributes that a method assigns outside of branches, with their values."""
    for statement in function.body:
        match statement:
            case ast.Assign(
                targets=[ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name)],
                value=value,
            ):
                yield name, value


def is_unchanged_attribute(classes: Classes, name: str, value: ast.expr) -> bool:
    """Return whether no code changes the value of an attribute.

    The value is immutable, or the files of the classes only read it.
    """
    return all(_is_never_changed(value, file, name) for file, _ in classes)


def _constant_bound_by(statement: ast.stmt, file: str) -> str:
    """Return the name of the constant that a statement binds, or "" if it binds none."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            pass
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            pass
        case _:
            return ""
    may_be_changed = name in names_in_string_literals(
        file
    ) or name in _stored_attributes(file)
    if (
        _is_never_changed(value, file, name)
        and _bindings(file)[name] == 1
        and not may_be_changed
    ):
        return name
    return ""


def _is_never_changed(value: ast.AST, file: str, name: str) -> bool:
    """Return whether a value is immutable, or the module only reads the variable that holds it."""
    return _is_immutable(value) or (
        _is_flat_container(value) and _is_only_read(file, name)
    )


def _is_immutable(value: ast.AST) -> bool:
    if isinstance(value, ast.Tuple):
        return all(map(_is_immutable, value.elts))
    return isinstance(value, ast.Constant)


def _is_flat_container(value: ast.AST) -> bool:
    """Return whether a value is a list, a set or a dict of immutable values."""
    match value:
        case ast.List(elts=values) | ast.Set(elts=values) | ast.Dict(values=values):
            return all(map(_is_immutable, values))
    return False


@cache
def names_in_string_literals(file: str) -> _Names:
    """Return the last dotted part of each string literal, which ``setattr`` may get."""
    names = set()
    for node in ast.walk(_tree(file)):
        match node:
            case ast.Constant(value=str() as text):
                names.add(text.rpartition(".")[2])
    return frozenset(names)


@cache
def _stored_attributes(file: str) -> Counter[str]:
    """Count how often a module assigns or deletes each attribute."""
    stored = Counter[str]()
    for node in ast.walk(_tree(file)):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Store() | ast.Del()):
                stored[name] += 1
    return stored


def _is_only_read(file: str, name: str) -> bool:
    """Return whether a module only compares, counts, sends or iterates over a variable."""
    for parent, child in _parent_child_pairs(file):
        match child:
            case (
                ast.Name(id=child_name, ctx=ast.Load())
                | ast.Attribute(attr=child_name, ctx=ast.Load())
            ):
                if child_name == name and not _only_reads(parent, child):
                    return False
    return True


@cache
def _parent_child_pairs(file: str) -> list[tuple[ast.AST, ast.AST]]:
    """Return pairs of a parent and a child, for all nodes of a module."""
    nodes = []
    for parent in ast.walk(_tree(file)):
        nodes += [(parent, child) for child in ast.iter_child_nodes(parent)]
    return nodes


def _only_reads(parent: ast.AST, child: ast.AST) -> bool:
    """Return whether a node only reads its child."""
    is_reading = False
    match parent:
        case ast.Compare() | ast.FormattedValue() | ast.Subscript(ctx=ast.Load()):
            is_reading = True
        case ast.Call(func=ast.Name(id=name)):
            is_reading = name in PURE_BUILTINS
        case ast.Call(func=ast.Attribute(attr=name)):
            is_reading = child is not parent.func and name.startswith("assert")
        case ast.For(iter=iterated) | ast.comprehension(iter=iterated):
            is_reading = iterated is child
        case ast.keyword(arg=name):
            is_reading = name in SERIALIZED_ARGUMENTS
    return is_reading


def bindings_in(nodes: Sequence[ast.AST]) -> Counter[str]:
    """Count how often each name is bound."""
    bindings = Counter[str]()
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bindings[node.id] += 1
        elif isinstance(node, ast.Global):
            bindings.update(node.names)
        for attribute in BINDING_FIELDS:
            name = getattr(node, attribute, None)
            if isinstance(name, str):
                bindings[name] += 1
    return bindings
