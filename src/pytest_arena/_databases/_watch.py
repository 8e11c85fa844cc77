"""Records which files a build uses, and which modules and containers it changes."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import stat
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import unquote, urlsplit

from pytest_arena._config._load import is_library, project_modules
from pytest_arena._config._supported import FILE_FORMAT
from pytest_arena._gate._listeners import CHILD_EVENTS, child_of_event
from pytest_arena._interpreter import on_audit_events
from pytest_arena._origin import is_own
from pytest_arena._process import on_stat
from pytest_arena._values import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

    from pytest_arena._values import Child

_State = tuple[int, int]  # the size and the time of a file
_DatabaseState = tuple[_State, _State | None]  # of a SQLite file, and of its log


@dataclass(slots=True)
class Watch:
    """The files that a build read, wrote and listed, by absolute paths."""

    templates: Path | None = None  # the folder of the templates, if they are files
    began: float = 0.0  # the start of the build, by the clock of the file system
    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    listed_by_project: set[str] = field(default_factory=set)
    # These paths did not exist when the build opened, listed or checked them.
    absent: set[str] = field(default_factory=set)
    # The project's code checked whether these paths exist, and they did.
    present: set[str] = field(default_factory=set)
    # SQLite files, with the states of the file and of its log when the build opened it.
    databases: dict[str, _DatabaseState] = field(default_factory=dict)
    # Files in the arguments of child processes, with their states at the start of the child.
    arguments: dict[str, _State] = field(default_factory=dict)

    def files(self, root: Path) -> set[Path]:
        """Return the files that the build read and did not write.

        Each build may write different bytes, for example into a log or a cache.
        """
        names = self.read.copy()
        for name, states in self.databases.items():
            names.update(_unwritten_of_database(name, *states))
        top = _checkout(root.resolve())
        for name, state in self.arguments.items():
            is_program = os.access(name, os.X_OK) and not _is_inside(name, top)
            if _state(name) == state and not is_program:
                names.add(name)
        sources = map(_source, names - self.written)
        files = set()
        for path in self._relevant(sources, root):
            if not path.is_file():
                continue
            # Skip a newer file outside the checkout, which a child may have written.
            if _is_inside(path, top) or path.stat().st_mtime <= self.began:
                files.add(path)
        return files

    def folders(self, root: Path) -> set[Path]:
        """Return the folders that the build listed.

        A folder that only a library listed counts if it is in the checkout.
        """
        top = _checkout(root.resolve())
        by_project = self.folders_of_project(root)
        folders = set()
        for path in self._relevant(self.listed, root):
            is_relevant = path in by_project or _is_inside(path, top)
            if is_relevant and path.is_dir():
                folders.add(path)
        return folders

    def folders_of_project(self, root: Path) -> set[Path]:
        """Return the folders that the project's code listed, not a library."""
        return self._relevant(self.listed_by_project, root)

    def absent_paths(self, root: Path) -> set[Path]:
        """Return the paths that the build did not find and that still do not exist."""
        names = self.absent - self.present - self.written
        for name, (_, side_file) in self.databases.items():
            if side_file is None:
                names.add(f"{name}{WAL}")
        return set(filter(is_absent, self._relevant(names, root)))

    def present_paths(self, root: Path) -> set[Path]:
        """Return the paths whose existence the build only checked."""
        names = self.present - self.absent - self.written
        return {path for path in self._relevant(names, root) if path.exists()}

    def _relevant(self, names: Iterable[str], root: Path) -> set[Path]:
        """Return the paths whose content may have an effect on the template."""
        top = _checkout(root.resolve())
        paths = set()
        for name in names:
            if is_library(name) or is_library(name + os.sep):
                continue
            path = Path(name).resolve()
            if self.templates and _is_inside(path, self.templates):
                continue
            is_of_system = path.as_posix().startswith(_OF_SYSTEM)
            if is_of_system and not _is_inside(path, top):
                continue
            base = path.anchor
            for folder in (top.parent, top):
                if _is_inside(path, folder):
                    base = str(folder)
            # Skip hidden folders of tools: .git, .venv, .pytest_cache. A hidden file may be .env.
            folders = path.relative_to(base).parts[:-1]
            if not any(map(is_hidden, folders)):
                paths.add(path)
        return paths

    def add_imports(self, code: set[Path], optional: set[str]) -> None:
        """Add the accesses of these files during their import.

        ``optional`` are the paths of missing modules.
        """
        self.absent |= optional
        for file, watch in [*_at_import.items()]:
            if Path(file).resolve() in code:
                for name in _RECORDS:
                    getattr(self, name).update(getattr(watch, name))

    # The arguments of audit events: https://docs.python.org/3/library/audit_events.html

    def opened(self, name: object, mode: str | None, flags: int | None) -> None:
        """Record that a file was opened."""
        if not _is_path(name) or _is_by_arena():
            return
        file = _absolute(name)
        # os.open() has no mode. The flags of io.open() have no meaning.
        is_written = bool((flags or 0) & _WRITES)
        if mode:
            is_written = not _WRITE_MODES.isdisjoint(mode)
        if is_written:
            self.written.add(file)
        elif os.access(file, os.F_OK):
            self.read.add(file)
        elif not file.endswith(".pyc"):
            self.absent.add(file)

    def path_checked(self, name: object, *, exists: bool) -> None:
        """Record that code checked a path by ``os.stat``."""
        if not _is_path(name) or _is_by_arena():
            return
        path = _absolute(name)
        if "<" in path:  # generated code, which linecache looks for
            return
        if not exists:
            self.absent.add(path)
        elif _is_by_project():
            self.present.add(path)

    def folder_listed(self, name: object) -> None:
        """Record that a folder was listed."""
        if isinstance(name, int) or _is_by_import():
            return
        folder = _absolute(name or ".")
        if not os.access(folder, os.F_OK):
            self.absent.add(folder)
            return
        self.listed.add(folder)
        if _is_by_project():
            self.listed_by_project.add(folder)

    def connected_to(self, name: object, *_: object) -> None:
        """Record that SQLite opens a file. The event has only its name."""
        if not _is_path(name):
            return
        path = os.fsdecode(name)
        if path.startswith("file:"):  # a URI
            path = unquote(urlsplit(path).path)
        file = _absolute(path)
        state = _state(file)
        if state is not None:
            log_state = _state(f"{file}{WAL}")
            self.databases.setdefault(file, (state, log_state))

    def renamed(self, _old: object, new: object, *_: object) -> None:
        """Record that a file was renamed."""
        self.written.add(_absolute(new))

    def child_started(self, event: str, *values: object) -> None:
        """Record the files that the arguments of a child process name."""
        if is_own():
            return
        child = child_of_event(event, values)
        for file in _named_files(child):
            state = _state(file)
            if state is not None:
                self.arguments.setdefault(file, state)


