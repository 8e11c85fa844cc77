"""How does Gherkin look on the page? As it stands in the file, with what is known beside it."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import groupby
from textwrap import dedent
from typing import TYPE_CHECKING

from pytest_arena.scenarios.evidence import row_verdict
from pytest_arena.scenarios.outputs.html._evidence import badge, evidence
from pytest_arena.scenarios.outputs.html._lines import Line, cells, classified, split, title
from pytest_arena.scenarios.outputs.html._markup import Html, element, joined

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_arena.scenarios.evidence import JudgedScenario, JudgedStep
    from pytest_arena.scenarios.outputs.html._chapter import Chapter, Placed
    from pytest_arena.scenarios.outputs.html._lines import Kind
    from pytest_arena.scenarios.specs import Problem, Scenario, Step

__all__ = ["gherkin", "heading", "note"]

_DEEPEST = 6  # HTML has no <h7>
_LANGUAGE = re.compile(r"\s*#\s*language\s*:\s*([a-z]{2,3})(?:-([A-Z]{2}))?\s*$")
_PLACEHOLDER = re.compile(r"(<[^<>]+>)")


def gherkin(lines: Iterable[tuple[int, str]], chapter: Chapter, depth: int) -> Html:
    """Return lines of Gherkin, given with their numbers in the file, as markup.

    Args:
        lines: a whole file, what is in one fence, or one scenario.
        chapter: the file that they stand in.
        depth: of the first heading in it: 3 is ``<h3>``.
    """
    known = classified(lines, chapter)
    language = next(filter(None, (_LANGUAGE.match(line.text) for line in known[:5])), None)
    lang = "-".join(filter(None, language.groups())) if language else None
    return element("div", *_parts(known, chapter, depth), class_="gherkin", lang=lang)


def _parts(
    lines: list[Line], chapter: Chapter, depth: int, kinds: tuple[Kind, ...] = ("feature", "rule")
) -> Iterator[Html]:
    if not kinds:
        yield from _scenarios(lines, chapter, depth)
        return
    before, parts = split(lines, kinds[0])
    yield from _parts(before, chapter, depth, kinds[1:])
    for part in parts:
        above, at, below = _around(part, kinds[0])
        content = _parts(below, chapter, depth + 1, kinds[1:])
        named = heading(depth, *_named(at))
        yield element(
            "section",
            *_prose([*above], chapter),
            named,
            *_notes([at], chapter),
            *content,
            class_=f"part {kinds[0]}",
        )


def _around(part: list[Line], kind: Kind) -> tuple[list[Line], Line, list[Line]]:
    place = next(place for place, line in enumerate(part) if line.kind == kind)
    return part[:place], part[place], part[place + 1 :]


def heading(depth: int, *children: str, **attributes: str | None) -> Html:
    """Return a heading, the deepest that HTML has for those that are deeper."""
    return element(f"h{min(depth, _DEEPEST)}", *children, **attributes)


def _named(line: Line, of: Scenario | None = None) -> tuple[str, ...]:
    keyword, name = title(line.text)
    words = [element("span", f"{keyword}:", class_="keyword"), " "] if keyword else []
    return *words, element("span", *_marked(name, of), class_="name", dir="auto")


def _scenarios(lines: list[Line], chapter: Chapter, depth: int) -> Iterator[Html]:
    before, parts = split(lines, "scenario")
    yield from _prose(before, chapter)
    for part in parts:
        above, at, below = _around(part, "scenario")
        if placed := chapter.show(at.number):
            top = joined(*_shown(above, chapter), _title(placed, at, depth), *_notes([at], chapter))
            yield _scenario(placed, top, joined(*_shown(below, chapter, placed.judged)))


def _prose(lines: list[Line], chapter: Chapter) -> Iterator[Html]:
    if shown := list(_shown(lines, chapter)):
        yield element("div", *shown, class_="prose lines")


def _title(placed: Placed, at: Line, depth: int) -> Html:
    scenario, href = placed.judged.scenario, f"#{placed.anchor}"
    named = heading(depth, badge(placed.judged.status), " ", *_named(at, scenario))
    line = f"line {scenario.line}"
    link = element("a", line, href=href, class_="place", title=scenario.place)
    return element("div", named, link, class_="title")


def _scenario(placed: Placed, top: Html, lines: Html) -> Html:
    judged = placed.judged
    return element(
        "article",
        top,
        *_verdict(judged),
        element("div", *_background(judged), lines, class_="lines"),
        *evidence(judged),
        id=placed.anchor,
        class_=f"scenario is-{judged.status.value.lower()}",
        data_status=judged.status.value,
        data_rule=placed.rule,
    )


def _verdict(judged: JudgedScenario) -> Iterator[Html]:
    if judged.reason:
        # Most reasons name their place themselves.
        place = "" if judged.place in judged.reason else judged.place
        shown = [" ", element("code", place, class_="place")] if place else []
        yield element("p", judged.reason, *shown, class_="reason")
    further = [joined("also ", badge(status)) for status in judged.also]
    if judged.is_excused:
        further.append(joined("in the baseline: known, and no failure"))
    if further:
        yield element("p", joined(*further, by=", "), class_="also")


def _background(judged: JudgedScenario) -> Iterator[Html]:
    # It stands once above all scenarios, but what became of it is different in each.
    for step, known in zip(judged.scenario.steps, judged.steps, strict=False):
        if step.is_background and known.status is not None:
            said = _said(step, judged.scenario)
            yield _step(said, step.line, known, class_="step background")


def _shown(
    lines: list[Line], chapter: Chapter, judged: JudgedScenario | None = None
) -> Iterator[Html]:
    for kind, group in groupby(lines, key=lambda line: line.kind):
        several = list(group)
        if kind == "step":
            yield from _step_lines(several, chapter, judged)
        elif kind == "row":
            yield _table(several, judged)
        elif kind == "doc":
            yield _doc_string(several)
        elif kind != "blank":
            text = "\n".join(line.text.strip() for line in several)
            yield element("p", text, class_=kind, data_n=several[0].number or None)
        if kind != "step":
            yield from _notes(several, chapter)


def _step_lines(
    lines: list[Line], chapter: Chapter, judged: JudgedScenario | None
) -> Iterator[Html]:
    known = _by_line(judged) if judged else {}
    for line in lines:
        said = _said(chapter.steps[line.number], judged.scenario if judged else None)
        yield _step(said, line.number, known.get(line.number))
        yield from _notes([line], chapter)


def _by_line(judged: JudgedScenario) -> dict[int, JudgedStep]:
    pairs = zip(judged.scenario.steps, judged.steps, strict=False)
    return {step.line: _unsaid(known, judged) for step, known in pairs}


def _unsaid(known: JudgedStep, judged: JudgedScenario) -> JudgedStep:
    """Without the reason that stands above as the scenario's own."""
    return replace(known, reason="") if known.reason == judged.reason else known


