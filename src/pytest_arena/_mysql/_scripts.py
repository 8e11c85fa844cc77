"""Runs a SQL script as the client ``mysql`` does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena._mysql._control import MySQLFailure
from pytest_arena._product import ScriptError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._mysql._control import MySQLControl


@dataclass(frozen=True, slots=True)
class _ScriptStatement:
    line: int
    sql: str


_COMMAND = re.compile(
    r"(?i)(?P<name>DELIMITER|SOURCE|\\\.|\\u|SYSTEM|\\!)\s+(?P<rest>.*)"
)
# A text, a name, or a comment. A comment with `!` has statements, so it does not match.
_PART = re.compile(
    r"""(?s)'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`(?:[^`]|``)*`"""
    r"|(?P<comment>--(?:[ \t][^\n]*)?(?=\n|\Z)|\#[^\n]*|/\*(?!M?!).*?\*/)"
)


def run_script(control: MySQLControl, script: str) -> None:
    """Run a script: each statement separately.

    Raises:
        ScriptError: a statement was refused or has failed. ``fix`` is "" if it is not known.
    """
    for statement in _split(script):
        try:
            control.run(statement.sql)
        except MySQLFailure as error:
            raise ScriptError(str(error), line=statement.line, fix="") from error


def _split(script: str) -> Iterator[_ScriptStatement]:
    """Yield the statements of a script. ``DELIMITER`` changes the end mark of statements."""
    delimiter = ";"
    position = 0
    start = 0
    parts: list[str] = []
    while position < len(script):
        is_between = not "".join(parts).strip() and not script[start:position].strip()
        command = _command(script, position) if is_between else None
        part = _PART.match(script, position)
        if command is not None:
            delimiter = command["rest"].strip() or ";"
            position = command.end()
            start = position
            parts = []
        elif part is not None:
            position = part.end()
            if part["comment"] is not None:
                parts.append(script[start : part.start()])
                start = position
        elif script.startswith(delimiter, position):
            parts.append(script[start:position])
            yield from _statement(script, position, parts)
            position += len(delimiter)
            start = position
            parts = []
        else:
            position += 1
    parts.append(script[start:])
    yield from _statement(script, len(script), parts)


def _command(script: str, position: int) -> re.Match[str] | None:
    """Return the command DELIMITER if it is next.

    Raises:
        ScriptError: another command is next.
    """
    command = _COMMAND.match(script, _after_blanks(script, position))
    if command is not None and command["name"].upper() != "DELIMITER":
        raise ScriptError(
            f"{command['name']} is a command of mysql, which pytest-arena does not run",
            line=script.count("\n", 0, command.start()) + 1,
            fix="replace this line by the statements of that file",
        )
    return command


def _after_blanks(script: str, position: int) -> int:
    while position < len(script) and script[position].isspace():
        position += 1
    return position


def _statement(script: str, end: int, parts: list[str]) -> Iterator[_ScriptStatement]:
    sql = " ".join(parts).strip()
    if sql:
        line = script.count("\n", 0, end) + 1 - sql.count("\n")
        yield _ScriptStatement(line, sql)
