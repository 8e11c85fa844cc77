"""Which files of the project does a build depend on, and have they changed since?"""

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
from itertools import accumulate, chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pytest_arena._config._load import is_library
from pytest_arena._process import hear

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType, ModuleType

    from pytest_arena._product import Manifest


def imported_by(start: Iterable[Path]) -> set[Path]:
    """Return the project's files that these files import, with themselves, as loaded now.

    Imports inside functions count, and modules whose whole name stands there as a text. Of a file
    that imports by computed names all modules of its package do.
    """
    found: set[Path] = set()
    waiting = [file.resolve() for file in start]
    loaded = [module for module in list(sys.modules.values()) if _project_file(module)]
    modules = {Path(str(module.__file__)).resolve(): module for module in loaded}
    while waiting:
        file = waiting.pop()
        if file not in found and file.is_file():
            found.add(file)
            waiting.extend(_imports_of(file, modules.get(file)))
    return found


def _project_file(module: Any) -> Path | None:
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return None
    top = str(getattr(module, "__name__", "")).partition(".")[0]
    return Path(file) if not is_library(file) or top in _installed_from_here() else None


@cache
def _installed_from_here() -> set[str]:
    """The packages that were installed from a local folder or file, as tox and nox install the app.

    https://packaging.python.org/en/latest/specifications/direct-url/
    """
    local = [
        one
        for one in distributions()
        if '"file:' in (one.read_text("direct_url.json") or "")
    ]
    files = [file for one in local for file in one.files or () if file.suffix == ".py"]
    return {file.parts[0].removesuffix(".py") for file in files} - {"pytest_arena"}


def _imports_of(file: Path, module: ModuleType | None) -> list[Path]:
    package = (module.__package__ or "") if module else ""
    nodes = list(ast.walk(_parsed(file)))
    names = {name for node in nodes for name in _named(node, package)}
    if package and any(_called(node) in _IMPORTERS for node in nodes):
        names.update(name for name in [*sys.modules] if name.startswith(f"{package}."))
    parts = (
        accumulate(name.split("."), "{}.{}".format) for name in names
    )  # packages, module
    files = [
        _project_file(sys.modules.get(name)) for name in set(chain.from_iterable(parts))
    ]
    return [file.resolve() for file in files if file]


_IMPORTERS = {"__import__", "import_module", "iter_modules", "walk_packages"}


def _called(node: ast.AST) -> object:
    return getattr(node, "attr", None) or getattr(node, "id", None)


def _parsed(file: Path) -> ast.AST:
    """Return the syntax tree of a file; an empty one where it is no Python."""
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module([], [])  # no Python: a migration's template, a script


