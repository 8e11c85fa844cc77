"""Finds assertions about an answer that also pass with every other answer.

Each assertion is evaluated with many other answers. Together they contain each status, text and
number that the assertion names. An assertion that passes with all of them proves nothing.
"""

import ast
import builtins
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache
from inspect import getattr_static
from itertools import count
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, NamedTuple, cast

from pytest_arena.scenarios.assertions._answer_variables import (
    METHODS,
    is_always_answer,
    is_tool,
    is_tool_of_set_up,
)
from pytest_arena.scenarios.assertions._data_flow import is_swallowing, own_names
from pytest_arena.scenarios.assertions._idle import parsed
from pytest_arena.scenarios.assertions._made_answers import (
    Answers,
    literals_in,
    literals_of,
)
from pytest_arena.scenarios.assertions._own_parameters import Fixtures, own_parameters
from pytest_arena.scenarios.assertions._test_files import (
    Function,
    bindings_in,
    function_of,
)

# Functions without effects. Assertions that call other functions are not evaluated.
_FUNCTION = re.compile(
    r"all|any|bool|bytes|callable|dict|float|frozenset|getattr|hasattr|id|int|isinstance"
    r"|issubclass|len|list|max|min|object|range|repr|reversed|set|sorted|str|sum|tuple|type|zip"
)
_OF_ANSWER = re.compile(r"(\w+)\.(?:json\(\)|text|content|status_code|headers|cookies)")
# Libraries with this constructor of a response.
_PACKAGES = {"httpx", "httpx2"}
_ANSWER_OF = "answer_of_"
_ANSWERS_OF = "answers_of_"  # a function that returns the next answer
_FIXED = "fixed_"
_SELF = "self."  # prefix of the variables that replace attributes of `self`
_PLAIN = (str, bytes, int, float, type(None), type, range)
_COLLECTIONS = (list, tuple, set, frozenset)
_results: dict[tuple[CodeType, str, str], bool] = {}


def passes_with_any_answer(
    frame: FrameType,
    text: str,
    variables: Mapping[str, object],
    fixtures: Fixtures,
) -> bool:
    """Return whether an assertion also passes with each of many other answers.

    pytest-arena evaluates assertions about answers of httpx, and about values that do not depend
    on an answer. It evaluates none that calls code of the project. The first call for a text takes
    100 µs, or 5 ms if the assertion passes with all answers.

    Args:
        frame: the frame of the function that asserts.
        text: the text of the assertion.
        variables: the variables of the function, with their values.
        fixtures: the fixtures of the test.
    """
    expression, names = _about_answer(frame.f_code, text)
    reading = _Reading(frame, variables, fixtures)
    fixed: Mapping[str, object] = {}
    if reading.has_fixed(names):
        expression, fixed = reading.fixed(expression)
        names = _names_in(expression) - fixed.keys()
    own = reading.own(names)
    answered = {name: reading.answer(name) for name in names - own.keys()}
    if not all(answered.values()):
        return False
    if not answered:
        return bool(fixed)  # the assertion has passed, and no answer affects it
    uncertain = frozenset(name for name in answered if reading.may_be_none(name))
    key = (frame.f_code, text, repr((own, sorted(uncertain))))
    if key not in _results:
        library, request = next(filter(None, answered.values()))
        answers = Answers(
            library=library,
            request=request,
            literals=[*literals_in(expression), *literals_of(own)],
        )
        evaluation = _Evaluation(
            expression, {**own, **fixed}, tuple(sorted(answered)), uncertain
        )
        _results[key] = evaluation.passes_always(answers)
    return _results[key]


