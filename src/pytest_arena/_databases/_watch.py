"""Records which files a build uses."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import stat
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pytest_arena._config._load import is_library
from pytest_arena._databases._child_programs import child_programs
from pytest_arena._gate._listeners import CHILD_EVENTS, child_of_event
from pytest_arena._origin import is_own, user_line
from pytest_arena._process import on_audit_events, on_stat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import FrameType

    from pytest_arena._values import Child

_State = tuple[int, int]  # the size and the time of a file


@dataclass(slots=True)
class Watch:
    """What a build did with files, by absolute paths."""

    own: Path | None  # the folder of the templates, if they are files
    began: float  # by the clock of files
    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    listed_by_project: set[str] = field(default_factory=set)
    # They did not exist when the build opened, listed or asked for them.
    absent: set[str] = field(default_factory=set)
    # The project's code asked whether they exist, and they did.
    present: set[str] = field(default_factory=set)
    # SQLite files and files in the arguments of child processes, with their states at that moment.
    databases: dict[str, tuple[_State, _State | None]] = field(default_factory=dict)
    arguments: dict[str, _State] = field(default_factory=dict)
    # Child processes whose files are unknown, by the names of their programs, with the user's line.
    programs: dict[str, str] = field(default_factory=dict)

    def files(self, root: Path) -> set[Path]:
        """Return the files that the build only read.

        A file that it wrote (a log, a cache) would be different each time.
        """
        names = self.read.copy()
        for name, states in self.databases.items():
            names.update(_unwritten_of_database(name, *states))
        top = _checkout(root.resolve())
        for name, state in self.arguments.items():
            is_program = os.access(name, os.X_OK) and not _is_inside(name, top)
            if _state(name) == state and not is_program:
                names.add(name)
        sources = {_source(name) for name in names - self.written}
        return {
            path
            for path in self._counting(sources, root)
            if path.is_file() and (_is_inside(path, top) or self._is_older(path))
        }

    def _is_older(self, path: Path) -> bool:
        """Whether a file is older than the build. A child may have written a newer one."""
        return path.stat().st_mtime <= self.began

    def folders(self, root: Path) -> set[Path]:
        """Return the folders that the build listed. A library may list one in the checkout."""
        top = _checkout(root.resolve())
        by_project = self.folders_of_project(root)
        return {
            path
            for path in self._counting(self.listed, root)
            if path.is_dir() and (path in by_project or _is_inside(path, top))
        }

    def folders_of_project(self, root: Path) -> set[Path]:
        """Return the folders that the project's code listed, not a library."""
        return self._counting(self.listed_by_project, root)

    def absent_paths(self, root: Path) -> set[Path]:
        """Return the paths that the build looked for, and that still do not exist."""
        names = self.absent - self.present - self.written
        for name, (_, side_file) in self.databases.items():
            if side_file is None:
                names.add(f"{name}{WAL}")
        return {path for path in self._counting(names, root) if is_absent(path)}

    def present_paths(self, root: Path) -> set[Path]:
        """Return the paths for which only the existence counts."""
        names = self.present - self.absent - self.written
        return {path for path in self._counting(names, root) if path.exists()}

    def _counting(self, names: Iterable[str], root: Path) -> set[Path]:
        """Return the paths of which the content may be in the template."""
        top = _checkout(root.resolve())
        paths = set()
        for name in names:
            if is_library(name) or is_library(name + os.sep):
                continue
            path = Path(name).resolve()
            if self.own and path.is_relative_to(self.own):
                continue
            base = path.anchor
            for folder in (top.parent, top):
                if path.is_relative_to(folder):
                    base = str(folder)
            if not _is_inside(path, top) and path.as_posix().startswith(_OF_SYSTEM):
                continue
            # Hidden folders are tools': .git, .venv, .pytest_cache. A hidden file may be an .env.
            if not any(map(is_hidden, path.relative_to(base).parts[:-1])):
                paths.add(path)
        return paths

    def add_imports(self, code: set[Path], optional: set[str]) -> None:
        """Add what these files did while they were imported, and modules that they did not find."""
        self.absent |= optional
        for file, watch in [*_at_import.items()]:
            if Path(file).resolve() in code:
                for name in _RECORDS:
                    getattr(self, name).update(getattr(watch, name))

    # The arguments of audit events: https://docs.python.org/3/library/audit_events.html

    def opened(self, name: object, mode: str | None, flags: int | None) -> None:
        """Record that a file was opened."""
        if not isinstance(name, str | bytes | os.PathLike) or _is_by_us():
            return
        file = _absolute(name)
        # os.open() has no mode. The flags of io.open() are of no use.
        is_written = bool((flags or 0) & _WRITES)
        if mode:
            is_written = not _WRITE_MODES.isdisjoint(mode)
        if is_written:
            self.written.add(file)
        elif os.access(file, os.F_OK):
            self.read.add(file)
        elif not file.endswith(".pyc"):
            self.absent.add(file)

    def asked(self, name: object, *, exists: bool) -> None:
        """Record that code asked for the state of a path."""
        if not isinstance(name, str | bytes | os.PathLike) or _is_by_us():
            return
        path = _absolute(name)
        if "<" in path:  # linecache asks for generated code
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
        """Record that sqlite3 opens a file. The event has only its name."""
        if not isinstance(name, str | bytes | os.PathLike):
            return
        path = os.fsdecode(name)
        if path.startswith("file:"):  # a URI
            path = unquote(urlsplit(path).path)
        file = _absolute(path)
        state = _state(file)
        if state is not None:
            self.databases.setdefault(file, (state, _state(f"{file}{WAL}")))

    def renamed(self, _old: object, new: object, *_: object) -> None:
        """Record that a file has got another name."""
        self.written.add(_absolute(new))

    def started(self, event: str, *values: object) -> None:
        """Record the files that the arguments of a child process name."""
        if is_own():
            return
        child = child_of_event(event, values)
        for file in _named_files(child):
            state = _state(file)
            if state is not None:
                self.arguments.setdefault(file, state)
        if not _is_by_project():
            return
        for program in child_programs(child):
            # A client of a database reads what its arguments or its input name.
            if not program.is_client:
                line = user_line()
                place = line.short if line else "in a thread"
                self.programs.setdefault(program.name, place)


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
    "programs",
)
WAL = "-wal"  # SQLite's log of what is not in the file yet