def _named(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = (
            package.split(".")[: len(package.split(".")) - node.level + 1]
            if node.level
            else []
        )
        origin = ".".join([*base, *([node.module] if node.module else [])])
        yield origin
        yield from (f"{origin}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Constant) and node.value in sys.modules:
        yield str(node.value)


@dataclass(slots=True)
class Watch:
    """What was opened, written and listed during a build, as absolute paths."""

    own: Path | None  # the folder of the templates themselves, where they have one
    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    listed_by_project: set[str] = field(default_factory=set)
    # SQLite files that sqlite3 has opened, and their size and time at that moment.
    connected: dict[str, tuple[int, int]] = field(default_factory=dict)

    def files(self, root: Path) -> set[Path]:
        """Return the project's files that the build read and did not write itself.

        What it wrote (a log, a cache) would be another one each time.
        """
        only_read = {
            name for name, state in self.connected.items() if _state(name) == state
        }
        sources = {_source(name) for name in (self.read | only_read) - self.written}
        return {path for path in self._of_project(sources, root) if path.is_file()}

    def folders(self, root: Path) -> set[Path]:
        """Return the project's folders whose names the build has asked for."""
        return {path for path in self._of_project(self.listed, root) if path.is_dir()}

    def folders_of_project(self, root: Path) -> set[Path]:
        """Return those of them that the project itself has listed."""
        return self._of_project(self.listed_by_project, root)

    def _of_project(self, names: Iterable[str], root: Path) -> set[Path]:
        # The checkout around pytest's root folder: data files may stand beside that folder.
        root = root.resolve()
        marked = (
            folder for folder in (root, *root.parents) if (folder / ".git").exists()
        )
        top = next(marked, root)
        paths = {Path(name).resolve() for name in names if not is_library(name)}
        paths = {path for path in paths if path.is_relative_to(top)}
        if self.own:
            paths = {path for path in paths if not path.is_relative_to(self.own)}
        # Hidden folders are tools': .git, .venv, .pytest_cache. A hidden file may be an .env.
        return {
            p for p in paths if not any(map(_is_hidden, p.relative_to(top).parts[:-1]))
        }

    def add_imports(self, code: set[Path]) -> None:
        """Add what these files have opened and listed while they were imported."""
        for file, one in [*_at_import.items()]:
            if Path(file).resolve() in code:
                self.read |= one.read
                self.written |= one.written
                self.listed |= one.listed
                self.listed_by_project |= one.listed_by_project
                self.connected |= one.connected

    # What audit events tell: https://docs.python.org/3/library/audit_events.html

    def opened(self, name: object, mode: str | None, flags: int | None) -> None:
        """A file was opened."""
        if isinstance(name, str | bytes | os.PathLike):
            # os.open() has no mode, io.open() no flags worth a look.
            writes = set(mode) & set("wax+") if mode else (flags or 0) & _WRITES
            (self.written if writes else self.read).add(_absolute(name))

    def gone_through(self, name: object) -> None:
        """A folder was listed."""
        if not isinstance(name, int) and not _is_by_import():
            folder = _absolute(name or ".")
            self.listed.add(folder)
            if _is_by_project():
                self.listed_by_project.add(folder)

    def connected_to(self, name: object, *_: object) -> None:
        """sqlite3 opens a file, and tells its name alone."""
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
        """A file has got another name."""
        self.written.add(_absolute(new))


_WRITES = os.O_WRONLY | os.O_RDWR
_NOTES: dict[str, Callable[..., None]] = {
    "open": Watch.opened,
    "os.listdir": Watch.gone_through,
    "os.scandir": Watch.gone_through,
    "os.rename": Watch.renamed,
    "sqlite3.connect": Watch.connected_to,
}


def _state(file: str) -> tuple[int, int] | None:
    """Return what a write to a file changes, None if there is no such file."""
    try:
        found = os.stat(file)  # noqa: PTH116 - a hook must be quick
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def _is_hidden(name: str) -> bool:
    """Whether a file or folder is a tool's, or Python's own."""
    return name.startswith(".") or name == "__pycache__"


def _source(name: str) -> str:
    """A module that comes from its compiled file depends on its source."""
    with contextlib.suppress(ValueError):
        return importlib.util.source_from_cache(name) if name.endswith(".pyc") else name
    return name


@contextlib.contextmanager
def watching(own: Path | None) -> Iterator[Watch]:
    """Watch which files and folders are opened: a seed may read data files."""
    watch = Watch(own and own.resolve())
    end = hear({event: partial(note, watch) for event, note in _NOTES.items()})
    try:
        yield watch
    finally:
        end()


# What was opened while modules were imported, by their files.
_at_import: defaultdict[str, Watch] = defaultdict(partial(Watch, None))


def watch_imports() -> Callable[[], None]:
    """Know what modules open while they are imported: a seed may have its rows from there.

    Returns what ends that. Until then a file that is opened costs some microseconds.
    """

    def to_each(note: Callable[..., None]) -> Callable[..., None]:
        def heard(name: object, *more: object) -> None:
            if not (str(name).endswith((".py", ".pyc")) or _is_by_import()):
                for file in _being_imported():
                    note(_at_import[file], name, *more)

        return heard

    return hear({event: to_each(note) for event, note in _NOTES.items()})


def _being_imported() -> Iterator[str]:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to a caller
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            yield frame.f_code.co_filename
        frame = frame.f_back


def _is_by_import() -> bool:
    """Whether imports list a folder: each of sys.path, by which they mean nothing."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as above
    while frame is not None and frame.f_globals.get("__name__", "").startswith(
        "pytest_arena."
    ):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.startswith(
        "<frozen importlib"
    )


def _is_by_project() -> bool:
    """Whether the project lists a folder, and not a library for itself."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as above
    while frame is not None:
        file = frame.f_code.co_filename
        is_ours = frame.f_globals.get("__name__", "").startswith("pytest_arena.")
        if not (is_ours or file.startswith((_STANDARD_LIBRARY, "<frozen "))):
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
    """Return each file's digests by its path from the root: of its bytes, and of its code.

    The second one is blind to comments and white space.
    """
    return {_relative(file, root): _digests(file) for file in sorted(files)}


def _relative(path: Path, root: Path) -> str:
    # Both ends without links: a checkout behind a link is the same one.
    return Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()


def _digests(file: Path) -> list[str]:
    content = file.read_bytes()
    code = ast.dump(_parsed(file)).encode() if file.suffix == ".py" else content
    return [hashlib.sha256(part).hexdigest() for part in (content, code)]


def digest_folders(watch: Watch, root: Path) -> Digests:
    """Return the names in each folder that the build went through: a new file may be another row.

    If the build read files there, names like theirs count: other files come and go. If it read
    none, its rows may be of the names, and all names count. Subfolders count if it went into one.
    """
    folders = watch.folders(root)
    files = watch.files(root)
    by_project = watch.folders_of_project(root)
    digests = {}
    for folder in sorted(folders):
        kinds = {
            file.suffix for file in files if file.suffix and _near(file.parent, folder)
        }
        if folder in by_project and not _has_read_in(folder, files):
            kinds.add(_ALL)
        if any(other.parent == folder for other in folders):
            kinds.add("/")
        if kinds:
            names = _names(folder, sorted(kinds))
            digests[_relative(folder, root)] = [" ".join(sorted(kinds)), *names]
    return digests


_ALL = "*"


def _has_read_in(folder: Path, files: set[Path]) -> bool:
    return any(file.suffix and file.is_relative_to(folder) for file in files)


def _near(one: Path, other: Path) -> bool:
    """Whether one of them lies in the other, as those that ``rglob`` goes through do."""
    return one.is_relative_to(other) or other.is_relative_to(one)


def _names(folder: Path, kinds: list[str]) -> list[str]:
    entries = [entry for entry in folder.iterdir() if not _is_hidden(entry.name)]
    return sorted(
        entry.name
        for entry in entries
        if _ALL in kinds or entry.suffix in kinds or ("/" in kinds and entry.is_dir())
    )


def first_change(manifest: Manifest, root: Path) -> str:
    """Return what has changed first since a build, as a path from the root; "" if nothing has.

    A file has not if it has the same bytes, or at least the same code.
    """
    changed = (
        name for name, known in manifest.files.items() if not _same(root / name, *known)
    )
    folders = manifest.folders.items()
    added = (name for name, known in folders if not _same_names(root / name, *known))
    return next(changed, "") or next(added, "")


def _same(file: Path, content: str, code: str) -> bool:
    try:
        return (
            hashlib.sha256(file.read_bytes()).hexdigest() == content
            or _digests(file)[1] == code
        )
    except OSError:
        return False


def _same_names(folder: Path, kinds: str, *names: str) -> bool:
    try:
        return _names(folder, kinds.split(" ")) == list(names)
    except OSError:
        return False
