"""Finds assertions about an answer that also pass with every other answer.

pytest-arena evaluates an assertion with many made answers. Together they contain each status, text
and number that the assertion names. An assertion that passes with all of them proves nothing.
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
from pytest_arena.scenarios.assertions._data_flow import own_names, suppresses_errors
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
_PURE_FUNCTION = re.compile(
    r"all|any|bool|bytes|callable|dict|float|frozenset|getattr|hasattr|id|int|isinstance"
    r"|issubclass|len|list|max|min|object|range|repr|reversed|set|sorted|str|sum|tuple|type|zip"
)
_PART_OF_ANSWER = re.compile(
    r"(\w+)\.(?:json\(\)|text|content|status_code|headers|cookies)"
)
# These libraries have the same constructor of a response.
_HTTP_LIBRARIES = {"httpx", "httpx2"}
# Prefixes of variables that replace parts of an assertion: a request, a request in a comprehension
# (the variable is a function that returns another answer at each call), a value that no answer
# changes, and an attribute of `self`.
_ANSWER_PREFIX = "answer_of_"
_NEXT_ANSWER_PREFIX = "answers_of_"
_INVARIANT_PREFIX = "fixed_"
_SELF_PREFIX = "self."
_PLAIN_TYPES = (str, bytes, int, float, type(None), type, range)
_COLLECTIONS = (list, tuple, set, frozenset)
_cached_results: dict[tuple[CodeType, str, str], bool] = {}


def passes_with_any_answer(
    frame: FrameType,
    text: str,
    variables: Mapping[str, object],
    fixtures: Fixtures,
) -> bool:
    """Return whether an assertion also passes with each of many other answers.

    pytest-arena evaluates assertions about answers of httpx, and about values that do not depend on
    an answer. It does not evaluate an assertion that calls code of the project. The first call for
    a text takes 100 µs, or 5 ms if the assertion passes with all answers.

    Args:
        frame: the frame of the function that asserts.
        text: the text of the assertion.
        variables: the variables of the function, with their values.
        fixtures: the fixtures of the test.
    """
    expression, names = _with_answer_variables(frame.f_code, text)
    operands = _Operands(frame, variables, fixtures)
    invariants: Mapping[str, object] = {}
    if operands.has_invariants(names):
        expression, invariants = operands.replace_invariants(expression)
        names = _names_in(expression) - invariants.keys()
    own = operands.own(names)
    answer_sources = {
        name: operands.source_of_answer(name) for name in names - own.keys()
    }
    if not all(answer_sources.values()):
        return False
    if not answer_sources:
        return bool(invariants)  # the assertion has passed, and no answer affects it
    nullable = frozenset(name for name in answer_sources if operands.may_be_none(name))
    key = (frame.f_code, text, repr((own, sorted(nullable))))
    if key not in _cached_results:
        library, request = next(filter(None, answer_sources.values()))
        answers = Answers(
            library=library,
            request=request,
            literals=[*literals_in(expression), *literals_of(own)],
        )
        evaluation = _Evaluation(
            expression, {**own, **invariants}, tuple(sorted(answer_sources)), nullable
        )
        _cached_results[key] = evaluation.passes_with_all(answers)
    return _cached_results[key]


class _Operands:
    """The variables that an assertion reads, with their values."""

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
        if name.startswith(_SELF_PREFIX):
            test = self._variables.get("self")
            return getattr_static(test, name.removeprefix(_SELF_PREFIX), None)
        return self._frame.f_globals.get(name)

    def has_invariants(self, names: frozenset[str]) -> bool:
        """Return whether a variable has a value that no answer changes, such as a client."""
        return any(self._is_invariant(name, self._value(name)) for name in names)

    def replace_invariants(
        self, expression: ast.expr
    ) -> tuple[ast.expr, Mapping[str, object]]:
        """Replace values that no answer changes by variables.

        Return the new expression, and the values of these variables.
        """
        replacer = _InvariantReplacer(self._value, self._is_invariant)
        changed = replacer.truth(deepcopy(expression))
        changed = ast.fix_missing_locations(changed)
        return changed, replacer.values

    def _is_invariant(self, name: str, value: object) -> bool:
        """Return whether the class and the identity of a value are the same after any answer."""
        if name.startswith(_SELF_PREFIX):
            test = self._variables.get("self")
            return is_tool_of_set_up(test, name.removeprefix(_SELF_PREFIX))
        if isinstance(value, type | ModuleType | FunctionType):
            return name not in self._variables
        return is_tool(self._frame, name, value, self._fixtures)

    def own(self, names: frozenset[str]) -> Mapping[str, object]:
        """Return those of these variables whose values are plain and come only from the test."""
        plain = {name for name in names if _is_plain(self._variables.get(name, ...))}
        if not plain:
            return {}
        code = self._frame.f_code
        own = own_names(code)
        if not plain <= own:
            own = own_names(code, own_parameters(self._frame, self._fixtures))
        return {name: deepcopy(self._variables[name]) for name in plain & own}

    def source_of_answer(self, name: str) -> tuple[Any, Any] | None:
        """Return the HTTP library and the request of an answer, or None for another value."""
        if name in self._variables:
            return _library_of_response(self._variables[name])
        client = name.removeprefix(_ANSWER_PREFIX).removeprefix(_NEXT_ANSWER_PREFIX)
        return _library_of_client(self._value(client.rpartition("_at_")[0]))

    def may_be_none(self, name: str) -> bool:
        """Return whether a variable may have None instead of an answer."""
        if name not in self._variables:
            return False
        return not is_always_answer(self._frame, name, self._fixtures)


def _is_plain(value: object) -> bool:
    if isinstance(value, _PLAIN_TYPES):
        return True
    if type(value) is dict:
        return all(_is_plain(each) for pair in value.items() for each in pair)
    return type(value) in _COLLECTIONS and all(map(_is_plain, cast("Any", value)))


class _InvariantReplacer(ast.NodeTransformer):
    """Replaces values that no answer changes by variables.

    These are classes, and objects of which the assertion reads only truth, identity or class.
    """

    def __init__(
        self,
        value_of: Callable[[str], object],
        is_invariant: Callable[[str, object], bool],
    ) -> None:
        self._value_of = value_of
        self._is_invariant = is_invariant
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
            return (
                self._variable_for(value)
                if self._is_invariant(node.id, value)
                else node
            )
        return cast("ast.expr", self.visit(node))

    def _variable_for(self, value: object) -> ast.Name:
        name = f"{_INVARIANT_PREFIX}{len(self.values)}"
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
        return (
            self._variable_for(value)
            if isinstance(value, type) and not is_builtin
            else node
        )

    def _resolved(self, node: ast.expr) -> object:
        """Return the value of a name or of an attribute of a module, or None."""
        match node:
            case ast.Name(id=name):
                value = self._value_of(name)
                return value if self._is_invariant(name, value) else None
            case ast.Attribute(value=owner, attr=attribute):
                module = self._resolved(owner)
                if isinstance(module, ModuleType):
                    return vars(module).get(attribute)
        return None


def _library_of_response(response: object) -> tuple[Any, Any] | None:
    """Return the library and the request of a response, or None for another object."""
    package = type(response).__module__.partition(".")[0]
    if package not in _HTTP_LIBRARIES:
        return None
    library: Any = sys.modules[package]
    if not isinstance(response, library.Response):
        return None
    return library, cast("Any", response).request


def _library_of_client(client: object) -> tuple[Any, Any] | None:
    """Return the library of a client with a new request, or None for another object."""
    for base in type(client).__mro__:
        package = base.__module__.partition(".")[0]
        if package in _HTTP_LIBRARIES:
            library: Any = sys.modules[package]
            return library, library.Request("GET", "http://test/")
    return None


@cache
def _with_answer_variables(
    code: CodeType, text: str
) -> tuple[ast.expr, frozenset[str]]:
    """Return an assertion in terms of answers, and the names that it reads.

    A variable that was assigned ``answer.json()`` is replaced by this expression. A request in the
    assertion is replaced by a variable for its answer. If pytest-arena does not evaluate the
    assertion, the only name is "", which no variable has.
    """
    expression = parsed(text)
    # `parsed` returns a list for other methods of unittest. Only a client sets `next_request`.
    if expression is None or isinstance(expression, ast.List) or "next_request" in text:
        return ast.Constant(None), frozenset({""})
    replacer = _RequestReplacer("text")
    changed = replacer.visit(_SelfAttributeReplacer().visit(deepcopy(expression)))
    inliner = _VariableInliner(_parts_of_answers(code))
    inlined = inliner.visit(changed)
    ast.fix_missing_locations(inlined)
    return cast("ast.expr", inlined), _names_in(inlined)


class _SelfAttributeReplacer(ast.NodeTransformer):
    """Replaces each attribute of ``self`` by a variable."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        """Return a variable called ``self.NAME``. Leave attributes of other objects as they are."""
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                return ast.Name(f"{_SELF_PREFIX}{name}", node.ctx)
        self.generic_visit(node)
        return node


class _VariableInliner(ast.NodeTransformer):
    """Replaces variables by the expressions that were assigned to them."""

    def __init__(self, values: Mapping[str, ast.expr]) -> None:
        self._values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Return the value of a variable."""
        value = self._values.get(node.id, node)
        return deepcopy(value)


