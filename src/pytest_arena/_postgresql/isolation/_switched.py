"""A test that asks for another isolation than its run's: it works on a copy of what stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pytest_arena._product import Held, Isolation, held_by, nothing
from pytest_arena.errors import ArenaError, impossible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._values import Address, TableRows

__all__ = ["OnServer", "Switched"]


class OnServer(Isolation, Protocol):
    """An isolation of a database on a server."""

    @property
    def address(self) -> Address:
        """How one logs in to the live database now."""

    def writers(self) -> set[int]:
        """Return the backends that are inside a transaction with changes."""

    def end(self, pid: int, *, cancel: bool = False) -> None:
        """End a connection to the live database, or only the statement that it is at."""


@dataclass(slots=True, eq=False)
class _Part:
    """An isolation, and the database that it was made from."""

    isolation: OnServer
    source: str = ""

    @property
    def levels(self) -> int:
        """How many are its own."""
        return self.isolation.depth


class Switched:
    """The isolation of a run, and above it, while a test asks for one, another.

    ``ask_for`` says by which isolation the next level is entered. Where that is another one than
    the one in use, the live database is copied with all that stands in it, and the level is
    entered on the copy, by an isolation of its own. When that level is left, the database below is
    as it was: nobody has been led to it meanwhile. The copy is kept for the next such level, if
    that comes before anybody has used the database below, or has entered or left a level there.

    ``make`` returns an isolation by its name, for a copy that it may prepare as it likes. ``uses``
    returns a number that has moved since it was last asked for where anybody may have used the
    database.

    Cost: nothing where all tests are isolated in the same way; for the first of some levels of
    another kind two copies of the live database, and all connections are made anew.
    """

    def __init__(
        self,
        own: ServerRegistry,
        first: OnServer,
        *,
        make: Callable[[str, str], OnServer],
        uses: Callable[[], int],
    ) -> None:
        self._own, self._make, self._uses = own, make, uses
        self._kept: tuple[_Part, int] | None = None  # entered, and when it was left
        self._parts = [_Part(first)]
        self._base = 0
        self._asked_for = ""
        self._check: Callable[[], None] = nothing

    @property
    def _top(self) -> OnServer:
        return self._parts[-1].isolation

    @property
    def name(self) -> str:
        """That of the isolation in use."""
        return self._top.name

    @property
    def generation(self) -> int:
        """Moves on, whichever isolation is in use."""
        return self._base + self._top.generation

    @property
    def address(self) -> Address:
        """How one logs in to the live database now."""
        return self._top.address

    @property
    def depth(self) -> int:
        """How many levels are open, of all isolations."""
        return sum(part.levels for part in self._parts)

    @property
    def check(self) -> Callable[[], None]:
        """What each isolation calls at the end of ``leave``."""
        return self._check

    @check.setter
    def check(self, check: Callable[[], None]) -> None:
        self._check = check
        for part in self._parts:
            part.isolation.check = check

    # Levels

    def ask_for(self, name: str) -> None:
        """Have the next level entered by another isolation than the one in use."""
        self._asked_for = name

    def enter(self) -> None:
        """Open a level above the state that stands now.

        Raises:
            Held: somebody's open transaction is in the way of a copy; nothing was done.
            IsolationError: there is no room for it, or the other isolation cannot be had here.
        """
        asked_for, self._asked_for = self._asked_for, ""
        if asked_for not in {"", self.name}:
            self._switch(asked_for)
        else:
            self._drop_kept()
        try:
            self._top.enter()
        except BaseException:
            self._drop_if_empty()
            raise

    def leave(self) -> bool:
        """Go back to the state at the matching ``enter``."""
        part = self._parts[-1]
        if not self._is_last_of_a_copy():
            self._drop_kept()
            return part.isolation.leave()
        if writers := part.isolation.writers():
            raise held_by(writers, self.address.database)
        has_changed = not part.isolation.is_clean()
        self._leave_copy()
        return has_changed

    def _leave_copy(self) -> None:
        parts = self._parts
        self._go_to(parts[:-1])
        try:
            self._check()
        except BaseException:
            self._go_to(parts)  # the level is still there, to be left by force
            raise
        self._kept = parts[-1], self._uses()

    def leave_by_force(self) -> None:
        """Go back, whoever is inside a transaction."""
        if self._is_last_of_a_copy():
            self._switch_back()
            return
        self._drop_kept()
        self._top.leave_by_force()

    def forget(self, *, is_undone: bool = False) -> None:
        """Drop the top level, in which nothing was written, or whose writer goes on."""
        if self._is_last_of_a_copy():
            self._switch_back()
            return
        self._drop_kept()
        self._top.forget(is_undone=is_undone)

    def _is_last_of_a_copy(self) -> bool:
        part = self._parts[-1]
        if part.levels < 1:
            raise impossible("a level was left that had not been entered")
        return len(self._parts) > 1 and part.levels == 1

    # From one isolation to the other

    def _switch(self, name: str) -> None:
        if writers := self._top.writers():
            raise held_by(writers, self.address.database)
        part = self._kept_for(name) or self._made(name)
        part.isolation.check = self._check
        self._go_to([*self._parts, part])

    def _kept_for(self, name: str) -> _Part | None:
        """Return the copy that was left last, if it still is one."""
        kept = self._kept
        if kept is None or kept[0].isolation.name != name or kept[1] != self._uses():
            self._drop_kept()
            return None
        part, self._kept = kept[0], None
        part.isolation.check = nothing
        try:
            part.isolation.leave()
        except (Held, ArenaError):  # somebody goes on in it, to whom it may be left
            self._drop(part)
            return None
        return part

    def _drop_kept(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            self._drop(kept[0])

    def _made(self, name: str) -> _Part:
        source = self._copied()
        try:
            return _Part(self._make(name, source), source=source)
        except BaseException:
            self._own.drop_later(source)
            raise

    def _copied(self) -> str:
        live = self.address.database
        self._base += 1  # whoever was connected is not any more, even if this fails
        self._own.freeze(live)
        try:
            return self._own.create("live", template=live)
        finally:
            self._own.thaw(live)

    def _switch_back(self) -> None:
        part = self._parts[-1]
        self._go_to(self._parts[:-1])
        self._drop(part)

    def _drop(self, part: _Part) -> None:
        part.isolation.close()
        if part.source:
            self._own.drop_later(part.source)

    def _drop_if_empty(self) -> None:
        if len(self._parts) > 1 and not self._parts[-1].levels:
            self._switch_back()

    def _go_to(self, parts: list[_Part]) -> None:
        before = self.generation
        self._parts = parts
        self._base = before + 1 - self._top.generation

    # What the isolation in use is asked

    def is_free(self) -> bool:
        """Whether nobody holds a lock that would keep the next test from writing."""
        return self._top.is_free()

    def is_untouched(self) -> bool:
        """Whether nothing was committed in the top level."""
        return self._top.is_untouched()

    def is_clean(self) -> bool:
        """Whether nothing was changed in the top level, nor is about to be."""
        return self._top.is_clean()

    def writers(self) -> set[int]:
        """Return the backends that are inside a transaction with changes."""
        return self._top.writers()

    def end(self, pid: int, *, cancel: bool = False) -> None:
        """End a connection to the live database, or only the statement that it is at."""
        self._top.end(pid, cancel=cancel)

    def replace(self, content: Any) -> None:
        """Give the level that stands now another content: a template's, or none."""
        self._drop_kept()
        self._top.replace(content)

    def save(self, place: Any) -> object:
        """Keep a copy of what stands now."""
        return self._top.save(place)

    def moment(self, *, exact: bool = False) -> object:
        """Return a point in time for ``rows_changed``."""
        return self._top.moment(exact=exact)

    def rows_changed(
        self,
        since: object = None,
        until: object = None,
        *,
        depth: int = 0,
        limit: int | None = None,
    ) -> list[TableRows]:
        """Return what was committed: in the top level, or in one below it, of any isolation."""
        for part in reversed(self._parts):
            if depth < part.levels or part is self._parts[0]:
                return part.isolation.rows_changed(since, until, depth=depth, limit=limit)
            depth -= part.levels
        raise impossible("no isolation is in use")

    def content(self) -> Mapping[str, str]:
        """Return digests of all that stands now."""
        return self._top.content()

    def close(self) -> None:
        """Let go of all databases."""
        self._drop_kept()
        for part in reversed(self._parts):
            self._drop(part)
