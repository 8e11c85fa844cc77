"""What the gate asks, and what it is told: the seam to whoever knows the databases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from pytest_arena._ledger import Ledger
    from pytest_arena._postgresql._identity import Identity
    from pytest_arena._values import Address

__all__ = ["Aim", "Asked", "Files", "Key", "LostWrite", "Resolver"]


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


class Key(NamedTuple):
    """What tells two databases apart. A tuple, since each checkout looks some up."""

    # file, memory, shared memory, server; expected before any engine; building a template
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class LostWrite:
    """What a transaction wrote that was closed, with nobody committing or rolling it back."""

    key: Key
    tables: tuple[str, ...]  # by the app's statements, without those that triggers wrote to
    rows: int  # at least
    line: str  # of the app, that wrote first


@dataclass(frozen=True, slots=True)
class Aim:
    """Where a connection lands: in a file, or in a database on a server.

    One with an older ``generation`` is stale, and is dropped.
    """

    key: Key
    file: str
    generation: tuple[int, int]
    address: Address | None = None


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


class Resolver(Protocol):
    """Knows which databases are inside the arena. The gate knows nothing of servers itself."""

    ledger: Ledger  # for what is refused, and what arena cannot do for this app

    @property
    def files(self) -> Files:
        """Whoever knows whose a file is."""

    def aim(self, asked: Asked) -> Aim | None:
        """Return where the engine lands, None where it may go its own way.

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

    def writes(self, key: Key, pid: int) -> bool:
        """Whether this backend of a server has written in a transaction that is open."""

    def end_backend(self, key: Key, pid: int, *, cancel: bool) -> None:
        """End a backend of a server, or only cancel its statement. Never raises."""

    def aim_at_server(self, asked: Asked) -> Aim | None:
        """Return what aims at this very database, known by its name; None if it is not ours."""

    def aim_of(self, identity: Identity) -> Aim | None:
        """Return what a live connection aims at; None if it is in no database of ours."""
