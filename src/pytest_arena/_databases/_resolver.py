"""Decides which database a connection opens."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import astuple
from json import dumps
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from pytest_arena._config._supported import SUPPORTED, database_of, file_at_stake
from pytest_arena._databases import _refusals as refusals
from pytest_arena._databases._app_databases import (
    AllowedFiles,
    Environment,
    KnownDatabases,
    Products,
    Whose,
    named_by,
)
from pytest_arena._databases._client_programs import client_folder
from pytest_arena._databases._provision import Provision
from pytest_arena._databases._template import build_here
from pytest_arena._gate._engines import known_engines, requested_by_engines
from pytest_arena._interpreter import guard_programs
from pytest_arena._origin import REQUEST, as_own, is_own, user_line
from pytest_arena._owner import line_of_job, owner_here
from pytest_arena._product import Opener
from pytest_arena._product._server_connections import address_for
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._config._read import Config
    from pytest_arena._databases._refusals import Refusal
    from pytest_arena._gate._registry import Registry
    from pytest_arena._ledger import Ledger
    from pytest_arena._owner import Owner
    from pytest_arena._product import (
        ConnectTarget,
        Database,
        Isolation,
        Key,
        RequestedDatabase,
    )
    from pytest_arena._product._statements import Statement, Words
    from pytest_arena._values import Child

__tracebackhide__ = True  # tracebacks end at the user's line


class Databases:
    """The databases of the app. Implements the core of the gate and of the products."""

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
        self.opened_raw = connections.opened_raw
        self.usage_of = connections.usage_of
        # Called when a test gets the address of a database, so that any program may use it.
        self.note_published = connections.may_be_used
        self.known: KnownDatabases = KnownDatabases(self.products, self.files)
        self.environment = Environment(config, self.known)
        self.levels: list[Owner] = []  # the top one last
        self.provision = Provision(config, ledger, self.known, connections, levels=self.levels)
        self.process = os.getpid()  # the process that runs tests
        self.redis_port: Callable[[], int] = lambda: 0  # of the tests' Redis, 0 without one
        with suppress(OSError), as_own():  # at the latest, the start of a program raises it
            guard_programs(os.environ, "", client_folder)
        self.finished = False  # every connection is refused from then on

    # For the gate and the products.

    def admit(
        self, opener: Opener, name: str, requested: RequestedDatabase | None = None
    ) -> ConnectTarget | None:
        """Return the target of a connection, None if it stays as it is. Or refuse it.

        This method and those that it calls decide. ``_refusals.py`` has the texts.
        """
        if requested is None:
            return self._admit_open(opener, name)
        if opener is Opener.DRIVER:
            return self._admit_driver(requested)
        return self._admit_engine(requested)

    def _admit_open(self, opener: Opener, name: str) -> ConnectTarget | None:
        """Decide on a connection that cannot be redirected. It is open, or it is of sqlite3."""
        database = self.known.at_file(name) if name else None
        if database is not None:
            self._refuse_after_session(name)
            # A builder that opens the file would wait for its own build.
            if build_here() is None:
                self.ensure_content(database)
        whose = self.files.whose(name) if database is None else Whose.OURS
        if opener is Opener.CREATOR and whose.is_at_stake:
            raise self._refused(refusals.CHOSEN_BY_APP.of(whose), name)
        if opener is Opener.SQLITE3 and whose is Whose.APP:
            raise self._refused(refusals.FILE_WITHOUT_ENGINE, name)
        if opener is Opener.SQLITE3 and whose is not Whose.UNKNOWN:
            self.refuse_late()
        return None if database is None else database.target

    def _admit_driver(self, requested: RequestedDatabase) -> ConnectTarget | None:
        """Decide on a connection to a server that no engine opens."""
        whose = self.files.whose(requested.name)
        drivers = self.config.drivers
        if drivers == "off":
            return None
        self.refuse_late()
        product: Any = self.products.opened.get(requested.product)  # a `ServerProduct`
        live: Database | None = product and product.live_at(requested)
        if live is not None and live.isolation is not None:
            self._refuse_after_session(requested.name)
            target: ConnectTarget | None = live.target
        elif whose is Whose.FREE:
            return None
        elif drivers == "redirect" and whose is Whose.APP:
            target = self._admit_engine(requested)
        else:
            refusal = refusals.WITHOUT_ENGINE
            if whose is Whose.APP:
                refusal = refusals.REFUSED_DRIVER
            elif requested.database == SUPPORTED[requested.product].maintenance_database:
                refusal = refusals.FOR_DATABASES
            raise self._refused(refusal, requested.name, driver=requested.dialect.driver)
        if target is not None and target.database is not None and target.database.is_shared:
            raise self._refused(refusals.PAST_TRANSACTION, requested.name)
        return target

    def _admit_engine(self, requested: RequestedDatabase) -> ConnectTarget | None:
        """Decide on a connection that pytest-arena can redirect."""
        self.refuse_late()
        is_known = known_engines.of(requested.dialect).database is not None
        if not (is_known or self.known.replaces(requested)):
            if not self.files.whose(requested.name).is_at_stake:
                return None
            values = {"option": self.config.database, "driver": requested.dialect.driver}
            raise self._refused(refusals.UNKNOWN_DATABASE, requested.name, **values)
        self._refuse_after_session(requested.name or "a memory database")
        build = build_here()
        if build is not None:
            database = self.known.find(requested)
            is_other = requested.product != build.database.product.name
            if database is None and requested.name and is_other:
                built = build.database.name
                raise self._refused(refusals.OTHER_DATABASE_IN_BUILD, requested.name, built=built)
            return build.target_of(database)
        if self.known.primary is None and known_engines.of(requested.dialect).birth == "late":
            self.add_first()  # as before the request that creates this engine
        # The oldest engine has the app's first database, also if another one connects first.
        self.known.find_first()
        database = self.known.register(requested)
        self.ensure_content(database)
        return database.target

    def add_first(self) -> None:
        """Add the app's first database by the product of an option, before there is an engine."""
        product = self.environment.first_product()
        # Lines with names need the names of the app's engines.
        if product and self.config.schema.keys() <= {""}:
            self.known.add_first(product)

    def _refuse_after_session(self, name: str) -> None:
        if self.finished:
            raise self._refused(refusals.AFTER_SESSION, name)

    def refuse_late(self) -> None:
        """Refuse a connection of code that works for an owner that is over."""
        owner = owner_here()
        if owner is None or not owner.is_over:
            return
        if not (user_line() or line_of_job()):
            return  # a library's task that a request has started may serve later requests
        error = refusals.late_work(owner)
        self.ledger.note(" ".join(f"{error.what}: {error.cause}; next: {error.fix}".split()))
        raise error

    def _refused(self, refusal: Refusal, name: str, **values: str) -> ArenaError:
        """Record and return the error: an ``except Exception`` of the app may swallow it."""
        values["allowed"] = ", ".join(self.config.allow)
        return self.ledger.refused(refusal.error(name, **values))

    def refuse_statement(self, meaning: Statement, words: Words) -> None:
        """Refuse a statement that would change another database or the server."""
        if not meaning.beyond and build_here() is not None:
            return
        raise self.ledger.refused(refusals.beyond_database(meaning, words))

    def check_change(self, action: str, path: str) -> None:
        """Refuse to change a file of the app's databases that is older than the run."""
        if is_own():
            return
        file = database_of(path)
        lost = file_at_stake(file, self.files.began, self.files.of_engines)
        if lost:
            raise self._refused(refusals.REMOVED_FILE, lost, action=action)
        if lost is not None and self.files.whose(file) is Whose.UNKNOWN:
            self.files.removed.add(os.path.realpath(file))

    def current(self, key: Key) -> ConnectTarget | None:
        """Return the present target of connections to this database."""
        database = self.known.by_key.get(key)
        self._refuse_after_session(key.name)
        build = build_here()
        if build is not None:
            # A pool may have a connection to the live database, which a builder must not get.
            if build.target.connect_target.key == key:
                return build.target.connect_target
            return build.target_of(database)
        return None if database is None else database.target

    def before_child(self, child: Child) -> None:
        """Build the databases that a child process may use.

        A fork may use the databases of all engines. Another child may use the databases in its
        environment. A child whose command names a database of the app is refused. If a build fails,
        the first connection raises its error.
        """
        # Without a line of the user's code, xdist starts its workers, and Python `uname`.
        is_of_user = child.is_fork or user_line() is not None
        databases = [*self.known.by_key.values()]
        used = {database.product for database in self.provisioned}
        if child.is_fork:  # starts no server for an engine that no test uses
            databases = [each for each in databases if each.product in used or not used]
        else:
            name = named_by(child, self.files)
            if name:
                raise self._refused(refusals.NAMED_BY_CHILD, name)
            exported = "\n".join(self.known.exported)
            databases = [each for each in databases if each.file and each.file in exported]
        # A child can use a test database if it is a fork, if a variable names one, or if one has
        # content. None of this holds for `uname`, which xdist's workers start.
        if child.is_fork or databases or self.provisioned:
            self._connections.has_others = True
        if self.level_owner() is not None and not self.finished:
            for database in databases:
                with suppress(ArenaError):
                    self.ensure_content(database)
        with as_own():  # no level puts it back
            facts = dumps(self._facts_of_programs()) if is_of_user else ""
            guard_programs(child.environment, facts, client_folder)

    def _facts_of_programs(self) -> dict[str, object]:
        """Return where the connections of a Python program lead."""
        if self.ledger.refusals_file is None:
            self.ledger.refusals_file = NamedTemporaryFile(prefix="arena-programs-")  # noqa: SIM115 - until the run's end
        addresses = {}
        files = dict.fromkeys(self.files.of_engines(), "")
        # The last key is by an engine of the app.
        names = {database: key.name for key, database in [*self.known.by_key.items()]}
        for database in self.provisioned:
            target = database.target
            if target.address is None:
                files[names[database]] = target.file
            elif not database.is_shared:
                addresses[names[database]] = astuple(address_for(target, None))
        return {
            "addresses": addresses,
            "files": files,
            "allow": self.files.allowed,
            "clients": client_folder(""),
            "redis": self.redis_port(),
            "began": self.files.began,
            "refusals": self.ledger.refusals_file.name,
        }

    def level_owner(self) -> Owner | None:
        """Return the owner of the level on top, to which writes belong. None without a level.

        It is None in a build, so that a connection of a builder is no leak of the test.
        """
        if not self.levels or build_here() is not None:
            return None
        return self.levels[-1]

    def users(self) -> set[str]:
        """Return the users whose logins engines name."""
        databases: list[Any] = [
            *requested_by_engines(known_engines.find()),
            *self.known.by_key.values(),
        ]
        return {database.login.user for database in databases if database.login}

    # For the run.

    def drop_with_level(self, database: Database, level: Owner) -> bool:
        """Drop a database in memory with the level in which its engines were created.

        A surviving engine, such as one in a cache, gets a new database at its next connect. Return
        whether it was dropped.
        """
        engines = known_engines.on(database)
        if database.key.kind != "memory" or any(each.level() is not level for each in engines):
            return False
        for engine in engines:
            engine.is_disposed = True  # a cache may keep what no later test uses
        self.known.drop(database)
        return True

    @property
    def provisioned(self) -> dict[Database, Isolation]:
        """The databases that have content, because a connection was opened. The oldest first."""
        return {each: each.isolation for each in [*self.known.by_key.values()] if each.isolation}

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
            raise self._refused(refusals.IN_FORK, database.name)
        token = REQUEST.set(None)  # a build is no part of a request
        try:
            return self.provision.provide(database)
        finally:
            REQUEST.reset(token)
