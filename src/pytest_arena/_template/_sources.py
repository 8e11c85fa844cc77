"""Which files of the project does a build depend on, and have they changed since?"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena._load import is_library

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

__all__ = ["digest_files", "imported_by", "opened_files", "unchanged"]

Digests = dict[str, list[str]]


def imported_by(start: Iterable[Path]) -> set[Path]:
    """Return the project's files that these files import, with themselves, as loaded now.

    Imports inside functions count; a module that is imported by a computed name does not, unless
    the build itself loaded it.
    """
    found: set[Path] = set()
    waiting = [file.resolve() for file in start]
    modules = _modules_by_file()
    while waiting:
        file = waiting.pop()
        if file not in found and file.is_file():
            found.add(file)
            waiting.extend(_imports_of(file, modules.get(file)))
    return found


def _modules_by_file() -> dict[Path, ModuleType]:
    modules = [module for module in list(sys.modules.values()) if _project_file(module)]
    return {Path(str(module.__file__)).resolve(): module for module in modules}


def _project_file(module: Any) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file) if isinstance(file, str) and not is_library(file) else None


def _imports_of(file: Path, module: ModuleType | None) -> list[Path]:
    package = (module.__package__ or "") if module else ""
    names = {name for node in ast.walk(_parsed(file)) for name in _named(node, package)}
    with_parents = {name[: i or None] for name in names for i in _dots(name)}
    files = [_project_file(sys.modules.get(name)) for name in with_parents]
    return [file.resolve() for file in files if file]


def _dots(name: str) -> list[int]:
    """The ends of the packages that are loaded on the way to a module; 0 is its own end."""
    return [0, *(index for index, letter in enumerate(name) if letter == ".")]


def _parsed(file: Path) -> ast.AST:
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module([], [])  # no Python: a migration's template, a script


def _named(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        origin = ".".join([*base, *([node.module] if node.module else [])])
        yield origin
        yield from (f"{origin}.{alias.name}" for alias in node.names)


def digest_files(files: Iterable[Path], root: Path) -> Digests:
    """Return each file's digests by its path from the root: of its bytes, and of its code.

    The second one is blind to comments and white space.
    """
    return {os.path.relpath(file, root): _digests(file) for file in sorted(files)}


def _digests(file: Path) -> list[str]:
    content = file.read_bytes()
    code = ast.dump(_parsed(file)).encode() if file.suffix == ".py" else content
    return [hashlib.sha256(part).hexdigest() for part in (content, code)]


def unchanged(digests: Digests, root: Path) -> bool:
    """Whether every file still has the bytes, or at least the code, that it had."""
    return all(_same(root / name, *known) for name, known in digests.items())


def _same(file: Path, content: str, code: str) -> bool:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest() == content or _digests(file)[1] == code
    except OSError:
        return False


_recording: list[set[str]] = []
_WRITES = os.O_WRONLY | os.O_RDWR


@contextlib.contextmanager
def opened_files() -> Iterator[set[str]]:
    """Collect the names of the files that are opened for reading: a seed may read data files."""
    if not _hook_is_set():
        sys.addaudithook(_note_opened)
    names: set[str] = set()
    _recording.append(names)
    try:
        yield names
    finally:
        _recording.remove(names)


_hooks: list[bool] = []


def _hook_is_set() -> bool:
    # A hook can never be taken back, so that there is one, set by the first build of a process.
    _hooks.append(True)
    return len(_hooks) > 1


def _note_opened(event: str, args: tuple[Any, ...]) -> None:
    if event != "open" or not _recording or not isinstance(args[0], str | os.PathLike):
        return
    _, mode, flags = args
    reads = not set(mode or "") & set("wax+") and not (mode is None and (flags or 0) & _WRITES)
    if reads:
        _recording[-1].add(os.fspath(args[0]))


def project_files(names: Iterable[str], root: Path) -> set[Path]:
    """Return those of the opened files that belong to the project and are no caches."""
    files = {Path(name).absolute() for name in names if not is_library(name)}
    return {
        file
        for file in files
        if file.is_relative_to(root) and file.is_file() and "__pycache__" not in file.parts
    }
