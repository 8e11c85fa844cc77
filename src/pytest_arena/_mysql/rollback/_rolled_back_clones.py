"""The isolation ``rollback``: a level is a transaction in a copy of the level below."""

# ruff: noqa: S608 - names are written by identifier() and literal() alone

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pytest_arena._mysql._control import (
    MySQLControlLine,
    MySQLFailure,
    identifier,
    literal,
    open_control,
)
from pytest_arena._mysql._frozen import LevelBase, NoJournal
from pytest_arena._mysql._mysql_isolation import MySQLIsolation
from pytest_arena._mysql.rollback._mysql_backend import StatementRefused
from pytest_arena._mysql.rollback._mysql_proxy import MySQLProxy
from pytest_arena._product import held_by
from pytest_arena._product.sharing._sockets import Disconnected
from pytest_arena.errors import IsolationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._mysql._control import MySQLControl
    from pytest_arena._mysql._frozen import FrozenDatabase, MySQLLevel
    from pytest_arena._mysql._server_registry import MySQLRegistry
    from pytest_arena._product import Usage
    from pytest_arena._values import Address

_MOST_NAMES = 3  # the most names in a line of the summary
# If a session uses a table, pytest-arena does not wait for the ALTER TABLE. It replaces the
# database.
_HURRIED = "SET SESSION lock_wait_timeout = 1"
_PATIENT = "SET SESSION lock_wait_timeout = 10"


class _SharedLevels(NoJournal):
    """The levels of a live database whose connections share one transaction."""

    isolation = "rollback"


