"""How does a run enter the registry of a server, and stay in it as long as it lives?"""

from __future__ import annotations

import os
import platform
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_arena import _clock
from pytest_arena._postgresql import _clone_sql as clone_sql
from pytest_arena._postgresql import _registry_sql as sql
from pytest_arena._postgresql._control import Failed, open_control
from pytest_arena._postgresql.registry import _messages as messages
from pytest_arena._postgresql.registry._connection import Line, Writes

if TYPE_CHECKING:
    from pytest_arena._postgresql._control import Control
    from pytest_arena._values import Address

__all__ = ["Registry"]

_LEAST = 13  # DROP DATABASE … WITH (FORCE)
_WITH_FILE_COPY_METHOD = 180000
_TRIES, _STEP = 40, 0.05


class Registry:
    """A run's place in the registry.

    The run lives as long as the session of ``line`` holds its advisory lock: it ends with the
    process, whatever kills it, and on every machine. A session that was lost is taken up again,
    and the rows of ``mine`` are written once more, should somebody have taken the run for dead.
    """

    def __init__(self, address: Address, project: str, *, name: str = sql.REGISTRY) -> None:
        self._address, self.project, self.name = address, project, name
        self.version = 0
        self.run = 0
        self.copies_by_clone = True
        self.mine: dict[str, str] = {}  # name → kind of the databases that this run has made
        self.uses: set[str] = set()  # templates
        self.writes = Writes()
        self._lock = threading.Lock()
        self._process = os.getpid()
        self.line = Line(self._connect_as_run)

    def connect(self) -> Control:
        """Open a connection to the registry, which is made if there is none.

        Raises:
            Failed: there is no server, or it refuses.
            ServerError: the login may not create databases, or the server cannot be used.
        """
        inside = replace(self._address, database=self.name)
        try:
            control = open_control(inside)
        except Failed as error:
            # asyncpg and libpq differ in whether a code comes with the refusal.
            if error.is_lost and "does not exist" not in str(error):
                raise
            if not error.is_lost and error.sqlstate != "3D000":
                raise
            self._create()
            control = open_control(inside)
        try:
            self._prepare(control)
        except BaseException:
            control.close()
            raise
        return control

    def _create(self) -> None:
        control = open_control(self._address)
        try:
            control.run(sql.session_settings())
            control.run(sql.create_registry(self.name))
        except Failed as error:
            if error.sqlstate == "42501":
                raise messages.may_not_create(self._address) from error
            # Somebody else was first, maybe by a moment: then it is the index that refuses.
            if error.sqlstate not in ("42P04", "23505"):
                raise
        finally:
            control.close()

    def _prepare(self, control: Control) -> None:
        control.run(sql.session_settings())
        self._check_server(control)
        if not self._is_marked(control):
            control.run(sql.registry_layout())
        layout = control.rows(sql.layout_found())
        if layout != [(sql.LAYOUT,)]:
            raise messages.other_layout(self._address, layout[0][0] if layout else "none")
        if self.version >= _WITH_FILE_COPY_METHOD and self.copies_by_clone:
            control.run(clone_sql.file_copy_method("clone"))

    def _check_server(self, control: Control) -> None:
        [(self.version, may_create)] = control.rows(sql.server_state())
        if self.version < _LEAST * 10_000:
            raise messages.too_old(self._address, self.version, _LEAST)
        if not may_create:
            raise messages.may_not_create(self._address)

    def _is_marked(self, control: Control) -> bool:
        """Whether it is ready; an empty one of our own is about to be, by us or by another run."""
        for _ in range(_TRIES):
            [(comment, is_ours, is_empty)] = control.rows(sql.registry_state())
            if comment == sql.MARK:
                return True
            if is_ours and is_empty:
                return False
            if not is_empty:
                break
            _clock.rest(_STEP)  # another role's run has just created it
        # Mark and tables come at once, but were looked at one after the other.
        [(comment, _, _)] = control.rows(sql.registry_state())
        if comment != sql.MARK:
            raise messages.foreign_registry(self._address, self.name)
        return True

    def _connect_as_run(self) -> Control:
        control = self.connect()
        if self._process != os.getpid():
            return control  # a forked child asks; the run is its parent's
        try:
            is_anew = bool(self.run)
            if not self.run or not control.rows(sql.hold_run(self.run)):
                self._begin(control)
            if is_anew:
                # Also where the run was held: a server that crashed has lost what came last.
                self._write_again(control)
        except BaseException:
            control.close()
            raise
        return control

    def _begin(self, control: Control) -> None:
        # The kernel's name of the machine: what a test makes of time or sockets does not matter.
        with self.writes.one():
            [(self.run,)] = control.rows(sql.begin_run(self.project, platform.node(), os.getpid()))

    def _write_again(self, control: Control) -> None:
        for name, kind in self._all_mine():
            control.run(sql.renew_database(name, kind, self.run, self.project))
        for template in self.uses:
            control.run(sql.begin_use(template, self.run))

    def _all_mine(self) -> list[tuple[str, str]]:
        with self._lock:
            return list(self.mine.items())

    def note(self, name: str, kind: str, line: Line) -> None:
        """Commit the row of a database, before it is made."""
        self.has(name, kind)
        run = self.run
        try:
            with self.writes.one():
                line.rows(sql.note_database(name, kind, run, self.project))
        except Failed as error:
            if error.sqlstate != "23505":  # said twice over a lost connection
                raise
        if run != self.run:  # over which this run was taken for dead
            line.run(sql.renew_database(name, kind, self.run, self.project))

    def has(self, name: str, kind: str) -> None:
        """Know that a database is this run's."""
        with self._lock:
            self.mine[name] = kind

    def strike(self, name: str, line: Line) -> None:
        """Delete the row of a database that is gone."""
        with self.writes.one() as write:
            write.counts = bool(line.rows(sql.strike_database(name)))
        if write.counts:
            self.let_go(name)

    def let_go(self, name: str) -> None:
        """Forget a database: it is gone, or belongs to no run any more."""
        with self._lock:
            self.mine.pop(name, None)

    def names(self) -> list[str]:
        """Return what this run has made and not dropped."""
        return [name for name, _ in self._all_mine()]
