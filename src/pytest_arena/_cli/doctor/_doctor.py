"""`arena doctor`: its options, its output and its exit status."""

from __future__ import annotations

import ast
import os
import sys
from codecs import BOM_UTF8
from collections import defaultdict
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._cli._file_changes import FileChange, write_all
from pytest_arena._cli.doctor._examine import examine, suite_files
from pytest_arena._cli.doctor._fault_formats import FORMATS
from pytest_arena._cli.doctor._rule import RULES, selected_rules
from pytest_arena._cli.doctor._surroundings import surroundings
from pytest_arena._values import counted
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from pytest_arena._cli.doctor._rule import Fault, Replacement, Rule

_FAULTS = 1


def doctor(options: argparse.Namespace) -> int:
    """Check the suite with the options of the command line. Return 1 if there are faults."""
    for code in (*options.select, *options.ignore):
        _check_code(code)
    if options.explain:
        _check_code(options.explain)
        pages = map(_page, selected_rules([options.explain], options.ignore))
        sys.stdout.write("\n".join(pages))
        return 0
    rules = selected_rules(options.select, options.ignore)
    files = _files([Path(path) for path in options.paths])
    processors = os.cpu_count() or 1
    faults = examine(files, rules, processes=min(processors, 8))
    changes = []
    if options.diff or options.fix:
        changes = repairs(faults)
    if options.diff:
        for change in changes:
            sys.stdout.writelines(change.diff(Path.cwd()))
        return _FAULTS if changes else 0
    if changes:
        write_all(changes)
        faults = examine(files, rules, processes=1)
    as_format = FORMATS[options.output_format]
    sys.stdout.write(as_format(faults))
    if options.output_format == "text":
        sys.stdout.flush()  # so that the faults precede the summary in a shared file
        sys.stderr.writelines(_summary(files, faults, repaired=len(changes)))
    return _FAULTS if faults else 0


def _page(rule: Rule) -> str:
    """Return the documentation of a rule."""
    page = f"{rule.code} {rule.name}\n\n{rule.page}\n"
    if rule.solved_by_arena:
        page += "\nThis rule is off if pytest-arena is configured, because it solves the problem.\n"
    return page


def _check_code(prefix: str) -> None:
    if not any(code.startswith(prefix) for code in RULES):
        raise ConfigError(
            f"no rule has a code that begins with {prefix!r}",
            why="a rule that does not exist finds no faults",
            cause="the command line",
            fix=f"one of {', '.join(sorted(RULES))}, or the beginning of several codes: ARD3",
        )


def _files(paths: list[Path]) -> list[Path]:
    """Return the test files below these paths.

    Raises:
        ConfigError: a path does not exist, or there is no test file.
    """
    missing = [path for path in paths if not path.exists()]
    files = list(dict.fromkeys(suite_files(paths)))
    if files and not missing:
        return files
    if missing:
        problem = f"{missing[0]} does not exist"
    else:
        names = ", ".join(map(str, paths))
        problem = f"no test file was found below {names}"
    raise ConfigError(
        problem,
        why="a check without files finds no faults, as in a good suite",
        cause="the command line, or the folder in which the command runs",
        fix="arena doctor tests   a file, or a folder with test_*.py, *_test.py or conftest.py",
    )


def repairs(faults: Iterable[Fault]) -> list[FileChange]:
    """Return the change of each file that has a fault with a safe repair."""
    edits_by_file: dict[Path, set[Replacement]] = defaultdict(set)
    for fault in faults:
        if fault.edits:
            file = Path(fault.file).resolve()
            edits_by_file[file].update(fault.edits)
    changes = []
    for file, edits in edits_by_file.items():
        before = file.read_bytes()
        after = apply_edits(before, edits)
        if after != before:
            changes.append(FileChange(file, before, after))
    return changes


def apply_edits(content: bytes, edits: set[Replacement]) -> bytes:
    """Return the content with all edits, or the old content if an edit does not find its text."""
    text = content.removeprefix(BOM_UTF8)
    lines = text.split(b"\n")
    for edit in sorted(edits, key=attrgetter("line", "column"), reverse=True):
        if edit.line > len(lines):
            return content
        index = edit.line - 1
        before = lines[index][: edit.column]
        rest = lines[index][edit.column :]
        old = edit.old.encode()
        if not rest.startswith(old):
            return content
        lines[index] = before + edit.new.encode() + rest.removeprefix(old)
    new_text = b"\n".join(lines)
    ast.parse(new_text)  # raises a SyntaxError, so that no broken file is written
    byte_order_mark = content.removesuffix(text)
    return byte_order_mark + new_text


def _summary(files: list[Path], faults: list[Fault], *, repaired: int) -> Iterator[str]:
    """Yield the lines below the faults."""
    number_of_files = counted(len(files), "file")
    summary = f"{counted(len(faults), 'fault')} in {number_of_files}"
    if repaired:
        summary += f", {repaired} repaired"
    yield f"{summary}\n"
    repairable = [fault for fault in faults if fault.edits]
    if repairable:
        number = counted(len(repairable), "fault")
        yield f"arena doctor --fix   repairs {number}\n"
    if faults:
        yield "arena doctor --explain CODE   explains a fault with an example\n"
    if surroundings(files[0].absolute().parent).uses_arena:
        off = sorted(code for code, rule in RULES.items() if rule.solved_by_arena)
        yield (
            f"{len(off)} of {len(RULES)} rules are off, because the project has an arena_… option, "
            f"and pytest-arena solves their problems:\n{', '.join(off)}\n"
        )
