"""What stands in the summary of a CI job?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_arena.scenarios.evidence import Status
from pytest_arena.scenarios.outputs._phrases import (
    grouped,
    judged_count,
    one_line,
    problem_line,
    reason,
    totals,
    unsaid_gaps,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_arena.scenarios.evidence import Document, JudgedScenario

__all__ = ["summary"]

# GitHub shows no summary of more than 1 MiB:
# https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
_BYTES = 1_000_000
_MOST_TESTS = 5
_HEAD = ("| rule | scenario | status | tests | why |", "| --- | --- | --- | --- | --- |")


def summary(document: Document) -> str:
    """Return the totals, the gaps, and a matrix: rule, scenario, status, tests.

    At most 1 MB: then proven scenarios are left out first.
    """
    head = "\n".join(_head(document))
    rows = [(one.status, row) for one, row in _rows(document.scenarios)]
    room = _BYTES - len(head.encode())
    if sum(_size(row) for _, row in rows) > room:
        rows = [(status, row) for status, row in rows if status is not Status.PROVEN]
    fitting = list(_fitting((row for _, row in rows), room))
    missing = len(document.scenarios) - len(fitting)
    note = f"\n{missing} more scenarios are left out: there is no room for them here.\n"
    table = "\n".join([*_HEAD, *fitting, ""]) if fitting else ""
    return f"{head}\n{table}{note if missing else ''}"


def _fitting(rows: Iterable[str], room: int) -> Iterator[str]:
    for row in rows:
        room -= _size(row)
        if room < 0:
            return
        yield row


def _size(row: str) -> int:
    return len(row.encode()) + 1


def _head(document: Document) -> Iterator[str]:
    yield f"## Scenarios: {totals(document)}"
    yield ""
    if document.partial:
        yield f"Partial run ({_escaped(document.partial)}): {judged_count(document)}."
        yield ""
    yield from _list("Gaps", unsaid_gaps(document))
    yield from _list("Problems", map(problem_line, document.problems))


def _list(title: str, texts: Iterable[str]) -> Iterator[str]:
    lines = [f"- {_escaped(text)}" for text in texts]
    yield from [f"### {title}", "", *lines[:_MOST_LINES]] if lines else []
    if len(lines) > _MOST_LINES:
        yield f"- … and {len(lines) - _MOST_LINES} more"
    yield from [""] * bool(lines)


_MOST_LINES = 50


def _rows(scenarios: Iterable[JudgedScenario]) -> Iterator[tuple[JudgedScenario, str]]:
    """The heading stands in its first row alone."""
    for title, ones in grouped(scenarios).items():
        for number, one in enumerate(ones):
            yield one, _row(one, title if number == 0 else "")


def _row(one: JudgedScenario, title: str) -> str:
    proven = one.status is Status.PROVEN
    status = one.status.value if proven else f"**{one.status.value}**"
    name = f"{_escaped(one.scenario.name)} ({_code(one.scenario.place)})"
    tests = [_code(test.test) for test in one.tests]
    if len(tests) > _MOST_TESTS:
        tests = [*tests[:_MOST_TESTS], f"and {len(tests) - _MOST_TESTS} more"]
    cells = (_escaped(title), name, status, "<br>".join(tests), _escaped(reason(one)))
    return f"| {' | '.join(cells)} |"


_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~$&])")


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, in a cell of a table too."""
    return _MARKS.sub(r"\\\1", one_line(text))


def _code(text: str) -> str:
    # A pipe ends a cell even inside of code; GitHub takes \| there.
    text = one_line(text).replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"
