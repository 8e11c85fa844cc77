"""Writes the specification as a static page, with a badge for each scenario."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from markdown_it import MarkdownIt

from pytest_arena._values import counted
from pytest_arena.scenarios._judge import WORDS, Status
from pytest_arena.scenarios._records import check_text, evidence, request_text
from pytest_arena.scenarios._specs import is_gherkin, row_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_arena.scenarios._judge import Judged, Results
    from pytest_arena.scenarios._specs import ScenarioSpec

# What each status means, for the list at the top of the page.
_MEANINGS = {
    Status.PROVEN: "a test passes, and notices when the app is made to answer wrongly",
    Status.ASSERTED: "a test passes. Whether it would notice a wrong answer is not known",
    Status.HOLLOW: "a test passes, but might not notice that the app is wrong",
    Status.NOT_RUN: "a test exists, and was left out",
    Status.SKIPPED: "a test exists, and the team has switched it off",
    Status.DRIFTED: "the text was changed, and the test may check the old text",
    Status.FAILED: "the app does not do what the test expects, or the test is not finished",
    Status.UNMAPPED: "the team has not written a test",
}
_STYLE = """
:root { color-scheme: light dark; --line: #8885 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 0 auto; padding: 1rem;
  overflow-wrap: anywhere }
header { border-bottom: 1px solid var(--line) } main h1 { font-size: 1.6em; line-height: 1.3 }
pre, code { font-size: .85em } pre { overflow-x: auto }
table { border-collapse: collapse } td, th { border: 1px solid var(--line); padding: .2rem .5rem }
blockquote { margin-left: 0; padding-left: 1rem; border-left: 3px solid var(--line) }
article { border: 1px solid var(--line); border-radius: 6px; padding: .5rem 1rem; margin: 1rem 0 }
h1, h2, h3, h4 { break-after: avoid } article h4 { margin: .2rem 0 .5rem }
.line { white-space: pre-wrap; break-inside: avoid }
small { display: block } .line small { padding-left: 1.5rem }
details { margin-top: .5rem }
.table { font-family: ui-monospace, monospace; font-size: .85em }
small, .facts { font-size: .85rem } .facts { padding-left: 1rem } .facts li { margin: .2rem 0 }
.badge { display: inline-block; border-radius: 1rem; padding: 0 .7rem; color: #fff;
  background: #9a6700; font-size: .85rem; font-weight: 600; white-space: nowrap;
  print-color-adjust: exact }
.proven { background: #1a7f37 } .asserted { background: #0969da } .failed { background: #cf222e }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem .8rem } dd { margin: 0 }
@media (max-width: 30rem) { dl { display: block } dd { margin-bottom: .5rem } }
@media print { :root, body { font-size: 10pt; max-width: none } article { break-inside: avoid }
  details::details-content { content-visibility: visible; height: auto } }
"""


def page(results: Results, root: Path) -> str:
    """Return the page. It needs no script and no other file."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(root.name)}: scenarios</title><style>{_STYLE}</style></head><body>",
        *_header(results, root),
    ]
    for spec, text in results.specification.files.items():
        judged = [each for each in results.scenarios if each.scenario.spec == spec]
        if judged:
            parts += _file(text, spec, judged)
    return "\n".join([*parts, "</main></body></html>", ""])


def _commit(root: Path) -> str:
    git = ["git", "-C", str(root)]
    command = [*git, "log", "-1", "--format=%h %s"]
    try:
        text = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL)  # noqa: S603
        is_changed = subprocess.call([*git, "diff", "--quiet", "HEAD"])  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    changes = " (and changes that have no commit)" if is_changed else ""
    return f"commit {text.strip()}{changes} · "


def _header(results: Results, root: Path) -> Iterator[str]:
    today = datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
    yield f"<header><h1>{escape(root.name)}</h1><p>{escape(_commit(root))}tested {today}</p>"
    if results.partial:
        yield f"<p>Only a part of the tests was run: {escape(results.partial)}. "
        yield "So “No test yet” may be wrong.</p>"
    yield "<p>This page is the specification, with the result of its tests at each scenario. "
    yield "Only a reader can judge whether a check says what its step says.</p>"
    yield f"<p>{counted(len(results.scenarios), 'scenario')}:</p><dl>"
    for status in reversed(Status):
        found = [each.scenario for each in results.scenarios if each.status is status]
        if not found:
            continue
        yield f"<dt>{_badge(status, f'{WORDS[status]}: {len(found)}')}</dt>"
        yield f"<dd>{escape(_MEANINGS[status])}"
        if status not in {Status.PROVEN, Status.ASSERTED}:
            for scenario in found:
                yield f'<small><a href="#{_anchor(scenario)}">{escape(scenario.label)}</a></small>'
        yield "</dd>"
    yield "</dl></header><main>"


