"""Creates, lists and drops pytest-arena's databases on a server."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

import os
import secrets
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
from pytest_arena._postgresql.registry._connection import run_concurrently
from pytest_arena._postgresql.registry._registry_run import (
    LIVING,
    REGISTRY,
    RUNS,
    TURNS,
    DroppedRow,
    RegistryRun,
    state_of_registry,
)
from pytest_arena._process import interrupted, seconds, until
from pytest_arena._product._background import Background
from pytest_arena._product._databases_command import RegistryRow
from pytest_arena._product._server_databases import RegistryContent
from pytest_arena._product._server_errors import server_is_down, template_is_gone
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from pytest_arena._values import Address

__all__ = [
    "REGISTRY",
    "ServerRegistry",
    "look",
    "new_name",
]

KEPT_STAY = 20
TEMPLATE_DAYS = 14
TEMPLATES_STAY = 2
_END_SECONDS = 10.0
# So many databases are dropped at the same time, each over its connection. Each drop waits for a
# checkpoint of the server. Concurrent drops wait for the same checkpoint.
_CONCURRENT_DROPS = 8
_MOST_WAITING = (
    8  # databases and batches that wait for their drop, before a caller waits, too
)
_LEAVE_SECONDS = 5.0
_HURRIED_SECONDS = 3.0

_LISTED = f"""
WITH living AS MATERIALIZED ({LIVING})
SELECT d.name::text, d.kind, d.project, coalesce(r.host, ''), coalesce(r.pid, 0),
    coalesce(d.run IN (SELECT * FROM living), false), d.created, d.used,
    CASE WHEN has_database_privilege(b.oid, 'CONNECT') THEN pg_database_size(b.oid) END,
    d.owner::text, coalesce(d.title, '')
FROM arena.database d LEFT JOIN arena.run r ON r.id = d.run
LEFT JOIN pg_database b ON b.datname = d.name ORDER BY d.created, d.name
"""
_DELETE_DEAD_RUNS = f"""
WITH dead AS (DELETE FROM arena.run r WHERE owner = current_user AND id NOT IN ({LIVING})
    AND NOT EXISTS (SELECT FROM arena.database d WHERE d.run = r.id) RETURNING id)
