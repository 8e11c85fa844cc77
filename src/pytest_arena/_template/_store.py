"""Templates in the user's cache: found by their fingerprint, or built once, whoever needs them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from pytest_arena import _clock
from pytest_arena._dialects import _sqlite as sql
from pytest_arena._dialects._sqlite_file import is_whole
from pytest_arena._template._fingerprint import digest_files, digest_folders, first_change
from pytest_arena._template._sources import Watch, watching
from pytest_arena._template._stage import Recipe, StageBuild
from pytest_arena._values import Stage
from pytest_arena.errors import ArenaError, TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    Aimed = Callable[[Path], AbstractContextManager[None]]

__all__ = ["Store"]

_LOCK_SECONDS = 600  # longer than a build takes; a dead builder's lock is free at once
_UNUSED_SECONDS = 14 * 24 * 3600


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
        build = StageBuild(recipe, stage, below, self.root)
        with _explained(build, self.folder):
            return self._find_or_build(build, aimed_at)

    def _find_or_build(self, build: StageBuild, aimed_at: Aimed) -> Path:
        shelf = self.folder / build.fingerprint()
        if found := self._find(shelf):
            return found
        with self._locked(shelf):
            return self._find(shelf) or self._build(shelf, build, aimed_at)

    def _find(self, shelf: Path) -> Path | None:
        for manifest in _manifests(shelf):
            fresh = manifest.built >= self.newer_than and not manifest.change(self.root)
            if fresh and is_whole(manifest.template):
                with contextlib.suppress(OSError):  # a cache that others fill, read-only here
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

    def _build(self, shelf: Path, build: StageBuild, aimed_at: Aimed) -> Path:
        started = _clock.seconds()
        self.reasons.append(self._reason(shelf, build))
        _collect_unused(self.folder, now=_used(shelf / "lock"))
        _remove_unfinished(shelf)
        unfinished = shelf / f"building-{uuid.uuid4().hex}.sqlite"
        try:
            with watching(self.folder) as watch, aimed_at(unfinished):
                build.run(unfinished)
            return self._finish(shelf, unfinished, build.sources(), watch)
        finally:
            _remove_unfinished(shelf)
            self.built_seconds += _clock.seconds() - started

    def _reason(self, shelf: Path, build: StageBuild) -> str:
        """Why the templates that are there are not good enough; "" where there is none."""
        newest = next(iter(_manifests(shelf)), None)
        changed = newest.change(self.root) if newest else ""
        return f"{build.option}: {changed} has changed" if changed else ""

    def _finish(self, shelf: Path, unfinished: Path, sources: set[Path], watch: Watch) -> Path:
        files = digest_files(sources | watch.files(self.root), self.root)
        content = {"files": files, "folders": digest_folders(watch, self.root)}
        name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        single, built = shelf / f"single-{uuid.uuid4().hex}", _used(shelf / "lock")
        sql.finish_file(unfinished, single)
        single.replace(shelf / f"{name}.sqlite")
        single.write_text(json.dumps({"built": built, **content}, indent=1), encoding="utf-8")
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


def _collect_unused(folder: Path, *, now: float) -> None:
    """Remove the templates that nobody has used for two weeks.

    The time is a file's, as those that it is compared with: the test may have changed the clock.
    """
    old = now - _UNUSED_SECONDS
    for shelf in folder.glob("*"):
        for manifest in [one for one in shelf.glob("*.json") if _used(one) < old]:
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
def _explained(build: StageBuild, folder: Path) -> Iterator[None]:
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