def _badge(status: Status, text: str = "") -> str:
    return (
        f'<span class="badge {status.lower()}">{escape(text or WORDS[status])}</span>'
    )


def _anchor(scenario: ScenarioSpec) -> str:
    return quote(f"{scenario.spec}:{scenario.start}", safe="/:")


def _file(text: str, spec: str, judged: list[Judged]) -> Iterator[str]:
    if spec.endswith(".feature"):
        yield from _gherkin(text, 0, judged)
        return
    # Without "html", the library escapes the HTML of the specification.
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")

    def fence(tokens: Any, number: int, options: Any, env: Any) -> str:
        token = tokens[number]
        if not is_gherkin(token):
            return str(plain_fence(tokens, number, options, env))
        return "\n".join(_gherkin(token.content, token.map[0] + 1, judged))

    plain_fence = reader.renderer.rules["fence"]  # type: ignore[attr-defined]
    reader.renderer.rules["fence"] = fence  # type: ignore[attr-defined]
    yield str(reader.render(text))


def _gherkin(text: str, above: int, judged: list[Judged]) -> Iterator[str]:
    """Yield a block of Gherkin as it is written, with an article for each scenario.

    Args:
        text: the block.
        above: the number of lines above it in its file.
        judged: the scenarios of the file. The rows of an outline have one article.
    """
    articles: dict[int, list[Judged]] = {}
    steps: dict[int, list[tuple[Judged, int]]] = {}
    for each in judged:
        articles.setdefault(each.scenario.start, []).append(each)
        for number, step in enumerate(each.scenario.steps):
            steps.setdefault(step.line, []).append((each, number))
    features = {each.scenario.feature for each in judged}
    rows: list[Judged] = []
    for line, written in enumerate(text.splitlines(), start=above + 1):
        words = written.strip()
        if line in articles:
            yield from _results(rows)
            rows = articles[line]
            yield f'<article id="{_anchor(rows[0].scenario)}">'
            if not rows[0].scenario.row:
                yield _badge(rows[0].status)
            yield f"<h4>{escape(rows[0].scenario.template)}</h4>"
        elif line in steps:
            yield _step(words, steps[line])
        elif not rows and words.partition(": ")[2] in features:
            yield f"<h3>{escape(words)}</h3>"
        elif words and words[0] not in "@#":
            kind = "line table" if words.startswith("|") else "line"
            yield f'<div class="{kind}">{escape(written)}</div>'
    yield from _results(rows)


def _step(words: str, uses: list[tuple[Judged, int]]) -> str:
    """Return a step with what the tests did in its block.

    A step of a background or an outline has several uses, and shows no facts.
    """
    judged, number = uses[0]
    spec = judged.scenario.steps[number]
    template = spec.template
    keyword = words.removesuffix(template)
    facts = ""
    for attempt in judged.tries if len(uses) == 1 else ():
        done = attempt["facts"]
        step = done["steps"].get(judged.scenario.key, {}).get(str(number), {})
        # A client logs in at its first request, so no block has the login.
        for role in dict.fromkeys(each["role"] for each in done["requests"]):
            if (
                spec.kind == "given"
                and role
                and role.casefold() in spec.text.casefold()
            ):
                facts += f"<small>→ logged in as {escape(role)}</small>"
        for request in step.get("requests", ()):
            text = request_text(done["requests"][request])
            facts += f"<small>→ {escape(text)}</small>"
        for check in done["assertions"]:
            if check["place"] in step.get("assertions", ()):
                facts += f"<small>✓ {escape(check_text(check))}</small>"
    return f'<div class="line"><b>{escape(keyword)}</b>{escape(template)}{facts}</div>'


def _results(rows: list[Judged]) -> Iterator[str]:
    """Yield the end of an article: what the tests of its scenario did."""
    for judged in rows:
        if judged.scenario.row:
            yield f"<p>{_badge(judged.status)} {escape(row_text(judged.scenario.row))}</p>"
        if judged.reason:
            yield f"<p>Why: {escape(judged.reason)}</p>"
        if judged.gap:
            yield f"<p>The team has agreed to this {escape(judged.gap)}</p>"
        if judged.tries:
            yield '<details><summary>What the test did</summary><ul class="facts">'
            for attempt in judged.tries:
                for word, text in evidence(attempt):
                    yield f"<li>{word.title()}: {escape(text)}</li>"
            yield "</ul></details>"
    if rows:
        yield "</article>"


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
