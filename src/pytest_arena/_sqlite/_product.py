"""SQLite in a run: its live files in a folder of this process, its templates in the cache."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import tempfile
import uuid
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from glob import escape
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from filelock import FileLock
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL, Dialect

from pytest_arena._config._supported import is_database
from pytest_arena._process import has_room, is_own_folder
from pytest_arena._product import (
    OF_RUN,
    BuildTarget,
    ConnectTarget,
    Core,
    Database,
    Isolation,
    Key,
    Manifest,
    RequestedDatabase,
    ScriptError,
    Template,
    TemplateStore,
    read_manifest,
)
from pytest_arena._product._own_databases import (
    Place,
    PlaceKind,
    SweepResult,
    Thing,
    time_of,
)
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._copy import Copy
from pytest_arena._values import digest
from pytest_arena.errors import ServerError, in_words

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pytest_arena._config._read import Config
    from pytest_arena._product import Usage

# Files in memory save the syncs of the app's commits (3 ms a test on ext4). In a container
# /dev/shm often has 64 MB, and could become full.
_MEMORY = Path("/dev/shm")  # noqa: S108 - a tmpfs, used with a folder that only this user enters
_ROOM_NEEDED = 512 * 1024 * 1024
_KEPT_FILES = 50
_LONGEST_NAME = 100


class Home:
    """The folder of this process for live files. Other users cannot enter it.

    The process holds a lock beside the folder. A run that was killed leaves its folder. When a run
    begins or ends, it removes the folders without a held lock.
    """

    def __init__(self) -> None:
        parent = _parent()
        _sweep(parent)
        name = f"run-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        # The lock precedes the folder, so that no other run removes the folder as a dead run's.
        self._lock = FileLock(parent / f"{name}.lock")
        self._lock.acquire()
        self.path = parent / name
        # Only live files, because the app may name further databases beside them.
        self.live = self.path / "live"
        for folder in (self.path, self.live):
            folder.mkdir(mode=0o700)

    def close(self) -> None:
        """Remove the folder. Idempotent. A forked child does not remove its parent's folder."""
        if self._lock.is_locked:
            self._lock.release()
            remove_dead_run(self.path)
            _sweep(self.path.parent)  # removes folders of this run's killed workers


def homes() -> list[Path]:
    """Return the existing folders that contain this user's run folders."""
    return [parent for parent in _parents() if parent.is_dir() and is_own_folder(parent)]


def _parent() -> Path:
    parent, *others = _parents()
    if others and not has_room(_MEMORY, _ROOM_NEEDED):
        [parent] = others
    parent.mkdir(mode=0o700, exist_ok=True)
    if not is_own_folder(parent):
        raise ServerError(
            f"no folder for the test databases: {parent} cannot be used",
            why="each test has its own files, in a folder that only this user may read",
            cause="the folder belongs to another user",
            fix=f"remove {parent}",
        )
    return parent


def _parents() -> list[Path]:
    """Return the possible parents of this user's run folders, the best first."""
    user = os.environ.get("USERNAME", "user")
    if hasattr(os, "getuid"):
        user = str(os.getuid())
    name = f"pytest-arena-{user}"
    temporary = Path(tempfile.gettempdir()).resolve()
    return [place / name for place in dict.fromkeys([_MEMORY, temporary])]


def _sweep(parent: Path) -> None:
    for lock_file in parent.glob("run-*.lock"):
        remove_dead_run(lock_file.with_suffix(""))


def remove_dead_run(folder: Path) -> bool:
    """Remove the folder and the lock of a run that has ended. Return whether it had ended."""
    lock_file = lock_of(folder)
    had_lock = lock_file.exists()
    with try_lock(lock_file) as is_ours:
        if had_lock and not is_ours:
            return False
        shutil.rmtree(folder, ignore_errors=True)
    lock_file.unlink(missing_ok=True)
    return True


