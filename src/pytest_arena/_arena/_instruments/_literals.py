"""Which of the literals of a scenario's steps have occurred in what its test did?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pytest_arena._specs import literals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_arena._arena._instruments._log import Log
    from pytest_arena._specs import Scenario

__all__ = ["seen", "wanted"]


def wanted(scenarios: Iterable[Scenario]) -> tuple[str, ...]:
    """Return the literals of the scenarios' steps, each once."""
    return tuple(dict.fromkeys(text for one in scenarios for text in literals(one)))


def seen(texts: tuple[str, ...], log: Log, values: Iterable[Any]) -> tuple[str, ...]:
    """Return those that occurred: in rows, requests, assertions; as whole words, in any case."""
    corpus = "\n".join([*_of_requests(log), *_of_assertions(log), *_of_values(values)])
    return tuple(one for one in texts if _as_word(one).search(corpus))


def _as_word(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(text)}(?!\w)", re.IGNORECASE)


def _of_requests(log: Log) -> Iterator[str]:
    for one in log.requests:
        yield f"{one.method} {one.path} {one.query} {one.role or ''} {one.status}"
        yield (one.body or b"").decode("utf-8", "replace")


def _of_assertions(log: Log) -> Iterator[str]:
    for one in log.heard.values():
        yield one.text
        yield from one.explanations


_LONGEST = 2_000


def _of_values(values: Iterable[Any], depth: int = 4) -> Iterator[str]:
    """Parameters come as a mapping, a sequence, or a list of such."""
    for value in values:
        if isinstance(value, dict) and depth:
            yield from _of_values(value.values(), depth - 1)
        elif isinstance(value, list | tuple | set) and depth:
            yield from _of_values(value, depth - 1)
        else:
            yield str(value)[:_LONGEST]
