"""Would an assertion about an answer pass with other answers too, whatever the app sends?

The assertion is evaluated with many other answers. Between them they have each status, text and
number that the assertion names. An assertion that passes with all of them proves nothing.
"""

import ast
import builtins
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, Protocol
from urllib.parse import quote

from pytest_arena.scenarios.assertions._idle import parsed

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
_LATIN_1 = ("content-type", "text/plain; charset=latin-1")
_HIGHEST = 10_000
_LONGEST = 100_000
_TOKEN = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_results: dict[str, bool] = {}

Headers = list[tuple[str, str]]


class _Library(Protocol):
    """The library httpx or httpx2."""

    Request: type[Any]
    Response: type[Any]


def passes_with_any_answer(text: str, variables: Mapping[str, object]) -> bool:
    """Return whether an assertion also passes with each of many other answers.

    Only assertions about one answer of httpx are evaluated, and only those that call no code of
    the project. Costs 100 µs for most texts and 5 ms for those that pass, once for each text.
    """
    if text in _results:
        return _results[text]
    name = _only_name_in(text)
    if name not in variables:
        return False
    response: Any = variables[name]
    library: Any = sys.modules.get(type(response).__module__.partition(".")[0])
    kind: Any = getattr(library, "Response", ())
    if not isinstance(response, kind):
        return False
    _results[text] = _passes_always(
        text,
        name,
        library,
        response.request,
    )
    return _results[text]


@cache
def _only_name_in(text: str) -> str:
    """Return the variable that an assertion reads; "" if it reads several, or calls a function."""
    expression = parsed(text)
    # `parsed` returns a list for methods of unittest. Only a client sets `next_request`.
    if expression is None or isinstance(expression, ast.List) or "next_request" in text:
        return ""
    read = set()
    bound = set()
    for node in ast.walk(expression):
        if isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            read.add(node.id)
        elif isinstance(node, ast.Name):
            bound.add(node.id)
    names = [name for name in read - bound if not _FUNCTION.fullmatch(name)]
    if len(names) != 1:
        return ""
    return names[0]


def _passes_always(
    text: str,
    name: str,
    library: _Library,
    request: object,
) -> bool:
    expression = parsed(text)
    if expression is None:
        return False
    tree = ast.fix_missing_locations(ast.Expression(expression))
    try:
        code = compile(tree, "<assertion>", "eval")
    except SyntaxError:  # it awaits something
        return False
    answers = _Answers(library, request, _literals_in(expression))
    for response in answers.all():
        variables = {"__builtins__": builtins, name: response}
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
        texts = []
        for literal in self.literals:
            if isinstance(literal, str | int):
                texts.append(str(literal))
        for number in self.numbers:
            texts.append("x" * number)
        return texts

    def all(self) -> Iterator[object]:
        """Yield the answers. Most assertions fail with one of the first."""
        kind = _with_elapsed(self.library.Response, timedelta(microseconds=1))
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
        kind = _with_elapsed(self.library.Response, timedelta(days=1))
        redirect = kind(302, request=self.request)
        for text in ("other", *self.texts):
            url = f"http://elsewhere/{quote(text.removeprefix('/'))}"
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
        contents = [*_BODIES, *self.literals, texts, dict.fromkeys(texts, 1)]
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
            yield _encoded(lines[:_LONGEST]), headers * 2


def _with_elapsed(kind: type[Any], elapsed: timedelta) -> Any:
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
