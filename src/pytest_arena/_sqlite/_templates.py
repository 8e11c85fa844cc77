"""SQLite's templates: files in the user's cache."""

import os
import re
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import create_engine
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.pool import NullPool

from pytest_arena._product import (
    OF_RUN,
    BuildTarget,
    ConnectTarget,
    Key,
    Manifest,
    ScriptError,
    Template,
    read_manifest,
)
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._home import Home, written_at
from pytest_arena.errors import TemplateError

_LOCK_SECONDS = 600  # longer than a build takes
_UNUSED_SECONDS = 14 * 24 * 3600
_FILE = "template.sqlite"
_HEADER_SIZE = 100
_LARGEST_PAGE = 65536  # this size does not fit into two bytes, so SQLite writes 1
_LEADING_COMMENTS = re.compile(r"^(?:\s|--.*\n)+")


@dataclass(frozen=True, slots=True)
class FileTarget:
    """The file of a build. The first connection creates it."""

    path: Path
    product: str = "SQLite"
    has_schemas: bool = False

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
        """Run a script on an engine's connection, whose ATTACH statements are guarded.

        Raises:
            ScriptError: a statement fails.
        """
        engine = create_engine(self.sync_url, poolclass=NullPool)
        with engine.begin() as connection:
            try:
                dbapi_connection: Any = connection.connection.dbapi_connection
                dbapi_connection.executescript(script)
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                raise ScriptError(text, line=_failing_line(script), fix="") from error

    def has_tables(self) -> bool:
        """Return whether the build has created a table."""
        if not self.path.exists():
            return False
        with closing(sql.open_own(self.path)) as control:
            query = "SELECT 1 FROM sqlite_master WHERE type = 'table'"
            return control.execute(query).fetchone() is not None

    def is_being_written(self) -> bool:
        """Return whether a connection holds the write lock."""
        with closing(sql.open_own(self.path)) as control:
            try:
                with sql.writing(control):
                    return False
            except sqlite3.OperationalError as error:
                if not sql.is_locked(error):
                    raise
                return True

    def remove(self) -> None:
        """Remove the file and its side files."""
        for file in self.path.parent.glob(f"{self.path.name}*"):
            file.unlink(missing_ok=True)


def _failing_line(script: str) -> int:
    """Return the line where the first failing statement begins, 0 if no statement fails alone.

    SQLite does not report the line. So this runs the script again in memory, statement by
    statement.
    """
    start = 0
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as memory:
        for statement in sql.split_script(script):
            try:
                memory.executescript(statement)
            except sqlite3.Error:
                without_comments = _LEADING_COMMENTS.sub("", statement)
                start += len(statement) - len(without_comments)
                return 1 + script.count("\n", 0, start)
            start += len(statement)
    return 0


