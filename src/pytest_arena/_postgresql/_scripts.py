"""What is in a script as psql and pg_dump know it, and what is run of it, line by line?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pytest_arena._postgresql._control import ControlFailure, literal
from pytest_arena._postgresql.drivers._statements import INSTEAD, reaches_beyond
from pytest_arena._product import ScriptError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class _Statement:
    """A statement, a command of psql's, or a ``COPY`` with its rows."""

    line: int
    sql: str
    rows: tuple[str, ...] = ()

    @property
    def is_command(self) -> bool:
        return self.sql.startswith("\\")

    @property
    def is_copy(self) -> bool:
        return bool(_COPY.match(self.sql))


class _Runner(Protocol):
    def run(self, sql: str) -> None: ...


def run_script(control: _Runner, script: str) -> None:
    """Run a script as ``psql`` does: each statement by itself, in a transaction if it begins one.

    Nothing is run if one statement reaches beyond the database, as ``DROP DATABASE`` does.

    Raises:
        ScriptError: with the line; "" for a next step that is not known.
    """
    statements = list(_statements(script))
    for statement in statements:
        _check(statement)
    for statement in statements:
        _run(control, statement)


def _check(statement: _Statement) -> None:
    if statement.is_command:
        if _HARMLESS.match(statement.sql):
            return
        name = statement.sql.split(maxsplit=1)[0]
        what = f"{name} is a command of psql's, which arena does not run"
        fix = f"take the line with {name} out; the database is there, and connected to"
    elif beyond := reaches_beyond(statement.sql):
        what = f"{beyond} reaches beyond the database that is being made"
        out = "take it out of the script (pg_dump without --create and --clean)"
        fix = INSTEAD.get(beyond, out)
    elif statement.is_copy and not _PLAIN_COPY.match(statement.sql):
        what = "COPY … FROM stdin in another form than pg_dump's own"
        fix = "COPY table (columns) FROM stdin;   or: pg_dump --inserts"
    else:
        return
    raise ScriptError(what, line=statement.line, fix=fix)


def _run(control: _Runner, statement: _Statement) -> None:
    if statement.is_command:
        return
    try:
        for sql in _insertions(statement) if statement.is_copy else (statement.sql,):
            control.run(sql)
    except ControlFailure as error:
        raise ScriptError(
            str(error), line=_line_of(error, statement), fix=""
        ) from error


def _line_of(error: ControlFailure, statement: _Statement) -> int:
    """The line where PostgreSQL has seen it, or else the statement's first one."""
    cause = error.__cause__
    position = getattr(cause, "position", None)  # asyncpg's
    position = position or getattr(
        getattr(cause, "diag", None), "statement_position", None
    )
    if not position or statement.is_copy:
        return statement.line
    return statement.line + statement.sql[: int(position) - 1].count("\n")


# Rows of pg_dump's. Each driver has an interface of its own for COPY; INSERT is the same in all.

_COPY = re.compile(r"(?is)COPY\s.*\sFROM\s+STDIN\b")
_PLAIN_COPY = re.compile(
    r"""(?isx) COPY \s+ (?P<table> (?:"(?:[^"]|"")*"|[\w$.])+ )
    \s* (?P<columns> (?: \( (?:"(?:[^"]|"")*"|[^()"])* \) )? ) \s* FROM \s+ STDIN \s* ;? \s* $"""
)
_ROWS_AT_ONCE = 500
_ESCAPED = re.compile(r"\\([0-7]{1,3}|x[0-9a-fA-F]{1,2}|.)", re.DOTALL)
_LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _insertions(copy: _Statement) -> Iterator[str]:
    named = _PLAIN_COPY.sub(r"\g<table> \g<columns>", copy.sql)
    head = f"INSERT INTO {named} OVERRIDING SYSTEM VALUE VALUES\n"
    for first in range(0, len(copy.rows), _ROWS_AT_ONCE):
        part = copy.rows[first : first + _ROWS_AT_ONCE]
        yield head + ",\n".join(f"({_values(row)})" for row in part)


def _values(row: str) -> str:
    return ", ".join(
        "NULL" if field == r"\N" else _value(field) for field in row.split("\t")
    )


def _value(field: str) -> str:
    return literal(_ESCAPED.sub(_unescaped, field))


