"""Has a test's own code changed?"""

from __future__ import annotations

import ast
import inspect
from hashlib import blake2b
from pathlib import Path
from typing import Any

__all__ = ["Sources"]

_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Sources:
    """The hashes of tests' code: each file is read and parsed once."""

    def __init__(self) -> None:
        self._files: dict[str, dict[int, _Function]] = {}

    def of(self, item: Any) -> str:
        """Return the hash of what a test does, ``1:9f3c01aa``; "" where its code is not to be had.

        Blind to its name, decorators, annotations, docstring, comments and layout.
        """
        code = getattr(_own_function(item), "__code__", None)
        if code is None:
            return ""
        node = self._functions(code.co_filename).get(code.co_firstlineno)
        return "" if node is None else f"1:{_hash(node)}"

    def _functions(self, file: str) -> dict[int, _Function]:
        if file not in self._files:
            self._files[file] = dict(_read(file))
        return self._files[file]


def _own_function(item: Any) -> Any:
    function = getattr(item, "function", None)
    given = getattr(function, "hypothesis", None)  # by its @given, in another function's place
    return inspect.unwrap(given.inner_test if given else function)  # type: ignore[arg-type]  # None is its own


def _read(file: str) -> list[tuple[int, _Function]]:
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    found = [node for node in ast.walk(tree) if isinstance(node, _Function)]
    # A function's code begins at the first of its decorators.
    return [
        (min([node.lineno, *(one.lineno for one in node.decorator_list)]), node) for node in found
    ]


def _hash(node: _Function) -> str:
    body = node.body
    if ast.get_docstring(node, clean=False) is not None:
        body = body[1:]
    text = "\n".join(map(ast.dump, body))
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
