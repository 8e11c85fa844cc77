"""Finds mistakes that the parser accepts."""

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import pairwise

from pytest_arena.scenarios.specs._features import ScenarioNode
from pytest_arena.scenarios.specs._gherkin import Language, Node, Slip, line_of, shown
from pytest_arena.scenarios.specs._specification import (
    GherkinText,
    Problem,
    ScenarioSpec,
    Step,
)

# A column's name: no mark-up, no address, no comparison.
_PLACEHOLDER = re.compile(r"<([^\W\d][\w .\-]*)>")
_SHORT = 2  # letters: such a short name has too many neighbours
_MIN_SIMILARITY = 0.75
_RULER = re.compile(r":?-{3,}:?")
_SURE = frozenset({"scenario", "scenarioOutline", "background"})


@dataclass(frozen=True, slots=True)
class _DescriptionLine:
    """A line of a description."""

    number: int
    text: str
    is_first: bool
    """Whether it is the first line of a paragraph."""
    is_last: bool
    """Whether a line outside of the description follows without a blank line."""
    follower: str
    """The next line that is neither blank nor a comment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lint:
    """Checks the nodes of a block."""

    block: GherkinText
    language: Language
    key: str = ""
    """The key of the checked scenario, or "" for a feature, a rule or a background."""

    def overlooked(self, parts: Sequence[ScenarioNode]) -> Iterator[Problem]:
        """Yield the scenarios that a doc string or a comment contains."""
        for part in parts:
            lint = replace(self, key=part.scenario.key)
            for step in part.node["steps"]:
                if "docString" in step:
                    yield from lint.in_doc_string(line_of(step["docString"]))
            yield from lint.in_comments(part)

    def problems(
        self,
        feature: Node,
        parts: Sequence[ScenarioNode],
        faulty: Container[str],
    ) -> Iterator[Problem]:
        """Yield the problems of a feature, its rules, backgrounds and scenarios.

        ``faulty`` scenarios already have errors. These would cause further problems.
        """
        yield from self._group(feature, "feature", has_scenarios=bool(parts))
        for part in parts:
            if part.scenario.key not in faulty:
                yield from replace(self, key=part.scenario.key).scenario(part)

    def in_doc_string(self, opening: int) -> Iterator[Problem]:
        """Yield the headings in a doc string that are left of its marks.

        They show that the doc string was closed too late.
        """
        words = [
            *self.language.words["scenario"],
            *self.language.words["scenarioOutline"],
        ]
        headings = tuple(f"{word}:" for word in words)
        opening_line = self.block.line(opening)
        mark = opening_line.lstrip()[:3]
        for number in range(opening + 1, self.block.last_line + 1):
            line = self.block.line(number)
            text = line.strip()
            if text.startswith(mark):
                return
            if text.startswith(headings) and _indent(line) < _indent(opening_line):
                yield self._problem(
                    number,
                    f"{text!r} looks like a scenario, but it is in the doc string that begins in "
                    f"line {opening}",
                    f"close the doc string with a line {mark}",
                )

    def in_comments(self, part: ScenarioNode) -> Iterator[Problem]:
        """Yield the comments ``# Scenario:`` before a Given that follows another kind of step.

        In a fence of Markdown, authors may use ``#`` as the mark of a heading.
        """
        titles = (
            self.language.title("scenario"),
            *(f"{word}:" for word in self.language.words["scenarioOutline"]),
        )
        for above, below in pairwise(part.node["steps"]):
            if self._kind(below) != "given" or self._kind(above) == "given":
                continue
            # A doc string may contain any line.
            first = below if "docString" in above else above
            for number in range(line_of(first) + 1, line_of(below)):
                line = self.block.line(number).strip()
                if line.startswith("#") and line.lstrip("# \t").startswith(titles):
                    name = part.scenario.name
                    yield self._problem(
                        number,
                        f"{line!r} is a comment, so the steps below it belong to {name!r}",
                        "remove the #, or put a # before these steps too",
                    )

    # Features and rules.

    def _group(
        self,
        node: Node,
        kind: str,
        *,
        has_scenarios: bool,
    ) -> Iterator[Problem]:
        """Yield the problems of a feature or a rule."""
        misread = [
            *self._lost_titles(node, has_scenarios=has_scenarios),
            *self._stray_steps(node),
        ]
        yield from misread
        if not has_scenarios and not misread:
            title = self.language.title("scenario")
            expected = f"## {title}" if self.block.is_markdown else title
            what = f"the {kind} has no scenario. Expected a line `{expected} …`"
            yield self._problem(
                line_of(node),
                what,
                is_error=kind == "feature",
            )
        for child in node["children"]:
            if "background" in child:
                background = child["background"]
                yield from self._first_step(background, "the background has no step")
            elif "rule" in child:
                rule = child["rule"]
                is_filled = any("scenario" in inner for inner in rule["children"])
                yield from self._group(rule, "rule", has_scenarios=is_filled)

    def _stray_steps(self, node: Node) -> Iterator[Problem]:
        """Yield the first step in a description that has steps of several kinds."""
        stray = []
        kinds = set()
        for line in self._described(node):
            slip = self.language.step_slip(line.text)
            if slip and slip.kind == "exact":
                stray.append(line)
                kinds.add(self.language.steps[slip.keyword])
        if len(kinds - {None}) > 1:
            first = stray[0]
            title = self.language.title("scenario")
            yield self._problem(
                first.number,
                f"steps outside of a scenario are read as a description: {shown(first.text)}",
                f"put a line `{title} …` before them",
            )

    def _lost_titles(self, node: Node, *, has_scenarios: bool) -> Iterator[Problem]:
        """Yield the titles that the parser reads as a part of a description."""
        for line in self._described(node):
            slip = self.language.title_slip(line.text)
            if slip is None or slip.title in {"feature", "examples"}:
                continue
            has_step = self._is_followed_by_step(line)
            is_sure = slip.title in _SURE and (has_step or not has_scenarios)
            is_misspelt = slip.kind != "exact" and slip.text[:1].isupper()
            is_scenario = slip.keyword == self.language.title("scenario")
            if is_sure or (is_misspelt and is_scenario and line.is_first):
                yield self._not_read(line, slip, is_error=is_sure)

    def _is_followed_by_step(self, line: _DescriptionLine) -> bool:
        if line.follower.lstrip().startswith("* "):
            return True
        slip = self.language.step_slip(line.follower)
        return slip is not None and slip.kind != "letters"

    # Scenarios.

    def scenario(self, part: ScenarioNode) -> Iterator[Problem]:
        """Yield the problems of a scenario."""
        node = part.node
        scenario = part.scenario
        if not scenario.name:
            what = "the scenario has no name, so no test can refer to it"
            yield self._problem(scenario.line, what)
        yield from self._first_step(node, "the scenario has no step")
        yield from self._steps(scenario)
        yield from self._rulers(node)
        if scenario.is_outline:
            yield from self._outline(part)
        if scenario.rows or not scenario.is_outline:
            yield from self._placeholders(scenario)

    def _rulers(self, node: Node) -> Iterator[Problem]:
        """Yield the lines of dashes that Markdown needs. Gherkin reads them as rows."""
        rows = []
        for step in node["steps"]:
            rows += step.get("dataTable", {}).get("rows", ())
        for table in node["examples"]:
            rows += table.get("tableBody") or ()
        for row in rows:
            values = [cell["value"] for cell in row["cells"]]
            if values and all(map(_RULER.fullmatch, values)):
                what = "Gherkin reads this row of dashes as a row of values"
                yield self._warning(line_of(row), what, "remove the row")

    def _steps(self, scenario: ScenarioSpec) -> Iterator[Problem]:
        for first in scenario.steps[:1]:
            is_and = self.language.steps.get(first.keyword, "given") is None
            if is_and and not first.is_background:
                yield self._warning(
                    first.line,
                    f"the first step begins with {first.keyword}, so it is read as a Given",
                )
        for step in _own_steps(scenario):
            slip = self.language.step_slip(step.text) if step.keyword == "*" else None
            if not step.text:
                yield self._warning(step.line, "the step has no text")
            elif slip and slip.kind == "exact":
                yield self._warning(
                    step.line,
                    f"the keyword of this step is `*`, so {slip.keyword} is a part of its text",
                    f"remove the `*`: `{step.text}`",
                )

    def _first_step(self, node: Node, missing: str) -> Iterator[Problem]:
        """Yield the problem of a misspelt first step. The parser reads it as a description."""
        for line in self._described(node):
            problem = self._lost_step(line, node["steps"])
            if problem:
                yield problem
                return
        if not node["steps"]:
            yield self._problem(
                line_of(node),
                missing,
                is_error=bool(self.key),
            )

    def _lost_step(
        self, line: _DescriptionLine, steps: Sequence[Node]
    ) -> Problem | None:
        title = self.language.title_slip(line.text)
        is_title = title is not None and title.title in _SURE
        if title and is_title and (not steps or self._is_followed_by_step(line)):
            return self._not_read(line, title, is_error=True)
        slip = self.language.step_slip(line.text)
        if slip is None or not (line.is_first or line.is_last):
            return None
        if not line.is_first and self.language.steps[slip.keyword] is None:
            return None  # a wrapped sentence: "… \nand that"
        has_given = bool(steps) and self._kind(steps[0]) == "given"
        if slip.kind == "letters":  # prose may begin with a word that is like a keyword
            if steps and (has_given or not line.is_last):
                return None
            return self._not_read(line, slip, is_error=not steps)
        is_wrapped = slip.kind == "case" and not line.is_first and has_given
        return self._not_read(line, slip, is_error=not is_wrapped)

    def _kind(self, step: Node) -> str | None:
        return self.language.kinds.get(step["keyword"])

    # Outlines.

    def _outline(self, part: ScenarioNode) -> Iterator[Problem]:
        scenario = part.scenario
        tables = part.node["examples"]
        if not scenario.rows:
            missing = "it has no Examples"
            if tables:
                missing = "its Examples are empty"
            what = f"the Scenario Outline has no row and no effect, because {missing}"
            yield self._problem(scenario.line, what)
        for table in tables:
            if not table.get("tableBody") and scenario.rows:
                yield self._warning(line_of(table), "these Examples have no row")
            yield from self._columns(table)
            for line in self._described(table):
                if line.text.lstrip(" -*").startswith("|") or "|" in line.text[1:]:
                    yield self._problem(
                        line.number, "this row of a table is read as text"
                    )
        first_lines: dict[object, int] = {}
        for row in scenario.rows:
            first = first_lines.setdefault(row.values, row.line)
            if first != row.line:
                yield self._warning(row.line, f"line {first} has the same row")

    def _columns(self, table: Node) -> Iterator[Problem]:
        """Yield the names that two columns have."""
        header = table.get("tableHeader") or {"cells": ()}
        names = [cell["value"] for cell in header["cells"]]
        for name in sorted(set(names)):
            if names.count(name) > 1:
                yield self._problem(line_of(table), f"two columns are named {name!r}")

    def _placeholders(self, scenario: ScenarioSpec) -> Iterator[Problem]:
        """Yield the placeholders that no column fills."""
        columns = sorted({column for row in scenario.rows for column, _ in row.values})
        if scenario.rows and not columns:
            return
        why = "the scenario has no Examples"
        if columns:
            why = f"the columns of the Examples are {', '.join(columns)}"
        for step in _own_steps(scenario):
            for name in _placeholders_in(step):
                if name in columns:
                    continue
                hint = ""
                near = get_close_matches(name, columns, n=1, cutoff=_MIN_SIMILARITY)
                if near and len(name) > _SHORT:
                    hint = f"write `<{near[0]}>`"
                # Only a misspelt column is an error, because any other name may be mark-up.
                yield self._problem(
                    step.line,
                    f"<{name}> is not replaced: {why}",
                    hint,
                    is_error=bool(hint),
                )

    # Descriptions.

    def _described(self, node: Node) -> Iterator[_DescriptionLine]:
        """Yield the lines of a description, with their numbers in the file."""
        texts = [line.strip() for line in (node.get("description") or "").split("\n")]
        missing = [text for text in texts if text]
        number = line_of(node)
        is_first = True
        while missing and number < self.block.last_line:
            number += 1
            text = self.block.line(number).strip()
            if text != missing[0]:
                # A comment does not end a paragraph.
                is_first = is_first or not text
                continue
            missing.pop(0)
            following = self.block.line(number + 1).strip()
            yield _DescriptionLine(
                number,
                text,
                is_first,
                is_last=bool(following) and not missing,
                follower=self._follower(number),
            )
            is_first = False

    def _follower(self, number: int) -> str:
        """Return the next line that is neither blank nor a comment, or "" without one."""
        comment_marks = () if self.block.is_markdown else ("#",)
        for below in range(number + 1, self.block.last_line + 1):
            line = self.block.line(below)
            if line.strip() and not line.lstrip().startswith(comment_marks):
                return line
        return ""

    def _not_read(
        self,
        line: _DescriptionLine,
        slip: Slip,
        *,
        is_error: bool,
    ) -> Problem:
        what = (
            f"expected {slip.keyword}, but {shown(line.text)} is read as a description"
        )
        without_blanks = line.text.replace(" ", "")
        for letter in without_blanks:
            if letter.isspace() and slip.kind == "blank":
                what += f" (the blank after it is U+{ord(letter):04X})"
                break
        return self._problem(
            line.number,
            what,
            f"write `{slip.keyword} …`",
            is_error=is_error,
        )

    def _warning(
        self,
        line: int,
        what: str,
        hint: str = "",
    ) -> Problem:
        return self._problem(line, what, hint, is_error=False)

    def _problem(
        self,
        line: int,
        what: str,
        hint: str = "",
        *,
        is_error: bool = True,
    ) -> Problem:
        return self.block.problem(
            line, what, hint, is_error=is_error, scenario=self.key
        )


def _own_steps(scenario: ScenarioSpec) -> list[Step]:
    """Return the steps of a scenario without those of a Background."""
    return [step for step in scenario.steps if not step.is_background]


def _placeholders_in(step: Step) -> list[str]:
    """Return the names in ``<…>``, each once, except in texts with mark-up."""
    cells = [cell for row in step.table for cell in row]
    names = []
    for text in (step.text, step.doc_string or "", *cells):
        if "</" not in text and "/>" not in text:
            names += _PLACEHOLDER.findall(text)
    return list(dict.fromkeys(names))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
