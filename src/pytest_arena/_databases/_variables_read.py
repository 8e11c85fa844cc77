"""Does a module of the project read a variable of ``arena_env``?

A Python program that a test starts then reads it, too, and finds a URL that leads nowhere.
"""

from __future__ import annotations

import ast
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from pytest_arena._config._load import is_library


def is_read(names: tuple[str, ...]) -> bool:
    """Return whether a module that is imported, and is no test, names one of these variables."""
    files = [
        getattr(module, "__file__", None) or "" for module in [*sys.modules.values()]
    ]
    return any(_may_read(file) and _reads(file, names) for file in files)


def _may_read(file: str) -> bool:
    name = Path(file).name
    return (
        name.endswith(".py")
        and not name.startswith(("test_", "conftest"))
        and not is_library(file)
    )


@lru_cache(maxsize=1000)
def _reads(file: str, names: tuple[str, ...]) -> bool:
    """Return whether a file has a name as a string, or as a field of settings (pydantic)."""
    with suppress(OSError, SyntaxError, ValueError):
        text = Path(file).read_text(encoding="utf-8")
        fields = {name.lower() for name in names}
        if not any(field in text.lower() for field in fields):
            return False
        has_prefix = (
            "env_prefix" in text
        )  # then a field reads a variable of another name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and node.value in names:
                return True
            if (
                isinstance(node, ast.ClassDef)
                and not has_prefix
                and fields & _fields_of(node)
            ):
                return True
    return False


def _fields_of(node: ast.ClassDef) -> set[str]:
    targets = [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
    return {target.id.lower() for target in targets if isinstance(target, ast.Name)}