class _RequestReplacer(ast.NodeTransformer):
    """Replaces ``await client.get("/orders")`` by a variable that has its answer.

    In a comprehension, the request becomes a call that returns the next answer.
    """

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        self._loops = 0
        self._numbers = count()

    def visit_Await(self, node: ast.Await) -> ast.expr:
        """Replace an awaited request, or a ``gather`` of requests, by variables of answers."""
        match self.visit(node.value):
            case ast.Name() | ast.Call(func=ast.Name()) as answer:
                if _is_answer(answer):
                    return cast("ast.expr", answer)
            case ast.Call(func=ast.Attribute(attr="gather"), args=answers, keywords=[]):
                if all(map(_is_answer, answers)):
                    return ast.List(answers, ast.Load())
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """Replace a request by the variable of its answer."""
        match node.func:
            case ast.Attribute(value=ast.Name(id=client), attr=method):
                if method in METHODS:
                    request = f"{client}_at_{self._suffix}{next(self._numbers)}"
                    if not self._loops:
                        return ast.Name(f"{_ANSWER_PREFIX}{request}", ast.Load())
                    return ast.Call(
                        ast.Name(f"{_NEXT_ANSWER_PREFIX}{request}", ast.Load()), [], []
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


def _is_answer(node: ast.expr) -> bool:
    """Return whether an expression is the variable of an answer, or unpacks such variables."""
    match node:
        case ast.Name(id=name) | ast.Call(func=ast.Name(id=name)):
            return name.startswith((_ANSWER_PREFIX, _NEXT_ANSWER_PREFIX))
        case ast.Starred(value=ast.GeneratorExp(elt=answer) | ast.ListComp(elt=answer)):
            return _is_answer(answer)
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
def _parts_of_answers(code: CodeType) -> Mapping[str, ast.expr]:
    """Return the parts of answers that a function assigns to variables, such as ``answer.json()``.

    A part may also be a container of answers, or a list to which the function appends answers. Only
    assertions read these variables. The function assigns each variable once, outside of loops. It
    also assigns each variable in the assigned expression once.
    """
    function = function_of(code)
    if function is None:
        return {}
    function = cast("Function", _SelfAttributeReplacer().visit(deepcopy(function)))
    nodes = list(ast.walk(function))
    bindings = bindings_in(nodes)
    assertion_nodes: set[ast.AST] = set()
    for node in nodes:
        if isinstance(node, ast.Assert) or _is_unittest_assertion(node):
            assertion_nodes.update(ast.walk(node))
    assignments = _Assignments({}, set())
    assignments.read(function.body)
    assertion_nodes |= assignments.append_owners
    read_elsewhere = {
        (node.id, type(node.ctx))
        for node in nodes
        if isinstance(node, ast.Name) and node not in assertion_nodes
    }
    values = {}
    for name, value in assignments.values.items():
        is_part = _PART_OF_ANSWER.fullmatch(ast.unparse(value))
        if not is_part and not isinstance(value, _CONTAINERS):
            continue
        if (name, ast.Load) in read_elsewhere or bindings[name] != 1:
            continue
        names = {node.id for node in ast.walk(value) if isinstance(node, ast.Name)}
        if all(bindings[each] <= 1 for each in names):
            replacer = _RequestReplacer(f"{name}_")
            values[name] = replacer.visit(deepcopy(value))
    return {name: value for name, value in values.items() if _is_inlined(value)}


def _is_unittest_assertion(node: ast.AST) -> bool:
    # _SelfAttributeReplacer has replaced the method by a variable, such as `self.assertEqual`.
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return name.startswith(f"{_SELF_PREFIX}assert")
    return False


def _is_inlined(value: ast.expr) -> bool:
    """Return whether a value can replace its variable in an assertion."""
    if isinstance(value, ast.Name):
        return not _is_answer(value)
    return not isinstance(value, ast.Await)


class _Assignments(NamedTuple):
    """The values that statements assign to variables outside of branches."""

    values: dict[str, ast.expr]
    """The values by the names of the variables. A list includes its appended items."""
    append_owners: set[ast.AST]
    """The lists in calls of ``append``, as syntax nodes. Such a call does not read its list."""

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
                    if not suppresses_errors(statement):
                        self.read(body)

    def _append(self, call: ast.expr, loop: ast.comprehension | None = None) -> None:
        """Add the item of an ``append`` to its list. In a loop, add one item per iteration."""
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
                self.append_owners.add(owner)

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
                item = _VariableInliner({name: value}).visit(deepcopy(item))
                self._append(ast.Call(function, [item], []), loop)


def _names_in(expression: ast.expr) -> frozenset[str]:
    """Return the names of variables and of functions with effects that an assertion reads."""
    read = set()
    bound = set()
    for node in ast.walk(expression):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                if not _PURE_FUNCTION.fullmatch(name):
                    read.add(name)
            case ast.Name(id=name):
                bound.add(name)
            case ast.arg(arg=name):
                bound.add(name)
    return frozenset(read - bound)


class _Evaluation(NamedTuple):
    """An assertion that pytest-arena evaluates with other answers."""

    expression: ast.expr
    values: Mapping[str, object]
    answer_names: Sequence[str]
    """The variables that have answers."""
    nullable: frozenset[str]
    """The variables among them that may have None instead."""

    def passes_with_all(self, answers: Answers) -> bool:
        """Return whether the assertion passes with all combinations of answers."""
        if not answers.are_possible:
            return False
        try:
            code = compile(ast.Expression(self.expression), "<assertion>", "eval")
        except SyntaxError:  # the assertion has an `await`
            return False
        for name in self.nullable:
            with_none: dict[str, object] = dict.fromkeys(self.answer_names, _NoAnswer())
            if not self._passes(code, with_none | {name: None}, is_error_ignored=True):
                return False
        return all(self._passes(code, values) for values in self._combinations(answers))

    def _combinations(self, answers: Answers) -> Iterator[dict[str, object]]:
        first, *others = self.answer_names
        if not others and not first.startswith(_NEXT_ANSWER_PREFIX):
            for answer in answers.all():
                yield {first: answer}
            return
        lists = [list(answers.all()) for _ in self.answer_names]
        total = len(lists[0])
        statuses_per_body = len(answers.statuses)
        # Two answers differ in body and status, in the status, in the body, or not at all.
        for stride in (statuses_per_body + 1, 1, statuses_per_body, 0):
            for start in range(total):
                values = {}
                for number, name in enumerate(self.answer_names):
                    index = start + number * stride
                    values[name] = _next_answer(name, lists[number], index, stride)
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
            return True  # this body is not JSON: another body decides
        except Exception:  # noqa: BLE001 - any other error fails the test
            return is_error_ignored


class _NoAnswer:
    """The value of the other answer variables while one of them has None."""


def _next_answer(name: str, answers: list[object], index: int, stride: int) -> object:
    """Return an answer, or a function that returns the next answer at each call."""
    if not name.startswith(_NEXT_ANSWER_PREFIX):
        return answers[index % len(answers)]
    indexes = count(index, stride)
    return lambda: answers[next(indexes) % len(answers)]
