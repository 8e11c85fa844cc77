"""What does the parser let pass that its author cannot have meant?"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_arena.scenarios.specs._near import begins_like_a_step, edits, near_step, near_title
from pytest_arena.scenarios.specs._values import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_arena.scenarios.specs._blocks import Block
    from pytest_arena.scenarios.specs._features import Found, Grown
    from pytest_arena.scenarios.specs._near import Near
    from pytest_arena.scenarios.specs._values import Step
    from pytest_arena.scenarios.specs.gherkin import Language, Node

__all__ = ["Lint"]

# A column's name: no mark-up, no address, no comparison.
_PLACEHOLDER = re.compile(r"<([^\W\d][\w .\-]*)>")
_SHORT, _LONG = 2, 6  # letters: in short names two others make another word
_RULER = re.compile(r":?-{3,}:?")
_SURE = frozenset({"scenario", "scenarioOutline", "background"})


@dataclass(frozen=True, slots=True)
class _Line:
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

    block: Block
    language: Language
    faulty: frozenset[str]
    """The keys of scenarios that have an error already: what follows from it is not told."""

    def problems(self, found: Found) -> Iterator[Problem]:
        """Yield the problems of a feature and all that is in it."""
        yield from self._group(found.node, len(found.scenarios), "feature")
        for part in found.scenarios:
            if part.scenario.key not in self.faulty:
                yield from self._scenario(part)

    def _group(self, node: Node, scenarios: int, what: str) -> Iterator[Problem]:
        misread = [*self._misread_title(node, has_scenarios=bool(scenarios))]
        misread += self._stray_steps(node)
        yield from misread
        if not scenarios and not misread:
            is_error = what == "feature"
            expected = "## " * self.block.is_markdown + self.language.title("scenario")
            told = f"the {what} has no scenario; expected a line `{expected} …`"
            yield self._said(_line(node), told, is_error=is_error)
        for child in node["children"]:
            if background := child.get("background"):
                yield from self._background(background)
            elif rule := child.get("rule"):
                inside = sum("scenario" in one for one in rule["children"])
                yield from self._group(rule, inside, "rule")

    def _misread_title(self, node: Node, *, has_scenarios: bool) -> Iterator[Problem]:
        for line in self._described(node):
            near = near_title(line.text, self.language)
            if near is None or near.title in {"feature", "examples"}:
                continue
            is_followed = begins_like_a_step(line.follower, self.language)
            is_sure = near.title in _SURE and (is_followed or not has_scenarios)
            if is_sure or (line.is_first and self._is_striking(near)):
                yield self._not_read(line, near, is_error=is_sure)

    def _is_striking(self, near: Near) -> bool:
        is_usual = near.keyword == self.language.title("scenario")
        is_slip = near.slip in {"blank", "case", "letters"}
        return is_usual and is_slip and near.wrong[:1].isupper()

    def _stray_steps(self, node: Node) -> Iterator[Problem]:
        lines = [line for line in self._described(node) if line.text]
        near = [(line, near_step(line.text, self.language)) for line in lines]
        stray = [(line, one) for line, one in near if one and one.slip == "exact"]
        kinds = {self.language.steps[one.keyword] for _, one in stray} - {None}
        if len(kinds) > 1:
            line, _ = stray[0]
            yield self._said(
                line.number,
                f"steps outside of a scenario are read as a description: {_shown(line.text)}",
                hint=f"put a line `{self.language.title('scenario')} …` before them",
            )

    def _background(self, node: Node) -> Iterator[Problem]:
        misread = [*self._misread_step(node, "")]
        yield from misread
        if not node["steps"] and not misread:
            yield self._said(_line(node), "the background has no step", is_error=False)

    def _scenario(self, part: Grown) -> Iterator[Problem]:
        node, scenario = part.node, part.scenario
        if not scenario.name:
            yield self._said(
                scenario.line, "a scenario without a name: no test can mean it", key=scenario.key
            )
        misread = [*self._misread_step(node, scenario.key)] if node["description"] else []
        yield from misread
        if not node["steps"] and not misread:
            yield self._said(scenario.line, "the scenario has no step", key=scenario.key)
        for step in scenario.steps:
            yield from self._step(step, scenario.key)
        for step in node["steps"]:
            yield from self._rulers(step.get("dataTable", {}).get("rows", ()), scenario.key)
        if not (scenario.steps and scenario.steps[0].is_background):
            yield from self._first(node, scenario.key)
        if scenario.is_outline:
            yield from self._outline(part)
        else:
            yield from self._placeholders(part, frozenset())

    def _misread_step(self, node: Node, key: str) -> Iterator[Problem]:
        """The first step, if it is misspelt: the parser takes it for a description."""
        for line in self._described(node):
            near = self._lost_title(line, node) or self._lost_step(line, node)
            if near:
                is_error = not node["steps"] or self._is_sure(near, line, node)
                yield self._not_read(line, near, key=key, is_error=is_error)
                return

    def _lost_title(self, line: _Line, node: Node) -> Near | None:
        near = near_title(line.text, self.language)
        if near is None or near.title not in _SURE:
            return None
        is_one = not node["steps"] or begins_like_a_step(line.follower, self.language)
        return near if is_one else None

    def _lost_step(self, line: _Line, node: Node) -> Near | None:
        near = near_step(line.text, self.language)
        if near is None or not (line.is_first or line.is_last):
            return None
        is_odd = self._begins_with(node) != "given"
        if not line.is_first and self.language.steps[near.keyword] is None:
            return None  # a wrapped sentence: "… \nand that"
        is_told = {"letter": is_odd or self.language.code.startswith("en"), "letters": is_odd}
        return near if is_told.get(near.slip, True) else None

    def _is_sure(self, near: Near, line: _Line, node: Node) -> bool:
        """Whether it cannot be prose: two letters off, or a small word in a wrapped sentence."""
        is_wrapped = not line.is_first and self._begins_with(node) == "given"
        return near.slip != "letters" and not (near.slip == "case" and is_wrapped)

    def _begins_with(self, node: Node) -> str | None:
        steps = node["steps"]
        return self.language.kinds.get(steps[0]["keyword"]) if steps else None

    def _first(self, node: Node, key: str) -> Iterator[Problem]:
        first = node["steps"][0] if node["steps"] else None
        if first and self.language.kinds.get(first["keyword"]) is None and first["keyword"] != "* ":
            yield self._said(
                _line(first),
                f"the first step begins with {first['keyword'].strip()}, and there is none before "
                "it: it is taken for a Given",
                key=key,
                is_error=False,
            )

    def _step(self, step: Step, key: str) -> Iterator[Problem]:
        if step.is_background:
            return
        if not step.text:
            yield self._said(step.line, "a step without text", key=key, is_error=False)
        elif step.keyword == "*":
            near = near_step(step.text, self.language)
            if near and near.slip == "exact":
                yield self._said(
                    step.line,
                    f"`*` is the keyword of this step, and {near.keyword} its first word",
                    hint=f"leave the `*` out: `{step.text}`",
                    key=key,
                    is_error=False,
                )

    def _outline(self, part: Grown) -> Iterator[Problem]:
        scenario, examples = part.scenario, part.node["examples"]
        if not scenario.rows:
            lack = "its Examples have no row" if examples else "it has no Examples"
            yield self._said(
                scenario.line,
                f"no row: the Scenario Outline stands for nothing, {lack}",
                key=scenario.key,
            )
        columns = {column for row in scenario.rows for column, _ in row.values}
        if columns:
            yield from self._placeholders(part, frozenset(columns))
        for one in examples:
            yield from self._examples(one, part)
        yield from self._doubles(part)

    def _examples(self, node: Node, part: Grown) -> Iterator[Problem]:
        key = part.scenario.key
        if not node.get("tableBody") and part.scenario.rows:
            yield self._said(_line(node), "these Examples have no row", key=key, is_error=False)
        header = [cell["value"] for cell in (node.get("tableHeader") or {"cells": []})["cells"]]
        yield from self._rulers(node.get("tableBody") or (), key)
        for column in sorted({one for one in header if header.count(one) > 1}):
            yield self._said(_line(node), f"two columns are named {column!r}", key=key)
        if node["description"]:
            for line in self._described(node):
                if line.text.lstrip(" -*").startswith("|") or "|" in line.text[1:]:
                    yield self._said(line.number, "a row of a table is read as text", key=key)

    def _rulers(self, rows: Sequence[Any], key: str) -> Iterator[Problem]:
        """The line below the head of a table in Markdown: in Gherkin it is a row of values."""
        for row in rows:
            if row["cells"] and all(_RULER.fullmatch(cell["value"]) for cell in row["cells"]):
                told = "a row of dashes is a row of values: tables of Gherkin have no such line"
                yield self._said(_line(row), told, hint="remove it", key=key, is_error=False)

    def _doubles(self, part: Grown) -> Iterator[Problem]:
        first: dict[object, int] = {}
        for row in part.scenario.rows:
            if first.setdefault(row.values, row.line) != row.line:
                yield self._said(
                    row.line,
                    f"the same row as in line {first[row.values]}",
                    key=part.scenario.key,
                    is_error=False,
                )

    def _placeholders(self, part: Grown, columns: frozenset[str]) -> Iterator[Problem]:
        for step in part.scenario.steps:
            if "<" not in step.text and step.doc_string is None and not step.table:
                continue
            told = [step.text, step.doc_string or "", *(cell for row in step.table for cell in row)]
            for name in dict.fromkeys(_placeholders(told)):
                if name in columns or step.is_background:
                    continue
                near = next((one for one in sorted(columns) if _is_slip(name, one)), "")
                lack = (
                    f"no column of the Examples is named so, but {', '.join(sorted(columns))}"
                    if columns
                    else "there are no Examples to fill it in"
                )
                yield self._said(
                    step.line,
                    f"<{name}> stays as it is: {lack}",
                    hint=f"write `<{near}>`" if near else "",
                    key=part.scenario.key,
                    is_error=bool(near),
                )

    def _described(self, node: Node) -> Iterator[_Line]:
        """The lines of a description, with their places in the file."""
        told = [line.strip() for line in (node.get("description") or "").split("\n")]
        wanted = deque(line for line in told if line)
        number, is_first, end = _line(node), True, self.block.last_line
        while wanted and number < end:
            number += 1
            text = self.block.line(number)
            if text.strip() != wanted[0]:
                # A comment is as good as nothing: a step may come right after it.
                is_first = is_first or not text.strip()
                continue
            wanted.popleft()
            is_last = not wanted and bool(self.block.line(number + 1).strip())
            yield _Line(number, text.strip(), is_first, is_last, self._follower(number))
            is_first = False

    def _follower(self, number: int) -> str:
        below = map(self.block.line, range(number + 1, self.block.last_line + 1))
        return next((line for line in below if not _is_nothing(line, self.block)), "")

    def _not_read(
        self, line: _Line, near: Near, *, key: str = "", is_error: bool = True
    ) -> Problem:
        return self._said(
            line.number,
            f"expected {near.keyword}, but {_shown(line.text)} is read as a description"
            + _blank(line.text) * (near.slip == "blank"),
            hint=f"write `{near.keyword} …`",
            key=key,
            is_error=is_error,
        )

    def _said(
        self, line: int, what: str, *, hint: str = "", key: str = "", is_error: bool = True
    ) -> Problem:
        return Problem(
            spec=self.block.spec, line=line, what=what, hint=hint, is_error=is_error, scenario=key
        )


def _placeholders(texts: list[str]) -> Iterator[str]:
    for text in texts:
        if "<" in text and "</" not in text and "/>" not in text:
            yield from (match.group(1) for match in _PLACEHOLDER.finditer(text))


def _is_slip(name: str, column: str) -> bool:
    """Whether it can only be a column, misspelt: anything else may be mark-up."""
    sure = 1 if len(name) < _LONG else 2
    return len(name) > _SHORT and edits(name.casefold(), column.casefold()) <= sure


def _is_nothing(line: str, block: Block) -> bool:
    is_comment = line.lstrip().startswith("#") and not block.is_markdown
    return is_comment or not line.strip()


def _line(node: Node) -> int:
    line: int = node["location"]["line"]
    return line


def _shown(text: str) -> str:
    limit = 80
    return repr(text if len(text) <= limit else text[:limit] + " …")


def _blank(text: str) -> str:
    strange = next((one for one in text if one.isspace() and one != " "), "")
    return f" (the blank after it is U+{ord(strange):04X})" if strange else ""
