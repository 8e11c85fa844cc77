"""Makes answers of an HTTP library with and without the literals of an assertion."""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol
from urllib.parse import quote

# Most assertions fail with one of the first statuses.
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

Headers = list[tuple[str, str]]


class Library(Protocol):
    """The library httpx or httpx2."""

    Request: type[Any]
    Response: type[Any]


def literals_in(expression: ast.expr) -> list[object]:
    """Return the values in an assertion that an app may send: numbers, texts, lists, dicts.

    None is left out. ``is not None`` also passes with an error, so it proves nothing.
    """
    values = []
    for node in ast.walk(expression):
        try:
            value = ast.literal_eval(node)
        except (TypeError, ValueError):
            continue
        if _can_be_sent(value):
            values.append(value)
    return values


def literals_of(value: object) -> Iterator[object]:
    """Yield a value and its parts, as ``literals_in`` returns them."""
    parts: list[object] = []
    if isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        parts = list(value)
    elif isinstance(value, range):
        parts = [value.start, value.stop]
    if _can_be_sent(value):
        yield value
    for part in parts:
        yield from literals_of(part)


def _can_be_sent(value: object) -> bool:
    try:
        if not isinstance(value, bytes):
            json.dumps(value)
    except (TypeError, ValueError):
        return False
    return value is not None


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to one request, with and without the literals of an assertion."""

    library: Library
    request: Any
    literals: Sequence[object]

    @property
    def are_possible(self) -> bool:
        """Whether answers can have as many items or letters as the assertion names."""
        numbers = [each for each in self.literals if isinstance(each, int | float)]
        return all(number <= _HIGHEST for number in numbers)

    @property
    def numbers(self) -> list[int]:
        """The numbers of the assertion, and their neighbours."""
        numbers = set()
        for literal in self.literals:
            if type(literal) is int:
                numbers |= {literal - 1, literal, literal + 1}
        return [number for number in sorted(numbers) if 0 <= number <= _HIGHEST]

    @property
    def statuses(self) -> list[int]:
        """The statuses of each body."""
        # Clients hide 1xx.
        return [*_STATUSES, *(number for number in self.numbers if 200 <= number < 600)]  # noqa: PLR2004 - HTTP's

    @property
    def texts(self) -> list[str]:
        """The texts and numbers of the assertion, and texts with these lengths."""
        texts = [
            str(literal) for literal in self.literals if isinstance(literal, str | int)
        ]
        return texts + ["x" * number for number in self.numbers]

    def all(self) -> Iterator[object]:
        """Yield the answers. Most assertions fail with one of the first."""
        soon = timedelta(microseconds=1)
        kind = self.library.Response
        statuses = self.statuses
        for body, headers in self._bodies():
            for status in statuses:
                answer = kind(
                    status,
                    headers=headers,
                    content=body,
                    request=self.request,
                )
                yield _after(soon, answer)
        yield from self._after_redirects()

    def _after_redirects(self) -> Iterator[object]:
        """Yield answers after a redirect to another URL."""
        late = timedelta(days=1)
        kind = self.library.Response
        redirect = kind(302, request=self.request)
        for text in ("other", *self.texts):
            path = quote(text.removeprefix("/"))
            url = f"http://elsewhere/{path}"
            request = self.library.Request(
                self.request.method,
                url,
                headers=self.request.headers,
            )
            answer = kind(
                302,
                headers={"location": url},
                request=request,
                history=[redirect],
            )
            yield _after(late, answer)

    def _bodies(self) -> Iterator[tuple[bytes, Headers]]:
        """Yield bodies, each with headers."""
        texts = self.texts
        contents = [
            *_BODIES,
            *self.literals,
            texts,
            dict.fromkeys(texts, 1),
            *([0] * number for number in self.numbers),
        ]
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
            lines = f"{text}\n" * max([1, *self.numbers])
            long_body = _encoded(lines[:_LONGEST])
            yield long_body, headers * 2


def _after(elapsed: timedelta, answer: Any) -> object:
    """Return an answer with the duration of its request. Only a client measures it."""
    answer.elapsed = elapsed
    return answer


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _headers(names: Sequence[str], value: str) -> Iterator[tuple[str, str]]:
    """Yield headers and cookies with these names and one value. Invalid names are skipped."""
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
