"""Writes the results of a run: lines, JSON and a page. Reads JSON to merge runs."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from html import escape
from itertools import groupby
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING
from urllib.parse import quote

from markdown_it import MarkdownIt

from pytest_arena._values import counted
from pytest_arena.errors import ConfigError, ScenarioError
from pytest_arena.scenarios._judge import Status, document
from pytest_arena.scenarios._records import evidence
from pytest_arena.scenarios._specs import is_gherkin, row_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_arena.scenarios._judge import Judged, Results
    from pytest_arena.scenarios._records import Json
    from pytest_arena.scenarios._specs import ScenarioSpec, Specification


_FORMS = ("json", "html")
_QUIETER = -1  # the verbosity of -q
_WEAK = "CRASHES-ONLY"
_GAP = "GAP"
_LOST = "LOST"
# The badge of each state, and who acts next, for a reader without code. The page has this order.
_WORDS: dict[str, tuple[str, str]] = {
    _LOST: ("App loses a write", "the app says yes and does not save: ask a developer"),
    Status.FAILED: ("Test fails", "the app, the test or the scenario is wrong: ask a developer"),
    Status.PROVEN: ("Proven", "a test passes, and fails when the app is made to answer wrongly"),
    _WEAK: ("Proven for crashes only", "enough for a Then about a status only: the team decides"),
    Status.ASSERTED: ("Tested", "a test passes, and may miss a wrong answer: the team decides"),
    Status.HOLLOW: ("Test checks too little", "do not count on it: a developer completes the test"),
    Status.NOT_RUN: ("Not tested in this run", "run all tests"),
    Status.SKIPPED: ("Test is switched off", "the team decides when it is switched on"),
    Status.DRIFTED: ("Steps changed", "a developer adapts the test, the team accepts the steps"),
    Status.UNMAPPED: ("No test yet", "a developer writes it"),
    _GAP: ("Gap agreed", "do not count on it: the team accepts this until the day at the scenario"),
}
_STYLE = """
:root { color-scheme: light dark; --line: #8885 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 0 auto; padding: 1rem;
  overflow-wrap: anywhere }
header { border-bottom: 1px solid var(--line) } main h1 { font-size: 1.6em; line-height: 1.3 }
pre, code { font-size: .85em } pre { white-space: pre-wrap }
table { border-collapse: collapse } td, th { border: 1px solid var(--line); padding: .2rem .5rem }
article { border: 1px solid var(--line); border-radius: 6px; padding: .5rem 1rem; margin: 1rem 0 }
header ul { padding-left: 1rem } blockquote { margin-inline: 1rem }
small { display: block } small, .facts { font-size: .85rem } .facts { padding-left: 1rem }
.badge { border-radius: 1rem; padding: 0 .7rem; color: #fff; background: #9a6700;
  font-size: .85rem; font-weight: 600; white-space: nowrap }