DELETE FROM arena.use USING dead WHERE run = dead.id
"""


def look(address: Address, *, registry: str = REGISTRY) -> RegistryContent:
    """Read the registry of a server, without changing it.

    Raises:
        ServerError: no server answers, or it refuses.
    """
    registries = (
        "SELECT datname::text FROM pg_database "
        f"WHERE datname ^@ 'arena_registry' OR datname = {literal(registry)}"
    )
    try:
        with closing(open_control(address)) as control:
            names = {name for (name,) in control.rows(registries)}
        others = tuple(sorted(names - {registry}))
        if registry not in names:
            return RegistryContent(others=others)
        with closing(open_control(replace(address, database=registry))) as control:
            if state_of_registry(control) != "made":
                # Another owner has a database of that name, or another run is creating it.
                return RegistryContent(others=others)
            [(size,)] = control.rows("SELECT pg_database_size(current_database())")
            rows = tuple(RegistryRow(*row) for row in control.rows(_LISTED))
            return RegistryContent(
                databases=rows, is_found=True, bytes=size, others=others
            )
    except ControlFailure as error:
        raise messages.failed(
            "pytest-arena's databases cannot be listed", error, address
        ) from error


class ServerRegistry:
    """The databases on a server that pytest-arena has created and may drop.

    A small database, ``arena_registry_…``, has a row for each. pytest-arena commits the row before
    it creates the database, and deletes the row after the drop. It never drops a database without a
    row, with a row of another role, or with another owner. A run is alive while its control
    connection holds its advisory lock in the registry.

    Two threads have a connection each. One makes copies ahead, the other drops and sweeps. A forked
    child may only read.

    Raises:
        ServerError: no server answers, it is too old, or the role may not create databases.
    """

    def __init__(
        self,
        address: Address,
        *,
        project: str = "",
        registry: str = REGISTRY,
        note: Callable[[str], None] = lambda _: None,
        lock_timeout: float = 0.0,
    ) -> None:
        self.lock_timeout = lock_timeout  # seconds, of the app's statements
        self._address = address
        self._process = os.getpid()
        self._run = RegistryRun(address, project, registry, note)
        self.control = self._run.control  # for short statements of any thread
        self.writes = self._run.writes
        self.left: list[
            str
        ] = []  # the databases that the last sweep did not drop, and why
        self._is_closed = False
        self._creating_control = ControlLine(self._run.connect)
        self._dropping_control = ControlLine(self._run.connect)
        self._creating_thread = Background(at_end=self._creating_control.close)
        self._dropping_thread = Background(at_end=self._dropping_control.close)
        self._to_drop: list[str] = []
        self._uses_of_run = False  # whether it uses a template that ends with its run
        with self.reporting("pytest-arena's databases cannot be created"):
            if self.control.rows(_select_dead(self._run.number)):
                self._dropping_thread.do(partial(self._sweep, self._dropping_control))

    def address_of(self, name: str = "") -> Address:
        """Return the address of a database. Without a name, return the registry's address."""
        return replace(self._address, database=name or self._run.name)

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
        name = new_name(kind)
        with self.reporting(
            f"no copy of {template}" if template else "no new database"
        ):
            try:
                self._run.make(name, kind, template, control)
            except ControlFailure as error:
                self.drop_later(name)
                if template and error.sqlstate == "3D000":
                    raise template_is_gone(template) from error
                raise
        return name

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
        self,
        name: str,
        *,
        fingerprint: str,
        manifest: str,
        title: str = "",
        is_of_run: bool = False,
    ) -> str:
        """Make a frozen database a template, in one transaction. Return its new name.

        Of the templates of one project and title, sweeps keep the two that were used last. A
        template of a run ends with the last process that uses it.
        """
        final = new_name("run" if is_of_run else "template")
        columns = (
            f"kind = 'template', shelf = {literal(fingerprint)}, "
            f"manifest = {literal(manifest)}, title = {literal(title)}"
        )
        with self.reporting(f"{name} cannot be made a template"):
            self._rename(name, final, "WITH IS_TEMPLATE true", columns)
        self.used(final)
        return final

    def keep(self, name: str, title: str, *, called: str = "") -> str:
        """Keep a database for inspection, and end its connections. Return its new name.

        The newest twenty kept databases stay. ``called`` is a name by ``new_name``.
        """
        final = called or new_name("kept")
        self.freeze(name)
        with self.reporting(f"{name} cannot be kept"):
            columns = f"kind = 'kept', title = {literal(title)}"
            self._rename(name, final, "WITH ALLOW_CONNECTIONS true", columns)
            # If this run dies before it drops them, the next run drops them.
            dropped = self.control.rows(
                f"UPDATE arena.database SET kind = 'condemned', run = {self._run.number} "
                "WHERE name IN (SELECT name FROM arena.database WHERE kind = 'kept' "
                f"AND owner = current_user ORDER BY created DESC, name OFFSET {KEPT_STAY}) "
                "RETURNING name::text"
            )
        for (dropped_name,) in dropped:
            self.drop_later(dropped_name)
        return final

    def _rename(self, name: str, final: str, option: str, columns: str) -> None:
        """Rename a frozen database so that it outlives this run, in one transaction."""
        with self.writes.count():
            self.control.run(
                f"ALTER DATABASE {identifier(name)} RENAME TO {identifier(final)}; "
                f"ALTER DATABASE {identifier(final)} {option}; "
                f"UPDATE arena.database SET name = {literal(final)}, run = NULL, {columns}, "
                "created = clock_timestamp(), used = clock_timestamp() "
                f"WHERE name = {literal(name)} AND owner = current_user"
            )
        self._run.databases.pop(name, None)

    def templates(self, fingerprint: str) -> list[tuple[str, str]]:
        """Return the names and manifests of finished templates, the newest first."""
        question = (
            "SELECT d.name::text, d.manifest FROM arena.database d "
            "JOIN pg_database b ON b.datname = d.name "
            "WHERE d.kind = 'template' AND d.owner = current_user "
            f"AND d.shelf = {literal(fingerprint)} AND b.datistemplate AND NOT b.datallowconn "
            "ORDER BY d.created DESC, d.name"
        )
        with self.reporting("the templates cannot be listed"):
            return [(name, manifest) for name, manifest in self.control.rows(question)]

    def used(self, name: str) -> None:
        """Record that this run uses a template, so that no sweep drops it while the run lives."""
        self._uses_of_run = self._uses_of_run or is_of_run(name)
        which = f"WHERE name = {literal(name)} AND kind = 'template'"
        with self.reporting(f"{name} cannot be used"):
            # The lock excludes a sweep that condemns the template.
            self.control.run(
                f"SELECT pg_catalog.pg_advisory_xact_lock({TURNS}, 0); "
                f"UPDATE arena.database SET used = clock_timestamp() {which} "
                "AND owner = current_user; INSERT INTO arena.use (template, run) "
                f"SELECT name, {self._run.number} FROM arena.database {which} "
                "ON CONFLICT DO NOTHING"
            )

    @contextmanager
    def lock(self, fingerprint: str, *, seconds: float) -> Iterator[None]:
        """Hold the lock of a fingerprint, which excludes all threads, processes and machines.

        Raises:
            TimeoutError: another process has not released the lock in time.
        """
        patience = max(1, round(seconds * 1000))
        take_lock = f"SELECT pg_advisory_lock(hashtextextended({literal(fingerprint)}, {TURNS}))"
        # A separate connection, so that waiting blocks no other statement.
        with self.reporting("no connection for a lock"):
            control = self._run.connect(patience=self._address.patience)
        with closing(control):
            try:
                control.run(f"SET lock_timeout = {patience}; SET statement_timeout = 0")
                control.rows(take_lock)
            except ControlFailure as error:
                if error.sqlstate != "55P03":
                    raise self.failed("a lock cannot be acquired", error) from error
                raise TimeoutError(
                    f"{fingerprint}: locked for {seconds:g} s"
                ) from error
            yield

    def listed(self) -> list[RegistryRow]:
        """Return the registry's rows, the oldest database first."""
        with self.reporting("the databases cannot be listed"):
            return [RegistryRow(*row) for row in self.control.rows(_LISTED)]

    # Drop

    def drop(self, *names: str) -> None:
        """Drop databases now and end their connections. A later sweep drops what fails here."""
        self._drop(_is_named(names), self.control)

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
        has_created = self._creating_thread.wait_for_jobs(
            seconds
        )  # its jobs may add a drop
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
        self._drop(_is_named(names), self._dropping_control)

    def _drop(self, which: str, control: ControlLine) -> list[str]:
        """Drop the databases of this role whose rows ``d`` meet a condition. Return their names.

        ``left`` gets the other databases, with reasons.
        """
        rows: list[DroppedRow] = []
        with suppress(ControlFailure, ArenaError):  # a later run sweeps them
            dropped = control.rows(
                "SELECT d.name::text, d.kind, b.oid IS NOT NULL, CASE WHEN d.kind = 'template' "
                "THEN 'a template, which only its age makes obsolete' "
                "WHEN pg_get_userbyid(b.datdba) <> current_user "
                "THEN 'another role has become its owner' ELSE '' END "
                "FROM arena.database d LEFT JOIN pg_database b ON b.datname = d.name "
                f"WHERE d.owner = current_user AND {which}"
            )
            rows = [DroppedRow(*row) for row in dropped]
        shares = [rows[start::_CONCURRENT_DROPS] for start in range(_CONCURRENT_DROPS)]
        if len(rows) > 1:
            jobs = [
                partial(self._drop_share, share, control) for share in shares if share
            ]
            # RuntimeError: the interpreter is shutting down, and starts no thread.
            with suppress(RuntimeError):
                return list(chain(*run_concurrently(jobs)))
        return self._drop_rows(rows, control)

    def _drop_share(
        self, rows: list[DroppedRow], shared_control: ControlLine
    ) -> list[str]:
        with closing(ControlLine(self._run.connect)) as control:
            # The server may have no free connection.
            with suppress(ControlFailure, ArenaError):
                control.opened()
            if control.is_open:
                return self._drop_rows(rows, control)
        return self._drop_rows(rows, shared_control)

    def _drop_rows(self, rows: list[DroppedRow], control: ControlLine) -> list[str]:
        dropped = []
        for row in rows:
            reason = self._run.remove(row, control)
            if reason:
                self.left.append(f"{row.name}: {reason}")
            else:
                dropped.append(row.name)
        return dropped

    # Sweep

    def sweep(self, *, everything: bool = False) -> list[str]:
        """Drop databases of dead runs, and old templates that no living run uses.

        With ``everything``, also drop all templates, kept databases, and the registry if it is then
        empty. Return the names. ``left`` gets the other databases, with reasons.
        """
        with self.reporting("databases of dead runs cannot be dropped"):
            return self._sweep(self.control, everything=everything)

    def _sweep(self, control: ControlLine, *, everything: bool = False) -> list[str]:
        own_run = self._run.number
        rows = control.rows(_select_dead(own_run))
        self.left = []
        dead_runs = set()
        has_old_templates = everything
        for run, name, role, is_ours in rows:
            if name and not is_ours:
                self.left.append(f"{name}: belongs to the role {role}")
            if run is None:
                has_old_templates = True
            elif is_ours and run != own_run:
                dead_runs.add(run)
        dropped: list[str] = []
        # After the drop of a template, the templates that were derived from it are old, too.
        while has_old_templates:
            control.run(_condemn(own_run, everything=everything))
            condemned = self._drop(
                f"d.run = {own_run} AND d.kind = 'condemned'", control
            )
            dropped += condemned
            has_old_templates = bool(condemned)
        for run in sorted(dead_runs):
            # With the lock of a dead run, only one process cleans up after the run.
            lock = control.rows(f"SELECT pg_try_advisory_lock({RUNS}, {run})")
            if lock != [(True,)]:
                continue
            try:
                dropped += self._drop(f"d.run = {run}", control)
            finally:
                with suppress(ControlFailure):
                    control.rows(f"SELECT pg_advisory_unlock({RUNS}, {run})")
        if rows or everything:
            control.run(_DELETE_DEAD_RUNS)
        if everything:
            self._drop_registry()
        return dropped

    def _drop_registry(self) -> None:
        """Drop the registry if it is empty. A later run creates it again."""
        self.rest()
        is_alone = (
            "SELECT NOT EXISTS (SELECT FROM arena.database) "
            f"AND NOT EXISTS (SELECT FROM arena.run WHERE id <> {self._run.number})"
        )
        if self.control.rows(is_alone) == [(True,)]:
            self._run.end()
            self._dropping_control.close()
            self.control.close()
            drop = f"DROP DATABASE {identifier(self._run.name)}"
            control = open_control(self._address)
            # ControlFailure: another run is connected to the registry.
            with closing(control), suppress(ControlFailure):
                control.run(drop)

    # End

    def close(self) -> int:
        """Drop this run's databases, except templates and kept databases, and end the run.

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
        with suppress(ControlFailure, ArenaError):
            # Without databases and connection, another run may have dropped the registry.
            if is_in_time and (self._run.databases or self.control.is_open):
                which = _is_named(self._run.databases)
                if self._uses_of_run:
                    number = self._run.number
                    # Each process deletes its use first, so that the last one finds no use.
                    self.control.run(f"DELETE FROM arena.use WHERE run = {number}")
                    self.control.run(_condemn(number, everything=False))
                    which += f" OR (d.run = {number} AND d.kind = 'condemned')"
                self._drop(f"({which})", self.control)
                self._run.end()
        self.control.close()
        return len(self._run.databases)

    def _drop_within(self, patience: float) -> bool:
        """Drop this run's databases in the background. Return whether all are dropped in time."""
        end = seconds() + patience
        # An unfinished copy has a row, and no database yet.
        if not self._creating_thread.close(patience):
            return False
        self._to_drop += self._run.databases
        self._dropping_thread.do(self._drop_collected)
        has_finished = self._dropping_thread.wait_for_jobs(end - seconds())
        return has_finished and not self._run.databases

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


