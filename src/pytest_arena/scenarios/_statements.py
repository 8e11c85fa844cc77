"""What stands in the line that asserts?"""

from __future__ import annotations

import ast
import functools
import linecache
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["statement", "text_at"]

_LONGEST = 30  # lines of one statement


def text_at(frame: FrameType) -> str:
    """Return what is asserted in the line of a frame; see `statement`."""
    return statement(frame.f_code.co_filename, frame.f_lineno)


@functools.cache
def statement(file: str, line: int) -> str:
    """Return what an ``assert`` that begins in this line asserts, without its message.

    Of another statement all of it. Costs some 3 µs of most, and up to 100 µs, once for each line.
    """
    first = text = linecache.getline(file, line).strip()
    if _is_plain(text):
        return text.removeprefix("assert ").strip()
    for number in range(line + 1, line + _LONGEST):
        if (found := _asserted(text)) is not None:
            return found
        text += f"\n{linecache.getline(file, number).rstrip()}"
    return first.rpartition("assert ")[2]  # of an `else: assert …`, which nobody can read alone


_TEXTS = re.compile(r'"[^"\\]*"|' + r"'[^'\\]*'")
# What may end an assertion before its line ends, or go on behind it.
_PARTS = re.compile(r"[,;#\\\"']")


def _is_plain(line: str) -> bool:
    """Whether an assertion without a message is all that stands there, and it is whole."""
    if not line.startswith("assert ") or line.startswith("assert ("):
        return False
    bare = _TEXTS.sub("", line)
    is_whole = all(bare.count(left) == bare.count(right) for left, right in ("()", "[]", "{}"))
    return is_whole and not _PARTS.search(bare)


def _asserted(text: str) -> str | None:
    """Return what is asserted in a statement; None where it is none, or goes on."""
    for whole in (text, f"{text} pass"):  # the head of a `with pytest.raises(…):`
        try:
            tree = ast.parse(whole)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        found = [one.test for one in ast.walk(tree) if isinstance(one, ast.Assert)]
        return "; ".join(ast.get_source_segment(whole, one) or "" for one in found) or text
    return None
