"""The isolation of a database on MySQL and MariaDB."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._mysql._control import (
    MySQLControl,
    MySQLControlLine,
    MySQLFailure,
    open_control,
)
from pytest_arena._mysql._live_database import LiveDatabase
from pytest_arena._mysql._refill import SESSION
from pytest_arena._mysql._written import WriteLog
from pytest_arena._process import until
from pytest_arena._product._levels import LevelStack
from pytest_arena._product._snapshots import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._mysql._server_registry import MySQLRegistry
    from pytest_arena._mysql._statements import Statement
    from pytest_arena._product import Usage
    from pytest_arena._values import ServerLogin

_END_SECONDS = 5.0


class MySQLIsolation(LevelStack[LiveDatabase]):
    """The isolation for databases on MySQL and MariaDB: ``undo`` or ``clone``.

    Cost of enter and leave: nothing if no statement may have written. ``undo``: some round trips,
    and the server compares the rows of the written tables. ``clone``: a copy and new connections.
    Both: another copy for a level above a changed level.
    """

    def __init__(
        self,
        registry: MySQLRegistry,
        template: str | None,
        isolation: str,
        *,
        login: ServerLogin,
        uses: Usage,
        note: Callable[[str], None],
    ) -> None:
        self._registry = registry
        self._login = login
        self._writes = WriteLog()
        self._line = MySQLControlLine(self._connect)
        self._templates: dict[str | None, Snapshot] = {}
        base = self._template(template)
        super().__init__(registry, base, isolation, uses=uses, note=note)

    def _connect(self) -> MySQLControl:
        """Connect to restore rows."""
        address = self._registry.address_of()
        control = open_control(address, patience=address.patience)
        control.run(SESSION)
        return control

    def _template(self, content: str | None) -> Snapshot:
        frozen = Snapshot(self._registry, content)
        return self._templates.setdefault(content, frozen)

    def _open(self, name: str) -> LiveDatabase:
        return LiveDatabase(
            self._registry,
            name,
            line=self._line,
            writes=self._writes,
            login=self._login,
            uses=self._uses,
        )

    def _freeze(self) -> Snapshot:
        name = self._registry.copy_now("live", self.live.name)
        return Snapshot(self._registry, name, is_ours=True)

    def _discard(self, live: LiveDatabase) -> None:
        self._registry.drop_later(live.name)

    def note_statement(self, text: str, statement: Statement, generation: int) -> None:
        """Note a statement that a connection of this process is about to send."""
        if generation == self.generation:
            self.live.note_statement(text, statement)

    def save(self, title: str) -> str:
        """Keep a copy of the current state for inspection. Return the database's name."""
        name = self._registry.copy_now("kept", self.live.name)
        self._registry.keep(name, title)
        return name

    def close(self) -> None:
        """Drop the databases of this isolation, in the background."""
        super().close()
        self._line.close()

    def end(self, pid: int, *, cancel: bool = False) -> None:
        """End a connection to a live or replaced database, or cancel only its statement."""
        control = self._registry.control
        command = "KILL QUERY" if cancel else "KILL"
        with self._registry.reporting("a connection cannot be ended"):
            try:
                control.run(f"{command} {pid}")
            except MySQLFailure as error:
                if error.is_lost:
                    raise
                return  # the session has ended
            if not cancel:
                # A session keeps its locks until it has rolled back.
                question = (
                    f"SELECT 1 FROM information_schema.processlist WHERE id = {pid}"  # noqa: S608 - a number
                )
                until(lambda: not control.rows(question), within=_END_SECONDS)

    def content(self) -> dict[str, str]:
        """Return digests of the live database's current content."""
        with self._registry.reporting("the live database cannot be read"):
            return self.live.digests()
