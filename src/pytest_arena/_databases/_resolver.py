"""Decides which database a connection opens."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena._config._supported import FILE_PRODUCTS, SUPPORTED
from pytest_arena._databases._app_databases import (
    AllowedFiles,
    Environment,
    KnownDatabases,
    Products,
)
from pytest_arena._databases._children import refusal_of
from pytest_arena._databases._template import (
    Recipe,
    RunningBuild,
    Store,
    running_build,
    warn_of_drift,
)
from pytest_arena._databases._verified import (
    Content,
    Verified,
    differences_at_the_end,
    first_content,
)
from pytest_arena._gate import _gate_notes
from pytest_arena._gate._engines import known_engines, requested_by_engines
from pytest_arena._origin import user_line
from pytest_arena._owner import Owner, owner_here
from pytest_arena._process import seconds
from pytest_arena._values import Child, Stage
from pytest_arena.errors import (
    ArenaError,
    ConfigError,
    IsolationError,
    ServerError,
    TemplateError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from pytest_arena._config._read import Config
    from pytest_arena._gate._connections import Registry
    from pytest_arena._ledger import Ledger
    from pytest_arena._product import (
        BuildTarget,
        ConnectTarget,
        Database,
        Isolation,
        Key,
        Product,
        RequestedDatabase,
    )
    from pytest_arena._values import ServerLogin

__tracebackhide__ = True  # tracebacks end at the user's line


# Not frozen, because each test creates a level. A frozen dataclass takes twice as long to create.
@dataclass(slots=True, eq=False)
class Level:
    """The lifetime of a test, an example or a wider fixture. Its end restores all databases.

    ``serial`` is the number of a test or an example, negative for a wider fixture. The gate records
    it for each checkout.
    """

    owner: object
    name: str
    serial: int = 0
    stage: Stage = Stage.SEEDED
    isolation: str = "auto"  # the value of the test's marker

    @property
    def is_idle(self) -> bool:
        """Whether the level is between the set-up and the tear-down of its fixture."""
        return isinstance(self.owner, Owner) and self.owner.is_idle

    @property
    def is_test(self) -> bool:
        """Whether the level belongs to a test or an example."""
        return self.serial > 0


class Databases:
    """The databases of the app. Implements the core of the gate and of the products."""

    files: AllowedFiles

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        connections: Registry,
    ) -> None:
        self.config = config
        self.ledger = ledger
        self._connections = connections
        self.products = Products(self, config)
        self.files = AllowedFiles(config)
        self.known = KnownDatabases(config, self.products, self.files, connections)
        self.environment = Environment(config, self.known)
        self.levels: list[Level] = []
        self.provision = Provision(
            config, ledger, self.known, connections, levels=self.levels
        )
        self.process = os.getpid()  # the process that runs tests
        self.finished = False

    # For the gate and the products.

    def end_idle_connections(self) -> None:
        """End idle connections to servers. Their pools open new ones."""
        for pooled in self._connections.idle():
            if pooled.key:
                pooled.retire()

    def ensure_target(self, requested: RequestedDatabase) -> ConnectTarget | None:
        """Return the target of an engine's connections, None if they are not redirected."""
        self._refuse_after_end(requested.name)
        is_known = known_engines.database_of(requested.dialect) is not None
        is_the_apps = is_known or self.known.is_the_apps(requested)
        if requested.product not in self.products or not is_the_apps:
            self._check_not_redirected(requested)
            return None
        build = running_build()
        if build is not None:
            database = self.known.find(requested)
            if database is None:
                self.refuse_in_build(requested)
            return build.target_of(database)
        try:
            # The oldest engine has the app's first database, also if another one connects first.
            self.known.find_first()
            database = self.known.register(requested)
        except ArenaError as error:
            raise self.ledger.refused(error) from None
        self.ensure_content(database)
        if database.key.kind != "memory":
            # Set the variables now: code may copy them for a later child process.
            self.environment.complete()
        return database.target

    def _refuse_after_end(self, name: str) -> None:
        if self.finished:
            raise self.ledger.refused(_gate_notes.after_session(name))

    def _check_not_redirected(self, requested: RequestedDatabase) -> None:
        """Refuse a connection to a server that ``arena_allow`` does not name.

        Raises:
            UnknownDatabaseError: the server is not allowed.
        """
        if requested.product in FILE_PRODUCTS or self.files.is_allowed(requested.name):
            return
        self.refuse_in_build(requested)
        option = ""
        value = self.config.database
        if value in FILE_PRODUCTS and requested.product in SUPPORTED:
            option = f"arena_database = {value}"
        facts = SUPPORTED.get(requested.product)
        refusal = _gate_notes.unknown_connection(
            requested.name,
            driver=requested.dialect.driver,
            drivers=", ".join(facts.drivers) if facts is not None else "",
            left_out_by=option,
        )
        raise self.ledger.refused(refusal)

    def refuse_in_build(self, requested: RequestedDatabase) -> None:
        """Refuse a connection whose product differs from the database that the caller builds.

        Raises:
            UnknownDatabaseError: the products differ.
        """
        build = running_build()
        if build is None or not requested.name:  # the name is "" in memory
            return
        product = build.database.product.name
        if requested.product != product:
            refusal = _gate_notes.another_product_in_build(requested.name, product)
            raise self.ledger.refused(refusal)

    def current(self, key: Key) -> ConnectTarget | None:
        """Return the present target of connections to this database."""
        database = self.known.by_key.get(key)
        self._refuse_after_end(key.name)
        build = running_build()
        if build is not None:
            # A pool may have a connection to the live database, which a builder must not get.
            if build.target.connect_target.key == key:
                return build.target.connect_target
            return build.target_of(database)
        if database is None:
            return None
        return database.product.target(database)

    def target_at(self, file: str) -> ConnectTarget | None:
        """Return the target of a connection that has opened this file, or None."""
        database = self.known.at_file(file)
        return None if database is None else database.target

    def is_inside(self, file: str) -> bool:
        """Return whether a file belongs to pytest-arena. Fill it first if it is a test database."""
        database = self.known.at_file(file)
        if database is None:
            return self.files.is_ours(file)
        # A builder that opens the file would wait for its own build.
        if not self.finished and running_build() is None:
            self.ensure_content(database)
        return True

    def before_child(self, child: Child) -> None:
        """Build the databases that a child process may use.

        A fork may use the databases of all engines. Another child may use the databases in its
        environment. A child whose command names a database of the app is refused. If a build fails,
        the first connection raises its error.
        """
        self.environment.complete()
        if not child.is_fork:
            refusal = refusal_of(child, self.known)
            if refusal is not None:
                raise self.ledger.refused(refusal)
        databases = [*self.known.by_key.values()]
        if not child.is_fork:
            databases = list(filter(self._is_exported, databases))
        # A child can use a test database if it is a fork, if a variable names one, or if one has
        # content. None of this holds for `uname`, which xdist's workers start.
        if child.is_fork or databases or self.provisioned():
            self._connections.has_others = True
        if self.levels and running_build() is None and not self.finished:
            for database in databases:
                with suppress(ArenaError):
                    self.ensure_content(database)

    def before_spawn(self) -> None:
        """Build the databases of all engines before multiprocessing spawns a process."""
        if not self.finished:
            self.before_child(Child(is_fork=True))

    def _is_exported(self, database: Database) -> bool:
        """Return whether the URL in a variable of ``arena_env`` names the database's file."""
        file = database.file
        if not file:
            return False
        return any(file in url for url in self.known.exported)

    def serial(self) -> int:
        """Return the serial of the level in use, 0 without a level.

        It is 0 in a build, so that a connection of a builder is no leak of the test.
        """
        if not self.levels:
            return 0
        if running_build() is not None:
            return 0
        return self.level_in_use().serial

    def level_in_use(self) -> Level:
        """Return the level of the code that runs now: the highest one that is not idle.

        If a test writes before it requests a wide fixture, the fixture's idle level is above the
        test's level.
        """
        for level in reversed(self.levels):
            if not level.is_idle:
                return level
        return self.levels[-1]

    def requested(self) -> tuple[list[str], dict[str, ServerLogin]]:
        """Return the requested databases on servers, and the logins that engines name, by user."""
        of_engines = requested_by_engines(known_engines.find())
        logins = [database.login for database in of_engines]
        logins += [database.login for database in self.known.by_key.values()]
        by_user = {login.user: login for login in logins if login is not None}
        return list(self.known.requested), by_user

    def is_named_by_engine(self, requested: RequestedDatabase) -> bool:
        """Return whether an engine of the app names this database of a server."""
        name = (requested.product, requested.database)
        of_engines = requested_by_engines(known_engines.find())
        return name in [(other.product, other.database) for other in of_engines]

    def opened_raw(self, key: Key) -> None:
        """Note a connection that no engine has opened."""
        self._connections.opened_raw(key)

    def refuse_late(self) -> None:
        """Raise a LateWorkError if the caller works for an owner that is over."""
        owner = owner_here()
        if owner is None or not owner.is_over:
            return
        if not user_line():
            return  # a library's task that a request has started may serve later requests
        error = _gate_notes.late_work(owner)
        self.ledger.note(_gate_notes.in_one_line(error))
        raise error

    def note_published(self, key: Key) -> None:
        """Note that a test has the address of a database, so that any program may use it."""
        self._connections.may_be_used(key)

    # For the run.

    def finish(self) -> None:
        """Refuse every connection from now on."""
        self.finished = True

    def begin_test(self) -> None:
        """Begin a test in this process, which may be a fork."""
        self.process = os.getpid()

    def drop_with_level(self, database: Database, level: Level) -> bool:
        """Drop a database in memory with the level in which its engines were created.

        A surviving engine, such as one in a cache, gets a new database at its next connect. Return
        whether it was dropped.
        """
        if database.key.kind != "memory":
            return False
        engines = known_engines.on(database)
        if any(engine.level != level.serial for engine in engines):
            return False
        for engine in engines:
            engine.is_disposed = True  # a cache may keep what no later test uses
        self.known.drop(database)
        return True

    def provisioned(self) -> dict[Database, Isolation]:
        """Return the databases that have content, because a connection was opened."""
        provisioned = {}
        for database in [*self.known.by_key.values()]:
            if database.isolation is not None:
                provisioned[database] = database.isolation
        return provisioned

    def unprepared(self) -> list[Database]:
        """Return the known databases whose template was not yet searched or built."""
        self.known.find_first()
        unprepared = []
        for database in [*self.known.by_key.values()]:
            is_new = database.isolation is None and database.prepared is None
            if is_new and self.provision.has_template(database):
                unprepared.append(database)
        return unprepared

    def ensure_content(self, database: Database) -> Isolation:
        """Give a database its content, once.

        Raises:
            TemplateError: the template cannot be built.
            ServerError: no server was found for it.
            ConfigError: its product does not have the requested isolation.
            RefusedError: it has no content yet, and this process is a fork that runs no test.
        """
        isolation = database.isolation
        if isolation is not None:
            return isolation
        if self.process != os.getpid():
            raise self.ledger.refused(_gate_notes.forked_before(database.name))
        return self.provision.ensure_content(database)


