"""Is there a line in Gherkin that looks like a scenario, and was read as something else?"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from pytest_arena.scenarios.specs._values import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena.scenarios.specs._blocks import Block
    from pytest_arena.scenarios.specs._features import Found
    from pytest_arena.scenarios.specs.gherkin import Language, Node

__all__ = ["commented_headings", "unread_headings"]


def unread_headings(block: Block, language: Language, found: Found) -> Iterator[Problem]:
    """Yield the headings that a doc string has taken in, as one does that was closed too late.

    What a doc string holds stands to the right of its marks; a heading to the left of them was
    not meant to be in it. It looks at doc strings alone: descriptions are the lint's business.
    """
    words = (*language.words["scenario"], *language.words["scenarioOutline"])
    headings = tuple(f"{word}:" for word in words)
    for part in found.scenarios:
        for line in _doc_strings(part.node):
            for number in _outside(block, line, headings):
                yield Problem(
                    spec=block.spec,
                    line=number,
                    what=f"{block.line(number).strip()!r} looks like a scenario, but stands in the "
                    f"doc string that line {line} begins",
                    hint=f"close that one with a line {block.line(line).strip()[:3]}",
                    scenario=part.scenario.key,
                )


def commented_headings(block: Block, language: Language, found: Found) -> Iterator[Problem]:
    """Yield the headings that are comments, with steps below them that are none.

    Those belong to the scenario above; in a fence of Markdown ``# Scenario:`` is written so easily.
    A comment between two steps is in peace as long as no Given comes after it.
    """
    for part in found.scenarios:
        steps = pairwise(part.node["steps"])
        anew = [_between(*pair) for pair in steps if _begins_anew(*pair, language)]
        for number in (one for lines in anew for one in lines if _is_titled(block, one, language)):
            yield Problem(
                spec=block.spec,
                line=number,
                what=f"{block.line(number).strip()!r} is a comment: the steps below it belong to "
                f"{part.scenario.name!r}",
                hint="leave the # out, or put it before these steps, too",
                scenario=part.scenario.key,
            )


def _is_titled(block: Block, number: int, language: Language) -> bool:
    words = (language.title("scenario"), *(f"{one}:" for one in language.outlines))
    line = block.line(number).lstrip()
    return line.startswith("#") and line.lstrip("# \t").startswith(words)


def _begins_anew(above: Node, below: Node, language: Language) -> bool:
    return _kind(below, language) == "given" != _kind(above, language)


def _kind(step: Node, language: Language) -> str | None:
    return language.kinds.get(step["keyword"])


def _between(above: Node, below: Node) -> range:
    """The lines between two steps; none of a doc string, which may hold anything."""
    first = below if "docString" in above else above
    return range(first["location"]["line"] + 1, below["location"]["line"])


def _outside(block: Block, line: int, headings: tuple[str, ...]) -> Iterator[int]:
    """The headings in a doc string that stand to the left of its marks."""
    opened = block.line(line)
    for number in _taken(block, line, opened.lstrip()[:3]):
        text = block.line(number)
        if text.lstrip().startswith(headings) and _indent(text) < _indent(opened):
            yield number


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _doc_strings(node: Node) -> Iterator[int]:
    for step in node["steps"]:
        if "docString" in step:
            yield step["docString"]["location"]["line"]


def _taken(block: Block, line: int, mark: str) -> Iterator[int]:
    for number in range(line + 1, block.last_line + 1):
        if block.line(number).lstrip().startswith(mark):
            return
        yield number
