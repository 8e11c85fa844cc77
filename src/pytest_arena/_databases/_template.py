"""Finds a template by its fingerprint, or builds it once."""

from __future__ import annotations

import contextvars
import logging
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

from sqlalchemy.exc import CompileError

from pytest_arena import _process
from pytest_arena._config._load import blame, described, line_of_function, next_step
from pytest_arena._config._supported import kind_of_error
from pytest_arena._databases._builders import (
    AlembicBuilder,
    apart_from_migrations,
    digest_of_files,
    model_files,
    schema_builder,
    seed_builder,
    suggested_schema,
)
from pytest_arena._databases._refusals import OTHER_DATABASE_IN_BUILD
from pytest_arena._origin import is_importing
from pytest_arena._product import (
    OF_RUN,
    BuildTarget,
    ConnectTarget,
    Database,
    Manifest,
    Template,
    TemplateStore,
)
from pytest_arena._values import Stage, digest
from pytest_arena.errors import ArenaError, TemplateError, causes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._databases._builders import Builder
    from pytest_arena._process import Answer


class Recipe(NamedTuple):
    """The values of ``arena_schema`` and ``arena_seed`` for a database, "" for no value."""

    schema: str
    seed: str


@dataclass(frozen=True, slots=True)
class StageBuild:
    """One stage of a recipe. It starts from the template of the stage below."""

    value: str  # of the option
    stage: Stage
    builder: Builder
    below: Template | None
    root: Path
    template_store: TemplateStore

    @property
    def option(self) -> str:
        """The option that names the builder, as the user wrote it."""
        name = "arena_schema" if self.stage is Stage.SCHEMA else "arena_seed"
        return f"{name} = {self.value}"

    @property
    def title(self) -> str:
        """A name for all versions of this stage."""
        return f"{self.stage.value} {Path(self.value).name}"

    def fingerprint(self) -> str:
        """Return a digest of everything that decides the result, without paths of this machine.

        A builder whose result is not decided by texts or files gets the id of the run.
        """
        identity = self.builder.identity(self.template_store.ddl_dialect())
        parts = [
            f"pytest-arena {version('pytest-arena')}",
            f"{self.template_store.identity()} sqlalchemy {version('sqlalchemy')}",
            self.title,
            identity or "",
            self.below.fingerprint if self.below else "",
        ]
        if isinstance(self.builder, AlembicBuilder):
            parts.append(f"compared with {digest_of_files(model_files())}")
        if identity is not None:
            return digest("\n".join(parts))[:32]
        # A process that a test starts inherits the id of xdist, and may test another project.
        parts.append(f"{_process.run_id()} {self.root}")
        return OF_RUN + digest("\n".join(parts))[:32]

    @apart_from_migrations()
    def run(self, target: BuildTarget) -> str:
        """Fill a database. Return how the migrations differ from the models.

        Raises:
            TemplateError: the builder failed, left a transaction open, or created no table.
        """
        try:
            run_apart(partial(self.builder.build, target))
        except (TemplateError, KeyboardInterrupt):
            raise
        except BaseException as error:  # also SystemExit and pytest.skip()
            if _process.by_timeout(error):
                raise
            raise self.failed(error) from error
        if target.is_being_written():
            raise TemplateError(
                f"{self.option} failed: it left a transaction open on a connection that it opened",
                why="the template has only committed rows. Each test would lack the others",
                cause=self._home(),
                fix="commit and close the connection: with engine.begin() as connection: …",
            )
        if self.stage is Stage.SCHEMA and not target.has_tables():
            raise TemplateError(
                f"{self.option} created no table",
                why="each test would start with an empty database",
                cause="the modules of the models are not imported, or the builder created the "
                "tables in another database",
                fix="name the module that imports all models: arena_schema = <module>:<Base>",
            )
        if isinstance(self.builder, AlembicBuilder):
            return run_apart(self.builder.check)
        return ""

    def failed(self, error: BaseException) -> TemplateError:
        """Return the error to raise for an error of the user's code."""
        # The line of the first cause that has a line of the user's code.
        line = next(filter(None, map(blame, causes(error))), None)
        cause = str(line or self._home())
        fix = next_step(error) or self.template_store.advice(error)
        if isinstance(error, OSError) and line is None:
            fix = "ARENA_CACHE=<a folder that you can write to> pytest …"
        elif isinstance(error, CompileError):
            fix = "a type that this database has: String(50), or …with_variant(String(50), …)"
        elif self.stage is Stage.SEEDED and kind_of_error(error) == "no table":
            likely = suggested_schema(self.root) or "<module>:<Base>"
            fix = f"arena_schema = {likely}   (the seed runs before the app creates any table)"
        elif not fix and self.stage is Stage.SEEDED and line is None:
            cause = f"the commit after {cause}"
            fix = (
                "session.flush() after each add() in the seed: a wrong row then has a line.\n"
                "If the tables lack what the models have: a migration, or pytest --arena-rebuild"
            )
        if not fix:
            fix = 'correct that line, or set its needs up in a fixture with scope="session"'
            if self.value.endswith(".ini"):
                fix += ". Or arena_schema = <module>:<function>, which migrates as your app does"
        return TemplateError(
            f"{self.option} failed: {described(error)}",
            why="no test has a database before its template is built",
            cause=cause,
            fix=fix,
        )

    def _home(self) -> str:
        return str(line_of_function(getattr(self.builder, "function", None)) or self.option)


