"""The isolation of a database on PostgreSQL."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import ControlFailure, literal, open_control
from pytest_arena._postgresql._journal import journaled, why_no_undo
from pytest_arena._postgresql._live_databases import (
    ClonedDatabase,
    JournaledDatabase,
    LiveDatabase,
)
from pytest_arena._postgresql._rollback import ALL_OR_NONE
from pytest_arena._postgresql._rows import read_content
from pytest_arena._process import until
from pytest_arena._product._levels import LevelStack
from pytest_arena._product._snapshots import FrozenDatabase
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._postgresql._server_registry import ServerRegistry
    from pytest_arena._product import Usage
    from pytest_arena._values import Address


_END_SECONDS = 5.0  # for a backend that drops its temporary tables before it exits
_REMOVE_JOURNAL = "SET arena.undo = 1; DROP SCHEMA IF EXISTS pg_arena CASCADE"


def as_built(template: str | None) -> str | None:
    """Return the template itself: no role needs rights in it."""
    return template


class ServerIsolation(LevelStack[LiveDatabase]):
    """The isolation for databases on PostgreSQL: ``undo`` or ``clone``.

    ``undo`` has a change journal in each database. ``clone`` replaces each used database by a copy.

    Cost of enter and leave: nothing if no connection used the database.

    - ``undo``: two round trips and the time of the changes.
    - ``clone``: some round trips and new connections.
    """

    def __init__(
        self,
        registry: ServerRegistry,
        template: str | None,
        isolation: str,
        *,
        with_rights: Callable[[str | None], str | None] = as_built,
        uses: Usage,
        note: Callable[[str], None],
    ) -> None:
        self._registry = registry
        self.has_journal = isolation == "undo"
        self._with_rights = with_rights
        # Called with the address of a new live database after a fixture has created tables.
        self.on_new_schema: Callable[[Address], None] = lambda _: None
        self._templates: dict[str | None, FrozenDatabase] = {}
        # The name and the title of the live database, if it is kept for inspection.
        self._kept: tuple[str, str] | None = None
        super().__init__(self._template(template), isolation, uses=uses, note=note)

    def choose_next_isolation(self, isolation: str) -> str:
        """Set the isolation of the next level. Return why it cannot have it, or ""."""
        if isolation == "rollback":
            return ALL_OR_NONE
        if isolation == "undo" and not self.has_journal:
            return why_no_undo(self._registry) or "arena_isolation = clone"
        return super().choose_next_isolation(isolation)

    def _template(self, content: str | None) -> FrozenDatabase:
        if content not in self._templates:
            name = self._with_rights(content)
            if self.has_journal:
                name = journaled(self._registry, name)
            self._templates[content] = FrozenDatabase(self._registry, name)
        return self._templates[content]

    @property
    def address(self) -> Address:
        """The address of the live database."""
        return self.live.address

    def _open(self, base: FrozenDatabase) -> LiveDatabase:
        name = base.take()
        kind = JournaledDatabase if self.has_journal else ClonedDatabase
        try:
            return kind(self._registry, name, self._note, self.note_lost_connection)
        except BaseException:
            self._registry.drop_later(name)
            raise

    def _freeze(self) -> FrozenDatabase:
        frozen = self.live.name
        self.generation += 1  # connections end, also if this fails
        self.live.prepare_to_freeze()
        self.live.release()
        self._registry.freeze(frozen)
        base = FrozenDatabase(self._registry, frozen, is_ours=True)
        try:
            live = self._open(base)
        except BaseException:
            self._registry.thaw(frozen)
            raise
        self._kept = None  # the test continues in the copy
        self.live = live
        self.generation += 1
        self.on_new_schema(live.address)
        return base

    def _discard(self, live: LiveDatabase) -> None:
        live.release()
        kept = self._kept
        self._kept = None
        if kept is None:
            self._registry.drop_later(live.name)
            return
        try:
            self._keep(live.name, *kept)
        except (ControlFailure, ArenaError) as error:
            self._note(f"{kept[1]}: not kept: {error}")
            self._registry.drop_later(live.name)

    # Keep

    def save(self, title: str) -> str:
        """Keep the current state for inspection, without its journal. Return the database's name.

        This keeps a copy. A copy would end the transaction of a session. If a transaction is open,
        the live database itself is kept when another database replaces it.
        """
        live = self.live
        with self._registry.reporting("the database cannot be kept"):
            if self._kept is None and not live.clients_inside():
                self.generation += 1
                return self._keep(self._copy(), "", title)
        if self._kept is None:
            self._kept = (self._registry.names.new("kept"), title)
            self._stack[-1].needs_copy = True
        return self._kept[0]

    def _copy(self) -> str:
        self.live.release()
        self._registry.freeze(self.live.name)
        try:
            return self._registry.create("live", template=self.live.name)
        finally:
            self._registry.thaw(self.live.name)

    def _keep(self, database: str, name: str, title: str) -> str:
        control = open_control(self._registry.address_of(database))
        with suppress(
            ControlFailure
        ):  # a database with a journal can be inspected, too
            control.run(_REMOVE_JOURNAL)
        control.close()
        return self._registry.keep(database, title, called=name)

    def close(self) -> None:
        """Drop all databases and snapshots of this isolation, in the background."""
        super().close()
        for snapshot in self._templates.values():
            snapshot.drop()

    # Questions

    def end(self, pid: int, database: str, *, cancel: bool = False) -> None:
        """End a connection to a live or replaced database, or cancel only its statement."""
        function = "pg_cancel_backend" if cancel else "pg_terminate_backend"
        backend = (
            f"FROM pg_stat_activity WHERE pid = {pid} "
            f"AND datname = {literal(database)} AND pid <> pg_backend_pid()"
        )
        control = self._registry.control
        with self._registry.reporting("a connection cannot be ended"):
            is_ended = bool(control.rows(f"SELECT {function}(pid) {backend}"))
            if is_ended and not cancel:
                # A backend keeps its advisory locks until it has exited.
                until(
                    lambda: not control.rows(f"SELECT {backend}"), within=_END_SECONDS
                )

    def content(self) -> dict[str, str]:
        """Return digests of the live database's current content."""
        with self._registry.reporting("the live database cannot be read"):
            return self.live.reader.call(read_content)
