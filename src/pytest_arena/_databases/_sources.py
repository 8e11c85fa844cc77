"""Finds the files on which a build depends, and their changes."""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import distributions
from itertools import accumulate
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._config._load import is_library, package_of
from pytest_arena._databases._libraries import first_other_version
from pytest_arena._databases._watch import is_absent, is_hidden, relative
from pytest_arena._values import digest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from types import ModuleType

    from pytest_arena._databases._watch import Watch
    from pytest_arena._product import Manifest


@dataclass(slots=True)
class Imported:
    """The code of a build: files of the project, and the packages of libraries they import."""

    files: set[Path] = field(default_factory=set)
    packages: set[str] = field(default_factory=set)
    # Paths of missing modules that the files try to import.
    optional: set[str] = field(default_factory=set)


def imported_by(start: Iterable[Path]) -> Imported:
    """Return these files, and the loaded files and libraries that they import.

    Imports inside functions count, and modules whose whole name is a string in a file. If a file
    imports by computed names, all modules of its package count.
    """
    modules = {}
    for module in list(sys.modules.values()):
        path = _project_file(module)
        if path is not None:
            modules[path.resolve()] = module
    imported = Imported()
    waiting = [file.resolve() for file in start]
    while waiting:
        file = waiting.pop()
        if file in imported.files or not file.is_file():
            continue
        imported.files.add(file)
        imported.packages.add(package_of(str(file)))
        for name in _imports_of(file, modules.get(file)):
            path = _project_file(sys.modules.get(name))
            if path is not None:
                waiting.append(path.resolve())
            elif name in sys.modules:
                imported.packages.add(name.partition(".")[0])
            else:
                imported.optional.update(_possible_paths(name))
    return imported


def _possible_paths(name: str) -> Iterator[str]:
    parent, _, child = name.rpartition(".")
    package = sys.modules.get(parent)
    if hasattr(package, child):  # an attribute, not a module
        return
    folders = getattr(package, "__path__", ()) if parent else sys.path
    for folder in folders:
        path = os.path.join(os.path.abspath(folder), child)  # noqa: PTH100, PTH118 - of many names
        yield path
        yield f"{path}.py"


