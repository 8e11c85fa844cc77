"""What is in a database of the arena when somebody first connects to it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._arena._builds import BuildAim
from pytest_arena._values import Stage
from pytest_arena.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_arena._arena._builds import Builds
    from pytest_arena._arena._state import Database, Level
    from pytest_arena._isolation import Isolation
    from pytest_arena._ledger import Ledger
    from pytest_arena._template import Recipe, Store

__all__ = ["Provision"]


class Provision:
    """Gives a database its template's content, and lets it join the levels that stand."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        builds: Builds,
        *,
        isolation: type[Isolation],
        recipe_of: Callable[[Database], Recipe],
    ) -> None:
        self._store, self._ledger, self._builds = store, ledger, builds
        self._isolation, self._recipe_of = isolation, recipe_of

    def ensure(self, database: Database, levels: list[Level]) -> Isolation:
        """Give a database its content, once.

        Raises:
            TemplateError: the template cannot be built; in full the first time.
        """
        with database.lock:
            if database.failure is not None:
                raise self._ledger.refused(_said_before(database.failure))
            if database.isolation is None and not database.busy:
                self._fill(database, levels)
            return database.isolation  # type: ignore[return-value]  # None only inside _filled

    def _fill(self, database: Database, levels: list[Level]) -> None:
        database.busy = True
        try:
            database.isolation = self._filled(database, levels)
            database.is_of_a_test = bool(levels) and bool(levels[-1].serial)
        except TemplateError as error:
            database.failure = error
            raise self._ledger.refused(error) from error.__cause__
        finally:
            database.busy = False

    def _filled(self, database: Database, levels: list[Level]) -> Isolation:
        template = self._template(database, Stage.SEEDED)
        isolation = self._isolation(database.live, template, tell=self._ledger.note)
        for level in levels:
            self.enter(isolation, database, level)
        return isolation

    def enter(self, isolation: Isolation, database: Database, level: Level) -> None:
        """Open a level on one database, with the content that the level asks for."""
        isolation.enter()
        if level.stage is not Stage.SEEDED:
            isolation.replace(self._template(database, level.stage))

    def _template(self, database: Database, stage: Stage) -> Path | None:
        recipe = self._recipe_of(database)
        return self._store.ensure(
            recipe,
            stage,
            lambda file: self._builds.running(BuildAim(database.name, str(recipe), file)),
        )


def _said_before(failure: TemplateError) -> TemplateError:
    return TemplateError(
        f"no database: {failure.what.partition(' failed:')[0]} failed, as the first test that "
        "connected says",
        why="no test can have a database before its template is built",
        cause=failure.cause,
        fix="the same as there",
    )
