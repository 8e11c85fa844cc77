"""Finds assertions that cannot fail, whatever the app does.

Their code and the variables of the test function decide that. An assertion that pytest-arena
cannot analyse counts as able to fail.
"""

import ast
import builtins
import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from inspect import getattr_static
from types import CodeType, FrameType, FunctionType
from typing import Any

from pytest_arena.scenarios.assertions._data_flow import (
    names_read_by,
    own_names,
)
from pytest_arena.scenarios.assertions._own_parameters import (
    Fixtures,
    own_attributes,
    own_parameters,
)
from pytest_arena.scenarios.assertions._test_files import function_of, parameters_of

# Most assertions read something, and compare it with a literal.
_READS = re.compile(r"[\w)\]]\s*[.(\[]")
_DOUBTFUL = re.compile(
    r"\bor\b|check\s*\.|\bself\s*\.\s*assert|^\s*(?:assert\b\s*)?\(|[=!]=\s*[A-Za-z_]"
    r"|\blen\s*\(|\bstatus_code\s*[<>!]|[<>]=?\s*[\w.]+\.status_code\b"
    r"|\bstatus_code\s*,|\bisinstance\s*\(|^\s*(?:\"\"|'')\s*in\b"
)
# The functions of pytest-check that compare like methods of unittest.
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
_EQUALITIES = (
    "assertEqual",
    "assertCountEqual",
    "assertDictEqual",
    "assertListEqual",
    "assertMultiLineEqual",
    "assertSequenceEqual",
    "assertSetEqual",
    "assertTupleEqual",
)
_COMPARISONS: dict[str, type[ast.cmpop]] = {
    **dict.fromkeys(_EQUALITIES, ast.Eq),
    "assertIs": ast.Is,
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
    """Return whether an assertion always passes: ``True``, ``x == x``, ``len(x) >= 0``.

    The first call for a text takes 1 µs, or 50 µs for a doubtful text.
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
        # In brackets the text may have several lines.
        node = ast.parse(f"({text})", mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        return None
    if isinstance(node, ast.BoolOp):  # several assertions in one line
        return ast.BoolOp(node.op, [_as_comparison(value) for value in node.values])
    return _as_comparison(node)


def _as_comparison(node: ast.expr) -> ast.expr:
    """Return the comparison of a call of unittest or pytest-check."""
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
    """Return the comparison of a method of unittest."""
    if method == "assertTrue":
        return value
    if method == "assertFalse":
        return ast.UnaryOp(ast.Not(), value)
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
            classes = kind.elts if isinstance(kind, ast.Tuple) else [kind]
            names = [each.id for each in classes if isinstance(each, ast.Name)]
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

_NOTHING = frozenset[str]()


def depends_only_on_test_data(
    frame: FrameType,
    text: str,
    variables: Mapping[str, object],
    fixtures: Fixtures,
    is_as_seeded: Callable[[object], bool],
) -> bool:
    """Return whether an assertion is only about values that the test itself made.

    These are constants, values computed from them, unshared mocks, unchanged ORM instances of the
    seed, and ``all(…)`` of an empty collection. The first call for a text takes 50 µs.

    Args:
        frame: the frame of the test function, or of its helper.
        text: the text of the assertion.
        variables: the variables of the function, with their values.
        fixtures: the fixtures of the test.
        is_as_seeded: whether a value is an unchanged ORM instance.
    """
    if _is_about_nothing(text, variables):
        return True
    if _reads_answer(text, variables):
        return False
    code = frame.f_code
    own = _NOTHING
    if "self" in variables:
        own = own_attributes(code, variables["self"])
    names = _foreign_names(code, text, own)
    if names != _foreign_names(code, text, own | _parameters(code)):
        own |= own_parameters(frame, fixtures)
        names = _foreign_names(code, text, own)
    if names is None:
        return False
    return all(is_as_seeded(variables.get(name)) for name in names)


@cache
def _parameters(code: CodeType) -> frozenset[str]:
    function = function_of(code)
    return frozenset() if function is None else parameters_of(function)


def _reads_answer(text: str, variables: Mapping[str, object]) -> bool:
    """Return whether an assertion names a variable that has an answer, as most do."""
    kinds = [type(variables.get(name)) for name in _names_in(text)]
    return any(hasattr(kind, "raise_for_status") for kind in kinds)


@cache
def _names_in(text: str) -> frozenset[str]:
    """Return the names in an assertion, or none if it is not analysed."""
    expression = parsed(text)
    if expression is None:
        return frozenset()
    return names_read_by(expression)


def _is_about_nothing(text: str, variables: Mapping[str, object]) -> bool:
    """Return whether an assertion is ``all(…)`` of an empty collection."""
    if not text.startswith("all("):
        return False
    values = _value_of(_collection_in(text), variables)
    return type(values) in _COLLECTIONS and not values


@cache
def _collection_in(text: str) -> ast.expr | None:
    """Return the collection in the call of ``all``, or None for another assertion."""
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
    """Return the value of a variable, an item or ``answer.json()``. None for other expressions.

    The function calls no other code, because such code may have effects.
    """
    value: object = None
    match node:
        case ast.Name(id=name):
            value = variables.get(name)
        case ast.List(elts=[]) | ast.Tuple(elts=[]):
            value = []
        case ast.Subscript(value=owner, slice=ast.Constant(value=key)):
            items: Any = _value_of(owner, variables)
            is_in_list = type(items) is list and type(key) is int and key < len(items)
            is_in_dict = type(items) is dict and key in items
            if is_in_list or is_in_dict:
                value = items[key]
        case ast.Call(func=ast.Attribute(value=owner, attr=method), args=[]):
            value = _answered_by(method, _value_of(owner, variables))
    return value


def _answered_by(method: str, owner: object) -> object:
    """Return the body of an answer, or the items of a dict, or None for other methods."""
    if type(owner) is dict and method in {"items", "keys", "values"}:
        return owner
    if method != "json" or not hasattr(owner, "raise_for_status"):
        return None
    try:
        return owner.json()  # type: ignore[attr-defined] # each HTTP library's answers have it
    except Exception:  # noqa: BLE001 - each HTTP library has another error for invalid JSON
        return None


_ATTRIBUTE = re.compile(r"(?:bool\()?(\w+)\.(\w+)\)?")


def is_uncalled_method(text: str, variables: Mapping[str, object]) -> bool:
    """Return whether an assertion is a method without a call: ``assert answer.json``."""
    match = _ATTRIBUTE.fullmatch(text)
    if match is None or match[1] not in variables:
        return False
    method = getattr_static(type(variables[match[1]]), match[2], None)
    return isinstance(method, FunctionType | staticmethod | classmethod)


_TYPES = {name for name, value in vars(builtins).items() if isinstance(value, type)}
_OF_PYTHON = frozenset({"warnings", *_TYPES})


@cache
def is_block_of_python(code: CodeType, line: int) -> bool:
    """Return whether the ``with`` block of a line uses only values of the test.

    ``with pytest.raises(ValueError): int("x")`` asserts nothing about the app.
    """
    function = function_of(code)
    if function is None:
        return False
    own = own_names(code) | _OF_PYTHON
    for node in ast.walk(function):
        if isinstance(node, ast.With | ast.AsyncWith) and node.lineno == line:
            return all(names_read_by(statement) <= own for statement in node.body)
    return False


@cache
def _foreign_names(
    code: CodeType, text: str, own_inputs: frozenset[str]
) -> frozenset[str] | None:
    """Return the names with foreign values in an assertion, or None if it calls such a name."""
    expression = parsed(text)
    if expression is None:
        return None
    own = own_names(code, own_inputs)
    for node in ast.walk(expression):
        if isinstance(node, ast.Call) and not names_read_by(node.func) <= own:
            return None
    return _names_in(text) - own
