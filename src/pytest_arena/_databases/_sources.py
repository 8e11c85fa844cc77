"""Finds the files of the project on which a build depends, and notices their changes."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import os
import stat
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import distributions
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pytest_arena._config._load import is_library
from pytest_arena._process import on_audit_events

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from types import FrameType, ModuleType

    from pytest_arena._product import Manifest


def imported_by(start: Iterable[Path]) -> set[Path]:
    """Return these files and the project's files that they import, as loaded now.

    Imports inside functions count, and modules whose whole name is a string in a file. If a file
    imports by computed names, all modules of its package count.
    """
    modules = {}
    for module in list(sys.modules.values()):
        path = _project_file(module)
        if path is not None:
            modules[path.resolve()] = module
    imported: set[Path] = set()
    waiting = [file.resolve() for file in start]
    while waiting:
        file = waiting.pop()
        if file not in imported and file.is_file():
            imported.add(file)
            waiting.extend(_imports_of(file, modules.get(file)))
    return imported


def _project_file(module: ModuleType | None) -> Path | None:
    """Return the file of a module of the project, None for a library's module."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return None
    package = str(getattr(module, "__name__", "")).partition(".")[0]
    if is_library(file) and package not in _installed_from_here():
        return None
    return Path(file)


@cache
def _installed_from_here() -> set[str]:
    """Return the packages installed from a local folder or file, as tox and nox install the app.

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


def _imports_of(file: Path, module: ModuleType | None) -> list[Path]:
    package = ""
    if module is not None:
        package = module.__package__ or ""
    names: set[str] = set()
    imports_by_computed_names = False
    for node in ast.walk(_parsed(file)):
        names.update(_imported_names(node, package))
        if _called(node) in _IMPORTERS:
            imports_by_computed_names = True
    if package and imports_by_computed_names:
        names.update(name for name in [*sys.modules] if name.startswith(f"{package}."))
    files = {
        _project_file(sys.modules.get(module_name))
        for name in names
        for module_name in _with_packages(name)
    }
    return [path.resolve() for path in files if path is not None]


_IMPORTERS = {"__import__", "import_module", "iter_modules", "walk_packages"}


def _with_packages(name: str) -> Iterator[str]:
    """Yield `a`, `a.b` and `a.b.c` for `a.b.c`."""
    return accumulate(name.split("."), "{}.{}".format)


def _called(node: ast.AST) -> object:
    return getattr(node, "attr", None) or getattr(node, "id", None)


def _parsed(file: Path) -> ast.AST:
    """Return the syntax tree of a file. It is empty for a migration's template or a script."""
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
        if node.level:
            parts = package.split(".")
            parts = parts[: len(parts) - node.level + 1]
        if node.module:
            parts.append(node.module)
        origin = ".".join(parts)
        yield origin
        for alias in node.names:
            yield f"{origin}.{alias.name}"
    elif isinstance(node, ast.Constant) and node.value in sys.modules:
        yield str(node.value)