class _Reading:
    """The values that an assertion reads."""

    def __init__(
        self,
        frame: FrameType,
        variables: Mapping[str, object],
        fixtures: Fixtures,
    ) -> None:
        self._frame = frame
        self._variables = variables
        self._fixtures = fixtures

    def _value(self, name: str) -> object:
        if name in self._variables:
            return self._variables[name]
        if name.startswith(_SELF):
            test = self._variables.get("self")
            return getattr_static(test, name.removeprefix(_SELF), None)
        return self._frame.f_globals.get(name)

    def has_fixed(self, names: frozenset[str]) -> bool:
        """Return whether a variable has a class, a client or a similar object."""
        return any(self._is_fixed(name, self._value(name)) for name in names)

    def fixed(self, expression: ast.expr) -> tuple[ast.expr, Mapping[str, object]]:
        """Replace classes, and clients of which only the identity or the class matters."""
        fixing = _Fixing(self._value, self._is_fixed)
        changed = fixing.truth(deepcopy(expression))
        changed = ast.fix_missing_locations(changed)
        return changed, fixing.values

    def _is_fixed(self, name: str, value: object) -> bool:
        """Return whether no answer can change the class or the identity of a value."""
        if name.startswith(_SELF):
            test = self._variables.get("self")
            return is_tool_of_set_up(test, name.removeprefix(_SELF))
        if isinstance(value, type | ModuleType | FunctionType):
            return name not in self._variables
        return is_tool(self._frame, name, value, self._fixtures)

    def own(self, names: frozenset[str]) -> Mapping[str, object]:
        """Return the plain values among these variables that the test itself made."""
        plain = {name for name in names if _is_plain(self._variables.get(name, ...))}
        if not plain:
            return {}
        code = self._frame.f_code
        own = own_names(code)
        if not plain <= own:
            own = own_names(code, own_parameters(self._frame, self._fixtures))
        return {name: deepcopy(self._variables[name]) for name in plain & own}

    def answer(self, name: str) -> tuple[Any, Any] | None:
        """Return the library and the request of an answer, or None for another value."""
        if name in self._variables:
            return _of_response(self._variables[name])
        client = name.removeprefix(_ANSWER_OF).removeprefix(_ANSWERS_OF)
        return _of_client(self._value(client.rpartition("_at_")[0]))

    def may_be_none(self, name: str) -> bool:
        """Return whether a variable may have None instead of an answer."""
        if name not in self._variables:
            return False
        return not is_always_answer(self._frame, name, self._fixtures)


def _is_plain(value: object) -> bool:
    if isinstance(value, _PLAIN):
        return True
    if type(value) is dict:
        return all(_is_plain(each) for pair in value.items() for each in pair)
    return type(value) in _COLLECTIONS and all(map(_is_plain, cast("Any", value)))


class _Fixing(ast.NodeTransformer):
    """Replaces values that no answer changes by variables.

    The visitor replaces an object if only its truth, its identity or its class matters.
    """

    def __init__(
        self,
        value_of: Callable[[str], object],
        is_fixed: Callable[[str, object], bool],
    ) -> None:
        self._value_of = value_of
        self._is_fixed = is_fixed
        self.values: dict[str, object] = {}

    def truth(self, node: ast.expr) -> ast.expr:
        """Replace an object whose truth is asserted."""
        match node:
            case ast.BoolOp(op=operator, values=values):
                return ast.BoolOp(operator, [self.truth(value) for value in values])
            case ast.UnaryOp(op=ast.Not() as operator, operand=operand):
                return ast.UnaryOp(operator, self.truth(operand))
        return self._object(node)

    def _object(self, node: ast.expr) -> ast.expr:
        if isinstance(node, ast.Name):
            value = self._value_of(node.id)
            return self._fix(value) if self._is_fixed(node.id, value) else node
        return cast("ast.expr", self.visit(node))

    def _fix(self, value: object) -> ast.Name:
        name = f"{_FIXED}{len(self.values)}"
        self.values[name] = value
        return ast.Name(name, ast.Load())

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        """Replace objects whose identity is compared, and classes."""
        operands = [node.left, *node.comparators]
        if all(isinstance(operator, ast.Is | ast.IsNot) for operator in node.ops):
            operands = [self._object(self._class(each)) for each in operands]
        else:
            operands = [self.visit(each) for each in operands]
        return ast.Compare(operands[0], node.ops, operands[1:])

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """Replace the object and the class in a call such as ``isinstance``."""
        match node:
            case ast.Call(
                func=ast.Name("isinstance" | "issubclass"), args=[value, kind]
            ):
                arguments = [self._object(value), self._class(kind)]
            case ast.Call(
                func=ast.Name("type" | "bool" | "callable" | "id"), args=[value]
            ):
                arguments = [self._object(value)]
            case _:
                arguments = [self.visit(value) for value in node.args]
        return ast.Call(node.func, arguments, node.keywords)

    def _class(self, node: ast.expr) -> ast.expr:
        if isinstance(node, ast.Tuple):
            return ast.Tuple([self._class(each) for each in node.elts], ast.Load())
        value = self._resolved(node)
        is_builtin = getattr(value, "__module__", "builtins") == "builtins"
        return self._fix(value) if isinstance(value, type) and not is_builtin else node

    def _resolved(self, node: ast.expr) -> object:
        """Return the value of a name or of an attribute of a module, or None."""
        match node:
            case ast.Name(id=name):
                value = self._value_of(name)
                return value if self._is_fixed(name, value) else None
            case ast.Attribute(value=owner, attr=attribute):
                module = self._resolved(owner)
                if isinstance(module, ModuleType):
                    return vars(module).get(attribute)
        return None


