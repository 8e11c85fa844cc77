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
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._cli.doctor import _rules_app, _rules_database, _rules_proof
from pytest_arena._cli.doctor._code import Code
from pytest_arena._cli.doctor._rule import RULES, Fault, Findings, rule
from pytest_arena._cli.doctor._surroundings import TEST_FOLDERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_arena._cli.doctor._rule import Rule

ROOMS = (_rules_app, _rules_database, _rules_proof)
_SKIPPED = {
    "node_modules",
    "build",
    "dist",
    "site-packages",
    "venv",
    "env",
    "__pycache__",
}
_OF_SUITE = re.compile(r"(?:test_.*|.*_test|conftest)\.py")
_WAIVER = re.compile(
    r"#\s*arena:\s*ignore(?P<file>-file)?\[(?P<codes>[\w\s,]*)\](?P<reason>.*)"
)
_QUOTED = 60  # letters
_ONE_PROCESS = 150  # files: a second process is worth its start above that


@rule("ARD001", "syntax-error")
def syntax_error(_: Code) -> Findings:
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


@rule("ARD002", "unreadable-file")
def unreadable_file(_: Code) -> Findings:
    """A file cannot be read.

    Nothing in it was examined: its rights, its encoding, or a link without an end.

    Instead: `chmod u+r`, or `# -*- coding: … -*-` with the encoding that it has.

    Fails:

        # -*- coding: no-such-encoding -*-

    Passes:

        # -*- coding: utf-8 -*-
    """
    yield from ()


@rule("ARD003", "waiver-without-reason")
def waiver_without_reason(_: Code) -> Findings:
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
        for folder, folders, files in os.walk(path):
            place = Path(folder)
            folders[:] = sorted(
                each for each in folders if not _is_skipped(place / each)
            )
            in_tests = TEST_FOLDERS.intersection(place.absolute().parts)
            pattern = re.compile(r".*\.py") if in_tests else _OF_SUITE
            yield from (
                place / name for name in sorted(filter(pattern.fullmatch, files))
            )


def _is_skipped(folder: Path) -> bool:
    name = folder.name
    return name.startswith(".") or name in _SKIPPED or (folder / "pyvenv.cfg").exists()


@contextmanager
def _without_collector() -> Iterator[None]:
    """Without the garbage collector: it would walk each syntax tree several times."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        (gc.enable if was else gc.disable)()


def examine(files: list[Path], rules: list[Rule], *, processes: int) -> list[Fault]:
    """Examine files with rules; the faults in the order of the files and their lines."""
    one = partial(examine_file, rules=rules)
    if len(files) < _ONE_PROCESS or processes == 1:
        with _without_collector():
            return list(chain.from_iterable(map(one, files)))
    size = 1 + len(files) // (4 * processes)
    with ProcessPoolExecutor(processes, initializer=gc.disable) as pool:
        return list(chain.from_iterable(pool.map(one, files, chunksize=size)))


def examine_file(file: Path, rules: list[Rule]) -> list[Fault]:
    """Examine one file. One that cannot be read or parsed is a fault itself."""
    codes = {each.code for each in rules}
    return sorted(each for each in _faults(file, rules) if each.code in codes)


def _faults(file: Path, rules: list[Rule]) -> Iterable[Fault]:
    try:
        content = file.read_bytes()
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        text = content.decode(encoding)
    except (
        OSError,
        UnicodeDecodeError,
        SyntaxError,
    ) as error:  # the last: an unknown encoding
        return [_of_file(file, "ARD002", str(error))]
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        version = ".".join(map(str, sys.version_info[:2]))
        why = f"Python {version}: {getattr(error, 'msg', error)}"
        return [_of_file(file, "ARD001", why, line=getattr(error, "lineno", None) or 1)]
    concerned = [each for each in rules if any(word in text for word in each.words)]
    faults = _found(Code(file, text, tree), concerned) if concerned else set[Fault]()
    return _waived(file, text, faults, rules) if "arena: ignore" in text else faults


def _of_file(
    file: Path, code: str, why: str, *, line: int = 1, column: int = 1
) -> Fault:
    return Fault(str(file), line, column, code, f"{RULES[code].title}: {why}", line)


def _found(code: Code, rules: list[Rule]) -> set[Fault]:
    lines = code.text.splitlines()
    arena = code.around.uses_arena
    faults = set()
    for each in rules:
        for found in each.check(code) if not (each.ended and arena) else ():
            node = found.node
            quoted = " ".join(found.quoted.split())
            short = quoted if len(quoted) <= _QUOTED else f"{quoted[: _QUOTED - 1]}…"
            message = f"{each.title}: `{short}`" if short else each.title
            before = "".join(lines[node.lineno - 1 : node.lineno]).encode()[
                : node.col_offset
            ]
            column = len(before.decode(errors="replace")) + 1
            place = (str(code.path), node.lineno, column)
            end = node.end_lineno or node.lineno
            faults.add(Fault(*place, each.code, message, end, found.edits))
    return faults


def _waived(
    file: Path, text: str, faults: set[Fault], rules: list[Rule]
) -> Iterator[Fault]:
    """Leave out what a comment waives; a comment without a reason, or for nothing, is a fault."""
    kept = set(faults)
    codes = {each.code for each in rules}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        waiver = _WAIVER.match(token.string) if token.type == tokenize.COMMENT else None
        if waiver is None:
            continue
        line, column = token.start
        named = set(re.findall(r"\w+", waiver["codes"]))
        near = (
            faults
            if waiver["file"]
            else {e for e in faults if line in {e.line, e.end_line}}
        )
        meant = {each for each in near if each.code in named}
        kept -= meant
        unused = named - {each.code for each in meant}
        is_unused = unused and (named <= codes or unused - RULES.keys())
        if is_unused or not waiver["reason"].strip(" :-"):
            why = f"`{token.string.strip()}`"
            yield _of_file(file, "ARD003", why, line=line, column=column + 1)
    yield from kept
