"""Classifies the lines of a specification for the HTML page.

The results of the parser decide the kinds of lines, because keywords are words of 80 languages.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import Literal

from pytest_arena.scenarios.evidence._document import Document, JudgedScenario
from pytest_arena.scenarios.specs._specification import (
    Problem,
    ScenarioSpec,
    Step,
    grouped_by,
)

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
_KINDS: dict[str, Kind] = {"": "blank", "#": "comment", "@": "tag", "|": "row"}
_TITLE = re.compile(
    r"[ \t]*(?:#+[ \t]+)?([^\s:|\"@#][^:|\"]{0,40}):(?=\s|$)(.*)", re.DOTALL
)
_RESERVED_IDS = ("main", "filters", "summary", "contents")


@dataclass(frozen=True, slots=True)
class Line:
    """One line and its kind. The number is 0 if no file has the line."""

    number: int
    text: str
    kind: Kind = "text"


@dataclass(frozen=True, slots=True)
class Part:
    """A feature, a rule or a scenario, with the tags and comments above and the lines below."""

    above: list[Line]
    line: Line
    below: list[Line]


def title(text: str) -> tuple[str, str]:
    """Return the keyword and the name of a line ``Scenario: a name``, or "" and the line."""
    match = _TITLE.match(text)
    keyword, name = match.groups() if match else ("", text)
    return keyword.strip(), " ".join(name.split())


class Anchors:
    """Makes ids unique."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def take(self, name: str) -> str:
        """Return the name as a new id, with a number if the id is in use."""
        if name not in self._counts:
            self._counts[name] = 0
            return name
        self._counts[name] += 1
        return self.take(f"{name}-{self._counts[name]}")


@dataclass(kw_only=True)
class Chapter:
    """One file on the page: its text, its scenarios, and the ids of the shown scenarios."""

    path: str
    anchor: str
    anchors: Anchors
    text: str | None
    """None if the file was removed."""
    judged: Mapping[str, JudgedScenario]
    """The judged scenarios, by the ids of their elements."""
    problems: Sequence[Problem] = ()
    shown: set[str] = field(default_factory=set)
    """The ids of the scenarios that have been shown."""
    headings: dict[str, str] = field(default_factory=dict)
    """The ids of headings by the ids that GitHub gives them."""

    @cached_property
    def scenarios(self) -> list[ScenarioSpec]:
        """The scenarios of the file."""
        return [judged.scenario for judged in self.judged.values()]

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the text, as editors count them. A form feed does not end a line."""
        return re.split(r"\r\n|\r|\n", (self.text or "").removeprefix("\ufeff"))

    @cached_property
    def ids(self) -> dict[int, str]:
        """The ids of the scenarios by their first lines."""
        return {judged.scenario.line: anchor for anchor, judged in self.judged.items()}

    @cached_property
    def steps(self) -> dict[int, Step]:
        """All steps by their lines, also those of Backgrounds."""
        return {
            step.line: step for scenario in self.scenarios for step in scenario.steps
        }

    @cached_property
    def is_as_read(self) -> bool:
        """Whether the text has the scenarios and steps at the lines where they were read."""
        if self.text is None:
            return False
        expected = [(scenario.line, scenario.name) for scenario in self.scenarios]
        expected += [(step.line, step.text) for step in self.steps.values()]
        for number, text in expected:
            if number > len(self.lines):
                return False
            words = " ".join(self.lines[number - 1].split())
            if " ".join(text.split()) not in words:
                return False
        return True

    def anchor_at(self, line: int) -> str:
        """Return the id of the scenario at or above a line, or the id of the file."""
        above = [anchor for start, anchor in self.ids.items() if start <= line]
        if above:
            return above[-1]
        return self.anchor

    def left(self) -> list[ScenarioSpec]:
        """Return the scenarios that have not been shown yet."""
        return [
            judged.scenario
            for anchor, judged in self.judged.items()
            if anchor not in self.shown
        ]

    def show(self, line: int) -> str | None:
        """Return the id of the scenario that begins in a line. None if it was shown before."""
        anchor = self.ids.get(line)
        if anchor is None or anchor in self.shown:
            return None
        self.shown.add(anchor)
        return anchor

    def classified(self, lines: Iterable[tuple[int, str]]) -> list[Line]:
        """Return numbered lines with their kinds."""
        classified = list(self._classified(lines))
        # The kind of the next line shows "Examples:" and "Background:".
        next_kind = "blank"
        for place, line in reversed(list(enumerate(classified))):
            kind = line.kind
            is_above = next_kind in {"row", "step"}
            if kind == "text" and is_above and _TITLE.match(line.text):
                kind = "keyword"
                classified[place] = replace(line, kind=kind)
            if kind not in {"blank", "comment", "tag"}:
                next_kind = kind
        return classified

    def _classified(self, lines: Iterable[tuple[int, str]]) -> Iterator[Line]:
        features = {scenario.feature for scenario in self.scenarios} - {""}
        rules = {scenario.rule for scenario in self.scenarios} - {""}
        fence = ""  # the mark of the open doc string
        for number, text in lines:
            bare = text.strip()
            mark = bare[:3]
            _, name = title(text)
            kind = _KINDS.get(bare[:1], "text")
            if bare.startswith("`@"):
                kind = "tag"
            if number in self.ids:
                kind = "scenario"
                fence = ""
            elif number in self.steps:
                kind = "step"
                fence = ""
            elif not fence and name in features:
                kind = "feature"
            elif not fence and name in rules:
                kind = "rule"
            elif mark in {'"""', "```"} and fence in {"", mark}:
                kind = "doc"
                fence = "" if fence else mark
            elif fence:
                kind = "doc"
            yield Line(number, text, kind)

    @staticmethod
    def split(
        lines: list[Line],
        kind: Kind,
    ) -> tuple[list[Line], list[Part]]:
        """Return the lines before the first line of a kind, and a part for each such line.

        A part begins with the tags and the comments above its line.
        """
        before: list[Line] = []
        parts = []
        above: list[Line] = []  # tags and comments that may begin a part
        below = before
        for line in lines:
            if line.kind == kind:
                below = []
                parts.append(Part(above, line, below))
                above = []
            elif line.kind in {"comment", "tag"} or (above and line.kind == "blank"):
                above.append(line)
            else:
                below += [*above, line]
                above = []
        below += above
        return before, parts


