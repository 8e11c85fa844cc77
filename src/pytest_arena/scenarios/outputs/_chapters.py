"""What is each line of a file of the specification, and where on the page does it stand?

Lines are known by what was read in them: keywords are words of 80 languages.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby, pairwise
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


@dataclass(frozen=True, slots=True)
class Line:
    """One line, and what it is. Its number is 0 where it stands in no file."""

    number: int
    text: str
    kind: Kind = "text"


@dataclass(frozen=True, slots=True)
class Part:
    """A feature, a rule or a scenario: what stands above its line, that line, what is below."""

    above: list[Line]
    line: Line
    below: list[Line]


def title(text: str) -> tuple[str, str]:
    """Return keyword and name of a line such as ``Scenario: a name``, else an empty one and all."""
    match = _TITLE.match(text)
    keyword, name = match.groups() if match else ("", text)
    return keyword.strip(), " ".join(name.split())


class Anchors:
    """Gives out ids, each of them once."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def take(self, wish: str) -> str:
        """Return the wish, with a number behind it if it was given out before."""
        count = self._counts.get(wish)
        self._counts[wish] = 0 if count is None else count + 1
        return wish if count is None else self.take(f"{wish}-{count + 1}")


@dataclass(kw_only=True)
class Chapter:
    """One file: its text, what was read in it, and which scenarios have been shown already."""

    path: str
    anchor: str
    anchors: Anchors
    text: str | None  # None: the file is not there
    judged: Mapping[str, JudgedScenario]  # by the ids of their elements
    problems: Sequence[Problem] = ()
    shown: set[str] = field(default_factory=set)  # ids
    headings: dict[str, str] = field(
        default_factory=dict
    )  # ids by names, as forges make them

    @cached_property
    def lines(self) -> list[str]:
        """The lines of its text; no form feed or other odd blank parts one."""
        return re.split(r"\r\n|\r|\n", (self.text or "").removeprefix("\ufeff"))

    @cached_property
    def ids(self) -> dict[int, str]:
        """The ids of the scenarios, by the line that each begins in."""
        return {judged.scenario.line: anchor for anchor, judged in self.judged.items()}

    @cached_property
    def steps(self) -> dict[int, Step]:
        """All steps by their lines, those of Backgrounds too."""
        return {
            step.line: step for it in self.judged.values() for step in it.scenario.steps
        }

    @cached_property
    def is_as_read(self) -> bool:
        """Whether the text still is the one that the scenarios were read in."""
        expected = [(it.scenario.line, it.scenario.name) for it in self.judged.values()]
        expected += [(step.line, step.text) for step in self.steps.values()]
        return self.text is not None and all(
            line <= len(self.lines)
            and " ".join(words.split()) in " ".join(self.lines[line - 1].split())
            for line, words in expected
        )

    def anchor_at(self, line: int) -> str:
        """Return the id of the scenario that a line may belong to, else the file's own."""
        above = [anchor for start, anchor in self.ids.items() if start <= line]
        return above[-1] if above else self.anchor

    def left(self) -> list[ScenarioSpec]:
        """Return the scenarios that have not been shown yet."""
        return [
            it.scenario
            for anchor, it in self.judged.items()
            if anchor not in self.shown
        ]

    def show(self, line: int) -> str | None:
        """Return the id of the scenario that begins in a line, the first time that it is shown."""
        anchor = self.ids.get(line)
        if anchor is None or anchor in self.shown:
            return None
        self.shown.add(anchor)
        return anchor

    def classified(self, lines: Iterable[tuple[int, str]]) -> list[Line]:
        """Return numbered lines with what they are."""
        classified = list(self._classified(lines))
        # "Examples:" and "Background:" are known by what follows them.
        after: Kind = "blank"
        for place in reversed(range(len(classified))):
            line = classified[place]
            if (
                line.kind == "text"
                and after in {"row", "step"}
                and _TITLE.match(line.text)
            ):
                classified[place] = line = replace(line, kind="keyword")
            if line.kind not in {"blank", "comment", "tag"}:
                after = line.kind
        return classified

    def _classified(self, lines: Iterable[tuple[int, str]]) -> Iterator[Line]:
        features = {it.scenario.feature for it in self.judged.values()} - {""}
        rules = {it.scenario.rule for it in self.judged.values()} - {""}
        fence = ""
        for number, text in lines:
            bare, name = text.strip(), title(text)[1]
            kind: Kind = _KINDS.get("@" if bare.startswith("`@") else bare[:1], "text")
            if number in self.ids or number in self.steps:
                kind, fence = "scenario" if number in self.ids else "step", ""
            elif not fence and name in features | rules:
                kind = "feature" if name in features else "rule"
            elif bare[:3] in {'"""', "```"} and fence in {"", bare[:3]}:
                kind, fence = "doc", "" if fence else bare[:3]
            elif fence:
                kind = "doc"
            yield Line(number, text, kind)

    @staticmethod
    def split(lines: list[Line], kind: Kind) -> tuple[list[Line], list[Part]]:
        """Return what stands before the first line of a kind, and a part for each of those lines.

        A part begins with the tags and the comments above its line.
        """
        places = [place for place, line in enumerate(lines) if line.kind == kind]
        starts = []
        for place in places:
            start = above = place
            while above and lines[above - 1].kind in {"blank", "comment", "tag"}:
                above -= 1
                start = above if lines[above].kind != "blank" else start
            starts.append(start)
        parts = [
            Part(lines[start:place], lines[place], lines[place + 1 : end])
            for place, (start, end) in zip(
                places, pairwise([*starts, len(lines)]), strict=True
            )
        ]
        return lines[: starts[0]] if starts else lines, parts


