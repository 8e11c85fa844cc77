"""The interface to the packages of the database products.

The core finds a product's package by the name of SQLAlchemy's dialect, and
imports it at the first engine or driver of the product.
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pytest_arena._config._supported import SUPPORTED, package_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlalchemy.engine import URL, Dialect, Engine

    from pytest_arena._config._read import Config
    from pytest_arena._ledger import Ledger
    from pytest_arena._owner import Owner
    from pytest_arena._product._statements import Words
    from pytest_arena._values import Address, ServerLogin, TableRows
    from pytest_arena.errors import ArenaError

# A host that no resolver answers (RFC 2606). It replaces a server that tests may not reach.
NOWHERE = "arena.invalid"
# The next step if a server has no free connection.
CROWDED = """\
all connections of the server are taken. Each test process opens the app's pools, two
connections of pytest-arena, and one more for each database of the app"""
FEWER_CONNECTIONS = "pytest -n 2 …   # or a smaller pool_size, or a larger max_connections"
UNNAMED = "(unknown)"  # the server of an open connection with an unknown driver


loaded: dict[str, Connections] = {}  # of imported packages, by the names of products


def connections_of(product: str) -> Connections:
    """Return the connections of a product. Import its package at the first call."""
    if product not in loaded:
        # A driver's import may call this function. Import the drivers first: otherwise that call
        # would find a package whose import is not complete.
        drivers = SUPPORTED[product].drivers
        for package in sys.stdlib_module_names.intersection(drivers):
            importlib.import_module(package)
        module = importlib.import_module(f"{package_of(product)}._connections")
        loaded[product] = module.connections
    return loaded[product]


def open_product(name: str, core: Core, config: Config) -> Product:
    """Return the product of a run, without looking for a server.

    An import of its driver does not import this part of its package.
    """
    connections_of(name)  # which imports the drivers first
    module = importlib.import_module(f"{package_of(name)}._product")
    product: Product = module.open_product(core, config)
    return product


class Key(NamedTuple):
    """The identity of a database. A tuple is fast: each checkout looks up several keys."""

    # file, memory, shared memory, server, or building: a template during its build.
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class RequestedDatabase:
    """The database that an engine requests.

    ``name`` is an absolute path for SQLite (``""`` in memory), and
    ``dialect://host:port/database`` on a server. ``memory`` is the name of a memory database that
    several engines share. ``database`` is the name of a database on a server.
    """

    dialect: Dialect
    product: str
    name: str
    memory: str = ""
    database: str = ""
    login: ServerLogin | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ConnectTarget:
    """The database that a connection opens: a file, or a database on a server.

    A connection with an older ``generation`` is stale. Its pool drops it.
    """

    key: Key
    file: str
    generation: tuple[int, int]
    address: Address | None = None
    # None while a template is built.
    database: Database | None = field(default=None, compare=False, repr=False)

    @property
    def isolation(self) -> Any:
        """The isolation of its database, None if it has none yet."""
        return self.database.isolation if self.database is not None else None


@dataclass(frozen=True, slots=True)
class OpenConnection:
    """The description of an open connection by its product.

    ``target`` is None if pytest-arena did not redirect the connection. ``handle`` is None if the
    product does not know the driver.
    """

    target: ConnectTarget | None = None
    handle: Handle | None = None


class Opener(Enum):
    """Who opens a connection, which decides what pytest-arena can do about it."""

    ENGINE = "an engine"
    DRIVER = "a server's driver, without an engine"
    SQLITE3 = "sqlite3, for an engine or without one"
    CREATOR = "code of the app, which has opened it for an engine"


class Core(Protocol):
    """Knows which databases pytest-arena replaces, and which connections it allows.

    `Databases` implements it, which this package may not import.
    """

    ledger: Ledger  # records refusals and notes
    config: Config

    def admit(
        self, opener: Opener, name: str, requested: RequestedDatabase | None = None
    ) -> ConnectTarget | None:
        """Return the target of a connection, None if it stays as it is. Or refuse it.

        An engine and a driver request a database, which may become one of the tests.
        """

    def level_owner(self) -> Owner | None:
        """Return the owner of the level in use, None without a level."""

    def opened_raw(self, key: Key) -> None:
        """Note a connection that no engine has opened."""

    def users(self) -> set[str]:
        """Return the users whose logins the app names."""

    @property
    def provisioned(self) -> Mapping[Database, Isolation]:
        """The databases that have content, because a connection was opened."""


class Handle(ABC):
    """An open connection. It has a weak reference, so that the connection ends with its pool."""

    words: Words  # by which its statements are classified

    @property
    @abstractmethod
    def has_uncommitted_writes(self) -> bool:
        """Whether an open transaction has written."""

    @property
    @abstractmethod
    def is_begun(self) -> bool:
        """Whether a transaction is open, as the driver knows it without a round trip."""

    def is_aborted(self, dbapi_connection: object) -> bool:
        """Return whether a failed statement makes the server roll back at the commit."""
        del dbapi_connection
        return False

    def has_changed_rows(self, cursor: Any) -> bool:
        """Return whether the last statement has written a row. -1 is an unknown number."""
        return bool(cursor.rowcount)

    @abstractmethod
    def interrupt(self) -> None:
        """Cancel the running statement, if there is one."""

    @abstractmethod
    def roll_back(self) -> None:
        """End the transaction. The connection may be unusable afterwards."""

    def is_waiting(self) -> bool:
        """Ask the server whether the running statement waits for a lock of another session."""
        return False

    def would_wait(self, statement: str, sent: Iterable[tuple[Handle | None, str]]) -> bool:
        """Return whether a statement would wait after those that were sent, if this is known."""
        del statement, sent
        return False

    def note_checkout(self) -> None:
        """Note a checkout from the pool."""
        return


class Connections(Protocol):
    """The connections of one product, for the gate."""

    def describe(
        self, dialect: Dialect, cargs: object, cparams: object
    ) -> RequestedDatabase | None:
        """Return the database that a connect call requests, None for an unknown driver."""

    def redirect(
        self,
        core: Core,
        dialect: Dialect,
        target: ConnectTarget | None,
        cargs: list[object],
        cparams: dict[str, object],
    ) -> Callable[[object], OpenConnection | None]:
        """Put the target into the arguments. Without a target only watch the connection.

        Return a function that describes the opened connection, or None for one of a listener.
        """

    def recognize(self, core: Core, dbapi_connection: object) -> OpenConnection | None:
        """Describe a connection that was not redirected, None for another product's connection."""

    def watch(self, core: Callable[[], Core | None]) -> None:
        """Watch connections without an engine until the process ends. Again after a reload."""

    def end_raw(self, level: Owner) -> None:
        """End a level's connections that no engine has opened."""