class RollbackIsolation(MySQLIsolation):
    """``rollback``: all connections share one transaction, in a copy of the level below.

    Connections reach the database through a proxy. A test's level is left by a rollback. If a
    statement such as CREATE TABLE has committed, or the database has tables without transactions,
    another copy replaces the database. pytest-arena commits the rows of a wider fixture in its copy
    before it enters a level above the fixture.

    Cost of enter and leave: two statements, and one ALTER TABLE for each AUTO_INCREMENT value that
    has moved. A level above a changed level costs a copy.

    A test's marker may choose ``clone``. Then connections reach another copy directly.
    """

    def __init__(
        self,
        registry: MySQLRegistry,
        template: str | None,
        *,
        uses: Usage,
        note: Callable[[str], None],
    ) -> None:
        self._proxy: MySQLProxy | None = None
        self._opening = threading.RLock()
        # For each frozen database: sequences and tables without transactions, and counters.
        self._unrestorable: dict[str | None, tuple[str, ...]] = {}
        self._counters: dict[str, dict[str, int]] = {}
        super().__init__(
            registry, template, "rollback", uses=uses, note=note, may_clone=True
        )
        # The reader connects through the proxy, so that it sees the shared transaction.
        self._reader = MySQLControlLine(lambda: open_control(self.address))

    def _new_base(self, isolation: str, frozen: FrozenDatabase, live: str) -> LevelBase:
        if isolation == "rollback":
            return LevelBase(frozen, _SharedLevels())
        return super()._new_base(isolation, frozen, live)

    @property
    def _is_direct(self) -> bool:
        """Whether connections reach the live database without the proxy."""
        return self.name == "clone"

    @property
    def proxy(self) -> MySQLProxy:
        """The proxy between the app and the live database."""
        with self._opening:
            if self._proxy is not None and self._proxy.database != self.live:
                self._close_proxy()
            if self._proxy is None:
                with self._registry.reporting("the shared connection cannot be opened"):
                    self._proxy = MySQLProxy(
                        self._registry.address_of(self.live),
                        self._names_that_write,
                        note=self._note,
                        lock_timeout=self._registry.lock_timeout,
                    )
            return self._proxy

    def _names_that_write(self) -> tuple[str, ...]:
        return self._plan.names_that_write

    def _close_proxy(self) -> None:
        with self._opening:
            self._reader.close()
            if self._proxy is not None:
                self._proxy.close()
                self._proxy = None

    @property
    def address(self) -> Address:
        """The address of the proxy. In a level with ``clone``, the address of the live database."""
        if self._is_direct:
            return super().address
        return self.proxy.address

    def note_statement(self, statement: str, generation: tuple[int, int]) -> None:
        """Do nothing: the proxy notes the statements of all processes."""

    def _has_changed(self) -> bool:
        if self._is_direct:
            return True
        proxy = self.proxy
        return proxy.may_have_written or proxy.is_committed or proxy.is_lost

    # Levels

    def choose_next_isolation(self, isolation: str) -> str:
        """Set the isolation of the next level. Return why the level cannot have it, or ""."""
        if isolation not in {"rollback", "clone"}:
            return "in a run with rollback, a test can only have rollback or clone"
        self._next_isolation = isolation
        return ""

    def _change_isolation(self, isolation: str) -> None:
        super()._change_isolation(isolation)
        self._close_proxy()
        self.generation += 1

    def enter(self) -> None:
        """Open a level. First commit and copy the rows of a wider fixture.

        Raises:
            Held: an open transaction has written. The database is unchanged.
            IsolationError: the disk is full, or the shared connection has ended.
        """
        if not self._is_direct:
            self._check_shared()
        super().enter()

    def _check_shared(self) -> None:
        proxy = self.proxy
        if proxy.is_lost:
            self._reopen(was_changed=proxy.has_committed_rows)
        holders = self.proxy.holders()
        if holders:
            raise held_by(holders, self.live)

    def _reopen(self, *, was_changed: bool) -> None:
        """Begin again after the shared connection has ended between two tests."""
        if was_changed:
            raise IsolationError(
                "rows that wider fixtures wrote are lost: the shared connection has ended",
                why="rollback commits them only before the next test begins",
                cause="KILL, a timeout, or a restart of the server",
                fix="pytest …   # again\nor arena_isolation = auto",
            )
        with (
            self._registry.reporting("the live database cannot be replaced"),
            self._uses.alone(),
        ):
            self._go_to(self._bases[-1].frozen.copy())

    def _snapshot(self, isolation: str) -> LevelBase:
        """Return a copy of the live database, with all rows that the app has committed."""
        if self._is_direct:
            return super()._snapshot("clone")
        with self._registry.reporting("the rows of a wide fixture cannot be committed"):
            self._commit_all()
        base = super()._snapshot("clone")
        self.proxy.note_copied()
        return self._new_base(isolation, base.frozen, self.live)

    def _commit_all(self) -> None:
        try:
            self.proxy.commit_all()
        except (Disconnected, StatementRefused) as error:
            raise MySQLFailure(str(error)) from error

    def leave(self) -> bool:
        """Roll back to the state of the matching ``enter``. Return whether it may have changed.

        Raises as in MySQLIsolation.
        """
        if self._is_direct:
            self._stack[-1].spoil()
        was_changed = super().leave()
        self.proxy.refresh()
        return was_changed

    def leave_by_force(self) -> None:
        """Replace the database, and end all connections."""
        if not self._is_direct:
            self.proxy.note_replaced()
        super().leave_by_force()

    def _rewind(self, level: MySQLLevel) -> bool:
        """Roll back to the start of the top level, or replace the database."""
        if self._is_rolled_back(level):
            return True
        return super()._rewind(level)

    def _is_rolled_back(self, level: MySQLLevel) -> bool:
        """Roll back. Return False if the database has to be replaced."""
        frozen = level.base.frozen
        if level.base is not self._bases[-1] or level.is_spoiled:
            return False
        proxy = self.proxy
        if proxy.is_committed or proxy.is_lost:
            return False
        if self._is_unrestorable(frozen):
            return False
        try:
            proxy.restart()
            self._registry.in_registry(
                lambda control: self._restore_counters(control, frozen)
            )
        except (MySQLFailure, Disconnected, StatementRefused):
            return False
        return True

    def _restore_counters(self, control: MySQLControl, frozen: FrozenDatabase) -> None:
        """Give the live tables the AUTO_INCREMENT values of a frozen database.

        Raises:
            MySQLFailure: another session uses a table, or the connection is lost.
        """
        if frozen.name is None:
            return
        if frozen.name not in self._counters:
            self._counters[frozen.name] = _counters_of(control, frozen.name)
        before = self._counters[frozen.name]
        moved = []
        for table, counter in _counters_of(control, self.live).items():
            if counter != before.get(table):
                place = f"{identifier(self.live)}.{identifier(table)}"
                wanted = before.get(table) or 1
                moved.append(f"ALTER TABLE {place} AUTO_INCREMENT = {wanted}")
        if not moved:
            return
        control.run(_HURRIED)
        try:
            control.run(";\n".join(moved))
        finally:
            control.run(_PATIENT)

    def _go_to(self, live: str) -> None:
        self._close_proxy()
        super()._go_to(live)

    def _is_unrestorable(self, snapshot: FrozenDatabase) -> bool:
        """Return whether a rollback cannot restore this database. Report the reason once."""
        if snapshot.name not in self._unrestorable:
            names = self._read_unrestorable(snapshot)
            is_first = not any(self._unrestorable.values())
            self._unrestorable[snapshot.name] = names
            if names and is_first:
                more = ", …" if len(names) > _MOST_NAMES else ""
                shown = ", ".join(names[:_MOST_NAMES]) + more
                self._note(
                    "rollback: a new copy replaces the database after each test that has written, "
                    f"since the server cannot roll back {shown}"
                )
        return bool(self._unrestorable[snapshot.name]) or self._plan.has_events

    def _read_unrestorable(self, snapshot: FrozenDatabase) -> tuple[str, ...]:
        if snapshot.name is None:
            return ()
        with self._registry.reporting("the tables of the template cannot be read"):
            rows = self._registry.control.rows(
                "SELECT CONCAT(table_name, ' (', IF(table_type = 'SEQUENCE', 'sequence', engine), "
                f"')') FROM information_schema.tables WHERE table_schema = "
                f"{literal(snapshot.name)} AND (table_type = 'SEQUENCE' OR engine <> 'InnoDB') "
                "ORDER BY table_name"
            )
        return tuple(name for (name,) in rows)

    # Keep and close

    def save(self, title: str) -> str:
        """Commit, and keep a copy of the current state for inspection."""
        if not self._is_direct:
            with self._registry.reporting("the test's database cannot be kept"):
                self._commit_all()
        return super().save(title)

    def close(self) -> None:
        """End all connections, and drop the live database."""
        self._close_proxy()
        super().close()

    # Questions

    def is_free(self) -> bool:
        """Return whether no client is inside a transaction."""
        if self._is_direct:
            return super().is_free()
        return not self.proxy.inside()

    def writers(self) -> set[int]:
        """Return the clients that have uncommitted rows."""
        if self._is_direct:
            return super().writers()
        return self.proxy.writers()

    def end(self, pid: int, *, cancel: bool = False) -> None:
        """End a connection, or cancel only its statement."""
        if self._is_direct:
            super().end(pid, cancel=cancel)
            return
        proxy = self._proxy
        if proxy is None or not proxy.knows(pid):
            return
        if cancel:
            proxy.interrupt(pid)
        else:
            proxy.end(pid)


def _counters_of(control: MySQLControl, database: str) -> dict[str, int]:
    """Return the next AUTO_INCREMENT value of each table that has such a column."""
    rows = control.rows(
        "SELECT table_name, auto_increment FROM information_schema.tables "
        f"WHERE table_schema = {literal(database)} AND auto_increment IS NOT NULL"
    )
    return dict(rows)