@dataclass(slots=True)
class Store:
    """The templates of one project on one product."""

    template_store: TemplateStore
    root: Path
    newer_than: float = 0.0
    build_seconds: float = 0.0
    # How migrations differ from the models, by the value of arena_schema.
    drifts: dict[str, str] = field(default_factory=dict)

    def ensure(self, recipe: Recipe, stage: Stage, database: Database) -> Template | None:
        """Return a template for a database, or None for an empty one. Build it if necessary.

        Raises:
            ArenaError: the build failed, or the build of another process takes too long.
        """
        below = None
        if stage is Stage.SEEDED:
            below = self.ensure(recipe, Stage.SCHEMA, database)
        value = recipe.schema if stage is Stage.SCHEMA else recipe.seed
        if stage is Stage.EMPTY or not value:
            return below
        builder = schema_builder(value, self.root) if stage is Stage.SCHEMA else seed_builder(value)
        build = StageBuild(value, stage, builder, below, self.root, self.template_store)

        def fill(target: BuildTarget, now: float) -> Manifest:
            started = _process.seconds()
            try:
                with RunningBuild(database, target, stage is Stage.SCHEMA).around():
                    return Manifest(now, build.title, build.run(target))
            finally:
                self.build_seconds += _process.seconds() - started

        try:
            template = self.template_store.find_or_build(
                build.fingerprint(), below, fill, database.dialect, self.newer_than
            )
        except ArenaError:
            raise
        except Exception as error:
            raise build.failed(error) from error
        if stage is Stage.SCHEMA:
            self.drifts[value] = template.manifest.drift
        return template


def run_apart(call: Callable[[], Answer]) -> Answer:
    """Call in a separate thread, and restore the loggers afterwards.

    A builder may call ``asyncio.run``, like an async ``env.py`` of Alembic. ``asyncio.run`` raises
    an error while a loop runs, and otherwise removes the main thread's loop.

    While this thread imports a module, it calls the builder itself. Another thread that imports the
    same module would wait for this thread, which would wait for the build.
    """
    with _loggers_restored():
        if is_importing() and _process.running_loop() is None:
            return call()
        return _call_in_thread(call)


def _call_in_thread(call: Callable[[], Answer]) -> Answer:
    answer: Future[Answer] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            answer.set_result(context.run(call))
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
            answer.set_exception(error)

    # A daemon, so that the process does not wait for it after Ctrl-C. A test may have replaced
    # `threading.Thread`, but not the name in this module.
    Thread(target=run, name="pytest-arena-build", daemon=True).start()
    return answer.result()


@contextmanager
def _loggers_restored() -> Iterator[None]:
    """Restore the loggers, which ``fileConfig`` of an ``env.py`` disables.

    ``fileConfig`` also closes all handlers by ``logging.shutdown``, such as those of pytest.
    """
    states = [
        (logger, logger.handlers[:], logger.level, logger.disabled, logger.propagate)
        for logger in (logging.root, *logging.root.manager.loggerDict.values())
        if isinstance(logger, logging.Logger)
    ]
    try:
        with mock.patch.object(logging, "shutdown"):
            yield
    finally:
        for logger, handlers, level, is_disabled, propagates in states:
            logger.handlers[:] = handlers
            logger.setLevel(level)
            logger.disabled = is_disabled
            logger.propagate = propagates


@dataclass(slots=True, eq=False)
class RunningBuild:
    """The build of one database's template."""

    database: Database
    target: BuildTarget
    is_schema: bool  # of `arena_schema`, not of `arena_seed`
    # The database whose engine the builder uses. One builder may build several databases.
    of_engine: Database | None = None
    is_over: bool = False

    def target_of(self, other: Database | None) -> ConnectTarget:
        """Return the target of an engine that the builder uses.

        Raises:
            TemplateError: the engine is on another database of the app.
        """
        if other is None:
            return self.target.connect_target
        if self.of_engine is None:
            is_like = self.is_schema and other.product is self.database.product
            self.of_engine = other if is_like else self.database
        if other is self.of_engine:
            return self.target.connect_target
        raise OTHER_DATABASE_IN_BUILD.error(other.name, built=self.of_engine.name)

    @contextmanager
    def around(self) -> Iterator[None]:
        """Run the block as a part of the build, with the tasks and threads of its context."""
        token = _RUNNING.set(self)
        try:
            yield
        finally:
            self.is_over = True
            _RUNNING.reset(token)


_RUNNING: ContextVar[RunningBuild | None] = ContextVar("arena_build", default=None)


def build_here() -> RunningBuild | None:
    """Return the build of the running code, None outside of builds."""
    build = _RUNNING.get()
    return None if build is None or build.is_over else build
