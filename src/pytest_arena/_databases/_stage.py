"""How is one stage of a template filled, and what is said when that fails?"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Generic

from pytest_arena._config._load import blame, described, home_of
from pytest_arena._databases._builders import schema_builder, seed_builder
from pytest_arena._databases._process import run_apart
from pytest_arena._databases._sources import imported_by
from pytest_arena._databases._suggest import suggested_schema
from pytest_arena._product import ContentT, Template
from pytest_arena._values import Stage
from pytest_arena.errors import ArenaError, TemplateError

if TYPE_CHECKING:
    from pytest_arena._databases._builders import Builder
    from pytest_arena._product import Shelves, Target

__all__ = ["Recipe", "StageBuild"]


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
        return " or ".join(f"{name} = {value}" for name, value in options.items() if value)


@dataclass(frozen=True, slots=True)
class StageBuild(Generic[ContentT]):
    """One stage of one recipe, above the template of the stage below."""

    recipe: Recipe
    stage: Stage
    below: Template[ContentT] | None
    root: Path
    shelves: Shelves[ContentT]

    def builder(self) -> Builder:
        """Return what fills the database."""
        value = self.recipe.value(self.stage)
        return schema_builder(value, self.root) if self._is_schema else seed_builder(value)

    @property
    def _is_schema(self) -> bool:
        return self.stage is Stage.SCHEMA

    @property
    def option(self) -> str:
        """The option that names the builder, as it was given."""
        name = "arena_schema" if self._is_schema else "arena_seed"
        return f"{name} = {self.recipe.value(self.stage)}"

    def fingerprint(self) -> str:
        """A digest of all that can be known before the build; no path of this machine is in it."""
        parts = (
            f"pytest-arena {version('pytest-arena')}",
            f"{self.shelves.identity()} sqlalchemy {version('sqlalchemy')}",
            f"{self.stage.value} {_without_folder(self.recipe.value(self.stage))}",
            self.builder().identity(self.shelves.ddl),
            self.below.digest if self.below else "",
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def run(self, target: Target) -> None:
        """Fill a database, which has the content of the template below.

        Raises:
            TemplateError: the builder failed, left a transaction open, or made no table.
        """
        builder = self.builder()  # in this thread, which may be importing what the option names
        try:
            run_apart(lambda: builder.build(target))
        except (ArenaError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit, pytest's own outcomes
            raise self.failed(error) from error
        if target.is_being_written():
            raise self._not_committed()
        if self._is_schema and not target.has_tables():
            raise self._made_nothing()

    def sources(self) -> set[Path]:
        """Return the files of code that it depends on."""
        return imported_by(self.builder().sources())

    def failed(self, error: BaseException) -> TemplateError:
        """Return the error for one that the user's code has raised."""
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
        if self.shelves.lacks_table(error) and not self._is_schema:
            return self._schema_step()
        known = self.shelves.advice(error)
        return known or "mend that line; the next run builds the template again by itself"

    def _schema_step(self) -> str:
        if self.recipe.schema:
            return f"add the table to what arena_schema = {self.recipe.schema} makes"
        likely = suggested_schema(self.root) or _EXAMPLE
        return f"arena_schema = {likely}   (the seed runs before the app makes any table)"

    def refused(self, error: ArenaError) -> TemplateError:
        """Return the error for one of ours, in its words."""
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
            f"arena_schema = {suggested_schema(self.root) or _EXAMPLE}",
        )


_EXAMPLE = "<module>:<Base>"  # where nothing is known that could be pasted


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
