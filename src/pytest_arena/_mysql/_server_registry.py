"""Creates, copies, lists and drops pytest-arena's databases on a server."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

import os
import platform
import secrets
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING

from pytest_arena._mysql import _errors as messages
from pytest_arena._mysql._clone import EMPTY_PLAN, read_plan
from pytest_arena._mysql._control import (
    NO_DATABASE,
    MySQLControlLine,
    MySQLFailure,
    identifier,
    literal,
    open_control,
)
from pytest_arena._process import interrupted, until
from pytest_arena._product import OF_RUN, discard
from pytest_arena._product._background import Background
from pytest_arena._product._databases_command import RegistryRow
from pytest_arena._product._server_databases import RegistryContent
from pytest_arena._product._server_errors import template_is_gone
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._mysql._clone import CopyPlan
    from pytest_arena._mysql._control import MySQLControl
    from pytest_arena._values import Address

KEPT_STAY = 20
TEMPLATE_DAYS = 14
TEMPLATES_STAY = 2
_END_SECONDS = 10.0
_HURRIED_SECONDS = 3.0
_CREATION_SECONDS = 10

_MARK = "pytest-arena: which databases of this server are arena's own, and whose"
_MAKE = f"""
CREATE TABLE IF NOT EXISTS run (
    id INT AUTO_INCREMENT PRIMARY KEY, owner VARCHAR(288) NOT NULL, project VARCHAR(255) NOT NULL,
    host VARCHAR(255) NOT NULL, pid INT NOT NULL, started DATETIME(6) NOT NULL)
    ENGINE = InnoDB COMMENT = {literal(_MARK)};
CREATE TABLE IF NOT EXISTS made (
    name VARCHAR(64) PRIMARY KEY, kind VARCHAR(16) NOT NULL, run INT,
    owner VARCHAR(288) NOT NULL, project VARCHAR(255) NOT NULL, shelf VARCHAR(64),
    manifest LONGTEXT, title TEXT,
    created DATETIME(6) NOT NULL, used DATETIME(6) NOT NULL)
    ENGINE = InnoDB;
CREATE TABLE IF NOT EXISTS used_by (
    template VARCHAR(64), run INT, PRIMARY KEY (template, run)) ENGINE = InnoDB
