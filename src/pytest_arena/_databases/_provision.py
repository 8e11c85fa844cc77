"""Gives databases their content, enters the levels on them, and compares their content."""

from __future__ import annotations

import os
import time
import warnings
from copy import copy
from typing import TYPE_CHECKING, Any

from pytest_arena._config._supported import SUPPORTED
from pytest_arena._databases._template import (
    Recipe,
    Store,
)
from pytest_arena._process import seconds
from pytest_arena._product import Held, Isolation
from pytest_arena._values import CodeLine, Stage
from pytest_arena.errors import (
    ArenaError,
    ConfigError,
    IsolationError,
    ServerError,
    TemplateError,
)
from pytest_arena.warnings import MigrationDriftWarning

if TYPE_CHECKING:
    from pytest_arena._config._read import Config
    from pytest_arena._databases._app_databases import KnownDatabases
    from pytest_arena._gate._registry import Registry
    from pytest_arena._ledger import Ledger
    from pytest_arena._owner import Owner
    from pytest_arena._product import Database

__tracebackhide__ = True  # tracebacks end at the user's line

Content = dict[str, str]


class Provision:
    """Fills databases from their templates, and enters the present levels on them."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        known: KnownDatabases,
        connections: Registry,
        *,
        levels: list[Owner],
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._known = known
        self._connections = connections
        self._levels = levels
        self.first_contents: dict[Database, Content | None] = {}
        # `--arena-rebuild` ignores templates that are older than the run. Workers inherit the time
        # of the first process, so that only one of them builds each template.
        self._newer_than = 0.0
        if config.rebuild:
            self._newer_than = float(os.environ.setdefault(_SINCE, str(time.time())))
        # The values of arena_schema whose migrations were compared with the models.
        self._compared: set[str] = set()
        self.stores: dict[str, Store] = {}  # by product

    def provide(self, database: Database) -> Isolation:
        """Give a database its content, once.

        Raises:
            TemplateError: the template cannot be built.
            ServerError: no server was found for it.
            ConfigError: its product does not have the requested isolation.
        """
        with database.lock:
            if database.isolation is None and database.failure is None and not database.busy:
                self._fill(database)
            error = database.failure
            database.failure = copy(database.failure)  # the first one has the build's traceback
            if error is not None:
                raise self._ledger.refused(error) from error.__cause__
            return database.isolation  # type: ignore[return-value]  # None only inside _fill

    def prepare(self) -> None:
        """Fill the first database and those of options. The first connection raises an error."""
        self._known.find_first()
        lines = {*self._config.schema, *self._config.seed}
        for database in [*self._known.by_key.values()]:
            is_named = not lines.isdisjoint(database.tails)
            is_expected = is_named or (lines and database is self._known.primary)
            if is_expected and not (database.isolation or database.failure):
                with database.lock:
                    mark = self._ledger.mark()
                    if not (database.isolation or database.failure or database.busy):
                        self._fill(database)
                    # The error of a failed build contains the refusals.
                    self._ledger.mark_reported(*self._ledger.since(mark))

    def _fill(self, database: Database) -> None:
        """Give a database the content of its template, and enter the present levels on it."""
        database.busy = True
        try:
            # Warnings of a build, such as those of a reflection, do not belong to the test.
            with warnings.catch_warnings(action="ignore"):
                isolation = self._isolated(database)
            database.isolation = isolation
        except (ConfigError, ServerError, TemplateError) as error:
            database.failure = error
            return
        finally:
            database.busy = False
        # For the summary.
        schema, seed = self.recipe(database)
        given = ", ".join(filter(None, [schema, seed]))
        name = "memory" if database.key.kind == "memory" else database.name
        filled = (f"{name} ({given or 'empty'})", database.product.shown, isolation.name)
        self._ledger.filled[filled] = bool(given)

    def _isolated(self, database: Database) -> Isolation:
        product = database.product
        isolations = SUPPORTED[product.name].isolations
        if self._config.isolation not in {"auto", *isolations}:
            raise ConfigError(
                f"arena_isolation = {self._config.isolation} does not exist on {product.shown}",
                why="the tests would run with another isolation than the option names",
                cause=self._config.place("isolation"),
                fix=f"arena_isolation = auto   (here: {', '.join(isolations)})",
            )
        template = self._template(database, Stage.SEEDED)
        started = seconds()
        isolation = product.isolate(database, template, self._connections.usage_of(database.key))
        if self._config.verify:
            isolation = Verified(isolation, database.name, self._ledger)
        for level in self._levels:
            self.enter(isolation, database, level)
        self._ledger.isolation_seconds += seconds() - started
        return isolation

    def enter(self, isolation: Isolation, database: Database, level: Owner) -> None:
        """Enter a level on one database, with the content that the level needs.

        Raises:
            ConfigError: the test's marker names an isolation that this database does not have.
            IsolationError: there is no space for a copy.
        """
        requested = ""
        reason = ""
        if level.isolation != "auto":  # the option or the marker names one
            product = database.product
            if level.isolation in SUPPORTED[product.name].isolations:
                requested = level.isolation
            else:
                reason = f"{product.shown} does not have it"
        if database not in self.first_contents and not isolation.depth:
            content = None
            # A database in memory does not exist at the end.
            if database.key.kind != "memory":
                content = _read_or_note(isolation, database.name + _NOT_COMPARED, self._ledger)
            self.first_contents[database] = content
        reason = isolation.enter(requested) or reason
        if reason:
            raise ConfigError(
                f"{level.name}: isolation={level.isolation!r} is not available: {reason}",
                why="the test would run with another isolation than it needs",
                cause="the test's marker, @pytest.mark.arena",
                fix=f"@pytest.mark.arena(isolation={isolation.name!r}), or no isolation",
            )
        if level.stage is not Stage.SEEDED:
            isolation.replace(self._template(database, level.stage))

    def compare_with_first_contents(self) -> None:
        """Note each database whose content differs after the last test.

        Cost: one read of all rows and definitions of each database.
        """
        for database, before in self.first_contents.items():
            isolation = database.isolation
            if before is None or isolation is None or isolation.depth:
                continue
            after = _read_or_note(isolation, database.name + _NOT_COMPARED, self._ledger)
            different = _different(before, after)
            if different:
                self._ledger.failures.append(
                    f"{database.name} is not as it was before the first test: {different}. "
                    "A restore missed the change, or another program wrote. "
                    "Run pytest --arena-verify: it fails the test that left the change"
                )

    def _template(self, database: Database, stage: Stage) -> object:
        """Return the content of a template, None if it is empty. Build it if necessary."""
        recipe = self.recipe(database)
        product = database.product
        store = self.stores.get(product.name)
        if store is None:
            store = Store(product.template_store(), self._config.root, self._newer_than)
            self.stores[product.name] = store
        template = store.ensure(recipe, stage, database)
        for schema, drift in store.drifts.items():
            if drift and schema not in self._compared:
                self._compared.add(schema)
                self._ledger.warn(
                    MigrationDriftWarning,
                    f"{schema}: alembic check has failed",
                    cause=drift,
                    fix="alembic upgrade heads && alembic revision --autogenerate   on your own "
                    "database. Or repair env.py",
                    line=CodeLine(str(self._config.root / schema), 1),
                )
        return template.content if template is not None else None

    def recipe(self, database: Database) -> Recipe:
        """Decide what a database is given. No other function does.

        A value with a name is for the database of this name. A value without a name is for each
        other database (``arena_schema``), or for the app's first one (``arena_seed``).
        """
        names = [*database.tails, ""]
        of_seed = names if database is self._known.primary else names[:-1]
        schemas = [self._config.schema[name] for name in names if name in self._config.schema]
        seeds = [self._config.seed[name] for name in of_seed if name in self._config.seed]
        return Recipe(next(iter(schemas), ""), next(iter(seeds), ""))


_SINCE = "ARENA_REBUILT_SINCE"


# Comparing


class Verified:
    """Wraps an isolation, and compares the whole database before and after each level.

    The comparison does not rely on records of the isolation. After a difference pytest-arena
    restores the database by force, and raises an IsolationError that names the difference. If
    another connection holds a lock, the ledger notes that the level was not verified.

    Cost: two reads of all rows and definitions for each level.
    """

    def __init__(self, isolation: Isolation, name: str, ledger: Ledger) -> None:
        self._isolation = isolation
        isolation.check = self._check
        self._name = name
        self._ledger = ledger
        # The content at the start of each level by its depth, None if it could not be read.
        self._before: dict[int, Content | None] = {}
        self._error: IsolationError | None = None  # of the level to leave by force

    def __getattr__(self, name: str) -> Any:
        return getattr(self._isolation, name)

    def enter(self, isolation: str = "") -> str:
        """Enter a level, and read its content."""
        reason = self._isolation.enter(isolation)
        self._before[self._isolation.depth] = self._read()
        return reason

    def _check(self) -> None:
        self._error = self._compared_with(self._before.get(self._isolation.depth))
        if self._error is not None:
            raise self._error  # the caller leaves the level by force

    def leave_by_force(self) -> None:
        """Restore the content by force, and compare it.

        Raises:
            IsolationError: the isolation failed, or there is or was a difference.
        """
        # A level whose start was interrupted has no content.
        before = self._before.pop(self._isolation.depth, None)
        self._isolation.leave_by_force()
        error = self._error or self._compared_with(before)
        self._error = None
        if error is not None:
            raise error

    def _compared_with(self, before: Content | None) -> IsolationError | None:
        """Read the content. Return an error if it differs from ``before``."""
        different = _different(before, self._read())
        if not different:
            return None
        return IsolationError(
            f"{self._name} is not as it was before: {different}",
            why="the next test would have started with the changes of this test",
            cause=f"the isolation {self._isolation.name!r} missed the change, or a thread or "
            "another process wrote during the comparison",
            fix="please report it, with the output of pytest --arena-verify",
        )

    def _read(self) -> Content | None:
        missing = f"{self._name}: not every level was verified"
        return _read_or_note(self._isolation, missing, self._ledger)


_NOT_COMPARED = ": the states before the first and after the last test were not compared"


def _read_or_note(isolation: Isolation, missing: str, ledger: Ledger) -> Content | None:
    try:
        return dict(isolation.content())
    except (Held, ArenaError) as error:
        ledger.note(f"{missing}: {error.args[0]}")
        return None


def _different(before: Content | None, after: Content | None) -> str:
    """Name what differs, "" if nothing does, or one of the contents is unknown."""
    if before is None or after is None:
        return ""
    names = sorted({*before, *after}, key=lambda name: (name[:3] == "def", name))
    return ", ".join(name for name in names if before.get(name) != after.get(name))
