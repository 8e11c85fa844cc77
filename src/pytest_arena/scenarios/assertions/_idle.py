"""Finds assertions that cannot fail, whatever the app does.

That is decided by their code, and by the variables of the test function. An assertion that cannot
be analysed counts as one that could have failed.
"""

import ast
import builtins
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from inspect import getattr_static
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

Function = ast.FunctionDef | ast.AsyncFunctionDef

# Most assertions read something, and compare it with a literal.
_READS = re.compile(r"[\w)\]]\s*[.(\[]")
_DOUBTFUL = re.compile(
    r"\bor\b|check\s*\.|\bself\s*\.\s*assert|^\s*(?:assert\b\s*)?\(|[=!]=\s*[A-Za-z_]"
    r"|\blen\s*\(|\bstatus_code\s*[<>!]|[<>]=?\s*[\w.]+\.status_code\b"
    r"|\bstatus_code\s*,|\bisinstance\s*\(|^\s*(?:\"\"|'')\s*in\b"
)
# The functions of pytest-check that compare as methods of unittest do.
_SOFT_CHECKS = {
    "equal": "assertEqual",
    "less": "assertLess",
    "less_equal": "assertLessEqual",
    "greater": "assertGreater",
    "greater_equal": "assertGreaterEqual",
    "is_in": "assertIn",
    "is_true": "assertTrue",
    "is_not_none": "assertIsNotNone",
    "is_instance": "assertIsInstance",
}
_COMPARISONS: dict[str, type[ast.cmpop]] = {
    "assertEqual": ast.Eq,
    "assertLess": ast.Lt,
    "assertLessEqual": ast.LtE,
    "assertGreater": ast.Gt,
    "assertGreaterEqual": ast.GtE,
    "assertIn": ast.In,
}
_READING = (ast.Name, ast.Call, ast.Attribute, ast.Subscript, ast.Await, ast.NamedExpr)
_CALLING = (ast.Call, ast.Await, ast.NamedExpr)
_FALSE_OF_EQUALS = (ast.NotEq, ast.Lt, ast.Gt, ast.IsNot, ast.NotIn)


@cache
def is_constant(text: str) -> bool:
    """Return whether an assertion passes always: ``True``, ``x == x``, ``len(x) >= 0``.

    Costs 50 µs, once for each text, and 1 µs for most texts.
    """
    if _READS.search(text) and not _DOUBTFUL.search(text):
        return False
    expression = parsed(text)
    return expression is not None and _is_constant(expression)


@cache
def parsed(text: str) -> ast.expr | None:
    """Return the expression of an assertion.

    A method of unittest or a function of pytest-check becomes its comparison.
    """
    try:
        node = ast.parse(f"({text})", mode="eval").body  # it may have several lines
    except (SyntaxError, ValueError, RecursionError):
        return None
    match node:
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="self"), attr=name),
            args=[value, *more],
        ):
            return _compared(name, value, more)
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="check" | "pytest_check"), attr=name),
            args=[value, *more],
        ) if name in _SOFT_CHECKS:
            return _compared(_SOFT_CHECKS[name], value, more)
    return node


def _compared(
    method: str,
    value: ast.expr,
    more: list[ast.expr],
) -> ast.expr:
    """Return what a method of unittest compares."""
    if method == "assertTrue":
        return value
    if method == "assertIsNotNone":
        return ast.Compare(
            value,
            [ast.IsNot()],
            [ast.Constant(None)],
        )
    if method == "assertIsInstance" and more:
        return ast.Call(
            ast.Name("isinstance", ast.Load()),
            [value, more[0]],
            [],
        )
    if method in _COMPARISONS and more:
        return ast.Compare(
            value,
            [_COMPARISONS[method]()],
            more[:1],
        )
    return ast.List([value, *more], ast.Load())


