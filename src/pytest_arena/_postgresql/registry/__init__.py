"""Creates, lists and drops pytest-arena's databases on a server."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

import os
import re
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from pytest_arena._postgresql import _clone_sql as clone_sql
from pytest_arena._postgresql._control import (
    ControlFailure,
    ControlLine,
    identifier,
    literal,
    open_control,
)
from pytest_arena._postgresql.registry import _registry_errors as messages
from pytest_arena._postgresql.registry._connection import Writes, run_concurrently
from pytest_arena._process import interrupted, seconds, until
from pytest_arena._product import OF_RUN
from pytest_arena._product._background import Background
from pytest_arena._product._own_databases import (
    Label,
    Names,
    OwnDatabase,
    Process,
    owner_of,
    read_label,
    read_process,
    this_process,
    unused,
)
from pytest_arena._product._server_errors import server_is_down, template_is_gone
from pytest_arena._product._server_templates import now
from pytest_arena._values import digest
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future

    from pytest_arena._postgresql._control import Control
    from pytest_arena._values import Address

__all__ = ["ServerRegistry", "look"]

# The first numbers of advisory locks. A process holds (session, process).
_USES = 7_264_001  # templates, shared by the processes that copy them
TURNS = 7_264_002  # builds, and the creation of roles
_HOME = "postgres"  # the database in which all processes take their locks
_DAY = 86400.0
_END_SECONDS = 10.0
# So many databases are dropped at the same time, each over its connection. Each drop waits for a
# checkpoint of the server. Concurrent drops wait for the same checkpoint.
_CONCURRENT_DROPS = 8
# Databases and batches that wait for their drop, before a caller waits, too.
_MOST_WAITING = 8
_LEAVE_SECONDS = 5.0
_HURRIED_SECONDS = 3.0
_WITH_STRATEGY = 150000  # server versions
_WITH_METHOD = 180000
# FILE_COPY is faster: 147 ms for 227 MB on tmpfs, and WAL_LOG takes 1,416 ms. But with fsync
# FILE_COPY costs a checkpoint, so WAL_LOG is faster for small databases.
_SMALL_BYTES = 16 * 1024 * 1024

# With these settings no statement hangs, and the server detects a client that died silently.
_SESSION = (
    "SET lock_timeout = '10s'; SET statement_timeout = '10min'; SET search_path = pg_catalog; "
    "SET idle_in_transaction_session_timeout = '1min'; SET synchronous_commit = off; "
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; "
    "SET tcp_keepalives_count = 3"
)
_LISTED = """
SELECT datname::text, shobj_description(oid, 'pg_database'),
    coalesce(nullif(pg_get_userbyid(datdba), current_user)::text, ''),
    CASE WHEN has_database_privilege(oid, 'CONNECT') THEN pg_database_size(oid) END
