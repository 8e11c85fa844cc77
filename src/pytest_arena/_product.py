"""The seam: what the core asks of a database product, and what a product may ask of the core.

A product is a room of its own. The core names none: it finds the room by the name of SQLAlchemy's
dialect, and loads it when an engine or a driver of the product's turns up.
"""

from __future__ import annotations

import importlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from sqlalchemy.engine import URL, Dialect

    from pytest_arena._config import Config
    from pytest_arena._ledger import Ledger
    from pytest_arena._values import Address, TableRows
    from pytest_arena.errors import ArenaError

__all__ = [
    "DRIVERS",
    "NOWHERE",
    "ROOMS",
    "UNNAMED",
    "Aim",
    "Asked",
    "Connections",
    "Core",
    "Database",
    "Files",
    "Handle",
    "Held",
    "Isolation",
    "Key",
    "Live",
    "Product",
    "Room",
    "held_by",
    "isolation_named",
    "loaded_rooms",
    "nothing",
    "room",
    "to_nobody",
]

# A name that no resolver answers (RFC 2606): in the place of a server that may not be reached.
NOWHERE = "arena.invalid"
UNNAMED = "(unknown)"  # in the place of a server that a live connection does not tell

ROOMS = {"sqlite": "pytest_arena._sqlite", "postgresql": "pytest_arena._postgresql"}
# Packages that open connections by themselves, and the product that they connect to.
DRIVERS = {
    "sqlite3": "sqlite",
    "asyncpg": "postgresql",
    "psycopg": "postgresql",
    "psycopg2": "postgresql",
    "psycopg_pool": "postgresql",
}


class Room(Protocol):
    """The package of one product."""

    connections: Connections


_loaded: dict[str, Room] = {}


def room(product: str) -> Room:
    """Return the room of a product of ``ROOMS``, which is imported at its first use."""
    if product not in _loaded:
        _loaded[product] = cast("Room", importlib.import_module(ROOMS[product]))
    return _loaded[product]


def loaded_rooms() -> list[Room]:
    """Return the rooms that somebody has asked for."""
    return list(_loaded.values())


class Key(NamedTuple):
    """What tells two databases apart. A tuple, since each checkout looks some up."""

    # file, memory, shared memory, server; expected before any engine; building a template
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Asked:
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


@dataclass(frozen=True, slots=True)
class Aim:
    """Where a connection lands: in a file, or in a database on a server.

    One with an older ``generation`` is stale, and is dropped.
    """

    key: Key
    file: str
    generation: tuple[int, int]
    address: Address | None = None


@dataclass(frozen=True, slots=True)
class Live:
    """What a product knows of an open connection.

    ``aim`` is None where it goes its own way, ``handle`` where nobody can ask it anything;
    ``outside`` names the database that it is in, where that is not inside the arena.
    """

    aim: Aim | None = None
    handle: Handle | None = None
    outside: str = ""


class Files(Protocol):
    """Knows whose a file is that does not belong to the arena."""

    def is_free(self, file: str) -> bool:
        """Whether tests may open this file themselves: pytest's folders, ``arena_allow``."""

    def is_allowed(self, name: str) -> bool:
        """Whether ``arena_allow`` lets tests reach this database."""

    def belongs_to_app(self, file: str) -> bool:
        """Whether this is a database file of the app."""

    def stands_for(self, real: str) -> bool:
        """Whether a database of the arena stands in this file's place. Costs a look-up."""


class Core(Protocol):
    """What a product may ask: which databases are inside the arena, and what is allowed."""

    ledger: Ledger  # for what is refused, and what arena cannot do for this app

    @property
    def files(self) -> Files:
        """Whoever knows whose a file is."""

    @property
    def drivers(self) -> str:
        """What is done with connections to servers that no engine opens: ``arena_drivers``."""

    def aim(self, asked: Asked) -> Aim | None:
        """Return where an engine lands, None where it may go its own way.

        Builds what has to be there for the first connection.

        Raises:
            ArenaError: it may not connect at all.
        """

    def aim_attached(self, file: str, beside: Aim | None) -> Aim | None:
        """Return where a file lands that is attached to a connection which aims at ``beside``.

        None where it may be itself. Raises as ``aim`` does.
        """

    def current(self, key: Key) -> Aim | None:
        """Return where a connection to this database would land now, None if it is gone."""

    def aim_at(self, file: str) -> Aim | None:
        """Return what a connection that is open on this file aims at, None if nothing of ours."""

    def is_inside(self, file: str) -> bool:
        """Whether this file is one of the arena's own; its content is there on return."""

    def before_child(self, *, forked: bool) -> None:
        """Another process is about to start: it inherits the environment, a fork all engines."""

    def serial(self) -> int:
        """The serial of the level that stands now, in which connections are taken."""

    def made_table(self, file: str, started: float, ended: float) -> None:
        """A statement made a table in a file; times are of ``_clock.seconds``."""

    def means(self, asked: Asked) -> bool:
        """Whether an engine of the app's means this database of a server, connected or not."""

    def opened_raw(self, key: Key) -> None:
        """Somebody has opened a connection to a database without an engine."""

    def find_product(self, name: str) -> Product | None:
        """Return the product of this name, None where an option leaves it out."""

    def database_at(self, key: Key) -> Database | None:
        """Return the database of a key, None if it is gone."""

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

    def roll_back(self) -> None:
        """End its transaction, from any thread; the connection may be unusable afterwards."""

    def attached(self) -> tuple[Aim, ...]:
        """Other databases that it has been led to, beside its own."""

    def session(self) -> object:
        """What it carries from one test to the next beside the database; None: cannot be asked."""

    def executing(self, statement: str) -> None:
        """A statement of an engine's is about to run.

        Raises:
            RefusedError: it reaches beyond the database.
        """

    def returned(self) -> None:
        """It is back in its pool, where it belongs to nobody."""


