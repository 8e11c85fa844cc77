"""Writes the specification as a static page, with a badge for each scenario."""

from __future__ import annotations

import subprocess
import tomllib
from datetime import UTC, datetime
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any

from markdown_it import MarkdownIt

from pytest_arena._values import counted
from pytest_arena.scenarios._judge import WORDS, Status
from pytest_arena.scenarios._records import table_texts
from pytest_arena.scenarios._specs import is_gherkin, row_text
from pytest_arena.scenarios._terminal import request_text, sabotage_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pytest_arena.scenarios._judge import Judged, Results

_COLORS = {
    Status.PROVEN: "good",
    Status.ASSERTED: "fair",
    Status.FAILED: "bad",
}
# What each status means, for the list at the top of the page.
_MEANINGS = {
    Status.PROVEN: "a test does what the scenario says, and fails if the app answers wrongly",
    Status.ASSERTED: "a test does what the scenario says, and passes",
    Status.HOLLOW: "a test passes, but would not notice if the app were wrong",
    Status.NOT_RUN: "a test exists, and was left out",
    Status.SKIPPED: "a test exists, and the team has switched it off",
    Status.DRIFTED: "the text was changed, and the test may check the old one",
    Status.FAILED: "the app does not do what the test expects",
    Status.UNMAPPED: "the team has not written a test",
}
_STYLE = """
:root { color-scheme: light dark; --line: #8885; --good: #1a7f37; --fair: #0969da; --bad: #cf222e;
  --open: #9a6700 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 0 auto; padding: 1rem;
  overflow-wrap: anywhere }
header { border-bottom: 1px solid var(--line) }
pre, code { font-size: .85em } pre { overflow-x: auto }
table { border-collapse: collapse } td, th { border: 1px solid var(--line); padding: .2rem .5rem }
blockquote { margin-left: 0; padding-left: 1rem; border-left: 3px solid var(--line) }
article { border: 1px solid var(--line); border-radius: 6px; padding: .5rem 1rem; margin: 1rem 0;
  break-inside: avoid }
article h4 { margin: .2rem 0 } ul.steps { list-style: none; padding: 0; margin: .5rem 0 }
ul.steps small { display: block; padding-left: 1.5rem }
small, .facts { opacity: .85 } .facts li { margin: .2rem 0 }
.badge { display: inline-block; border-radius: 1rem; padding: 0 .7rem; color: #fff; background:
  var(--open); font-size: .85rem; font-weight: 600; white-space: nowrap;
  print-color-adjust: exact }
.good { background: var(--good) } .fair { background: var(--fair) } .bad { background: var(--bad) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem .8rem } dd { margin: 0 }
@media (max-width: 30rem) { dl { display: block } dd { margin-bottom: .5rem } }
@media print { details::details-content { content-visibility: visible; height: auto } }
"""


def page(results: Results, root: Path) -> str:
    """Return the page. It needs no script and no other file."""
    name = _project(root)
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(name)}: scenarios</title><style>{_STYLE}</style></head><body>",
        *_header(results, name, root),
    ]
    for spec, text in results.specification.files.items():
        judged = [each for each in results.scenarios if each.scenario.spec == spec]
        if judged:
            parts += ["<main>", *_file(text, spec, judged), "</main>"]
    return "\n".join([*parts, "</body></html>", ""])


def _project(root: Path) -> str:
    try:
        settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        return str(settings["project"]["name"])
    except (OSError, ValueError, KeyError):
        return root.name


