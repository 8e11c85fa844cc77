"""The seam: what the core asks of a database product, and what a product may ask of the core.

A product is a room of its own. The core names none: it finds the room by the name of SQLAlchemy's
dialect, and loads it when an engine or a driver of the product's turns up.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shlex
import sys
import threading
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar, cast

from pytest_arena.errors import ArenaError, ConfigError, TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlalchemy.engine import URL, Connection, Dialect

    from pytest_arena._config._read import Config
    from pytest_arena._ledger import Ledger
    from pytest_arena._values import Address, ServerLogin, TableRows

# A name that no resolver answers (RFC 2606): in the place of a server that may not be reached.
NOWHERE = "arena.invalid"
UNNAMED = "(unknown)"  # in the place of a server that a live connection does not tell

PRODUCT_PACKAGES = {
    "sqlite": "pytest_arena._sqlite",
    "postgresql": "pytest_arena._postgresql",
}
# Packages that open connections by themselves, and the product that they connect to.
DRIVERS = {
    "sqlite3": "sqlite",
    "asyncpg": "postgresql",
    "psycopg": "postgresql",
    "psycopg2": "postgresql",
    "psycopg_pool": "postgresql",
}

# Programs that connect to a database of a product by themselves.
CLIENTS = dict.fromkeys(
    (
        *(
            "psql",
            "pgcli",
            "pgbench",
            "pg_dump",
            "pg_dumpall",
            "pg_restore",
            "createdb",
            "dropdb",
        ),
        *("createuser", "dropuser", "vacuumdb", "reindexdb", "clusterdb"),
    ),
    "postgresql",
)


# What a template is to an isolation: a file's path, or a database's name.
ContentT = TypeVar("ContentT")


class ProductPackage(Protocol):
    """The module by which a product's package is entered."""

    connections: Connections

    def open_product(self, core: Core, config: Config) -> Product:
        """Return the product of a run. Nothing is looked for or started yet."""


loaded: dict[str, ProductPackage] = {}  # the rooms that somebody has asked for


def product_package(product: str) -> ProductPackage:
    """Return the room of a product of ``PRODUCT_PACKAGES``, which is imported at its first use."""
    if product not in loaded:
        # Who waits for a driver's import would find the room half made, if the room was the first.
        drivers = [package for package, name in DRIVERS.items() if name == product]
        for package in sys.stdlib_module_names.intersection(drivers):
            importlib.import_module(package)
        loaded[product] = cast(
            "ProductPackage",
            importlib.import_module(f"{PRODUCT_PACKAGES[product]}._connections"),
        )
    return loaded[product]


class Key(NamedTuple):
    """What tells two databases apart. A tuple, since each checkout looks some up."""

    # file, memory, shared memory, server; building a template; expected: only an option or a test
    # has named it, and no engine has meant it yet
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class RequestedDatabase:
    """The database that an engine asks for.

    ``name`` is an absolute file for SQLite (``""`` for memory) and
    ``dialect://host:port/database`` for servers. ``memory`` names a memory database that several
    engines share; ``database`` is the name of one on a server.
    """

    dialect: Dialect
    product: str
    name: str
    memory: str = ""
    database: str = ""
    login: ServerLogin | None = field(default=None, compare=False)  # where one is named


@dataclass(frozen=True, slots=True)
class ConnectTarget:
    """Where a connection lands: in a file, or in a database on a server.

    One with an older ``generation`` is stale, and is dropped.
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
    """What a product knows of an open connection.

    ``target`` is None if the app leads the connection itself. ``handle`` is None if pytest-arena
    cannot question it. ``outside`` names its database if that is not inside the arena.
    """

    target: ConnectTarget | None = None
    handle: Handle | None = None
    outside: str = ""


class Files(Protocol):
    """Knows whose a file is that does not belong to the arena."""

    names: tuple[str, ...]  # of the app's database files, without folders

    def is_free(self, file: str) -> bool:
        """Whether tests may open this file themselves: pytest's folders, ``arena_allow``."""

    def is_allowed(self, name: str) -> bool:
        """Whether ``arena_allow`` lets tests reach this database."""

    def belongs_to_app(self, file: str) -> bool:
        """Whether this is a database file of the app."""

    def stands_for(self, real: str) -> bool:
        """Whether a database of the arena stands in this file's place. Costs a look-up."""

    def is_link_into_app(self, file: str) -> bool:
        """Whether a link leads to a file in whose place the arena has a database."""

    def give_up_empty(self, real: str) -> bool:
        """Whether a test may remove this file: it is empty, and a temporary file."""

    def see(self, file: str) -> str:
        """Somebody has opened this file, which no engine means so far. Returns its real path."""