def is_absent(path: Path) -> bool:
    """Whether there is no such path. An empty log of SQLite is none."""
    if not path.exists():
        return True
    return path.name.endswith(WAL) and path.stat().st_size == 0


def _unwritten_of_database(
    file: str, state: _State, wal: _State | None
) -> Iterator[str]:
    """Yield a SQLite file and its log, unless the build has written to it.

    The last connection that closes moves the log into the file. That writes no row.
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
    """Return the checkout around pytest's root folder: data files may be outside the root."""
    for folder in (root, *root.parents):
        if (folder / ".git").exists():
            return folder
    return root


def relative(path: Path, root: Path) -> str:
    """Return a path from the root, or an absolute one if it is not beside the checkout either.

    Links do not count: a checkout behind a link is the same one.
    """
    path = path.resolve()
    root = root.resolve()
    if path.is_relative_to(_checkout(root).parent):
        return Path(os.path.relpath(path, root)).as_posix()
    return path.as_posix()


def _is_inside(path: str | Path, folder: Path) -> bool:
    return Path(path).is_relative_to(folder)


# They change without the user: devices, settings of the machine, time zones.
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
    "sqlite3.connect": Watch.connected_to,
}


def _state(file: str) -> _State | None:
    """Return the size and time of a file, None if there is none, or an empty log of SQLite."""
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
    """Whether a file or folder belongs to a tool or to Python."""
    return name.startswith(".") or name == "__pycache__"


def _source(name: str) -> str:
    """Return the source of a compiled module, and the name of any other file."""
    if name.endswith(".pyc"):
        with contextlib.suppress(ValueError):
            return importlib.util.source_from_cache(name)
    return name


_PATH = re.compile(r"[^\s'\"<>()\[\]{}|;`=,:?&]+")