.proven { background: #1a7f37 } .asserted { background: #0969da }
.failed, .lost { background: #cf222e }
.line { display: block; padding-left: 4ch; text-indent: -4ch }
.line:first-child { font-weight: 600 } small a { display: inline-block; padding: .15rem 0 }
summary { padding: .5rem 0 }
"""


def lines(results: Results, *, verbosity: int = 0, is_strict: bool = False) -> list[str]:
    """Return a line for each scenario that is not proven, the totals and the next step.

    ``-qq`` shows the totals only. ``-v`` adds the other scenarios, with what their tests did.
    """
    is_detailed = verbosity > 0
    if results.scenarios and not results.known:
        return []
    shown = [each for each in results.known if is_detailed or each.status is not results.best]
    text = []
    for judged in shown if verbosity >= _QUIETER else ():
        scenario = judged.scenario
        reason = "; ".join(filter(None, (judged.reason, judged.gap)))
        text.append(f"{scenario.place}  {judged.status:8}  {scenario.label}  {reason}".rstrip())
        for attempt in judged.tries if is_detailed else ():
            text += [f"    {word:12} {fact}" for word, fact in evidence(attempt)]
    if results.partial:
        text.append(f"partial run: {results.partial}")
    total = f"scenarios: {results.totals()}"
    if results.open and is_strict:
        total += f"; this run fails, as {counted(len(results.open), 'scenario')} must be proven"
    text.append(total)
    statuses = {judged.status for judged in results.open}
    if Status.UNMAPPED in statuses:
        text.append("next: pytest --scenarios-stubs tests   writes the missing tests")
    if Status.DRIFTED in statuses:
        text.append("next: correct the tests, then: pytest --scenarios-accept")
    return text


def listing(specification: Specification) -> list[str]:
    """Return the scenarios below their features, and their number."""
    text = []
    for feature, scenarios in groupby(specification.scenarios, lambda each: each.feature):
        text.append(f"Feature: {feature}")
        for scenario in scenarios:
            number = counted(len(scenario.steps), "step")
            text.append(f"  {scenario.place}  {number}  {scenario.label}")
    return [*text, counted(len(specification.scenarios), "scenario")]


def outputs(texts: Iterable[str]) -> list[tuple[str, Path]]:
    """Parse the values of ``--scenarios-out``: ``json:PATH`` and ``html:PATH``, with commas."""
    found = []
    for part in filter(None, map(str.strip, ",".join(texts).split(","))):
        form, _, path = part.partition(":")
        if form not in _FORMS or not path:
            raise ConfigError(
                f"--scenarios-out={part}: neither json:PATH nor html:PATH",
                why="the results would not be written",
                cause="--scenarios-out on the command line or in addopts",
                fix="--scenarios-out=html:scenarios.html",
            )
        found.append((form, Path(path).absolute()))
    return found


def write(wanted: Iterable[tuple[str, Path]], results: Results, root: Path) -> list[str]:
    """Write the files. Return a line for each file."""
    lines = []
    for form, path in wanted:
        if form == "html":
            text = page(results, root)
        else:
            text = json.dumps(document(results), indent=1, ensure_ascii=False) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        lines.append(f"scenarios written to {os.path.relpath(path)}")
    return lines


def joined(
    paths: Sequence[Path], specification: Specification
) -> tuple[dict[str, list[str]], list[Json], bool]:
    """Return the collected tests and the tries of several runs, and whether all broke answers."""
    tests: dict[str, list[str]] = {}
    tries: list[Json] = []
    is_sabotaged = True
    for path in paths:
        try:
            sent: Json = json.loads(path.read_text(encoding="utf-8"))
            revisions = {each["key"]: each["revision"] for each in sent["scenarios"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _not_of_run(path, str(error)) from error
        if revisions != {each.key: each.revision for each in specification.scenarios}:
            raise _not_of_run(path, "it is of a run with other specifications")
        tests |= sent["collected"]
        tries += sent["tries"]
        is_sabotaged &= sent["is_sabotaged"]
    return tests, tries, is_sabotaged


def _not_of_run(path: Path, cause: str) -> ScenarioError:
    return ScenarioError(
        f"{path} cannot be merged",
        why="the results of that run would be missing",
        cause=cause,
        fix="name the files that --scenarios-out=json:PATH has written for this commit",
    )


def page(results: Results, root: Path) -> str:
    """Return the page. It needs no script and no other file."""
    name = escape(root.name)
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{name}: scenarios</title><style>{_STYLE}</style></head><body>",
        *_header(results, name),
    ]
    for spec, text in results.specification.files.items():
        judged = [each for each in results.scenarios if each.scenario.spec == spec]
        if judged:
            parts += _file(text, spec, judged)
    return "\n".join([*parts, "</main></body></html>", ""])


def _header(results: Results, name: str) -> Iterator[str]:
    today = datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
    yield f"<header><h1>{name}</h1><p>Scenarios and their tests. Page written {today}</p>"
    if results.partial:
        yield f"<p>Only a part of the tests was run: {escape(results.partial)}. "
        yield "So “No test yet” may be wrong.</p>"
    if not results.is_sabotaged:
        yield "<p><strong>This run tried no wrong answers, so it proves nothing.</strong></p>"
    yield "<p>This page is the specification, with the result of its tests at each scenario. "
    yield "Tests without a scenario are not shown. "
    yield "The tool cannot judge whether a check means what its step says: compare them under "
    yield "“What the test did”.</p><ul>"
    for state, (word, meaning) in _WORDS.items():
        found = [each.scenario for each in results.scenarios if _state(each) == state]
        if not found:
            continue
        yield f'<li><span class="badge {state.lower()}">{word}: {len(found)}</span> {meaning}'
        for scenario in found if state != Status.PROVEN else ():
            yield f'<small><a href="#{_anchor(scenario)}">{escape(scenario.label)}</a></small>'
        yield "</li>"
    yield "</ul></header><main>"


def _state(judged: Judged) -> str:
    """Return which words of the page a scenario has."""
    if judged.gap:
        return _GAP
    if judged.status is Status.HOLLOW and any(each["facts"]["lost"] for each in judged.tries):
        return _LOST
    if "pytest_arena.NotWritten: " in judged.reason:
        return Status.UNMAPPED
    return _WEAK if judged.is_weak else judged.status


def _head(judged: Judged) -> str:
    """Return the badge of a scenario, to which the top links, and who does what next."""
    state = _state(judged)
    word, meaning = _WORDS[state]
    badge = f'<span id="{_anchor(judged.scenario)}" class="badge {state.lower()}">{word}</span>'
    return badge if state == Status.PROVEN else f"{badge} {meaning}"


def _anchor(scenario: ScenarioSpec) -> str:
    return quote(scenario.place, safe="/:")


def _file(text: str, spec: str, judged: list[Judged]) -> Iterator[str]:
    if spec.endswith(".feature"):
        yield from _gherkin(text, 0, judged)
        return
    # Without "html", the library escapes the HTML of the specification.
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(text)
    for token in tokens:
        if is_gherkin(token):
            first, _ = token.map or (0, 0)
            token.content = "\n".join(_gherkin(token.content, first + 1, judged))
            token.type = "html_block"
    yield str(reader.renderer.render(tokens, reader.options, {}))


def _gherkin(text: str, above: int, judged: list[Judged]) -> Iterator[str]:
    """Yield a block of Gherkin as it is written, with an article for each scenario or outline.

    ``above`` is the number of lines above the block in its file.
    """
    rows: list[Judged] = []
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=above + 1):
        begun = [each for each in judged if each.scenario.start == number]
        if begun or line.strip().startswith("Rule:"):
            yield from _article(rows, lines)
            rows = begun
            lines = []
        if not line.strip().startswith(("@", "#")):
            lines.append(line)
    yield from _article(rows, lines)


def _article(rows: list[Judged], lines: list[str]) -> Iterator[str]:
    """Yield a scenario as it is written, and what its tests did."""
    text = escape(dedent("\n".join(lines)).strip())
    if not rows:
        yield f"<pre>{text}</pre>" if text else ""
        return
    first = rows[0]
    yield "<article>"
    if not first.scenario.row:
        yield _head(first)
    steps = [f'<span class="line">{line or "<br>"}</span>' for line in text.splitlines()]
    yield f"<pre>{''.join(steps)}</pre>"
    yield from _results(rows)
    yield "</article>"


def _without_python(text: str) -> str:
    """Return a text without the names of errors and the word ``assert``."""
    text = re.sub("never committed it: lost", "did not save it, so it is lost", text)
    text = re.sub("^setup: ", "the preparation of the test fails: ", text)
    text = re.sub(r"\b(AssertionError|pytest_arena\.NotWritten): ", "", text)
    return re.sub("(^|: )assert ", r"\1this check does not hold: ", text)


def _results(rows: list[Judged]) -> Iterator[str]:
    """Yield what the tests of a scenario, or of the rows of an outline, did."""
    for judged in rows:
        if judged.scenario.row:
            yield f"<p>{escape(row_text(judged.scenario.row))}<br>{_head(judged)}</p>"
        if judged.reason:
            yield f"<p>Why: {escape(_without_python(judged.reason))}</p>"
        if judged.gap:
            yield f"<p>The team has agreed to this {escape(judged.gap)}</p>"
        if judged.tries:
            yield "<details><summary>What the test did</summary>"
            for attempt in judged.tries:
                yield '<ul class="facts">'
                for word, text in evidence(attempt):
                    yield f"<li>{word.capitalize()}: {escape(_without_python(text))}</li>"
                yield "</ul>"
            yield "</details>"
