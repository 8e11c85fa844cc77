"""Finds the files of a suite, and examines each; in several processes where that pays."""

from __future__ import annotations

import ast
import gc
import io
import os
import re
import sys
import tokenize
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._cli.doctor import (
    _rules_app,
    _rules_database,
    _rules_loops,
    _rules_order,
    _rules_proof,
    _rules_state,
)
from pytest_arena._cli.doctor._code import Code
from pytest_arena._cli.doctor._rule import RULES, Fault, rule
from pytest_arena._cli.doctor._surroundings import TEST_FOLDERS, Surroundings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_arena._cli.doctor._rule import Finding, Rule

__all__ = ["examine", "examine_file", "suite_files"]

ROOMS = (_rules_app, _rules_database, _rules_loops, _rules_order, _rules_proof, _rules_state)
_SKIPPED = {"node_modules", "build", "dist", "site-packages", "venv", "env", "__pycache__"}
_WAIVER = re.compile(r"#\s*arena:\s*ignore(?P<file>-file)?\[(?P<codes>[\w\s,]*)\](?P<reason>.*)")
_QUOTED = 60  # letters
_ONE_PROCESS = 150  # files: a second process is worth its start above that


@rule("ARD001", "syntax-error", words=())
def syntax_error(_: Code) -> Iterator[Finding]:
    """A file is no Python that this Python can read.

    Nothing in it was examined, and a pytest of the same Python will not import it.

    Instead: what Python says of the line; `arena` in the Python that the tests run in, where that
    is a newer one.

    Fails:

        def test_it(:

    Passes:

        def test_it():
            assert True
    """
    yield from ()


@rule("ARD002", "unreadable-file", words=())
def unreadable_file(_: Code) -> Iterator[Finding]:
    """A file cannot be read.

    Nothing in it was examined: its rights, its encoding, or a link without an end.

    Instead: `chmod u+r`, or `# -*- coding: … -*-` with the encoding that it has.

    Fails:

        # -*- coding: no-such-encoding -*-

    Passes:

        # -*- coding: utf-8 -*-
    """
    yield from ()


@rule("ARD003", "waiver-without-reason", words=())
def waiver_without_reason(_: Code) -> Iterator[Finding]:
    """A waiver gives no reason, or waives nothing.

    Whoever reads it later cannot know whether it still holds.

    Instead: `# arena: ignore[ARD602] the device needs its second`; delete it where there is no
    such fault.

    Fails:

        import time

        def test_device():
            start()
            time.sleep(1)  # arena: ignore[ARD602]

    Passes:

        import time

        def test_device():
            start()
            time.sleep(1)  # arena: ignore[ARD602] the device needs its second
    """
    yield from ()


def suite_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files of the suite below these paths; a file that is named is one, whatever its name.

    Folders whose names begin with a dot are skipped, and so are environments, `build`, `dist` and
    `node_modules`.
    """
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for folder, folders, files in os.walk(path):
            place = Path(folder)
            folders[:] = sorted(each for each in folders if not _is_skipped(place / each))
            in_tests = TEST_FOLDERS.intersection(place.absolute().parts)
            yield from (place / name for name in sorted(files) if _is_of_suite(name, in_tests))


def _is_skipped(folder: Path) -> bool:
    name = folder.name
    return name.startswith(".") or name in _SKIPPED or (folder / "pyvenv.cfg").exists()


def _is_of_suite(name: str, in_tests: set[str]) -> bool:
    by_name = name.startswith("test_") or name.endswith("_test.py") or name == "conftest.py"
    return name.endswith(".py") and (by_name or bool(in_tests))


def examine(files: list[Path], rules: list[Rule], *, processes: int) -> list[Fault]:
    """Examine files with rules; the faults in the order of the files and their lines."""
    codes = [each.code for each in rules]
    if len(files) < _ONE_PROCESS or processes == 1:
        return _examine_all(codes, files)
    size = 1 + len(files) // (4 * processes)
    batches = [files[at : at + size] for at in range(0, len(files), size)]
    with ProcessPoolExecutor(processes) as pool:
        results = pool.map(partial(_examine_all, codes), batches)
        return [fault for faults in results for fault in faults]


def _examine_all(codes: list[str], files: Iterable[Path]) -> list[Fault]:
    rules = [RULES[each] for each in codes]
    with without_collector():
        return [fault for file in files for fault in examine_file(file, rules)]


@contextmanager
def without_collector() -> Iterator[None]:
    """Without the garbage collector: it would walk each syntax tree several times."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def examine_file(file: Path, rules: list[Rule]) -> list[Fault]:
    """Examine one file. One that cannot be read or parsed is a fault itself."""
    codes = {each.code for each in rules}
    try:
        text = _decoded(file.read_bytes())
    except (OSError, UnicodeDecodeError, SyntaxError) as error:  # the last: an unknown encoding
        return _unexamined(file, "ARD002", str(error), 1, codes)
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        version = ".".join(map(str, sys.version_info[:2]))
        why = f"Python {version}: {getattr(error, 'msg', error)}"
        return _unexamined(file, "ARD001", why, getattr(error, "lineno", None) or 1, codes)
    lines = text.splitlines()
    faults = {
        _fault(file, lines, each, found) for each, found in _findings(file, text, tree, rules)
    }
    ordered = sorted(faults, key=lambda each: (each.line, each.column, each.code))
    return _waived(file, text, ordered, codes) if "arena: ignore" in text else ordered


