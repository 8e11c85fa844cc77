"""Templates that are files, in the user's cache: SQLite's."""

from __future__ import annotations

import shutil
import sqlite3
import uuid
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from sqlalchemy import create_engine
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.pool import NullPool

from pytest_arena._product import (
    Aim,
    Key,
    Manifest,
    ScriptError,
    Target,
    Template,
    read_manifest,
)
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._home import Home, written_at
from pytest_arena._sqlite._live_file import is_whole
from pytest_arena.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Iterator


_LOCK_SECONDS = 600  # longer than a build takes; a dead builder's lock is free at once
_UNUSED_SECONDS = 14 * 24 * 3600


@dataclass(frozen=True, slots=True)
class FileTarget:
    """A file, which is made by whoever connects first."""

    path: Path
    product: str = "SQLite"
    has_schemas: bool = False

    @property
    def aim(self) -> Aim:
        """Its path."""
        return Aim(Key("building", str(self.path)), str(self.path), (0, 0))

    @property
    def sync_url(self) -> URL:
        """By the driver of the standard library."""
        return URL.create("sqlite", database=str(self.path))

    @property
    def async_url(self) -> URL:
        """By aiosqlite."""
        return URL.create("sqlite+aiosqlite", database=str(self.path))

    def run_script(self, script: str) -> None:
        """On an engine's connection, so that what it attaches is looked at."""
        engine = create_engine(self.sync_url, poolclass=NullPool)
        with engine.begin() as connection:
            try:
                dbapi_connection: Any = connection.connection.dbapi_connection
                dbapi_connection.executescript(script)
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                raise ScriptError(text, line=_failing_line(script), fix="") from error

    def has_tables(self) -> bool:
        """Asked of a connection of arena's own."""
        if not self.path.exists():
            return False
        with closing(sql.open_control(self.path)) as control:
            return bool(
                control.number(
                    "SELECT count(*) FROM sqlite_master WHERE type = 'table'"
                )
            )

    def is_being_written(self) -> bool:
        """Whether somebody keeps the lock of whoever writes."""
        with closing(sql.open_control(self.path)) as control:
            try:
                with control.writing():
                    return False
            except sql.Busy:
                return True

    def remove(self) -> None:
        """Side files too."""
        for file in self.path.parent.glob(f"{self.path.name}*"):
            file.unlink(missing_ok=True)


def _failing_line(script: str) -> int:
    """Return the line where the first statement that fails begins; 0 if none fails alone.

    SQLite itself does not tell. The script is run again, a statement at a time, in memory.
    """
    statement, first, lines = "", 0, script.splitlines(keepends=True)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as memory:
        for number, line in enumerate(lines, start=1):
            if not statement and (not line.strip() or line.lstrip().startswith("--")):
                continue
            first = first if statement else number
            statement += line
            if not sqlite3.complete_statement(statement) and number < len(lines):
                continue
            try:
                memory.executescript(statement)
            except sqlite3.Error:
                return first
            statement = ""
    return 0


