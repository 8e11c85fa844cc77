"""Which assertions could not have failed by what the app does?

Told by what stands in them, and by where a test has its values from. What cannot be followed could
have failed: nobody is accused by a guess.
"""

import ast
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import CodeType

# Most assertions ask something, and compare it with what is written as no name.
_ASKS = re.compile(r"[\w)\]]\s*[.(\[]")
_DOUBTFUL = re.compile(
    r"\bor\b|\bself\s*\.\s*assert|^\s*(?:assert\b\s*)?\(|[=!]=\s*[A-Za-z_]"
    r"|\blen\s*\(|\bstatus_code\s*[<>!]|[<>]=?\s*[\w.]+\.status_code\b"
    r"|\bstatus_code\s*(?:in\b|,)|\bisinstance\s*\(|^\s*(?:\"\"|'')\s*in\b"
)


@cache
def is_constant(text: str) -> bool:
    """Whether it says nothing about the app: ``True``, ``x == x``, ``len(x) >= 0``, ``"text"``.

    What cannot be read is none. Costs 50 µs, once for each text, but 1 µs for most.
    """
    if _ASKS.search(text) and not _DOUBTFUL.search(text):
        return False
    expression = _parsed(text)
    return expression is not None and _is_constant(expression)


@cache
def _parsed(text: str) -> ast.expr | None:
    """Return what is asserted; of one of unittest's methods what it compares."""
    try:
        node = ast.parse(f"({text})", mode="eval").body  # it may be of several lines
    except (SyntaxError, ValueError, RecursionError):
        return None
    match node:
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="self"), attr=name), args=[one, *more]
        ):
            if name == "assertIsNotNone":
                return ast.Compare(
                    left=one, ops=[ast.IsNot()], comparators=[ast.Constant(None)]
                )
            if name == "assertIsInstance" and more:
                return ast.Call(ast.Name("isinstance"), [one, more[0]], [])
            if more and (kind := _COMPARISONS.get(name)):
                return ast.Compare(left=one, ops=[kind()], comparators=more[:1])
            return (
                one
                if name == "assertTrue"
                else ast.List(elts=node.args, ctx=ast.Load())
            )
    return node


_KINDS = (ast.Eq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In)
_NAMES = ("Equal", "Less", "LessEqual", "Greater", "GreaterEqual", "In")
_COMPARISONS = {
    f"assert{name}": kind for name, kind in zip(_NAMES, _KINDS, strict=True)
}


def _is_constant(node: ast.expr) -> bool:
    match node:
        case ast.BoolOp(op=ast.Or(), values=values):
            is_always_true = any(
                isinstance(one, ast.Constant) and one.value for one in values
            )
            return is_always_true or all(map(_is_constant, values))
        case ast.BoolOp(values=values):
            return all(map(_is_constant, values))
        case ast.Tuple(elts=elements) if elements:  # `assert (x, "message")`
            return True
        case ast.Compare(left=left, ops=kinds, comparators=others):
            if all(map(_is_always, [left, *others], kinds, others)):
                return True
        case ast.Call(func=ast.Name(id="isinstance"), args=[_, kind]):
            return _is_any_class(kind)
    return not any(isinstance(one, _TELLING) for one in ast.walk(node))


_TELLING = (ast.Name, ast.Call, ast.Attribute, ast.Subscript, ast.Await, ast.NamedExpr)


def _is_always(left: ast.expr, kind: ast.cmpop, right: ast.expr) -> bool:
    if _is_same(left, right):
        return not isinstance(kind, ast.NotEq | ast.Lt | ast.Gt | ast.IsNot | ast.NotIn)
    (low, high), (least, most) = _bounds(left), _bounds(right)
    if isinstance(kind, ast.In):
        return _is_in_range(low, high, right) or _is_empty_text(left)
    if isinstance(kind, ast.IsNot | ast.NotEq) and _is_none(right):
        return isinstance(left, ast.Call) and math.isfinite(low)  # a length
    is_so = {
        "Lt": high < least,
        "LtE": high <= least,
        "Gt": low > most,
        "GtE": low >= most,
    }
    return is_so.get(type(kind).__name__, False)


def _is_in_range(low: float, high: float, right: ast.expr) -> bool:
    """Return whether the numbers between two bounds are all in ``range(…)`` of constants."""
    match right:
        case ast.Call(
            func=ast.Name(id="range"),
            args=[
                ast.Constant(value=int() as start),
                ast.Constant(value=int() as stop),
            ],
        ):
            return start <= low and high < stop
        case ast.Call(
            func=ast.Name(id="range"), args=[ast.Constant(value=int() as stop)]
        ):
            return low >= 0 and high < stop
    return False


def _is_empty_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value in {"", b""}


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_any_class(kind: ast.expr) -> bool:
    """Return whether each value is an instance of this class, or of one in this tuple."""
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(isinstance(each, ast.Name) and each.id == "object" for each in kinds)


def _is_same(left: ast.expr, right: ast.expr) -> bool:
    """Both sides alike, and nothing is called: two calls may give two answers."""
    calls = (ast.Call, ast.Await, ast.NamedExpr)
    is_called = any(isinstance(one, calls) for one in ast.walk(left))
    return not is_called and ast.dump(left) == ast.dump(right)


def _bounds(node: ast.expr) -> tuple[float, float]:
    """Between which numbers it is in any case."""
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


# Where does a test have its values from?

_ALL_OF = re.compile(
    r"all\(\[?(?:(?:(?!\) (?:and|or)\b).)+ for \w+ in )?(\w+|\[\]|\(\))\]?\)", re.DOTALL
)


