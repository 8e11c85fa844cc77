"""What the gate asks, and what it is told: the seam to whoever knows the databases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable

    from sqlalchemy.engine import Dialect

    from pytest_arena.errors import ArenaError

__all__ = ["Aim", "Asked", "Resolver"]


@dataclass(frozen=True, slots=True)
class Asked:
    """The database that an engine asks for.

    ``name`` is an absolute file for SQLite (``""`` for memory) and
    ``dialect://host:port/database`` for servers.
    """

    dialect: Dialect
    product: str
    name: str


@dataclass(frozen=True, slots=True)
class Aim:
    """Where a connection lands. One with an older ``generation`` is stale, and is dropped."""

    key: Hashable
    file: str
    generation: int


class Resolver(Protocol):
    """Knows which databases are inside the arena. The gate knows nothing of servers itself."""

    def aim(self, asked: Asked) -> Aim | None:
        """Return where the engine lands, None where it may go its own way.

        Builds what has to be there for the first connection.

        Raises:
            ArenaError: it may not connect at all.
        """

    def current(self, key: Hashable) -> Aim | None:
        """Return where a connection to this database would land now, None if it is gone."""

    def is_inside(self, file: str) -> bool:
        """Whether this file is one of the arena's own; its content is there on return."""

    def is_free(self, file: str) -> bool:
        """Whether tests may open this file themselves: pytest's folders, ``arena_allow``."""

    def belongs_to_app(self, file: str) -> bool:
        """Whether this is a database file of the app."""

    def level(self) -> int:
        """The number of the level that stands now: connections are taken *in* a level."""

    def refused(self, error: ArenaError) -> None:
        """Keep what was raised, since the app may swallow it."""
