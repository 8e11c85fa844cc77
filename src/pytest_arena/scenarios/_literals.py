"""Which of the literals of a scenario's steps have occurred in what its test did?"""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from pytest_arena.scenarios._log import PLAIN
from pytest_arena.scenarios.specs import literals

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from pytest_arena.scenarios._log import Log
    from pytest_arena.scenarios.specs import Scenario

__all__ = ["seen", "wanted"]


def wanted(scenarios: Iterable[Scenario], rows: Collection[object]) -> tuple[str, ...]:
    """Return the literals of the scenarios' steps, each once; of Outlines those of the rows."""
    return tuple(dict.fromkeys(text for one in scenarios for text in literals(one, rows)))


def seen(texts: tuple[str, ...], log: Log, values: Iterable[Any]) -> tuple[str, ...]:
    """Return those that occurred: in rows, requests, assertions; as whole words, in any case.

    What is most likely to hold them is looked at first, and no further than needed.
    """
    left = {one.lower() for one in texts}
    for text in chain(_of_requests(log), _of_values(values), _of_assertions(log)):
        if not left:
            break
        lower = text.lower()
        left -= {one for one in left if one in lower and _is_a_word(one, lower)}
    return tuple(one for one in texts if one.lower() not in left)


def _is_a_word(word: str, text: str) -> bool:
    """Whether it stands in a text with nothing of a word before and after it."""
    # To compile a pattern for each literal of each scenario would cost more than all the rest.
    place = text.find(word)
    while place >= 0:
        end = place + len(word)
        if not (_is_of_a_word(text[place - 1 : place]) or _is_of_a_word(text[end : end + 1])):
            return True
        place = text.find(word, place + 1)
    return False


def _is_of_a_word(letter: str) -> bool:
    return letter.isalnum() or letter == "_"


def _of_requests(log: Log) -> Iterator[str]:
    for one in log.requests:
        yield f"{one.method} {one.path} {one.query} {one.role or ''} {one.status}"
        yield (one.body or b"").decode("utf-8", "replace")


def _of_assertions(log: Log) -> Iterator[str]:
    for one in log.heard.values():
        yield one.text
        yield from _of_values(one.values)


_DEPTH, _MOST, _LONGEST = 4, 100, 2_000


def _of_values(values: Iterable[Any], depth: int = _DEPTH) -> Iterator[str]:
    """Parameters come as a mapping, a sequence, or a list of such; so do answers."""
    for value in islice(values, _MOST):
        if isinstance(value, PLAIN):
            yield str(value)[:_LONGEST]
        elif depth and isinstance(value, dict):
            yield from _of_values(value.values(), depth - 1)
        elif depth and isinstance(value, list | tuple | set):
            yield from _of_values(value, depth - 1)
