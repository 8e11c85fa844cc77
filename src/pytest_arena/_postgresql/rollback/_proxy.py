"""Lets all connections of a test share one transaction, which is never committed.

Each transaction of the app is a savepoint in it, and so is each level. A statement that only reads
runs in a savepoint of its own, which is rolled back: PostgreSQL itself refuses a write there, and
the statement is executed again as one that writes. So a transaction that has only read keeps no
savepoint. Savepoints are a stack: a second transaction that writes waits for the first one.
"""

from __future__ import annotations

import re
import shutil
import socket
import tempfile
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql._control import literal
from pytest_arena._postgresql.rollback import _wire as wire
from pytest_arena._postgresql.rollback._backend import (
    GUARD,
    Backend,
    BackendAnswer,
    BackendFailure,
)
from pytest_arena._postgresql.rollback._client_sessions import (
    BE_READ_ONLY,
    Client,
    start_thread,
)
from pytest_arena._postgresql.rollback._transaction_sql import setting_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_arena._postgresql.rollback._backend import Numbers
    from pytest_arena._postgresql.rollback._client_sessions import Packet, Values
    from pytest_arena._postgresql.rollback._transaction_sql import SettingChange
    from pytest_arena._postgresql.rollback._wire import Message
    from pytest_arena._values import Address

_PORT = 5432  # only the name of the socket's file has it
_SOCKET = f".s.PGSQL.{_PORT}"
_FOLDER = "arena-proxy-"
_CONNECTIONS = 128  # that may wait at once
_READ_ONLY = "25006"
_IN_BLOCK = ("25001", "2D000")
_NO_LOCK = "55P03"
_OPEN_GUARD = f"SAVEPOINT {GUARD}"
_UNDO_GUARD = f"ROLLBACK TO {GUARD}; RELEASE {GUARD}"
_KEEP_GUARD = f"RELEASE {GUARD}"
# With these of a client the server would end the connection that all clients share.
_NOT_APPLIED = {
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
}
# Those for the database come last. What the login may not set is left out.
_ROLE_SETTINGS = """
SELECT split_part(pair, '=', 1), substr(pair, strpos(pair, '=') + 1)
FROM pg_catalog.pg_roles r
JOIN pg_catalog.pg_db_role_setting s ON s.setrole = r.oid AND s.setdatabase IN (
    0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
CROSS JOIN unnest(s.setconfig) pair
LEFT JOIN pg_catalog.pg_settings p ON p.name = split_part(pair, '=', 1)
WHERE r.rolname = {user} AND (coalesce(p.context, 'user') = 'user'
    OR p.context = 'superuser' AND current_setting('is_superuser') = 'on')
ORDER BY s.setdatabase
"""
# Tags of commands that have changed nothing which another transaction sees.
_NO_CHANGE = re.compile(
    r"(?:INSERT 0|UPDATE|DELETE|MERGE|COPY) 0\Z"
    r"|(?:DECLARE|FETCH|MOVE|CLOSE|SET|LOCK|PREPARE|DEALLOCATE|NOTIFY|LISTEN|SHOW|EXPLAIN)\b"
)
_DDL = re.compile(r"(?:CREATE|ALTER|DROP|DO|CALL|IMPORT)\b")
_LOST = (
    "the connection that all connections of the tests share has ended, by pg_terminate_backend, a "
    "timeout or a restart of the server. With arena_isolation = rollback there is one connection. "
    'If this test ends it: @pytest.mark.arena(isolation="clone")'
)
_NO_BLOCK_HINT = (
    "with arena_isolation = rollback all statements run in one transaction. "
    'For this test: @pytest.mark.arena(isolation="clone")'
)


@dataclass(slots=True)
class _Level:
    """A savepoint below which the backend goes back when the level is left."""

    number: int
    is_open: bool = False
    changes: int = 0  # how many times something was changed in it
    # The numbers of sequences at its start, and the query that reads them.
    sequences: Numbers = field(default_factory=dict)
    query: str = ""

    def open(self, sequences: Numbers, query: str) -> None:
        """Note that the backend has its savepoint, and the numbers of sequences."""
        self.is_open = True
        self.sequences = sequences
        self.query = query

    def add_changes(self, number: int) -> None:
        """Count changes."""
        self.changes += number

    @property
    def is_changed(self) -> bool:
        """Whether something was changed in it."""
        return self.changes > 0

    @property
    def savepoint(self) -> str:
        """Its name."""
        return f"arena_level_{self.number}"


