"""Templates in the user's cache: found by their fingerprint, or built once, whoever needs them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sqlite3
import time
import uuid
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from pytest_arena._dialects import _sqlite as sql
from pytest_arena._load import blame, described, home_of
from pytest_arena._template._builders import Builder, schema_builder, seed_builder
from pytest_arena._template._process import run_apart
from pytest_arena._template._sources import (
    Watch,
    digest_files,
    digest_folders,
    first_change,
    imported_by,
    watching,
)
from pytest_arena._template._suggest import suggested_schema
from pytest_arena._values import Stage
from pytest_arena.errors import ArenaError, TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Aimed = Callable[[Path], AbstractContextManager[None]]

__all__ = ["Recipe", "Store"]

_LOCK_SECONDS = 600  # longer than a build takes; a dead builder's lock is free at once
_UNUSED_SECONDS = 14 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a database is made of: values of ``arena_schema`` and ``arena_seed``, or nothing."""

    schema: str
    seed: str

    def value(self, stage: Stage) -> str:
        """The value that this stage is made by."""
        return self.schema if stage is Stage.SCHEMA else self.seed


@dataclass(slots=True)
class Store:
    """The templates of all projects of this user.

    A template is a file and a manifest; the manifest is written last, by a rename, so that a
    build that was broken off is never taken for a finished one. Finding costs a read of the
    files that the build depended on.
    """

    folder: Path
    root: Path
    newer_than: float = 0.0
    built_seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)

    def ensure(self, recipe: Recipe, stage: Stage, aimed_at: Aimed) -> Path | None:
        """Return the template's file, built first where it is not there; None for an empty one.

        ``aimed_at`` leads every engine that connects during the build to the file being built.

        Raises:
            TemplateError: the build failed, or somebody else's takes too long.
        """
        below = self.ensure(recipe, Stage.SCHEMA, aimed_at) if stage is Stage.SEEDED else None
        if stage is Stage.EMPTY or not recipe.value(stage):
            return below
        build = _Build(recipe, stage, below, self.root)
        with _explained(build, self.folder):
            return self._find_or_build(build, aimed_at)

    def _find_or_build(self, build: _Build, aimed_at: Aimed) -> Path:
        shelf = self.folder / build.fingerprint()
        if found := self._find(shelf):
            return found
        with self._locked(shelf):
            return self._find(shelf) or self._build(shelf, build, aimed_at)

    def _find(self, shelf: Path) -> Path | None:
        for manifest in _manifests(shelf):
            fresh = manifest.built >= self.newer_than and not manifest.change(self.root)
            if fresh and sql.is_whole(manifest.template):
                manifest.file.touch()  # in use: not to be collected
                return manifest.template
        return None

    @contextlib.contextmanager
    def _locked(self, shelf: Path) -> Iterator[None]:
        shelf.mkdir(parents=True, exist_ok=True)
        (shelf / "lock").touch()  # about to be used: not to be collected
        lock = FileLock(shelf / "lock", timeout=_LOCK_SECONDS)
        try:
            lock.acquire()
        except Timeout:
            raise TemplateError(
                f"another process has been building a template for {_LOCK_SECONDS} s",
                why="a template is built once for all processes, so that this one waits",
                cause=f"the process that holds {shelf / 'lock'}",
                fix="end that process; its lock is free at once",
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _build(self, shelf: Path, build: _Build, aimed_at: Aimed) -> Path:
        started = time.perf_counter()
        self.reasons.append(self._reason(shelf, build))
        _collect_unused(self.folder)
        _remove_unfinished(shelf)
        unfinished = shelf / f"building-{uuid.uuid4().hex}.sqlite"
        try:
            with watching(self.folder) as watch, aimed_at(unfinished):
                build.run(unfinished)
            return self._finish(shelf, unfinished, build.sources(), watch)
        finally:
            _remove_unfinished(shelf)
            self.built_seconds += time.perf_counter() - started

    def _reason(self, shelf: Path, build: _Build) -> str:
        """Why the templates that are there are not good enough; "" where there is none."""
        newest = next(iter(_manifests(shelf)), None)
        changed = newest.change(self.root) if newest else ""
        return f"{build.option}: {changed} has changed" if changed else ""

    def _finish(self, shelf: Path, unfinished: Path, sources: set[Path], watch: Watch) -> Path:
        files = digest_files(sources | watch.files(self.root), self.root)
        content = {"files": files, "folders": digest_folders(watch, self.root)}
        name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        single = shelf / f"single-{uuid.uuid4().hex}"
        sql.finish_file(unfinished, single)
        single.replace(shelf / f"{name}.sqlite")
        single.write_text(json.dumps({"built": time.time(), **content}, indent=1), encoding="utf-8")
        single.replace(shelf / f"{name}.json")
        return shelf / f"{name}.sqlite"


@dataclass(frozen=True, slots=True)
class _Manifest:
    """What a finished template was made of, and when."""

    file: Path
    built: float
    files: dict[str, list[str]]
    folders: dict[str, list[str]]

    @property
    def template(self) -> Path:
        return self.file.with_suffix(".sqlite")

    def change(self, root: Path) -> str:
        return first_change(self.files, self.folders, root)


def _manifests(shelf: Path) -> list[_Manifest]:
    """The finished templates of a shelf, the newest first."""
    found = [_read(file) for file in shelf.glob("*.json")]
    complete = [one for one in found if one is not None and one.template.is_file()]
    return sorted(complete, key=lambda one: -one.built)


def _read(file: Path) -> _Manifest | None:
    try:
        return _Manifest(file, **json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # collected at this moment, or another version's


def _collect_unused(folder: Path) -> None:
    """Remove the templates that nobody has used for two weeks."""
    old = time.time() - _UNUSED_SECONDS
    for shelf in folder.glob("*"):
        for manifest in shelf.glob("*.json"):
            if _used(manifest) < old:
                manifest.unlink(missing_ok=True)  # first: without it nobody takes the file
                manifest.with_suffix(".sqlite").unlink(missing_ok=True)
        if not any(shelf.glob("*.json")) and max(_used(shelf), _used(shelf / "lock")) < old:
            shutil.rmtree(shelf, ignore_errors=True)


def _used(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _remove_unfinished(shelf: Path) -> None:
    """Remove broken builds. Called by the holder of the shelf's lock: nobody else builds there."""
    for file in (*shelf.glob("building-*"), *shelf.glob("single-*")):
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def _explained(build: _Build, folder: Path) -> Iterator[None]:
    """Whatever goes wrong around a build is said once, in full, as a TemplateError."""
    try:
        yield
    except TemplateError:
        raise
    except ArenaError as error:
        raise build.refused(error) from error
    except OSError as error:
        raise TemplateError(
            f"the template cannot be stored: {error}",
            why="schema and seed are built once, into a file that every test's database copies",
            cause=f"the folder {folder}, or a full disk",
            fix="ARENA_CACHE=<a folder that you can write to> pytest …",
        ) from error
    except Exception as error:
        raise build.failed(error) from error


@dataclass(frozen=True, slots=True)
class _Build:
    """One stage of one recipe, above the template of the stage below."""

    recipe: Recipe
    stage: Stage
    below: Path | None
    root: Path

    def builder(self) -> Builder:
        value = self.recipe.value(self.stage)
        return schema_builder(value, self.root) if self._is_schema else seed_builder(value)

    @property
    def _is_schema(self) -> bool:
        return self.stage is Stage.SCHEMA

    @property
    def option(self) -> str:
        name = "arena_schema" if self._is_schema else "arena_seed"
        return f"{name} = {self.recipe.value(self.stage)}"

    def fingerprint(self) -> str:
        """A digest of all that can be known before the build; no path of this machine is in it."""
        parts = (
            f"pytest-arena {version('pytest-arena')}",
            f"sqlite {sql.version()} sqlalchemy {version('sqlalchemy')}",
            f"{self.stage.value} {_without_folder(self.recipe.value(self.stage))}",
            self.builder().identity(),
            _digest_of(self.below),
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def run(self, file: Path) -> None:
        if self.below is not None:
            shutil.copyfile(self.below, file)
        builder = self.builder()  # in this thread, which may be importing what the option names
        try:
            run_apart(lambda: builder.build(file))
        except (ArenaError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit, pytest's own outcomes
            raise self.failed(error) from error
        if _is_being_written(file):
            raise self._not_committed()
        if self._is_schema and not _has_tables(file):
            raise self._made_nothing()

    def sources(self) -> set[Path]:
        return imported_by(self.builder().sources())

    def failed(self, error: BaseException) -> TemplateError:
        return TemplateError(
            f"{self.option} failed: {described(error)}",
            why="no test can have a database before its template is built",
            cause=_line_in(error) or self._home(),
            fix=self._next_step(error),
        )

    def _home(self) -> str:
        """Where the function stands, for an error that comes after it, at the commit."""
        function = getattr(self.builder(), "function", None)
        return str(home_of(function) or self.option)

    def _next_step(self, error: BaseException) -> str:
        if isinstance(error, ModuleNotFoundError) and error.name == "aiosqlite":
            return "pip install 'pytest-arena[sqlite]'   (or make the function a plain def)"
        if "no such table" in str(error) and not self._is_schema:
            return self._schema_step()
        return "mend that line; the next run builds the template again by itself"

    def _schema_step(self) -> str:
        if self.recipe.schema:
            return f"add the table to what arena_schema = {self.recipe.schema} makes"
        likely = suggested_schema(self.root)
        return f"arena_schema = {likely}   (the seed runs before the app makes any table)"

    def refused(self, error: ArenaError) -> TemplateError:
        return TemplateError(
            f"{self.option} failed: {error.what}",
            why=error.why,
            cause=error.cause,
            fix=error.fix,
        )

    def _not_committed(self) -> TemplateError:
        return TemplateError(
            f"{self.option} failed: it left a transaction open on a connection of its own",
            why="what is not committed is not in the template: every test would start without it",
            cause=self._home(),
            fix="commit and close what it opens: with engine.begin() as connection: …",
        )

    def _made_nothing(self) -> TemplateError:
        return TemplateError(
            f"{self.option} made no table",
            why="every test would start with an empty database",
            cause="the modules that define the models were not imported by then, or the "
            "tables were made in another database or another process",
            fix="name the module that imports all models: "
            f"arena_schema = {suggested_schema(self.root)}",
        )


def _without_folder(value: str) -> str:
    """Where a file lies is none of the template's business; what stands in it is."""
    return Path(value).name


def _line_in(error: BaseException | None) -> str:
    """The innermost line of the user's in the error, or else in what it was raised from."""
    while error is not None:
        if line := blame(error):
            return str(line)
        error = error.__cause__ or error.__context__
    return ""


def _digest_of(file: Path | None) -> str:
    # Templates are named by the digest of what they were made of, on a shelf named likewise.
    return f"{file.parent.name}/{file.stem}" if file else ""


def _is_being_written(file: Path) -> bool:
    with contextlib.closing(sql.open_control(file)) as control:
        try:
            sql.begin_writing(control)
        except sql.Busy:
            return True
        sql.stop_writing(control)
    return False


def _has_tables(file: Path) -> bool:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return sql.has_tables(connection)
