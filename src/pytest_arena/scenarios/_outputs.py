"""Writes the results of a run: lines, JSON and a page. Reads JSON to merge runs."""

from __future__ import annotations

import json
import os
import re
import tomllib
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from markdown_it import MarkdownIt

from pytest_arena._values import counted
from pytest_arena.errors import ConfigError, ScenarioError
from pytest_arena.scenarios._judge import WORDS, Status, document
from pytest_arena.scenarios._records import evidence
from pytest_arena.scenarios._specs import is_gherkin, row_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_arena.scenarios._judge import Judged, Results
    from pytest_arena.scenarios._records import Json
    from pytest_arena.scenarios._specs import ScenarioSpec, Specification


_FORMS = ("json", "html")
_PLACE = 48  # the largest width of a column
_QUIETER = -1  # the verbosity of -q
_STYLE = """
:root { color-scheme: light dark; --line: #8885 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 0 auto; padding: 1rem;
  overflow-wrap: anywhere }
header { border-bottom: 1px solid var(--line) } main h1 { font-size: 1.6em; line-height: 1.3 }
pre, code { font-size: .85em } pre { white-space: pre-wrap }
table { border-collapse: collapse } td, th { border: 1px solid var(--line); padding: .2rem .5rem }
article { border: 1px solid var(--line); border-radius: 6px; padding: .5rem 1rem; margin: 1rem 0;
  break-inside: avoid }
small { display: block } small, .facts { font-size: .85rem } .facts { padding-left: 1rem }
.badge { border-radius: 1rem; padding: 0 .7rem; color: #fff; background: #9a6700;
  font-size: .85rem; font-weight: 600; white-space: nowrap; print-color-adjust: exact }
.proven { background: #1a7f37 } .asserted { background: #0969da } .failed { background: #cf222e }
"""


def lines(results: Results, *, verbosity: int = 0, is_strict: bool = False) -> list[str]:
    """Return a line for each scenario that is not proven, the totals and the next step.

    ``-qq`` shows the totals only. ``-v`` adds the other scenarios, with what their tests did.
    """
    best = Status.PROVEN if results.is_sabotaged else Status.ASSERTED
    is_detailed = verbosity > 0
    shown = [each for each in results.scenarios if is_detailed or each.status is not best]
    longest = max((len(judged.scenario.place) for judged in shown), default=0)
    text = []
    for judged in shown if verbosity >= _QUIETER else ():
        place = judged.scenario.place.ljust(min(longest, _PLACE))
        reason = "; ".join(filter(None, (judged.reason, judged.gap)))
        text.append(f"{place}  {judged.status:8}  {judged.scenario.label}  {reason}".rstrip())
        for attempt in judged.tries if is_detailed else ():
            text += [f"    {word:7} {fact}" for word, fact in evidence(attempt)]
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
    heading = ""
    for scenario in specification.scenarios:
        if heading != f"Feature: {scenario.feature}":
            heading = f"Feature: {scenario.feature}"
            text.append(heading)
        number = counted(len(scenario.steps), "step")
        text.append(f"  {scenario.place}  {number}  {scenario.label}")
    return [*text, counted(len(specification.scenarios), "scenario")]


def outputs(texts: Iterable[str]) -> list[tuple[str, Path]]:
    """Parse the values of ``--scenarios-out``: ``json:PATH`` and ``html:PATH``, with commas.

    Raises:
        ConfigError: a value has another form.
    """
    found = []
    for text in texts:
        for part in filter(None, map(str.strip, text.split(","))):
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
    """Write the files. Return a line for each file.

    Raises:
        OSError: a file cannot be written.
    """
    lines = []
    for form, path in wanted:
        text = page(results, root)
        if form == "json":
            text = json.dumps(document(results), indent=1, ensure_ascii=False) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        lines.append(f"scenarios written to {os.path.relpath(path)}")
    return lines


def joined(
    paths: Sequence[Path], specification: Specification
) -> tuple[dict[str, list[str]], list[Json], bool]:
    """Return the collected tests and the tries of several runs, and whether all broke answers.

    Raises:
        ScenarioError: a file is not of a run, or of a run with other specifications.
    """
    tests: dict[str, list[str]] = {}
    tries: list[Json] = []
    is_sabotaged = True
    for path in paths:
        sent = _read(path)
        revisions = {each["key"]: each["revision"] for each in sent["scenarios"]}
        if revisions != {each.key: each.revision for each in specification.scenarios}:
            raise _not_of_run(path, "it is of a run with other specifications")
        tests |= sent["collected"]
        tries += sent["tries"]
        is_sabotaged &= sent["is_sabotaged"]
    return tests, tries, is_sabotaged


