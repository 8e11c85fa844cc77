"""What the gate asks: where does each connection land, and what stands there?"""

from __future__ import annotations

import gc
import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import get_ident
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.engine import make_url

from pytest_arena import _process
from pytest_arena._databases._app_databases import (
    AllowedFiles,
    Environment,
    KnownDatabases,
    Products,
)
from pytest_arena._databases._children import Children
from pytest_arena._databases._template import BuildAim, Builds, Recipe, Store
from pytest_arena._databases._verified import Verified
from pytest_arena._gate import _gate_notes
from pytest_arena._gate._engines import asked_by_engine
from pytest_arena._gate._known_engines import known_engines
from pytest_arena._gate._registry import DatabaseUsage, Registry
from pytest_arena._origin import WORK, frames, user_line
from pytest_arena._product import Aim, Asked, Database, Isolation, Key, Product, loaded
from pytest_arena._values import Child, Stage
from pytest_arena.errors import ArenaError, ConfigError, ServerError, TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from pytest_arena._config._read import Config
    from pytest_arena._databases._migrations import Comparison
    from pytest_arena._ledger import Ledger

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


_FIXTURES = "_pytest.fixtures"  # the module that calls fixtures and their finalizers
_MANY = (
    16  # databases, beside those in use: then engines are looked for that are garbage
)


# Not frozen: one is made for each test, and that takes twice as long then.
@dataclass(slots=True, eq=False)
class Level:
    """A state of all databases that is entered and left.

    ``serial`` is a test's or an example's own number, by which it is known what was taken in it; a
    negative one is a wider fixture's.
    """

    owner: object
    name: str
    serial: int = 0
    stage: Stage = Stage.SEEDED
    isolation: str = "auto"  # as the test's marker asks for
    is_anew: bool = (
        False  # it begins as the template, whatever the levels below have written
    )

    @property
    def is_test(self) -> bool:
        """Whether it is a test's, or an example's, and no wider fixture's."""
        return self.serial > 0