@dataclass(slots=True)
class Watch:
    """The files and folders that a build opened, wrote and listed, as absolute paths."""

    own: Path | None  # the folder of the templates, if they are files
    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    listed_by_project: set[str] = field(default_factory=set)
    # SQLite files that sqlite3 has opened, and their size and time at that moment.
    connected: dict[str, tuple[int, int]] = field(default_factory=dict)

    def files(self, root: Path) -> set[Path]:
        """Return the project's files that the build only read.

        A file that it wrote (a log, a cache) would be different each time.
        """
        names = self.read.copy()
        for name, state in self.connected.items():
            if _state(name) == state:
                names.add(name)
        sources = {_source(name) for name in names - self.written}
        return {path for path in self._of_project(sources, root) if path.is_file()}

    def folders(self, root: Path) -> set[Path]:
        """Return the project's folders that the build listed."""
        return {path for path in self._of_project(self.listed, root) if path.is_dir()}

    def folders_of_project(self, root: Path) -> set[Path]:
        """Return the folders that the project's code listed, not a library."""
        return self._of_project(self.listed_by_project, root)

    def _of_project(self, names: Iterable[str], root: Path) -> set[Path]:
        top = _checkout(root.resolve())
        paths = set()
        for name in names:
            if is_library(name):
                continue
            path = Path(name).resolve()
            if not path.is_relative_to(top):
                continue
            if self.own and path.is_relative_to(self.own):
                continue
            # Hidden folders are tools': .git, .venv, .pytest_cache. A hidden file may be an .env.
            folders = path.relative_to(top).parts[:-1]
            if not any(map(_is_hidden, folders)):
                paths.add(path)
        return paths

    def add_imports(self, code: set[Path]) -> None:
        """Add what these files opened and listed while they were imported."""
        for file, watch in [*_at_import.items()]:
            if Path(file).resolve() in code:
                self.read |= watch.read
                self.written |= watch.written
                self.listed |= watch.listed
                self.listed_by_project |= watch.listed_by_project
                self.connected |= watch.connected

    # The arguments of audit events: https://docs.python.org/3/library/audit_events.html

    def opened(self, name: object, mode: str | None, flags: int | None) -> None:
        """Record that a file was opened."""
        if not isinstance(name, str | bytes | os.PathLike):
            return
        # os.open() has no mode. The flags of io.open() are of no use.
        is_written = bool((flags or 0) & _WRITES)
        if mode:
            is_written = not _WRITE_MODES.isdisjoint(mode)
        if is_written:
            self.written.add(_absolute(name))
        else:
            self.read.add(_absolute(name))

    def folder_listed(self, name: object) -> None:
        """Record that a folder was listed."""
        if isinstance(name, int) or _is_by_import():
            return
        folder = _absolute(name or ".")
        self.listed.add(folder)
        if _is_by_project():
            self.listed_by_project.add(folder)

    def connected_to(self, name: object, *_: object) -> None:
        """Record that sqlite3 opens a file. The event has only its name."""
        if not isinstance(name, str | bytes | os.PathLike):
            return
        path = os.fsdecode(name)
        if path.startswith("file:"):  # a URI
            path = unquote(urlsplit(path).path)
        file = _absolute(path)
        state = _state(file)
        if state is not None:
            self.connected.setdefault(file, state)

    def renamed(self, _old: object, new: object, *_: object) -> None:
        """Record that a file has got another name."""
        self.written.add(_absolute(new))


def _checkout(root: Path) -> Path:
    """Return the checkout around pytest's root folder: data files may be outside the root."""
    for folder in (root, *root.parents):
        if (folder / ".git").exists():
            return folder
    return root


_WRITE_MODES = set("wax+")
_WRITES = os.O_WRONLY | os.O_RDWR
_EVENTS: dict[str, Callable[..., None]] = {
    "open": Watch.opened,
    "os.listdir": Watch.folder_listed,
    "os.scandir": Watch.folder_listed,
    "os.rename": Watch.renamed,
    "sqlite3.connect": Watch.connected_to,
}


def _state(file: str) -> tuple[int, int] | None:
    """Return the size and time of a file, None if there is no such file."""
    try:
        status = os.stat(file)  # noqa: PTH116 - a hook must be quick
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_size, status.st_mtime_ns


def _is_hidden(name: str) -> bool:
    """Whether a file or folder belongs to a tool or to Python."""
    return name.startswith(".") or name == "__pycache__"


def _source(name: str) -> str:
    """Return the source of a compiled module, and the name of any other file."""
    if name.endswith(".pyc"):
        with contextlib.suppress(ValueError):
            return importlib.util.source_from_cache(name)
    return name


@contextlib.contextmanager
def watching(own: Path | None) -> Iterator[Watch]:
    """Record the files and folders that a block opens: a seed may read data files."""
    watch = Watch(own and own.resolve())
    end = on_audit_events(
        {event: partial(record, watch) for event, record in _EVENTS.items()}
    )
    try:
        yield watch
    finally:
        end()


# The files and folders that were opened while modules were imported, by the modules' files.
_at_import: defaultdict[str, Watch] = defaultdict(partial(Watch, None))


def watch_imports() -> Callable[[], None]:
    """Record the files that modules open while they are imported: a seed may use their rows.

    Returns a function that ends the recording. Until then an opened file costs some microseconds.
    """

    def for_each_module(record: Callable[..., None]) -> Callable[..., None]:
        def listener(name: object, *more: object) -> None:
            if not (str(name).endswith((".py", ".pyc")) or _is_by_import()):
                for file in _being_imported():
                    record(_at_import[file], name, *more)

        return listener

    return on_audit_events(
        {event: for_each_module(record) for event, record in _EVENTS.items()}
    )


