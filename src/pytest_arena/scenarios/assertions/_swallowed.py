"""Finds code that catches a failed assertion and hides the failure."""

import ast
import re
from types import FrameType

from pytest_arena._config._load import is_library
from pytest_arena.scenarios.assertions._test_files import function_of

_CATCHES = re.compile(
    r"except(?::|.*\b(?:AssertionError|Exception|BaseException)\b)"
    r"|(?:async )?with .*(?:[rR]aises|suppress)\w*\("
)
# The handler only passes, waits or prints.
_SWALLOWS = re.compile(
    r"(?:async )?with .*suppress"
    r"|except.*:(?:\n\s+(?:pass|\.\.\.|continue|break|return(?: None)?|(?:print|log\w*\.\w+)\(.*"
    r"|await .*|\w*\.?sleep\(.*))+$",
    re.IGNORECASE,
)


def is_swallowed(frame: FrameType | None) -> bool:
    """Return whether the innermost handler of a failed assertion ignores the failure.

    ``contextlib.suppress`` ignores it. An ``except`` ignores it if it only passes, waits or prints.
    If no code of the project catches the failure, it counts as ignored.
    """
    while frame is not None:
        file = frame.f_code.co_filename
        function = None if is_library(file) else function_of(frame.f_code)
        texts: list[str] = []
        for node in ast.walk(function) if function else ():
            if not isinstance(node, ast.Try | ast.With | ast.AsyncWith):
                continue
            last = node.body[-1].end_lineno or 0
            if node.body[0].lineno <= frame.f_lineno <= last:
                handlers = map(ast.unparse, getattr(node, "handlers", [node]))
                # Python runs the first matching handler.
                texts += list(filter(_CATCHES.match, handlers))[:1]
        if texts:
            return _SWALLOWS.match(texts[-1]) is not None
        frame = frame.f_back
    return True
