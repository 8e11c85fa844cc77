"""`arena doctor`: its options, what it writes, its exit status."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._cli.doctor._edits import difference, repairs
from pytest_arena._cli.doctor._examine import examine, suite_files
from pytest_arena._cli.doctor._fault_formats import FORMATS, as_counts
from pytest_arena._cli.doctor._rule import RULES, chosen
from pytest_arena._cli.doctor._surroundings import Surroundings
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from pytest_arena._cli.doctor._rule import Fault, Rule

_FAULTS = 1


def doctor(given: argparse.Namespace) -> int:
    """Examine the suite as the command line says; exit status 1 where there are faults."""
    _check_codes([*given.select, *given.ignore, *filter(None, [given.explain])])
    if given.explain:
        sys.stdout.write(explained(RULES[_single(given.explain)]))
        return 0
    files = _files([Path(each) for each in given.paths])
    rules = chosen(given.select, given.ignore)
    faults = examine(files, rules, processes=min(os.cpu_count() or 1, 8))
    if given.diff:
        return _show(faults)
    fixed = _repair(faults) if given.fix else set()
    if fixed:
        faults = examine(files, rules, processes=1)
    sys.stdout.write(
        as_counts(faults) if given.statistics else FORMATS[given.output_format](faults)
    )
    if given.output_format == "text":
        sys.stdout.flush()  # the faults come first, also where both go to one file
        sys.stderr.write(_summary(files, faults, fixed))
    return _FAULTS if faults else 0


def explained(rule: Rule) -> str:
    """The page of a rule."""
    ended = "\n\nOff where pytest-arena is configured: it ends this." if rule.ended else ""
    return f"{rule.code} {rule.name}\n\n{rule.page}{ended}\n"


def _check_codes(codes: list[str]) -> None:
    for each in codes:
        if not any(code.startswith(each) for code in RULES):
            raise ConfigError(
                f"no rule has a code that begins with {each!r}",
                why="a rule that is not there finds nothing, and nobody would notice",
                cause="the command line",
                fix=f"one of {', '.join(sorted(RULES))}, or what several of them begin with: ARD3",
            )


def _single(code: str) -> str:
    if code not in RULES:
        raise ConfigError(
            f"--explain {code}: that is the beginning of several codes",
            why="each rule has a page of its own",
            cause="the command line",
            fix=f"one of {', '.join(each for each in sorted(RULES) if each.startswith(code))}",
        )
    return code


def _files(paths: list[Path]) -> list[Path]:
    for path in paths:
        if not path.exists():
            raise _nothing(f"there is no {path}")
    if files := list(dict.fromkeys(suite_files(paths))):
        return files
    raise _nothing(f"there is no test below {', '.join(map(str, paths))}")


def _nothing(what: str) -> ConfigError:
    return ConfigError(
        what,
        why="a check of nothing finds no faults, and would look like a good suite",
        cause="the command line, or the folder that it is called in",
        fix="arena doctor tests   the folder with test_*.py, *_test.py and conftest.py, or a file",
    )


def _show(faults: list[Fault]) -> int:
    changed = repairs(faults)
    sys.stdout.write("".join(difference(file, new) for file, new in changed.items()))
    return _FAULTS if changed else 0


def _repair(faults: list[Fault]) -> set[Path]:
    changed = repairs(faults)
    for file, new in changed.items():
        try:
            file.write_bytes(new)
        except OSError as error:
            raise ConfigError(
                f"{file} cannot be written: {error.strerror}",
                why="--fix writes into the files that it repairs",
                cause=str(file),
                fix="arena doctor --diff   shows what it would write",
            ) from error
    return set(changed)


def _summary(files: list[Path], faults: list[Fault], fixed: set[Path]) -> str:
    off = sum(each.ended for each in RULES.values())
    arena = any(Surroundings(file.absolute().parent).uses_arena for file in files[:1])
    fixable = sum(bool(each.edits) for each in faults)
    lines = [
        f"{_counted(len(faults), 'fault')} in {_counted(len(files), 'file')}"
        + (f", {len(fixed)} repaired" if fixed else ""),
        f"{fixable} can be repaired: arena doctor --fix" if fixable else "",
        "arena doctor --explain CODE   says why, with an example" if faults else "",
        f"{off} rules are off: pytest-arena is configured, and ends what they are about"
        if arena
        else "",
    ]
    return "".join(f"{line}\n" for line in lines if line)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
