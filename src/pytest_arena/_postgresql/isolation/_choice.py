"""How is a database on a server isolated: as it is asked for, or as rights and schema allow?"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import open_control
from pytest_arena._postgresql.isolation._clone import Clone
from pytest_arena._postgresql.isolation._switched import Switched
from pytest_arena._postgresql.isolation._undo import Undo
from pytest_arena._postgresql.journal._capture import fitting_schema, install
from pytest_arena._postgresql.journal._rights import lacking, what_would_do
from pytest_arena._postgresql.journal._server import ServerJournal
from pytest_arena._postgresql.journal._templates import Unjournaled, check_fit
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._postgresql.isolation._switched import OnServer
    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._values import Address

__all__ = ["Choice"]


@dataclass(frozen=True, slots=True)
class Choice:
    """Makes the isolations of one database on a server.

    ``shown`` is the server in messages, ``place`` where ``arena_isolation`` stands. ``tell`` is
    given lines for the summary; ``uses`` returns a number that moves when somebody uses the
    database.
    """

    own: ServerRegistry
    shown: str
    place: str
    tell: Callable[[str], None]
    uses: Callable[[], int]

    def isolated(self, asked_for: str, content: str | None) -> Switched:
        """Return the isolation of a database that begins with a template's content.

        ``auto`` is undo; where that cannot be had, it is clone, and a line says why.

        Raises:
            ConfigError: undo was asked for by its name, and cannot be had.
        """
        if asked_for == "clone":
            return self._switched(self._clone(content))
        if reason := lacking(self.own):
            return self._without_undo(asked_for, content, reason, what_would_do(self.own))
        try:
            return self._switched(Undo(self.own, content, tell=self.tell, uses=self.uses))
        except Unjournaled as error:
            if asked_for == "undo":
                raise self._no_undo(error.reason, error.fix) from error
            # Nothing to grant: the schema would have to be another one.
            self.tell(f"{self.shown}: tests are isolated by clone, since {error.reason}")
            return self._switched(self._clone(content))

    def _without_undo(self, asked_for: str, content: str | None, reason: str, fix: str) -> Switched:
        if asked_for == "undo":
            raise self._no_undo(reason, fix)
        self.tell(f"{self.shown}: tests are isolated by clone, since {reason}. For undo: {fix}")
        return self._switched(self._clone(content))

    def _no_undo(self, reason: str, fix: str) -> ConfigError:
        return ConfigError(
            f"arena_isolation = undo: {reason}",
            why="tests that were isolated another way than was asked for would prove nothing",
            cause=self.place,
            fix=f"{fix}\nor arena_isolation = auto   (by clone, as long as undo cannot be had)",
        )

    def _switched(self, first: OnServer) -> Switched:
        return Switched(self.own, first, make=self._made_from, uses=self.uses)

    def _clone(self, content: str | None) -> Clone:
        return Clone(self.own, content, tell=self.tell, uses=self.uses)

    def _made_from(self, name: str, source: str) -> OnServer:
        """Make an isolation for a copy of what stands, which is prepared for it."""
        with self.own.saying(f"no copy for isolation={name!r}"):
            self._prepare(name, self.own.address_of(source))
        self.own.freeze(source)
        if name == "clone":
            return self._clone(source)
        return Undo(self.own, source, tell=self.tell, uses=self.uses, is_journaled=True)

    def _prepare(self, name: str, address: Address) -> None:
        if name == "clone":
            with closing(ServerJournal(address)) as journal:
                journal.uninstall()
        else:
            with closing(open_control(address)) as control:
                check_fit(install(control, fitting_schema(control)))
