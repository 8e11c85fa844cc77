"""What is special in Gherkin whose keywords are Markdown's headings and bullets?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena.scenarios.specs._blocks import Block
from pytest_arena.scenarios.specs._near import near_step, near_title
from pytest_arena.scenarios.specs._values import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena.scenarios.specs._features import Found
    from pytest_arena.scenarios.specs.gherkin import Language, Node

__all__ = ["mdg", "tagged_headings", "unread_marks"]

_HEADING = re.compile(r"^\s*#{1,6}\s+(.*)")
_BULLET = re.compile(r"^\s*[*+-]\s+(.*)")
_ROW = re.compile(r"^(\s*)\|")
_SEPARATOR = re.compile(r"^[\s|:-]+$")
_FENCE = re.compile(r'^\s*(`{3,}|~{3,}|""")')
_LANGUAGE = re.compile(r"^\s*#\s*language\s*:")
_SLIPS = frozenset({"case", "blank", "letter"})
_TAG_MARK = re.compile(r"`@[^`]+`")


def mdg(text: str, spec: str, language_code: str) -> Block:
    """Return a ``*.feature.md`` as one block.

    The parser takes the first line of all for the feature, whatever it says: what stands before
    the first heading is left out, apart from tags.
    """
    lines = text.split("\n")
    first = next((place for place, line in enumerate(lines) if _HEADING.match(line)), 0)
    tags = [place for place, line in enumerate(lines[:first]) if _TAG_MARK.match(line.strip())]
    begin = min([*tags, first])
    return Block(
        spec=spec,
        text="\n".join(lines[begin:]),
        first_line=begin + 1,
        language=language_code,
        is_markdown=True,
    )


def unread_marks(block: Block, language: Language, found: Found) -> Iterator[Problem]:
    """Yield the headings, bullets and rows that were meant as Gherkin and are not read as it."""
    marks = _Marks(block=block, language=language, read=_Read(found))
    for number, line in enumerate(block.lines, block.first_line):
        yield from marks.line(number, line)


def tagged_headings(block: Block, language: Language) -> Iterator[Problem]:
    """Yield the headings that are lost since a line with a tag is nothing but tags."""
    for number, line in enumerate(block.lines, block.first_line):
        heading = _HEADING.match(line)
        if heading and "`@" in line and near_title(heading.group(1), language):
            yield Problem(
                spec=block.spec,
                line=number,
                what=f"{line.strip()!r} is read as a line of tags, and its heading is lost",
                hint="put tags in a line of their own, above it",
            )


class _Read:
    """The lines that the parser has read as something."""

    def __init__(self, found: Found) -> None:
        self.titles = {found.feature.line}
        self.scenarios: set[int] = set()
        self.examples: set[int] = set()
        self.steps: set[int] = set()
        self.rows: set[int] = set()
        self.fences: set[int] = set()
        self._children(found.node)

    def _children(self, node: Node) -> None:
        for child in node["children"]:
            for kind, one in child.items():
                self.titles.add(one["location"]["line"])
                if kind == "rule":
                    self._children(one)
                else:
                    self._steps(one)

    def _steps(self, node: Node) -> None:
        self.scenarios.add(node["location"]["line"])
        for step in node["steps"]:
            self.steps.add(step["location"]["line"])
            self._table(step.get("dataTable", {}).get("rows", ()))
            if "docString" in step:
                self.fences.add(step["docString"]["location"]["line"])
        for one in node.get("examples") or ():
            self.examples.add(one["location"]["line"])
            header = one.get("tableHeader")
            self._table([*([header] if header else []), *(one.get("tableBody") or ())])

    def _table(self, rows: object) -> None:
        assert isinstance(rows, list | tuple)  # noqa: S101 - for mypy
        self.rows.update(row["location"]["line"] for row in rows)


@dataclass(slots=True, kw_only=True)
class _Marks:
    """Goes through the lines, and knows what they stand in."""

    block: Block
    language: Language
    read: _Read
    fence: str = ""
    is_in_scenario: bool = False
    is_prose: bool = False
    """Whether the lines before this one, since the heading, end in prose."""
    rows_are_due: bool = False

    def line(self, number: int, line: str) -> Iterator[Problem]:
        """Look at one line."""
        mark = _FENCE.match(line)
        if mark and line.strip().startswith(self.fence):
            yield from self._fenced(number, mark.group(1), line)
        elif self.fence or not line.strip():
            return
        elif heading := _HEADING.match(line):
            yield from self._heading(number, heading.group(1))
        elif bullet := _BULLET.match(line):
            yield from self._bullet(number, bullet.group(1))
        elif row := _ROW.match(line):
            yield from self._row(number, line, len(row.group(1)))
        else:
            self.is_prose = True
            self.rows_are_due = self.rows_are_due and line.startswith(" ")

    def _fenced(self, number: int, mark: str, line: str) -> Iterator[Problem]:
        self.fence = "" if self.fence else mark
        if self.fence and number in self.read.fences and line.startswith(mark):
            yield self._said(
                number,
                "a fenced block after a step is read as its doc string",
                "indent it to show that, or put a heading before it",
                is_error=False,
            )

    def _heading(self, number: int, text: str) -> Iterator[Problem]:
        self.rows_are_due, self.is_prose = number in self.read.examples, False
        is_read = number in self.read.titles | self.read.examples
        self.is_in_scenario = number in self.read.scenarios | self.read.examples
        near = None if is_read else near_title(text, self.language)
        if _LANGUAGE.match(self.block.line(number)):
            yield self._said(
                number,
                "the comment `# language:` is a heading in Markdown, and has no effect",
                "write a .feature file, or a fence marked as gherkin in another .md file",
            )
        elif near and ":" in text and near.title != "feature" and "`@" not in text:
            yield self._said(
                number,
                f"expected {near.keyword}, but {text!r} is read as a description",
                f"write `# {near.keyword} …`",
            )

    def _bullet(self, number: int, text: str) -> Iterator[Problem]:
        self.rows_are_due = is_read = number in self.read.steps
        if is_read and self.is_prose:
            yield self._said(
                number,
                f"a bullet after prose is read as a step: {text!r}",
                "begin it with another word if it is none",
                is_error=False,
            )
        near = near_step(text, self.language)
        if near and self.is_in_scenario and not is_read and near.slip in _SLIPS:
            yield self._said(
                number,
                f"expected {near.keyword}, but {text!r} is not read as a step",
                f"write `* {near.keyword} …`",
            )

    def _row(self, number: int, line: str, indent: int) -> Iterator[Problem]:
        if self.rows_are_due and number not in self.read.rows and not _SEPARATOR.match(line):
            yield self._said(
                number,
                f"a row of a table is not read: {indent} blanks before it; expected 2 to 5",
                "indent the table by 2 blanks",
            )

    def _said(self, line: int, what: str, hint: str, *, is_error: bool = True) -> Problem:
        return Problem(spec=self.block.spec, line=line, what=what, hint=hint, is_error=is_error)