class Core(Protocol):
    """What a product may ask: which databases are inside the arena, and what is allowed."""

    ledger: Ledger  # for what is refused, and what arena cannot do for this app
    config: Config

    @property
    def files(self) -> Files:
        """Whoever knows whose a file is."""

    def ensure_target(self, requested: RequestedDatabase) -> ConnectTarget | None:
        """Return where an engine lands, None where it may go its own way.

        Builds what has to be there for the first connection.

        Raises:
            ArenaError: it may not connect at all.
        """

    def ensure_attached_target(
        self, file: str, beside: ConnectTarget | None
    ) -> ConnectTarget | None:
        """Return where a file lands that is attached to a connection which aims at ``beside``.

        None where it may be itself. Raises as ``target`` does.
        """

    def target_at(self, file: str) -> ConnectTarget | None:
        """Return what a connection that is open on this file aims at, None if nothing of ours."""

    def is_inside(self, file: str) -> bool:
        """Whether this file is one of the arena's own; its content is there on return."""

    def serial(self) -> int:
        """The serial of the level that stands now, in which connections are taken."""

    def means(self, requested: RequestedDatabase) -> bool:
        """Whether an engine of the app's means this database of a server, connected or not."""

    def sets_up(self, key: Key | None, name: str) -> bool:
        """Return whether a fixture, not a test, sets up a test database of this name.

        ``key`` is that of the database in which the statement was to run, or None.
        """

    def refuse_late(self, *, is_statement: bool = False) -> None:
        """Raise a LateWorkError if the caller works for a test that is over.

        The caller asks for a connection, or with ``is_statement`` is about to use one.
        """

    def opened_raw(self, key: Key) -> None:
        """Somebody has opened a connection to a database without an engine."""

    def requested(self) -> tuple[list[str], set[str]]:
        """Return the databases on servers, as engines and variables of the app have asked for them.

        And the users that they name, also those of engines that have not connected yet.
        """

    def spare(self) -> None:
        """End the connections to servers that nobody uses now: others, or we, wait for one."""

    def provisioned(self) -> list[Database]:
        """Return the databases that somebody has connected to."""


class Handle(Protocol):
    """One live connection, by a weak reference: it ends when its pool lets go of it."""

    @property
    def reads_statements(self) -> bool:
        """Whether ``executing`` wants to be told of statements."""

    def is_of(self, dbapi_connection: Any) -> bool:
        """Whether this is the very connection that the product has looked at.

        An app's own do_connect listener runs after the gate's, and may return another one.
        """

    @property
    def in_transaction(self) -> bool:
        """Whether it has begun to write and has neither committed nor rolled back."""

    @property
    def is_begun(self) -> bool:
        """Whether a transaction is open as far as its driver knows, which is all that is asked."""

    def changes(self) -> int:
        """How many rows it has changed since it was opened; 0 where the driver does not count."""

    def has_written(self, dbapi_connection: Any, since: int) -> bool:
        """Whether its transaction, which is open, has written: there were ``since`` changes.

        Raises:
            Exception: the driver's own, where the connection is closed or busy.
        """

    def interrupt(self) -> None:
        """End the statement that runs on it. Harmless where none does."""

    def alone(self, seconds: float = 0) -> AbstractContextManager[bool]:
        """Keep everybody else out of it; wait so long for who is inside. Gives whether it is so."""

    def roll_back(self) -> None:
        """End its transaction, alone; the connection may be unusable afterwards."""

    def end(self) -> None:
        """Close it: its database is gone, and nobody is given it any more."""

    def attached(self) -> tuple[ConnectTarget, ...]:
        """Other databases that it has been led to, beside its own."""

    def session(self) -> object:
        """What it carries from one test to the next beside the database; None: cannot be asked."""

    def taken(self, *, is_first: bool) -> None:
        """Note that the connection is checked out of its pool.

        ``is_first`` says whether that is so for the first time in this level.
        """

    def executing(self, statement: str, connection: Connection) -> str:
        """Prepare for a statement that SQLAlchemy is about to execute. Return the one to execute.

        Raises:
            RefusedError: it reaches beyond the database.
        """

    def returned(self) -> None:
        """It is back in its pool, where it belongs to nobody."""