# The sets and dictionaries of a `Watch`.
_RECORDS = (
    "read",
    "written",
    "listed",
    "listed_by_project",
    "absent",
    "present",
    "databases",
    "arguments",
)
WAL = FILE_FORMAT.logs[0]


def is_absent(path: Path) -> bool:
    """Return whether a path does not exist, or is an empty log of SQLite."""
    if not path.exists():
        return True
    is_log = path.name.endswith(WAL)
    return is_log and path.stat().st_size == 0


def _unwritten_of_database(
    file: str, state: _State, wal: _State | None
) -> Iterator[str]:
    """Yield a SQLite file and its log, unless the build has written to them.

    The close of the last connection moves the log into the file. That is no write.
    """
    log = f"{file}{WAL}"
    wal_now = _state(log)
    if wal is not None and wal_now is None:
        yield file
    elif _state(file) == state and wal_now == wal:
        yield file
        if wal is not None:
            yield log


def _checkout(root: Path) -> Path:
    """Return the folder of the git checkout, because data files may be outside pytest's root."""
    for folder in (root, *root.parents):
        if (folder / ".git").exists():
            return folder
    return root


def relative(path: Path, root: Path) -> str:
    """Return a path relative to the root, or an absolute path outside of the checkout's parent.

    Links are resolved, so that a checkout behind a link is the same checkout.
    """
    path = path.resolve()
    root = root.resolve()
    if path.is_relative_to(_checkout(root).parent):
        return Path(os.path.relpath(path, root)).as_posix()
    return path.as_posix()


