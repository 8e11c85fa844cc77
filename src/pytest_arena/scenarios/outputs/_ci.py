"""Writes the summary of a CI job, and commands for GitHub."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_arena.scenarios.evidence._document import Document, JudgedScenario, Status
from pytest_arena.scenarios.outputs import _phrases as phrases

# GitHub shows no summary of more than 1 MiB:
# https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
_MOST_BYTES = 1_000_000
_MOST_TESTS = 5
_MOST_LINES = 50
# Further commands of a level are shown in the log only:
# https://github.com/actions/toolkit/pull/734
_MOST_COMMANDS = 10
_TABLE_HEAD = (
    "| rule | scenario | status | tests | why |",
    "| --- | --- | --- | --- | --- |",
)


def summary(document: Document) -> str:
    """Return the totals, the gaps, and a table of the scenarios.

    A summary has at most 1 MB. A larger summary first loses the proven scenarios.
    """
    head = "\n".join(_head(document))
    room = _MOST_BYTES - len(head.encode())
    rows = _rows(document)
    if sum(_size(row) for _, row in rows) > room:
        rows = [(status, row) for status, row in rows if status is not Status.PROVEN]
    fitting = []
    for _, row in rows:
        room -= _size(row)
        if room < 0:
            break
        fitting.append(row)
    text = f"{head}\n"
    if fitting:
        text += "\n".join([*_TABLE_HEAD, *fitting, ""])
    missing = len(document.scenarios) - len(fitting)
    if missing:
        text += f"\n{missing} more scenarios are left out, because a summary has at most 1 MB.\n"
    return text


def _size(row: str) -> int:
    return len(row.encode()) + 1


def _rows(document: Document) -> list[tuple[Status, str]]:
    """Return the rows of the table. Only the first row of a group has the heading."""
    rows = []
    for title, same in phrases.grouped(document.scenarios).items():
        cell = _escaped(title)
        for judged in same:
            rows.append((judged.status, _row(judged, cell)))
            cell = ""
    return rows


def _head(document: Document) -> Iterator[str]:
    yield f"## Scenarios: {phrases.totals(document)}"
    yield ""
    if document.partial:
        yield f"Partial run ({_escaped(document.partial)}): {phrases.judged_count(document)}."
        yield ""
    yield from _list("Gaps", phrases.unsaid_gaps(document))
    yield from _list("Problems", map(phrases.problem_line, document.problems))


def _list(title: str, texts: Iterable[str]) -> Iterator[str]:
    lines = [f"- {_escaped(text)}" for text in texts]
    if not lines:
        return
    yield f"### {title}"
    yield ""
    yield from lines[:_MOST_LINES]
    if len(lines) > _MOST_LINES:
        yield f"- … and {len(lines) - _MOST_LINES} more"
    yield ""


def _row(judged: JudgedScenario, title: str) -> str:
    status = judged.status.value
    if judged.status is not Status.PROVEN:
        status = f"**{status}**"
    scenario = judged.scenario
    name = f"{_escaped(scenario.name)} ({_code(scenario.place)})"
    tests = [_code(test.test) for test in judged.tests[:_MOST_TESTS]]
    more = len(judged.tests) - _MOST_TESTS
    if more > 0:
        tests.append(f"and {more} more")
    test_names = "<br>".join(tests)
    reason = _escaped(phrases.reason(judged))
    return f"| {title} | {name} | {status} | {test_names} | {reason} |"


def _escaped(text: str) -> str:
    """Return a text that Markdown shows unchanged, also in a cell of a table."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&])", r"\\\1", phrases.one_line(text))


def _code(text: str) -> str:
    # A pipe would end a cell, even inside of code. GitHub accepts \| there.
    text = phrases.one_line(text).replace("|", "\\|")
    if "`" in text:
        return f"`` {text} ``"
    return f"`{text}`"


# Workflow commands.


def workflow_commands(
    document: Document,
    *,
    root: Path | None = None,
    is_strict: bool = True,
) -> list[str]:
    """Return a workflow command for each problem and each reported scenario, the worst first.

    There are at most ten errors and ten warnings. Excused scenarios are left out.

    Args:
        document: the judged scenarios.
        root: the root folder. GitHub needs paths from ``GITHUB_WORKSPACE``.
        is_strict: whether gaps fail the run.
    """
    prefix = _path_in_repository(root)
    failing = "warning"
    if is_strict:
        failing = "error"
    commands: dict[str, list[str]] = {"error": [], "warning": []}
    for problem in sorted(document.problems, key=lambda problem: not problem.is_error):
        if problem.scenario:
            continue
        level = "warning"
        if problem.is_error:
            level = failing
        properties = {"file": _path(problem.spec, prefix)}
        if problem.line:
            properties["line"] = str(problem.line)
        commands[level].append(
            _command(
                level,
                properties,
                problem.advice,
            )
        )
    for judged in sorted(document.scenarios, key=lambda judged: judged.status.rank):
        if judged.is_excused or not phrases.is_open(judged, document):
            continue
        scenario = judged.scenario
        status = judged.status.value
        properties = {
            "file": _path(scenario.spec, prefix),
            "line": str(scenario.line),
            "title": f"{status}: {phrases.one_line(scenario.name)}",
        }
        reason = phrases.reason(judged) or status
        commands[failing].append(
            _command(
                failing,
                properties,
                reason,
            )
        )
    errors = commands["error"][:_MOST_COMMANDS]
    warnings = commands["warning"][:_MOST_COMMANDS]
    return errors + warnings


def _command(
    level: str,
    properties: dict[str, str],
    message: str,
) -> str:
    # https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts
    pairs = []
    for name, value in properties.items():
        if value:
            escaped = _escaped_data(value).replace(":", "%3A").replace(",", "%2C")
            pairs.append(f"{name}={escaped}")
    text = _escaped_data(phrases.one_line(message))
    return f"::{level} {','.join(pairs)}::{text}"


def _escaped_data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _path(spec: str, prefix: str) -> str:
    if not spec or spec.startswith("/"):
        return spec
    return f"{prefix}{spec}"


def _path_in_repository(root: Path | None) -> str:
    """Return the path of the root folder in the repository: ``examples/shop/``."""
    workspace = os.environ.get("GITHUB_WORKSPACE")
    if root is None or not workspace or not root.is_relative_to(workspace):
        return ""
    inside = root.relative_to(workspace).as_posix()
    if inside == ".":
        return ""
    return f"{inside}/"
