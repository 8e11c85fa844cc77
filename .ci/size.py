"""Fail if the source, the tests or the docs exceed the bounds in `.ci/size`, which only fall."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BOUNDS = Path(__file__).with_name("size")


def lines(folder: str) -> int:
    """Return the number of lines of Python and SQL below a folder."""
    files = [path for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".sql"}]
    return sum(path.read_bytes().count(b"\n") for path in files)


def nodes(folder: str) -> int:
    """Return the number of syntax nodes of the Python below a folder."""
    trees = [ast.parse(path.read_bytes()) for path in (ROOT / folder).rglob("*.py")]
    return sum(1 for tree in trees for _ in ast.walk(tree))


def words() -> int:
    """Return the number of words of the README and of the pages below docs/, with their code.

    A table that a command writes has no prose.
    """
    generated = re.compile("<!-- written by .*?<!-- to here -->", re.DOTALL)
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    texts = [generated.sub("", page.read_text(encoding="utf-8")) for page in pages]
    return sum(len(text.split()) for text in texts)


def main() -> int:
    """Compare each figure with its bound."""
    figures = {
        "lines of source": lines("src"),
        "syntax nodes of source": nodes("src"),
        "lines of tests": lines("tests"),
        "words of docs": words(),
    }
    status = 0
    for row in BOUNDS.read_text(encoding="utf-8").splitlines():
        bound, _, name = row.partition(" ")
        print(f"{name}: {figures[name]} (at most {bound})")
        if figures[name] > int(bound):
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