@dataclass(slots=True, eq=False)
class Database:
    """A database of the app, and the test's database that replaces it."""

    key: Key
    name: str
    # Its names in options, the longest first, such as host/shop and shop.
    tails: tuple[str, ...]
    product: Product
    dialect: type[Dialect]  # the class: an instance would keep the app's engine alive
    has_engine: bool = False  # whether `dialect` is the one of an engine of the app
    file: str = ""  # the path of its live file, "" on a server
    isolation: Isolation | None = None
    failure: ArenaError | None = None
    busy: bool = False  # whether its content is being created, by a builder that may connect
    login: ServerLogin | None = None  # the first login in an engine's URL
    tables: set[str] = field(default_factory=set)  # that it had at the last question
    incarnation: int = 0  # distinguishes it from a dropped database with the same key
    lock: threading.RLock = field(default_factory=threading.RLock)
    _target: ConnectTarget | None = None
    # pytest-arena's engines, with what they have of an engine of the app. By whether one is async,
    # uses pytest-arena's login, and is like no engine of the app.
    engines: dict[tuple[bool, bool, bool], tuple[object, Engine]] = field(default_factory=dict)

    @property
    def is_shared(self) -> bool:
        """Whether all its connections share one transaction (``rollback``)."""
        return self.isolation is not None and self.isolation.name == "rollback"

    @property
    def target(self) -> ConnectTarget:
        """The present target of its connections. Each checkout reads it."""
        # Read it before the address: an older generation only makes the next call read again.
        number = -1 if self.isolation is None else self.isolation.generation
        generation = (self.incarnation, number)
        target = self._target
        if target is None or target.generation != generation or target.key != self.key:
            target = self.product.target(self, generation)
            self._target = target
        return target

    def use_dialect(self, dialect: type[Dialect], *, is_of_engine: bool) -> None:
        """Note the dialect of an engine. Async counts more than sync."""
        if is_of_engine and (dialect.is_async or not self.has_engine):
            self.dialect = dialect
        self.has_engine |= is_of_engine

    def close(self) -> None:
        """Close its isolation. Afterwards it has no content."""
        isolation = self.isolation
        self.isolation = None
        if isolation is not None:
            isolation.close()