class Databases:
    """The resolver that the gate asks, and the databases with all that stands in them."""

    files: AllowedFiles

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        connections: Registry,
        temporary: Callable[[], Path | None],
    ) -> None:
        self.config, self.ledger, self._connections = config, ledger, connections
        self.products = Products(self, config)
        self.files = AllowedFiles(config, temporary)
        self.known = KnownDatabases(config, self.products, self.files, connections)
        self.environment = Environment(config.env, self.known)
        self.children = Children(config, ledger, self.known)
        self._builds = Builds()
        self.provision = Provision(config, ledger, self._builds, self.known)
        self._many = _MANY
        self.levels: list[Level] = []
        self.process = os.getpid()  # that runs tests
        self.finished = False
        self.is_guest = (
            False  # of a run without arena, which goes on as if it had not been
        )

    # What the gate asks.

    def spare(self) -> None:
        """End idle connections to servers; their pools open others."""
        for pooled in self._connections.idle():
            if pooled.key and pooled.handle is not None and not pooled.is_stale:
                pooled.mark_stale()
                pooled.handle.roll_back()

    def aim(self, asked: Asked) -> Aim | None:
        """Return where an engine lands, None where it may go its own way."""
        if _has_let_go(self, asked.name):
            return None
        is_known = known_engines.database_of(asked.dialect) is not None
        if asked.product not in self.products or not (
            is_known or self.known.is_the_apps(asked)
        ):
            self._check_foreign(asked)
            return None
        if (build := self.build()) is not None:
            return build.aim(self.known.find(asked))
        try:
            # The oldest is the first, whichever connects first.
            self.known.know_engines(asking=asked.dialect)
            database = self.known.register(asked)
        except ArenaError as error:
            raise self.ledger.refused(error) from None
        self.ensure(database)
        ends = database.key.kind == "memory" and self.levels[-1:] == [database.level]
        return replace(database.aim, is_passing=True) if ends else database.aim

    def aim_attached(self, file: str, beside: Aim | None) -> Aim | None:
        """Return where a file lands that is attached to a connection which aims at ``beside``."""
        if _has_let_go(self, file):
            return None
        if self.known.goes_its_own_way(file):
            return None
        main = (
            self.known.by_key.get(beside.key) if beside else None
        )  # its driver opens the file
        driver = main.dialect if main else make_url("sqlite://").get_dialect()
        database = self.known.register(Asked(driver(), "sqlite", file))
        database.attached = True
        if (build := self.build()) is not None:
            return build.aim(database)
        self.ensure(database)
        return database.aim

    def _check_foreign(self, asked: Asked) -> None:
        if asked.product != "sqlite" and not self.files.is_allowed(asked.name):
            option = f"arena_database = {self.config.database}"
            by = option * (
                self.config.database == "sqlite" and asked.product == "postgresql"
            )
            raise self.ledger.refused(
                _gate_notes.unknown_connection(asked.name, left_out_by=by)
            )

    def current(self, key: Key) -> Aim | None:
        """Return where a connection to this database would land now."""
        database = self.known.by_key.get(key)
        if _has_let_go(self, database.name if database else ""):
            return None
        build = self.build()
        if build is not None and (aim := build.current(key)) is not None:
            return aim
        return database.product.aim(database) if database else None

    def aim_at(self, file: str) -> Aim | None:
        """Return what a connection that is open on this file aims at, None if nothing of ours."""
        database = self.known.at_file(file)
        return database.aim if database else None

    def is_inside(self, file: str) -> bool:
        """Whether this file is one of the arena's own; its content is there on return."""
        # A builder that opens the file by itself would wait for its own build.
        is_settled = self.finished or self.build() is not None
        if (database := self.known.at_file(file)) is not None and not is_settled:
            self.ensure(database)
        return database is not None or self.files.is_ours(file)

    def before_child(self, child: Child) -> None:
        """Build the databases that a child process may use. Refuse a child that names the app's.

        A child may use the databases that its environment names, and a fork those of all engines.
        If a build fails, the first connection reports it.
        """
        self.environment.complete()
        if not child.is_fork and not self.finished:
            self.children.check(child)
        databases = [*self.known.by_key.values()]
        if not child.is_fork:
            databases = [
                database for database in databases if self._is_exported(database)
            ]
        # Before any database has an address, a child cannot know one. xdist's workers run `uname`.
        if child.is_fork or databases or self.provisioned():
            self._connections.open_to_others()
        if self.levels and self.build() is None and not self.finished:
            for database in databases:
                with suppress(ArenaError):
                    self.ensure(database)

    def leads_to_test(self, texts: Iterable[str]) -> bool:
        """Return whether one of some texts names a database that the tests use."""
        names = []
        for database in self.provisioned():
            address = database.aim.address
            names.append(address.database if address is not None else database.file)
        return any(name and name in text for text in texts for name in names)

    def before_spawn(self) -> list[object]:
        """Build the databases of all engines, and return the objects that lead to them."""
        if self.finished:
            return []
        self.before_child(Child(is_fork=True))
        asked = [
            each
            for each in map(asked_by_engine, known_engines.find())
            if each is not None
        ]
        guards: list[object] = []
        for name, product in loaded.items():
            engines = [each for each in asked if each.product == name]
            guard = product.connections.in_spawned(self, engines)
            if guard is not None:
                guards.append(guard)
        return guards

    def _is_exported(self, database: Database) -> bool:
        return bool(database.file) and database.file in self.known.exported

    def serial(self) -> int:
        """The serial of the level on top, 0 where there is none."""
        # What a builder takes and keeps is no leak of the test that happens to need the template.
        return self.levels[-1].serial if self.levels and self.build() is None else 0

    def build(self) -> BuildAim | None:
        """Return the build of a template that the caller is a part of."""
        return self._builds.now() if self._builds.running else None

    def asked(self) -> tuple[list[str], set[str]]:
        """Return the databases on servers that were asked for, and the users that engines name."""
        found: list[Database | Asked | None] = [
            *map(asked_by_engine, known_engines.find())
        ]
        found += self.known.by_key.values()
        return list(self.known.asked), {
            one.login.user for one in found if one and one.login
        }

    def uses(self, key: Key) -> Callable[[], int]:
        """Return what gives a number that has moved where the database may have been used."""
        return DatabaseUsage(self._connections, key)

    def find_product(self, name: str) -> Product | None:
        """Return the product of this name, None where it is not in use."""
        return self.products.opened.get(name)

    def database_at(self, key: Key) -> Database | None:
        """Return the database of a key, None if it is gone."""
        return self.known.by_key.get(key)

    def means(self, asked: Asked) -> bool:
        """Whether an engine of the app's means this database of a server, connected or not."""
        engines = map(asked_by_engine, known_engines.find())
        meant = [
            (engine.product, engine.database)
            for engine in engines
            if engine is not None
        ]
        return (asked.product, asked.database) in meant

    def sets_up(self, key: Key | None, name: str) -> bool:
        """Return whether a fixture, not a test, sets up a test database of this name."""
        is_in_fixture = any(
            frame.f_globals.get("__name__") == _FIXTURES for frame in frames()
        )
        if self.serial() > 0 and not is_in_fixture:
            return False
        self.known.give_up_first(key, name)
        return True

    def opened_raw(self, key: Key) -> None:
        """Somebody has opened a connection to a database without an engine."""
        self._connections.opened_raw(key)

    def refuse_late(self, *, is_statement: bool = False) -> None:
        """Raise a LateWorkError if the caller works for a test that is over.

        A refused statement fails the run: the work has kept its connection over the test's end.
        """
        work, late = WORK.get(), self._connections.late
        # A library's task, which a request has begun, may serve later ones.
        is_late = work and work.is_over and (not _process.running_loop() or user_line())
        if (frame := late.get(get_ident())) and frame not in frames(of_users=True):
            del late[
                get_ident()
            ]  # it is done; a library's thread may do another's work
        is_of_a_test = work is not None and not work.is_over
        if is_late or (get_ident() in late and not is_of_a_test):
            error = _gate_notes.late_work(
                work if is_late else None, is_statement=is_statement
            )
            if is_statement:
                raise self.ledger.refused_outside(error)
            self.ledger.note(_gate_notes.in_one_line(error))
            raise error

    def given_out(self, key: Key) -> None:
        """Somebody has the address of a database, and may have others use it, at any time."""
        self._connections.may_be_used(key)

    # What the run asks.

    def drop_orphans(self) -> list[Database]:
        """Between tests: drop the databases that nothing will ask for as they are now.

        Those in memory end with their engines, if not with a level. On a file, one that engines of
        tests alone meant, which are gone or disposed of, starts from its template at its next use.
        """
        if (
            len(self.known.by_key) >= self._many
            and len(self.provisioned()) >= self._many
        ):
            gc.collect()  # an engine that was never disposed of waits for it
            self._many = len(self.provisioned()) + _MANY
        if not (
            left := [
                one for one in [*self.known.by_key.values()] if self._may_drop(one)
            ]
        ):
            return left
        used = {each.database for each in known_engines.all() if each.is_used_by_app}
        dropped = [database for database in left if database not in used]
        for database in dropped:
            self.known.drop(database)
        return dropped

    def drop_with_level(self, database: Database, level: Level) -> bool:
        """Drop a database in memory with the level that it, or its engine, was made in.

        It was nowhere before, and whoever keeps its engine has a new one at its next use. Not the
        app's first one, as long as an engine of a wider level uses it, nor one that a session of
        ours is on. Returns whether it was dropped.
        """
        if database.key.kind != "memory":
            return False
        engines = known_engines.on(database)
        serials = {engine.level for engine in engines}
        if level.serial != 0 and serials == {level.serial}:
            for engine in engines:
                engine.hide()  # a cache may keep the engine, which is no later test's
        elif database.level is not level:
            return False
        is_first = database is self.known.primary
        is_used = is_first and any(engine.is_used_by_app for engine in engines)
        if is_used or any(engine.has_own for engine in engines):
            return False
        self.known.drop(database)
        return True

    def _may_drop(self, database: Database) -> bool:
        if database.key.kind == "memory":
            return True
        is_asked_for = (
            database is self.known.primary
            or database.key.kind == "expected"
            or database.is_the_runs
            or database.attached
            or not database.file  # on a server: its name means it for good
            or self._is_exported(database)
            or any(name in database.tails for name in self.known.named_by_options())
        )
        return not is_asked_for and not self.levels

    def provisioned(self) -> list[Database]:
        """Return the databases that somebody has connected to."""
        return [
            one for one in [*self.known.by_key.values()] if one.isolation is not None
        ]

    def ensure(self, database: Database) -> Isolation:
        """Give a database its content, once.

        Raises:
            TemplateError: the template cannot be built; in full the first time.
            ServerError: there is no server to have it on.
            ConfigError: the isolation that is asked for is not its product's.
            RefusedError: it is not there yet, and this is a fork, which runs no test.
        """
        isolation = database.isolation
        if isolation is not None:
            return isolation
        if self.process != os.getpid():
            raise self.ledger.refused(_gate_notes.forked_before(database.name))
        return self.provision.ensure(database, self.levels)


