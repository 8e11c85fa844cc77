"""Which files does a script attach, by its tokens? And may SQLite attach any?"""

from __future__ import annotations

import os
import re
import sqlite3
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["attached_files", "lead_attached", "let_attach", "may_attach"]

_TOKEN = re.compile(
    r"""
      (?P<comment> \ufeff | --[^\n]* | /\*.*?(?:\*/|$) )
    | (?P<name> '(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\] )
    | (?P<bound> [?:@$][\w:]* )
    | (?P<word> \w+ )
    | (?P<end> ; )
    | (?P<other> \S )
    """,
    re.DOTALL | re.VERBOSE,
)


_WORD = re.compile(r"\b(?:attach|vacuum)\b")  # a table of attachments is none


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


def lead_attached(
    sql: str, parameters: Any, lead: Callable[[str | None], str | None]
) -> tuple[str, Any]:
    """Put other files in the places of those that a script attaches.

    ``lead`` is asked for each: it is given the name, None where only SQLite can work it out, and
    returns the name to put in its place, None to leave it. It is asked for the last one first.
    """
    for name in reversed([_file_in(tokens) for tokens in _token_lists(sql) if _attaches(tokens)]):
        file = lead(_value_of(name, parameters) if name else None)
        if name is None or file is None:
            continue
        if name.kind == "bound":
            parameters = _with_value(name.text, parameters, file)
        else:
            sql = sql[: name.start] + _literal(file) + sql[name.start + len(name.text) :]
    return sql, parameters


def _literal(text: str) -> str:
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


def attached_files(sql: str, parameters: Any = ()) -> list[str | None]:
    """Return the file of each ATTACH in a script; None where only SQLite can work its name out."""
    names: list[str | None] = []
    lead_attached(sql, parameters, names.append)
    return names[::-1]


def may_attach(script: str) -> bool:
    """Whether a script attaches a file: VACUUM does so, too. Costs 0.2 µs where neither word is."""
    lowered = script.lower()
    if ("attach" not in lowered and "vacuum" not in lowered) or not _WORD.search(lowered):
        return False
    firsts = [tokens[0].text.upper() for tokens in _token_lists(script) if tokens]
    return "ATTACH" in firsts or "VACUUM" in firsts


def let_attach(connection: sqlite3.Connection, *, allowed: bool) -> None:
    """Have SQLite itself attach files, or refuse to."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, _MOST_ATTACHED if allowed else 0)


_MOST_ATTACHED = 125  # SQLite takes its own maximum, 10 unless it was compiled otherwise


def _token_lists(sql: str) -> Iterator[list[_Token]]:
    """Split a script at its semicolons; comments are left out."""
    statement: list[_Token] = []
    for match in _TOKEN.finditer(sql):
        if match.lastgroup == "end":
            yield statement
            statement = []
        elif match.lastgroup != "comment":
            statement.append(_Token(str(match.lastgroup), match.group(), match.start()))
    yield statement


def _attaches(tokens: list[_Token]) -> bool:
    return bool(tokens) and tokens[0].text.upper() == "ATTACH"


def _file_in(tokens: list[_Token]) -> _Token | None:
    """The token that names the file; None for an expression of several parts."""
    words = [token.text.upper() for token in tokens]
    at = 2 if words[1:2] == ["DATABASE"] else 1
    return tokens[at] if words[at + 1 : at + 2] == ["AS"] else None


def _value_of(token: _Token, parameters: Any) -> str | None:
    text = token.text
    if token.kind == "bound":
        return _bound(text, parameters)
    if token.kind == "name":
        return text[1:-1].replace(text[-1] * 2, text[-1])
    return text if token.kind == "word" and not text.isdigit() else None


def _bound(name: str, parameters: Any) -> str | None:
    try:
        value = parameters[name[1:]] if _by_name(parameters) else list(parameters)[_place(name)]
    except (LookupError, TypeError):
        return None
    return "" if value is None else os.fsdecode(value) if isinstance(value, bytes) else str(value)


def _with_value(name: str, parameters: Any, value: str) -> Any:
    if _by_name(parameters):
        return {**parameters, name[1:]: value}
    values = list(parameters)
    values[_place(name)] = value
    return values


def _by_name(parameters: Any) -> bool:
    return hasattr(parameters, "keys")


def _place(name: str) -> int:
    return int(name[1:]) - 1 if name[1:].isdigit() else 0
