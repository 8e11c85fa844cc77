"""Runs a SQL script as the client ``mysql`` does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_arena._mysql._control import MySQLFailure
from pytest_arena._product import ScriptError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._mysql._control import MySQLControl

# A text, a name, a comment, or other characters. A comment with `!` has statements.
_PART = re.compile(
    r"""(?sx) '(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | `(?:[^`]|``)*`
    | (?P<comment> --(?:[ \t][^\n]*)?(?=\n|\Z) | \#[^\n]* | /\*(?!M?!).*?\*/ )
    | (?P<command> (?m:^)[ \t]*(?i:DELIMITER)[ \t]+(?P<delimiter>\S+)[^\n]* )
    | [\w,()=. \t]+ | ."""
)


def run_script(control: MySQLControl, script: str) -> None:
    """Run a script: each statement separately.

    Raises:
        ScriptError: a statement was refused or has failed.
    """
    for line, statement in _split(script):
        try:
            control.run(statement)
        except MySQLFailure as error:
            raise ScriptError(str(error), line=line, fix="") from error


def _split(script: str) -> Iterator[tuple[int, str]]:
    """Yield the statements of a script and their lines. ``DELIMITER`` changes their end mark."""
    delimiter = ";"
    position = 0
    parts: list[str] = []
    while position < len(script):
        if script.startswith(delimiter, position):
            yield from _statement(script, position, parts)
            position += len(delimiter)
            parts = []
            continue
        part = _PART.match(script, position)
        assert part is not None  # noqa: S101 - it matches any character
        position = part.end()
        if part["command"] is not None:
            delimiter = part["delimiter"]
        else:
            parts.append(" " if part["comment"] is not None else part[0])
    yield from _statement(script, position, parts)


def _statement(script: str, end: int, parts: list[str]) -> Iterator[tuple[int, str]]:
    sql = "".join(parts).strip()
    if sql:
        yield script.count("\n", 0, end) + 1 - sql.count("\n"), sql