class Connections(Protocol):
    """What the gate asks of a product about its connections."""

    def describe(
        self, dialect: Dialect, cargs: Any, cparams: Any
    ) -> RequestedDatabase | None:
        """Say which database the arguments of a connect call mean.

        None: its driver's arguments are not understood.
        """

    def lead(
        self,
        core: Core,
        dialect: Dialect,
        target: ConnectTarget | None,
        cargs: list[Any],
        cparams: dict[str, Any],
    ) -> Callable[[Any], OpenConnection | None]:
        """Put the arena's database in the place of the app's; all else stays as the app wants it.

        Without an aim the connection goes its own way, looked after. Returns what says of the
        connection that was opened what it is: None where it need not be the one that was led.
        """

    def recognize(self, core: Core, dbapi_connection: Any) -> OpenConnection | None:
        """Say of a connection that nobody has led where it is; None for another product's.

        Raises:
            RefusedError: it is open on something outside of the arena.
        """

    def watch(self, core: Callable[[], Core | None]) -> None:
        """Watch the connections that no engine opens, until the process ends. May be repeated.

        ``core`` returns who decides at the time; None lets everything be.
        """

    def end_raw(self, serial: int) -> None:
        """End those that were opened by themselves in this level, where they can be ended."""

    def owns(self, database: str) -> bool:
        """Return whether a database of this name on a server belongs to pytest-arena."""

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
        """Return an object that leads connections in a process that multiprocessing spawns.

        ``engines`` are the databases that engines of this process mean. The object is pickled. It
        acts when the new process unpickles it. None: the product leads none there.
        """


@dataclass(slots=True, eq=False)
class Database:
    """One database of the app, and the arena's in its place."""

    key: Key
    name: str
    tails: tuple[str, ...]  # all names that an option may give it, the longest first
    product: Product
    dialect: type[Dialect]  # the class: an instance would keep the app's engine alive
    live: Path | None = None  # its file, if it has one
    isolation: Isolation | None = None
    failure: ArenaError | None = None
    busy: bool = False
    attached: bool = False  # also to connections that no engine of its own has opened
    login: ServerLogin | None = None  # that of the first engine which has named one
    is_only_named: bool = (
        False  # by a variable: no engine of the app's has meant it yet
    )
    level: object = None  # that it was made in, if no wider fixture's has begun since
    is_the_runs: bool = False  # created before any level: no level restores its content
    born: int = 0  # one that is dropped and made again lands elsewhere than before
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def file(self) -> str:
        """The path of its file; "" for one on a server."""
        return str(self.live) if self.live else ""

    @property
    def target(self) -> ConnectTarget:
        """Where a connection lands now."""
        return self.product.target(self)

    def forget_level(self) -> None:
        """Forget the level in which it was created: the database outlives that level."""
        self.level = None

    def look(self, where: str) -> str:
        """Return the command that opens it, or a copy, at a file or a URL."""
        return f"{self.product.shell} {shlex.quote(where)}"


