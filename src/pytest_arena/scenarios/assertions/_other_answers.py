"""Finds assertions about an answer that pass with every other answer, too.

The assertion is evaluated with many other answers. Between them they have each status, text and
number that the assertion names. An assertion that passes with all of them proves nothing.
"""

import ast
import builtins
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from types import CodeType
from typing import Any, Protocol, cast
from urllib.parse import quote

from pytest_arena.scenarios.assertions._idle import parsed
from pytest_arena.scenarios.assertions._test_files import bindings_in, function_of

# Functions without effects. An assertion that calls another function is not evaluated.
_FUNCTION = re.compile(
    r"all|any|bool|bytes|callable|dict|float|frozenset|getattr|hasattr|int|isinstance|len|list"
    r"|max|min|object|range|repr|reversed|set|sorted|str|sum|tuple|type|zip"
)
# The first ones make most assertions fail.
_STATUSES = (
    500,
    404,
    200,
    201,
    302,
    400,
    401,
    403,
    409,
    422,
    503,
)
_BODIES: tuple[object, ...] = (
    {"detail": "Not Found"},
    [],
    {},
    [0, 0],
    [1, 0],
)
_OF_ANSWER = re.compile(r"(\w+)\.(?:json\(\)|text|content|status_code|headers|cookies)")
# Responses of other libraries have other constructors.
_PACKAGES = {"httpx", "httpx2"}
_METHODS = {"get", "post", "put", "patch", "delete", "head", "options", "request"}
_ANSWER_OF = "answer_of_"
_LATIN_1 = ("content-type", "text/plain; charset=latin-1")
_HIGHEST = 10_000
_LONGEST = 100_000
_TOKEN = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_results: dict[tuple[CodeType, str], bool] = {}

Headers = list[tuple[str, str]]


class _Library(Protocol):
    """The library httpx or httpx2."""

    Request: type[Any]
    Response: type[Any]


def passes_with_any_answer(
    code: CodeType, text: str, variables: Mapping[str, object]
) -> bool:
    """Return whether an assertion also passes with each of many other answers.

    Only assertions about one answer of httpx are evaluated, and only those that call no code of
    the project. Costs 100 µs for most texts and 5 ms for those that pass, once for each text.

    Args:
        code: of the function that asserts.
        text: of the assertion.
        variables: those of the function, with their values.
    """
    key = (code, text)
    if key in _results:
        return _results[key]
    expression = _about_answer(code, text)
    name = _only_name_in(expression)
    if expression is None or not name:
        return False
    if name in variables:
        library, request = _of_response(variables[name])
    else:
        library, request = _of_client(variables.get(name.removeprefix(_ANSWER_OF)))
    if request is None:
        return False
    answers = _Answers(
        library=library,
        request=request,
        literals=_literals_in(expression),
    )
    is_idle = _passes_always(expression, name, answers)
    _results[key] = is_idle
    return is_idle


def _of_response(response: object) -> tuple[Any, Any]:
    """Return the library and the request of a response, None for another object."""
    package = type(response).__module__.partition(".")[0]
    if package not in _PACKAGES:
        return None, None
    library: Any = sys.modules[package]
    kind: Any = library.Response
    return library, response.request if isinstance(response, kind) else None


def _of_client(client: object) -> tuple[Any, Any]:
    """Return the library of a client and some request, None for another object."""
    for base in type(client).__mro__:
        package = base.__module__.partition(".")[0]
        if package in _PACKAGES:
            library: Any = sys.modules[package]
            return library, library.Request("GET", "http://test/")
    return None, None


@cache
def _about_answer(code: CodeType, text: str) -> ast.expr | None:
    """Return an assertion with ``answer.json()`` in place of the variable that has its value.

    A variable takes the place of a request that the assertion itself sends.

    Return None for an assertion that is not evaluated.
    """
    expression = parsed(text)
    if expression is None or isinstance(expression, ast.List):
        return None  # a list has the arguments of another method of unittest
    if "next_request" in text:
        return None  # a client sets it
    inlining = _Inlining(_values_by_name(code))
    inlined = inlining.visit(deepcopy(expression))
    answering = _Answering()
    inlined = answering.visit(inlined)
    if answering.requests > 1:
        return None  # two answers may differ
    ast.fix_missing_locations(inlined)
    return cast("ast.expr", inlined)


