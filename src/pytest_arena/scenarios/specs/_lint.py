"""What does the parser let pass that its author cannot have meant?"""

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import chain, pairwise

from pytest_arena.scenarios.specs._features import ScenarioNode
from pytest_arena.scenarios.specs._gherkin import Language, Node, Slip, line_of, shown
from pytest_arena.scenarios.specs._specification import (
    GherkinText,
    Problem,
    ScenarioSpec,
)

# A column's name: no mark-up, no address, no comparison.
_PLACEHOLDER = re.compile(r"<([^\W\d][\w .\-]*)>")
_SHORT, _LIKE = 2, 0.75  # letters: in short names two others make another word
_RULER = re.compile(r":?-{3,}:?")
_SURE = frozenset({"scenario", "scenarioOutline", "background"})


@dataclass(frozen=True, slots=True)
class _DescriptionLine:
    """A line of a description."""

    number: int
    text: str
    is_first: bool
    """Of a paragraph."""
    is_last: bool
    """Right before the first step, or whatever ends the description."""
    follower: str
    """The next line that says something, whatever it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lint:
    """All that is suspicious in a block, of which the parser says nothing."""

    block: GherkinText
    language: Language
    key: str = ""
    """Of the scenario that is looked at, where it is one."""

    def overlooked(self, parts: Sequence[ScenarioNode]) -> Iterator[Problem]:
        """Yield headings that doc strings and comments have taken in, with the steps below them."""
        for part in parts:
            lint = replace(self, key=part.scenario.key)
            yield from lint.in_doc_strings(part.node)
            yield from lint.in_comments(part)

    def problems(
        self, feature: Node, parts: Sequence[ScenarioNode], faulty: Container[str]
    ) -> Iterator[Problem]:
        """Yield the problems of a feature and all that is in it.

        Of scenarios that are ``faulty`` there are none: they follow from their errors.
        """
        yield from self._group(feature, len(parts), "feature")
        for part in parts:
            if part.scenario.key not in faulty:
                yield from replace(self, key=part.scenario.key).scenario(part)

    def in_doc_strings(self, node: Node) -> Iterator[Problem]:
        """A doc string was closed too late.

        What it holds stands to the right of its marks; a heading to the left of them was not meant
        to be in it.
        """
        words = (
            *self.language.words["scenario"],
            *self.language.words["scenarioOutline"],
        )
        headings = tuple(f"{word}:" for word in words)
        for opening in (
            line_of(step["docString"]) for step in node["steps"] if "docString" in step
        ):
            opened = self.block.line(opening)
            mark = opened.lstrip()[:3]
            for number in range(opening + 1, self.block.last_line + 1):
                text = self.block.line(number)
                if text.lstrip().startswith(mark):
                    break
                if text.lstrip().startswith(headings) and _indent(text) < _indent(
                    opened
                ):
                    what = f"{text.strip()!r} looks like a scenario, but stands in the doc string "
                    what += f"that line {opening} begins"
                    yield self._problem(
                        number, what, f"close that one with a line {mark}"
                    )

    def in_comments(self, part: ScenarioNode) -> Iterator[Problem]:
        """In a fence of Markdown ``# Scenario:`` is written so easily.

        A comment between two steps is in peace as long as no Given comes after it.
        """
        outlines = (f"{word}:" for word in self.language.words["scenarioOutline"])
        titles = (self.language.title("scenario"), *outlines)
        for above, below in pairwise(part.node["steps"]):
            if self._kind(below) != "given" or self._kind(above) == "given":
                continue
            # No line of a doc string: that may hold anything.
            first = below if "docString" in above else above
            for number in range(line_of(first) + 1, line_of(below)):
                line = self.block.line(number).strip()
                if line.startswith("#") and line.lstrip("# \t").startswith(titles):
                    name = part.scenario.name
                    what = (
                        f"{line!r} is a comment: the steps below it belong to {name!r}"
                    )
                    hint = "leave the # out, or put it before these steps, too"
                    yield self._problem(number, what, hint)

    def _group(self, node: Node, scenarios: int, kind: str) -> Iterator[Problem]:
        title = self.language.title("scenario")
        misread = [*self._lost_titles(node, has_scenarios=bool(scenarios))]
        slips = [
            (line, self.language.step_slip(line.text)) for line in self._described(node)
        ]
        stray = [(line, slip) for line, slip in slips if slip and slip.kind == "exact"]
        if len({self.language.steps[slip.keyword] for _, slip in stray} - {None}) > 1:
            line, _ = stray[0]
            what = f"steps outside of a scenario are read as a description: {shown(line.text)}"
            misread.append(
                self._problem(line.number, what, f"put a line `{title} …` before them")
            )
        yield from misread
        if not scenarios and not misread:
            expected = "## " * self.block.is_markdown + title
            what = f"the {kind} has no scenario; expected a line `{expected} …`"
            yield self._problem(line_of(node), what, is_error=kind == "feature")
        for child in node["children"]:
            if background := child.get("background"):
                yield from self._steps_of(background, "the background has no step")
            elif rule := child.get("rule"):
                inside = sum("scenario" in child for child in rule["children"])
                yield from self._group(rule, inside, "rule")

    def _lost_titles(self, node: Node, *, has_scenarios: bool) -> Iterator[Problem]:
        for line in self._described(node):
            slip = self.language.title_slip(line.text)
            if slip is None or slip.title in {"feature", "examples"}:
                continue
            is_sure = slip.title in _SURE and (
                self._is_followed(line) or not has_scenarios
            )
            is_usual = (
                slip.keyword == self.language.title("scenario") and slip.kind != "exact"
            )
            if is_sure or (line.is_first and is_usual and slip.text[:1].isupper()):
                yield self._not_read(line, slip, is_error=is_sure)

    def _is_followed(self, line: _DescriptionLine) -> bool:
        slip = self.language.step_slip(line.follower)
        return line.follower.lstrip().startswith("* ") or bool(
            slip and slip.kind != "letters"
        )

    def scenario(self, part: ScenarioNode) -> Iterator[Problem]:
        """Yield the problems of a scenario."""
        node, scenario = part.node, part.scenario
        if not scenario.name:
            yield self._problem(
                scenario.line, "a scenario without a name: no test can mean it"
            )
        yield from self._steps_of(node, "the scenario has no step")
        yield from self._steps(scenario)
        tables = (step.get("dataTable", {}).get("rows", ()) for step in node["steps"])
        examples = (table.get("tableBody") or () for table in node["examples"])
        for row in chain(*tables, *examples):
            if row["cells"] and all(
                _RULER.fullmatch(cell["value"]) for cell in row["cells"]
            ):
                what = "a row of dashes is a row of values: tables of Gherkin have no such line"
                yield self._warning(line_of(row), what, "remove it")
        if scenario.is_outline:
            yield from self._outline(part)
        if scenario.rows or not scenario.is_outline:
            yield from self._placeholders(scenario)

    def _steps(self, scenario: ScenarioSpec) -> Iterator[Problem]:
        first = next(iter(scenario.steps), None)
        is_first = first is not None and not first.is_background
        if (
            first
            and is_first
            and self.language.steps.get(first.keyword, "given") is None
        ):
            what = f"the first step begins with {first.keyword}, and there is none before it: "
            yield self._warning(first.line, f"{what}it is taken for a Given")
        for step in (step for step in scenario.steps if not step.is_background):
            slip = self.language.step_slip(step.text) if step.keyword == "*" else None
            if not step.text:
                yield self._warning(step.line, "a step without text")
            elif slip and slip.kind == "exact":
                what = f"`*` is the keyword of this step, and {slip.keyword} its first word"
                yield self._warning(
                    step.line, what, f"leave the `*` out: `{step.text}`"
                )

    def _steps_of(self, node: Node, lack: str) -> Iterator[Problem]:
        """The first step, if it is misspelt: the parser takes it for a description."""
        lines = self._described(node)
        misread = next(
            filter(None, (self._lost_step(line, node["steps"]) for line in lines)), None
        )
        if misread:
            yield misread
        elif not node["steps"]:
            yield self._problem(line_of(node), lack, is_error=bool(self.key))

    def _lost_step(
        self, line: _DescriptionLine, steps: Sequence[Node]
    ) -> Problem | None:
        title = self.language.title_slip(line.text)
        if title and title.title in _SURE and (not steps or self._is_followed(line)):
            return self._not_read(line, title, is_error=True)
        slip = self.language.step_slip(line.text)
        if slip is None or not (line.is_first or line.is_last):
            return None
        if not line.is_first and self.language.steps[slip.keyword] is None:
            return None  # a wrapped sentence: "… \nand that"
        has_given = bool(steps) and self._kind(steps[0]) == "given"
        if (
            slip.kind == "letters"
        ):  # prose may begin with any word that is like a keyword
            is_meant = not steps or (line.is_last and not has_given)
            return self._not_read(line, slip, is_error=not steps) if is_meant else None
        is_wrapped = slip.kind == "case" and not line.is_first and has_given
        return self._not_read(line, slip, is_error=not is_wrapped)

    def _kind(self, step: Node) -> str | None:
        return self.language.kinds.get(step["keyword"])

    def _outline(self, part: ScenarioNode) -> Iterator[Problem]:
        scenario = part.scenario
        if not scenario.rows:
            lack = (
                "its Examples have no row"
                if part.node["examples"]
                else "it has no Examples"
            )
            what = f"no row: the Scenario Outline stands for nothing, {lack}"
            yield self._problem(scenario.line, what)
        for table in part.node["examples"]:
            if not table.get("tableBody") and scenario.rows:
                yield self._warning(line_of(table), "these Examples have no row")
            header = (table.get("tableHeader") or {"cells": ()})["cells"]
            names = [cell["value"] for cell in header]
            for column in sorted({name for name in names if names.count(name) > 1}):
                yield self._problem(line_of(table), f"two columns are named {column!r}")
            for line in self._described(table):
                if line.text.lstrip(" -*").startswith("|") or "|" in line.text[1:]:
                    yield self._problem(line.number, "a row of a table is read as text")
        first: dict[object, int] = {}
        for row in scenario.rows:
            if first.setdefault(row.values, row.line) != row.line:
                yield self._warning(
                    row.line, f"the same row as in line {first[row.values]}"
                )

    def _placeholders(self, scenario: ScenarioSpec) -> Iterator[Problem]:
        columns = sorted({column for row in scenario.rows for column, _ in row.values})
        if scenario.rows and not columns:
            return
        lack = f"no column of the Examples is named so, but {', '.join(columns)}"
        lack = lack if columns else "there are no Examples to fill it in"
        for step in (step for step in scenario.steps if not step.is_background):
            cells = (cell for row in step.table for cell in row)
            texts = (step.text, step.doc_string or "", *cells)
            bare = "\0".join(
                text for text in texts if "</" not in text and "/>" not in text
            )
            for name in dict.fromkeys(_PLACEHOLDER.findall(bare)):
                if name in columns:
                    continue
                # It can only be a column, misspelt: anything else may be mark-up.
                near = get_close_matches(name, columns, n=1, cutoff=_LIKE)[
                    : len(name) > _SHORT
                ]
                hint = f"write `<{near[0]}>`" if near else ""
                what = f"<{name}> stays as it is: {lack}"
                yield self._problem(step.line, what, hint, is_error=bool(near))

    def _described(self, node: Node) -> Iterator[_DescriptionLine]:
        """The lines of a description, with their places in the file."""
        texts = [line.strip() for line in (node.get("description") or "").split("\n")]
        wanted = [text for text in texts if text]
        number, is_first = line_of(node), True
        signs = () if self.block.is_markdown else ("#",)
        while wanted and number < self.block.last_line:
            number += 1
            text = self.block.line(number)
            if text.strip() != wanted[0]:
                # A comment is as good as nothing: a step may come right after it.
                is_first = is_first or not text.strip()
                continue
            wanted.pop(0)
            is_last = not wanted and bool(self.block.line(number + 1).strip())
            below = (
                self.block.line(at)
                for at in range(number + 1, self.block.last_line + 1)
            )
            said = (
                line
                for line in below
                if line.strip() and not line.lstrip().startswith(signs)
            )
            yield _DescriptionLine(
                number, text.strip(), is_first, is_last, next(said, "")
            )
            is_first = False

    def _not_read(
        self, line: _DescriptionLine, slip: Slip, *, is_error: bool
    ) -> Problem:
        what = (
            f"expected {slip.keyword}, but {shown(line.text)} is read as a description"
        )
        strange = next(
            (char for char in line.text if char.isspace() and char != " "), ""
        )
        if strange and slip.kind == "blank":
            what += f" (the blank after it is U+{ord(strange):04X})"
        return self._problem(
            line.number, what, f"write `{slip.keyword} …`", is_error=is_error
        )

    def _warning(self, line: int, what: str, hint: str = "") -> Problem:
        return self._problem(line, what, hint, is_error=False)

    def _problem(
        self, line: int, what: str, hint: str = "", *, is_error: bool = True
    ) -> Problem:
        return self.block.problem(
            line, what, hint, is_error=is_error, scenario=self.key
        )


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