# The old templates: of a run, not used for long, older than others of the same title, or derived
# from a dropped template.
_OLD = f"""(d.name ^@ 'arena_run_'
    OR d.used < clock_timestamp() - interval '{TEMPLATE_DAYS} days' OR d.name IN (
    SELECT o.name FROM (
        SELECT t.name, row_number() OVER (PARTITION BY project, title ORDER BY used DESC) AS place
        FROM arena.database t WHERE kind = 'template' AND title <> '' AND owner = current_user) o
    WHERE o.place > {TEMPLATES_STAY}) OR d.title ~ ' arena_template_' AND NOT EXISTS (
    SELECT FROM arena.database b WHERE b.name = substring(d.title, 'arena_template_[0-9a-f]+$')))"""


def _select_dead(run: int) -> str:
    """Write the query for a sweep: run (NULL for old templates), name, owner, whether it is ours.

    It also returns databases that this run has condemned and could not drop, and runs without
    databases.
    """
    return f"""
        WITH living AS MATERIALIZED ({LIVING})
        SELECT d.run, d.name::text, d.owner::text, d.owner = current_user FROM arena.database d
        WHERE (d.run IS NOT NULL AND d.run NOT IN (SELECT * FROM living))
        OR (d.kind = 'condemned' AND d.run = {run})
        OR (d.kind = 'template' AND {_OLD} AND d.owner = current_user AND NOT EXISTS (
            SELECT FROM arena.use u
            WHERE u.template = d.name AND u.run IN (SELECT * FROM living)))
        UNION ALL SELECT r.id, '', r.owner::text, r.owner = current_user FROM arena.run r
        WHERE r.id NOT IN (SELECT * FROM living)
        AND NOT EXISTS (SELECT FROM arena.database d WHERE d.run = r.id)
    """


def _condemn(run: int, *, everything: bool) -> str:
    """Write the statements that assign templates without a living user to this run for a drop."""
    which = f"d.kind = 'template' AND {_OLD}"
    if everything:
        which = "d.kind IN ('template', 'kept')"
    return (
        f"SELECT pg_catalog.pg_advisory_xact_lock({TURNS}, 0); "
        f"UPDATE arena.database d SET kind = 'condemned', run = {run} "
        f"WHERE {which} AND owner = current_user AND NOT EXISTS "
        f"(SELECT FROM arena.use u WHERE u.template = d.name AND u.run IN ({LIVING}))"
    )


def _is_named(names: Iterable[str]) -> str:
    return f"d.name = ANY (ARRAY[{', '.join(map(literal, names))}]::name[])"


def is_of_run(template: str) -> bool:
    """Return whether a template ends with its run."""
    return template.startswith("arena_run_")


def new_name(kind: str) -> str:
    """Return a new, unique name for a database."""
    return f"arena_{kind}_{secrets.token_hex(8)}"
