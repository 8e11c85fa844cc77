"""The live database under ``rollback``."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql._control import ControlFailure, open_control
from pytest_arena._postgresql._rows import read_rows
from pytest_arena._postgresql._session_functions import session_functions
from pytest_arena._postgresql.isolation._live import READ_SETTINGS, Look, Restoration
from pytest_arena._postgresql.isolation._plain import PlainDatabase
from pytest_arena._postgresql.isolation._snapshots import RowsLost
from pytest_arena._postgresql.rollback._backend import BackendFailure
from pytest_arena._postgresql.rollback._proxy import Proxy
from pytest_arena._postgresql.rollback._sockets import Disconnected
from pytest_arena._postgresql.rollback._transaction_sql import settings_in
from pytest_arena._product import held_by
from pytest_arena._product._read_rows import ReadContent
from pytest_arena.errors import ConfigError, IsolationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack
    from typing import TypeAlias

    from pytest_arena._postgresql._control import Control
    from pytest_arena._postgresql.isolation._live import Levels
    from pytest_arena._postgresql.isolation._snapshots import Archive, Snapshot
    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._postgresql.rollback._transaction_sql import SettingChange
    from pytest_arena._product import Usage
    from pytest_arena._values import Address

    _Reader: TypeAlias = Callable[[Callable[[Control], object]], Any]

_ENDED = "the connection that all connections share has ended"


class Uncommitted(RowsLost):
    """Only the shared transaction has the rows of wider fixtures. A copy would lack them."""

    def __init__(self, reason: str) -> None:
        IsolationError.__init__(
            self,
            f"rows that wider fixtures wrote cannot be copied: {reason}",
            why="rollback never commits them, so that no copy of the database has them",
            cause="arena_isolation = rollback, and a wider fixture that has written",
            fix="arena_isolation = undo   # or a fixture of scope function",
        )


def open_proxy(
    address: Address, *, note: Callable[[str], None], lock_timeout: float
) -> Proxy:
    """Open a proxy between the app and a database.

    Raises:
        ControlFailure: the server does not answer, or refuses the login.
        ConfigError: the server refuses a connection without TLS.
    """
    with closing(open_control(address)) as control:
        is_encrypted = control.is_encrypted
    try:
        return Proxy(address, note=note, lock_timeout=lock_timeout)
    except ControlFailure as error:
        if is_encrypted and not error.is_crowded:
            raise ConfigError(
                "arena_isolation = rollback: the server refuses a connection without TLS",
                why="pytest-arena reads the messages of the connection that all connections "
                "share, and TLS encrypts them",
                cause=error.first_line,
                fix="in the server's pg_hba.conf, write host instead of hostssl for this machine\n"
                "or arena_isolation = auto",
            ) from error
        raise


def watch_functions(proxy: Proxy) -> None:
    """Make a proxy watch the functions of its database that change settings.

    Raises:
        ControlFailure: the functions cannot be read.
    """
    with closing(open_control(proxy.address)) as control:
        functions = session_functions(control)
    settings: list[SettingChange] = []
    for source in functions.sources:
        settings += settings_in(source)
    proxy.watch_functions(functions.setting, settings)


class RolledBackDatabase(PlainDatabase):
    """``rollback``: all connections share one transaction, which is never committed.

    Connections reach the database through a proxy. Each level is a savepoint, which the proxy opens
    at the first write. The database itself keeps the content before all tests. pytest-arena
    compares rows with it.
    """

    isolation = "rollback"
    may_have_changed = True  # so that each level is left

    def __init__(
        self, registry: ServerRegistry, uses: Usage, note: Callable[[str], None]
    ) -> None:
        super().__init__(registry, uses, note)
        self._proxy: Proxy | None = None
        # For each level above a changed level, the version and the rows at its start.
        self._starts: dict[int, tuple[object, ReadContent]] = {}

    @property
    def proxy(self) -> Proxy:
        """The proxy between the app and the database."""
        if self._proxy is None:
            self._proxy = self._open(self.name)
        return self._proxy

    def _open(self, name: str) -> Proxy:
        with self.registry.reporting("the shared connection cannot be opened"):
            address = self.registry.address_of(name)
            proxy = open_proxy(
                address, note=self.note, lock_timeout=self.registry.lock_timeout
            )
            watch_functions(proxy)
        return proxy

    @property
    def address(self) -> Address:
        """The address of the proxy."""
        return self.proxy.address

    def state_before_copy(self) -> Any:
        """Return None: the proxy knows the changes."""
        return None

    def open_copy(self, name: str, number: int = 0, rows: object = ()) -> Proxy:
        """Open the shared connection to a copy, with ``number`` levels."""
        del rows
        proxy = self._open(name)
        for _ in range(number):
            proxy.enter()
        return proxy

    def switch_to(
        self, name: str, snapshot: Snapshot, handle: Proxy, before: object
    ) -> None:
        """Make a copy the live database."""
        del before
        self.release()
        self._proxy = handle
        self.name = name
        self.snapshot = snapshot
        self._starts = {}

    def release(self) -> None:
        """End all connections. The server rolls back."""
        super().release()
        if self._proxy is not None:
            self._proxy.close()
            self._proxy = None

    def discard(self) -> None:
        """Drop the database. Commit it first if it is kept for inspection."""
        if self.kept_as is not None and self._proxy is not None:
            self._proxy.commit_all()
        super().discard()

    def make_copy(self) -> str:
        """Return the name of a copy.

        Raises:
            RowsLost: the shared transaction has written.
        """
        if self.proxy.has_changes(below=self.proxy.depth + 1):
            raise self._not_copied("a copy of the database is needed")
        return self.registry.create("live", template=self.snapshot.name)

    @property
    def is_copyable(self) -> bool:
        """Whether a copy has everything."""
        return not self.proxy.has_changes(below=self.proxy.depth + 1)

    # Clients

    def clients_inside(self) -> set[int]:
        """Return the clients inside a transaction."""
        return self.proxy.inside()

    def end_clients(self) -> None:
        """End all connections but the shared one."""
        self.proxy.end_all()

    def end_client(self, pid: int, *, cancel: bool) -> bool:
        """End a connection, or cancel its statement. Return whether it is one of this proxy."""
        if self._proxy is None or not self._proxy.knows(pid):
            return False
        if cancel:
            self._proxy.interrupt(pid)
        else:
            self._proxy.end(pid)
        return True

    # Levels

    def begin_level(self, number: int) -> None:
        """Open a level, whose savepoint is opened at the first write."""
        if self.kept_as is not None:
            # A wider level still uses this database, so it cannot be kept now.
            self.note(f"{self.kept_as[1]}: not kept: a wider fixture still needs it")
            self.kept_as = None
        self.proxy.leave_to(number - 1)
        version = self.proxy.version
        if self.proxy.has_changes(below=number):
            start = self._starts.get(number)
            if start is None or start[0] != version:
                with self.registry.reporting("the live database cannot be read"):
                    self._starts[number] = (version, self.reader.call(read_rows))
        else:
            self._starts.pop(number, None)
        with self.registry.reporting("the shared connection cannot be opened"):
            self.proxy.enter()

    def needs_snapshot(self, levels: Levels) -> bool:
        """Return False: a level is a savepoint.

        Raises:
            Held: an open transaction has written.
        """
        if self.proxy.is_lost:
            self._reopen(len(levels) - 1)
        self._check_for_writers()
        return False

    def _reopen(self, depth: int) -> None:
        """Open the shared connection again: it has ended between two tests."""
        if self.proxy.has_changes(below=depth + 1):
            raise self._not_copied(_ENDED)
        self.release()
        self._proxy = self._open(self.name)
        for _ in range(depth):
            self._proxy.enter()
        self.is_lost = True  # so that the app's connections are new

    def _check_for_writers(self) -> None:
        holders = self.proxy.holders()
        if holders:
            raise held_by(holders, self.name)

    def check_replaceable(self, levels: Levels) -> None:
        """Refuse to keep the database if later tests need rows of wider fixtures in it."""
        archive = self.archive(levels)
        if isinstance(archive, RowsLost):
            raise archive

    def archive(self, levels: Levels) -> Archive:
        """Return no rows if a snapshot has all rows of the levels below, otherwise an error."""
        if self.proxy.has_changes(below=len(levels) - 1):
            return self._not_copied("the database has to be replaced")
        return []

    def _not_copied(self, reason: str) -> RowsLost:
        """Return the error for rows that no copy would have."""
        return Uncommitted(reason)

    def leave(self, number: int) -> Restoration:
        """Roll back to the level's start.

        Raises:
            Held: an open transaction has written.
        """
        writers = self.proxy.writers()
        if writers:
            raise held_by(writers, self.name)
        # Prepared statements of the app would return columns of the changed schema.
        self.is_lost |= self.proxy.has_ddl()
        try:
            return Restoration(was_changed=self.proxy.leave_to(number - 1))
        except (Disconnected, BackendFailure) as error:
            mark = f"{_ENDED} {error}".strip()
            return Restoration(was_changed=True, marks=(mark,))

    def report_marks(self, marks: tuple[str, ...]) -> None:
        """Report that the shared connection has ended."""
        self.note(f"rollback: {{test}}: its database was replaced: {marks[0]}")

    def leave_after_clients_ended(self, number: int) -> bool:
        """Leave a level whose connections were ended."""
        return not self.leave(number).marks

    def forget(self, levels: Levels, *, is_undone: bool) -> None:
        """Add the top level's changes to the level below."""
        del levels, is_undone
        self.proxy.forget_level()

    def look(self, number: int) -> Look:
        """Return the changes and the open transactions, which the proxy knows."""
        del number
        has_rows = self.proxy.is_changed()
        writers = frozenset(self.proxy.writers())
        is_changed = has_rows or self.proxy.has_moved_numbers()
        return Look(is_changed, has_rows, writers=writers)

    def _reader_of(
        self, moment: object, snapshot: Snapshot | None, stack: ExitStack
    ) -> _Reader:
        """Return a function that reads a moment, the start of all tests, or the live database."""
        if isinstance(moment, ReadContent) or snapshot is None:
            return super()._reader_of(moment, snapshot, stack)
        # The database itself is unchanged, because the proxy commits nothing.
        address = self.registry.address_of(self.name)
        control = stack.enter_context(closing(open_control(address, READ_SETTINGS)))
        return lambda question: question(control)

    def start_of(self, levels: Levels, number: int) -> ReadContent | None:
        """Return the rows at the start of a level, None if the database itself has them."""
        del levels
        start = self._starts.get(number)
        return start[1] if start is not None else None
