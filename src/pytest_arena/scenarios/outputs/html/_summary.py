"""What does one see first: how much is proven, what is in the way, and what can be looked for?"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from pytest_arena.scenarios.evidence import Status
from pytest_arena.scenarios.outputs._said import judged
from pytest_arena.scenarios.outputs.html._evidence import badge, counted
from pytest_arena.scenarios.outputs.html._gherkin import note
from pytest_arena.scenarios.outputs.html._markup import Html, element, joined

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_arena.scenarios.evidence import Document
    from pytest_arena.scenarios.outputs.html._chapter import Chapter
    from pytest_arena.scenarios.specs import Problem

__all__ = ["contents", "controls", "headline", "summary"]

_OPEN_UP_TO = 8  # lines of a list at the top; longer ones are folded
_PASSES = "A strict run passes."
_PLACE = re.compile(r"([^\s:]+:\d+)")

_MEANT = {
    Status.MALFORMED: "It could not be read as it is written.",
    Status.UNMAPPED: "No test says that it proves it.",
    Status.FAILED: "A test of it failed, in its set-up, its call or its tear-down.",
    Status.DRIFTED: "Its steps have changed since somebody reviewed its test.",
    Status.STUB: "Its test has not been written yet.",
    Status.XFAIL: "Its test is expected to fail, and did.",
    Status.XPASS: "Its test is expected to fail, and passed.",
    Status.SKIPPED: "Its test was skipped.",
    Status.NOT_RUN: "Its test was not run.",
    Status.FLAKY: "Its test passed only when it was run again.",
    Status.HOLLOW: "Its test passed without doing what proves it: seed, request, assert.",
    Status.UNKNOWN: "Its test passed, but what it did could not be seen.",
    Status.PARTIAL: "Some rows of its examples are proven, not all.",
    Status.PROVEN: "A test seeded, requested, asserted and passed, in this run.",
    Status.WAIVED: "It needs no test until a date, for a reason that is written down.",
}


def headline(document: Document) -> str:
    """Return the whole of it in a few words.

    >>> from pytest_arena.scenarios.evidence import Document
    >>> headline(Document())
    'No scenarios'
    """
    total = len(document.scenarios)
    proven = document.counts().get(Status.PROVEN, 0)
    if not total:
        return "No scenarios"
    if document.is_list:
        tested = sum(bool(one.tests) for one in document.scenarios)
        return f"{tested:,} of {counted(total, 'scenario')} with a test"
    return f"{proven:,} of {counted(total, 'scenario')} proven"


def summary(document: Document, chapters: Sequence[Chapter]) -> Html:
    """Return how the run went, what a strict one would fail for, and what is wrong in the files."""
    return element(
        "header",
        element("h1", headline(document)),
        _bar(document),
        *_notices(document),
        *_gaps(document, chapters),
        *_problems(document, chapters),
        *_meanings(document),
        id="summary",
    )


def _bar(document: Document) -> Html:
    # In SVG since widths would be styles, of which the page allows its own sheet alone.
    left, shown = 0, []
    for status, count in document.counts().items():
        class_ = f"is-{status.value.lower()}"
        shown.append(element("rect", x=left, y=0, width=count, height=1, class_=class_))
        left += count
    box = f"0 0 {max(left, 1)} 1"
    return element(
        "svg", *shown, viewBox=box, preserveAspectRatio="none", class_="bar", aria_hidden="true"
    )


def _notices(document: Document) -> Iterator[Html]:
    if document.partial:
        label = element("b", "Partial run")
        told = f" ({document.partial}): {judged(document)}."
        yield element("p", label, told, class_="notice")
    if document.is_sabotaged:
        told = "The proven tests were run again with something broken: each had to notice."
        yield element("p", element("b", "Tried harder"), f": {told}", class_="notice")


def _gaps(document: Document, chapters: Sequence[Chapter]) -> Iterator[Html]:
    if document.gaps:
        places = _places(chapters)
        reasons = counted(len(document.gaps), "reason")
        items = [element("li", *_linked(gap, places)) for gap in document.gaps]
        yield _list(f"A strict run fails, for {reasons}", items)
    elif document.scenarios and not document.is_list:
        told = "Nothing that was judged fails a strict run." if document.partial else _PASSES
        yield element("p", told, class_="notice")


def _problems(document: Document, chapters: Sequence[Chapter]) -> Iterator[Html]:
    by_path = {chapter.path: chapter for chapter in chapters}
    items = [
        element("li", note(one, *_where(one, by_path.get(one.spec)))) for one in document.problems
    ]
    if items:
        yield _list(counted(len(items), "problem"), items)


def _list(title: str, items: list[Html]) -> Html:
    return element(
        "details",
        element("summary", title),
        element("ul", *items),
        open=len(items) <= _OPEN_UP_TO,
        class_="list",
    )


def _places(chapters: Sequence[Chapter]) -> dict[str, str]:
    placed = (one for chapter in chapters for one in chapter.placed)
    return {one.judged.scenario.place: one.anchor for one in placed}


def _where(problem: Problem, chapter: Chapter | None) -> Iterator[str]:
    if problem.spec:
        place = f"{problem.spec}:{problem.line}" if problem.line else problem.spec
        target = f"#{chapter.anchor_at(problem.line)}" if chapter else None
        yield element("a", place, href=target) if target else element("code", place)
        yield " "


def _linked(text: str, places: dict[str, str]) -> Iterator[str]:
    for part in _PLACE.split(text):
        target = places.get(part)
        yield element("a", part, href=f"#{target}") if target else part


def _meanings(document: Document) -> Iterator[Html]:
    terms = [
        joined(element("dt", badge(status)), element("dd", _MEANT[status]))
        for status in document.counts()
    ]
    if terms:
        words = element("summary", "What the statuses mean")
        yield element("details", words, element("dl", *terms, class_="meanings"), class_="list")


def controls(document: Document, chapters: Sequence[Chapter]) -> Html:
    """Return the form that filters, to be shown where there is a script, and the counts."""
    return element(
        "form",
        _search(),
        element("fieldset", element("legend", "Status"), *_statuses(document)),
        *_rules(chapters),
        element(
            "div",
            _check("around", "1", "Keep the text around them", id="around"),
            element(
                "p",
                element("button", "Expand all", type="button", id="expand", aria_pressed="false"),
                " ",
                element("button", "Reset", type="reset"),
            ),
            hidden=True,
            class_="scripted",
        ),
        element("p", role="status", aria_live="polite", id="shown"),
        id="filters",
        aria_label="Filters",
    )


def _search() -> Html:
    return element(
        "p",
        element("label", "Search", for_="search"),
        element(
            "input",
            type="search",
            id="search",
            autocomplete="off",
            placeholder="a word, a route, a test",
        ),
        hidden=True,
        class_="scripted",
    )


def _statuses(document: Document) -> Iterator[Html]:
    for status, count in document.counts().items():
        yield _check(
            "status", status.value, badge(status), element("span", f"{count:,}", class_="count")
        )


def _check(name: str, value: str, *label: str, **more: str) -> Html:
    box = element("input", type="checkbox", name=name, value=value, **more)
    shown = element("span", box, hidden=True, class_="scripted") if name == "status" else box
    return element("label", shown, " ", *label)


def _rules(chapters: Sequence[Chapter]) -> Iterator[Html]:
    rules = Counter(one.rule for chapter in chapters for one in chapter.placed)
    if not set(rules) - {""}:
        return
    options = [element("option", "All rules", value="*")]
    options += [
        element("option", f"{rule or 'No rule'} ({rules[rule]:,})", value=rule)
        for rule in sorted(rules, key=lambda rule: (not rule, rule))
    ]
    label = element("label", "Rule", for_="rule")
    yield element(
        "p", label, element("select", *options, id="rule"), hidden=True, class_="scripted"
    )


def contents(chapters: Sequence[Chapter], titles: dict[str, str]) -> Iterator[Html]:
    """Yield the way to each file, where there are several."""
    if len(chapters) > 1:
        items = [
            element(
                "li",
                element("a", titles[one.path], href=f"#{one.anchor}", title=one.path),
                " ",
                *_proven(one),
            )
            for one in chapters
        ]
        yield element("nav", element("ul", *items), id="contents", aria_label="Specifications")


def _proven(chapter: Chapter) -> Iterator[Html]:
    proven = sum(one.judged.status is Status.PROVEN for one in chapter.placed)
    if chapter.placed:
        yield element("span", f"{proven:,} of {len(chapter.placed):,}", class_="count")