def _is_constant(node: ast.expr) -> bool:
    match node:
        case ast.BoolOp(op=ast.Or(), values=values) if any(map(_is_true, values)):
            return True
        case ast.BoolOp(values=values):
            return all(map(_is_constant, values))
        case ast.Tuple(elts=elements) if elements:  # `assert (x, "message")`
            return True
        case ast.Compare(left=left, ops=kinds, comparators=others):
            if all(map(_is_always, [left, *others], kinds, others)):
                return True
        case ast.Call(func=ast.Name(id="isinstance"), args=[_, kind]):
            kinds_asked = kind.elts if isinstance(kind, ast.Tuple) else [kind]
            names = [each.id for each in kinds_asked if isinstance(each, ast.Name)]
            return "object" in names
    return not any(isinstance(part, _READING) for part in ast.walk(node))


def _is_true(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and bool(node.value)


def _is_always(
    left: ast.expr,
    kind: ast.cmpop,
    right: ast.expr,
) -> bool:
    """Return whether a comparison is true for all values."""
    has_call = any(isinstance(part, _CALLING) for part in ast.walk(left))
    # Two calls may return two values.
    if not has_call and ast.dump(left) == ast.dump(right):
        return not isinstance(kind, _FALSE_OF_EQUALS)
    low, high = _bounds(left)
    right_low, right_high = _bounds(right)
    is_true = False
    match kind, left, right:
        case ast.In(), ast.Constant(value="" | b""), _:
            is_true = True
        case ast.IsNot() | ast.NotEq(), ast.Call(), ast.Constant(value=None):
            is_true = math.isfinite(low)  # a length
        case ast.Lt(), _, _:
            is_true = high < right_low
        case ast.LtE(), _, _:
            is_true = high <= right_low
        case ast.Gt(), _, _:
            is_true = low > right_high
        case ast.GtE(), _, _:
            is_true = low >= right_high
    return is_true


def _bounds(node: ast.expr) -> tuple[float, float]:
    """Return the lowest and the highest number that an expression can be."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return value, value
        case ast.UnaryOp(
            op=ast.USub(), operand=ast.Constant(value=int() | float() as value)
        ):
            return -value, -value
        case ast.Call(func=ast.Name(id="len")):
            return 0, math.inf
        case ast.Attribute(attr="status_code"):
            return 100, 599
    return -math.inf, math.inf


# Variables of the test function.

_BUILT_IN = frozenset(
    {"len", "str", "int", "bool", "list", "set", "tuple", "sorted", "isinstance"}
)
_LITERAL = (
    ast.Constant,
    ast.List,
    ast.Tuple,
    ast.Set,
    ast.Dict,
    ast.keyword,
    ast.expr_context,
)
_ANALYSED = (
    *_LITERAL,
    ast.Compare,
    ast.BoolOp,
    ast.BinOp,
    ast.UnaryOp,
    ast.Name,
    ast.Attribute,
    ast.Subscript,
    ast.Call,
    ast.cmpop,
    ast.boolop,
    ast.operator,
    ast.unaryop,
)
# The attributes of nodes that bind a name: arguments, functions, modules, exceptions.
_BINDING = ("arg", "name", "asname", "rest")
_METHODS = frozenset({"get", "post", "put", "patch", "delete", "request", "stream"})
_SENT = frozenset({"json", "data", "params", "headers", "content"})
_ANY_CALL = re.compile(r"[\w.]+")
_MOCK = re.compile(r"(?:\w+\.)*(?:Magic|Async)?Mock")


def depends_only_on_test_data(
    code: CodeType,
    text: str,
    variables: Mapping[str, object],
    is_as_seeded: Callable[[object], bool],
) -> bool:
    """Return whether an assertion is only about values that the test function made itself.

    These are constants, lists of them, unshared mocks, and ORM instances that are as they were
    seeded; or ``all(…)`` of nothing. Costs 50 µs for each text, some microseconds, and 1 ms for a
    function that assigns constants.

    Args:
        code: of the test function.
        text: of the assertion.
        variables: those of the function, with their values.
        is_as_seeded: whether a value is an unchanged ORM instance.
    """
    if _is_about_nothing(text, variables):
        return True
    names = _foreign_names(code, text)
    if names is None:
        return False
    return all(is_as_seeded(variables.get(name)) for name in names)


def _is_about_nothing(text: str, variables: Mapping[str, object]) -> bool:
    """Return whether an assertion is ``all(…)`` of an empty collection."""
    if not text.startswith("all("):
        return False
    values = _value_of(_collection_in(text), variables)
    return type(values) in _COLLECTIONS and not values


@cache
def _collection_in(text: str) -> ast.expr | None:
    """Return the collection over which an assertion calls ``all``; None for others."""
    match parsed(text):
        case ast.Call(func=ast.Name(id="all"), args=[values]):
            pass
        case _:
            return None
    if isinstance(values, ast.GeneratorExp | ast.ListComp):
        return values.generators[0].iter
    return values


_COLLECTIONS = (list, tuple, set, frozenset, dict)


def _value_of(
    node: ast.expr | None,
    variables: Mapping[str, object],
) -> object:
    """Return the value of a variable, of an item in it, or of ``answer.json()``; else None.

    No other code is called, because it may have effects.
    """
    value: object = None
    match node:
        case ast.Name(id=name):
            value = variables.get(name)
        case ast.List(elts=[]) | ast.Tuple(elts=[]):
            value = []
        case ast.Subscript(value=owner, slice=ast.Constant(value=key)):
            items: Any = _value_of(owner, variables)
            is_list = type(items) is list and type(key) is int and key < len(items)
            if is_list or (type(items) is dict and key in items):
                value = items[key]
        case ast.Call(func=ast.Attribute(value=owner, attr=method), args=[]):
            value = _answered_by(method, _value_of(owner, variables))
    return value


def _answered_by(method: str, owner: object) -> object:
    """Return the body of an answer, or the items of a dict; None for other methods."""
    if type(owner) is dict and method in {"items", "keys", "values"}:
        return owner
    if method != "json" or not hasattr(owner, "raise_for_status"):
        return None
    try:
        return owner.json()  # type: ignore[attr-defined] # each HTTP library's answers have it
    except Exception:  # noqa: BLE001 - each HTTP library has its error for what is no JSON
        return None


_ATTRIBUTE = re.compile(r"(?:bool\()?(\w+)\.(\w+)\)?")


def is_uncalled_method(text: str, variables: Mapping[str, object]) -> bool:
    """Return whether an assertion is a method that it does not call: ``assert answer.json``."""
    match = _ATTRIBUTE.fullmatch(text)
    if match is None or match[1] not in variables:
        return False
    method = getattr_static(type(variables[match[1]]), match[2], None)
    return isinstance(method, FunctionType | staticmethod | classmethod)


@cache
def is_block_of_python(code: CodeType, line: int) -> bool:
    """Return whether the ``with`` in a line has only constants and Python's types in its block.

    ``with pytest.raises(ValueError): int("x")`` asserts nothing about the app.
    """
    function = function_of(code)
    if function is None:
        return False
    for node in ast.walk(function):
        if isinstance(node, ast.With | ast.AsyncWith) and node.lineno == line:
            parts: list[ast.AST] = []
            for statement in node.body:
                parts += ast.walk(statement)
            return all(map(_is_of_python, parts))
    return False


def _is_of_python(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        value = getattr(builtins, node.id, None)
        return node.id == "warnings" or isinstance(value, type)
    return not isinstance(node, ast.Import | ast.ImportFrom)


@cache
def _foreign_names(code: CodeType, text: str) -> frozenset[str] | None:
    """Return the names in an assertion that the test did not make; None if not analysed."""
    if not code.co_name.startswith("test"):
        return None
    names = _names_in(text)
    if names is None:
        return None
    own = _own_among(names.all, code) | _BUILT_IN
    if names.called <= own:
        return names.all - own
    return None


class _Names(NamedTuple):
    """The names in an assertion, and those that it calls."""

    all: frozenset[str]
    called: frozenset[str]


@cache
def _names_in(text: str) -> _Names | None:
    """Return the names in an assertion; None if it is not analysed. Once for each text."""
    expression = parsed(text)
    if expression is None:
        return None
    nodes = list(ast.walk(expression))
    if not all(isinstance(node, _ANALYSED) for node in nodes):
        return None
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    called = {_root(node.func) for node in nodes if isinstance(node, ast.Call)}
    return _Names(frozenset(names), frozenset(called))


def _root(node: ast.expr) -> str:
    """Return ``a`` for ``a.b[0].c``; "" for anything without a name."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    if isinstance(node, ast.Name):
        return node.id
    return ""


def _dotted(node: ast.expr) -> str:
    """Return a name with its attributes; "" for anything else."""
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value)
        if inner:
            return f"{inner}.{node.attr}"
        return ""
    if isinstance(node, ast.Name):
        return node.id
    return ""


