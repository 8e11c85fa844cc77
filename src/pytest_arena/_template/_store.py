"""Templates in the user's cache: found by their fingerprint, or built once, whoever needs them."""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import json
import os
import shutil
import sqlite3
import threading
import time
import uuid
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from pytest_arena._dialects import _sqlite as sql
from pytest_arena._load import blame
from pytest_arena._template._builders import Builder, schema_builder, seed_builder
from pytest_arena._template._sources import (
    digest_files,
    imported_by,
    opened_files,
    project_files,
    unchanged,
)
from pytest_arena._values import Stage
from pytest_arena.errors import ArenaError, TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

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

    def ensure(
        self, recipe: Recipe, stage: Stage, aimed_at: Callable[[Path], AbstractContextManager[None]]
    ) -> Path | None:
        """Return the template's file, built first where it is not there; None for an empty one.

        ``aimed_at`` leads every engine that connects during the build to the file being built.

        Raises:
            TemplateError: the build failed, or somebody else's takes too long.
        """
        below = self._below(recipe, stage, aimed_at)
        if stage is Stage.EMPTY or not recipe.value(stage):
            return below
        return self._find_or_build(_Build(recipe, stage, below, self.root), aimed_at)

    def _below(
        self, recipe: Recipe, stage: Stage, aimed_at: Callable[[Path], AbstractContextManager[None]]
    ) -> Path | None:
        return self.ensure(recipe, Stage.SCHEMA, aimed_at) if stage is Stage.SEEDED else None

    def _find_or_build(
        self, build: _Build, aimed_at: Callable[[Path], AbstractContextManager[None]]
    ) -> Path:
        shelf = self.folder / build.fingerprint()
        if found := self._find(shelf):
            return found
        with self._locked(shelf):
            return self._find(shelf) or self._build(shelf, build, aimed_at)

    def _find(self, shelf: Path) -> Path | None:
        for manifest in shelf.glob("*.json"):
            if manifest.stat().st_mtime < self.newer_than:
                continue
            if unchanged(json.loads(manifest.read_text()), self.root):
                manifest.touch()  # in use: not to be collected
                return manifest.with_suffix(".sqlite")
        return None

    @contextlib.contextmanager
    def _locked(self, shelf: Path) -> Iterator[None]:
        shelf.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(shelf / "lock", timeout=_LOCK_SECONDS):
                yield
        except Timeout:
            raise TemplateError(
                f"another process has been building a template for {_LOCK_SECONDS} s",
                why="a template is built once for all processes, so that this one waits",
                cause=f"the process that holds {shelf / 'lock'}",
                fix="end that process; its lock is free at once",
            ) from None

    def _build(
        self,
        shelf: Path,
        build: _Build,
        aimed_at: Callable[[Path], AbstractContextManager[None]],
    ) -> Path:
        started = time.perf_counter()
        self._collect_unused()
        unfinished = shelf / f"building-{uuid.uuid4().hex}.sqlite"
        try:
            with opened_files() as opened, aimed_at(unfinished):
                build.run(unfinished)
            return self._finish(shelf, unfinished, build.depends_on(opened))
        finally:
            _remove(unfinished)
            self.built_seconds += time.perf_counter() - started

    def _finish(self, shelf: Path, unfinished: Path, files: set[Path]) -> Path:
        text = json.dumps(digest_files(files, self.root), indent=1)
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        single = shelf / f"single-{uuid.uuid4().hex}"
        sql.finish_file(unfinished, single)
        single.replace(shelf / f"{name}.sqlite")
        single.write_text(text)
        single.replace(shelf / f"{name}.json")
        return shelf / f"{name}.sqlite"

    def _collect_unused(self) -> None:
        """Remove the templates that nobody has used for two weeks, and broken builds."""
        for shelf in self.folder.glob("*"):
            used = [file.stat().st_mtime for file in (shelf, *shelf.glob("*.json"))]
            if max(used) < time.time() - _UNUSED_SECONDS:
                shutil.rmtree(shelf, ignore_errors=True)


def _remove(file: Path) -> None:
    for side in ("", "-wal", "-shm", "-journal"):
        Path(f"{file}{side}").unlink(missing_ok=True)


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

    def fingerprint(self) -> str:
        """A digest of all that can be known before the build; no path of this machine is in it."""
        parts = (
            f"pytest-arena {version('pytest-arena')}",
            f"sqlite {sql.version()} sqlalchemy {version('sqlalchemy')}",
            f"{self.stage.value} {self.recipe.value(self.stage)}",
            self.builder().identity(),
            _digest_of(self.below),
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def run(self, file: Path) -> None:
        if self.below is not None:
            shutil.copyfile(self.below, file)
        try:
            _without_running_loop(lambda: self.builder().build(file))
        except ArenaError:
            raise
        except BaseException as error:
            raise self._failed(error) from error
        if self._is_schema and not _has_tables(file):
            raise self._made_nothing()

    def depends_on(self, opened: set[str]) -> set[Path]:
        sources = list(self.builder().sources())
        return (imported_by(sources) if sources else set()) | project_files(opened, self.root)

    @property
    def _option(self) -> str:
        option = "arena_schema" if self._is_schema else "arena_seed"
        return f"{option} = {self.recipe.value(self.stage)}"

    def _failed(self, error: BaseException) -> TemplateError:
        return TemplateError(
            f"{self._option} failed: {type(error).__name__}: {_first_lines(error)}",
            why="no test can have a database before its template is built",
            cause=str(blame(error) or "no line of yours: see the error above"),
            fix="mend that line; the template is built again by itself"
            + ("" if self._is_schema or self.recipe.schema else "\n(is arena_schema missing?)"),
        )

    def _made_nothing(self) -> TemplateError:
        return TemplateError(
            f"{self._option} made no table",
            why="every test would start with an empty database",
            cause="the modules that define the models were not imported by then, or the "
            "migrations ran on another database",
            fix="name the module that imports all models: arena_schema = app.models:Base",
        )


def _first_lines(error: BaseException) -> str:
    return " ".join(str(error).split("\n[SQL")[0].splitlines()[:2])


def _digest_of(file: Path | None) -> str:
    # Templates are named by the digest of what they were made of, on a shelf named likewise.
    return f"{file.parent.name}/{file.stem}" if file else ""


def _has_tables(file: Path) -> bool:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return sql.has_tables(connection)


def _without_running_loop(call: Callable[[], None]) -> None:
    """Call in this thread if no event loop runs in it, else in another one.

    A builder may call ``asyncio.run``, as Alembic's async ``env.py`` does.
    """
    if not _loop_is_running():
        call()
        return
    failed: list[BaseException] = []
    context = contextvars.copy_context()

    def run() -> None:
        try:
            context.run(call)
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
            failed.append(error)

    thread = threading.Thread(target=run, name="pytest-arena-build")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _loop_is_running() -> bool:
    import asyncio  # noqa: PLC0415 - loaded already wherever a loop runs

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