def chapters(
    document: Document,
    sources: Mapping[str, str],
) -> list[Chapter]:
    """Return a chapter for each file that has a scenario or a text, by path."""
    anchors = Anchors()
    for reserved in _RESERVED_IDS:
        anchors.take(reserved)
    by_path = grouped_by(document.scenarios, lambda judged: judged.scenario.spec)
    chapters = []
    for path in sorted({*sources, *by_path}):
        words = re.sub(r"[^\w]+", "-", path.lower()).strip("-")
        anchor = anchors.take(words or "file")
        judged = {
            anchors.take(f"{anchor}-L{each.scenario.line}"): each
            for each in by_path[path]
        }
        chapters.append(
            Chapter(
                path=path,
                anchor=anchor,
                anchors=anchors,
                text=sources.get(path),
                judged=judged,
                problems=[each for each in document.problems if each.spec == path],
            )
        )
    return chapters


# Files that were changed or removed after they were read.


def lines_as_read(scenarios: Iterable[ScenarioSpec]) -> Iterator[tuple[int, str]]:
    """Yield numbered lines with the scenarios as they were read."""
    last_feature = ""
    for (feature, rule), same in groupby(
        scenarios, key=lambda scenario: (scenario.feature, scenario.rule)
    ):
        if feature != last_feature:
            yield 0, f"Feature: {feature}"
        last_feature = feature
        if rule:
            yield 0, f"Rule: {rule}"
        for scenario in same:
            keyword = "Scenario"
            if scenario.rows:
                keyword = "Scenario Outline"
            yield scenario.line, f"{keyword}: {scenario.name}"
            yield from _scenario_lines(scenario)


def _scenario_lines(scenario: ScenarioSpec) -> Iterator[tuple[int, str]]:
    for step in scenario.steps:
        yield step.line, str(step)
        for values in step.table:
            yield 0, _row(values)
        if step.doc_string is not None:
            doc_string = step.doc_string.replace('"""', r"\"\"\"")
            for line in ('"""', *doc_string.split("\n"), '"""'):
                yield 0, line
    for columns, rows in groupby(
        scenario.rows, key=lambda row: [name for name, _ in row.values]
    ):
        yield 0, "Examples:"
        yield 0, _row(columns)
        for row in rows:
            yield row.line, _row(value for _, value in row.values)


def _row(values: Iterable[str]) -> str:
    escaped = []
    for value in values:
        cell = value.replace("\\", r"\\").replace("|", r"\|").replace("\n", r"\n")
        escaped.append(cell)
    return f"| {' | '.join(escaped)} |"