def chapters(document: Document, sources: Mapping[str, str]) -> list[Chapter]:
    """Return a chapter for each file that has a scenario or a text, by path."""
    anchors = Anchors()
    for reserved in ("main", "filters", "summary", "contents"):
        anchors.take(reserved)
    by_path = grouped_by(document.scenarios, lambda judged: judged.scenario.spec)
    result = []
    for path in sorted({*sources, *by_path}):
        anchor = anchors.take(re.sub(r"[^\w]+", "-", path.lower()).strip("-") or "file")
        chapter = Chapter(
            path=path,
            anchor=anchor,
            anchors=anchors,
            text=sources.get(path),
            judged={
                anchors.take(f"{anchor}-L{it.scenario.line}"): it
                for it in by_path[path]
            },
            problems=[problem for problem in document.problems if problem.spec == path],
        )
        result.append(chapter)
    return result


def lines_as_read(scenarios: Iterable[ScenarioSpec]) -> Iterator[tuple[int, str]]:
    """Yield numbered lines that say what was read, for a file whose text is another, or gone."""
    last = ""
    for (feature, rule), same in groupby(
        scenarios, key=lambda it: (it.feature, it.rule)
    ):
        if feature != last:
            yield 0, f"Feature: {feature}"
        last = feature
        if rule:
            yield 0, f"Rule: {rule}"
        for scenario in same:
            keyword = "Scenario Outline" if scenario.rows else "Scenario"
            yield scenario.line, f"{keyword}: {scenario.name}"
            yield from _scenario_lines(scenario)


def _scenario_lines(scenario: ScenarioSpec) -> Iterator[tuple[int, str]]:
    for step in scenario.steps:
        yield step.line, str(step)
        yield from ((0, _row(values)) for values in step.table)
        if step.doc_string is not None:
            yield from (
                (0, line) for line in ('"""', *step.doc_string.split("\n"), '"""')
            )
    for columns, rows in groupby(
        scenario.rows, key=lambda row: [name for name, _ in row.values]
    ):
        yield 0, "Examples:"
        yield 0, _row(columns)
        yield from ((row.line, _row(value for _, value in row.values)) for row in rows)


def _row(values: Iterable[str]) -> str:
    escaped = (
        it.replace("\\", r"\\").replace("|", r"\|").replace("\n", r"\n")
        for it in values
    )
    return f"| {' | '.join(escaped)} |"
