"""Finds the files of a suite, and checks them in parallel."""

from __future__ import annotations

import ast
import gc
import io
import re
import sys
import tokenize
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._cli._imports import files_below, parsed
from pytest_arena._cli.doctor import _rules_app, _rules_database, _rules_proof
from pytest_arena._cli.doctor._code import Code
from pytest_arena._cli.doctor._rule import RULES, Fault, Finding, Findings, rule
from pytest_arena._cli.doctor._surroundings import TEST_FOLDERS, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_arena._cli.doctor._rule import Rule

RULE_MODULES = (_rules_app, _rules_database, _rules_proof)
_TEST_FILE = re.compile(r"(?:test_.*|.*_test|conftest)\.py")
_PYTHON_FILE = re.compile(r"[^.].*\.py")  # an editor's lock begins with a dot
_WAIVER = re.compile(
    r"#\s*arena:\s*ignore(?P<file>-file)?\[(?P<codes>[\w\s,]*)\](?P<reason>.*)"
)
_QUOTED = 60  # characters of code in a message
_ONE_PROCESS = 150  # files. With fewer files, several processes are not faster


@rule("ARD001", "syntax-error")
def syntax_error(_: Code) -> Findings:
    """This Python cannot parse a file.

    No rule checked the file. pytest cannot import it with the same Python.

    Instead: correct the line. If the tests need a newer Python, run `arena` with that Python.

    Fails:

        def test_it(:

    Passes:

        def test_it():
            assert True
    """
    yield from ()


@rule("ARD002", "unreadable-file")
def unreadable_file(_: Code) -> Findings:
    """`arena doctor` cannot read a file.

    No rule checked the file. The cause is its permissions, its encoding or a broken link.

    Instead: make the file readable (`chmod u+r`), name its encoding in the first line
    (`# -*- coding: … -*-`), or repair the symbolic link.

    Fails:

        # -*- coding: no-such-encoding -*-

    Passes:

        # -*- coding: utf-8 -*-
    """
    yield from ()


@rule("ARD003", "waiver-without-reason")
def waiver_without_reason(_: Code) -> Findings:
    """A waiver has no reason, or its line has no fault to waive.

    A later reader cannot know whether the waiver is still right.

    Instead: write a reason, as in `# arena: ignore[ARD602] the device needs one second`. Delete a
    waiver that waives no fault.

    Fails:

        import time

        def test_device():
            start()
            time.sleep(1)  # arena: ignore[ARD602]

    Passes:

        import time

        def test_device():
            start()
            time.sleep(1)  # arena: ignore[ARD602] the device needs one second
    """
    yield from ()


