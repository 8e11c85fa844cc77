"""How is code laid out, so that a formatter changes nothing in it?

Ruff's style, which is Black's, for any line length from 88 on: what fits into a line stands in one,
all else has an item a line, and a comma after the last.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

__all__ = ["Group", "comment", "in_triple_quotes", "laid_out", "quoted", "shown"]

_WIDTH = 88
_STEP = 4


@dataclass(frozen=True, slots=True)
class Group:
    """Items between brackets: a call, a list, a dict. ``is_long``: an item a line, always."""

    opening: str
    items: tuple[Group | str, ...]
    closing: str
    is_long: bool = False

    def __str__(self) -> str:
        return f"{self.opening}{', '.join(map(str, self.items))}{self.closing}"


def laid_out(node: Group | str, *, indent: int = 0, before: str = "", after: str = "") -> list[str]:
    """Return the lines of code for ``node``, with what stands before and after it."""
    line = f"{' ' * indent}{before}{node}{after}"
    if isinstance(node, str) or (not _is_long(node) and _width(line) <= _WIDTH):
        return [line]
    inside = [
        line for item in node.items for line in laid_out(item, indent=indent + _STEP, after=",")
    ]
    margin = " " * indent
    return [f"{margin}{before}{node.opening}", *inside, f"{margin}{node.closing}{after}"]


def _is_long(node: Group | str) -> bool:
    return isinstance(node, Group) and (node.is_long or any(map(_is_long, node.items)))


def _width(line: str) -> int:
    """In columns of a terminal, as formatters count."""
    return len(line) if line.isascii() else sum(map(_columns, line))


def _columns(letter: str) -> int:
    if letter.isascii():
        return 1
    if unicodedata.category(letter) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in {"W", "F"} else 1


def quoted(text: str) -> str:
    """Return a string literal: in double quotes, unless these would need more backslashes."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    escaped = text.replace("\\", r"\\").replace(quote, f"\\{quote}")
    return f"{quote}{shown(escaped)}{quote}"


def in_triple_quotes(text: str) -> str:
    """Return what stands for ``text`` between triple quotes, over as many lines as it has."""
    lines = (re.sub(r" $", r"\\x20", shown(line.replace("\\", r"\\"))) for line in text.split("\n"))
    return re.sub(r'"(?="")|"\Z', r"\"", "\n".join(lines))


def shown(text: str) -> str:
    """Return ``text`` with what cannot be seen written as an escape; it is one line then."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def comment(text: str, *, indent: int) -> str:
    """Return one line of comment, whatever stands in ``text``."""
    return f"{' ' * indent}# {shown(text).strip()}"