def lock_of(folder: Path) -> Path:
    """Return the path of the lock that a run holds."""
    return folder.with_name(f"{folder.name}.lock")


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Try to take a lock, and yield whether that worked. Create no lock file."""
    lock = FileLock(path, timeout=0)
    if path.exists():
        with suppress(OSError):  # filelock's Timeout is one
            lock.acquire()
    try:
        yield lock.is_locked
    finally:
        lock.release()


def kept_file(cache: Path, test: str, database: str) -> Path:
    """Return the path for a copy of a test's database. Remove all but the newest fifty copies."""
    folder = cache / "kept"
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.-]+", "_", test)[-_LONGEST_NAME:]
    file = folder / f"{name}-{digest(test)[:8]}-{database}"
    # ARENA_CACHE may name a folder with other files.
    newest_first = sorted(folder.glob(f"*-{escape(database)}"), key=written_at, reverse=True)
    for old in newest_first[_KEPT_FILES - 1 :]:
        old.unlink(missing_ok=True)
    return file


def written_at(file: Path) -> float:
    """Return the time of the last write in seconds since the epoch, 0 for a missing file."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


# Templates

# The files of a template. ARENA_CACHE may name a folder with other files.
TEMPLATE = re.compile(rf"((?:{OF_RUN})?[0-9a-f]{{32}})\.(json|sqlite|new|lock)")
# For templates of all runs, and of one run.
_UNUSED_SECONDS = {False: 14 * 24 * 3600, True: 3600}


@dataclass(frozen=True, slots=True)
class FileTarget:
    """The file of a build. The first connection creates it."""

    path: Path

    @property
    def connect_target(self) -> ConnectTarget:
        """The target of connections to the file."""
        file = str(self.path)
        return ConnectTarget(Key("building", file), file, (0, 0))

    @property
    def sync_url(self) -> URL:
        """The URL for the driver of the standard library."""
        return URL.create("sqlite", database=str(self.path))

    @property
    def async_url(self) -> URL:
        """The URL for aiosqlite."""
        return URL.create("sqlite+aiosqlite", database=str(self.path))

    def run_script(self, script: str) -> None:
        """Run a script, whose ATTACH statements are guarded."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            try:
                connection.executescript(script)
            except Exception as error:
                raise ScriptError(in_words(error), line=0, fix="") from error

    def has_tables(self) -> bool:
        """Return whether the build has created a table."""
        with closing(sql.open_own(self.path)) as control:
            query = "SELECT 1 FROM sqlite_master WHERE type = 'table'"
            return control.execute(query).fetchone() is not None

    def is_being_written(self) -> bool:
        """Return whether a connection holds the write lock."""
        with closing(sql.open_own(self.path)) as control:
            return sql.is_being_written(control)

    def remove(self) -> None:
        """Remove the file and its side files."""
        sql.remove_file(self.path)


