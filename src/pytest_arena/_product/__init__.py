"""The interface to the packages of the database products.

The core names no product. It finds a product's package by the name of SQLAlchemy's dialect, and
imports it at the first engine or driver of the product.
"""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
import threading
from contextlib import contextmanager
from copy import copy
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar, cast

from pytest_arena._config._supported import SUPPORTED, package_of
from pytest_arena._origin import REQUEST, user_line
from pytest_arena._values import STATEMENT_START, digest
from pytest_arena.errors import ArenaError, ConfigError, TemplateError

if TYPE_CHECKING:
    from collections.abc import (
        Callable,
        Collection,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlalchemy.engine import URL, Connection, Dialect

    from pytest_arena._config._read import Config
    from pytest_arena._ledger import Ledger
    from pytest_arena._values import Address, CodeLine, ServerLogin, TableRows

# A host that no resolver answers (RFC 2606). It replaces a server that tests may not reach.
NOWHERE = "arena.invalid"
UNNAMED = "(unknown)"  # the server of an open connection that does not name it


# The content of a template: a file's path, or a database's name.
ContentT = TypeVar("ContentT")


class ProductPackage(Protocol):
    """The module ``_connections`` of a product's package."""

    connections: Connections

    def open_product(self, core: Core, config: Config) -> Product:
        """Return the product of a run. It finds and starts no server yet."""


loaded: dict[str, ProductPackage] = {}  # by the names of products


def raw_transactions() -> list[str]:
    """Return the lines of open transactions of connections that no engine has opened."""
    lines: list[str] = []
    for product in [*loaded.values()]:
        lines += product.connections.raw_transactions()
    return lines


def product_package(product: str) -> ProductPackage:
    """Return the package of a product. Import it at its first use."""
    if product not in loaded:
        # A driver's import may call this function. The driver is imported first, or the call would
        # find a package whose import is not complete.
        drivers = SUPPORTED[product].drivers
        for package in sys.stdlib_module_names.intersection(drivers):
            importlib.import_module(package)
        loaded[product] = cast(
            "ProductPackage",
            importlib.import_module(f"{package_of(product)}._connections"),
        )
    return loaded[product]


class Key(NamedTuple):
    """The identity of a database. A tuple, because each checkout looks up several."""

    # file, memory, shared memory, server, building or expected. "building" is a template that is
    # built. "expected" is a database that an option or a test names, and no engine yet.
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
    # Whether the database ends with the level on top.
    is_passing: bool = field(default=False, compare=False)
    # None while a template is built.
    database: Database | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class OpenConnection:
    """An open connection, as a product describes it.

    ``target`` is None if pytest-arena did not redirect the connection. ``handle`` is None if the
    product does not know its driver. ``outside`` is the name of a database that pytest-arena does
    not replace.
    """

    target: ConnectTarget | None = None
    handle: Handle | None = None
    outside: str = ""


class Files(Protocol):
    """Decides whether a file belongs to the app, and whether tests may open it."""

    names: tuple[str, ...]  # of the app's database files, without folders

    def is_free(self, file: str) -> bool:
        """Return whether tests may open this file: pytest's folders, ``arena_allow``."""

    def is_allowed(self, name: str) -> bool:
        """Return whether ``arena_allow`` lets tests reach this database."""

    def belongs_to_app(self, file: str) -> bool:
        """Return whether this is a database file of the app."""

    def is_replaced(self, path: str) -> bool:
        """Return whether a test's database replaces this file. Costs a look-up."""

    def find_below(self, folder: str) -> str:
        """Return a file in this folder that a test's database replaces, or ""."""

    def is_link_into_app(self, file: str) -> bool:
        """Return whether a link leads to a file that a test's database replaces."""

    def note_removal(self, path: str) -> None:
        """Note that the user's code removes a file that it has created."""

    def is_of_earlier_run(self, file: str) -> bool:
        """Return whether this is an SQLite database that has not changed in this run."""

    def register_opened(self, file: str) -> str:
        """Register an opened file that no engine names yet. Return its real path."""


# Statements that write nothing, unless a function that they call does.
READS = re.compile(
    STATEMENT_START
    + r"(?:SELECT|SHOW|FETCH|BEGIN|START|SAVEPOINT|RELEASE|ROLLBACK|COMMIT|PRAGMA|EXPLAIN)\b",
    re.IGNORECASE,
)
_SAVEPOINTS = re.compile(
    STATEMENT_START + r"(?:SAVEPOINT|ROLLBACK\b.*\bTO)\b", re.IGNORECASE
)
_MOST_STATEMENTS = 1000  # of one transaction


class RawStatement(NamedTuple):
    """A statement that may write, of a connection that no engine has opened."""

    text: str
    serial: int  # of the level in which it was sent
    line: CodeLine | None


class RawWrites:
    """The open transaction of a connection that no engine has opened."""

    def __init__(self) -> None:
        self.statements: list[RawStatement] = []  # also those about savepoints
        # The record of the request that began to write, and the id of the error that it handled.
        self.request: object = None
        self.handled_error = 0
        self._runs = False  # the last statement, as far as is known

    def note(self, statement: str, serial: int, request: object = None) -> None:
        """Note a statement of the transaction if it may write, or is about a savepoint.

        ``request`` is the record of a request whose thread does not know it.
        """
        if READS.match(statement) and not _SAVEPOINTS.match(statement):
            return
        if not self.statements:
            error = sys.exception()
            self.request = REQUEST.get() or request
            self.handled_error = id(error) if error is not None else 0
        last = self.statements[-1].text if self.statements else ""
        # asyncpg's methods call each other.
        is_repeated = self._runs and statement == last
        if len(self.statements) < _MOST_STATEMENTS and not is_repeated:
            self._runs = True
            self.statements.append(RawStatement(statement, serial, user_line()))

    def ran(self, rows: int) -> None:
        """Note how many rows the last statement has changed. Forget one that has changed none."""
        if self._runs and rows == 0:
            self.statements.pop()
        self._runs = False

    def written_in(self, serial: int) -> bool:
        """Return whether the level has sent a statement that may write."""
        return any(
            statement.serial == serial and not READS.match(statement.text)
            for statement in self.statements
        )

    @property
    def line(self) -> CodeLine | None:
        """The line of the first statement that may have written."""
        for statement in self.statements:
            if not READS.match(statement.text):
                return statement.line
        return None


class Core(Protocol):
    """Answers a product's questions: which databases pytest-arena replaces, and what is allowed."""

    ledger: Ledger  # records refusals, and what pytest-arena cannot do for this app
    config: Config

    @property
    def files(self) -> Files:
        """Decides whether a file belongs to the app."""

    def ensure_target(self, requested: RequestedDatabase) -> ConnectTarget | None:
        """Return the target of an engine's connection. Build the database at the first one.

        None: pytest-arena does not redirect the connection.

        Raises:
            ArenaError: the connection may not be opened.
        """

    def ensure_attached_target(
        self, attached: RequestedDatabase, beside: ConnectTarget | None
    ) -> ConnectTarget | None:
        """Return the target of a database that a connection to ``beside`` attaches.

        None: pytest-arena does not redirect it. Raises as ``ensure_target`` does.
        """

    def target_at(self, file: str) -> ConnectTarget | None:
        """Return the target of a connection that is open on this file, None if it has none."""

    def is_inside(self, file: str) -> bool:
        """Return whether this file belongs to pytest-arena. If it does, fill it first."""

    def serial(self, *, is_on_top: bool = False) -> int:
        """Return the serial of the level of the running code, 0 if there is no level.

        ``is_on_top``: return that of the level on top.
        """

    def is_named_by_engine(self, requested: RequestedDatabase) -> bool:
        """Return whether an engine of the app names this database of a server."""

    def is_set_up_by_fixture(self, key: Key | None, name: str) -> bool:
        """Return whether a fixture, not a test, sets up a test database of this name.

        ``key`` is that of the database in which the statement was to run, or None.
        """

    def refuse_late(self, *, is_statement: bool = False) -> None:
        """Raise a LateWorkError if the caller works for a test that has ended.

        The caller requests a connection, or with ``is_statement`` is about to use one.
        """

    def opened_raw(self, key: Key) -> None:
        """Note a connection that no engine has opened."""

    def lost_raw(self, writes: RawWrites, *, is_collected: bool = False) -> None:
        """Note writes of a connection that is closed, or returned to a pool, without a commit.

        ``is_collected``: the garbage collector closes it.
        """

    def copied(self, driver_connection: object, statement: str) -> None:
        """Note a COPY into a table that the driver's connection of a pool is about to send."""

    def requested(self) -> tuple[list[str], dict[str, ServerLogin]]:
        """Return the databases on servers that engines and variables of the app name.

        The second value has the login of each user that they name, also of engines that have not
        connected.
        """

    def end_idle_connections(self) -> None:
        """End idle connections to servers: another connection waits for a free slot."""

    def provisioned(self) -> list[Database]:
        """Return the databases that have content: something has connected to them."""


@dataclass(slots=True, eq=False)
class ReadSnapshot:
    """The rows that a transaction reads: those that were committed when it first read."""

    reads: int = 0  # how many statements have read from it

    def read(self) -> None:
        """Note a statement that reads from it."""
        self.reads += 1


class Handle(Protocol):
    """One open connection. It has a weak reference: the connection ends when its pool drops it."""

    @property
    def reads_statements(self) -> bool:
        """Whether ``executing`` is to be called with each statement."""

    def is_of(self, dbapi_connection: object) -> bool:
        """Return whether this is the connection that the product has recorded.

        An app's do_connect listener runs after the gate's, and may return another connection.
        """

    @property
    def in_transaction(self) -> bool:
        """Whether an open transaction has written."""

    @property
    def is_begun(self) -> bool:
        """Whether a transaction is open, by what the driver knows without a round trip."""

    @property
    def snapshot(self) -> ReadSnapshot | None:
        """The snapshot of the open transaction. None if it reads what others commit meanwhile."""

    def changes(self) -> int:
        """Return the number of rows that it has changed, 0 if the driver does not count them."""

    def has_written(self, dbapi_connection: object, since: int) -> bool:
        """Return whether the open transaction has written, after ``since`` changes.

        Raises:
            Exception: the driver's, if the connection is closed or busy.
        """

    def interrupt(self) -> None:
        """Cancel the running statement, if there is one."""

    def alone(self, seconds: float = 0) -> AbstractContextManager[bool]:
        """Exclude other threads from the connection. Yield False if it is busy for so long."""

    def roll_back(self) -> None:
        """End the transaction. The connection may be unusable afterwards."""

    def end(self) -> None:
        """Close the connection: its database was dropped."""

    def attached(self) -> tuple[ConnectTarget, ...]:
        """Return the targets of the databases that it has attached."""

    def session(self, dbapi_connection: object) -> object:
        """Return a value that changes with the settings of the session, None if unknown.

        The settings of the driver's connection and of SQLAlchemy's adapted one belong to them.
        """

    @property
    def has_leftovers(self) -> bool:
        """Whether the app may see what an earlier level has left, and ``session`` does not show.

        These are names of settings, and what a `connect` listener has made: temporary tables, or
        tables that ended with the level. No fixture needs the connection, so it may be replaced.
        """

    def note_checkout(self, *, is_first: bool) -> int:
        """Note a checkout from the pool. ``is_first``: the first one in this level.

        Return ``changes()``.
        """

    def before_execute(self, statement: str, connection: Connection) -> str:
        """Prepare for a statement that SQLAlchemy is about to execute. Return the one to execute.

        Raises:
            RefusedError: it reaches beyond the database.
        """

    def note_checkin(self) -> None:
        """Note that the connection was returned to its pool."""


class Connections(Protocol):
    """The connections of one product, for the gate."""

    def describe(
        self, dialect: Dialect, cargs: object, cparams: object
    ) -> RequestedDatabase | None:
        """Return the database that the arguments of a connect call request.

        None: pytest-arena does not know the driver's arguments.
        """

    def session_arguments(
        self, dialect: Dialect, cargs: object, cparams: object
    ) -> dict[str, object]:
        """Return the arguments with which a sync driver sets the session as these arguments do."""

    def redirect(
        self,
        core: Core,
        dialect: Dialect,
        target: ConnectTarget | None,
        cargs: list[object],
        cparams: dict[str, object],
    ) -> Callable[[object], OpenConnection | None]:
        """Replace the app's database by the target in the arguments, and keep all others.

        Without a target the connection is only watched. Returns a function that describes the
        opened connection, None if a listener of the app may have opened another one.
        """

    def recognize(self, core: Core, dbapi_connection: object) -> OpenConnection | None:
        """Describe a connection that was not redirected. None: it is another product's.

        Raises:
            RefusedError: it is open on a file that pytest-arena does not replace.
        """

    def watch(self, core: Callable[[], Core | None]) -> None:
        """Watch the connections that no engine opens, until the process ends. May be repeated.

        ``core`` returns the core of the running run. None: every connection is admitted.
        """

    def end_raw(self, core: Core, serial: int | None) -> list[str]:
        """End the connections that no engine has opened in this level, before it is left.

        Also end each such connection to a replaced database, whatever the level. Reset or end a
        connection of a wider level if this level has changed its session. Return the lines whose
        uncommitted writes are lost.
        """

    def raw_transactions(self) -> list[str]:
        """Return the lines of the open transactions of connections that no engine has opened."""

    def explain(self, error: BaseException, ended: Sequence[str]) -> str:
        """Explain an error of a driver's connection or pool that an earlier test has opened.

        ``ended`` says which connections of wider fixtures pytest-arena has ended, and why. ""
        means another error.
        """

    def owns(self, name: str) -> bool:
        """Return whether a server's database, in the form of ``arena_allow``, is pytest-arena's."""

    def named_by_client(
        self, program: str, words: Sequence[str], variables: Mapping[str, str]
    ) -> tuple[str, ...]:
        """Return the databases that a program of ``CLIENTS`` would connect to.

        ``words`` are its arguments. The names have the form of ``arena_allow``. A database of the
        arena is not among them.
        """

    def in_spawned(
        self, core: Core, engines: Sequence[RequestedDatabase]
    ) -> object | None:
        """Return an object that redirects connections in a process that multiprocessing spawns.

        ``engines`` are the databases that engines of this process request. The object is pickled.
        It acts when the new process unpickles it. None: the product redirects no connection there.
        """


@dataclass(slots=True, eq=False)
class Database:
    """One database of the app, and the test's database in its place."""

    key: Key
    name: str
    tails: tuple[
        str, ...
    ]  # its names in options, such as host/shop and shop: longest first
    product: Product
    dialect: type[Dialect]  # the class: an instance would keep the app's engine alive
    live: Path | None = None  # its file, None on a server
    isolation: Isolation | None = None
    failure: ArenaError | None = None
    # The content of a template that was found or built before a test. It has one item.
    prepared: tuple[object] | None = None
    busy: bool = False
    attached: bool = False  # a connection to another database has attached it
    login: ServerLogin | None = None  # of the first engine that names one
    is_only_named: bool = False  # by a variable, and by no engine of the app yet
    level: object = None  # in which it was created, None after a wider level began
    is_the_runs: bool = False  # created before any level: no level restores its content
    born: int = 0  # distinguishes a database from a dropped one of the same key
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def file(self) -> str:
        """The path of its file; "" on a server."""
        return str(self.live) if self.live else ""

    @property
    def target(self) -> ConnectTarget:
        """The target of a connection now."""
        return self.product.target(self)

    def attach(self) -> None:
        """Note that a connection to another database has attached it."""
        self.attached = True

    def name_by_engine(self, login: ServerLogin | None) -> None:
        """Note that an engine of the app names it, and the engine's login."""
        self.is_only_named = False
        self.login = self.login or login

    def name_by_variable(self) -> None:
        """Note that a variable names it, and no engine yet."""
        self.is_only_named = True

    def use_async(self, dialect: type[Dialect]) -> None:
        """Note the class of an async engine's dialect: an app with both kinds is an async one."""
        self.dialect = dialect

    def identify(self, key: Key, name: str, tails: tuple[str, ...]) -> None:
        """Note the key and the names that an engine gives it. Only an option named it before."""
        self.key = key
        self.name = name
        self.tails = tails

    @contextmanager
    def being_filled(self) -> Iterator[None]:
        """Note that its content is made in this block. A builder may connect to it meanwhile."""
        self.busy = True
        try:
            yield
        finally:
            self.busy = False

    def prepare(self, content: object) -> None:
        """Note the template of its first connection."""
        self.prepared = (content,)

    def fill(self, isolation: Isolation, level: object) -> None:
        """Note that it has content since a level, None: since before any level."""
        self.level = level
        self.is_the_runs = level is None
        self.isolation = isolation

    def fail(self, error: ArenaError) -> None:
        """Note why it cannot be filled."""
        self.failure = error

    def take_failure(self) -> ArenaError | None:
        """Return why it cannot be filled. Only the first error has the traceback of the build."""
        error = self.failure
        self.failure = copy(error)
        return error

    def close(self) -> None:
        """Close its isolation. It has no content then."""
        isolation = self.isolation
        self.isolation = None
        if isolation is not None:
            isolation.close()

    def forget_level(self) -> None:
        """Forget the level in which it was created: the database outlives that level."""
        self.level = None

    def look(self, where: str) -> str:
        """Return the command that opens the database, or its copy, at a file or a URL."""
        return shlex.join(self.product.shell(where))


class ScriptError(Exception):
    """A script failed. ``line`` is 0 if it is not known, ``fix`` is the next step."""

    def __init__(self, message: str, *, line: int, fix: str) -> None:
        super().__init__(message)
        self.line = line
        self.fix = fix

    def suggest(self, fix: str) -> None:
        """Note a next step, if none is known."""
        self.fix = self.fix or fix


class BuildTarget(Protocol):
    """The database that a build fills, or an empty one beside it."""

    @property
    def product(self) -> str:
        """The product's name in a message."""

    @property
    def has_schemas(self) -> bool:
        """Whether tables may be in schemas that must be created first."""

    @property
    def connect_target(self) -> ConnectTarget:
        """The target of engines' connections during the build."""

    @property
    def sync_url(self) -> URL | None:
        """The URL for sync functions. None: only the app's async driver is installed."""

    @property
    def async_url(self) -> URL:
        """The URL for async functions.

        Raises:
            TemplateError: no async driver is installed.
        """

    def run_script(self, script: str) -> None:
        """Run a script of several statements.

        Raises:
            ScriptError: one of them failed.
        """

    def has_tables(self) -> bool:
        """Return whether it has a table. False if the database does not exist yet."""

    def is_being_written(self) -> bool:
        """Return whether an open transaction has written."""

    def remove(self) -> None:
        """Remove the database. Idempotent."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The sources of a finished template, and the time of its build.

    It has no path of this machine, except of files outside of the checkout.
    """

    built: float
    files: dict[str, list[str]]  # digests, by paths from the project's root
    folders: dict[str, list[str]]
    libraries: dict[str, str]  # versions, by names
    project: str  # a digest of the folder of the project that built it
    title: str = ""  # for a person
    # Between the migrations that built it and the models.
    differences: tuple[str, ...] = ()
    not_compared: str = ""  # why the migrations were not compared with the models
    heads: tuple[str, ...] = ()  # of the migrations
    # The start of the server, if unlogged tables have rows: a crash empties them. Else "".
    server_start: str = ""
    # Unique if it was built inside of a test, whose mocks may have acted on it. Else "".
    of_test: str = ""

    @property
    def digest(self) -> str:
        """A digest of the files, folders and libraries from which it was built."""
        content: dict[str, object] = {
            "files": self.files,
            "folders": self.folders,
            "libraries": self.libraries,
        }
        if self.of_test:
            content["of_test"] = self.of_test
        return digest(json.dumps(content))[:16]

    def text(self) -> str:
        """Return the manifest as JSON."""
        return json.dumps(asdict(self), indent=1)


def read_manifest(text: str) -> Manifest | None:
    """Return a stored manifest, None if it is broken or of another version."""
    try:
        return Manifest(**json.loads(text))
    except (ValueError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class Template(Generic[ContentT]):
    """A finished template."""

    content: ContentT
    fingerprint: str
    manifest: Manifest

    @property
    def digest(self) -> str:
        """Identifies the template, for the stage above."""
        return f"{self.fingerprint}/{self.manifest.digest}"


class TemplateStore(Protocol[ContentT]):
    """The finished templates of one product, by the fingerprints of their recipes.

    Guarantee: a template is found complete or not at all, even if its build was killed.
    """

    @property
    def folder(self) -> Path | None:
        """The folder of the templates, None if they are not files of this machine."""

    @property
    def ddl(self) -> Dialect:
        """Compiles DDL. It is the same for every driver."""

    @property
    def has_schema(self) -> bool:
        """Whether each database has its tables before any build: no schema is built."""

    @property
    def words(self) -> str:
        """The summary's text about the content, "" if this store has templates."""

    def identity(self) -> str:
        """Return what a template depends on beside its recipe: the product, and its version."""

    def templates(self, fingerprint: str) -> Iterable[Template[ContentT]]:
        """Return the finished templates of a fingerprint, the newest first."""

    def is_whole(self, template: Template[ContentT]) -> bool:
        """Return whether a template can be used. Called after ``used``, which protects it."""

    def used(self, template: Template[ContentT]) -> None:
        """Note that a run uses a template."""

    def locked(self, fingerprint: str) -> AbstractContextManager[float]:
        """Exclude other builds of a fingerprint. Yield the time, which no test has changed.

        Raises:
            TemplateError: another process builds for too long.
        """

    def clear(self, fingerprint: str) -> None:
        """Remove templates that no run has used for long, and broken builds. Called when locked."""

    def begin(self, fingerprint: str, below: Template[ContentT] | None) -> BuildTarget:
        """Return a new target with the content of the template below."""

    def scratch(self) -> BuildTarget:
        """Return an empty target, for another database that a builder uses as well."""

    def finish(
        self, target: BuildTarget, fingerprint: str, manifest: Manifest
    ) -> ContentT:
        """Make a template of the built database. It is marked as finished last."""

    def advice(self, error: BaseException) -> str:
        """Return the next step after an error of a build, "" if none is known."""

    def not_stored(self, error: Exception) -> TemplateError | None:
        """Return the error for a failure of the store, None for any other."""


class Usage(Protocol):
    """The uses of one database."""

    def __call__(self) -> int:
        """Return a number that has changed since the last call if it may have been used."""

    def before_next(self, call: Callable[[], None]) -> bool:
        """Call a function before the next use. Return False if it may be in use now."""

    def alone(self) -> AbstractContextManager[None]:
        """Replace the database: other threads have no connection meanwhile, and open none."""


class Product(Protocol):
    """The databases of one product in a run.

    ``name`` is the name of SQLAlchemy's dialect.
    """

    name: str
    forced: str  # for the summary: what follows if a level was left by force

    @property
    def shown(self) -> str:
        """The product, its version and its place, in a few words for the summary."""

    def drivers(self) -> tuple[str, ...]:
        """Return the installed drivers, the most frequent first.

        The name ``""`` is SQLAlchemy's default driver.
        """

    def identify(
        self, requested: RequestedDatabase
    ) -> tuple[Key | None, tuple[str, ...]]:
        """Return the key of a requested database, and the names that options may give it.

        The longest name is first. A key of None: each engine has a separate database.
        """

    def live_at(self, requested: RequestedDatabase) -> Database | None:
        """Return the database whose test's database has or had this name on its server."""

    def new_file(self, name: str, taken: Collection[str]) -> Path | None:
        """Return the path for a new database's file, None on a server."""

    def template_store(self, dialect: type[Dialect]) -> TemplateStore[Any]:
        """Return the templates that are built by an app's driver.

        Raises:
            ServerError: there is no server.
        """

    def isolate(self, database: Database, content: object, uses: Usage) -> Isolation:
        """Return the isolation of a database that begins with a template's content.

        Raises:
            ConfigError: the product does not have the requested isolation.
        """

    def ask_for(self, name: str, isolation: Isolation) -> str:
        """Isolate the database's next level as a test's marker requests.

        Returns why that is impossible, "" if it is possible.
        """

    def target(self, database: Database) -> ConnectTarget:
        """Return the present target of connections."""

    def url(self, database: Database, driver: str) -> URL:
        """Return the URL of the database now, for a driver."""

    def keep(self, database: Database, title: str) -> str:
        """Keep a copy of the current content. Return its file or URL."""

    def shell(self, where: str) -> list[str]:
        """Return the words of the command that opens a file or a URL."""

    def policed(self, database: Database, *, is_off: bool = False) -> tuple[str, ...]:
        """Return the tables on which policies act for the app's roles.

        ``is_off`` switches the policies off until the top level is left.

        Raises:
            ArenaError: another session holds a lock on a table, or the server does not answer.
        """

    def policed_for_arena(self, database: Database) -> tuple[str, ...]:
        """Return the tables whose policies limit even pytest-arena's login."""

    def remove(self, database: Database) -> None:
        """Close the isolation of a database, and drop all that belongs to it."""

    def changed_by_others(self) -> list[str]:
        """Return the app's databases on the tests' server that another program has changed."""

    def close(self) -> str:
        """Release everything at the end of a run. Return a message about what it leaves behind."""


class Held(Exception):
    """A connection holds a lock, so that the database cannot be restored."""


def held_by(pids: Iterable[int], database: str) -> Held:
    """Return the error that names the backends which hold locks."""
    shown = ", ".join(map(str, sorted(pids))) or "unknown"
    return Held(f"{database}: inside a transaction with changes: backend {shown}")


def nothing() -> None:
    """Do nothing. The default of a callback."""


def discard(_line: str) -> None:
    """Discard a line for the summary: there is no summary."""


class Isolation(Protocol):
    """One database of this process, with its stack of levels.

    Guarantee: after ``leave`` the database equals what it was at the matching ``enter``: rows,
    sequences, schema. Each class documents its cost.
    """

    name: str

    def call_after_leave(self, check: Callable[[], None]) -> None:
        """Call a function at the end of each ``leave``. If it raises, the level still exists."""

    @property
    def generation(self) -> int:
        """A number that changes when connections must open another file or database."""

    @property
    def depth(self) -> int:
        """The number of open levels."""

    def enter(self) -> None:
        """Open a level above the current state.

        If the database was replaced, the level begins with the replacement.

        Raises:
            Held: an open transaction prevents it. Nothing was done.
            IsolationError: there is no space for it. Nothing was done.
        """

    def leave(self) -> bool:
        """Restore the state of the matching ``enter``. Return whether there was a change.

        Raises:
            Held: a connection holds a lock. Nothing was done, so that the caller can try again.
            IsolationError: the database was dropped, replaced or cannot be written. The level
                still exists, and can be left by force.
        """

    def leave_by_force(self) -> None:
        """Do the same despite locks. Connections become stale (a new generation).

        Raises:
            IsolationError: there is no space for it. The level is left anyway. The state below is
                restored before the next level is entered.
        """

    def is_free(self) -> bool:
        """Return whether no connection holds a lock that would block the next test's writes."""

    def is_untouched(self) -> bool:
        """Return whether no row was *committed* in the top level.

        A sequence moves even if its transaction is rolled back. If only sequences have moved,
        either answer is correct.
        """

    def is_clean(self) -> bool:
        """Return whether the top level has no change, and no open transaction has written."""

    def forget(self, *, is_undone: bool = False) -> None:
        """Drop the top level, and keep the current content.

        ``is_undone``: savepoints have undone what an open transaction wrote in the level. The
        sequences are restored then, if the isolation can do that.
        """

    def moment(self, *, exact: bool = False) -> object:
        """Return a point in time, for ``rows_changed``.

        Cost: at most one round trip, none if the database was not used since the last moment.
        None: no moment was recorded. With ``exact`` the database is read instead.

        Raises:
            ArenaError: the server does not answer.
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

        With a depth of 0: of the top level, from its start or a moment to a moment or now. With
        1 or more: what the level so far below has written. Moments have no effect there.

        Raises:
            ArenaError: the server does not answer, or the record of the changes is lost.
        """

    def content(self) -> Mapping[str, str]:
        """Return digests of the whole content, by the names of tables and the like.

        Equal digests mean equal content. The database itself is read: for checks.

        Raises:
            ArenaError: the server does not answer, or another session holds a lock.
        """

    def replace(self, content: Any, /) -> None:
        """Replace the content of the top level by a template's, or by none (None)."""

    def save(self, place: Any, /) -> object:
        """Keep a copy of the current content, in a file or under a title. Return its place."""

    def close(self) -> None:
        """Release the database. Its creator drops it."""


def isolation_named(config: Config, kinds: Mapping[str, object], shown: str) -> Any:
    """Return the class of the configured isolation on a product.

    Raises:
        ConfigError: the product does not have it.
    """
    if config.isolation not in kinds:
        names = ", ".join(name for name in kinds if name != "auto")
        raise ConfigError(
            f"arena_isolation = {config.isolation} does not exist on {shown}",
            why="tests with another isolation than the option names would prove nothing",
            cause=config.places["isolation"],
            fix=f"arena_isolation = auto   (here: {names})",
        )
    return kinds[config.isolation]
