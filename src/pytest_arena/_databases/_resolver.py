"""Decides which database a connection opens."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_arena._config._supported import FILE_PRODUCTS, SUPPORTED, product_of
from pytest_arena._databases._app_databases import (
    AllowedFiles,
    Environment,
    KnownDatabases,
    Products,
    refusal_of,
)
from pytest_arena._databases._provision import Level, Provision
from pytest_arena._databases._template import running_build
from pytest_arena._gate._engines import known_engines, requested_by_engines
from pytest_arena._gate._listeners import late_work, unknown_connection
from pytest_arena._origin import cause_of_connection, user_line
from pytest_arena._owner import owner_here
from pytest_arena.errors import (
    AfterSessionError,
    ArenaError,
    UnknownDatabaseError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._config._read import Config
    from pytest_arena._gate._connections import Registry
    from pytest_arena._ledger import Ledger
    from pytest_arena._owner import Owner
    from pytest_arena._product import (
        ConnectTarget,
        Database,
        Isolation,
        Key,
        RequestedDatabase,
    )
    from pytest_arena._values import Child, ServerLogin

__tracebackhide__ = True  # tracebacks end at the user's line


class Databases:
    """The databases of the app. Implements the core of the gate and of the products."""

    files: AllowedFiles
    write_line: Callable[[str], object]  # to the terminal

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
        self.known = KnownDatabases(self.products, self.files, connections)
        self.environment = Environment(config, self.known)
        self.levels: list[Level] = []
        self.provision = Provision(
            config, ledger, self.known, connections, levels=self.levels
        )
        self.process = os.getpid()  # the process that runs tests
        self.finished = False  # every connection is refused from then on

    # For the gate and the products.

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
            error = AfterSessionError(
                f"refused: a connection to {name or 'a memory database'} after the test session",
                why="pytest-arena has closed the tests' databases. The connection would have "
                "reached the app's database",
                cause=cause_of_connection(),
                fix="delete it if it drops tables, because the test databases are gone. Else do it "
                "in a session fixture's tear-down",
            )
            raise self.ledger.refused(error)

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
        facts = SUPPORTED.get(product_of(requested.product))
        refusal = unknown_connection(
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
        product = build.database.product
        if requested.product != product.name:
            refusal = UnknownDatabaseError(
                f"refused: a connection to {requested.name}, because the tests' database is on "
                f"{product.shown}",
                why="the tables would be created in that database, which may be a real one, and "
                "not in the tests' database",
                cause=cause_of_connection(),
                fix="use the app's engine there. For migrations, a function that runs them on it:\n"
                "arena_schema = <module>:<function>   (with <function>.arena_files = "
                '["migrations"])',
            )
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
        # Without a line of the user's code, xdist starts its workers, and Python `uname`.
        self.files.has_child |= child.is_fork or user_line() is not None
        if not child.is_fork:
            refusal = refusal_of(child, self.known)
            if refusal is not None:
                raise self.ledger.refused(refusal)
        databases = [*self.known.by_key.values()]
        used = {database.product for database in self.provisioned()}
        if child.is_fork:  # starts no server for an engine that no test uses
            databases = [each for each in databases if each.product in used or not used]
        else:
            exported = "\n".join(self.known.exported)
            databases = [
                each for each in databases if each.file and each.file in exported
            ]
        # A child can use a test database if it is a fork, if a variable names one, or if one has
        # content. None of this holds for `uname`, which xdist's workers start.
        if child.is_fork or databases or self.provisioned():
            self._connections.has_others = True
        if self.levels and running_build() is None and not self.finished:
            for database in databases:
                with suppress(ArenaError):
                    self.ensure_content(database)

    def level_owner(self) -> Owner | None:
        """Return the owner of the level on top, to which writes belong. None without a level.

        It is None in a build, so that a connection of a builder is no leak of the test.
        """
        if not self.levels or running_build() is not None:
            return None
        return self.levels[-1].owner

    def requested(self) -> tuple[list[str], dict[str, ServerLogin]]:
        """Return the requested databases on servers, and the logins that engines name, by user."""
        of_engines = requested_by_engines(known_engines.find())
        logins = [database.login for database in of_engines]
        logins += [database.login for database in self.known.by_key.values()]
        by_user = {login.user: login for login in logins if login is not None}
        return list(self.known.requested), by_user

    def announce_server(self, product: str) -> None:
        """Write a line before the first use of a private server that no option names."""
        if product not in self.environment.products():
            urls = [url for url in self.known.requested if product_of(url) == product]
            self.write_line(
                f"arena: a private server is started for the app's engine on {', '.join(urls)}, "
                "which no option and no variable of arena_env names"
            )

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
        error = late_work(owner)
        words = f"{error.what}: {error.cause}; next: {error.fix}".split()
        self.ledger.note(" ".join(words))
        raise error

    def note_published(self, key: Key) -> None:
        """Note that a test has the address of a database, so that any program may use it."""
        self._connections.may_be_used(key)

    # For the run.

    def drop_with_level(self, database: Database, level: Level) -> bool:
        """Drop a database in memory with the level in which its engines were created.

        A surviving engine, such as one in a cache, gets a new database at its next connect. Return
        whether it was dropped.
        """
        if database.key.kind != "memory":
            return False
        engines = known_engines.on(database)
        if any(engine.level() is not level.owner for engine in engines):
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
            error = UnknownDatabaseError(
                f"refused: a connection to {database.name} in a process that was forked before it "
                "existed",
                why="the fork would fill a separate database, which no test sees or restores",
                cause=cause_of_connection(),
                fix="start the workers in a fixture or a test, and not when a file is imported",
            )
            raise self.ledger.refused(error)
        return self.provision.ensure_content(database)