def _named_files(child: Child) -> Iterator[str]:
    """Yield what may be a file's path in the arguments of a child."""
    for argument in child.arguments:
        for name in {argument, *_PATH.findall(argument)}:
            if "\0" not in name:
                yield os.path.abspath(os.path.join(child.folder, name))  # noqa: PTH100, PTH118 - a hook must be quick


@contextlib.contextmanager
def watching(own: Path | None, began: float) -> Iterator[Watch]:
    """Record what a block does with files: a seed may read data files."""
    watch = Watch(own and own.resolve(), began)
    listeners = {event: partial(record, watch) for event, record in _EVENTS.items()}
    for event in CHILD_EVENTS:
        listeners[event] = partial(watch.started, event)
    end_events = on_audit_events(listeners)
    end_stat = on_stat(watch.asked)
    try:
        yield watch
    finally:
        end_stat()
        end_events()


# What happened during the collection while modules were at work, by the modules' files.
_at_import: defaultdict[str, Watch] = defaultdict(partial(Watch, None, 0.0))


def watch_imports() -> Callable[[], None]:
    """Record the files that modules open during the collection: a seed may use their rows.

    Returns a function that ends the recording. Until then an opened file costs some microseconds.
    """

    def for_each_module(record: Callable[..., None]) -> Callable[..., None]:
        def listener(name: object, *more: object) -> None:
            if not (str(name).endswith((".py", ".pyc")) or _is_by_import()):
                for file in _modules_at_work():
                    record(_at_import[file], name, *more)

        return listener

    def asked(name: object, *, exists: bool) -> None:
        # First what is quick: imports of libraries ask a thousand times.
        if _INSTALLED in str(name) or (exists and not _is_by_project()):
            return
        for file in _modules_at_work():
            _at_import[file].asked(name, exists=exists)

    listeners: Mapping[str, Callable[..., None]] = {
        event: for_each_module(record) for event, record in _EVENTS.items()
    }
    end_events = on_audit_events(listeners)
    end_stat = on_stat(asked)

    def end() -> None:
        end_stat()
        end_events()

    return end


def _modules_at_work() -> Iterator[str]:
    """Yield the files of the modules that are imported, or whose functions are called.

    A function that reads the settings and caches them reads nothing when the build calls it.
    """
    for frame in _callers():
        file = frame.f_code.co_filename
        if frame.f_code.co_name == "<module>" or not is_library(file):
            yield file


def _callers() -> Iterator[FrameType]:
    """Yield the callers of the function that iterates over them, the innermost first."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - the documented way to a caller
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_by_import() -> bool:
    """Whether an import lists a folder of sys.path: no file is read by its name."""
    for frame in _callers():
        if not _is_ours(frame):
            return frame.f_code.co_filename.startswith("<frozen importlib")
    return False


def _is_ours(frame: FrameType) -> bool:
    name: str = frame.f_globals.get("__name__", "")
    return name.startswith("pytest_arena.")


_RECORDERS = {__name__, on_audit_events.__module__}


def _is_by_us() -> bool:
    """Whether pytest-arena itself opens a file, not the user's code or a library."""
    for frame in _callers():
        is_recorder = frame.f_globals.get("__name__") in _RECORDERS
        if not is_recorder and not _is_of_python(frame.f_code.co_filename):
            return _is_ours(frame)
    return False


def _is_by_project() -> bool:
    """Whether the project's code lists a folder, not a library."""
    for frame in _callers():
        file = frame.f_code.co_filename
        if not _is_of_python(file) and not _is_ours(frame):
            return not is_library(file)
        if "importlib" in file:  # the names of packages
            return False
    return False


def _is_of_python(file: str) -> bool:
    """Whether a file is of the standard library, where installed packages may be too."""
    if _INSTALLED in file:
        return False
    return file.startswith((_STANDARD_LIBRARY, "<frozen "))


_INSTALLED = "-packages"  # site-packages, dist-packages
_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120 - of many frames


def _absolute(name: Any) -> str:
    # At once: the build may change the working folder.
    return os.path.abspath(os.fsdecode(name))  # noqa: PTH100 - a hook must be quick