@dataclass(eq=False, slots=True)
class _WaitingTurn:
    """A thread that waits to use the backend."""

    client: Client | None
    writes: bool
    is_woken: threading.Event = field(default_factory=threading.Event)
    is_cancelled: bool = False

    def cancel(self) -> None:
        """Have it wait no longer, with an error."""
        self.is_cancelled = True
        self.is_woken.set()


def _listen(folder: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(folder / "new"))
    listener.listen(_CONNECTIONS)
    # Another run removes a socket of this name on which no process listens.
    (folder / "new").rename(folder / _SOCKET)
    return listener


def _remove_folders_of_killed_runs() -> None:
    for place in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*/{_SOCKET}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(place))
            except ConnectionRefusedError:
                shutil.rmtree(place.parent, ignore_errors=True)
            except OSError:
                continue  # of another user


# The proxies of this process, by the folder of their sockets.
_proxies: dict[str, SharedTransaction] = {}


@cache
def _cancel_without_a_connection() -> None:
    """Have psycopg's ``cancel`` call the proxy directly.

    psycopg's C code holds the GIL while it waits for the server, which is a thread here.
    """
    from psycopg._connection_base import BaseConnection  # noqa: PLC0415 - an extra

    cancel = BaseConnection.cancel

    @wraps(cancel)
    def asking(connection: Any) -> None:
        proxy = None
        if not connection.closed:
            proxy = _proxies.get(connection.info.host)
        if proxy is None:
            cancel(connection)
        else:
            proxy.interrupt(connection.info.backend_pid)

    connection_class: Any = BaseConnection
    connection_class.cancel = asking


