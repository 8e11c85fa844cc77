"""How is a template found by its fingerprint, or built once, stage by stage?"""

from __future__ import annotations

import contextvars
import hashlib
import logging
import os
import sys
import threading
import weakref
from contextlib import AbstractContextManager, chdir, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Generic
from unittest.mock import patch

from pytest_arena import _process
from pytest_arena._config._load import blame, described, home_of
from pytest_arena._databases import _sources
from pytest_arena._databases._builders import (
    AlembicBuilder,
    model_files,
    schema_builder,
    seed_builder,
    suggested_schema,
)
from pytest_arena._databases._migrations import Comparison
from pytest_arena._product import (
    Aim,
    ContentT,
    Database,
    Key,
    Manifest,
    Shelves,
    Target,
    Template,
)
from pytest_arena._values import Stage
from pytest_arena.errors import ArenaError, TemplateError, causes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._databases._builders import Builder

    Aimed = Callable[[Target], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a database is made of: values of ``arena_schema`` and ``arena_seed``, or nothing."""

    schema: str
    seed: str

    def value(self, stage: Stage) -> str:
        """The value that this stage is made by."""
        return self.schema if stage is Stage.SCHEMA else self.seed

    def __str__(self) -> str:
        """As the options were given."""
        options = {"arena_schema": self.schema, "arena_seed": self.seed}
        return " or ".join(
            f"{name} = {value}" for name, value in options.items() if value
        )


@dataclass(frozen=True, slots=True)
class StageBuild(Generic[ContentT]):
    """One stage of one recipe, above the template of the stage below."""

    recipe: Recipe
    stage: Stage
    below: Template[ContentT] | None
    root: Path
    shelves: Shelves[ContentT]
    compares: bool = False
    """Whether to compare a database that migrations build with the models."""

    def builder(self) -> Builder:
        """Return what fills the database."""
        value = self.recipe.value(self.stage)
        return (
            schema_builder(value, self.root) if self._is_schema else seed_builder(value)
        )

    @property
    def _is_schema(self) -> bool:
        return self.stage is Stage.SCHEMA

    @property
    def option(self) -> str:
        """The option that names the builder, as it was given."""
        name = "arena_schema" if self._is_schema else "arena_seed"
        return f"{name} = {self.recipe.value(self.stage)}"

    @property
    def title(self) -> str:
        """What is built, the same for each version of it."""
        return f"{self.stage.value} {Path(self.recipe.value(self.stage)).name}"

    def fingerprint(self) -> str:
        """A digest of all that can be known before the build; no path of this machine is in it."""
        parts = (
            f"pytest-arena {version('pytest-arena')}",
            f"{self.shelves.identity()} sqlalchemy {version('sqlalchemy')}",
            self.title,
            self.builder().identity(self.shelves.ddl),
            self.below.digest if self.below else "",
            "compared" if self._compared_migrations() else "",
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def _compared_migrations(self) -> AlembicBuilder | None:
        """Return the migrations to compare with the models, or None."""
        builder = self.builder()
        if self.compares and isinstance(builder, AlembicBuilder):
            return builder
        return None

    def code(self) -> set[Path]:
        """Return the files of code on which the build and the comparison depend."""
        code = _sources.imported_by(self.builder().sources())
        if self._compared_migrations():
            # The app may import the models, and env.py may not.
            code.update(file.resolve() for file in model_files())
        return code

    def compare(self) -> Comparison:
        """Compare the filled database with the models, if ``compares`` is set."""
        migrations = self._compared_migrations()
        if migrations is None:
            return Comparison()
        comparisons: list[Comparison] = []
        run_apart(lambda: comparisons.append(migrations.compare()))
        return comparisons[0]

    def run(self, target: Target) -> None:
        """Fill a database, which has the content of the template below.

        Raises:
            TemplateError: the builder failed, left a transaction open, or made no table.
        """
        builder = (
            self.builder()
        )  # in this thread, which may be importing what the option names
        try:
            run_apart(lambda: builder.build(target))
        except (ArenaError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit, pytest's own outcomes
            raise self.failed(error) from error
        if target.is_being_written():
            raise TemplateError(
                f"{self.option} failed: it left a transaction open on a connection of its own",
                why="what is not committed is not in the template: every test would start without "
                "it",
                cause=self._home(),
                fix="commit and close what it opens: with engine.begin() as connection: …",
            )
        if self._is_schema and not target.has_tables():
            raise TemplateError(
                f"{self.option} made no table",
                why="every test would start with an empty database",
                cause="the modules that define the models were not imported by then, or the "
                "tables were made in another database or another process",
                fix="name the module that imports all models: "
                f"arena_schema = {suggested_schema(self.root) or _EXAMPLE}",
            )

    def failed(self, error: BaseException) -> TemplateError:
        """Return the error for one that the user's code has raised."""
        lines = filter(None, map(blame, causes(error)))  # the user's innermost in each
        return TemplateError(
            f"{self.option} failed: {described(error)}",
            why="no test can have a database before its template is built",
            cause=str(next(lines, "") or self._home()),
            fix=self._next_step(error),
        )

    def _home(self) -> str:
        """Where the function stands, for an error that comes after it, at the commit."""
        function = getattr(self.builder(), "function", None)
        return str(home_of(function) or self.option)

    def _next_step(self, error: BaseException) -> str:
        if self._is_schema or not self.shelves.lacks_table(error):
            known = self.shelves.advice(error)
            if known:
                return known
            again = "mend that line; the next run builds the template again by itself"
            if self._is_schema and str(self.recipe.schema).endswith(".ini"):
                return (
                    f"{again}; or run the migrations as your app does: {_BY_FUNCTION}"
                )
            return again
        if self.recipe.schema:
            return f"add the table to what arena_schema = {self.recipe.schema} makes"
        likely = suggested_schema(self.root) or _EXAMPLE
        return (
            f"arena_schema = {likely}   (the seed runs before the app makes any table)"
        )


_BY_FUNCTION = "arena_schema = <module>:<function>"
_EXAMPLE = "<module>:<Base>"  # where nothing is known that could be pasted


@dataclass(slots=True)
class Store(Generic[ContentT]):
    """The templates on some shelves, for one project.

    Finding one costs a read of the files that its build depended on.
    """

    shelves: Shelves[ContentT]
    root: Path
    newer_than: float = 0.0
    compares: bool = False
    """Whether to compare databases that migrations build with the models."""
    built_seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    """Comparisons that found differences, or failed, by the value of ``arena_schema``."""

    def ensure(self, recipe: Recipe, stage: Stage, aimed_at: Aimed) -> ContentT | None:
        """Return the template's content, built first where it is not there; None for an empty one.

        ``aimed_at`` leads every engine that connects during the build to the target.

        Raises:
            TemplateError: the build failed, or somebody else's takes too long.
        """
        template = self._ensure(recipe, stage, aimed_at)
        return template.content if template else None

    def _ensure(
        self, recipe: Recipe, stage: Stage, aimed_at: Aimed
    ) -> Template[ContentT] | None:
        below = (
            self._ensure(recipe, Stage.SCHEMA, aimed_at)
            if stage is Stage.SEEDED
            else None
        )
        if stage is Stage.EMPTY or not recipe.value(stage):
            return below
        build = StageBuild(recipe, stage, below, self.root, self.shelves, self.compares)
        template = self._find_or_build(build, aimed_at)
        manifest = template.manifest
        if manifest.differences or manifest.not_compared:
            self.comparisons[recipe.schema] = Comparison(
                tuple(manifest.differences),
                manifest.not_compared,
                tuple(manifest.heads),
            )
        return template

    def _find_or_build(
        self, build: StageBuild[ContentT], aimed_at: Aimed
    ) -> Template[ContentT]:
        try:
            shelf = build.fingerprint()
            if found := self._find(shelf):
                return found
            with self.shelves.locked(shelf) as now:
                return self._find(shelf) or self._build(shelf, build, aimed_at, now=now)
        except TemplateError:
            raise
        except ArenaError as error:
            raise TemplateError(
                f"{build.option} failed: {error.what}",
                why=error.why,
                cause=error.cause,
                fix=error.fix,
            ) from error
        except Exception as error:
            raise (self.shelves.not_stored(error) or build.failed(error)) from error

    def _find(self, shelf: str) -> Template[ContentT] | None:
        for template in self.shelves.templates(shelf):
            manifest = template.manifest
            if manifest.built >= self.newer_than and not _sources.first_change(
                manifest, self.root
            ):
                self.shelves.used(template)  # not to be collected, if it is still there
                if self.shelves.is_whole(template):
                    return template
        return None

    def _build(
        self, shelf: str, build: StageBuild[ContentT], aimed_at: Aimed, *, now: float
    ) -> Template[ContentT]:
        started = _process.seconds()
        newest = next(iter(self.shelves.templates(shelf)), None)
        changed = _sources.first_change(newest.manifest, self.root) if newest else ""
        # Why the templates that are there are not good enough.
        self.reasons.append(f"{build.option}: {changed} has changed" if changed else "")
        self.shelves.clear(shelf)
        target = self.shelves.begin(shelf, build.below)
        try:
            with _sources.watching(self.shelves.folder) as watch, aimed_at(target):
                build.run(target)
                comparison = build.compare()
            code = build.code()
            watch.add_imports(code)
            files = _sources.digest_files(code | watch.files(self.root), self.root)
            folders = _sources.digest_folders(watch, self.root)
            manifest = Manifest(
                now,
                files,
                folders,
                build.title,
                comparison.differences,
                comparison.failure,
                comparison.heads,
            )
            content = self.shelves.finish(target, shelf, manifest)
        except BaseException:  # Ctrl-C as well
            target.remove()
            raise
        finally:
            self.built_seconds += _process.seconds() - started
        return Template(content, shelf, manifest)


# Which engines land in a template that is built, and what is left of the process?


def run_apart(call: Callable[[], None]) -> None:
    """Call in a thread of its own, and give the process back as it was.

    In a thread, since a builder may call ``asyncio.run`` (Alembic's async ``env.py`` does): that
    is forbidden where a loop runs, and elsewhere takes the main thread's loop away. Back as it
    was, since the next run finds the template in the cache and must not meet another process.

    In this thread where it is importing a module: another one that imports it too would wait for
    this one, which waits for the build.
    """
    with _process_as_it_was():
        if _is_importing() and _process.running_loop() is None:
            call()
        else:
            _call_in_thread(call)


def _call_in_thread(call: Callable[[], None]) -> None:
    failed: list[BaseException] = []
    context = contextvars.copy_context()

    def run() -> None:
        try:
            context.run(call)
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
            failed.append(error)

    # A daemon: after Ctrl-C nobody waits for it.
    thread = threading.Thread(target=run, name="pytest-arena-build", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _is_importing() -> bool:
    frame = sys._getframe()  # noqa: SLF001 - the documented way to a caller's frame
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
    return False


@contextmanager
def _process_as_it_was() -> Iterator[None]:
    """Take back what a builder does to the process.

    A ``dictConfig`` or ``fileConfig`` of logging disables every logger of the app, and closes every
    handler first, pytest's as well, by ``logging.shutdown``.
    """
    states = {logger: _state(logger) for logger in _loggers()}
    path, shutdown = (
        patch.object(sys, "path", sys.path[:]),
        patch.object(logging, "shutdown"),
    )
    try:
        with chdir("."), patch.dict(os.environ), path, shutdown:
            yield
    finally:
        for logger in _loggers():
            state = states.get(logger, ([], logging.NOTSET, False, True))
            logger.handlers[:], level, logger.disabled, logger.propagate = state
            logger.setLevel(level)


def _loggers() -> list[logging.Logger]:
    known = list(logging.root.manager.loggerDict.values())
    return [logging.root, *(item for item in known if isinstance(item, logging.Logger))]


def _state(logger: logging.Logger) -> tuple[list[logging.Handler], int, bool, bool]:
    return logger.handlers[:], logger.level, logger.disabled, logger.propagate


@dataclass(slots=True, eq=False)
class BuildAim:
    """A template in the making. ``others`` stand for the app's other databases meanwhile."""

    database: Database
    options: str  # as they were given
    target: Target
    others: dict[Database, Target] = field(default_factory=dict)

    def aim(self, other: Database | None) -> Aim:
        """Return where an engine lands that the builder uses.

        One on another database of the app lands in an empty one, which is thrown away: a template
        is one database's.
        """
        if other is None or other is self.database:
            return self.target.aim
        if other not in self.others:
            self.others[other] = other.product.shelves(other.dialect).scratch()
        return self.others[other].aim

    def current(self, key: Key) -> Aim | None:
        """Return where a connection that was opened with this key lands now."""
        aims = [target.aim for target in (self.target, *self.others.values())]
        return next((aim for aim in aims if aim.key == key), None)

    def check(self) -> None:
        """Raise a TemplateError where the builder has made tables in another database."""
        written = [
            other.name for other, target in self.others.items() if target.has_tables()
        ]
        for target in self.others.values():
            target.remove()
        if written:
            raise TemplateError(
                f"building {self.database.name} made tables in another database: "
                f"{', '.join(written)}",
                why="each database of the app is built by itself, and kept by itself",
                cause=f"{self.options} works on another engine as well, or on an attached file",
                fix="arena_schema =   (and arena_seed alike: a line for each database)\n"
                + "\n".join(
                    f"    {name} = module:its_function"
                    for name in (self.database.name, *written)
                ),
            )


class Builds:
    """The builds that are under way, and whose they are.

    A build's own context knows it. A thread that a builder starts has no context of its own, and
    is marked when it starts. Anybody else waits for the template.
    """

    def __init__(self) -> None:
        self._context: ContextVar[BuildAim | None] = ContextVar(
            "arena_build", default=None
        )
        self.running: list[BuildAim] = []
        self._threads: weakref.WeakKeyDictionary[threading.Thread, BuildAim] = (
            weakref.WeakKeyDictionary()
        )
        self._changing = threading.Lock()
        self._marking = patch.object(threading.Thread, "start", self._marked_start())

    def now(self) -> BuildAim | None:
        """Return the build that the caller is a part of."""
        build = self._context.get() or self._threads.get(threading.current_thread())
        return build if build in self.running else None

    @contextmanager
    def around(self, build: BuildAim) -> Iterator[None]:
        """Around a build."""
        token = self._context.set(build)
        with self._changing:
            self.running.append(build)
            if len(self.running) == 1:
                self._marking.start()
        try:
            yield
            build.check()
        finally:
            with self._changing:
                self.running.remove(build)
                if not self.running:
                    self._marking.stop()
            self._context.reset(token)

    def _marked_start(self) -> Callable[[threading.Thread], None]:
        start = threading.Thread.start

        @wraps(start)
        def marked(thread: threading.Thread) -> None:
            if (build := self.now()) is not None:
                self._threads[thread] = build
            start(thread)

        return marked