@dataclass(frozen=True, slots=True)
class FileTemplates:
    """Templates in folders. A template is a file and a manifest.

    The manifest is written last, with a rename, so that an interrupted build is no template. The
    templates of a run are beside the folders of its processes, and end with the last of them.
    """

    keeps = True
    has_schema = False  # a build with a seed copies the schema's template
    words = ""  # the summary says whether a template was built

    folder: Path
    home: Home

    @property
    def ddl(self) -> Dialect:
        """The dialect that compiles the statements for tables."""
        return SQLiteDialect_pysqlite()

    def identity(self) -> str:
        """Return the product and the library's version."""
        return f"sqlite {sqlite3.sqlite_version}"

    def _folder(self, fingerprint: str) -> Path:
        if fingerprint.startswith(OF_RUN):
            return self.home.shared(fingerprint)
        return self.folder / fingerprint

    def templates(self, fingerprint: str) -> list[Template[Path]]:
        """Return the template, if it has a manifest and a file."""
        content = self._folder(fingerprint) / _FILE
        with suppress(OSError):  # another process may be removing the template
            text = content.with_suffix(".json").read_text(encoding="utf-8")
            manifest = read_manifest(text)
            if manifest is not None and content.is_file():
                return [Template(content, fingerprint, manifest)]
        return []

    def is_whole(self, template: Template[Path]) -> bool:
        """Return whether the file has all its pages. The disk may have been full."""
        # https://sqlite.org/fileformat.html#the_database_header
        with template.content.open("rb") as file:
            header = file.read(_HEADER_SIZE)
            size = file.seek(0, os.SEEK_END)
        page_size = int.from_bytes(header[16:18])
        if page_size == 1:
            page_size = _LARGEST_PAGE
        pages = int.from_bytes(header[28:32])
        return size == page_size * pages

    def used(self, template: Template[Path]) -> None:
        """Note the use of a template by its manifest's modification time."""
        with suppress(OSError):  # a read-only cache
            template.content.with_suffix(".json").touch()

    @contextmanager
    def locked(self, fingerprint: str) -> Iterator[float]:
        """Hold a folder's lock. Yield the time of the lock file, which no test can change.

        Raises:
            TemplateError: another process holds the lock for too long.
        """
        file = self._folder(fingerprint) / "lock"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()  # so that no other process removes the folder as unused
        lock = FileLock(file, timeout=_LOCK_SECONDS)
        try:
            lock.acquire()
        except Timeout:
            raise TemplateError(
                f"another process has been building a template for {_LOCK_SECONDS} s",
                why="one process builds a template for all processes, so this process waits",
                cause=f"the process that holds {file}",
                fix="end that process, which releases its lock at once",
            ) from None
        try:
            yield written_at(file)
        finally:
            lock.release()

    def clear(self, fingerprint: str) -> None:
        """Remove old templates and interrupted copies."""
        folder = self._folder(fingerprint)
        _collect_unused(self.folder, now=written_at(folder / "lock"))
        for file in folder.glob("single-*"):
            file.unlink(missing_ok=True)

    def begin(self, fingerprint: str, below: Template[Path] | None) -> FileTarget:
        """Return an unused file for a build, with the content of the template ``below``."""
        del fingerprint  # `finish` copies the file to its folder
        target = FileTarget(self.home.path / f"building-{uuid.uuid4().hex}.sqlite")
        if below is not None:
            shutil.copyfile(below.content, target.path)
        return target

    def finish(self, target: BuildTarget, fingerprint: str, manifest: Manifest) -> Path:
        """Make a template of a finished build. Return its file, which has no side files."""
        folder = self._folder(fingerprint)
        finished = folder / _FILE
        temporary = folder / f"single-{uuid.uuid4()}"
        sql.finish_file(Path(target.connect_target.file), temporary)
        target.remove()
        temporary.replace(finished)
        temporary.write_text(manifest.text(), encoding="utf-8")
        temporary.replace(finished.with_suffix(".json"))
        return finished

    def advice(self, error: BaseException) -> str:
        """Return the next step after a build's error, or ""."""
        if isinstance(error, ModuleNotFoundError) and error.name == "aiosqlite":
            return "pip install 'pytest-arena[sqlite]'   (or make the function a plain def)"
        return ""

    def not_stored(self, error: Exception) -> TemplateError | None:
        """Return the error for a folder that is not writable, or for a full disk."""
        if not isinstance(error, OSError):
            return None
        return TemplateError(
            f"the template cannot be stored: {error}",
            why="pytest-arena builds schema and seed once into a file, and tests use copies of it",
            cause=f"the folder {self.folder}, or a full disk",
            fix="ARENA_CACHE=<a folder that you can write to> pytest …",
        )


def _collect_unused(folder: Path, *, now: float) -> None:
    """Remove the templates that were not used for two weeks.

    ``now`` is a file's time, because a test may have changed the clock.
    """
    old = now - _UNUSED_SECONDS
    for fingerprint in folder.glob("*"):
        for manifest in list(fingerprint.glob("*.json")):
            if written_at(manifest) < old:
                # The manifest is removed first. A file without a manifest is no template.
                manifest.unlink(missing_ok=True)
                manifest.with_suffix(".sqlite").unlink(missing_ok=True)
        used = max(written_at(fingerprint), written_at(fingerprint / "lock"))
        if used < old and not any(fingerprint.glob("*.json")):
            shutil.rmtree(fingerprint, ignore_errors=True)
