"""Runs a SQL script as psql does."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from pytest_arena._postgresql._control import ControlFailure, literal
from pytest_arena._postgresql.drivers._beyond import INSTEAD, reaches_beyond
from pytest_arena._product import ScriptError


@dataclass(frozen=True, slots=True)
class _Statement:
    """A statement, a command of psql, or a ``COPY`` with its rows."""

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


_CONNECTS = {r"\c", r"\connect"}
_INCLUDES = {r"\i", r"\ir", r"\include", r"\include_relative"}


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
        _run(control, statement)


def _check(statement: _Statement) -> None:
    if statement.is_command:
        if _HARMLESS.match(statement.sql):
            return
        name = statement.sql.split(maxsplit=1)[0]
        fix = f"replace {name} by SQL, or delete the line"
        if name in _CONNECTS:
            fix = f"delete the line with {name}: the database exists, and is connected"
        elif name in _INCLUDES:
            fix = "replace this line by the statements of that file"
        raise ScriptError(
            f"{name} is a command of psql, which pytest-arena does not run",
            line=statement.line,
            fix=fix,
        )
    beyond = reaches_beyond(statement.sql)
    if beyond:
        delete = "delete it from the script (pg_dump without --create and --clean)"
        raise ScriptError(
            f"{beyond} reaches beyond the database that is built",
            line=statement.line,
            fix=INSTEAD.get(beyond, delete),
        )
    if statement.is_copy and not _PLAIN_COPY.match(statement.sql):
        raise ScriptError(
            "COPY … FROM stdin in another form than pg_dump's",
            line=statement.line,
            fix="COPY table (columns) FROM stdin;   or: pg_dump --inserts",
        )


def _run(control: _Runner, statement: _Statement) -> None:
    if statement.is_command:
        return
    try:
        if statement.is_copy:
            for insert in _inserts(statement):
                control.run(insert)
        else:
            control.run(statement.sql)
    except ControlFailure as error:
        raise ScriptError(
            str(error), line=_line_of(error, statement), fix=""
        ) from error


def _line_of(error: ControlFailure, statement: _Statement) -> int:
    """Return the line that PostgreSQL names, or the first line of the statement."""
    cause = error.__cause__
    position = getattr(cause, "position", None)  # asyncpg's
    if position is None:
        diagnostics = getattr(cause, "diag", None)
        position = getattr(diagnostics, "statement_position", None)
    if not position or statement.is_copy:
        return statement.line
    return statement.line + statement.sql[: int(position) - 1].count("\n")


# pytest-arena sends the rows of a COPY as INSERT, because drivers differ in COPY.

_COPY = re.compile(r"(?is)COPY\s.*\sFROM\s+STDIN\b")
_PLAIN_COPY = re.compile(
    r"""(?isx) COPY \s+ (?P<table> (?:"(?:[^"]|"")*"|[\w$.])+ )
    \s* (?P<columns> (?: \( (?:"(?:[^"]|"")*"|[^()"])* \) )? ) \s* FROM \s+ STDIN \s* ;? \s* $"""
)
_ROWS_AT_ONCE = 500
_ESCAPED = re.compile(r"\\([0-7]{1,3}|x[0-9a-fA-F]{1,2}|.)", re.DOTALL)
_LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _inserts(copy: _Statement) -> Iterator[str]:
    table = _PLAIN_COPY.sub(r"\g<table> \g<columns>", copy.sql)
    head = f"INSERT INTO {table} OVERRIDING SYSTEM VALUE VALUES\n"
    for first in range(0, len(copy.rows), _ROWS_AT_ONCE):
        part = copy.rows[first : first + _ROWS_AT_ONCE]
        yield head + ",\n".join(map(_values, part))


def _values(row: str) -> str:
    values = []
    for field in row.split("\t"):
        if field == r"\N":
            values.append("NULL")
        else:
            values.append(literal(_ESCAPED.sub(_unescaped, field)))
    return f"({', '.join(values)})"


def _unescaped(escape: re.Match[str]) -> str:
    """Decode an escape of COPY's text format.

    https://www.postgresql.org/docs/current/sql-copy.html
    """
    code = escape[1]
    if code[0] in "01234567":
        return chr(int(code, 8))
    if code[0] == "x" and len(code) > 1:
        return chr(int(code[1:], 16))
    return _LETTERS.get(code, code)


# Statements are split as psql splits them.

_HARMLESS = re.compile(
    r"\\(?:restrict|unrestrict|echo|qecho|warn|pset|timing|x|t|a|errverbose|conninfo)\b"
    r"|\\encoding\s+utf-?8\b|\\set\s+(?:ON_ERROR_STOP|QUIET|VERBOSITY|ECHO)\b",
    re.IGNORECASE,
)
_QUIT = re.compile(r"\\q\b")  # psql stops reading
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
# The body of a function may be SQL without quotes, with semicolons: BEGIN ATOMIC … END.
_HAS_BODY = re.compile(r"(?i)CREATE\s+(?:OR\s+REPLACE\s+)?(?:FUNCTION|PROCEDURE)\b")


def _split(script: str) -> Iterator[_Statement]:
    text = script.replace("\r\n", "\n").removeprefix("\ufeff")
    position = 0
    line = 1
    while True:
        start = _start(text, position)
        line += text.count("\n", position, start)
        if start == len(text):
            return
        end = _end(text, start)
        sql = text[start:end].strip()
        if _QUIT.match(sql):
            return
        rows: tuple[str, ...] = ()
        if _COPY.match(sql):
            rows, end = _rows(text, end)
        if sql != ";":
            yield _Statement(line, sql, rows)
        line += text.count("\n", start, end)
        position = end


def _start(text: str, position: int) -> int:
    """Return the start of the next statement, after white space and comments."""
    while position < len(text):
        if text.startswith("--", position):
            position = _after(text, "\n", position)
        elif text.startswith("/*", position):
            position = _after_comment(text, position)
        elif text[position].isspace():
            position += 1
        else:
            break
    return position


def _end(text: str, start: int) -> int:
    """Return the end of a statement, after its semicolon, or the end of a command's line."""
    position = start
    depth = 0
    while True:
        token = _TOKEN.search(text, position)
        if token is None:
            return len(text)
        position = token.end()
        if token.lastgroup == "command":
            # A statement without a semicolon ends before a command.
            if token.start() == start:
                return position
            return token.start()
        if token.lastgroup == "dollar":
            position = _after(text, token[0], position)
        elif token[0] == "/*":
            position = _after_comment(text, token.start())
        elif token[0] == ";" and depth <= 0:
            return position
        elif token.lastgroup == "mark":
            depth += {"(": 1, ")": -1, ";": 0}[token[0]]
        elif token.lastgroup == "word" and _HAS_BODY.match(text, start):
            depth += {"BEGIN": 1, "CASE": 1, "END": -1}.get(token[0].upper(), 0)


def _after(text: str, mark: str, position: int) -> int:
    end = text.find(mark, position)
    if end < 0:
        return len(text)
    return end + len(mark)


_COMMENT_EDGE = re.compile(r"/\*|\*/")


def _after_comment(text: str, position: int) -> int:
    """Return the end of a comment. PostgreSQL's comments can be nested."""
    depth = 0
    for edge in _COMMENT_EDGE.finditer(text, position):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(text)


def _rows(text: str, position: int) -> tuple[tuple[str, ...], int]:
    """Return the lines after a ``COPY``, up to its end mark, and the end of that mark."""
    first = _after(text, "\n", position)
    last = re.compile(r"^\\\.[ \t]*$", re.MULTILINE).search(text, first)
    if last is None:
        return tuple(text[first:].splitlines()), len(text)
    return tuple(text[first : last.start()].split("\n")[:-1]), last.end()