class SharedTransaction:
    """A proxy before one database. Any thread may use it.

    Example::

        proxy = SharedTransaction(address, note=print)
        psycopg.connect(host=proxy.address.host, port=proxy.address.port, user="postgres")
        proxy.enter()
        ...  # apps write and commit
        proxy.leave()
        proxy.close()

    Raises:
        ControlFailure: the server does not answer, or refuses the login.
    """

    def __init__(
        self,
        address: Address,
        *,
        note: Callable[[str], None],
        lock_timeout: float = 0.0,
    ) -> None:
        self._backend = Backend(address, lock_timeout)
        self.lock_timeout = lock_timeout or None  # of clients that do not change it
        self._note = note
        self._lock = threading.RLock()
        self._waiters: list[_WaitingTurn] = []
        self._running: _WaitingTurn | None = None
        self._holder: Client | None = None
        self._clients: dict[int, Client] = {}
        self._number = 0
        self._callers: re.Pattern[str] | None = None
        self._function_settings: list[SettingChange] = []
        self._levels = [_Level(0, is_open=True)]
        self._is_restart_due = False
        self._has_ddl = False  # the schema was changed in a level that is open
        # The numbers of sequences, if no statement has written since a level restored them.
        self._numbers: Numbers | None = None
        # Settings that a client has changed, with the values without a change.
        self._defaults: Values = {"role": "none"}
        self._applied: Values | None = {"role": "none"}
        self._applied_at_begin: Values | None = (
            None  # of the transaction that has written
        )
        self.is_lost = False
        self.login = address.user
        _remove_folders_of_killed_runs()
        self._folder = Path(tempfile.mkdtemp(prefix=_FOLDER))
        self._listener = _listen(self._folder)
        self.address = replace(
            address, host=str(self._folder), port=_PORT, password="", patience=0.0
        )
        _proxies[str(self._folder)] = self
        _cancel_without_a_connection()
        threading.Thread(
            target=self._accept, name="pytest-arena-proxy", daemon=True
        ).start()

    def watch_functions(
        self, callers: re.Pattern[str] | None, settings: Sequence[SettingChange]
    ) -> None:
        """Note the settings that functions change, and the statements that call such functions."""
        self._callers = callers
        self._function_settings = [*settings]

    # Connections

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._number += 1
                client = Client(self, connection, self._number)
                self._clients[client.pid] = client
            start_thread(client)

    def begin_session(self, client: Client) -> None:
        """Give a client the rights of its user, and read the defaults of its settings."""
        with self._turn(client):
            if client.user and client.user != self.login:
                for name, value in self._settings_of_role(client.user).items():
                    client.startup.setdefault(name, value)
                client.startup["role"] = client.user
            self._learn([name for name in client.startup if name != "role"])

    def _settings_of_role(self, user: str) -> Values:
        """Return what ALTER ROLE … SET has set for the logins of a role."""
        self._apply({})
        rows = self._backend.query(_ROLE_SETTINGS.format(user=literal(user))).rows
        return {setting_name(str(name)): value for name, value in rows}

    def statuses(self) -> dict[str, str]:
        """Return the settings that the server reports to a new connection."""
        return {**self._backend.statuses}

    def note(self, remark: str) -> None:
        """Report what this isolation cannot show."""
        self._note(f"rollback: {remark} (all connections share one transaction)")

    def forget(self, client: Client) -> None:
        """Roll back what a client has left, and forget it."""
        with self._lock:
            is_known = self._clients.pop(client.pid, None) is not None
        if is_known and not self.is_lost:
            self.roll_back(client)
            self.close_statements(client, client.statement_names)

    def close_statements(self, client: Client, names: Sequence[str]) -> None:
        """Close prepared statements at the backend."""
        if not names:
            return
        with self._turn(client):
            closing = [wire.close_statement(name) for name in names]
            self._backend.send(wire.data_of([*closing, wire.SYNC]))
            self._backend.answer()

    def cancel(self, pid: int, secret: int) -> None:
        """Cancel what a client waits for, as a driver asks for it."""
        client = self._clients.get(pid)
        if client is not None and client.secret == secret:
            self.interrupt(pid)

    def interrupt(self, pid: int) -> None:
        """Cancel what a client waits for."""
        with self._lock:
            running = self._running
            client = running.client if running is not None else None
            if client is not None and client.pid == pid:
                self._backend.cancel()
                return
            for waiter in self._waiters:
                client = waiter.client
                # Any other one has its turn soon.
                if waiter.writes and client is not None and client.pid == pid:
                    self._waiters.remove(waiter)
                    waiter.cancel()
                    return

    def end(self, pid: int) -> None:
        """End the connection of a client, and roll back its transaction."""
        client = self._clients.get(pid)
        if client is None:
            return
        self.interrupt(pid)
        self.forget(client)
        client.end("57P01", "terminating connection due to administrator command")

    # Turns

    @contextmanager
    def _turn(self, client: Client | None, *, writes: bool = False) -> Iterator[None]:
        """Use the backend alone. With ``writes`` wait for another transaction to end.

        Raises:
            Disconnected: the server has ended the connection.
            BackendFailure: another transaction does not end in time.
        """
        self._wait_for_turn(_WaitingTurn(client, writes))
        try:
            yield
        except wire.Disconnected:
            self._lose()
            raise
        finally:
            with self._lock:
                self._running = None
                self._pass_on()

    def _wait_for_turn(self, waiter: _WaitingTurn) -> None:
        with self._lock:
            if self.is_lost:
                raise wire.Disconnected
            self._waiters.append(waiter)
            if self._running is None:
                self._pass_on()
        patience = waiter.client.lock_timeout if waiter.client is not None else None
        while not waiter.is_woken.wait(patience):
            with self._lock:
                if not self._is_held_back(waiter) or waiter.is_woken.is_set():
                    continue
                self._waiters.remove(waiter)
                raise BackendFailure(_refusal(self._holder))
        if self.is_lost:
            raise wire.Disconnected
        if waiter.is_cancelled:
            text = "canceling statement due to user request"
            raise BackendFailure(wire.error("57014", text))

    def _is_held_back(self, waiter: _WaitingTurn) -> bool:
        """Return whether another transaction has written, and so must end first."""
        return waiter.writes and self._holder not in {None, waiter.client}

    def _pass_on(self) -> None:
        """Wake the first waiter that may use the backend."""
        for waiter in self._waiters:
            if not self._is_held_back(waiter):
                self._waiters.remove(waiter)
                self._running = waiter
                waiter.is_woken.set()
                return

    def _lose(self) -> None:
        with self._lock:
            self.is_lost = True
            clients = [*self._clients.values()]
            self._clients.clear()
            self._holder = None
            for waiter in self._waiters:
                waiter.is_woken.set()
            self._waiters.clear()
        for client in clients:
            client.end("57P01", _LOST)

    # Statements

    def run(self, client: Client, request: Packet) -> BackendAnswer:
        """Execute statements of a client, and return the answers."""
        settings = self._settings_of(request)
        is_read = not request.is_pinned and all(
            statement.kind == "read" for statement in request.statements
        )
        try:
            if is_read:
                with self._turn(client):
                    answer = self._read(client, request, settings)
                if client.is_read_only or answer.sqlstate != _READ_ONLY:
                    return _with_hint(answer)
            with self._turn(client, writes=True):
                return _with_hint(self._write(client, request, settings))
        except BackendFailure as failure:
            return BackendAnswer([failure.answer])

    def _settings_of(self, request: Packet) -> list[SettingChange]:
        """Return the settings that statements change, also by functions."""
        settings: list[SettingChange] = []
        for statement in request.statements:
            settings += statement.settings
            if self._callers is not None and self._callers.search(statement.sql):
                settings += self._function_settings
        return settings

    def _note_other_writer(self, client: Client, request: Packet) -> None:
        """Report a statement that may read what another open transaction has written."""
        holder = self._holder
        if holder is None or holder is client or not holder.has_written:
            return
        if any(statement.reads_rows for statement in request.statements):
            client.note("a transaction sees what another open one has written")

    def _read(
        self, client: Client, request: Packet, settings: Sequence[SettingChange]
    ) -> BackendAnswer:
        """Execute statements that change nothing, and roll back."""
        self._prepare()
        self._note_other_writer(client, request)
        self._learn([setting.name for setting in settings])
        self._apply(client.values)
        capture = self._capture_sql() if settings else ""
        packet = [wire.query(f"{_OPEN_GUARD}; {BE_READ_ONLY}").data, request.data]
        if capture:
            packet.append(wire.query(capture).data)
        packet.append(wire.query(_UNDO_GUARD).data)
        self._backend.send(b"".join(packet))
        self._ended(self._backend.answer())
        answer = self._backend.answer()
        captured = self._backend.answer() if capture else BackendAnswer()
        self._ended(self._backend.answer())
        if capture and answer.error is None:
            self._capture(client, settings, captured)
        return answer

    def _write(
        self, client: Client, request: Packet, settings: Sequence[SettingChange]
    ) -> BackendAnswer:
        """Execute statements in the client's transaction, or in one of their own."""
        self._prepare()
        self._learn([setting.name for setting in settings])
        self._open_levels()
        self._apply(client.values)
        opening = "; ".join([*self._open_transaction(client), _OPEN_GUARD])
        closing = _KEEP_GUARD
        if not client.in_transaction:
            # There is no later commit.
            defers = any(statement.defers for statement in request.statements)
            checks = self._check_constraints(defers=defers)
            closing = "; ".join([*checks, _KEEP_GUARD])
        if request.is_copy_in:
            self._ended(self._backend.query(opening))
            self._backend.send(request.data)
            answer = self._copied(client, request)
            self._backend.send(self._closing(closing, settings))
        else:
            packet = wire.query(opening).data + request.data
            self._backend.send(packet + self._closing(closing, settings))
            self._ended(self._backend.answer())
            answer = self._backend.answer()
        captured = self._backend.answer() if settings else BackendAnswer()
        closed = self._backend.answer()
        if answer.error is None and closed.error is not None:
            answer = BackendAnswer([*_before_end(answer.messages), closed.error])
        if answer.error is not None:
            self._backend.query(_UNDO_GUARD)
            return answer
        if settings:
            self._capture(client, settings, captured)
            self._applied = None
            self._apply(client.values)
        self._note_writes(client, request, answer)
        return answer

    def _closing(self, closing: str, settings: Sequence[SettingChange]) -> bytes:
        """Return the messages after a client's: they read settings, and release the guard."""
        messages = [wire.query(closing)]
        if settings:
            messages.insert(0, wire.query(self._capture_sql()))
        return wire.data_of(messages)

    def _note_writes(
        self, client: Client, request: Packet, answer: BackendAnswer
    ) -> None:
        """Note what statements have changed. Outside of a transaction they are committed."""
        if any(map(_DDL.match, answer.tags)):
            self._backend.note_ddl()
            self._has_ddl = True
        # A function that was called by its number has no tag.
        is_changed = not answer.tags or not all(map(_NO_CHANGE.match, answer.tags))
        if request.is_pinned:
            kinds = {statement.kind for statement in request.statements}
            is_changed &= "write" in kinds
        if not client.in_transaction:
            if is_changed:
                self._note_change()
            return
        if any(statement.defers for statement in request.statements):
            client.note_deferring()
        if is_changed:
            client.note_write(request.statements[0])

    def _copied(self, client: Client, request: Packet) -> BackendAnswer:
        """Pass rows from the client to the backend."""
        before: list[Message] = []
        while True:
            message = self._backend.message()
            if message.kind == b"Z":
                return BackendAnswer(before)
            before.append(message)
            if message.kind == b"G":
                break
        client.send_before_copy(request.answers_before_copy(before))
        while True:
            row = client.next_copy_message()
            self._backend.send(row.data)
            if row.kind != b"d":
                break
        if request.is_extended:
            # The server ignores the Sync that it reads while it waits for rows.
            self._backend.send(wire.SYNC.data)
        return self._backend.answer()

    def _open_transaction(self, client: Client) -> list[str]:
        """Return what opens the savepoints of the client's transaction."""
        if not client.in_transaction:
            return []
        if self._holder is None:
            self._applied_at_begin = self._applied
        self._holder = client
        return client.open_savepoints()

    def _ended(self, answer: BackendAnswer) -> None:
        """Check the answer to statements of the proxy that cannot fail."""
        if answer.error is not None:
            raise wire.Disconnected

    def _note_change(self) -> None:
        self._levels[-1].add_changes(1)

    def _check_constraints(self, *, defers: bool) -> list[str]:
        """Return what checks deferred constraints, as at a commit."""
        names = self._backend.deferred()
        if not names and not defers:
            return []
        checks = ["SET CONSTRAINTS ALL IMMEDIATE"]
        if names:
            checks.append(f"SET CONSTRAINTS {names} DEFERRED")
        return checks

    # Transactions

    def commit(self, client: Client) -> Message | None:
        """Keep a client's transaction. Return the error of a constraint that it violates."""
        if not client.is_open:
            return None
        with self._turn(client):
            checks = self._check_constraints(defers=client.defers)
            closing = [*checks, f"RELEASE {client.savepoint}"]
            if client.is_read_only:
                closing = [_undo(client.savepoint)]
            try:
                self._backend.query("; ".join(closing))
            except BackendFailure as failure:
                self._undo_holder(client)
                return failure.answer
            self._holder = None
            if client.has_written:
                self._note_change()
        return None

    def roll_back(self, client: Client) -> None:
        """Roll back a client's transaction."""
        if not client.is_open:
            return
        with self._turn(client):
            if self._holder is client:
                self._undo_holder(client)
            client.close_savepoint()

    def release(self, client: Client, index: int) -> None:
        """Release a savepoint of a client."""
        with self._turn(client):
            self._backend.query(f"RELEASE {client.savepoint_at(index)}")

    def roll_back_to(self, client: Client, index: int) -> None:
        """Roll back to a savepoint of a client."""
        with self._turn(client):
            self._backend.query(f"ROLLBACK TO {client.savepoint_at(index)}")
            self._note_undone()

    # Settings

    def _learn(self, names: Sequence[str]) -> None:
        """Read the values that settings have without a change of a client."""
        unknown = [name for name in names if name not in self._defaults]
        if not unknown:
            return
        self._apply({})
        selected = ", ".join(
            f"current_setting({literal(name)}, true)" for name in unknown
        )
        [values] = self._backend.query(f"SELECT {selected}").rows
        learned = dict(zip(unknown, values, strict=True))
        self._defaults.update(learned)
        if self._applied is not None:
            self._applied.update(learned)

    def _apply(self, values: Values) -> None:
        """Give the backend a client's settings.

        Raises:
            BackendFailure: the server refuses a value.
        """
        statements = self._settings_sql(values)
        if not statements:
            return
        self._applied = None
        try:
            self._backend.query("; ".join([_OPEN_GUARD, *statements, _KEEP_GUARD]))
        except BackendFailure:
            self._backend.query(_UNDO_GUARD)
            raise
        self._applied = self._wanted(values)

    def _wanted(self, values: Values) -> Values:
        wanted = {**self._defaults}
        for name, value in values.items():
            if value is not None and name not in _NOT_APPLIED:
                wanted[name] = value
        return wanted

    def _settings_sql(self, values: Values) -> list[str]:
        wanted = self._wanted(values)
        applied = self._applied
        if applied == wanted:
            return []
        statements = []
        for name, value in wanted.items():
            if applied is None or applied.get(name) != value:
                text = literal(value or "")
                statements.append(f"set_config({literal(name)}, {text}, false)")
        # The role comes first or last: as the connection's role all settings may be set.
        role = [text for text in statements if text.startswith("set_config('role'")]
        others = [text for text in statements if text not in role]
        sql = []
        if others and (applied or {}).get("role", "") != "none":
            sql.append("SET ROLE NONE")
            role = [f"set_config('role', {literal(wanted['role'] or 'none')}, false)"]
        if others:
            sql.append(f"SELECT {', '.join(others)}")
        if role:
            sql.append(f"SELECT {role[0]}")
        return sql

    def _capture_sql(self) -> str:
        names = map(literal, self._defaults)
        return "SELECT " + ", ".join(f"current_setting({name}, true)" for name in names)

    def _capture(
        self, client: Client, settings: Sequence[SettingChange], captured: BackendAnswer
    ) -> None:
        """Note the values that a client's statement has given to settings."""
        [row] = captured.rows
        values = dict(zip(self._defaults, row, strict=True))
        for setting in settings:
            client.note_setting(
                setting.name, values[setting.name], is_local=setting.is_local
            )

    # Levels

    def _prepare(self) -> None:
        """Begin another transaction if nothing is in this one, so that its time is the test's."""
        if self._is_restart_due:
            self._backend.restart()
            self._applied = {**self._defaults}
            self._is_restart_due = False

    def _open_levels(self) -> None:
        """Open the savepoints of levels, before something is written."""
        for level in self._levels:
            if not level.is_open:
                self._apply({})
                if not self._backend.sequences_query or self._numbers is None:
                    self._numbers = self._backend.sequences()
                self._backend.query(f"SAVEPOINT {level.savepoint}")
                level.open(self._numbers, self._backend.sequences_query)
        self._numbers = None  # the statement may move them

    def enter(self) -> None:
        """Open a level. The backend gets its savepoint at the first write."""
        with self._turn(None):
            self._levels.append(_Level(len(self._levels)))
            self._note_time()

    def _note_time(self) -> None:
        if not any(level.is_open for level in self._levels[1:]):
            is_unused = self._holder is None and not self._levels[0].is_changed
            self._is_restart_due = is_unused

    @property
    def depth(self) -> int:
        """The number of open levels."""
        return len(self._levels) - 1

    @property
    def version(self) -> tuple[int, ...]:
        """A value that changes with the changes of the open levels."""
        return tuple(level.changes for level in self._levels)

    def leave_to(self, depth: int) -> bool:
        """Leave levels until so many are open. Return whether one had changed."""
        was_changed = False
        while self.depth > depth:
            was_changed |= self.leave()
        return was_changed

    def leave(self) -> bool:
        """Restore the state of the matching ``enter``. Return whether it had changed.

        Transactions that are open are rolled back.
        """
        with self._turn(None):
            level = self._levels[-1]
            is_changed = level.is_changed
            self._cut_off()
            if level.is_open:
                is_changed |= self._restore(level)
            self._levels.pop()
            if len(self._levels) == 1:
                self._has_ddl = False
        return is_changed

    def _cut_off(self) -> None:
        holder = self._holder
        if holder is not None:
            self._undo_holder(holder)
            holder.cut_off()

    def _undo_holder(self, holder: Client) -> None:
        """Roll back the transaction that has written."""
        self._undo(holder.savepoint)
        self._applied = self._applied_at_begin
        self._holder = None

    def _undo(self, savepoint: str) -> None:
        self._backend.query(_undo(savepoint))
        self._note_undone()

    def _note_undone(self) -> None:
        self._applied = None
        if self._has_ddl:
            self._backend.note_ddl()

    def _restore(self, level: _Level) -> bool:
        """Roll back to a level's start. Return whether a sequence has moved."""
        undo = f"{_undo(level.savepoint)}; DISCARD SEQUENCES; "
        numbers = self._backend.sequences(level.query, after=undo)
        self._note_undone()
        self._applied = {**self._defaults}  # as at the savepoint
        moved = []
        for oid, number in numbers.items():
            before = level.sequences.get(oid)
            if before is not None and number != before:
                last, called = before
                moved.append(f"setval({oid}, {last}, {called == 't'})")
        if moved:
            self._backend.query(f"SELECT {', '.join(moved)}")
        self._numbers = level.sequences
        return bool(moved)

    def forget_level(self) -> None:
        """Drop the top level, and keep its content."""
        with self._turn(None):
            level = self._levels.pop()
            below = self._levels[-1]
            if not level.is_open:
                return
            if below.is_open:
                if self._holder is None:
                    self._backend.query(f"RELEASE {level.savepoint}")
                below.add_changes(level.changes)

    def commit_all(self) -> None:
        """Commit everything: the database is about to be kept."""
        with self._turn(None):
            self._cut_off()
            self._backend.commit()

    # Questions

    def has_moved_numbers(self) -> bool:
        """Return whether a sequence has another number than at the top level's start."""
        with self._turn(None):
            level = self._levels[-1]
            if not level.is_open or not level.query:
                return False
            self._apply({})
            return self._backend.sequences(level.query) != level.sequences

    def writers(self) -> set[int]:
        """Return the clients whose open transaction has written."""
        holder = self._holder
        if holder is None or not holder.has_written:
            return set()
        return {holder.pid}

    def inside(self) -> set[int]:
        """Return the clients inside a transaction."""
        clients = [*self._clients.values()]
        return {client.pid for client in clients if client.in_transaction}

    def is_changed(self) -> bool:
        """Return whether the top level has changes."""
        return self._levels[-1].is_changed

    def has_changes(self, *, below: int) -> bool:
        """Return whether a level below this one has changes."""
        return any(level.is_changed for level in self._levels[:below])

    def holders(self) -> set[int]:
        """Return the client whose transaction has a savepoint, also if it has not written."""
        return set() if self._holder is None else {self._holder.pid}

    def knows(self, pid: int) -> bool:
        """Return whether this is the pid of a client."""
        return pid in self._clients

    def end_all(self) -> None:
        """End the connections of all clients."""
        for pid in [*self._clients]:
            self.end(pid)

    def close(self) -> None:
        """End all connections. The server rolls back."""
        _proxies.pop(str(self._folder), None)
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._lose()
        self._backend.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _undo(savepoint: str) -> str:
    return f"ROLLBACK TO {savepoint}; RELEASE {savepoint}"


def _refusal(holder: Client | None) -> Message:
    statement = holder.first_write if holder is not None else ""
    text = "canceling statement due to lock timeout: another open transaction has "
    text += f"written ({statement})" if statement else "a lock or an open cursor"
    hint = (
        "with arena_isolation = rollback only one transaction can write at a time: commit or "
        "roll back the other one first, or use arena_isolation = undo"
    )
    return wire.error(_NO_LOCK, text, hint=hint)


def _with_hint(answer: BackendAnswer) -> BackendAnswer:
    """Explain an error that only the shared transaction can cause."""
    error = answer.error
    if error is None or answer.sqlstate not in _IN_BLOCK:
        return answer
    fields = wire.fields_of(error.body)
    fields["H"] = _NO_BLOCK_HINT
    explained = wire.Message(b"E", wire.pack_fields(fields))
    messages = [
        explained if message is error else message for message in answer.messages
    ]
    return BackendAnswer(messages)


def _before_end(messages: Sequence[Message]) -> list[Message]:
    """Leave out the tag of the last command, which fails."""
    ends = [index for index, message in enumerate(messages) if message.kind == b"C"]
    return [*messages[: ends[-1]]] if ends else [*messages]
