"""What does a test's process tell of a try, in its reports? Plain values, for other processes."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytest_arena._config._load import is_library
from pytest_arena.errors import NotWritten, redact
from pytest_arena.scenarios.evidence import Facts, from_shape, to_shape

__all__ = [
    "ADDRESS",
    "evidence_line",
    "facts_sent",
    "plain_facts",
    "relative",
    "skip_reason",
    "told",
]

_LETTERS = 300
_OURS = "pytest_arena.errors."
ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}")  # another one in each run
_PHASES = {"setup": "set-up: ", "teardown": "tear-down: "}


def told(report: Any, excinfo: Any, item: Any) -> dict[str, Any]:
    """Return why a phase did not pass, in one line, and where; nothing of one that has."""
    if hasattr(report, "wasxfail"):
        return {"reason": _one_line(str(report.wasxfail).removeprefix("reason: "))}
    if report.passed:
        return {}
    if report.skipped:
        return {"reason": _one_line(skip_reason(report.longrepr))}
    reason = _reason(report, excinfo)
    root = item.config.rootpath
    reason = ADDRESS.sub("0x…", reason.removeprefix(_OURS).replace(f"{root}{os.sep}", ""))
    return {
        "reason": _PHASES.get(report.when, "") + _one_line(reason),
        "place": _place(excinfo, item.path, root) if excinfo is not None else "",
        "stub": excinfo is not None and _is_stub(excinfo, item.path),
    }


def _reason(report: Any, excinfo: Any) -> str:
    if excinfo is None:
        return str(report.longrepr)
    if isinstance(excinfo.value, NotWritten):
        return excinfo.value.what  # that it is a stub says its status
    return str(excinfo.exconly(tryshort=True))


def _one_line(text: str) -> str:
    line = next(filter(None, map(str.strip, text.splitlines())), "")
    return redact(line if len(line) <= _LETTERS else f"{line[:_LETTERS]} …")


def skip_reason(longrepr: Any) -> str:
    """Return why something was skipped, as whoever skipped it has said."""
    text = longrepr[2] if isinstance(longrepr, tuple | list) else str(longrepr)
    return str(text).removeprefix("Skipped: ")


def _place(excinfo: Any, file: Path, root: Path) -> str:
    """The last line in the test's own file; else the last one of the user's."""
    lines = [(Path(str(one.path)), one.lineno + 1) for one in excinfo.traceback]
    own = [one for one in lines if one[0] == file]
    users = own or [one for one in lines if not is_library(str(one[0]))]
    return f"{relative(users[-1][0], root)}:{users[-1][1]}" if users else ""


def _is_stub(excinfo: Any, file: Path) -> bool:
    if isinstance(excinfo.value, NotWritten):
        return True
    # An app may raise it as well; a test that raises it itself says that it is not written.
    raised_at = Path(str(excinfo.traceback[-1].path)) if excinfo.traceback else None
    return isinstance(excinfo.value, NotImplementedError) and raised_at == file


def relative(path: Path, root: Path) -> str:
    """Return a path from the root folder, with ``/``: the same on each machine."""
    with suppress(ValueError):  # Windows: on another drive
        path = Path(os.path.relpath(path, root)) if path.is_absolute() else path
    return path.as_posix()


def evidence_line(facts: Facts) -> str:
    """Return what a test did in one line, for reports that have room for no more."""
    seeded = ", ".join(f"{table} {rows}" for table, rows in facts.seeded or ())
    requests = (f"{one.method} {one.route or one.path} {one.status}" for one in facts.requests)
    parts = {
        "seeded": "?" if facts.seeded is None else seeded or "-",
        "requested": ", ".join(requests) or "-",
        "asserted": str(sum(one.times for one in facts.asserted if not one.is_constant)),
    }
    off = dict(facts.off)
    return "; ".join(f"{name}: {'?' if name in off else text}" for name, text in parts.items())


def plain_facts(facts: Facts) -> str:
    """Return facts as one string: a name in them may be of a type that only looks like one."""
    return json.dumps(to_shape(facts), default=str)


def facts_sent(text: str | None) -> Facts | None:
    """Return the facts that another process has sent."""
    return None if text is None else from_shape(Facts, json.loads(text))
