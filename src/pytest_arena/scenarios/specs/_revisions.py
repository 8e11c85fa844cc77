"""Has what a scenario says changed, whatever it looks like?"""

from __future__ import annotations

import json
from difflib import SequenceMatcher
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_arena.scenarios.specs._values import Scenario, Step

__all__ = ["canonical", "rev_of", "similarity", "step_lines"]

# What `rev_of` takes in and leaves out. A change of that is another version: all that was
# reviewed has to be reviewed again, and says so.
_VERSION = "1"


def canonical(text: str) -> str:
    """Return a text without what does not count: composed letters, single blanks."""
    return " ".join((text if text.isascii() else normalize("NFC", text)).split())


def rev_of(steps: Iterable[Step]) -> str:
    """Return the version of steps, ``1:3265ea09``: of what they are and say.

    It is blind to indentation, comments, names, tags, descriptions, to And in the place of Given,
    and to the language of the keywords. Doc strings and tables count.
    """
    told = json.dumps([_told(step) for step in steps], ensure_ascii=False, separators=(",", ":"))
    # A text may hold half of a surrogate pair, which no encoding knows.
    return f"{_VERSION}:{blake2b(told.encode(errors='replace'), digest_size=4).hexdigest()}"


def _told(step: Step) -> list[Any]:
    told: list[Any] = [step.kind, canonical(step.text)]
    if step.doc_string is not None or step.table:
        document = [] if step.doc_string is None else [step.media_type, _composed(step.doc_string)]
        told += [document, [[canonical(cell) for cell in row] for row in step.table]]
    return told


def _composed(text: str) -> str:
    return "\n".join(line.rstrip() for line in normalize("NFC", text).split("\n"))


def step_lines(scenario: Scenario) -> tuple[str, ...]:
    """Return the steps as lines, doc strings and tables too: equal if the versions are."""
    return tuple(line for step in scenario.steps for line in _lines(step))


def _lines(step: Step) -> list[str]:
    lines = [f"{step.kind.capitalize()} {canonical(step.text)}"]
    if step.doc_string is not None:
        said = _composed(step.doc_string).split("\n")
        lines += [f'  """{step.media_type}', *(f"  {line}" for line in said), '  """']
    lines += [f"  | {' | '.join(map(_cell, row))} |" for row in step.table]
    return lines


def _cell(text: str) -> str:
    return canonical(text).replace("\\", "\\\\").replace("|", "\\|")


def similarity(these: Sequence[str], those: Sequence[str]) -> float:
    """Return how like two scenarios are by their ``step_lines``, from 0 to 1.

    Of a scenario and the same one with a word changed 0.9 and more; of two others below 0.5. It
    takes about a millisecond.
    """
    return SequenceMatcher(None, "\n".join(these), "\n".join(those), autojunk=False).ratio()
