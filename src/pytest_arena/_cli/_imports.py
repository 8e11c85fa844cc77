"""The imports of a parsed file."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def imported_names(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, str]]:
    """Yield each imported name with its origin: ``module.name``, or ``.module.name``."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            prefix = "." * node.level
            if node.module:
                prefix += f"{node.module}."
            for alias in node.names:
                yield alias.asname or alias.name, prefix + alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                package = alias.name.partition(".")[0]  # `import a.b` binds `a`
                yield alias.asname or package, alias.name if alias.asname else package


def imported_paths(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the dotted path of each import: ``module.name``, ``.module.name`` or ``module``."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            for _, path in imported_names([node]):
                yield path
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name


def absolute(module: str, package: str) -> str:
    """Return the full name of a module. ``package`` resolves the dots of a relative import."""
    name = module.lstrip(".")
    level = len(module) - len(name)
    if not level:
        return module
    for _ in range(level - 1):
        package = package.rpartition(".")[0]
    return f"{package}.{name}"