def _of_response(response: object) -> tuple[Any, Any] | None:
    """Return the library and the request of a response, or None for another object."""
    package = type(response).__module__.partition(".")[0]
    if package not in _PACKAGES:
        return None
    library: Any = sys.modules[package]
    if not isinstance(response, library.Response):
        return None
    return library, cast("Any", response).request


def _of_client(client: object) -> tuple[Any, Any] | None:
    """Return the library of a client with a new request, or None for another object."""
    for base in type(client).__mro__:
        package = base.__module__.partition(".")[0]
        if package in _PACKAGES:
            library: Any = sys.modules[package]
            return library, library.Request("GET", "http://test/")
    return None


@cache
def _about_answer(code: CodeType, text: str) -> tuple[ast.expr, frozenset[str]]:
    """Return an assertion about answers, and the names that it reads.

    ``answer.json()`` replaces the variable that has its value. A variable replaces a request that
    the assertion itself sends. An assertion that is not evaluated reads the unknown name "".
    """
    expression = parsed(text)
    # `parsed` returns a list for other methods of unittest. Only a client sets `next_request`.
    if expression is None or isinstance(expression, ast.List) or "next_request" in text:
        return ast.Constant(None), frozenset({""})
    answering = _Answering("text")
    changed = answering.visit(_SelfAttributes().visit(deepcopy(expression)))
    inlining = _Inlining(_values_by_name(code))
    inlined = inlining.visit(changed)
    ast.fix_missing_locations(inlined)
    return cast("ast.expr", inlined), _names_in(inlined)


class _SelfAttributes(ast.NodeTransformer):
    """Replaces each attribute of ``self`` by a variable."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        """Return a variable called ``self.NAME``. Leave attributes of other objects as they are."""
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                return ast.Name(f"{_SELF}{name}", node.ctx)
        self.generic_visit(node)
        return node


class _Inlining(ast.NodeTransformer):
    """Replaces variables by the expressions that were assigned to them."""

    def __init__(self, values: Mapping[str, ast.expr]) -> None:
        self._values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Return the value of a variable."""
        value = self._values.get(node.id, node)
        return deepcopy(value)