@dataclass(frozen=True, slots=True)
class FileTemplates(TemplateStore):
    """Templates are files with the name of their fingerprint, each with a manifest.

    The manifest is written last, with a rename, so that an interrupted build is no template. A
    build removes the templates that were not used for a time.
    """

    folder: Path
    home: Home

    def ddl_dialect(self) -> Dialect:
        """Return a dialect for DDL."""
        return SQLiteDialect_pysqlite()

    def identity(self) -> str:
        """Return the product and the library's version."""
        return f"sqlite {sqlite3.sqlite_version}"

    def _file(self, fingerprint: str) -> Path:
        return self.folder / f"{fingerprint}.sqlite"

    def find(self, fingerprint: str, newer_than: float) -> Template | None:
        """Return the template. Note the use by the manifest's modification time."""
        content = self._file(fingerprint)
        file = content.with_suffix(".json")
        manifest = None
        with suppress(OSError):  # another process may be removing the template
            manifest = read_manifest(file.read_text(encoding="utf-8"))
        if manifest is None or manifest.built < newer_than:
            return None
        with suppress(OSError):  # a read-only cache
            file.touch()
        return Template(content, fingerprint, manifest) if content.is_file() else None

    @contextmanager
    def locked(self, fingerprint: str) -> Iterator[float]:
        """Hold a file's lock. Yield the time of the lock file, which no test can change."""
        file = self._file(fingerprint).with_suffix(".lock")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        with FileLock(file):
            now = written_at(file)
            self._clear(now)
            yield now

    def _clear(self, now: float) -> None:
        """Remove the templates that no run uses, and an interrupted build.

        The time is a file's, because a test may have changed the clock.
        """
        for manifest in self.folder.glob("*.json"):
            is_of_run = manifest.name.startswith(OF_RUN)
            is_used = written_at(manifest) > now - _UNUSED_SECONDS[is_of_run]
            if is_used or not TEMPLATE.fullmatch(manifest.name):
                continue
            # The manifest is removed first. A file without a manifest is no template.
            for ending in (".json", ".sqlite", ".new", ".lock"):
                with suppress(OSError):  # Windows removes no open file
                    manifest.with_suffix(ending).unlink()

    def begin(self, below: Template | None, dialect: type[Dialect]) -> FileTarget:
        """Return an unused file for a build, with the content of the template ``below``."""
        del dialect
        target = FileTarget(self.home.path / f"building-{uuid.uuid4().hex}.sqlite")
        if below is not None:
            shutil.copyfile(below.content, target.path)
        return target

    def finish(self, target: BuildTarget, fingerprint: str, manifest: Manifest) -> Path:
        """Make a template of a finished build. Return its file, which has no side files."""
        finished = self._file(fingerprint)
        new = finished.with_suffix(".new")
        sql.finish_file(Path(target.connect_target.file), new)
        target.remove()
        new.replace(finished)
        new.write_text(manifest.text(), encoding="utf-8")
        new.replace(finished.with_suffix(".json"))
        return finished


# The product


class SQLite:
    """SQLite in a run. Each database is a live file. Templates are files in the user's cache."""

    name = "sqlite"
    forced = (
        "a new file has replaced it. SQLAlchemy opens its connections again. Connections "
        "of sqlite3 itself and of other processes keep using the old file"
    )

    def __init__(self, core: Core, config: Config) -> None:
        self._core = core
        self._config = config
        self._home = Home()
        self._templates = FileTemplates(config.cache / "templates", self._home)
        self._numbers = count(1)

    @property
    def shown(self) -> str:
        """The product and its version."""
        return f"SQLite {sqlite3.sqlite_version}"

    def identify(self, requested: RequestedDatabase) -> tuple[Key | None, tuple[str, ...]]:
        """Return the key of a requested database, and the names by which an option may name it."""
        if requested.memory:
            return Key("shared memory", requested.memory), ()
        if not requested.name:
            return None, ()
        file = Path(requested.name)
        parts = file.with_suffix("").parts[1:]
        names = ["/".join(parts[start:]) for start in range(len(parts))]
        # `Path.resolve` raises a RuntimeError for a loop of links on some versions of Python.
        return Key("file", os.path.realpath(file)), tuple(names)

    def new_file(self, name: str, taken: Collection[str]) -> Path:
        """Return an unused path for a database."""
        simple = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[-100:]
        while simple.lower() in taken:
            simple = f"{next(self._numbers)}-{simple[-100:]}"
        return self._home.live / simple

    def template_store(self) -> FileTemplates:
        """Return the store of templates, which all drivers share."""
        return self._templates

    def isolate(self, database: Database, content: Any, uses: Usage) -> Isolation:
        """Return the isolation of a database, which is always ``copy``."""
        return Copy(Path(database.file), content, uses, note=self._core.ledger.note)

    def target(self, database: Database, generation: tuple[int, int]) -> ConnectTarget:
        """Return the live file of a database."""
        return ConnectTarget(database.key, database.file, generation)

    def url(self, database: Database, driver: str) -> URL:
        """Return the URL of the live file."""
        return URL.create(f"sqlite+{driver}" if driver else "sqlite", database=database.file)

    def keep(self, database: Database, title: str) -> str:
        """Copy a database into the user's cache. Return the path."""
        file = kept_file(self._config.cache, title, Path(database.file).name)
        cast("Copy", database.isolation).save(file)
        return str(file)

    def shell(self, where: str) -> list[str]:
        """Return the words of the command that opens a database."""
        return ["sqlite3", where]

    def close(self) -> None:
        """Remove the folder."""
        self._home.close()


