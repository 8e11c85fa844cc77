"""What belongs to one file of the specification, and where on the page does it stand?"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_arena.scenarios.evidence import Document, JudgedScenario
    from pytest_arena.scenarios.specs import Problem, Step

__all__ = ["Anchors", "Chapter", "Placed", "chapters"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One scenario, and the id of its element."""

    judged: JudgedScenario
    anchor: str

    @property
    def rule(self) -> str:
        """What it is grouped by: the business rule's id, else the name of the Gherkin rule."""
        return self.judged.scenario.requirement or self.judged.scenario.rule

    @property
    def last_line(self) -> int:
        """The last line that something of it was read in."""
        scenario = self.judged.scenario
        steps, rows = scenario.steps, scenario.rows
        return max([scenario.line, *(one.line for one in steps), *(one.line for one in rows)])


class Anchors:
    """Gives out ids, each of them once."""

    def __init__(self) -> None:
        self._given: dict[str, int] = {}

    def take(self, wished: str) -> str:
        """Return ``wished``, with a number behind it if somebody has it already."""
        count = self._given.get(wished)
        self._given[wished] = 0 if count is None else count + 1
        return wished if count is None else self.take(f"{wished}-{count + 1}")


@dataclass(kw_only=True)
class Chapter:
    """One file: its text, what was read in it, and what has been shown of that already."""

    path: str
    anchor: str
    anchors: Anchors
    text: str | None
    """None: it is not to be had."""
    placed: tuple[Placed, ...] = ()
    problems: tuple[Problem, ...] = ()
    _shown: set[str] = field(default_factory=set)

    @cached_property
    def by_line(self) -> dict[int, Placed]:
        """Its scenarios by the line that they begin in."""
        return {one.judged.scenario.line: one for one in self.placed}

    @cached_property
    def steps(self) -> dict[int, Step]:
        """All steps by their lines, those of Backgrounds too."""
        return {step.line: step for one in self.placed for step in one.judged.scenario.steps}

    @cached_property
    def features(self) -> frozenset[str]:
        """The names of its features."""
        return frozenset(one.judged.scenario.feature for one in self.placed) - {""}

    @cached_property
    def rules(self) -> frozenset[str]:
        """The names of its Gherkin rules."""
        return frozenset(one.judged.scenario.rule for one in self.placed) - {""}

    @cached_property
    def lines(self) -> list[str]:
        """The lines of its text; no form feed or other odd blank parts one."""
        return re.split(r"\r\n|\r|\n", (self.text or "").removeprefix("\ufeff"))

    @cached_property
    def is_as_read(self) -> bool:
        """Whether the text still is the one that the scenarios were read in."""
        return self.text is not None and all(self._stands(*one) for one in self._expected())

    def problems_at(self, line: int) -> list[Problem]:
        """Return what is wrong with one line of it."""
        return self._problems_by_line.get(line, [])

    @cached_property
    def _problems_by_line(self) -> dict[int, list[Problem]]:
        found: dict[int, list[Problem]] = {}
        for problem in self.problems:
            if problem.line:
                found.setdefault(problem.line, []).append(problem)
        return found

    def anchor_at(self, line: int) -> str:
        """Return the id of the scenario that a line may belong to, else the file's own."""
        above = [one for one in self.placed if one.judged.scenario.line <= line]
        return above[-1].anchor if above else self.anchor

    def show(self, line: int) -> Placed | None:
        """Return the scenario that begins in a line, and remember that it has been shown."""
        one = self.by_line.get(line)
        if one is None or one.anchor in self._shown:
            return None
        self._shown.add(one.anchor)
        return one

    def left(self) -> Iterator[Placed]:
        """Yield the scenarios that have not been shown yet."""
        return (one for one in self.placed if one.anchor not in self._shown)

    def _expected(self) -> Iterator[tuple[int, str]]:
        for one in self.placed:
            scenario = one.judged.scenario
            yield scenario.line, scenario.name
            yield from ((step.line, step.text) for step in scenario.steps)

    def _stands(self, line: int, words: str) -> bool:
        return line <= len(self.lines) and _squeezed(words) in _squeezed(self.lines[line - 1])


def chapters(document: Document, sources: Mapping[str, str]) -> list[Chapter]:
    """Return a chapter for each file that has a scenario, a problem or a text, by path."""
    anchors = Anchors()
    for reserved in ("main", "filters", "summary", "contents"):
        anchors.take(reserved)
    scenarios: dict[str, list[JudgedScenario]] = {path: [] for path in sources}
    problems: dict[str, list[Problem]] = {}
    for judged in document.scenarios:
        scenarios.setdefault(judged.scenario.spec, []).append(judged)
    for problem in document.problems:
        problems.setdefault(problem.spec, []).append(problem)
    found = [
        _chapter(path, anchors, sources.get(path), scenarios[path]) for path in sorted(scenarios)
    ]
    for chapter in found:
        chapter.problems = tuple(problems.get(chapter.path, ()))
    return found


def _chapter(
    path: str, anchors: Anchors, text: str | None, scenarios: list[JudgedScenario]
) -> Chapter:
    anchor = anchors.take(re.sub(r"[^\w]+", "-", path.lower()).strip("-") or "file")
    placed = tuple(
        Placed(judged=judged, anchor=anchors.take(f"{anchor}-L{judged.scenario.line}"))
        for judged in scenarios
    )
    return Chapter(path=path, anchor=anchor, anchors=anchors, text=text, placed=placed)


def _squeezed(text: str) -> str:
    return " ".join(text.split())