"""
# The database's name. Versions of pytest-arena with other tables use another database.
REGISTRY = f"arena_registry_{sha256(_MAKE.encode()).hexdigest()[:8]}"
_PREFIX = "arena_registry_"
# MySQL cannot rename a database, so a template has its final name during the build.
_KIND_IN_NAME = {"building": "template"}


def look(address: Address, *, registry: str = REGISTRY) -> RegistryContent:
    """Read the registry of a server, without changing it.

    Raises:
        ServerError: no server answers, or it refuses.
    """
    try:
        with closing(open_control(replace(address, database=""))) as control:
            names = {name for (name,) in control.rows("SHOW DATABASES")}
            registries = {name for name in names if name.startswith(_PREFIX)}
            others = tuple(sorted(registries - {registry}))
            if registry not in names or not _is_made(control, registry):
                return RegistryContent(others=others)
            control.run(f"USE {identifier(registry)}")
            return RegistryContent(
                databases=tuple(_listed(control, registry)),
                is_found=True,
                others=others,
            )
    except MySQLFailure as error:
        raise messages.failed(
            "pytest-arena's databases cannot be listed", error, address
        ) from error


def _is_made(control: MySQLControl, registry: str) -> bool:
    """Return whether a database has pytest-arena's mark.

    Raises:
        ValueError: it has tables without the mark.
    """
    rows = control.rows(
        "SELECT table_name, table_comment FROM information_schema.tables "
        f"WHERE table_schema = {literal(registry)}"
    )
    if rows and ("run", _MARK) not in rows:
        raise ValueError(registry)
    return len(rows) == 3  # noqa: PLR2004 - the tables of _MAKE


def _living(registry: str) -> str:
    """Write the condition that a run of the table ``r`` is alive: its session holds its lock."""
    return f"IS_USED_LOCK(CONCAT({literal(f'{registry}.run.')}, r.id)) IS NOT NULL"


def _listed(control: MySQLControl, registry: str) -> list[RegistryRow]:
    rows = control.rows(
        "SELECT m.name, m.kind, m.project, COALESCE(r.host, ''), COALESCE(r.pid, 0), "
        f"CASE WHEN r.id IS NULL THEN 0 ELSE {_living(registry)} END, m.created, m.used, "
        "(SELECT COALESCE(SUM(t.data_length + t.index_length), 0) "
        "FROM information_schema.tables t WHERE t.table_schema = m.name), "
        "m.owner, COALESCE(m.title, '') "
        "FROM made m LEFT JOIN run r ON r.id = m.run ORDER BY m.created, m.name"
    )
    listed = []
    for values in rows:
        row = RegistryRow(*values)
        row = replace(
            row,
            alive=bool(row.alive),
            created=row.created.replace(tzinfo=UTC),
            used=row.used.replace(tzinfo=UTC),
            bytes=int(row.bytes or 0),
        )
        listed.append(row)
    return listed


class MySQLRegistry:
    """The databases on a server that pytest-arena has created and may drop.

    A small database, ``arena_registry_…``, has a row for each. pytest-arena commits the row before
    it creates the database, and deletes the row after the drop. It never drops a database without a
    row, or with a row of another login. A run is alive while its control connection holds its lock.

    A background thread with a separate connection drops databases.

    Raises:
        ServerError: no server answers, or the login may not create databases.
    """

    def __init__(
        self,
        address: Address,
        *,
        project: str = "",
        registry: str = REGISTRY,
        note: Callable[[str], None] = discard,
        source: str = "",
    ) -> None:
        self._source = source  # the place of the option that names the server
        self.note = note
        self.name = registry
        self.left: list[
            str
        ] = []  # the databases that the last sweep did not drop, and why
        self._address = address
        self._project = project[:255]
        self._process = os.getpid()
        self._number = 0  # the run's number, 0 before the first connection
        self._databases: dict[
            str, str
        ] = {}  # the kinds of the run's databases, by name
        self._plans: dict[str, CopyPlan] = {}
        self._is_closed = False
        self.control = MySQLControlLine(self._connect_as_run)
        self._dropping_control = MySQLControlLine(self._connect)
        self._dropping_thread = Background(at_end=self._dropping_control.close)
        with self.reporting("pytest-arena's databases cannot be created"):
            self.sweep()

    def address_of(self, name: str = "") -> Address:
        """Return the address of a database. Without a name, return the registry's address."""
        return replace(self._address, database=name or self.name)

    # Connect

    def _connect(self) -> MySQLControl:
        try:
            return self._prepared()
        except ValueError:
            raise messages.foreign_registry(self._address, self.name) from None

    def _prepared(self) -> MySQLControl:
        """Connect to the registry. Create it if it does not exist.

        Raises:
            MySQLFailure: no server answers, or it refuses.
            ValueError: the database is not pytest-arena's.
        """
        address = replace(self._address, database="")
        control = open_control(address, patience=self._address.patience)
        try:
            if not _is_made(control, self.name):
                self._make(control)
            control.run(f"USE {identifier(self.name)}")
        except BaseException:
            control.close()
            raise
        return control

    def _make(self, control: MySQLControl) -> None:
        """Create the registry, once for all processes."""
        lock = literal(self.name)
        control.rows(f"SELECT GET_LOCK({lock}, {_CREATION_SECONDS})")
        try:
            if not _is_made(control, self.name):
                control.run(
                    f"CREATE DATABASE IF NOT EXISTS {identifier(self.name)} "
                    "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin; "
                    f"USE {identifier(self.name)}; {_MAKE}"
                )
        finally:
            control.rows(f"SELECT RELEASE_LOCK({lock})")

    def _connect_as_run(self) -> MySQLControl:
        control = self._connect()
        if self._process != os.getpid():
            return control  # a forked child only reads
        try:
            self._begin(control)
        except BaseException:
            control.close()
            raise
        return control

    def _begin(self, control: MySQLControl) -> None:
        """Take the lock of the run. Insert its row, and the rows of its databases.

        If the connection was lost, another run may have cleaned up after this run.
        """
        row = (
            f"CURRENT_USER(), {literal(self._project)}, {literal(platform.node())}, "
            f"{os.getpid()}, UTC_TIMESTAMP(6)"
        )
        if not self._number:
            control.run(
                f"INSERT INTO run (owner, project, host, pid, started) VALUES ({row})"
            )
            [(self._number,)] = control.rows("SELECT LAST_INSERT_ID()")
        # A sweep of another run may delete the row before the lock is taken.
        [(is_locked,)] = control.rows(
            f"SELECT GET_LOCK({self._lock_of(self._number)}, {_CREATION_SECONDS})"
        )
        if not is_locked:
            raise MySQLFailure("the lock of this run is taken")
        control.run(
            "INSERT IGNORE INTO run (id, owner, project, host, pid, started) VALUES "
            f"({self._number}, {row})"
        )
        for name, kind in [*self._databases.items()]:
            control.run(self._insert_row(name, kind))

    def _lock_of(self, run: int) -> str:
        return literal(f"{self.name}.run.{run}")

    def _insert_row(self, name: str, kind: str) -> str:
        return (
            "INSERT INTO made (name, kind, run, owner, project, created, used) VALUES ("
            f"{literal(name)}, {literal(kind)}, {self._number}, CURRENT_USER(), "
            f"{literal(self._project)}, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6)) "
            f"ON DUPLICATE KEY UPDATE run = {self._number}"
        )

    # Create

    def create(self, kind: str, *, template: str | None = None) -> str:
        """Create a copy of a template, or an empty database. Return its new, unique name.

        Raises:
            IsolationError: the disk is full, or the template was dropped.
            ServerError: the server does not answer, has no free connection, or refuses.
        """
        name = new_name(kind)
        what = f"no copy of {template}" if template else "no new database"
        self._databases[name] = kind
        try:
            with self.reporting(what):
                self.control.run(self._insert_row(name, kind))
                plan = self.plan_of(template)
                self._in_registry(lambda control: plan.run(control, name))
        except BaseException:
            self.drop_later(name)
            raise
        return name

    def _in_registry(self, function: Callable[[MySQLControl], None]) -> None:
        """Call a function that may change the current database, and then change it back.

        Raises:
            MySQLFailure: the server refused a statement, or cannot be reached.
        """

        def call(control: MySQLControl) -> None:
            try:
                function(control)
            finally:
                # A lost connection has raised an error before.
                with suppress(MySQLFailure):
                    control.run(f"USE {identifier(self.name)}")

        self.control.call(call)

    def plan_of(self, name: str | None) -> CopyPlan:
        """Return the plan of a database that never changes again, or of an empty database (None).

        Raises:
            MySQLFailure: the server does not answer, or refuses.
            IsolationError: the database was dropped.
        """
        if name is None:
            return EMPTY_PLAN
        if name not in self._plans:
            try:
                self._plans[name] = self.control.call(
                    lambda control: read_plan(control, name)
                )
            except MySQLFailure as error:
                if error.number != NO_DATABASE:
                    raise
                raise template_is_gone(name) from error
        return self._plans[name]

    def copy_now(self, kind: str, source: str) -> str:
        """Copy a database that may change later."""
        self._plans.pop(source, None)
        try:
            return self.create(kind, template=source)
        finally:
            self._plans.pop(source, None)

    # Templates

    def finish_template(
        self, name: str, *, fingerprint: str, manifest: str, title: str
    ) -> str:
        """Make a database a template, in one statement. Return its name."""
        with self.reporting(f"{name} cannot be made a template"):
            self.control.run(
                f"UPDATE made SET kind = 'template', run = NULL, shelf = {literal(fingerprint)}, "
                f"manifest = {literal(manifest)}, title = {literal(title)}, "
                "created = UTC_TIMESTAMP(6), used = UTC_TIMESTAMP(6) "
                f"WHERE name = {literal(name)} AND owner = CURRENT_USER()"
            )
        self._databases.pop(name, None)
        self.used(name)
        return name

    def keep(self, name: str, title: str) -> None:
        """Keep a database for inspection. The newest twenty kept databases stay."""
        with self.reporting(f"{name} cannot be kept"):
            self.control.run(
                f"UPDATE made SET kind = 'kept', run = NULL, title = {literal(title)}, "
                f"created = UTC_TIMESTAMP(6) WHERE name = {literal(name)}"
            )
            self._databases.pop(name, None)
            old = self.control.rows(
                "SELECT name FROM made WHERE kind = 'kept' AND owner = CURRENT_USER() "
                f"ORDER BY created DESC, name LIMIT 1000 OFFSET {KEPT_STAY}"
            )
        for (old_name,) in old:
            self.drop_later(old_name)

    def templates(self, fingerprint: str) -> list[tuple[str, str]]:
        """Return the names and manifests of finished templates, the newest first."""
        with self.reporting("the templates cannot be listed"):
            return self.control.rows(
                "SELECT m.name, m.manifest FROM made m JOIN information_schema.schemata s "
                "ON s.schema_name = m.name WHERE m.kind = 'template' "
                f"AND m.owner = CURRENT_USER() AND m.shelf = {literal(fingerprint)} "
                "ORDER BY m.created DESC, m.name"
            )

    def used(self, name: str) -> None:
        """Record that this run uses a template, so that no sweep drops it while the run lives."""
        with self.reporting(f"{name} cannot be used"):
            self.control.run(
                "INSERT IGNORE INTO used_by (template, run) SELECT name, "
                f"{self._number} FROM made WHERE name = {literal(name)} AND kind = 'template'; "
                f"UPDATE made SET used = UTC_TIMESTAMP(6) WHERE name = {literal(name)} "
                "AND kind = 'template' AND owner = CURRENT_USER()"
            )

    @contextmanager
    def lock(self, fingerprint: str, *, seconds: int) -> Iterator[None]:
        """Hold the lock of a fingerprint, which excludes all threads, processes and machines.

        Raises:
            TimeoutError: another process has not released the lock in time.
        """
        name = literal(f"{self.name}.{fingerprint}")
        # A separate connection, so that waiting blocks no other statement.
        with self.reporting("no connection for a lock"):
            control = self._connect()
        with closing(control):
            with self.reporting("a lock cannot be acquired"):
                [(is_locked,)] = control.rows(f"SELECT GET_LOCK({name}, {seconds})")
            if not is_locked:
                raise TimeoutError(f"{fingerprint}: locked for {seconds} s")
            yield

    def listed(self) -> list[RegistryRow]:
        """Return the registry's rows, the oldest database first."""
        with self.reporting("the databases cannot be listed"):
            return self.control.call(lambda control: _listed(control, self.name))

    # Drop

    def drop(self, *names: str) -> None:
        """Drop databases now and end their sessions. A later sweep drops what fails here."""
        for name in names:
            self._drop(name, self.control)

    def drop_later(self, name: str) -> None:
        """Drop a database in the background. ``close`` drops the remaining databases."""
        if self._is_closed or self._process != os.getpid():
            return
        self._plans.pop(name, None)
        self._dropping_thread.do(partial(self._drop, name, self._dropping_control))

    def _drop(self, name: str, control: MySQLControlLine) -> str:
        """Drop a database of this login that has a row. Return "", or why it failed."""
        quoted = literal(name)
        try:
            [*rows] = control.rows(
                f"SELECT kind FROM made WHERE name = {quoted} AND owner = CURRENT_USER()"
            )
            if not rows:
                return "no row of this login in the registry"
            self.end_sessions(name, control)
            control.run(f"DROP DATABASE IF EXISTS {identifier(name)}")
            control.run(
                f"DELETE FROM made WHERE name = {quoted}; "
                f"DELETE FROM used_by WHERE template = {quoted}"
            )
        except (MySQLFailure, ArenaError) as error:
            return str(error)
        self._databases.pop(name, None)
        return ""

    def end_sessions(self, name: str, control: MySQLControlLine | None = None) -> None:
        """End all sessions whose database this is. An open transaction would block a drop.

        Raises:
            MySQLFailure: the server does not answer, or refuses.
        """
        control = control or self.control
        for (pid,) in self.sessions(name, control):
            with suppress(MySQLFailure):  # the session has ended
                control.run(f"KILL {pid}")
        until(lambda: not self.sessions(name, control), within=_END_SECONDS)

    def sessions(
        self, name: str, control: MySQLControlLine | None = None
    ) -> list[tuple[int]]:
        """Return the ids of the sessions whose database this is, without this session."""
        control = control or self.control
        return control.rows(
            f"SELECT id FROM information_schema.processlist WHERE db = {literal(name)} "
            "AND id <> CONNECTION_ID() AND command <> 'Killed'"
        )

    # Sweep

    def sweep(self, *, everything: bool = False) -> list[str]:
        """Drop databases of dead runs, and old templates that no living run uses.

        With ``everything``, also drop all templates, kept databases, and the registry if it is then
        empty. Return the names. ``left`` gets the other databases, with reasons.

        Raises:
            MySQLFailure: the server does not answer, or refuses.
        """
        self.left = []
        dropped: list[str] = []
        for run in self._dead_runs():
            lock = self._lock_of(run)
            # With the lock of a dead run, only one process cleans up after the run.
            if self.control.rows(f"SELECT GET_LOCK({lock}, 0)") != [(1,)]:
                continue
            try:
                names = self.control.rows(f"SELECT name FROM made WHERE run = {run}")
                dropped += self._drop_all([name for (name,) in names])
                self._delete_run(run)
            finally:
                self.control.run(f"DO RELEASE_LOCK({lock})")
        dropped += self._drop_all(self._condemned(everything=everything))
        if everything:
            self._drop_registry()
        return dropped

    def _delete_run(self, run: int) -> None:
        """Delete the row of a run if no database of the run is left."""
        self.control.run(
            f"DELETE FROM used_by WHERE run = {run}; DELETE FROM run WHERE id = {run} "
            f"AND NOT EXISTS (SELECT 1 FROM made WHERE made.run = {run})"
        )

    def _dead_runs(self) -> list[int]:
        rows = self.control.rows(
            f"SELECT r.id FROM run r WHERE NOT ({_living(self.name)}) "
            "AND r.owner = CURRENT_USER()"
        )
        return [run for (run,) in rows if run != self._number]

    def _drop_all(self, names: list[str]) -> list[str]:
        dropped = []
        for name in names:
            reason = self._drop(name, self.control)
            if reason:
                self.left.append(f"{name}: {reason}")
            else:
                dropped.append(name)
        return dropped

    def _condemned(self, *, everything: bool) -> list[str]:
        """Condemn templates that no living run uses, and return them: the old ones, or all.

        This run then drops them.
        """
        which = "m.kind IN ('template', 'kept')"
        if not everything:
            which = (
                f"m.kind = 'template' AND (m.shelf LIKE '{OF_RUN}%' "
                f"OR m.used < UTC_TIMESTAMP() - INTERVAL {TEMPLATE_DAYS} DAY "
                "OR (m.title <> '' AND (SELECT COUNT(*) FROM made n WHERE n.kind = 'template' "
                "AND n.project = m.project AND n.title = m.title AND n.owner = m.owner "
                f"AND n.used > m.used) >= {TEMPLATES_STAY}))"
            )
        rows = self.control.rows(
            f"SELECT m.name FROM made m WHERE {which} AND m.owner = CURRENT_USER() "
            "AND NOT EXISTS (SELECT 1 FROM used_by u JOIN run r ON r.id = u.run "
            f"WHERE u.template = m.name AND {_living(self.name)})"
        )
        for (name,) in rows:
            # Another run may have begun to use the template. Its row in `used_by` decides.
            self.control.run(
                f"UPDATE made SET kind = 'condemned', run = {self._number} "
                f"WHERE name = {literal(name)} AND kind IN ('template', 'kept') "
                "AND NOT EXISTS (SELECT 1 FROM used_by u JOIN run r ON r.id = u.run "
                f"WHERE u.template = {literal(name)} AND {_living(self.name)})"
            )
        condemned = self.control.rows(
            f"SELECT name FROM made WHERE kind = 'condemned' AND run = {self._number}"
        )
        return [name for (name,) in condemned]

    def _drop_registry(self) -> None:
        """Drop the registry if it is empty. A later run creates it again."""
        [(number,)] = self.control.rows(
            "SELECT (SELECT COUNT(*) FROM made) + "
            f"(SELECT COUNT(*) FROM run WHERE id <> {self._number})"
        )
        if not number:
            self.control.run(f"DROP DATABASE {identifier(self.name)}")
            self._is_closed = True
            self.control.close()

    # End

    def close(self) -> int:
        """Drop this run's databases, except templates and kept databases, and end the run.

        After Ctrl-C this takes at most three seconds. Return the number of databases that are
        left. The next run drops them.
        """
        if self._is_closed or self._process != os.getpid():
            return 0
        patience = _END_SECONDS
        if interrupted.is_set():
            patience = _HURRIED_SECONDS
            for name in [*self._databases]:
                self.drop_later(name)
        self._is_closed = True
        self._dropping_thread.wait_for_jobs(patience)
        self._dropping_thread.close(0)
        with suppress(MySQLFailure, ArenaError):
            if not interrupted.is_set():
                self.drop(*[*self._databases])
                # Each process deletes its use first, so that the last one finds no use.
                self.control.run(f"DELETE FROM used_by WHERE run = {self._number}")
                self._drop_all(self._condemned(everything=False))
            self._delete_run(self._number)
        self.control.close()
        return len(self._databases)

    @contextmanager
    def reporting(self, what: str) -> Iterator[None]:
        """Turn a refusal of the server into an ``ArenaError`` that begins with ``what``."""
        try:
            yield
        except MySQLFailure as error:
            raise messages.failed(what, error, self._address, self._source) from error


def new_name(kind: str) -> str:
    """Return a new, unique name for a database."""
    return f"arena_{_KIND_IN_NAME.get(kind, kind)}_{secrets.token_hex(8)}"