def _being_imported() -> Iterator[str]:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to a caller
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            yield frame.f_code.co_filename
        frame = frame.f_back


def _is_by_import() -> bool:
    """Whether an import lists a folder of sys.path: no file is read by its name."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - see above
    while frame is not None and _is_ours(frame):
        frame = frame.f_back
    if frame is None:
        return False
    return frame.f_code.co_filename.startswith("<frozen importlib")


def _is_ours(frame: FrameType) -> bool:
    name: str = frame.f_globals.get("__name__", "")
    return name.startswith("pytest_arena.")


def _is_by_project() -> bool:
    """Whether the project's code lists a folder, not a library."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - see above
    while frame is not None:
        file = frame.f_code.co_filename
        is_python = file.startswith((_STANDARD_LIBRARY, "<frozen "))
        if not is_python and not _is_ours(frame):
            return not is_library(file)
        if "importlib" in file:  # the names of packages
            return False
        frame = frame.f_back
    return False


_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120 - of many frames


def _absolute(name: Any) -> str:
    # At once: the build may change the working folder.
    return os.path.abspath(os.fsdecode(name))  # noqa: PTH100 - a hook must be quick


Digests = dict[str, list[str]]


def digest_files(files: Iterable[Path], root: Path) -> Digests:
    """Return two digests of each file by its path from the root: of its bytes, and of its code.

    The second one does not change with comments and white space.
    """
    return {_relative(file, root): _digests(file) for file in sorted(files)}


def _relative(path: Path, root: Path) -> str:
    # Without links: a checkout behind a link is the same one.
    return Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()


def _digests(file: Path) -> list[str]:
    content = file.read_bytes()
    code = content
    if file.suffix == ".py":
        code = ast.dump(_parsed(file)).encode()
    return [hashlib.sha256(part).hexdigest() for part in (content, code)]


def digest_folders(watch: Watch, root: Path) -> Digests:
    """Return the names in each folder that the build listed: a new file may be another row.

    If the build read files there, names with the same suffix count. If it read none, its rows may
    be the names, and all names count. Subfolders count if the build listed one of them.
    """
    folders = watch.folders(root)
    files = watch.files(root)
    by_project = watch.folders_of_project(root)
    parents = {folder.parent for folder in folders}
    digests = {}
    for folder in sorted(folders):
        kinds = {
            file.suffix for file in files if file.suffix and _near(file.parent, folder)
        }
        if folder in by_project and not _has_read_in(folder, files):
            kinds.add(_ALL)
        if folder in parents:
            kinds.add(_FOLDERS)
        if kinds:
            names = _names(folder, kinds)
            digests[_relative(folder, root)] = [" ".join(sorted(kinds)), *names]
    return digests


_FOLDERS = "/"
_ALL = "*"


def _has_read_in(folder: Path, files: set[Path]) -> bool:
    return any(file.suffix and file.is_relative_to(folder) for file in files)


def _near(folder: Path, other: Path) -> bool:
    """Whether one of them is inside the other: ``rglob`` lists folders inside folders."""
    return folder.is_relative_to(other) or other.is_relative_to(folder)


def _names(folder: Path, kinds: Collection[str]) -> list[str]:
    names = []
    for entry in folder.iterdir():
        if _is_hidden(entry.name):
            continue
        is_folder_that_counts = _FOLDERS in kinds and entry.is_dir()
        if _ALL in kinds or entry.suffix in kinds or is_folder_that_counts:
            names.append(entry.name)
    return sorted(names)


def first_change(manifest: Manifest, root: Path) -> str:
    """Return the first file or folder that changed since a build, by its path from the root; or "".

    A file with the same bytes, or at least the same code, has not changed.
    """
    for name, digests in manifest.files.items():
        if not _is_unchanged(root / name, *digests):
            return name
    for name, kinds_and_names in manifest.folders.items():
        if not _has_same_names(root / name, *kinds_and_names):
            return name
    return ""


def _is_unchanged(file: Path, content: str, code: str) -> bool:
    try:
        if hashlib.sha256(file.read_bytes()).hexdigest() == content:
            return True
        return _digests(file)[1] == code
    except OSError:
        return False


def _has_same_names(folder: Path, kinds: str, *names: str) -> bool:
    try:
        return _names(folder, kinds.split(" ")) == list(names)
    except OSError:
        return False