@dataclass(frozen=True, slots=True)
class FileShelves:
    """A folder for each shelf: a template is a file and a manifest, which is written last.

    It is written by a rename, so that a build that was broken off is never taken for a finished
    one.
    """

    folder: Path
    home: Home

    @property
    def ddl(self) -> Dialect:
        """Of the driver of the standard library."""
        return SQLiteDialect_pysqlite()

    def identity(self) -> str:
        """The version of the library in this process."""
        return f"sqlite {sqlite3.sqlite_version}"

    def templates(self, shelf: str) -> list[Template[Path]]:
        """Those whose manifest is there, and the file with it."""
        complete = []
        for file in (self.folder / shelf).glob("*.json"):
            with suppress(OSError):  # collected at this moment
                content = file.with_suffix(".sqlite")
                manifest = read_manifest(file.read_text(encoding="utf-8"))
                if manifest is not None and content.is_file():
                    complete.append(Template(content, shelf, manifest))
        return sorted(complete, key=lambda template: -template.manifest.built)

    def is_whole(self, template: Template[Path]) -> bool:
        """Whether it has all its pages: a disk may have been full."""
        return is_whole(template.content)

    def used(self, template: Template[Path]) -> None:
        """By the time of its manifest."""
        with suppress(OSError):  # a cache that others fill, read-only here
            template.content.with_suffix(".json").touch()

    @contextmanager
    def locked(self, shelf: str) -> Iterator[float]:
        """By a file, whose time is the one that no test has changed."""
        file = self.folder / shelf / "lock"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()  # about to be used: not to be collected
        lock = FileLock(file, timeout=_LOCK_SECONDS)
        try:
            lock.acquire()
        except Timeout:
            raise TemplateError(
                f"another process has been building a template for {_LOCK_SECONDS} s",
                why="a template is built once for all processes, so that this one waits",
                cause=f"the process that holds {file}",
                fix="end that process; its lock is free at once",
            ) from None
        try:
            yield written_at(file)
        finally:
            lock.release()

    def clear(self, shelf: str) -> None:
        """By the time of the manifests."""
        _collect_unused(self.folder, now=written_at(self.folder / shelf / "lock"))
        _remove_unfinished(self.folder / shelf)

    def begin(self, shelf: str, below: Template[Path] | None) -> FileTarget:
        """A file of a name that nobody else has."""
        target = FileTarget(self.folder / shelf / f"building-{uuid.uuid4().hex}.sqlite")
        if below is not None:
            shutil.copyfile(below.content, target.path)
        return target

    def scratch(self) -> FileTarget:
        """A file of this process that is not there yet."""
        return FileTarget(self.home.path / f"scratch-{uuid.uuid4().hex}")

    def finish(self, target: Target, shelf: str, manifest: Manifest) -> Path:
        """Into one file, without side files."""
        folder = self.folder / shelf
        finished, single = (
            folder / f"{manifest.digest}.sqlite",
            folder / f"single-{uuid.uuid4()}",
        )
        sql.finish_file(Path(target.aim.file), single)
        single.replace(finished)
        single.write_text(manifest.text(), encoding="utf-8")
        single.replace(finished.with_suffix(".json"))
        _remove_unfinished(folder)
        return finished

    def advice(self, error: BaseException) -> str:
        """The driver for async functions is an extra."""
        if isinstance(error, ModuleNotFoundError) and error.name == "aiosqlite":
            return "pip install 'pytest-arena[sqlite]'   (or make the function a plain def)"
        return ""

    def lacks_table(self, error: BaseException) -> bool:
        """As SQLite says it."""
        return "no such table" in str(error)

    def not_stored(self, error: Exception) -> TemplateError | None:
        """A folder that cannot be written to, a full disk."""
        if not isinstance(error, OSError):
            return None
        return TemplateError(
            f"the template cannot be stored: {error}",
            why="schema and seed are built once, into a file that every test's database copies",
            cause=f"the folder {self.folder}, or a full disk",
            fix="ARENA_CACHE=<a folder that you can write to> pytest …",
        )


def _collect_unused(folder: Path, *, now: float) -> None:
    """Remove the templates that nobody has used for two weeks.

    The time is a file's, as those that it is compared with: the test may have changed the clock.
    """
    old = now - _UNUSED_SECONDS
    for shelf in folder.glob("*"):
        for manifest in [
            file for file in shelf.glob("*.json") if written_at(file) < old
        ]:
            manifest.unlink(missing_ok=True)  # first: without it nobody takes the file
            manifest.with_suffix(".sqlite").unlink(missing_ok=True)
        used = max(written_at(shelf), written_at(shelf / "lock"))
        if used < old and not any(shelf.glob("*.json")):
            shutil.rmtree(shelf, ignore_errors=True)


def _remove_unfinished(shelf: Path) -> None:
    """Remove broken builds. Called by the holder of the shelf's lock: nobody else builds there."""
    for file in (*shelf.glob("building-*"), *shelf.glob("single-*")):
        file.unlink(missing_ok=True)