class ScriptError(Exception):
    """A script failed. ``line`` is 0 where it is not known; ``fix`` is the next step."""

    def __init__(self, message: str, *, line: int, fix: str) -> None:
        super().__init__(message)
        self.line = line
        self.fix = fix


class BuildTarget(Protocol):
    """A database in the making, or an empty one beside it."""

    @property
    def product(self) -> str:
        """How the product is named in a message."""

    @property
    def has_schemas(self) -> bool:
        """Whether tables may be in schemas that have to be made first."""

    @property
    def connect_target(self) -> ConnectTarget:
        """Where engines land that connect during the build."""

    @property
    def sync_url(self) -> URL | None:
        """By which sync functions reach it; None: over the app's async driver alone."""

    @property
    def async_url(self) -> URL:
        """By which async functions reach it.

        Raises:
            TemplateError: no driver is installed that can do it.
        """

    def run_script(self, script: str) -> None:
        """Run a script of several statements.

        Raises:
            ScriptError: one of them failed.
        """

    def has_tables(self) -> bool:
        """Whether a table was made in it. False as well where nothing is there yet."""

    def is_being_written(self) -> bool:
        """Whether somebody has a transaction open in which something was written."""

    def remove(self) -> None:
        """Remove it. Idempotent."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a finished template was made of, and when. No path of this machine is in it."""

    built: float
    files: dict[str, list[str]]  # digests, by paths from the project's root
    folders: dict[str, list[str]]
    title: str = ""  # what it is for a person, and of what it is another version
    differences: tuple[
        str, ...
    ] = ()  # between the migrations that built it and the models
    not_compared: str = ""  # why the migrations were not compared with the models
    heads: tuple[str, ...] = ()  # of the migrations
    server_start: str = (
        ""  # a crash after it empties unlogged tables; "" if none has rows
    )

    @property
    def digest(self) -> str:
        """A digest of what it was made of."""
        content = {"files": self.files, "folders": self.folders}
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def text(self) -> str:
        """Return it as it is stored."""
        return json.dumps(asdict(self), indent=1)


