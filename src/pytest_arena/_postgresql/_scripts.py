"""Runs a SQL script as psql does."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from pytest_arena._postgresql._control import ControlFailure
from pytest_arena._postgresql._driver_guard import WORDS
from pytest_arena._product import ScriptError
from pytest_arena._product._statements import classify


@dataclass(frozen=True, slots=True)
class _Statement:
    """A statement, or a command of psql."""

    line: int
    sql: str


class _Runner(Protocol):
    def run(self, sql: str) -> None: ...


_FIXES = {
    r"\c": "delete the line: the database exists, and is connected",
    r"\connect": "delete the line: the database exists, and is connected",
    r"\i": "replace this line by the statements of that file",
    r"\ir": "replace this line by the statements of that file",
}
_HARMLESS = re.compile(
    r"\\(?:restrict|unrestrict|echo|qecho|warn|pset|timing|x|t|a|errverbose|conninfo)\b"
    r"|\\encoding\s+utf-?8\b|\\set\s+(?:ON_ERROR_STOP|QUIET|VERBOSITY|ECHO)\b",
    re.IGNORECASE,
)
_QUIT = re.compile(r"\\q\b")  # psql stops reading
_COPY = re.compile(r"(?is)COPY\s.*\sFROM\s+STDIN\b")
_PART = re.compile(
    r"""(?sx)
      (?P<blank>   \s+ | --[^\n]* | /\*.*?\*/ )
    | (?P<quoted>  [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
                   | (?P<tag>\$(?:[^\W\d]\w*)?\$) .*? (?P=tag) )
    | (?P<command> \\[^\n]* )
    | (?P<end>     ; )
    | [\w$]+ | .
    """
)


def run_script(control: _Runner, script: str) -> None:
    """Run a script as ``psql`` does: each statement separately, in a transaction if it begins one.

    If a statement reaches beyond the database, as ``DROP DATABASE`` does, no statement is run.

    Raises:
        ScriptError: a statement was refused or has failed. ``fix`` is "" if it is not known.
    """
    statements = list(_split(script))
    for statement in statements:
        _check(statement)
    for statement in statements:
        if statement.sql.startswith("\\"):
            continue
        try:
            control.run(statement.sql)
        except ControlFailure as error:
            raise ScriptError(
                str(error), line=_line_of(error, statement), fix=""
            ) from error


def _check(statement: _Statement) -> None:
    if statement.sql.startswith("\\"):
        name = statement.sql.split(maxsplit=1)[0]
        if not _HARMLESS.match(statement.sql):
            raise ScriptError(
                f"{name} is a command of psql, which pytest-arena does not run",
                line=statement.line,
                fix=_FIXES.get(name, f"replace {name} by SQL, or delete the line"),
            )
    elif _COPY.match(statement.sql):
        raise ScriptError(
            "pytest-arena does not run COPY … FROM stdin",
            line=statement.line,
            fix="pg_dump --inserts",
        )
    beyond = classify(statement.sql, WORDS).beyond
    if beyond:
        delete = "delete it from the script (pg_dump without --create and --clean)"
        raise ScriptError(
            f"{beyond} reaches beyond the database that is built",
            line=statement.line,
            fix=WORDS.instead.get(beyond, delete),
        )


def _line_of(error: ControlFailure, statement: _Statement) -> int:
    """Return the line that PostgreSQL names, or the first line of the statement."""
    diagnostics = getattr(error.__cause__, "diag", None)
    position = getattr(diagnostics, "statement_position", None)
    if not position:
        return statement.line
    return statement.line + statement.sql[: int(position) - 1].count("\n")


def _split(script: str) -> Iterator[_Statement]:
    """Yield the statements. A statement without a semicolon ends before a command of psql."""
    text = script.replace("\r\n", "\n").removeprefix("\ufeff")
    line = 1
    sql = ""
    for part in _PART.finditer(text):
        if part["command"] and _QUIT.match(part[0]):
            break
        if part["command"]:
            if sql:
                yield _Statement(line - sql.count("\n"), sql.strip())
            yield _Statement(line, part[0])
            sql = ""
        elif part["end"]:
            if sql:
                yield _Statement(line - sql.count("\n"), f"{sql};")
            sql = ""
        elif sql or not part["blank"]:
            sql += part[0]
        line += part[0].count("\n")
    if sql:
        yield _Statement(line - sql.count("\n"), sql.strip())