FROM pg_database WHERE datname ^@ 'arena_' ORDER BY datname
"""
_LOCKS = """
SELECT classid::bigint, objid::bigint, coalesce(application_name, '')
FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND objsubid = 2 AND granted
"""


def look(address: Address) -> list[OwnDatabase]:
    """Return pytest-arena's databases on a server, without changing it.

    Raises:
        ServerError: no server answers, or it refuses.
    """
    try:
        with closing(_open(address)) as control:
            return _listed(control)
    except ControlFailure as error:
        raise messages.failed(
            "pytest-arena's databases cannot be listed", error, address
        ) from error


def _open(address: Address) -> Control:
    """Connect to the database in which all processes take their locks."""
    try:
        return open_control(replace(address, database=_HOME))
    except ControlFailure as error:
        if error.is_down or error.is_crowded:
            raise
        # Some servers have no such database, or do not let the role in.
        return open_control(address)


def _listed(control: Control | ControlLine) -> list[OwnDatabase]:
    locks = {(first, second): text for first, second, text in control.rows(_LOCKS)}
    sessions = {first for first, _ in locks}
    databases = []
    for name, comment, role, size in control.rows(_LISTED):
        owner = owner_of(name)
        if owner is None:
            continue
        process = Process()
        is_in_use = (_USES, _number(name)) in locks
        if owner.process and owner.kind != "kept":
            text = locks.get((int(owner.session, 16), int(owner.process, 16)))
            is_in_use = text is not None
            process = read_process(text or "")
        elif owner.kind == "seeded":
            is_in_use = int(owner.session, 16) in sessions
        database = OwnDatabase(
            name=name,
            label=read_label(comment),
            is_in_use=is_in_use,
            process=process,
            role=f"the role {role}" if role else "",
            bytes=size,
        )
        databases.append(database)
    return databases


def _number(name: str) -> int:
    """Return the second number of the lock for a template or a build."""
    return int(digest(name)[:8], 16)


def _lock(first: int, second: int) -> str:
    """Write two numbers of an advisory lock. They are signed there, and not in ``pg_locks``."""
    signed = [
        number - 2**32 if number >= 2**31 else number for number in (first, second)
    ]
    return f"({signed[0]}, {signed[1]})"


class ServerRegistry:
    """The databases on a server that pytest-arena has created and may drop.

    Their names say to whom they belong (``_own_databases``). A process is alive while its control
    connection holds its advisory lock. pytest-arena drops only databases with such a name that its
    login owns.

    Two threads have a connection each. One makes copies ahead, the other drops and sweeps. A forked
    child may only read.

    Raises:
        ServerError: no server answers, it is too old, or the role may not create databases.
    """

    def __init__(
        self, address: Address, *, project: str = "", lock_timeout: float = 0.0
    ) -> None:
        self.lock_timeout = lock_timeout  # seconds, of the app's statements
        self._address = address
        self._project = project
        self._process = os.getpid()
        self.names = Names()
        self.writes = Writes()
        self.databases: set[str] = set()  # of this process
        # The databases that the last sweep did not drop, and why.
        self.left: dict[str, str] = {}
        self._labels: dict[str, Label] = {}
        self._used: set[str] = set()
        # For each source, the strategy of a copy, and the statement for the copy's settings.
        self._copy_plans: dict[str, tuple[str, str | None]] = {}
        self._server_version = 0  # until it is connected
        self._clone_failed = False
        self._is_closed = False
        self.control = ControlLine(self._connect_as_process, patience=address.patience)
        self._creating_control = ControlLine(self._connect)
        self._dropping_control = ControlLine(self._connect)
        self._creating_thread = Background(at_end=self._creating_control.close)
        self._dropping_thread = Background(at_end=self._dropping_control.close)
        self._to_drop: list[str] = []
        with self.reporting("pytest-arena's databases cannot be created"):
            if unused(_listed(self.control), now()):
                self._dropping_thread.do(partial(self._sweep, self._dropping_control))

    def address_of(self, name: str = "") -> Address:
        """Return the address of a database, without a name the one that the option names."""
        return replace(self._address, database=name or self._address.database)

    # Connect

    def _connect(self) -> Control:
        control = _open(self._address)
        try:
            control.run(_SESSION)
            [(self._server_version,)] = control.rows(
                "SELECT current_setting('server_version_num')::int"
            )
            if self._may_copy_by_clone():
                control.run("SET file_copy_method = clone")
        except BaseException:
            control.close()
            raise
        return control

    def _connect_as_process(self) -> Control:
        """Connect, and take the locks of this process, also again after a lost connection."""
        control = self._connect()
        if self._process != os.getpid():
            return control  # a forked child only reads
        own = int(self.names.session, 16), int(self.names.process, 16)
        who = this_process(self._project).text()
        locks = [f"SELECT pg_advisory_lock{_lock(*own)}"]
        locks += [_use(name) for name in self._used]
        try:
            control.run(f"SET application_name = {literal(who)}; {'; '.join(locks)}")
        except BaseException:
            control.close()
            raise
        return control

    # Create

    def create(self, kind: str, *, template: str | None = None) -> str:
        """Create a copy of a template, or an empty database. Return its new, unique name.

        Raises:
            IsolationError: the disk is full, or a client is connected to the template.
            ServerError: the server does not answer, has no free connection, or refuses.
        """
        return self._create(kind, template, self.control)

    def create_later(self, kind: str, *, template: str | None = None) -> Future[str]:
        """Create a database in the background. ``close`` cancels a job that has not begun."""
        job = partial(self._create, kind, template, self._creating_control)
        return self._creating_thread.do(job)

    def _create(self, kind: str, template: str | None, control: ControlLine) -> str:
        name = self.names.new(kind)
        what = f"no copy of {template}" if template else "no new database"
        self.databases.add(name)
        with self.reporting(what):
            try:
                self.control.opened()  # the process holds its lock
                self._make(name, template, control)
            except ControlFailure as error:
                self.drop_later(name)
                if template and error.sqlstate == "3D000":
                    raise template_is_gone(template) from error
                raise
        return name

    def _make(self, name: str, template: str | None, control: ControlLine) -> None:
        source = template or "template0"
        if source not in self._copy_plans:
            [(size, is_synced, settings)] = control.rows(clone_sql.source(source))
            strategy = ""
            if self._server_version >= _WITH_STRATEGY:
                by_log = is_synced and size < _SMALL_BYTES
                strategy = "STRATEGY WAL_LOG" if by_log else "STRATEGY FILE_COPY"
            self._copy_plans[source] = strategy, settings
        strategy, settings = self._copy_plans[source]
        statement = f"CREATE DATABASE {identifier(name)} TEMPLATE {identifier(source)} {strategy}"
        if template is None:
            try:
                self._copy(f"{statement} ENCODING 'UTF8'", control)
            except ControlFailure as error:
                if error.sqlstate != "22023":
                    raise
                self._copy(statement, control)  # the locale needs another encoding
            return
        self._copy(statement, control)
        if settings:
            with self.writes.count():
                control.run(settings.replace(clone_sql.COPY, identifier(name)))

    def _copy(self, statement: str, control: ControlLine) -> None:
        try:
            self._write(statement, control, done="42P04")
        except ControlFailure as error:
            if not self._may_copy_by_clone() or error.sqlstate[:2] not in ("58", "0A"):
                raise
            # This file system cannot share blocks.
            self._clone_failed = True
            control.run("SET file_copy_method = copy")
            self._write(statement, control, done="42P04")

    def _write(self, statement: str, control: ControlLine, *, done: str) -> None:
        """Create or drop a database.

        ``done`` is the SQLSTATE if the statement has already taken effect. Names are unique, so
        this happens only if the connection was lost during the statement.
        """
        try:
            with self.writes.count():
                control.run(statement)
        except ControlFailure as error:
            if error.sqlstate != done:
                raise

    def _may_copy_by_clone(self) -> bool:
        return self._server_version >= _WITH_METHOD and not self._clone_failed

    # Freeze and rename

    def freeze(self, name: str) -> None:
        """Refuse new connections to a database and end its connections, for a copy of it."""
        with self.reporting(f"{name} cannot be frozen"):
            with self.writes.count():
                self.control.run(clone_sql.allow_connections(name, allowed=False))
            ended = clone_sql.end_backends(name)
            if not until(lambda: not self.control.rows(ended), within=_LEAVE_SECONDS):
                backends = self.control.rows(
                    "SELECT pid, coalesce(usename::text, ''), coalesce(application_name, '') "
                    f"FROM pg_stat_activity WHERE datname = {literal(name)} ORDER BY pid"
                )
                who = ", ".join(
                    f"{pid} ({role} {program})" for pid, role, program in backends
                )
                raise ControlFailure(f"{who} did not end", "55006")

    def thaw(self, name: str) -> None:
        """Allow new connections to a frozen database."""
        with self.reporting(f"{name} cannot be opened"), self.writes.count():
            self.control.run(clone_sql.allow_connections(name, allowed=True))

    def finish_template(
        self, name: str, *, fingerprint: str, manifest: str, title: str = ""
    ) -> str:
        """Make a frozen database a template, in one transaction. Return its new name.

        An older template of this fingerprint becomes a database of this process.
        """
        final = self._template(fingerprint)
        label = self._label(title, manifest, base=_base_of(fingerprint))
        older = ""
        with self.reporting(f"{name} cannot be made a template"):
            if self._read_label(final) is not None:
                older = self.names.new("building")
                self.databases.add(older)
                self.control.run(
                    f"ALTER DATABASE {identifier(final)} WITH IS_TEMPLATE false; "
                    f"ALTER DATABASE {identifier(final)} RENAME TO {identifier(older)}"
                )
            self._rename(name, final, "WITH IS_TEMPLATE true", label)
        self._copy_plans.pop(final, None)
        if older:
            self.drop_later(older)
        self.used(final)
        return final

    def keep(self, name: str, title: str, *, called: str = "") -> str:
        """Keep a database for inspection, and end its connections. Return its new name."""
        final = called or self.names.new("kept")
        self.freeze(name)
        with self.reporting(f"{name} cannot be kept"):
            label = self._label(title)
            self._rename(name, final, "WITH ALLOW_CONNECTIONS true", label)
        self._dropping_thread.do(partial(self._sweep, self._dropping_control))
        return final

    def _label(self, title: str, manifest: str = "", *, base: str = "") -> Label:
        moment = now()
        return Label(self._project, title, moment, moment, manifest, base)

    def _rename(self, name: str, final: str, option: str, label: Label) -> None:
        """Rename a frozen database so that it outlives this process, in one transaction."""
        with self.writes.count():
            self.control.run(
                f"ALTER DATABASE {identifier(name)} RENAME TO {identifier(final)}; "
                f"ALTER DATABASE {identifier(final)} {option}; {_comment(final, label)}"
            )
        self.databases.discard(name)
        self._labels[final] = label

    # Templates

    def _template(self, fingerprint: str) -> str:
        """Return the name of the template with a fingerprint. Each role has its own templates."""
        base = _base_of(fingerprint)
        of_base = self._labels[base].created if base in self._labels else ""
        is_of_run = fingerprint.startswith(OF_RUN) or base.startswith("arena_seeded_")
        recipe = f"{self._address.user} {fingerprint} {of_base}"
        return self.names.template(recipe, is_of_run=is_of_run)

    def _read_label(self, name: str) -> Label | None:
        rows = self.control.rows(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database "
            f"WHERE datname = {literal(name)} AND datistemplate AND NOT datallowconn"
        )
        label = read_label(rows[0][0]) if rows else None
        if label is not None:
            self._labels[name] = label
        return label

    def templates(self, fingerprint: str) -> list[tuple[str, str]]:
        """Return the name and the manifest of the finished template, if it exists."""
        name = self._template(fingerprint)
        with self.reporting("the templates cannot be listed"):
            label = self._read_label(name)
        return [] if label is None else [(name, label.manifest)]

    def used(self, name: str) -> None:
        """Record that this process uses a template, so that no sweep drops it meanwhile."""
        label = self._labels.get(name)
        with self.reporting(f"{name} cannot be used"):
            if name not in self._used:
                self.control.run(_use(name))
                self._used.add(name)
            if label is not None and now() - label.used > _DAY:
                self._labels[name] = replace(label, used=now())
                self.control.run(_comment(name, self._labels[name]))

    @contextmanager
    def lock(self, fingerprint: str, *, seconds: float) -> Iterator[None]:
        """Hold the lock of a fingerprint, which excludes all threads, processes and machines.

        Raises:
            TimeoutError: another process has not released the lock in time.
        """
        patience = max(1, round(seconds * 1000))
        # A separate connection, so that waiting blocks no other statement.
        with self.reporting("no connection for a lock"):
            control = self._connect()
        with closing(control):
            try:
                control.run(f"SET lock_timeout = {patience}; SET statement_timeout = 0")
                control.rows(
                    f"SELECT pg_advisory_lock{_lock(TURNS, _number(fingerprint))}"
                )
            except ControlFailure as error:
                if error.sqlstate != "55P03":
                    raise self.failed("a lock cannot be acquired", error) from error
                raise TimeoutError(
                    f"{fingerprint}: locked for {seconds:g} s"
                ) from error
            yield

    def listed(self) -> list[OwnDatabase]:
        """Return pytest-arena's databases on the server."""
        with self.reporting("the databases cannot be listed"):
            return _listed(self.control)

    # Drop

    def drop(self, *names: str) -> None:
        """Drop databases now and end their connections. A later sweep drops what fails here."""
        self._drop(names, self.control)

    def drop_later(self, name: str) -> None:
        """End a database's connections in the background, and drop it there with other databases.

        If many databases already wait for their drop, wait until fewer do, so that the disk does
        not fill. Ctrl-C ends this wait. ``close`` drops the remaining databases.
        """
        self._dropping_thread.do(partial(self._collect, name))
        if not self._is_closed and self._process == os.getpid():
            self._dropping_thread.wait_for_jobs(_LEAVE_SECONDS, most=_MOST_WAITING)

    def rest(self, seconds: float = _END_SECONDS) -> bool:
        """Wait until both threads have done their jobs. Return whether they were in time."""
        # Its jobs may add a drop.
        has_created = self._creating_thread.wait_for_jobs(seconds)
        self._dropping_thread.do(self._drop_collected)
        return self._dropping_thread.wait_for_jobs(seconds) and has_created

    def _collect(self, name: str) -> None:
        self._to_drop.append(name)
        if len(self._to_drop) >= _CONCURRENT_DROPS:
            self._drop_collected()
            return
        with suppress(ControlFailure, ArenaError):
            self._dropping_control.rows(clone_sql.end_backends(name))

    def _drop_collected(self) -> None:
        names = self._to_drop
        self._to_drop = []
        self._drop(names, self._dropping_control)

    def _drop(self, names: Iterable[str], control: ControlLine) -> list[str]:
        """Drop databases of this role. Return the names of those that are gone.

        ``left`` gets the others, with reasons.
        """
        names = list(names)
        shares = [names[start::_CONCURRENT_DROPS] for start in range(_CONCURRENT_DROPS)]
        if len(names) > 1:
            jobs = [
                partial(self._drop_share, share, control) for share in shares if share
            ]
            # RuntimeError: the interpreter is shutting down, and starts no thread.
            with suppress(RuntimeError):
                return list(chain(*run_concurrently(jobs)))
        return [name for name in names if self._remove(name, control)]

    def _drop_share(self, names: list[str], shared_control: ControlLine) -> list[str]:
        with closing(ControlLine(self._connect)) as control:
            # The server may have no free connection.
            with suppress(ControlFailure, ArenaError):
                control.opened()
            used = control if control.is_open else shared_control
            return [name for name in names if self._remove(name, used)]

    def _remove(self, name: str, control: ControlLine) -> bool:
        """Drop a database and end its connections. Return whether it is gone."""
        try:
            self._remove_now(name, control)
        except (ControlFailure, ArenaError) as error:
            self.left[name] = str(error)
            return False
        self.databases.discard(name)
        return True

    def _remove_now(self, name: str, control: ControlLine) -> None:
        rows = control.rows(
            "SELECT datistemplate, pg_get_userbyid(datdba) = current_user FROM pg_database "
            f"WHERE datname = {literal(name)}"
        )
        if not rows:
            return
        [(is_template, is_ours)] = rows
        if not is_ours or owner_of(name) is None:
            raise ControlFailure("another role has become its owner", "42501")
        lock = _lock(_USES, _number(name))
        if is_template:
            # A process that copies it holds this lock.
            if control.rows(f"SELECT pg_try_advisory_lock{lock}") != [(True,)]:
                raise ControlFailure("a living run uses it", "55006")
            control.run(f"ALTER DATABASE {identifier(name)} WITH IS_TEMPLATE false")
        drop = f"DROP DATABASE {identifier(name)} WITH (FORCE)"
        try:
            self._write(drop, control, done="3D000")
        except ControlFailure as error:
            if error.sqlstate != "55006":
                raise
            self._end_prepared(name, control)
            self._write(drop, control, done="3D000")
        finally:
            if is_template:
                control.rows(f"SELECT pg_advisory_unlock{lock}")

    def _end_prepared(self, name: str, control: ControlLine) -> None:
        """Roll back prepared transactions, which prevent a drop and have no session."""
        control.run(clone_sql.allow_connections(name, allowed=True))
        with closing(open_control(self.address_of(name))) as inside:
            for (gid,) in inside.rows(
                "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
            ):
                with suppress(ControlFailure):
                    inside.run(clone_sql.rollback_prepared(gid))

    # Sweep

    def sweep(self, *, everything: bool = False) -> list[str]:
        """Drop databases of dead processes, and old templates that no living process uses.

        With ``everything``, also drop all templates and kept databases. Return the names. ``left``
        gets the other databases, with reasons.
        """
        with self.reporting("databases of dead runs cannot be dropped"):
            return self._sweep(self.control, everything=everything)

    def _sweep(self, control: ControlLine, *, everything: bool = False) -> list[str]:
        self.left = {}
        dropped: list[str] = []
        # After the drop of a template, the templates that were derived from it are old, too.
        while True:
            old = unused(_listed(control), now(), everything=everything)
            names = {database.name for database in old} - set(self.left)
            if not names:
                return dropped
            dropped += self._drop(sorted(names), control)

    # End

    def close(self) -> int:
        """Drop this process's databases. The last process of a run also drops its templates.

        After Ctrl-C this takes at most three seconds. A server with fsync takes seconds for each
        database. Return the number of databases that are left. The next run drops them.
        """
        if self._is_closed or self._process != os.getpid():
            return 0
        self._is_closed = True
        is_in_time = not interrupted.is_set() or self._drop_within(_HURRIED_SECONDS)
        patience = _END_SECONDS if is_in_time else 0.0
        # A thread closes its connection when it ends.
        self._creating_thread.close(patience)
        self._dropping_thread.close(patience)
        if is_in_time and self.databases:
            self._drop([*self.databases], self.control)
        if is_in_time and self.control.is_open:
            # This process has ended for others, and for the sweep.
            with suppress(ControlFailure, ArenaError):
                self.control.rows("SELECT pg_advisory_unlock_all()")
                self._sweep(self.control)
        self.control.close()
        return len(self.databases)

    def _drop_within(self, patience: float) -> bool:
        """Drop this run's databases in the background. Return whether all are dropped in time."""
        end = seconds() + patience
        if not self._creating_thread.close(patience):
            return False
        self._to_drop += self.databases
        self._dropping_thread.do(self._drop_collected)
        has_finished = self._dropping_thread.wait_for_jobs(end - seconds())
        return has_finished and not self.databases

    @contextmanager
    def reporting(self, what: str) -> Iterator[None]:
        """Turn a refusal of the server into an ``ArenaError`` that begins with ``what``."""
        try:
            yield
        except ControlFailure as error:
            raise self.failed(what, error) from error

    def failed(self, what: str, error: ControlFailure) -> ArenaError:
        """Return the ``ArenaError`` for a refusal of the server. It begins with ``what``."""
        if error.is_down:
            return server_is_down(what, error, self._address, messages.ANOTHER)
        return messages.failed(what, error, self._address)


def _base_of(fingerprint: str) -> str:
    """Return the template from which a template is derived, "" for a template of a recipe."""
    base = re.search(r"arena_(?:template|seeded)_[0-9a-f_]+\Z", fingerprint)
    return base[0] if base else ""


def _use(name: str) -> str:
    return f"SELECT pg_advisory_lock_shared{_lock(_USES, _number(name))}"


def _comment(name: str, label: Label) -> str:
    return f"COMMENT ON DATABASE {identifier(name)} IS {literal(label.text())}"