def read_manifest(text: str) -> Manifest | None:
    """Return a manifest that was stored, None for another version's, or a broken one."""
    try:
        return Manifest(**json.loads(text))
    except (ValueError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class Template(Generic[ContentT]):
    """A finished one."""

    content: ContentT
    fingerprint: str
    manifest: Manifest

    @property
    def digest(self) -> str:
        """What it is, to the stage above."""
        return f"{self.fingerprint}/{self.manifest.digest}"


class TemplateStore(Protocol[ContentT]):
    """Where the finished templates of one product stand. A shelf is named by a fingerprint.

    Guarantee: a template is either found whole or not at all, whenever its builder was killed.
    """

    @property
    def folder(self) -> Path | None:
        """The folder that they take up; None where they are not files of this machine."""

    @property
    def ddl(self) -> Dialect:
        """Compiles DDL; the same for every driver."""

    def identity(self) -> str:
        """Return what a template depends on beside its recipe: the product, and its version."""

    def templates(self, fingerprint: str) -> Iterable[Template[ContentT]]:
        """Return the finished templates of a shelf, the newest first."""

    def is_whole(self, template: Template[ContentT]) -> bool:
        """Whether it can be used. Called after ``used``: what is whole by then stays."""

    def used(self, template: Template[ContentT]) -> None:
        """Note that somebody uses it."""

    def locked(self, fingerprint: str) -> AbstractContextManager[float]:
        """Let nobody else build on a shelf. Gives the time, which no test has changed.

        Raises:
            TemplateError: somebody else's build takes too long.
        """

    def clear(self, fingerprint: str) -> None:
        """Remove what nobody has used for a long time, and broken builds. Called when locked."""

    def begin(self, fingerprint: str, below: Template[ContentT] | None) -> BuildTarget:
        """Return a new target with the content of the template below."""

    def scratch(self) -> BuildTarget:
        """Return an empty one, for another database that a builder works on as well."""

    def finish(
        self, target: BuildTarget, fingerprint: str, manifest: Manifest
    ) -> ContentT:
        """Make a template of what was built. Marked as finished last."""

    def advice(self, error: BaseException) -> str:
        """Return the next step after an error that a build has raised; "" where none is known."""

    def lacks_table(self, error: BaseException) -> bool:
        """Whether the error says that a table is missing."""

    def not_stored(self, error: Exception) -> TemplateError | None:
        """Return what is said of an error of the shelves' own; None for any other."""


class Product(Protocol):
    """Where the databases of one product stand, and what is done with them.

    ``name`` is that of SQLAlchemy's dialect.
    """

    name: str
    forced: str  # what follows where a level was left by force, for the summary
    shell: str  # the command that opens what `keep` or `url` has named

    @property
    def shown(self) -> str:
        """The product, its version and where it runs, in a few words for the summary."""

    def drivers(self) -> tuple[str, ...]:
        """Return the drivers that are installed, the one that most apps have first.

        The name ``""`` is that of SQLAlchemy's default.
        """

    def identify(
        self, requested: RequestedDatabase
    ) -> tuple[Key | None, tuple[str, ...]]:
        """Return what tells the database that is meant from others; None: its engine alone.

        And all names that an option may give it, the longest first.
        """

    def live_at(self, requested: RequestedDatabase) -> Database | None:
        """Return the arena's database that has or had this name on its server."""

    def new_file(self, name: str, taken: Collection[str]) -> Path | None:
        """Return where a new database's file is to stand; None for one on a server."""

    def template_store(self, dialect: type[Dialect]) -> TemplateStore[Any]:
        """Return where the templates stand that an app's driver has built.

        Raises:
            ServerError: there is no server.
        """

    def isolate(
        self, database: Database, content: Any, uses: Callable[[], int]
    ) -> Isolation:
        """Return the isolation of a database, which begins with a template's content.

        ``uses`` returns a number, which changes when the database may have been used. It may have
        a method ``before_next``, which calls a function before the next use.

        Raises:
            ConfigError: the isolation that is asked for is not this product's.
        """

    def ask_for(self, name: str, isolation: Isolation) -> str:
        """Have a database's next level isolated another way, which a test's marker asks for.

        Returns why it is not to be had; "" where it is.
        """

    def target(self, database: Database) -> ConnectTarget:
        """Return where a connection lands now."""

    def url(self, database: Database, driver: str) -> URL:
        """Return the URL under which anybody reaches the database now, by a driver's name."""

    def keep(self, database: Database, title: str) -> str:
        """Keep what stands now; return where: a file, or a URL."""

    def policed(self, database: Database, *, is_off: bool = False) -> tuple[str, ...]:
        """Return the tables on which policies act for the app's roles, by their names.

        With ``is_off`` they act no more, until the level that stands now is left.

        Raises:
            ArenaError: somebody holds a lock on one of them; or the server is gone.
        """

    def policed_for_arena(self, database: Database) -> tuple[str, ...]:
        """Return the names of the tables whose policies limit even arena's login."""

    def remove(self, database: Database) -> None:
        """A database is asked for no more: its isolation is closed, and nothing of it stays."""

    def close(self, *, is_hurried: bool = False) -> str:
        """Release everything at the end of a run. Return a message about what it leaves behind.

        ``is_hurried`` says that the user waits after Ctrl-C: a later run does what takes seconds.
        """


class Held(Exception):
    """The database cannot be taken back: a connection holds a lock on it."""


def held_by(pids: Iterable[int], database: str) -> Held:
    """Return the error that names the backends of a server which are in the way."""
    shown = ", ".join(map(str, sorted(pids))) or "unknown"
    return Held(f"{database}: inside a transaction with changes: backend {shown}")


def nothing() -> None:
    """Do nothing: nobody has asked for it."""


def to_nobody(_line: str) -> None:
    """Tell nobody: there is no summary."""


class Isolation(Protocol):
    """One database of this process, with its stack of levels.

    Each variant is made in its own way: from a file and a template, from a server's databases.
    Guarantee: after ``leave`` the database equals what it was at the matching ``enter``: rows,
    sequences, schema. Cost is named by each variant.
    """

    name: str
    # Called by `leave` at its end; where it raises, the level is there.
    check: Callable[[], None] | None

    @property
    def generation(self) -> int:
        """A number that moves whenever connections must go elsewhere."""

    @property
    def depth(self) -> int:
        """How many levels are open: whoever was broken off in one asks whether it is."""

    def enter(self) -> None:
        """Open a level above the state that stands now.

        Where the database was replaced meanwhile, that is the one which stands in its place.

        Raises:
            Held: somebody's open transaction is in the way; nothing was done.
            IsolationError: there is no room for it; nothing was done.
        """

    def leave(self) -> bool:
        """Go back to the state at the matching ``enter``. Returns whether there was a change.

        Raises:
            Held: somebody holds a lock; nothing was done, so that it can be tried again.
            IsolationError: the database was deleted or replaced, or cannot be written to; the
                level is still there, to be left by force.
        """

    def leave_by_force(self) -> None:
        """As ``leave``, whoever holds a lock; connections become stale (a new generation).

        Raises:
            IsolationError: there is no room for it. The level is gone all the same; what it
                was above is brought back before the next level is entered.
        """

    def is_free(self) -> bool:
        """Whether nobody holds a lock that would keep the next test from writing."""

    def is_untouched(self) -> bool:
        """Whether no row was *committed* in the top level; somebody may be about to.

        Numbers of sequences are taken for good, whether or not a transaction is: where they alone
        have moved, either answer will do.
        """

    def is_clean(self) -> bool:
        """Whether nothing was changed in the top level, nor is about to be."""

    def forget(self, *, is_undone: bool = False) -> None:
        """Drop the top level, and keep what stands.

        Where a transaction is open that has undone by savepoints what was done in the level
        (``is_undone``), sequences go back all the same, if the isolation can do that.
        """

    def moment(self, *, exact: bool = False) -> object:
        """Return a point in time, for ``rows_changed``.

        Cost: a round trip at most, and none where nobody has used the database since the last one.
        Where that is not enough to tell one: None; with ``exact`` the database is read instead.

        Raises:
            ArenaError: the server is gone.
        """

    def rows_changed(
        self,
        since: object = None,
        until: object = None,
        *,
        depth: int = 0,
        limit: int | None = None,
    ) -> list[TableRows]:
        """Return the rows that were committed, net, table by table; ``limit`` rows of each.

        With a depth of 0 those of the top level, since its start or a moment, until a moment or
        now. With 1 or more those that the level so far below has written itself; moments say
        nothing there.

        Raises:
            ArenaError: the server is gone, or the record of the changes is.
        """

    def content(self) -> Mapping[str, str]:
        """Return digests of all that stands now, by the names of tables and the like.

        Equal digests mean equal content. It is read from the database itself: for checks.

        Raises:
            ArenaError: the server is gone, or somebody holds a lock.
        """

    def replace(self, content: Any, /) -> None:
        """Give the level that stands now another content: a template's, or none (None).

        A template is whatever its store gives: a file, or the name of a database.
        """

    def save(self, place: Any, /) -> object:
        """Keep a copy of what stands now: in a file, or under a title. Returns where, if asked."""

    def close(self) -> None:
        """Let go of the database, which is removed by whoever made it."""


def isolation_named(config: Config, kinds: Mapping[str, Any], shown: str) -> Any:
    """Return the class of the isolation that the configuration asks for on a product.

    Raises:
        ConfigError: the product does not have it.
    """
    if config.isolation not in kinds:
        names = ", ".join(name for name in kinds if name != "auto")
        raise ConfigError(
            f"arena_isolation = {config.isolation} is not to be had on {shown}",
            why="tests that were isolated another way than was asked for would prove nothing",
            cause=config.places["isolation"],
            fix=f"arena_isolation = auto   (here: {names})",
        )
    return kinds[config.isolation]