def _project_file(module: ModuleType | None) -> Path | None:
    """Return the file of a module of the project, None for a library's module."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return None
    name = str(getattr(module, "__name__", ""))
    package = name.partition(".")[0]
    if is_library(file) and package not in _installed_from_here():
        return None
    return Path(file)


@cache
def _installed_from_here() -> set[str]:
    """Return the packages installed from a local folder or file, as by tox and nox.

    https://packaging.python.org/en/latest/specifications/direct-url/
    """
    packages = set()
    for distribution in distributions():
        if '"file:' not in (distribution.read_text("direct_url.json") or ""):
            continue
        for file in distribution.files or ():
            if file.suffix == ".py":
                packages.add(file.parts[0].removesuffix(".py"))
    return packages - {"pytest_arena"}


def _imports_of(file: Path, module: ModuleType | None) -> set[str]:
    """Return the modules that a file imports or may import, and their packages."""
    package = ""
    if module is not None:
        package = module.__package__ or ""
    names: set[str] = set()
    imports_by_computed_names = False
    for node in ast.walk(_parsed(file)):
        names.update(_imported_names(node, package))
        called = getattr(node, "attr", None) or getattr(node, "id", None)
        if called in _IMPORTERS:
            imports_by_computed_names = True
    if package and imports_by_computed_names:
        for name in [*sys.modules]:
            if name.startswith(f"{package}."):
                names.add(name)
    with_packages: set[str] = set()
    for name in names:
        # `a`, `a.b` and `a.b.c` for `a.b.c`
        with_packages.update(accumulate(name.split("."), "{}.{}".format))
    return with_packages


_IMPORTERS = {"__import__", "import_module", "iter_modules", "walk_packages"}


def _parsed(file: Path) -> ast.AST:
    """Return the syntax tree of a file, an empty one for a migration's template or a script."""
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def _imported_names(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
    elif isinstance(node, ast.ImportFrom):
        parts = []
        if node.level:  # a relative import
            package_parts = package.split(".")
            number = len(package_parts) - node.level + 1
            parts = package_parts[:number]
        if node.module:
            parts.append(node.module)
        origin = ".".join(parts)
        yield origin
        for alias in node.names:
            yield f"{origin}.{alias.name}"
    elif isinstance(node, ast.Constant) and node.value in sys.modules:
        yield str(node.value)


Digests = dict[str, list[str]]
_EXISTS = "exists"
_LARGE = 4 * 1024 * 1024  # bytes. Reading them takes about 10 ms


def digest_files(files: Iterable[Path], watch: Watch, root: Path) -> Digests:
    """Return two digests of each file by its path from the root: of its bytes, and of its code.

    Comments and white space do not change the second one. A path that does not exist has no digest.
    A path whose existence the build only checked has the word "exists".
    """
    digests: Digests = {
        **{relative(path, root): [_EXISTS] for path in watch.present_paths(root)},
        **{relative(path, root): [] for path in watch.absent_paths(root)},
        **{relative(file, root): _digests(file) for file in files},
    }
    return dict(sorted(digests.items()))


def _digests(file: Path) -> list[str]:
    content = _digest(file)
    if file.suffix == ".py":
        return [content, _digest_of_code(file)]
    if file.stat().st_size > _LARGE:
        return [content, _size_and_time(file)]
    return [content, content]


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _digest_of_code(file: Path) -> str:
    return digest(ast.dump(_parsed(file)))


def _size_and_time(file: Path) -> str:
    """Return a text that changes with a large file, so that a run need not read the file."""
    status = file.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def digest_folders(files: set[Path], watch: Watch, root: Path) -> Digests:
    """Return the names in each folder that the build listed: a new file may add a row.

    If the build read files there, names with the suffixes of these files count. Otherwise all names
    count, because its rows may contain them. Subfolders count if the build listed one of them.
    """
    folders = watch.folders(root)
    by_project = watch.folders_of_project(root)
    parents = {folder.parent for folder in folders}
    digests = {}
    for folder in sorted(folders):
        kinds = set()
        has_read_below = False
        for file in filter(_has_suffix, files):
            is_below = file.is_relative_to(folder)
            if is_below:
                has_read_below = True
            # `rglob` lists folders inside folders.
            if is_below or folder.is_relative_to(file.parent):
                kinds.add(file.suffix)
        if folder in by_project and not has_read_below:
            kinds.add(_ALL)
        if folder in parents:
            kinds.add(_FOLDERS)
        if kinds:
            shown_kinds = " ".join(sorted(kinds))
            names = _names(folder, kinds)
            digests[relative(folder, root)] = [shown_kinds, *names]
    return digests


_FOLDERS = "/"  # subfolders count
_ALL = "*"  # each name counts
_has_suffix = attrgetter("suffix")


def _names(folder: Path, kinds: Collection[str]) -> list[str]:
    """Return the names in a folder with these suffixes or of these kinds."""
    names = []
    for entry in folder.iterdir():
        if is_hidden(entry.name):
            continue
        is_folder = _FOLDERS in kinds and entry.is_dir()
        if is_folder or _ALL in kinds or entry.suffix in kinds:
            names.append(entry.name)
    return sorted(names)


def first_change(manifest: Manifest, root: Path) -> str:
    """Describe the first file, folder or library that changed since a build, or return "".

    A file with the same bytes or the same code has not changed.
    """
    for name, digests in manifest.files.items():
        change = _change(root / name, digests)
        if change:
            return f"{name} {change}"
    for name, kinds_and_names in manifest.folders.items():
        if not _has_same_names(root / name, *kinds_and_names):
            return f"{name} has changed"
    return first_other_version(manifest.libraries)


def _change(path: Path, digests: list[str]) -> str:
    if is_absent(path):
        return "is missing" if digests else ""
    if not digests:
        return "exists now"
    if digests == [_EXISTS] or _is_unchanged(path, *digests):
        return ""
    return "has changed"


def _is_unchanged(file: Path, content: str, code: str) -> bool:
    try:
        if code == _size_and_time(file):
            return True
        if _digest(file) == content:
            return True
        return file.suffix == ".py" and _digest_of_code(file) == code
    except OSError:
        return False


def _has_same_names(folder: Path, kinds: str, *names: str) -> bool:
    try:
        return _names(folder, kinds.split(" ")) == list(names)
    except OSError:
        return False