def _has_let_go(databases: Databases, name: str) -> bool:
    if databases.finished and not databases.is_guest:
        raise databases.ledger.refused(_gate_notes.after_session(name))
    return databases.finished


class Provision:
    """Gives a database its template's content, and lets it join the levels that stand."""

    def __init__(
        self, config: Config, ledger: Ledger, builds: Builds, known: KnownDatabases
    ) -> None:
        self._config, self._ledger, self._builds, self._known = (
            config,
            ledger,
            builds,
            known,
        )
        # Under `--arena-rebuild` templates older than the run's start are not good enough. The
        # first process says when it started; its workers inherit it, and build once together.
        since = (
            os.environ.setdefault(_SINCE, str(time.time())) if config.rebuild else 0.0
        )
        self._newer_than = float(since)
        self.stores: dict[tuple[str, str], Store[Any]] = {}  # by products and drivers

    def ensure(self, database: Database, levels: list[Level]) -> Isolation:
        """Give a database its content, once.

        Raises:
            TemplateError: the template cannot be built; in full the first time.
            ServerError: there is no server to have it on; likewise.
            ConfigError: the isolation that is asked for is not its product's; likewise.
        """
        with database.lock:
            if database.failure is not None:
                raise self._ledger.refused(_repeated(database.failure))
            if database.isolation is None and not database.busy:
                self._fill(database, levels)
            return database.isolation  # type: ignore[return-value]  # None only inside _fill

    def _fill(self, database: Database, levels: list[Level]) -> None:
        database.busy = True
        try:
            template = self._template(database, Stage.SEEDED)
            started = _process.seconds()
            isolation = database.product.isolate(database, template)
            if self._config.verify:
                isolation = cast(
                    "Isolation", Verified(isolation, database.name, self._ledger)
                )
            for level in levels:
                self.enter(isolation, database, level)
            self._ledger.isolation_seconds += _process.seconds() - started
            database.level = levels[-1] if levels else None
            database.is_the_runs = not levels
            database.isolation = isolation
            self._ledger.filled[database.product.shown, isolation.name] = None
        except (ConfigError, ServerError, TemplateError) as error:
            database.failure = error
            raise self._ledger.refused(error) from error.__cause__
        finally:
            database.busy = False

    def enter(self, isolation: Isolation, database: Database, level: Level) -> None:
        """Open a level on one database, with the content that the level asks for.

        Raises:
            ConfigError: its test is marked with an isolation that this database does not have.
            IsolationError: it has it, and there is no room for a copy.
        """
        is_other = level.isolation not in {"auto", isolation.name}
        if is_other and (
            reason := database.product.ask_for(level.isolation, isolation)
        ):
            raise ConfigError(
                f"{level.name}: isolation={level.isolation!r} is not to be had: {reason}",
                why="a test that was isolated another way than was asked for would prove nothing",
                cause="the test's marker, @pytest.mark.arena",
                fix=f"@pytest.mark.arena(isolation={isolation.name!r}), or no isolation",
            )
        isolation.enter()
        if level.is_anew or level.stage is not Stage.SEEDED:
            isolation.replace(self._template(database, level.stage))

    def _template(self, database: Database, stage: Stage) -> Any:
        key = database.product.name, database.dialect.driver
        if key not in self.stores:
            shelves = database.product.shelves(database.dialect)
            self.stores[key] = Store(
                shelves,
                self._config.root,
                self._newer_than,
                compares=self._config.migrations != "off",
            )
        recipe = self.recipe(database)
        return self.stores[key].ensure(
            recipe,
            stage,
            lambda target: self._builds.around(BuildAim(database, str(recipe), target)),
        )

    def comparisons(self) -> Iterator[tuple[str, Comparison]]:
        """Yield comparisons that found something, each with its value of ``arena_schema``."""
        for store in self.stores.values():
            yield from store.comparisons.items()

    def recipe(self, database: Database) -> Recipe:
        """Return what a database is made of, by the options."""
        is_first = database is self._known.primary
        names = (*database.tails, "") if is_first else database.tails
        schema, seed = (
            next((values[name] for name in names if name in values), "")
            for values in (self._config.schema, self._config.seed)
        )
        return Recipe(schema, seed)


_SINCE = "ARENA_REBUILT_SINCE"


def _repeated(failure: ArenaError) -> ArenaError:
    what = f"no database, as the first test that connected says: {failure.what}"
    why = failure.why
    if isinstance(failure, TemplateError):
        builder = failure.what.partition(" failed:")[0]
        what = f"no database: {builder} failed, as the first test that connected says"
        why = "no test can have a database before its template is built"
    return type(failure)(what, why=why, cause=failure.cause, fix="the same as there")