def _decoded(content: bytes) -> str:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    return content.decode(encoding)


def _unexamined(file: Path, code: str, why: str, line: int, codes: set[str]) -> list[Fault]:
    if code not in codes:
        return []
    return [Fault(str(file), line, 1, line, code, f"{RULES[code].title}: {why}")]


def _findings(
    file: Path, text: str, tree: ast.Module, rules: list[Rule]
) -> Iterator[tuple[Rule, Finding]]:
    concerned = [each for each in rules if any(word in text for word in each.words)]
    if not concerned:
        return
    around = Surroundings(file.absolute().parent)
    code = Code(file, text, tree, around)
    for each in concerned:
        if not (each.ended and around.uses_arena):
            yield from ((each, found) for found in each.check(code))


def _fault(file: Path, lines: list[str], each: Rule, found: Finding) -> Fault:
    node = found.node
    if not isinstance(node, ast.expr | ast.stmt):
        raise TypeError(node)  # the others have no place
    quoted = " ".join(found.quoted.split())
    short = quoted if len(quoted) <= _QUOTED else f"{quoted[: _QUOTED - 1]}…"
    line = lines[node.lineno - 1] if node.lineno <= len(lines) else ""
    column = len(line.encode()[: node.col_offset].decode(errors="replace")) + 1
    message = f"{each.title}: `{short}`" if short else each.title
    return Fault(
        str(file),
        node.lineno,
        column,
        node.end_lineno or node.lineno,
        each.code,
        message,
        found.edits,
    )


def _waived(file: Path, text: str, faults: list[Fault], codes: set[str]) -> list[Fault]:
    """Leave out what a comment waives; a comment without a reason, or for nothing, is a fault."""
    kept, told = list(faults), []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        waiver = _WAIVER.match(token.string) if token.type == tokenize.COMMENT else None
        if waiver is None:
            continue
        line, column = token.start
        named = re.findall(r"\w+", waiver["codes"])
        meant = [
            each
            for each in faults
            if each.code in named and (waiver["file"] or _covers(each, line))
        ]
        kept = [each for each in kept if each not in meant]
        unknown = [each for each in named if each not in RULES]
        unused = bool(unknown) or (
            codes.issuperset(named) and {each.code for each in meant} != set(named)
        )
        if "ARD003" in codes and (unused or not waiver["reason"].strip(" :-")):
            message = f"{RULES['ARD003'].title}: `{token.string.strip()}`"
            told.append(Fault(str(file), line, column + 1, line, "ARD003", message))
    return sorted([*kept, *told], key=lambda each: (each.line, each.column))


def _covers(fault: Fault, line: int) -> bool:
    """Whether a comment on a line speaks of a fault: on its first line or its last."""
    return line in {fault.line, fault.end_line}
