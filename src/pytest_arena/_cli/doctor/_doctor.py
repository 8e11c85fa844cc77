"""`arena doctor`: its options, what it writes, its exit status."""

from __future__ import annotations

import ast
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._cli._file_changes import FileChange, write_all
from pytest_arena._cli.doctor._examine import examine, suite_files
from pytest_arena._cli.doctor._fault_formats import FORMATS
from pytest_arena._cli.doctor._rule import RULES, chosen
from pytest_arena._cli.doctor._surroundings import surroundings
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from pytest_arena._cli.doctor._rule import Fault, Replacement, Rule

_FAULTS = 1


def doctor(given: argparse.Namespace) -> int:
    """Examine the suite as the command line says; exit status 1 where there are faults."""
    explained = [given.explain] if given.explain else []
    for each in (*given.select, *given.ignore, *explained):
        _check_code(each)
    rules = chosen(explained or given.select, given.ignore)
    if explained:
        sys.stdout.write("\n".join(map(_page, rules)))
        return 0
    files = _files([Path(each) for each in given.paths])
    faults = examine(files, rules, processes=min(os.cpu_count() or 1, 8))
    changes = repairs(faults) if given.diff or given.fix else []
    if given.diff:
        sys.stdout.writelines(
            line for change in changes for line in change.diff(Path.cwd())
        )
        return _FAULTS if changes else 0
    if changes:
        write_all(changes)
        faults = examine(files, rules, processes=1)
    sys.stdout.write(FORMATS[given.output_format](faults))
    if given.output_format == "text":
        sys.stdout.flush()  # the faults come first, also where both go to one file
        sys.stderr.write(_summary(files, faults, fixed=len(changes)))
    return _FAULTS if faults else 0


def _page(rule: Rule) -> str:
    ended = (
        "\n\nOff where pytest-arena is configured: it ends this." if rule.ended else ""
    )
    return f"{rule.code} {rule.name}\n\n{rule.page}{ended}\n"


def _check_code(code: str) -> None:
    if not any(each.startswith(code) for each in RULES):
        raise ConfigError(
            f"no rule has a code that begins with {code!r}",
            why="a rule that is not there finds nothing, and nobody would notice",
            cause="the command line",
            fix=f"one of {', '.join(sorted(RULES))}, or what several of them begin with: ARD3",
        )


def _files(paths: list[Path]) -> list[Path]:
    missing = [f"there is no {path}" for path in paths if not path.exists()]
    files = list(dict.fromkeys(suite_files(paths)))
    if missing or not files:
        raise ConfigError(
            next(iter(missing), f"there is no test below {', '.join(map(str, paths))}"),
            why="a check of nothing finds no faults, and would look like a good suite",
            cause="the command line, or the folder that it is called in",
            fix="arena doctor tests   a folder with test_*.py, *_test.py, conftest.py; or a file",
        )
    return files


def repairs(faults: Iterable[Fault]) -> list[FileChange]:
    """What is to be written into each file that has faults with a safe repair."""
    edits: dict[Path, set[Replacement]] = defaultdict(set)
    for fault in faults:
        if fault.edits:
            edits[Path(fault.file).resolve()].update(fault.edits)
    changes = []
    for file, each in edits.items():
        before = file.read_bytes()
        if (after := repaired(before, each)) != before:
            changes.append(FileChange(file, before, after))
    return changes


def repaired(content: bytes, edits: set[Replacement]) -> bytes:
    """Content with all edits, or unchanged where one does not find what it expects."""
    lines = content.split(b"\n")
    mark = len(b"\xef\xbb\xbf") if content.startswith(b"\xef\xbb\xbf") else 0
    for edit in sorted(edits, key=lambda each: (each.line, each.column), reverse=True):
        row = lines[edit.line - 1] if edit.line <= len(lines) else b""
        at = edit.column + (mark if edit.line == 1 else 0)
        old = edit.old.encode()
        if row[at : at + len(old)] != old:
            return content
        lines[edit.line - 1] = row[:at] + edit.new.encode() + row[at + len(old) :]
    new = b"\n".join(lines)
    ast.parse(new)
    return new


def _summary(files: list[Path], faults: list[Fault], *, fixed: int) -> str:
    off = sum(each.ended for each in RULES.values())
    fixable = sum(bool(each.edits) for each in faults)
    repaired_too = f", {fixed} repaired" if fixed else ""
    lines = [
        f"{_counted(len(faults), 'fault')} in {_counted(len(files), 'file')}{repaired_too}\n",
        f"{fixable} can be repaired: arena doctor --fix\n" * bool(fixable),
        "arena doctor --explain CODE   says why, with an example\n" * bool(faults),
        f"{off} rules are off: pytest-arena is configured, and ends what they are about\n"
        * surroundings(files[0].absolute().parent).uses_arena,
    ]
    return "".join(lines)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
