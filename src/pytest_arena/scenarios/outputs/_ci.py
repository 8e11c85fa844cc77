"""What is shown where CI runs: a job's summary in Markdown, GitHub's lines at the files' own."""

import os
import re
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path

from pytest_arena.scenarios.evidence._document import Document, JudgedScenario, Status
from pytest_arena.scenarios.outputs import _phrases as phrases

# GitHub shows no summary of more than 1 MiB:
# https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
_BYTES = 1_000_000
_MOST_TESTS, _MOST_LINES = 5, 50
# More commands of a kind are shown nowhere but in the log:
# https://github.com/actions/toolkit/pull/734
_MOST_COMMANDS = 10
_HEAD = (
    "| rule | scenario | status | tests | why |",
    "| --- | --- | --- | --- | --- |",
)


def summary(document: Document) -> str:
    """Return the totals, the gaps, and a matrix: rule, scenario, status, tests.

    At most 1 MB: then proven scenarios are left out first.
    """
    head = "\n".join(_head(document))
    rows = [
        # The heading stands in its first row alone.
        (judged.status, _row(judged, title if judged is same[0] else ""))
        for title, same in phrases.grouped(document.scenarios).items()
        for judged in same
    ]
    room = _BYTES - len(head.encode())
    if sum(len(row.encode()) + 1 for _, row in rows) > room:
        rows = [(status, row) for status, row in rows if status is not Status.PROVEN]
    sizes = accumulate(len(row.encode()) + 1 for _, row in rows)
    fitting = [row for (_, row), size in zip(rows, sizes, strict=True) if size <= room]
    missing = len(document.scenarios) - len(fitting)
    note = f"\n{missing} more scenarios are left out: there is no room for them here.\n"
    table = "\n".join([*_HEAD, *fitting, ""]) if fitting else ""
    return f"{head}\n{table}{note if missing else ''}"


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
    yield from [f"### {title}", "", *lines[:_MOST_LINES]] if lines else []
    if len(lines) > _MOST_LINES:
        yield f"- … and {len(lines) - _MOST_LINES} more"
    yield from [""] * bool(lines)


def _row(judged: JudgedScenario, title: str) -> str:
    status = judged.status.value
    if judged.status is not Status.PROVEN:
        status = f"**{status}**"
    name = f"{_escaped(judged.scenario.name)} ({_code(judged.scenario.place)})"
    tests = [_code(test.test) for test in judged.tests]
    if len(tests) > _MOST_TESTS:
        tests = [*tests[:_MOST_TESTS], f"and {len(tests) - _MOST_TESTS} more"]
    cells = (
        _escaped(title),
        name,
        status,
        "<br>".join(tests),
        _escaped(phrases.reason(judged)),
    )
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, in a cell of a table too."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&])", r"\\\1", phrases.one_line(text))


def _code(text: str) -> str:
    # A pipe ends a cell even inside of code; GitHub takes \| there.
    text = phrases.one_line(text).replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def workflow_commands(
    document: Document, *, root: Path | None = None, is_strict: bool = True
) -> list[str]:
    """Return a workflow command for each problem and each scenario that is open, the worst first.

    At most ten errors and ten warnings. What the baseline knows, and what is waived, is left out.
    GitHub knows files by their paths in the repository: those are seen from ``GITHUB_WORKSPACE``
    where ``root`` is given.
    """
    folder, failing = _folder(root), "error" if is_strict else "warning"
    commands = []
    for problem in sorted(document.problems, key=lambda it: not it.is_error):
        if not problem.scenario:
            level, line = (
                failing if problem.is_error else "warning",
                str(problem.line or ""),
            )
            where = {"file": _path(problem.spec, folder), "line": line}
            commands.append(_command(level, where, problem.advice))
    for judged in sorted(document.scenarios, key=lambda it: it.status.rank):
        is_agreed = judged.is_excused or judged.status is Status.WAIVED
        if not is_agreed and phrases.is_open(judged, document):
            scenario, status = judged.scenario, judged.status.value
            where = {
                "file": _path(scenario.spec, folder),
                "line": str(scenario.line),
                "title": f"{status}: {phrases.one_line(scenario.name)}",
            }
            commands.append(_command(failing, where, phrases.reason(judged) or status))
    by_level = (
        [it for it in commands if it.startswith(f"::{level} ")] for level in _LEVELS
    )
    return [command for of_level in by_level for command in of_level[:_MOST_COMMANDS]]


_LEVELS = ("error", "warning")


def _command(level: str, properties: dict[str, str], message: str) -> str:
    # https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts
    where = ",".join(
        f"{name}={_data(text).replace(':', '%3A').replace(',', '%2C')}"
        for name, text in properties.items()
        if text
    )
    return f"::{level} {where}::{_data(phrases.one_line(message))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _path(spec: str, folder: str) -> str:
    return f"{folder}{spec}" if spec and not spec.startswith("/") else spec


def _folder(root: Path | None) -> str:
    """What stands before a path from the root, in the repository: ``examples/shop/``."""
    workspace = os.environ.get("GITHUB_WORKSPACE", "")
    if not (root and workspace) or not root.is_relative_to(workspace):
        return ""
    inside = root.relative_to(workspace).as_posix()
    return "" if inside == "." else f"{inside}/"