open_product = SQLite


# `arena databases`

_RUN = re.compile(r"run-(\d+)-[0-9a-f]{8}")


def place_kinds(config: Config) -> list[PlaceKind]:
    """Return the folders of runs, and the cache, unless the option names a server."""
    return [] if config.server_url else [SQLiteFiles(config.cache)]


def _runs() -> Iterator[tuple[Thing, Path]]:
    """Yield each folder of a run. A run is alive while it holds the lock beside its folder."""
    for home in homes():
        for folder in sorted(home.glob("run-*")):
            if _RUN.fullmatch(folder.name):
                lock = lock_of(folder)
                with try_lock(lock) as is_ours:
                    is_alive = lock.exists() and not is_ours
                state = "alive" if is_alive else "dead"
                used = time_of(folder)
                yield Thing(name=folder.name, what="live", state=state, time=used), folder


class SQLiteFiles:
    """The folders of runs, and the templates and kept databases in the cache.

    Other files stay unchanged.
    """

    def __init__(self, cache: Path) -> None:
        self._templates = cache / "templates"
        self._kept = cache / "kept"

    def places(self) -> Iterator[Place]:
        """Yield the folders of the user's runs, of templates, and of kept databases."""
        runs = [*_runs()]
        for home in homes():
            things = tuple(thing for thing, folder in runs if folder.parent == home)
            yield Place(shown="SQLite files of test runs", where=str(home), things=things)
        yield Place(
            shown="Templates of SQLite databases",
            where=str(self._templates),
            things=tuple(thing for thing, _ in self._found_templates()),
        )
        yield Place(
            shown="SQLite databases kept for inspection",
            where=str(self._kept),
            things=tuple(thing for thing, _ in self._found_kept()),
        )

    def sweep(self, *, everything: bool) -> Iterator[SweepResult]:
        """Remove dead runs, with ``everything`` also all databases that no run may use."""
        is_in_use = False
        for run, folder in _runs():
            if remove_dead_run(folder):
                yield SweepResult(run)
            else:
                is_in_use = True
                if everything:
                    yield SweepResult(run, "a living run uses it")
        if not everything:
            return
        for thing, files in self._found_templates():
            if is_in_use:  # a run does not lock the templates that it uses
                yield SweepResult(thing, "a living run may use it")
            else:
                yield _remove(thing, files)
        for thing, files in self._found_kept():
            yield _remove(thing, files)
        for folder in (self._templates, self._kept, self._kept.parent):
            with suppress(OSError):  # the folder does not exist, or is not empty
                folder.rmdir()

    def _found_templates(self) -> Iterator[tuple[Thing, list[Path]]]:
        """Yield each template with its files, the manifest first. A file alone is no template."""
        names = map(TEMPLATE.fullmatch, _names(self._templates))
        for name in sorted({match[1] for match in names if match}):
            files = sorted(self._templates.glob(f"{name}.*"))
            shown = name.removeprefix(OF_RUN)[:8]
            yield Thing(name=shown, what="template", time=time_of(files[0])), files

    def _found_kept(self) -> Iterator[tuple[Thing, list[Path]]]:
        for name in sorted(_names(self._kept)):
            file = self._kept / name
            if is_database(file) or not file.stat().st_size:
                yield Thing(name=name, what="kept", time=time_of(file)), [file]


def _names(folder: Path) -> list[str]:
    return [file.name for file in folder.glob("*") if file.is_file()]


def _remove(thing: Thing, files: list[Path]) -> SweepResult:
    for file in files:
        file.unlink(missing_ok=True)
    return SweepResult(thing)
