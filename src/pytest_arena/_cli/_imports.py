"""The files of a project, and their imports."""

import ast
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

_TOOL_FOLDER = re.compile(
    r"\.|(node_modules|site-packages|__pycache__|build|dist|venv|env)$"
)


def parsed(text: str) -> ast.Module:
    """Parse a text without warnings, such as about an invalid escape sequence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder in a fixed order. Folders of tools are skipped."""
    for path, folders, names in os.walk(folder):
        if "pyvenv.cfg" in names:
            folders.clear()  # os.walk skips the folders that are removed from its list
            continue
        kept = [name for name in folders if not _TOOL_FOLDER.match(name)]
        folders[:] = sorted(kept)
        for name in sorted(names):
            yield Path(path, name)


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
                origin = alias.name if alias.asname else package
                yield alias.asname or package, origin


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