def suite_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the test files below these paths, and each path that is a file.

    Hidden folders, virtual environments, `build`, `dist` and `node_modules` are skipped.
    """
    for path in paths:
        if not path.is_dir():
            yield path
        for file in files_below(path):
            is_of_tests = TEST_FOLDERS.intersection(file.absolute().parts)
            pattern = _PYTHON_FILE if is_of_tests else _TEST_FILE
            if pattern.fullmatch(file.name):
                yield file


def examine(files: list[Path], rules: list[Rule], *, processes: int) -> list[Fault]:
    """Check files with rules. Return the faults in the order of the files and their lines."""
    check = partial(examine_file, rules=rules)
    if processes > 1 and len(files) >= _ONE_PROCESS:
        size = 1 + len(files) // (4 * processes)
        with ProcessPoolExecutor(processes, initializer=gc.disable) as pool:
            faults = pool.map(check, files, chunksize=size)
            return _without_duplicates(faults)
    # The garbage collector would walk each syntax tree several times.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return _without_duplicates(map(check, files))
    finally:
        if was_enabled:
            gc.enable()


def _without_duplicates(faults: Iterable[list[Fault]]) -> list[Fault]:
    """Return the distinct faults. Several test files may import a module with a fault."""
    return list(dict.fromkeys(chain.from_iterable(faults)))


def examine_file(file: Path, rules: list[Rule]) -> list[Fault]:
    """Check one file. A file that cannot be read or parsed is a fault."""
    codes = {rule.code for rule in rules}
    faults = [fault for fault in _faults(file, rules) if fault.code in codes]
    return sorted(faults)


def _faults(file: Path, rules: list[Rule]) -> Iterable[Fault]:
    try:
        with tokenize.open(file) as opened:
            text = opened.read()
    # tokenize raises a SyntaxError if the file names an unknown encoding.
    except (OSError, UnicodeDecodeError, SyntaxError) as error:
        reason = str(error)
        if file.is_symlink() and not file.exists():
            target = file.readlink()
            reason = (
                f"{file} is a link to {target}, which is not a file. pytest skips it"
            )
        return [_file_fault(file, "ARD002", reason)]
    try:
        tree = parsed(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        major, minor, *_ = sys.version_info
        problem = getattr(error, "msg", error)
        line = getattr(error, "lineno", None) or 1
        message = f"Python {major}.{minor}: {problem}"
        return [_file_fault(file, "ARD001", message, line=line)]
    by_file: dict[Path, set[Fault]] = {file: set()}
    code = None
    for selected_rule in rules:
        if not any(word in text for word in selected_rule.words):
            continue
        if code is None:  # created only if a rule needs it, because this takes long
            code = Code(file, text, tree)
        if selected_rule.solved_by_arena and code.project.uses_arena:
            continue
        for finding in selected_rule.check(code):
            fault = _fault(selected_rule, code, finding)
            by_file.setdefault(Path(fault.file), set()).add(fault)
    not_waived: list[Fault] = []
    for path, faults in by_file.items():
        text_of_file = text if path == file else read(path.absolute())
        not_waived += _not_waived(path, text_of_file, faults, rules)
    return not_waived


def _file_fault(
    file: Path, code: str, problem: str, *, line: int = 1, column: int = 1
) -> Fault:
    title = RULES[code].title
    return Fault(str(file), line, column, code, f"{title}: {problem}", line)


def _fault(rule: Rule, code: Code, finding: Finding) -> Fault:
    node = finding.node
    path = code.path
    text = code.text
    if finding.file:
        path = _display_path(finding.file)
        text = read(finding.file)
    quoted = finding.quoted or ast.unparse(node)
    quoted = " ".join(quoted.split())
    if len(quoted) > _QUOTED:
        quoted = f"{quoted[: _QUOTED - 1]}…"
    # The column of a node counts bytes. The column of a fault counts characters from 1.
    line = text.splitlines()[node.lineno - 1].encode()
    before = line[: node.col_offset].decode(errors="replace")
    return Fault(
        str(path),
        node.lineno,
        len(before) + 1,
        rule.code,
        f"{rule.title}: `{quoted}`",
        node.end_lineno or node.lineno,
        finding.edits,
    )


def _display_path(path: Path) -> Path:
    """Return the path relative to the working folder, or the whole path outside of it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _not_waived(
    file: Path, text: str, faults: set[Fault], rules: list[Rule]
) -> Iterator[Fault]:
    """Yield the faults that no comment waives, and a fault for each wrong comment."""
    if "arena: ignore" not in text:
        yield from faults
        return
    not_waived = set(faults)
    checked = {rule.code for rule in rules}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        waiver = _WAIVER.match(token.string)
        if token.type != tokenize.COMMENT or waiver is None:
            continue
        line, column = token.start
        codes = set(re.findall(r"\w+", waiver["codes"]))
        unused = set(codes)
        for fault in faults:
            is_near = waiver["file"] or line in {fault.line, fault.end_line}
            if is_near and fault.code in codes:
                not_waived.discard(fault)
                unused.discard(fault.code)
        # The code of a rule that was not selected is unused, but not wrong.
        is_wrong = unused and (codes <= checked or unused - RULES.keys())
        if is_wrong or not waiver["reason"].strip(" :-"):
            comment = token.string.strip()
            yield _file_fault(
                file, "ARD003", f"`{comment}`", line=line, column=column + 1
            )
    yield from not_waived
