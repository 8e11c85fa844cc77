"""Templates of all projects: found by their fingerprint, or built once, whoever needs them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic

from pytest_arena import _clock
from pytest_arena._databases._fingerprint import digest_files, digest_folders, first_change
from pytest_arena._databases._sources import Watch, watching
from pytest_arena._databases._stage import Recipe, StageBuild
from pytest_arena._product import ContentT, Manifest, Template
from pytest_arena._values import Stage
from pytest_arena.errors import ArenaError, TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pytest_arena._product import Shelves, Target

    Aimed = Callable[[Target], AbstractContextManager[None]]

__all__ = ["Store"]


@dataclass(slots=True)
class Store(Generic[ContentT]):
    """The templates on some shelves, for one project.

    Finding one costs a read of the files that its build depended on.
    """

    shelves: Shelves[ContentT]
    root: Path
    newer_than: float = 0.0
    built_seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)

    def ensure(self, recipe: Recipe, stage: Stage, aimed_at: Aimed) -> ContentT | None:
        """Return the template's content, built first where it is not there; None for an empty one.

        ``aimed_at`` leads every engine that connects during the build to the target.

        Raises:
            TemplateError: the build failed, or somebody else's takes too long.
        """
        template = self._ensure(recipe, stage, aimed_at)
        return template.content if template else None

    def _ensure(self, recipe: Recipe, stage: Stage, aimed_at: Aimed) -> Template[ContentT] | None:
        below = self._ensure(recipe, Stage.SCHEMA, aimed_at) if stage is Stage.SEEDED else None
        if stage is Stage.EMPTY or not recipe.value(stage):
            return below
        build = StageBuild(recipe, stage, below, self.root, self.shelves)
        with self._explained(build):
            return self._find_or_build(build, aimed_at)

    def _find_or_build(self, build: StageBuild[ContentT], aimed_at: Aimed) -> Template[ContentT]:
        shelf = build.fingerprint()
        if found := self._find(shelf):
            return found
        with self.shelves.locked(shelf) as now:
            return self._find(shelf) or self._build(shelf, build, aimed_at, now=now)

    def _find(self, shelf: str) -> Template[ContentT] | None:
        for template in self.shelves.templates(shelf):
            manifest = template.manifest
            if manifest.built >= self.newer_than and not self._change(manifest):
                self.shelves.used(template)  # not to be collected, if it is still there
                if self.shelves.is_whole(template):
                    return template
        return None

    def _build(
        self, shelf: str, build: StageBuild[ContentT], aimed_at: Aimed, *, now: float
    ) -> Template[ContentT]:
        started = _clock.seconds()
        self.reasons.append(self._reason(shelf, build))
        try:
            self.shelves.clear(shelf)
            target = self.shelves.begin(shelf, build.below)
            with _removed_if_it_fails(target):
                with watching(self.shelves.folder) as watch, aimed_at(target):
                    build.run(target)
                manifest = self._manifest(build.sources(), watch, now)
                content = self.shelves.finish(target, shelf, manifest)
            return Template(content, shelf, manifest)
        finally:
            self.built_seconds += _clock.seconds() - started

    def _reason(self, shelf: str, build: StageBuild[ContentT]) -> str:
        """Why the templates that are there are not good enough; "" where there is none."""
        newest = next(iter(self.shelves.templates(shelf)), None)
        changed = self._change(newest.manifest) if newest else ""
        return f"{build.option}: {changed} has changed" if changed else ""

    def _change(self, manifest: Manifest) -> str:
        """What has changed since it was built, "" if nothing has."""
        return first_change(manifest.files, manifest.folders, self.root)

    def _manifest(self, sources: set[Path], watch: Watch, built: float) -> Manifest:
        files = digest_files(sources | watch.files(self.root), self.root)
        return Manifest(built, files, digest_folders(watch, self.root))

    @contextlib.contextmanager
    def _explained(self, build: StageBuild[ContentT]) -> Iterator[None]:
        """Whatever goes wrong around a build is said once, in full, as a TemplateError."""
        try:
            yield
        except TemplateError:
            raise
        except ArenaError as error:
            raise build.refused(error) from error
        except Exception as error:
            raise (self.shelves.not_stored(error) or build.failed(error)) from error


@contextlib.contextmanager
def _removed_if_it_fails(target: Target) -> Iterator[None]:
    try:
        yield
    except BaseException:  # Ctrl-C as well
        target.remove()
        raise