def _is_inside(path: str | Path, folder: Path) -> bool:
    return Path(path).is_relative_to(folder)


# Folders whose files change without the user: devices, settings of the machine, time zones.
_OF_SYSTEM = (
    *("/dev/", "/etc/", "/private/etc/", "/proc/", "/run/", "/sys/"),
    *("/usr/share/zoneinfo/", "/var/db/timezone/"),
)
_WRITE_MODES = set("wax+")
_WRITES = os.O_WRONLY | os.O_RDWR
_EVENTS: dict[str, Callable[..., None]] = {
    "open": Watch.opened,
    "os.listdir": Watch.folder_listed,
    "os.scandir": Watch.folder_listed,
    "os.rename": Watch.renamed,
    FILE_FORMAT.opening: Watch.connected_to,
}


def _state(file: str) -> _State | None:
    """Return the size and time of a file, None for a missing file or an empty log of SQLite."""
    try:
        status = os.stat(file)  # noqa: PTH116 - a hook must be quick
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    if file.endswith(WAL) and not status.st_size:
        return None
    return status.st_size, status.st_mtime_ns


def is_hidden(name: str) -> bool:
    """Return whether a file or folder belongs to a tool or to Python."""
    return name.startswith(".") or name == "__pycache__"


def _source(name: str) -> str:
    """Return the source of a compiled module, and the name of any other file."""
    if name.endswith(".pyc"):
        with contextlib.suppress(ValueError):
            return importlib.util.source_from_cache(name)
    return name


_PATH = re.compile(r"[^\s'\"<>()\[\]{}|;`=,:?&]+")


def _named_files(child: Child) -> Iterator[str]:
    """Yield the words in the arguments of a child that may be paths of files."""
    for argument in child.arguments:
        for name in {argument, *_PATH.findall(argument)}:
            if "\0" not in name:
                yield _absolute(os.path.join(child.folder, name))  # noqa: PTH118 - a hook must be quick


@contextlib.contextmanager
def watching(templates: Path | None, began: float) -> Iterator[Watch]:
    """Record how a block uses files, because a seed may read data files."""
    watch = Watch(templates and templates.resolve(), began)
    listeners = {event: partial(record, watch) for event, record in _EVENTS.items()}
    listeners |= {event: partial(watch.child_started, event) for event in CHILD_EVENTS}
    end_events = on_audit_events(listeners)
    end_stat = on_stat(watch.path_checked)
    try:
        yield watch
    finally:
        end_stat()
        end_events()


# The accesses to files during the collection, by the file of the accessing module.
_at_import: defaultdict[str, Watch] = defaultdict(Watch)


def watch_imports() -> Callable[[], None]:
    """Record the files that modules open during the collection: a seed may use their content.

    Return a function that ends the recording. Until then opening a file takes some microseconds
    longer.
    """
    listeners = {
        event: partial(_record_at_import, record) for event, record in _EVENTS.items()
    }
    end_events = on_audit_events(listeners)
    end_stat = on_stat(_check_at_import)

    def end() -> None:
        end_stat()
        end_events()

    return end


def _record_at_import(record: Callable[..., None], name: object, *more: object) -> None:
    is_code = str(name).endswith((".py", ".pyc"))
    if is_code or _is_by_import():
        return
    for file in _modules_at_work():
        record(_at_import[file], name, *more)


def _check_at_import(name: object, *, exists: bool) -> None:
    # Do the fast check first, because imports of libraries check a thousand paths.
    if _INSTALLED in str(name):
        return
    if exists and not _is_by_project():
        return
    for file in _modules_at_work():
        _at_import[file].path_checked(name, exists=exists)


