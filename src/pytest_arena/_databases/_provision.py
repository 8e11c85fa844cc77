"""What is in a database of the arena when somebody first connects to it?"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from pytest_arena._databases._builds import BuildAim
from pytest_arena._databases._store import Store
from pytest_arena._databases._verified import verified
from pytest_arena._values import Stage
from pytest_arena.errors import ArenaError, ConfigError, ServerError, TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._config import Config
    from pytest_arena._databases._builds import Builds
    from pytest_arena._databases._stage import Recipe
    from pytest_arena._databases._state import Level
    from pytest_arena._ledger import Ledger
    from pytest_arena._product import Database, Isolation

__all__ = ["Provision"]


class Provision:
    """Gives a database its template's content, and lets it join the levels that stand."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        builds: Builds,
        *,
        recipe_of: Callable[[Database], Recipe],
    ) -> None:
        self._config, self._ledger, self._builds = config, ledger, builds
        self._recipe_of = recipe_of
        self._newer_than = _rebuilt_since(config)
        self._stores: dict[tuple[str, str], Store[Any]] = {}  # by products and drivers

    def stores(self) -> list[Store[Any]]:
        """Return the stores of templates that have been asked."""
        return list(self._stores.values())

    def _store(self, database: Database) -> Store[Any]:
        key = database.product.name, database.dialect.driver
        if key not in self._stores:
            shelves = database.product.shelves(database.dialect)
            self._stores[key] = Store(shelves, self._config.root, self._newer_than)
        return self._stores[key]

    def ensure(self, database: Database, levels: list[Level]) -> Isolation:
        """Give a database its content, once.

        Raises:
            TemplateError: the template cannot be built; in full the first time.
            ServerError: there is no server to have it on; likewise.
            ConfigError: the isolation that is asked for is not its product's; likewise.
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
        except (ConfigError, ServerError, TemplateError) as error:
            database.failure = error
            raise self._ledger.refused(error) from error.__cause__
        finally:
            database.busy = False

    def _filled(self, database: Database, levels: list[Level]) -> Isolation:
        template = self._template(database, Stage.SEEDED)
        isolation = database.product.isolate(database, template)
        if self._config.verify:
            isolation = verified(isolation, database.name, self._ledger)
        for level in levels:
            self.enter(isolation, database, level)
        return isolation

    def enter(self, isolation: Isolation, database: Database, level: Level) -> None:
        """Open a level on one database, with the content that the level asks for.

        Raises:
            ConfigError: its test is marked with an isolation that this database does not have.
            IsolationError: it has it, and there is no room for a copy.
        """
        is_other = level.isolation not in {"auto", isolation.name}
        if is_other and (reason := database.product.ask_for(level.isolation, isolation)):
            raise _marked_otherwise(isolation, level, reason)
        isolation.enter()
        if level.is_anew or level.stage is not Stage.SEEDED:
            isolation.replace(self._template(database, level.stage))

    def _template(self, database: Database, stage: Stage) -> Any:
        recipe = self._recipe_of(database)
        return self._store(database).ensure(
            recipe,
            stage,
            lambda target: self._builds.running(BuildAim(database, str(recipe), target)),
        )


_SINCE = "ARENA_REBUILT_SINCE"


def _rebuilt_since(config: Config) -> float:
    """Under ``--arena-rebuild``: templates older than the run's start are not good enough.

    The first process says when it started; its workers inherit it, and build once together.
    """
    if not config.rebuild:
        return 0.0
    return float(os.environ.setdefault(_SINCE, str(time.time())))


def _marked_otherwise(isolation: Isolation, level: Level, reason: str) -> ConfigError:
    return ConfigError(
        f"{level.name}: isolation={level.isolation!r} is not to be had: {reason}",
        why="a test that was isolated another way than was asked for would prove nothing",
        cause="the test's marker, @pytest.mark.arena",
        fix=f"@pytest.mark.arena(isolation={isolation.name!r}), or no isolation",
    )


def _said_before(failure: ArenaError) -> ArenaError:
    if not isinstance(failure, TemplateError):
        return type(failure)(
            f"no database, as the first test that connected says: {failure.what}",
            why=failure.why,
            cause=failure.cause,
            fix="the same as there",
        )
    return TemplateError(
        f"no database: {failure.what.partition(' failed:')[0]} failed, as the first test that "
        "connected says",
        why="no test can have a database before its template is built",
        cause=failure.cause,
        fix="the same as there",
    )