class _Answering(ast.NodeTransformer):
    """Replaces ``await client.get("/orders")`` by a variable that has its answer.

    In a comprehension a call that returns the next answer replaces the request.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._loops = 0
        self._numbers = count()

    def visit_Await(self, node: ast.Await) -> ast.expr:
        """Return the variable of the answer of an async client, or a list of such variables."""
        match self.visit(node.value):
            case ast.Name() | ast.Call(func=ast.Name()) as answer:
                if _is_of_request(answer):
                    return cast("ast.expr", answer)
            case ast.Call(func=ast.Attribute(attr="gather"), args=answers, keywords=[]):
                if all(map(_is_of_request, answers)):
                    return ast.List(answers, ast.Load())
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """Return the variable of the answer of a sync client."""
        match node.func:
            case ast.Attribute(value=ast.Name(id=client), attr=method):
                if method in METHODS:
                    place = f"{client}_at_{self._place}{next(self._numbers)}"
                    if not self._loops:
                        return ast.Name(f"{_ANSWER_OF}{place}", ast.Load())
                    return ast.Call(
                        ast.Name(f"{_ANSWERS_OF}{place}", ast.Load()), [], []
                    )
        self.generic_visit(node)
        return node

    def _visit_loop(self, node: ast.expr) -> ast.expr:
        self._loops += 1
        self.generic_visit(node)
        self._loops -= 1
        return node

    visit_ListComp = _visit_loop  # noqa: N815 - as ast names it
    visit_SetComp = _visit_loop  # noqa: N815 - as ast names it
    visit_DictComp = _visit_loop  # noqa: N815 - as ast names it
    visit_GeneratorExp = _visit_loop  # noqa: N815 - as ast names it
    visit_Lambda = _visit_loop  # noqa: N815 - as ast names it


def _is_of_request(node: ast.expr) -> bool:
    """Return whether an expression is an answer, or unpacks to answers."""
    match node:
        case ast.Name(id=name) | ast.Call(func=ast.Name(id=name)):
            return name.startswith((_ANSWER_OF, _ANSWERS_OF))
        case ast.Starred(value=ast.GeneratorExp(elt=answer) | ast.ListComp(elt=answer)):
            return _is_of_request(answer)
    return False


_CONTAINERS = (
    ast.List,
    ast.Tuple,
    ast.Set,
    ast.Dict,
    ast.ListComp,
    ast.Name,
    ast.Await,
)


@cache
def _values_by_name(code: CodeType) -> Mapping[str, ast.expr]:
    """Return the parts of answers that a function assigns to variables, such as ``answer.json()``.

    They include containers that the function makes of answers, and lists to which it appends
    answers. Only assertions read these variables. The function assigns each of them once, outside
    of loops, and so each variable that their values name.
    """
    function = function_of(code)
    if function is None:
        return {}
    function = cast("Function", _SelfAttributes().visit(deepcopy(function)))
    nodes = list(ast.walk(function))
    bindings = bindings_in(nodes)
    asserted: set[ast.AST] = set()
    for node in nodes:
        if isinstance(node, ast.Assert) or _is_unittest_assertion(node):
            asserted.update(ast.walk(node))
    assigned = _Assigned({}, set())
    assigned.read(function.body)
    asserted |= assigned.appending
    shared = {
        (node.id, type(node.ctx))
        for node in nodes
        if isinstance(node, ast.Name) and node not in asserted
    }
    values = {}
    for name, value in assigned.values.items():
        is_part = _OF_ANSWER.fullmatch(ast.unparse(value))
        if not is_part and not isinstance(value, _CONTAINERS):
            continue
        if (name, ast.Load) in shared or bindings[name] != 1:
            continue
        names = {node.id for node in ast.walk(value) if isinstance(node, ast.Name)}
        if all(bindings[each] <= 1 for each in names):
            answering = _Answering(f"{name}_")
            values[name] = answering.visit(deepcopy(value))
    return {name: value for name, value in values.items() if _is_inlined(value)}


def _is_unittest_assertion(node: ast.AST) -> bool:
    # _SelfAttributes has replaced the method by a variable, such as `self.assertEqual`.
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return name.startswith(f"{_SELF}assert")
    return False


def _is_inlined(value: ast.expr) -> bool:
    """Return whether a value is a part of the answer, or computed from it."""
    if isinstance(value, ast.Name):
        return not _is_of_request(value)
    return not isinstance(value, ast.Await)


class _Assigned(NamedTuple):
    """The values that statements assign to variables outside of branches."""

    values: dict[str, ast.expr]
    """The values by the names of the variables. A list includes its appended items."""
    appending: set[ast.AST]
    """The nodes of the variables whose ``append`` is called. Such a call does not read the list."""

    def read(self, statements: Sequence[ast.stmt]) -> None:
        """Add the values of statements."""
        for statement in statements:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self.values[name] = deepcopy(value)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    self.values[name] = deepcopy(value)
                case ast.Expr(value=call):
                    self._append(call)
                case ast.For(target=target, iter=items, body=body, orelse=[]):
                    self._append_in_loop(body, ast.comprehension(target, items, [], 0))
                case ast.With(body=body) | ast.AsyncWith(body=body):
                    # In a block that swallows errors, an `append` may not run.
                    if not is_swallowing(statement):
                        self.read(body)

    def _append(self, call: ast.expr, loop: ast.comprehension | None = None) -> None:
        """Add the item of an ``append`` to its list. In a loop, add one item for each turn."""
        match call:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=name) as owner, attr="append"),
                args=[item],
            ):
                appended_list = self.values.get(name)
                if not isinstance(appended_list, ast.List):
                    return
                if loop is not None:
                    item = ast.Starred(ast.ListComp(item, [loop]), ast.Load())
                appended_list.elts.append(item)
                self.appending.add(owner)

    def _append_in_loop(
        self, body: Sequence[ast.stmt], loop: ast.comprehension
    ) -> None:
        """Add the items of a loop that only appends.

        The loop may assign the item to a variable first.
        """
        match body:
            case [ast.Expr(value=call)]:
                self._append(call, loop)
            case [
                ast.Assign(targets=[ast.Name(id=name)], value=value),
                ast.Expr(value=ast.Call(func=function, args=[item])),
            ]:
                item = _Inlining({name: value}).visit(deepcopy(item))
                self._append(ast.Call(function, [item], []), loop)


def _names_in(expression: ast.expr) -> frozenset[str]:
    """Return the variables that an assertion reads, and the functions that it calls."""
    read = set()
    bound = set()
    for node in ast.walk(expression):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                if not _FUNCTION.fullmatch(name):
                    read.add(name)
            case ast.Name(id=name):
                bound.add(name)
            case ast.arg(arg=name):
                bound.add(name)
    return frozenset(read - bound)


class _Evaluation(NamedTuple):
    """An assertion that is evaluated with other answers."""

    expression: ast.expr
    values: Mapping[str, object]
    answered: Sequence[str]
    """The variables that have answers."""
    uncertain: frozenset[str]
    """The variables that may have None instead."""

    def passes_always(self, answers: Answers) -> bool:
        """Return whether the assertion is true with all combinations of answers."""
        if not answers.are_possible:
            return False
        try:
            code = compile(ast.Expression(self.expression), "<assertion>", "eval")
        except SyntaxError:  # the assertion has an `await`
            return False
        for name in self.uncertain:
            with_none: dict[str, object] = dict.fromkeys(self.answered, _Anything())
            if not self._passes(code, with_none | {name: None}, is_error_ignored=True):
                return False
        return all(self._passes(code, values) for values in self._combinations(answers))

    def _combinations(self, answers: Answers) -> Iterator[dict[str, object]]:
        first, *others = self.answered
        if not others and not first.startswith(_ANSWERS_OF):
            for answer in answers.all():
                yield {first: answer}
            return
        lists = [list(answers.all()) for _ in self.answered]
        total = len(lists[0])
        per_body = len(answers.statuses)
        # Two answers differ in the status, in the body, in both, or in nothing.
        for stride in (per_body + 1, 1, per_body, 0):
            for start in range(total):
                values = {}
                for number, name in enumerate(self.answered):
                    place = start + number * stride
                    values[name] = _next_answer(name, lists[number], place, stride)
                yield values

    def _passes(
        self,
        code: CodeType,
        answers: Mapping[str, object],
        *,
        is_error_ignored: bool = False,
    ) -> bool:
        variables = {
            "__builtins__": builtins,
            **self.values,
            **answers,
        }
        try:
            return bool(eval(code, variables))  # noqa: S307 - the test's own assertion
        except (json.JSONDecodeError, UnicodeDecodeError):
            return True  # this body is not JSON, and only JSON bodies count
        except Exception:  # noqa: BLE001 - any other error fails the test
            return is_error_ignored


class _Anything:
    """The value of the other variables if a variable has None instead of an answer."""


def _next_answer(name: str, answers: list[object], place: int, stride: int) -> object:
    """Return an answer, or a function that returns the next answer at each call."""
    if not name.startswith(_ANSWERS_OF):
        return answers[place % len(answers)]
    places = count(place, stride)
    return lambda: answers[next(places) % len(answers)]