class ScriptError(Exception):
    """A script failed. ``line`` is 0 if it is unknown. ``fix`` is the next step."""

    def __init__(self, message: str, *, line: int, fix: str) -> None:
        super().__init__(message)
        self.line = line
        self.fix = fix


class BuildTarget(Protocol):
    """The database that a build fills."""

    @property
    def connect_target(self) -> ConnectTarget:
        """The target of engines' connections during the build."""

    @property
    def sync_url(self) -> URL | None:
        """The URL for sync functions, None without a sync driver."""

    @property
    def async_url(self) -> URL:
        """The URL for async functions."""

    def run_script(self, script: str) -> None:
        """Run a script of several statements."""

    def has_tables(self) -> bool:
        """Return whether the database exists and has a table."""

    def is_being_written(self) -> bool:
        """Return whether an open transaction has written."""

    def remove(self) -> None:
        """Remove the database. Idempotent."""


# The beginning of the fingerprints of templates that end with their run.
OF_RUN = "of-run-"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The facts about a finished template, or a kept database. It has no paths of this machine."""

    built: float  # the time of the build
    title: str = ""  # a name for the user
    drift: str = ""  # how the migrations that built it differ from the models

    def text(self) -> str:
        """Return the manifest as JSON."""
        return json.dumps(asdict(self), indent=1)


def read_manifest(text: str | None) -> Manifest | None:
    """Return a stored manifest, None if it is missing, broken or of another version."""
    try:
        return Manifest(**json.loads(text or ""))
    except (ValueError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class Template:
    """A finished template."""

    content: Any  # a file's path, or a database's name: the core only hands it on
    fingerprint: str
    manifest: Manifest


class TemplateStore(ABC):
    """The finished templates of one product, by the fingerprints of their recipes.

    Guarantee: it never returns an incomplete template, also after a killed build.
    """

    @abstractmethod
    def ddl_dialect(self) -> Dialect:
        """Return what compiles DDL for fingerprints, the same for each driver."""

    @abstractmethod
    def identity(self) -> str:
        """Return a text for the fingerprint: the product, its version and its settings."""

    @abstractmethod
    def find(self, fingerprint: str, newer_than: float) -> Template | None:
        """Return the finished template of a fingerprint, and note that a run uses it."""

    @abstractmethod
    def locked(self, fingerprint: str) -> AbstractContextManager[float]:
        """Exclude other builds of a fingerprint. Yield the time of the file system."""

    @abstractmethod
    def begin(self, below: Template | None, dialect: type[Dialect]) -> BuildTarget:
        """Return a new target with the content of the template below, for an app's driver."""

    @abstractmethod
    def finish(self, target: BuildTarget, fingerprint: str, manifest: Manifest) -> Any:
        """Turn the built database into a template. Mark it as finished last."""

    def advice(self, error: BaseException) -> str:
        """Return the next step after an error of a build, "" if none is known."""
        del error
        return ""

    def find_or_build(
        self,
        fingerprint: str,
        below: Template | None,
        fill: Callable[[BuildTarget, float], Manifest],
        dialect: type[Dialect],
        newer_than: float = 0.0,
    ) -> Template:
        """Return the template of a fingerprint. ``fill`` fills a copy of ``below`` if necessary."""
        template = self.find(fingerprint, newer_than)
        if template is not None:
            return template
        with self.locked(fingerprint) as now:
            # Another process may have built it while this one waited for the lock.
            template = self.find(fingerprint, newer_than)
            if template is not None:
                return template
            target = self.begin(below, dialect)
            try:
                manifest = fill(target, now)
                content = self.finish(target, fingerprint, manifest)
            except BaseException:  # also Ctrl-C
                target.remove()
                raise
            return Template(content, fingerprint, manifest)