class Connections(Protocol):
    """What the gate asks of a product about its connections."""

    def describe(self, dialect: Dialect, cargs: Any, cparams: Any) -> Asked | None:
        """Say which database the arguments of a connect call mean.

        None: its driver's arguments are not understood.
        """

    def lead(
        self,
        core: Core,
        dialect: Dialect,
        aim: Aim | None,
        cargs: list[Any],
        cparams: dict[str, Any],
    ) -> Callable[[Any], Live | None]:
        """Put the arena's database in the place of the app's; all else stays as the app wants it.

        Without an aim the connection goes its own way, looked after. Returns what says of the
        connection that was opened what it is: None where it need not be the one that was led.
        """

    def recognize(self, core: Core, dbapi_connection: Any) -> Live | None:
        """Say of a connection that nobody has led where it is; None for another product's.

        Raises:
            RefusedError: it is open on something outside of the arena.
        """

    def watch(self, core: Callable[[], Core | None]) -> None:
        """Watch the connections that no engine opens, until the process ends. May be repeated.

        ``core`` returns who decides at the time; None lets everything be.
        """

    def end_raw(self, core: Core, serial: int) -> None:
        """End those that were opened by themselves in this level, where they can be ended."""


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
    is_of_a_test: bool = False  # made in a test, after which it is as its template again
    born: int = 0  # one that is dropped and made again lands elsewhere than before
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def is_expected(self) -> bool:
        """Whether only an option or a test has named it, and no engine has meant it yet."""
        return self.key.kind == "expected"

    @property
    def file(self) -> str:
        """The path of its file; "" for one on a server."""
        return str(self.live) if self.live else ""

    @property
    def aim(self) -> Aim:
        """Where a connection lands now."""
        return self.product.aim(self)


class Product(Protocol):
    """The seam of the products: where their databases stand, and what is done with them.

    ``name`` is that of SQLAlchemy's dialect.
    """

    name: str
    forced: str  # what follows where a level was left by force, for the summary

    @property
    def shown(self) -> str:
        """The product, its version and where it runs, in a few words for the summary."""

    def usual_dialect(self) -> type[Dialect]:
        """Return the dialect of a database that no engine has asked for yet."""

    def key(self, asked: Asked) -> Key | None:
        """Return what tells the database that is meant from others; None: its engine alone."""

    def tails(self, asked: Asked) -> tuple[str, ...]:
        """Return all names that an option may give it, the longest first."""

    def new_file(self, name: str, taken: Collection[str]) -> Path | None:
        """Return where a new database's file is to stand; None for one on a server."""

    def meant(self, asked: Asked) -> Database | None:
        """Return the app's database that is asked for by a name that the arena has given it."""

    def stores(self) -> list[Any]:
        """Return the stores of templates that have been asked."""

    def store(self, database: Database) -> Any:
        """Return where the templates of a database are kept.

        Raises:
            ServerError: there is no server.
        """

    def scratch(self) -> Any:
        """Return an empty database for a builder that works on several at once."""

    def isolate(self, database: Database, content: Any, tell: Callable[[str], None]) -> Isolation:
        """Return the isolation of a database, which begins with a template's content.

        Raises:
            ConfigError: the isolation that is asked for is not this product's.
        """

    def usual_isolation(self) -> str:
        """Return how its databases are isolated; "" where one has to be there to know it.

        Raises:
            ConfigError: as ``isolate`` does.
        """

    def lacks(self, isolation: str) -> str:
        """Return why a test cannot ask for this isolation; "" where it can."""

    def aim(self, database: Database) -> Aim:
        """Return where a connection lands now."""

    def url(self, database: Database, driver: str) -> URL:
        """Return the URL under which anybody reaches the database now, by a driver's name."""

    def engine_url(self, database: Database, driver: str) -> URL:
        """Return a URL for an engine of ours, which the gate leads to the database."""

    def sync_driver(self) -> str | None:
        """Return the name of a sync driver that is installed; None where there is none."""

    def keep(self, database: Database, title: str) -> str:
        """Keep what stands now; return where: a file, or a URL."""

    def look(self, where: str) -> str:
        """Return the command that opens what ``keep`` or ``url`` has named."""

    def remove(self, database: Database) -> None:
        """A database is asked for no more: its isolation is closed, and nothing of it stays."""

    def close(self) -> None:
        """The run is over: let go of all."""


class Held(Exception):
    """The database cannot be taken back: a connection holds a lock on it."""


def held_by(pids: Iterable[int], database: str) -> Held:
    """Return the error that names the backends of a server which are in the way."""
    shown = ", ".join(map(str, sorted(pids))) or "unknown"
    return Held(f"{database}: inside a transaction with changes: backend {shown}")


def nothing() -> None:
    """Check nothing: nobody has asked for it."""


def to_nobody(_line: str) -> None:
    """Tell nobody: there is no summary."""


class Isolation(Protocol):
    """One database of this process, with its stack of levels.

    Each variant is made in its own way: from a file and a template, from a server's databases.
    Guarantee: after ``leave`` the database equals what it was at the matching ``enter``: rows,
    sequences, schema. Cost is named by each variant.
    """

    name: str
    generation: int  # moves whenever connections must go elsewhere
    check: Callable[[], None]  # called by `leave` at its end; where it raises, the level is there

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
            cause=config.place("isolation"),
            fix=f"arena_isolation = auto   (here: {names})",
        )
    return kinds[config.isolation]
