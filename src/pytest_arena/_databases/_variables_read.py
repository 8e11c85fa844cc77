"""Finds out whether the project reads a variable of ``arena_env``.

A Python program that a test starts then reads it too, and gets a redirected URL.
"""

from __future__ import annotations

import ast
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING

from pytest_arena._config._load import project_modules

if TYPE_CHECKING:
    from pathlib import Path


def is_read(names: tuple[str, ...]) -> bool:
    """Return whether an imported module names one of these variables. Tests do not count."""
    for _, file in project_modules():
        is_of_tests = file.name.startswith(("test_", "conftest"))
        if file.suffix == ".py" and not is_of_tests and _reads(file, names):
            return True
    return False


@lru_cache(maxsize=1000)
def _reads(file: Path, names: tuple[str, ...]) -> bool:
    """Return whether a file has a name as a string, or as a field of pydantic's settings."""
    with suppress(OSError, SyntaxError, ValueError):
        text = file.read_text(encoding="utf-8")
        fields = {name.lower() for name in names}
        if not any(field in text.lower() for field in fields):
            return False
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and node.value in names:
                return True
            # With a prefix, a field reads a variable of another name.
            if (
                isinstance(node, ast.ClassDef)
                and "env_prefix" not in text
                and fields & _fields_of(node)
            ):
                return True
    return False


def _fields_of(node: ast.ClassDef) -> set[str]:
    names = set()
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(
            statement.target, ast.Name
        ):
            names.add(statement.target.id.lower())
    return names