def _commit(root: Path) -> str:
    command = ["git", "-C", str(root), "log", "-1", "--format=%h %s"]
    try:
        done = subprocess.run(  # noqa: S603 - the words above
            command, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"commit {done.stdout.strip()}"


def _header(results: Results, name: str, root: Path) -> Iterator[str]:
    today = datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
    about = " · ".join(filter(None, (_commit(root), f"tested {today}")))
    yield f"<header><h1>{escape(name)}</h1><p>{escape(about)}</p>"
    if results.partial:
        yield f"<p>Only a part of the tests was run: {escape(results.partial)}</p>"
    total = counted(len(results.scenarios), "scenario")
    yield f"<p>{total} in this specification:</p><dl>"
    for status in reversed(Status):
        number = sum(judged.status is status for judged in results.scenarios)
        if number:
            badge = _badge(status, f"{WORDS[status]}: {number}")
            yield f"<dt>{badge}</dt><dd>{escape(_MEANINGS[status])}</dd>"
    yield "</dl></header>"


def _badge(status: Status, text: str = "") -> str:
    color = _COLORS.get(status, "open")
    return f'<span class="badge {color}">{escape(text or WORDS[status])}</span>'


def _file(text: str, spec: str, judged: list[Judged]) -> Iterator[str]:
    if spec.endswith(".feature"):
        yield f"<h2>{escape(judged[0].scenario.feature)}</h2>"
        yield from _articles(judged)
        return
    # Without "html", the library escapes the HTML of the specification.
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    rest = [*judged]

    def fence(tokens: Any, number: int, options: Any, env: Any) -> str:
        token = tokens[number]
        if not is_gherkin(token):
            return str(plain_fence(tokens, number, options, env))
        inside = [
            each for each in rest if token.map[0] < each.scenario.line <= token.map[1]
        ]
        title = f"<h3>{escape(inside[0].scenario.feature)}</h3>" if inside else ""
        return "\n".join([title, *_articles(inside)])

    plain_fence = reader.renderer.rules["fence"]  # type: ignore[attr-defined]
    reader.renderer.rules["fence"] = fence  # type: ignore[attr-defined]
    yield str(reader.render(text))


def _articles(judged: Iterable[Judged]) -> Iterator[str]:
    """Yield an article for each scenario, or for each outline with its rows."""
    for _, group in groupby(
        judged, lambda each: (each.scenario.template, each.scenario.steps[0].line)
    ):
        rows = [*group]
        first = rows[0]
        scenario = first.scenario
        name = escape(scenario.template if scenario.row else scenario.name)
        yield f'<article id="{escape(scenario.place)}">'
        if not scenario.row:
            yield f"{_badge(first.status)}<h4>{name}</h4>"
            yield from _steps(first)
            yield from _reason(first)
        else:
            yield f"<h4>{name}</h4>"
            yield from _steps(first)
            for row in rows:
                yield f"<p>{_badge(row.status)} {escape(row_text(row.scenario.row))}</p>"
                yield from _reason(row)
        yield "</article>"


def _steps(judged: Judged) -> Iterator[str]:
    yield '<ul class="steps">'
    scenario = judged.scenario
    last = ""
    for number, (step, template) in enumerate(
        zip(scenario.steps, scenario.templates, strict=True)
    ):
        word = "And" if step.kind == last else step.kind.title()
        last = step.kind
        line = f"<b>{word}</b> {escape(template)}"
        for text in _step_facts(judged, number):
            line += f"<small>{escape(text)}</small>"
        yield f"<li>{line}</li>"
    yield "</ul>"


def _step_facts(judged: Judged, number: int) -> Iterator[str]:
    """Yield what the tests did in the block of a step."""
    if judged.scenario.row:
        return
    for attempt in judged.tries:
        facts = attempt["facts"]
        step = facts["steps"].get(judged.scenario.key, {}).get(str(number), {})
        for request in step.get("requests", ()):
            yield f"→ {request_text(facts['requests'][request])}"
        texts = {check["place"]: check["text"] for check in facts["assertions"]}
        for place in step.get("assertions", ()):
            yield f"✓ {texts.get(place, 'checked')} ({place})"


def _reason(judged: Judged) -> Iterator[str]:
    reason = "; ".join(filter(None, (judged.reason, judged.gap)))
    if reason and judged.status is Status.ASSERTED:
        reason = f"not tried with a wrong answer: {reason}"
    if reason and judged.status is not Status.UNMAPPED:
        yield f"<p><small>{escape(reason)}</small></p>"
    if not judged.tries:
        return
    yield '<details><summary>What was tested</summary><ul class="facts">'
    for attempt in judged.tries:
        facts = attempt["facts"]
        yield f"<li>Test: <code>{escape(attempt['test'])}</code></li>"
        for text in table_texts(facts["seeded"]):
            yield f"<li>Data before: {escape(text)}</li>"
        for request in facts["requests"]:
            yield f"<li>Request: {escape(request_text(request))}</li>"
        for check in facts["assertions"]:
            text = f"<code>{escape(check['text'])}</code> <small>{escape(check['place'])}</small>"
            yield f"<li>Check: {text}</li>"
        if attempt.get("sabotage"):
            yield f"<li>With a wrong answer: {escape(sabotage_text(attempt['sabotage']))}</li>"
    yield "</ul></details>"


def markdown(results: Results) -> str:
    """Return a table of the scenarios, for the summary of a job on GitHub."""
    lines = [f"### Scenarios: {results.totals()}", "", "| | scenario | |", "|-|-|-|"]
    for judged in results.scenarios:
        cells = [
            WORDS[judged.status],
            judged.scenario.label,
            judged.reason or judged.gap,
        ]
        shown = (escape(cell).replace("|", "\\|").replace("\n", " ") for cell in cells)
        lines.append(f"| {' | '.join(shown)} |")
    if results.partial:
        lines += ["", f"Only a part of the tests was run: {escape(results.partial)}"]
    return "\n".join([*lines, "", ""])
