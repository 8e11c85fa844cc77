"""The seam of the isolations: levels are entered and left, last in, first out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pytest_arena._config import Config
    from pytest_arena._values import TableRows

__all__ = ["Held", "Isolation", "held_by", "isolation_named", "nothing", "to_nobody"]


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