def _modules_at_work() -> Iterator[str]:
    """Yield the files of the modules that are being imported, or whose functions run.

    Functions count because one may cache settings, so that the build does not read the file again.
    """
    for frame in _callers():
        file = frame.f_code.co_filename
        if frame.f_code.co_name == "<module>" or not is_library(file):
            yield file


def _callers() -> Iterator[FrameType]:
    """Yield the frames above the function that iterates over them, the innermost first."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - the documented way to a caller
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_by_import() -> bool:
    for frame in _callers():
        if not _is_of_arena(frame):
            return frame.f_code.co_filename.startswith("<frozen importlib")
    return False


def _is_of_arena(frame: FrameType) -> bool:
    name: str = frame.f_globals.get("__name__", "")
    return name.startswith("pytest_arena.")


_RECORDERS = {__name__, on_audit_events.__module__, on_stat.__module__}


def _is_by_arena() -> bool:
    """Return whether pytest-arena itself opens a file, not the user's code or a library."""
    for frame in _callers():
        is_recorder = frame.f_globals.get("__name__") in _RECORDERS
        if not is_recorder and not _is_of_python(frame.f_code.co_filename):
            return _is_of_arena(frame)
    return False


def _is_by_project() -> bool:
    """Return whether the project's code lists a folder or checks a path, not a library."""
    for frame in _callers():
        file = frame.f_code.co_filename
        if not _is_of_python(file) and not _is_of_arena(frame):
            return not is_library(file)
        if "importlib" in file:  # an import searches for packages
            return False
    return False


def _is_of_python(file: str) -> bool:
    """Return whether a file belongs to the standard library, not to an installed package."""
    if _INSTALLED in file:
        return False
    return file.startswith((_STANDARD_LIBRARY, "<frozen "))


_INSTALLED = "-packages"  # site-packages, dist-packages
_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120 - of many frames


def _is_path(name: object) -> TypeGuard[str | bytes | os.PathLike[str]]:
    return isinstance(name, str | bytes | os.PathLike)


def _absolute(name: Any) -> str:
    # Call this during the event, because the build may change the working folder later.
    return os.path.abspath(os.fsdecode(name))  # noqa: PTH100 - a hook must be quick


_MOST_LINES = 4
_PLAIN = {dict, defaultdict, OrderedDict, Counter, list, deque, set}


class ModuleContainers:
    """The plain containers in the project's modules, with their sizes at one moment.

    Modules that are imported later do not count. Modules of tests count only ``with_tests``.
    """

    def __init__(self, root: Path, *, with_tests: bool = False) -> None:
        self._root = root
        self._with_tests = with_tests
        self._modules = {*sys.modules}
        # By id, because several modules may have the same container.
        self._sizes: dict[int, tuple[str, Any, int]] = {}
        for name, container in self._containers():
            size = (name, container, len(container))
            self._sizes.setdefault(id(container), size)

    def imported(self) -> list[str]:
        """Return a line for each module of the project that was imported since."""
        return [
            f"{module.__name__} is imported"
            for module, _ in project_modules()
            if module.__name__ not in self._modules
        ]

    def grown(self) -> list[str]:
        """Return a line for each container that has more items now."""
        lines = []
        for name, container, before in self._sizes.values():
            now = len(container)
            if now > before:
                lines.append(f"{name} has {counted(now, 'item')}, and had {before:,}")
        return lines[:_MOST_LINES]

    def _containers(self) -> Iterator[tuple[str, Any]]:
        for module, path in project_modules():
            is_of_tests = path.stem == "conftest" or "test" in path.stem.split("_")
            is_left_out = is_of_tests and not self._with_tests
            if is_left_out or not path.is_relative_to(self._root):
                continue
            for name, value in [*vars(module).items()]:
                if type(value) in _PLAIN and not name.startswith("__"):
                    yield f"{module.__name__}.{name}", value
