"""What is each line of Gherkin? By what was read in it: its keywords are words of 80 languages."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_arena.scenarios.outputs.html._chapter import Chapter
    from pytest_arena.scenarios.specs import Scenario

__all__ = ["Kind", "Line", "cells", "classified", "split", "title", "written"]

Kind = Literal[
    "blank",
    "comment",
    "doc",
    "feature",
    "keyword",
    "row",
    "rule",
    "scenario",
    "step",
    "tag",
    "text",
]

_TITLE = re.compile(r"[ \t]*(?:#+[ \t]+)?([^\s:|\"@#][^:|\"]{0,40}):(?=\s|$)(.*)", re.DOTALL)
_CELL = re.compile(r"((?:\\.|[^\\|])*)\|")


@dataclass(frozen=True, slots=True)
class Line:
    """One line, and what it is. Its number is 0 where it stands in no file."""

    number: int
    text: str
    kind: Kind = "text"


def classified(lines: Iterable[tuple[int, str]], chapter: Chapter) -> list[Line]:
    """Return the lines with what they are."""
    return _with_keywords(list(_classified(lines, chapter)))


def _classified(lines: Iterable[tuple[int, str]], chapter: Chapter) -> Iterator[Line]:
    fence = ""
    for number, text in lines:
        known = _read(number, chapter) or (None if fence else _titled(text, chapter))
        marks = text.strip()[:3]
        is_fence = known is None and marks in {'"""', "```"}
        is_doc = known is None and (bool(fence) or is_fence)
        yield Line(number, text, known or ("doc" if is_doc else _looked_at(text)))
        if not is_doc:
            fence = ""
        elif is_fence and fence in {"", marks}:
            fence = "" if fence else marks


def _read(number: int, chapter: Chapter) -> Kind | None:
    if number in chapter.by_line:
        return "scenario"
    return "step" if number in chapter.steps else None


def _titled(text: str, chapter: Chapter) -> Kind | None:
    name = title(text)[1]
    if name in chapter.features:
        return "feature"
    return "rule" if name in chapter.rules else None


def _looked_at(text: str) -> Kind:
    kinds: dict[str, Kind] = {"": "blank", "#": "comment", "@": "tag", "|": "row"}
    bare = text.strip()
    return "tag" if bare.startswith("`@") else kinds.get(bare[:1], "text")


def _with_keywords(lines: list[Line]) -> list[Line]:
    # "Examples:" and "Background:" are known by what follows them.
    after: Kind = "blank"
    for place in reversed(range(len(lines))):
        line = lines[place]
        if line.kind == "text" and after in {"row", "step"} and _TITLE.match(line.text):
            lines[place] = line = replace(line, kind="keyword")
        if line.kind not in {"blank", "comment", "tag"}:
            after = line.kind
    return lines


def title(text: str) -> tuple[str, str]:
    """Return keyword and name of a line such as ``Scenario: a name``, else an empty one and all."""
    match = _TITLE.match(text)
    if match is None:
        return "", " ".join(text.split())
    return match[1].strip(), " ".join(match[2].split())


def split(lines: list[Line], kind: Kind) -> tuple[list[Line], list[list[Line]]]:
    """Return what stands before the first line of a kind, and a part for each of those lines.

    A part begins with the tags and the comments above its line.
    """
    starts = [_with_tags(lines, place) for place, one in enumerate(lines) if one.kind == kind]
    ends = [*starts, len(lines)]
    return lines[: ends[0]], [lines[start:end] for start, end in pairwise(ends)]


def _with_tags(lines: list[Line], place: int) -> int:
    start = place
    while place and lines[place - 1].kind in {"blank", "comment", "tag"}:
        place -= 1
        start = place if lines[place].kind != "blank" else start
    return start


def cells(text: str) -> list[str]:
    r"""Return the cells of a table's line, as they are meant.

    >>> cells(r"  | a | b\|c |")
    ['a', 'b|c']
    """
    found = _CELL.findall(text.strip()[1:])
    return [re.sub(r"\\([\\|n])", _meant, cell.strip()) for cell in found]


def _meant(escaped: re.Match[str]) -> str:
    return "\n" if escaped[1] == "n" else escaped[1]


def written(scenarios: Iterable[Scenario]) -> Iterator[tuple[int, str]]:
    """Yield lines that say what was read, for a file whose text is not to be had."""
    above = ("", "")
    for scenario in scenarios:
        feature, rule = here = (scenario.feature, scenario.rule)
        if feature != above[0]:
            yield 0, f"Feature: {feature}"
        if rule and here != above:
            yield 0, f"Rule: {rule}"
        above = here
        yield (
            scenario.line,
            f"{'Scenario Outline' if scenario.rows else 'Scenario'}: {scenario.name}",
        )
        yield from _steps(scenario)


def _steps(scenario: Scenario) -> Iterator[tuple[int, str]]:
    for step in scenario.steps:
        yield step.line, str(step)
        yield from ((0, _row(cells_)) for cells_ in step.table)
        if step.doc_string is not None:
            yield from ((0, line) for line in ['"""', *step.doc_string.split("\n"), '"""'])
    for place, row in enumerate(scenario.rows):
        if not place:
            yield 0, "Examples:"
            yield 0, _row(column for column, _ in row.values)
        yield row.line, _row(value for _, value in row.values)


def _row(values: Iterable[str]) -> str:
    escaped = (one.replace("\\", r"\\").replace("|", r"\|").replace("\n", r"\n") for one in values)
    return f"| {' | '.join(escaped)} |"
