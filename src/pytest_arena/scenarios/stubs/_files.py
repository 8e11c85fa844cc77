"""Into which file does a feature's test go, when some are there already and none is changed?"""

from __future__ import annotations

import ast
import io
import tokenize
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

__all__ = ["Place", "StubFile", "find_place"]


@dataclass(frozen=True, slots=True)
class StubFile:
    """What is to be written: a new file, or what comes after the end of one that is there."""

    path: Path
    text: str
    tests: int
    is_new: bool

    def write(self) -> None:
        """Write it. No byte that is there is changed.

        Raises:
            OSError: the file cannot be written, or has come into being in the meantime.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        mode = "x" if self.is_new else "a"
        with self.path.open(mode, encoding="utf-8", newline="") as file:
            file.write(self.text)


@dataclass(frozen=True, slots=True)
class Place:
    """A file that tests can go to: which names it has already, and how it ends."""

    path: Path
    is_new: bool = True
    text: str = ""
    names: frozenset[str] = frozenset()

    @property
    def newline(self) -> str:
        """What ends its lines."""
        return "\r\n" if "\r\n" in self.text else "\n"

    @property
    def gap(self) -> str:
        """What has to come before a test, for two empty lines to be between."""
        if not self.text:
            return ""
        ended = self.text.replace("\r\n", "\n")
        return "\n" * max(0, 3 - (len(ended) - len(ended.rstrip("\n"))))


def find_place(folder: Path, name: str, *, elsewhere: Collection[str]) -> Place:
    """Return ``test_<name>.py``, or with the first number at which it can be had.

    A file can be had that is not there, or that is Python in UTF-8 and imports pytest. Names
    that are ``elsewhere`` cannot, where Python would take two modules of one name for the same.
    """
    is_package = (folder / "__init__.py").exists()
    for number in count(1):
        path = folder / (f"test_{name}.py" if number == 1 else f"test_{name}_{number}.py")
        place = _place(path)
        if place is not None and (is_package or path.name not in elsewhere):
            return place
    raise AssertionError("unreachable: numbers have no end")


def _place(path: Path) -> Place | None:
    if not path.exists():
        return Place(path)
    try:
        text = _utf8(path.read_bytes())
        tree = ast.parse(text)
    except (OSError, ValueError, SyntaxError):
        return None
    imported = _imported(tree)
    if text and "pytest" not in imported:
        return None
    return Place(path, is_new=False, text=text, names=imported | _defined(tree))


def _utf8(code: bytes) -> str:
    """The text of a file, which says nothing of another encoding."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(code).readline)
    if encoding != "utf-8":  # a BOM is another one: nothing can come after its text unseen
        raise UnicodeError(encoding)
    return code.decode()


def _imported(tree: ast.Module) -> frozenset[str]:
    """Names of the modules that a module imports by their own names."""
    imports = (node for node in tree.body if isinstance(node, ast.Import))
    return frozenset(one.name for node in imports for one in node.names if one.asname is None)


def _defined(tree: ast.Module) -> frozenset[str]:
    """All names that a module gives to anything, as those of its functions are no more free."""
    named = (
        getattr(node, "asname", None) or getattr(node, "name", None) or getattr(node, "id", None)
        for node in ast.walk(tree)
    )
    return frozenset(name for name in named if isinstance(name, str))