def hangs_on_nothing(
    code: CodeType,
    text: str,
    names: Mapping[str, object],
    is_as_seeded: Callable[[object], bool],
) -> bool:
    """Whether an assertion in a test function is about what the test has written itself.

    Its values are constants, lists of them, mocks that nobody else has, and instances that are as
    they were seeded; or it says something about all of nothing. Costs 50 µs for each text, some
    microseconds, and 1 ms for a function that names constants.
    """
    found = _ALL_OF.fullmatch(text)
    over = {**names, "[]": [], "()": []}.get(found[1]) if found else None
    if type(over) in {list, tuple, set, dict} and not over:
        return True
    left = _not_its_own(code, text)
    return left is not None and all(is_as_seeded(names.get(name)) for name in left)


_PLAIN = frozenset(
    ["len", "str", "int", "bool", "list", "set", "tuple", "sorted", "isinstance"]
)
_WRITTEN = (
    ast.Constant,
    ast.List,
    ast.Tuple,
    ast.Set,
    ast.Dict,
    ast.keyword,
    ast.expr_context,
)
_FOLLOWED = (
    *(
        *_WRITTEN,
        ast.Compare,
        ast.BoolOp,
        ast.BinOp,
        ast.UnaryOp,
        ast.Name,
        ast.Attribute,
    ),
    *(ast.Subscript, ast.Call, ast.cmpop, ast.boolop, ast.operator, ast.unaryop),
)


@cache
def _not_its_own(code: CodeType, text: str) -> frozenset[str] | None:
    """Return the names in an assertion whose values are not the test's; None: not followed."""
    if (found := _names_in(text) if code.co_name.startswith("test") else None) is None:
        return None
    names, called = found
    own = _own_among(names, code) | _PLAIN
    return names - own if called <= own else None


@cache
def _names_in(text: str) -> tuple[frozenset[str], frozenset[str]] | None:
    """Return the names in an assertion, and those that it calls; None: not followed.

    Once for each text: tests ask the same of their answers.
    """
    node = _parsed(text)
    nodes = list(ast.walk(node)) if node is not None else []
    if not nodes or not all(isinstance(one, _FOLLOWED) for one in nodes):
        return None
    called = {_root(one.func) for one in nodes if isinstance(one, ast.Call)}
    return frozenset(one.id for one in nodes if isinstance(one, ast.Name)), frozenset(
        called
    )


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _dotted(node: ast.expr) -> str:
    """Return a name with its attributes, "" for anything else."""
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return node.id if isinstance(node, ast.Name) else ""


def function_of(code: CodeType) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """Return what a function's source says; None where it is not to be had."""
    return _functions(code.co_filename).get(code.co_firstlineno)


@cache
def _functions(file: str) -> dict[int, ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the functions in a file by their first lines, decorators included."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return {}
    return {
        min([node.lineno, *(one.lineno for one in node.decorator_list)]): node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def _own_among(names: frozenset[str], code: CodeType) -> frozenset[str]:
    """Return what the function has written itself; nothing where none of these names may be it."""
    function = function_of(code)
    for one in function.body if function else ():
        match one:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in names:
                if _is_written(value, but=_MOCK):
                    return _own_names(code)
    return frozenset()  # as nearly always: most of a function need not be read for that


@cache
def _own_names(code: CodeType) -> frozenset[str]:
    """Return the names of a function that stand for what it has written itself, from then on.

    Each is bound once, to a constant; or to a list or a mock that is given to nobody, and is
    changed by constants alone, whatever comes before it.
    """
    function = function_of(code)
    nodes, body = (list(ast.walk(function)), function.body) if function else ([], [])
    names = [one for one in nodes if isinstance(one, ast.Name)]
    bound = Counter(one.id for one in names if not isinstance(one.ctx, ast.Load))
    # Arguments, functions, modules, errors; and what others may bind.
    strange = [getattr(one, name, None) for one in nodes for name in _BINDING]
    bound.update(one for one in strange if isinstance(one, str))
    bound.update(
        name for one in nodes if isinstance(one, ast.Global) for name in one.names
    )
    asserted = (one.test for one in nodes if isinstance(one, ast.Assert))
    said = (
        it.value
        for it in body
        if isinstance(it, ast.Expr) and _is_written(it.value, but=_CALL)
    )
    kept = {id(one) for each in (*asserted, *said) for one in _looked_at(each)}
    given = {
        one.id for one in names if isinstance(one.ctx, ast.Load) and id(one) not in kept
    }
    own = set[str]()
    for one in body:
        match one:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if (
                bound[name] == 1
            ):
                is_kept = isinstance(value, ast.Constant) or name not in given
                own |= {name} if is_kept and _is_written(value, but=_MOCK) else set()
    return frozenset(own)


def _looked_at(node: ast.AST) -> Iterator[ast.Name]:
    """Names in an expression that are given to nobody who could change what they stand for."""
    if isinstance(node, ast.Name):
        yield node
    is_call = isinstance(node, ast.Call) and _root(node.func) not in _PLAIN
    inside = (
        [node.func]
        if isinstance(node, ast.Call) and is_call
        else ast.iter_child_nodes(node)
    )
    for one in () if isinstance(node, ast.Lambda) else inside:
        yield from _looked_at(one)


_BINDING = ("arg", "name", "asname", "rest")
_CALL, _MOCK = re.compile(r"[\w.]+"), re.compile(r"(?:\w+\.)*(?:Magic|Async)?Mock")


def _is_written(value: ast.expr, *, but: re.Pattern[str]) -> bool:
    """Whether all of it stands there, constants and lists of them, but for what it calls."""
    parts: Sequence[ast.AST] = [value]
    value = value.value if isinstance(value, ast.Await) else value
    if isinstance(value, ast.Call) and but.fullmatch(_dotted(value.func)):
        parts = [*value.args, *value.keywords]
    return all(isinstance(one, _WRITTEN) for part in parts for one in ast.walk(part))
