"""Which lines does GitHub Actions show at the specification's own lines?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_arena.scenarios.evidence import Status
from pytest_arena.scenarios.outputs._phrases import is_open, one_line, reason

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_arena.scenarios.evidence import Document, JudgedScenario
    from pytest_arena.scenarios.specs import Problem

__all__ = ["workflow_commands"]

# More of a kind are shown nowhere but in the log: https://github.com/actions/toolkit/pull/734
_MOST = 10


def workflow_commands(
    document: Document, *, root: Path | None = None, is_strict: bool = True
) -> list[str]:
    """Return a workflow command for each problem and each scenario that is open, the worst first.

    At most ten errors and ten warnings. What the baseline knows, and what is waived, is left out.
    GitHub knows files by their paths in the repository: those are seen from ``GITHUB_WORKSPACE``
    where ``root`` is given.
    """
    folder = _folder(root)
    failing = "error" if is_strict else "warning"
    problems = [
        _of_problem(problem, failing if problem.is_error else "warning", folder)
        for problem in sorted(document.problems, key=lambda one: not one.is_error)
        if not problem.scenario
    ]
    order = list(Status)
    open_ones = [one for one in document.scenarios if _is_told(one, document)]
    scenarios = [
        _of_scenario(one, failing, folder)
        for one in sorted(open_ones, key=lambda one: order.index(one.status))
    ]
    told = [*problems, *scenarios]
    return [
        line
        for level in ("error", "warning")
        for line in [one for one in told if one.startswith(f"::{level} ")][:_MOST]
    ]


def _is_told(one: JudgedScenario, document: Document) -> bool:
    is_known = one.is_excused or one.status is Status.WAIVED
    return not is_known and is_open(one, document)


def _of_problem(problem: Problem, level: str, folder: str) -> str:
    hint = f" ({problem.hint})" * bool(problem.hint)
    where = {"file": _path(problem.spec, folder), "line": str(problem.line or "")}
    return _command(level, where, f"{problem.what}{hint}")


def _of_scenario(one: JudgedScenario, level: str, folder: str) -> str:
    where = {
        "file": _path(one.scenario.spec, folder),
        "line": str(one.scenario.line),
        "title": f"{one.status.value}: {one_line(one.scenario.name)}",
    }
    return _command(level, where, reason(one) or one.status.value)


def _command(level: str, properties: dict[str, str], message: str) -> str:
    told = ",".join(f"{name}={_property(text)}" for name, text in properties.items() if text)
    return f"::{level} {told}::{_data(one_line(message))}"


# https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts
def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _path(spec: str, folder: str) -> str:
    return f"{folder}{spec}" if spec and not spec.startswith("/") else spec


def _folder(root: Path | None) -> str:
    """What stands before a path from the root, in the repository: ``examples/shop/``."""
    workspace = os.environ.get("GITHUB_WORKSPACE", "")
    if not (root and workspace) or not root.is_relative_to(workspace):
        return ""
    inside = root.relative_to(workspace).as_posix()
    return "" if inside == "." else f"{inside}/"