def function_of(code: CodeType) -> Function | None:
    """Return the syntax tree of a function; None if its source is not known."""
    return _functions(code.co_filename).get(code.co_firstlineno)


@cache
def _functions(file: str) -> dict[int, Function]:
    """Return the functions in a file by their first lines, decorators included."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return {}
    functions = {}
    for node in ast.walk(tree):
        if isinstance(node, Function):
            decorators = [decorator.lineno for decorator in node.decorator_list]
            functions[min([node.lineno, *decorators])] = node
    return functions


def _own_among(names: frozenset[str], code: CodeType) -> frozenset[str]:
    """Return the variables that the function made itself; none if it makes none of these names.

    Then the rest of the function need not be analysed.
    """
    function = function_of(code)
    if function is None:
        return frozenset()
    if any(name in names for name, _ in _literals_assigned(function)):
        return _own_names(function)
    return frozenset()


def _literals_assigned(function: Function) -> Iterator[tuple[str, ast.expr]]:
    """Yield the variables to which the function assigns literals or mocks."""
    for statement in function.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                if _is_literal(value, calls=_MOCK):
                    yield name, value


@cache
def _own_names(function: Function) -> frozenset[str]:
    """Return the variables whose values the function made itself.

    Each is assigned once. It is a constant; or a list or a mock that no other code gets, and that
    only literals change.
    """
    nodes = list(ast.walk(function))
    bindings = bindings_in(nodes)
    shared = _shared_names(function, nodes)
    names = set()
    for name, value in _literals_assigned(function):
        is_unshared = isinstance(value, ast.Constant) or name not in shared
        if is_unshared and bindings[name] == 1:
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


def _shared_names(
    function: Function,
    nodes: list[ast.AST],
) -> set[str]:
    """Return the names that are passed to other code, which may change their values."""
    expressions: list[ast.expr] = []
    for node in nodes:
        if isinstance(node, ast.Assert):
            expressions.append(node.test)
        elif isinstance(node, ast.Call):
            expressions += _sent_in(node)
    for statement in function.body:
        match statement:
            case ast.Expr(value=value) if _is_literal(value, calls=_ANY_CALL):
                expressions.append(value)
    unshared = {id(name) for node in expressions for name in _read_names(node)}
    shared = set()
    for node in nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Load()) if id(node) not in unshared:
                shared.add(name)
    return shared


def _sent_in(call: ast.Call) -> list[ast.expr]:
    """Return the arguments of a request that a client serializes, and does not change."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in _METHODS:
        return []
    return [keyword.value for keyword in call.keywords if keyword.arg in _SENT]


def _read_names(node: ast.AST) -> Iterator[ast.Name]:
    """Yield the names in an expression that are not passed to other code."""
    if isinstance(node, ast.Name):
        yield node
    if isinstance(node, ast.Lambda):
        return
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.Call) and _root(node.func) not in _BUILT_IN:
        children = iter([node.func])
    for child in children:
        yield from _read_names(child)


def _is_literal(value: ast.expr, *, calls: re.Pattern[str]) -> bool:
    """Return whether a value consists of literals, or is such a call with literals."""
    if isinstance(value, ast.Await) and isinstance(value.value, ast.Call):
        value = value.value
    parts: list[ast.AST] = [value]
    if isinstance(value, ast.Call) and calls.fullmatch(_dotted(value.func)):
        parts = [*value.args, *value.keywords]
    for part in parts:
        for node in ast.walk(part):
            if not isinstance(node, _LITERAL):
                return False
    return True