class Provision:
    """Fills databases from their templates, and enters the present levels on them."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        known: KnownDatabases,
        connections: Registry,
        *,
        levels: list[Level],
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._known = known
        self._connections = connections
        self._levels = levels
        self.first_contents: dict[Database, Content | None] = {}
        self.differences: list[str] = []
        # `--arena-rebuild` ignores templates that are older than the run. Workers inherit the time
        # of the first process, so that only one of them builds each template.
        self._newer_than = 0.0
        if config.rebuild:
            began = os.environ.setdefault(_SINCE, str(time.time()))
            self._newer_than = float(began)
        # The values of arena_schema whose migrations were compared with the models.
        self._compared: set[str] = set()
        # By product and driver.
        self.stores: dict[tuple[str, str], Store[object]] = {}

    def ensure_content(self, database: Database) -> Isolation:
        """Give a database its content, once.

        Raises:
            TemplateError: the template cannot be built.
            ServerError: no server was found for it.
            ConfigError: its product does not have the requested isolation.
        """
        with database.lock:
            is_empty = database.isolation is None and database.failure is None
            refusal = None
            if is_empty and not database.busy:
                refusal = self._fill(database)
            error = refusal or database.take_failure()
            if error is not None:
                raise self._ledger.refused(error) from error.__cause__
            return database.isolation  # type: ignore[return-value]  # None only inside _fill

    def has_template(self, database: Database) -> bool:
        """Return whether the options name a template, and no build of it has failed."""
        recipe = self.recipe(database)
        return bool(recipe.schema or recipe.seed) and database.failure is None

    def prepare(self, database: Database) -> None:
        """Find or build a template. The first connection raises the error of a failed build."""
        mark = len(self._ledger.refusals)
        with database.lock, database.being_filled():
            try:
                database.prepared = (self._template(database, Stage.SEEDED),)
            except (ConfigError, ServerError, TemplateError) as error:
                database.failure = error
                # The first connection raises this error, which contains the refusals.
                self._ledger.mark_reported(*self._ledger.since(mark))

    def _fill(self, database: Database) -> ArenaError | None:
        """Give a database the content of its template, and enter the present levels on it.

        Return an error of a present level, such as one about the test's marker. It does not
        concern later tests.
        """
        refusal: ArenaError | None = None
        try:
            with database.being_filled():
                self._check_isolation(database.product)
                template = self._prepared(database)
                started = seconds()
                uses = self._connections.usage_of(database.key)
                isolation = database.product.isolate(database, template, uses)
                if self._config.verify:
                    isolation = Verified(isolation, database.name, self._ledger)
                for level in self._levels:
                    try:
                        self.enter(isolation, database, level)
                    except (ConfigError, IsolationError) as error:
                        refusal = refusal or error
                self._ledger.isolation_seconds += seconds() - started
                database.isolation = isolation
        except (ConfigError, ServerError, TemplateError) as error:
            database.failure = error
            return None
        self._ledger.filled[database.product.shown, isolation.name] = None
        return refusal

    def _check_isolation(self, product: Product) -> None:
        """Raise a ConfigError if a product does not have the configured isolation."""
        isolations = SUPPORTED[product.name].isolations
        if self._config.isolation not in {"auto", *isolations}:
            raise ConfigError(
                f"arena_isolation = {self._config.isolation} does not exist on {product.shown}",
                why="the tests would run with another isolation than the option names",
                cause=self._config.place("isolation"),
                fix=f"arena_isolation = auto   (here: {', '.join(isolations)})",
            )

    def _prepared(self, database: Database) -> object:
        """Return the content of the template of a database. Find or build it at the first call."""
        if database.prepared is None:
            return self._template(database, Stage.SEEDED)
        [content] = database.prepared
        return content

    def enter(self, isolation: Isolation, database: Database, level: Level) -> None:
        """Enter a level on one database, with the content that the level needs.

        Raises:
            ConfigError: the test's marker names an isolation that this database does not have.
            IsolationError: there is no space for a copy.
        """
        reason = ""
        if level.isolation != "auto":  # the test's marker names one
            product = database.product
            if level.isolation in SUPPORTED[product.name].isolations:
                reason = isolation.choose_next_isolation(level.isolation)
            else:
                reason = f"{product.shown} does not have it"
        if database not in self.first_contents and not isolation.depth:
            content = None
            # A database in memory does not exist at the end.
            if database.key.kind != "memory":
                content = first_content(isolation, database.name, self._ledger)
            self.first_contents[database] = content
        isolation.enter()
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
        """Note each database whose content differs after the last test."""
        self.differences += differences_at_the_end(self.first_contents, self._ledger)

    def _template(self, database: Database, stage: Stage) -> object:
        """Return the content of a template, None if it is empty. Build it if necessary."""
        recipe = self.recipe(database)

        def build_around(target: BuildTarget) -> AbstractContextManager[None]:
            return RunningBuild(database, target).around()

        store = self._store(database)
        template = store.ensure(recipe, stage, build_around)
        for schema, drift in store.drifts.items():
            if drift and schema not in self._compared:
                self._compared.add(schema)
                warn_of_drift(self._config.root, self._ledger, schema, drift)
        return template.content if template is not None else None

    def _store(self, database: Database) -> Store[object]:
        key = (database.product.name, database.dialect.driver)
        store = self.stores.get(key)
        if store is None:
            store = Store(
                database.product.template_store(database.dialect),
                self._config.root,
                self._newer_than,
            )
            self.stores[key] = store
        return store

    def template_words(self) -> str:
        """Return the words of the stores about templates for the summary, or ""."""
        words = [store.template_store.words for store in self.stores.values()]
        return "; ".join(filter(None, words))

    def recipe(self, database: Database) -> Recipe:
        """Return the values of ``arena_schema`` and ``arena_seed`` for a database."""
        names = self._known.names_in_options(database)
        return Recipe(
            _first_value(self._config.schema, names),
            _first_value(self._config.seed, names),
        )


def _first_value(values: Mapping[str, str], names: list[str]) -> str:
    """Return the value of the first name that has one, "" if none has."""
    for name in names:
        if name in values:
            return values[name]
    return ""


_SINCE = "ARENA_REBUILT_SINCE"
