"""What stands on the page of a specification: one file that asks for nothing from anywhere."""

from __future__ import annotations

import re
from base64 import b64encode
from collections import Counter
from functools import cache
from hashlib import sha256
from importlib.resources import files
from itertools import groupby
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pytest_arena.scenarios.evidence import Status, row_verdict
from pytest_arena.scenarios.outputs._chapters import cells, chapters, lines_as_read, title
from pytest_arena.scenarios.outputs._page_markdown import markdown
from pytest_arena.scenarios.outputs._phrases import counted, judged_count
from pytest_arena.scenarios.specs import literals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jinja2 import Template

    from pytest_arena.scenarios.evidence import (
        Document,
        Facts,
        JudgedScenario,
        JudgedStep,
        StepFacts,
    )
    from pytest_arena.scenarios.outputs._chapters import Chapter, Line
    from pytest_arena.scenarios.specs import Row, ScenarioSpec, Step

_LANGUAGE = re.compile(r"\s*#\s*language\s*:\s*([a-z]{2,3})(?:-([A-Z]{2}))?\s*$")
_PLACE = re.compile(r"([^\s:]+:\d+)")
_SABOTAGES = {
    "seed": "what it had seeded removed",
    "commit": "the commit of the app rolled back",
    "empty": "the answer emptied",
    "500": "the answer turned into a 500",
}
_MEANINGS = {
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


def page(document: Document, sources: Mapping[str, str]) -> str:
    """Return the specification as one HTML file, with what is proven of it.

    It is the same for the same arguments, and asks for nothing: no font, image or script from
    elsewhere. Without a script all is shown, only the filters are missing. 2,000 scenarios take
    about two seconds.

    Args:
        document: the scenarios with their verdicts.
        sources: the text of each file by its path, as in ``Scenario.spec``. The scenarios of a
            file that is missing, or has changed since, are shown as they were read.
    """
    every = chapters(document, sources)
    anchors = {chapter.path: chapter.anchor for chapter in every}
    judged = [pair for chapter in every for pair in chapter.judged.items()]
    places = {it.scenario.place: anchor for anchor, it in judged}
    style, script = _file("page.css"), _file("page.js")
    policy = f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    macros: Any = _template().make_module(
        {
            "by_path": {chapter.path: chapter for chapter in every},
            "counts": document.counts(),
            "document": document,
            "headline": _headline(document),
            "linked": lambda text: [(part, places.get(part)) for part in _PLACE.split(text)],
            "policy": f"default-src 'none'; {policy}; base-uri 'none'; form-action 'none'",
            "rules": Counter(map(_rule, document.scenarios)),
            "script": script,
            "style": style,
            "verdicts": judged_count(document),
        }
    )
    html = macros.page([_section(chapter, anchors, macros.gherkin) for chapter in every])
    # What cannot be written as UTF-8, and what HTML has no place for, would break the file.
    return str(html).replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _headline(document: Document) -> str:
    total = len(document.scenarios)
    if not total:
        return "No scenarios"
    if document.is_list:
        tested = sum(bool(judged.tests) for judged in document.scenarios)
        return f"{tested:,} of {counted(total, 'scenario')} with a test"
    return f"{document.counts().get(Status.PROVEN, 0):,} of {counted(total, 'scenario')} proven"


def _section(chapter: Chapter, anchors: Mapping[str, str], gherkin: Any) -> dict[str, Any]:
    """One file: what it calls itself, and its body."""
    heading = body = Markup("")
    if chapter.is_as_read and chapter.path.lower().endswith(".feature"):
        body = gherkin(enumerate(chapter.lines, 1), chapter, 3)
    elif chapter.is_as_read:
        heading, body = markdown(chapter, anchors, gherkin)
    # Whatever the text does not show where it was expected is shown nevertheless.
    if left := chapter.left():
        body += gherkin(lines_as_read(left), chapter, 3)
    features = {judged.scenario.feature for judged in chapter.judged.values()} - {""}
    feature = next(iter(features)) if len(features) == 1 else chapter.path
    name = heading.striptags() or feature
    return {"chapter": chapter, "title": heading, "name": name, "body": body}


@cache
def _file(name: str) -> str:
    return (files("pytest_arena.scenarios.outputs") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.globals |= {
        "background": _background,
        "cells": cells,
        "counted": counted,
        "dedent": dedent,
        "did": _did,
        "groups": lambda lines: [
            (kind, list(of_kind)) for kind, of_kind in groupby(lines, lambda line: line.kind)
        ],
        "in_short": _in_short,
        "language": _language,
        "meanings": _MEANINGS,
        "placeholders": re.compile(r"(<[^<>]+>)").split,
        "proven_of": _proven_of,
        "row_verdict": row_verdict,
        "rows_by_line": _rows_by_line,
        "rule_of": _rule,
        "sabotages": _SABOTAGES,
        "steps_by_line": _steps_by_line,
        "title": title,
        "unseen": _unseen,
    }
    # Its line ends and its indentation are for those who read the template.
    return environment.from_string("".join(map(str.strip, _file("page.html").splitlines())))


def _rule(judged: JudgedScenario) -> str:
    """What it is grouped by: the business rule's id, else the name of the Gherkin rule."""
    return judged.scenario.requirement or judged.scenario.rule


def _background(judged: JudgedScenario) -> Iterator[tuple[Step, JudgedStep]]:
    for step, verdict in zip(judged.scenario.steps, judged.steps, strict=False):
        if step.is_background and verdict.status is not None:
            yield step, verdict


def _did(block: StepFacts) -> str:
    parts = [f"{block.wrote:,} seeded"] * bool(block.wrote)
    parts += [counted(len(block.requests), "request")] * bool(block.requests)
    parts += [counted(block.assertions, "assertion")] * bool(block.assertions)
    return ", ".join(parts) or "nothing"


def _in_short(judged: JudgedScenario) -> str:
    parts = [counted(len(judged.tests), "test")]
    if facts := [test.facts for test in judged.tests if test.facts]:
        rows = sum(count for it in facts for _, count in it.seeded or ())
        parts.append(f"{counted(rows, 'row')} seeded")
        parts.append(counted(sum(len(it.requests) for it in facts), "request"))
        times = sum(asserted.times for it in facts for asserted in it.asserted)
        parts.append(counted(times, "assertion"))
    parts += [counted(len(judged.warnings), "warning")] * bool(judged.warnings)
    return ", ".join(parts)


def _language(lines: Sequence[Line]) -> str:
    match = next(filter(None, (_LANGUAGE.match(line.text) for line in lines[:5])), None)
    return "-".join(filter(None, match.groups())) if match else ""


def _proven_of(chapter: Chapter) -> str:
    proven = sum(judged.status is Status.PROVEN for judged in chapter.judged.values())
    return f"{proven:,} of {len(chapter.judged):,}"


def _rows_by_line(judged: JudgedScenario | None) -> dict[int, Row]:
    """The rows whose status is shown: those of an Outline that has a test."""
    return {row.line: row for row in judged.scenario.rows} if judged and judged.tests else {}


def _steps_by_line(judged: JudgedScenario | None) -> dict[int, JudgedStep]:
    pairs = zip(judged.scenario.steps, judged.steps, strict=False) if judged else ()
    return {step.line: verdict for step, verdict in pairs}


def _unseen(facts: Facts, scenario: ScenarioSpec, row: tuple[tuple[str, str], ...]) -> list[str]:
    return [literal for literal in literals(scenario, (row,)) if literal not in facts.seen]