def _unescaped(found: re.Match[str]) -> str:
    """https://www.postgresql.org/docs/current/sql-copy.html, text format."""
    code = found[1]
    if code[0] in "01234567":
        return chr(int(code, 8))
    if code[0] == "x" and len(code) > 1:
        return chr(int(code[1:], 16))
    return _LETTERS.get(code, code)


# Statements, as psql finds them.

_HARMLESS = re.compile(
    r"\\(?:restrict|unrestrict|echo|qecho|warn|pset|timing|x|t|a|errverbose|conninfo)\b"
    r"|\\encoding\s+utf-?8\b|\\set\s+(?:ON_ERROR_STOP|QUIET|VERBOSITY|ECHO)\b",
    re.IGNORECASE,
)
_QUIT = re.compile(r"\\q\b")  # psql reads no further
_TOKEN = re.compile(
    r"""(?sx)
      (?P<remark>  --[^\n]* | /\* )
    | (?P<quoted>  [eE]'(?:[^'\\]|\\.|'')*(?:'|\Z) | '(?:[^']|'')*(?:'|\Z) | "(?:[^"]|"")*(?:"|\Z) )
    | (?P<word>    [^\W\d][\w$]* )
    | (?P<number>  \d[\w.]* )
    | (?P<dollar>  \$(?:[^\W\d]\w*)?\$ )
    | (?P<command> \\[^\n]* )
    | (?P<mark>    [();] )
    """
)
# The body of a function in SQL's own way has semicolons and no quotes: BEGIN ATOMIC … END.
_HAS_BODY = re.compile(r"(?i)CREATE\s+(?:OR\s+REPLACE\s+)?(?:FUNCTION|PROCEDURE)\b")


def _statements(script: str) -> Iterator[_Statement]:
    text = script.replace("\r\n", "\n").removeprefix("\ufeff")
    at = 0
    line = 1
    counted = 0
    while (start := _start(text, at)) < len(text):
        line = line + text.count("\n", counted, start)
        counted = start
        at = _end(text, start)
        sql = text[start:at].strip()
        if _QUIT.match(sql):
            return
        rows: tuple[str, ...] = ()
        if _COPY.match(sql):
            rows, at = _rows(text, at)
        if sql != ";":
            yield _Statement(line, sql, rows)


def _start(text: str, at: int) -> int:
    """Where the next statement begins: behind white space and remarks."""
    while at < len(text):
        if text.startswith("--", at):
            at = _after(text, "\n", at)
        elif text.startswith("/*", at):
            at = _after_remark(text, at)
        elif text[at].isspace():
            at += 1
        else:
            break
    return at


def _end(text: str, start: int) -> int:
    """Where the statement ends that begins here: behind its semicolon, or the command's line."""
    at = start
    depth = 0
    while (found := _TOKEN.search(text, at)) is not None:
        kind = found.lastgroup
        at = found.end()
        if kind == "command":
            return at if found.start() == start else found.start()
        if kind == "dollar":
            at = _after(text, found[0], at)
        elif found[0] == "/*":
            at = _after_remark(text, found.start())
        elif found[0] == ";" and depth <= 0:
            return at
        else:
            depth += _deeper(text, start, found)
    return len(text)


def _deeper(text: str, start: int, found: re.Match[str]) -> int:
    if found.lastgroup == "mark":
        return {"(": 1, ")": -1}.get(found[0], 0)
    word = found[0].upper() if found.lastgroup == "word" else ""
    if word not in {"BEGIN", "CASE", "END"} or not _HAS_BODY.match(text, start):
        return 0
    return -1 if word == "END" else 1


def _after(text: str, mark: str, at: int) -> int:
    found = text.find(mark, at)
    return len(text) if found < 0 else found + len(mark)


_REMARK_EDGE = re.compile(r"/\*|\*/")


def _after_remark(text: str, at: int) -> int:
    """Behind a remark, which may have others inside."""
    depth = 0
    for edge in _REMARK_EDGE.finditer(text, at):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(text)


def _rows(text: str, at: int) -> tuple[tuple[str, ...], int]:
    """The lines behind a ``COPY``, up to its end mark."""
    first = _after(text, "\n", at)
    last = re.compile(r"^\\\.[ \t]*$", re.MULTILINE).search(text, first)
    if last is None:
        return tuple(text[first:].splitlines()), len(text)
    return tuple(text[first : last.start()].split("\n")[:-1]), last.end()