class _Inlining(ast.NodeTransformer):
    """Replaces variables by the expressions that were assigned to them."""

    def __init__(self, values: Mapping[str, ast.expr]) -> None:
        self._values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Return the value of a variable."""
        value = self._values.get(node.id, node)
        return deepcopy(value)


class _Answering(ast.NodeTransformer):
    """Replaces ``await client.get("/orders")`` by a variable that has its answer."""

    def __init__(self) -> None:
        self.requests = 0

    def visit_Await(self, node: ast.Await) -> ast.expr:
        """Return the variable of the answer of an async client."""
        answer = self.visit(node.value)
        return answer if isinstance(answer, ast.Name) else node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """Return the variable of the answer of a sync client."""
        match node.func:
            case ast.Attribute(value=ast.Name(id=client), attr=method):
                if method in _METHODS:
                    self.requests += 1
                    return ast.Name(f"{_ANSWER_OF}{client}", ast.Load())
        self.generic_visit(node)
        return node


@cache
def _values_by_name(code: CodeType) -> Mapping[str, ast.expr]:
    """Return the parts of answers that a function assigns to variables, such as ``answer.json()``.

    Only its assertions read these variables. Each is assigned once, outside of loops, and so is
    the variable of the answer.
    """
    function = function_of(code)
    if function is None:
        return {}
    nodes = list(ast.walk(function))
    bindings = bindings_in(nodes)
    asserted: set[ast.AST] = set()
    for node in nodes:
        if isinstance(node, ast.Assert):
            asserted.update(ast.walk(node))
    shared = {
        (node.id, type(node.ctx))
        for node in nodes
        if isinstance(node, ast.Name) and node not in asserted
    }
    values = {}
    for name, value in _assigned(function.body):
        text = ast.unparse(value)
        part = _OF_ANSWER.fullmatch(text)
        if part is None or (name, ast.Load) in shared:
            continue
        is_assigned_once = bindings[name] == 1
        is_about_one_answer = bindings[part[1]] == 1
        if is_assigned_once and is_about_one_answer:
            values[name] = value
    return values


def _assigned(statements: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, value
            case ast.With(body=body) | ast.AsyncWith(body=body):
                yield from _assigned(body)


@cache
def _only_name_in(expression: ast.expr | None) -> str:
    """Return the variable that an assertion reads; "" if it reads several, or calls a function."""
    if expression is None:
        return ""
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
    names = list(read - bound)
    if len(names) != 1:
        return ""
    return names[0]


def _passes_always(expression: ast.expr, name: str, answers: "_Answers") -> bool:
    try:
        code = compile(ast.Expression(expression), "<assertion>", "eval")
    except SyntaxError:  # it awaits something
        return False
    for response in answers.all():
        variables = {
            "__builtins__": builtins,
            name: response,
        }
        try:
            is_true = bool(eval(code, variables))  # noqa: S307 - the test's own assertion
        except (json.JSONDecodeError, UnicodeDecodeError):
            continue  # this body is no JSON: bodies of JSON decide
        except Exception:  # noqa: BLE001 - any other error fails the test
            return False
        if not is_true:
            return False
    return True


def _literals_in(expression: ast.expr) -> list[object]:
    """Return the values in an assertion that an app may send: numbers, texts, lists, dicts.

    None is left out: an error is not ``null`` either, so ``is not None`` proves nothing.
    """
    values = []
    for node in ast.walk(expression):
        try:
            value = ast.literal_eval(node)
            if not isinstance(value, bytes):
                json.dumps(value)
        except (TypeError, ValueError):
            continue
        if value is not None:
            values.append(value)
    return values


@dataclass(frozen=True, slots=True)
class _Answers:
    """Answers to one request that have the literals of an assertion, and answers without them."""

    library: _Library
    request: Any
    literals: Sequence[object]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the assertion, and the next ones to them."""
        numbers = set()
        for literal in self.literals:
            if type(literal) is int:
                numbers |= {literal - 1, literal, literal + 1}
        return [number for number in sorted(numbers) if 0 <= number <= _HIGHEST]

    @property
    def texts(self) -> list[str]:
        """The texts and numbers of the assertion, and texts with these lengths."""
        texts = [
            str(literal) for literal in self.literals if isinstance(literal, str | int)
        ]
        for number in self.numbers:
            texts.append("x" * number)
        return texts

    def all(self) -> Iterator[object]:
        """Yield the answers. Most assertions fail with one of the first."""
        soon = timedelta(microseconds=1)
        kind = _with_elapsed(self.library.Response, soon)
        statuses = list(_STATUSES)
        for number in self.numbers:
            if 200 <= number < 600:  # noqa: PLR2004 - clients hide 1xx
                statuses.append(number)
        for body, headers in self._bodies():
            for status in statuses:
                yield kind(
                    status,
                    headers=headers,
                    content=body,
                    request=self.request,
                )
        yield from self._after_redirects()

    def _after_redirects(self) -> Iterator[object]:
        """Yield answers of other URLs, to which a client was redirected."""
        late = timedelta(days=1)
        kind = _with_elapsed(self.library.Response, late)
        redirect = kind(302, request=self.request)
        for text in ("other", *self.texts):
            path = quote(text.removeprefix("/"))
            url = f"http://elsewhere/{path}"
            request = self.library.Request(
                self.request.method,
                url,
                headers=self.request.headers,
            )
            yield kind(
                302,
                headers={"location": url},
                request=request,
                history=[redirect],
            )

    def _bodies(self) -> Iterator[tuple[bytes, Headers]]:
        """Yield bodies, each with headers."""
        texts = self.texts
        numbers = self.numbers
        contents = [
            *_BODIES,
            *self.literals,
            texts,
            dict.fromkeys(texts, 1),
        ]
        for number in numbers:
            contents.append([0] * number)
        for content in contents:
            if isinstance(content, bytes):
                yield content, [("x-other", "other")]
            else:
                yield json.dumps(content).encode(), [("x-other", "other")]
        yield _encoded("\n".join(texts)), [("x-other", "other")]
        yield b" \xff \xc3\xa9\n", [_LATIN_1]
        yield b"", list(_headers(texts[:1], ""))
        for text in ("other", *texts):
            headers = list(_headers(texts, text))
            yield _encoded(text), headers
            lines = f"{text}\n" * max([1, *numbers])
            long_body = _encoded(lines[:_LONGEST])
            yield long_body, headers * 2


def _with_elapsed(kind: type[object], elapsed: timedelta) -> Any:
    """Return a subclass of a response, with the time that only a client measures."""
    return type(kind.__name__, (kind,), {"elapsed": elapsed})


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _headers(names: Sequence[str], value: str) -> Iterator[tuple[str, str]]:
    """Yield headers and cookies with these names, as far as they are names, and one value."""
    yield "link", '<http://elsewhere>; rel="next"'
    yield "set-cookie", "other=other"
    for name in names:
        if not _TOKEN.fullmatch(name):
            continue
        valid_value = value.strip()
        if not valid_value.isascii() or not valid_value.isprintable():
            valid_value = ""
        valid_value = valid_value or name
        yield name, valid_value
        yield "set-cookie", f"{name}={valid_value}"
