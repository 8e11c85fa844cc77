"""What does arena know of one database of the app's, of its product, and of a level of them all?"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pytest_arena._values import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from sqlalchemy.engine import URL, Dialect

    from pytest_arena._databases._shelves import Target
    from pytest_arena._databases._store import Store
    from pytest_arena._gate import Aim, Asked, Key
    from pytest_arena._isolation_seam import Isolation
    from pytest_arena._postgresql._identity import Identity
    from pytest_arena.errors import ArenaError

__all__ = ["Database", "Level", "Product"]


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """A state of all databases that is entered and left.

    ``serial`` is a test's or an example's own number, by which it is known what was taken in it;
    0 for a wider fixture's.
    """

    owner: object
    name: str
    serial: int = 0
    stage: Stage = Stage.SEEDED
    isolation: str = "auto"  # as the test's marker asks for
    is_anew: bool = False  # it begins as the template, whatever the levels below have written

    @property
    def is_test(self) -> bool:
        """Whether it is a test's, or an example's, and no wider fixture's."""
        return self.serial > 0


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

    def stores(self) -> list[Store[Any]]:
        """Return the stores of templates that have been asked."""

    def store(self, database: Database) -> Store[Any]:
        """Return where the templates of a database are kept.

        Raises:
            ServerError: there is no server.
        """

    def scratch(self) -> Target:
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

    def aim_of(self, database: Database, identity: Identity) -> Aim | None:
        """Return where a connection to the database lands, if this live one is in it now."""

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

    def writes(self, database: Database, pid: int) -> bool:
        """Whether this backend has written in a transaction that is open."""

    def end_backend(self, database: Database, pid: int, *, cancel: bool) -> None:
        """End a backend, or only cancel its statement. Never raises."""

    def close(self) -> None:
        """The run is over: let go of all."""