class Usage(Protocol):
    """The uses of one database. The gate implements it, which this package may not import."""

    def __call__(self) -> int:
        """Return a number that differs from the last one if the database may have been used."""

    def may_have_others(self) -> bool:
        """Return whether another process may use the database."""

    def is_in_transaction(self) -> bool:
        """Return whether a connection that is checked out has an open transaction."""


class Product(Protocol):
    """The databases of one product in a run."""

    name: str
    forced: str  # the summary's words about the effects of leaving a level by force

    @property
    def shown(self) -> str:
        """The product, its version and its place, in the summary's words."""

    def identify(self, requested: RequestedDatabase) -> tuple[Key | None, tuple[str, ...]]:
        """Return the key of a database, None if each engine has its own, and its names."""

    def new_file(self, name: str, taken: Collection[str]) -> Path | None:
        """Return the path for a new database's file, None on a server."""

    def template_store(self) -> TemplateStore:
        """Return the templates, which all drivers share."""

    def isolate(self, database: Database, content: object, uses: Usage) -> Isolation:
        """Return the isolation of a database, filled with a template's content."""

    def target(self, database: Database, generation: tuple[int, int]) -> ConnectTarget:
        """Return the target of connections of a new generation."""

    def url(self, database: Database, driver: str) -> URL:
        """Return the present URL of the database, for a driver."""

    def keep(self, database: Database, title: str) -> str:
        """Keep a copy of the current content. Return its file or URL."""

    def shell(self, where: str) -> list[str]:
        """Return the words of the command that opens a file or a URL."""

    def close(self) -> None:
        """Close the product at the end of a run."""


class Held(Exception):
    """A connection holds a lock, so that the database cannot be restored."""


def nothing(*_: object, **__: object) -> None:
    """Do nothing. The default of a callback."""


class Isolation(Protocol):
    """One database of this process. ``leave`` restores what the matching ``enter`` found."""

    # Called when `leave` has restored the state. If it raises, the level does not end.
    check: Callable[[], object]

    @property
    def name(self) -> str:
        """Return the name, such as "undo", as in the configuration and in markers."""

    @property
    def generation(self) -> int:
        """A number that changes when connections must open another file or database."""

    @property
    def depth(self) -> int:
        """The number of open levels."""

    def enter(self, isolation: str = "") -> str:
        """Open a level above the current state. Return why it cannot have an isolation, or "".

        Raises:
            Held: an open transaction is in the way. The level was not opened.
            IsolationError: there is no space for the level. It was not opened.
        """

    def leave(self) -> bool:
        """Restore the state of the matching ``enter``. Return whether there was a change.

        Raises:
            Held: a connection holds a lock. The level is unchanged, so that the caller can retry.
            IsolationError: the level cannot be restored, and can be left by force.
        """

    def leave_by_force(self) -> None:
        """Restore the state despite locks. After Ctrl-C in it, the next ``enter`` restores it."""

    def is_clean(self) -> bool:
        """Return whether the top level has no change, and no open transaction has written."""

    def forget(self) -> None:
        """Drop the top level, and keep its changes. The content of `replace` is not one."""

    def moment(self, *, exact: bool = False) -> object:
        """Return a point in time for ``rows_changed``, None if that would read the database.

        Cost: at most one round trip, none if the database was not used since the last moment.
        """

    def rows_changed(
        self,
        since: object = None,
        until: object = None,
        *,
        depth: int = 0,
        limit: int | None = None,
    ) -> list[TableRows]:
        """Return the net committed changes by table, at most ``limit`` rows of each.

        With a depth of 0 these are changes in the top level, from its start or ``since`` until now
        or ``until``. With a greater depth these are all changes of the level so far below.
        """

    def content(self) -> Mapping[str, str]:
        """Return digests of the whole content, by ``definition of table orders`` and such."""

    def replace(self, content: Any, /) -> None:
        """Replace the content of the top level by a template's, or (None) by an empty one."""

    def close(self) -> None:
        """Stop using the database. Its creator drops it."""