def _read(path: Path) -> Json:
    try:
        sent: Json = json.loads(path.read_text(encoding="utf-8"))
        if sent["version"] != 1:
            raise _not_of_run(path, f"its version is {sent['version']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _not_of_run(path, str(error)) from error
    return sent


def _not_of_run(path: Path, cause: str) -> ScenarioError:
    return ScenarioError(
        f"{path} cannot be merged",
        why="the results of that run would be missing",
        cause=cause,
        fix="name the files that --scenarios-out=json:PATH has written for this commit",
    )


# The page.


def page(results: Results, root: Path) -> str:
    """Return the page. It needs no script and no other file."""
    name = escape(_project(root))
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


def _project(root: Path) -> str:
    """Return the project's name in ``pyproject.toml``, else the name of its folder."""
    try:
        table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        return str(table["project"]["name"])
    except (OSError, ValueError, KeyError):
        return root.name


def _header(results: Results, name: str) -> Iterator[str]:
    today = datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
    yield f"<header><h1>{name}</h1><p>tested {today}</p>"
    if results.partial:
        yield f"<p>Only a part of the tests was run: {escape(results.partial)}. "
        yield "So “No test yet” may be wrong.</p>"
    yield "<p>This page is the specification, with the result of its tests at each scenario. "
    yield "“Proven”: a test passes, and fails when the app answers wrongly. “Tested”: a test "
    yield "passes, and might not notice a wrong answer. "
    yield "Only a reader can judge whether a check says what its step says.</p>"
    yield f"<p>{counted(len(results.scenarios), 'scenario')}:</p><ul>"
    for status in reversed(Status):
        found = [each.scenario for each in results.scenarios if each.status is status]
        if not found:
            continue
        yield f"<li>{_badge(status, f'{WORDS[status]}: {len(found)}')}"
        if status not in {Status.PROVEN, Status.ASSERTED}:
            for scenario in found:
                yield f'<small><a href="#{_anchor(scenario)}">{escape(scenario.label)}</a></small>'
        yield "</li>"
    yield "</ul></header><main>"


def _badge(status: Status, text: str = "") -> str:
    return f'<span class="badge {status.lower()}">{escape(text or WORDS[status])}</span>'


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
    starts: dict[int, list[Judged]] = {}
    for each in judged:
        starts.setdefault(each.scenario.start, []).append(each)
    rows: list[Judged] = []
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=above + 1):
        if number in starts:
            yield from _article(rows, lines)
            rows = starts[number]
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
    yield f'<article id="{_anchor(rows[0].scenario)}">'
    if not rows[0].scenario.row:
        yield _badge(rows[0].status)
    yield f"<pre>{text}</pre>"
    yield from _results(rows)
    yield "</article>"


_STATUSES = re.compile(r"assert ([2-5]\d\d) == ([2-5]\d\d)(?= )")
_VERBS = {"2": "accepts", "3": "redirects", "4": "refuses", "5": "fails"}


def _in_words(judged: Judged) -> str:
    """Return a reason with words in place of the status of an answer and the expected one."""
    match = _STATUSES.match(judged.reason)
    if not match or f"'status': {match[1]}," not in str(judged.tries):
        return judged.reason
    found, wanted = match.groups()
    words = f"the app {_VERBS[found[0]]} ({found}), the test expects that it "
    return f"{words}{_VERBS[wanted[0]]} ({wanted}){judged.reason[match.end() :]}"


def _results(rows: list[Judged]) -> Iterator[str]:
    """Yield what the tests of a scenario, or of the rows of an outline, did."""
    for judged in rows:
        if judged.scenario.row:
            yield f"<p>{_badge(judged.status)} {escape(row_text(judged.scenario.row))}</p>"
        if judged.reason:
            yield f"<p>Why: {escape(_in_words(judged))}</p>"
        if judged.gap:
            yield f"<p>The team has agreed to this {escape(judged.gap)}</p>"
        if judged.tries:
            yield '<details><summary>What the test did</summary><ul class="facts">'
            for attempt in judged.tries:
                for word, text in evidence(attempt):
                    yield f"<li>{word.title()}: {escape(text)}</li>"
            yield "</ul></details>"