def _said(step: Step, of: Scenario | None) -> Html:
    return element("span", element("b", step.keyword), " ", *_marked(step.text, of))


def _step(said: Html, number: int, known: JudgedStep | None, *, class_: str = "step") -> Html:
    verdict = []
    if known and known.status:
        why = [element("span", known.reason, class_="why"), " "] if known.reason else []
        verdict = [" ", element("span", *why, badge(known.status))]
    return element("p", said, *verdict, class_=class_, data_n=number, dir="auto")


def _marked(text: str, of: Scenario | None) -> Iterator[str]:
    parts = _PLACEHOLDER.split(text) if of and of.is_outline else [text]
    for place, part in enumerate(parts):
        yield element("var", part) if place % 2 else part


def _table(lines: list[Line], judged: JudgedScenario | None) -> Html:
    rows = {row.line: row for row in judged.scenario.rows} if judged and judged.tests else {}
    is_examples = any(line.number in rows for line in lines)
    shown = []
    for line in lines:
        name = "th" if is_examples and line.number not in rows else "td"
        values = [element(name, *_lines(cell)) for cell in cells(line.text)]
        if judged and line.number in rows:
            status, why = row_verdict(judged, rows[line.number])
            values.append(element(name, badge(status), title=why or None))
        elif is_examples:
            values.append(element(name, "Status"))
        shown.append(element("tr", *values))
    return _wide(element("table", *shown), lines[0].number)


def _lines(cell: str) -> Iterator[str]:
    for place, part in enumerate(cell.split("\n")):
        yield from ([element("br")] if place else [])
        yield part


def _doc_string(lines: list[Line]) -> Html:
    text = dedent("\n".join(line.text for line in lines))
    # A newline that <pre> begins with is not shown.
    return _wide(element("pre", "\n", text), lines[0].number)


def _wide(content: Html, number: int) -> Html:
    # It scrolls sideways in place of the page.
    return element("div", content, class_="wide", data_n=number or None)


def _notes(lines: list[Line], chapter: Chapter) -> Iterator[Html]:
    for line in lines:
        yield from map(note, chapter.problems_at(line.number))


def note(problem: Problem, *before: str) -> Html:
    """Return what is wrong, in a line of its own."""
    kind = "error" if problem.is_error else "warning"
    hint = [" ", element("span", f"({problem.hint})", class_="why")] if problem.hint else []
    return element(
        "p",
        element("span", kind, class_=f"badge {kind}"),
        " ",
        *before,
        problem.what,
        *hint,
        class_="note",
    )
