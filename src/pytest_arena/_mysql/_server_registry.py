"""Creates, copies, lists and drops pytest-arena's databases on a server."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

import os
import re
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
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
from pytest_arena._mysql._tables import LABEL
from pytest_arena._process import interrupted, until
from pytest_arena._product import OF_RUN, discard
from pytest_arena._product._background import Background
from pytest_arena._product._own_databases import (
    Label,
    Names,
    OwnDatabase,
    owner_of,
    read_label,
    unused,
)
from pytest_arena._product._server_errors import template_is_gone
from pytest_arena._product._server_templates import now
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_arena._mysql._clone import CopyPlan
    from pytest_arena._mysql._control import MySQLControl
    from pytest_arena._values import Address

_DAY = 86400.0
_END_SECONDS = 10.0
_HURRIED_SECONDS = 3.0
_SLOTS = 64  # processes that hold a lock at the same time
_AT_ONCE = 100  # tables in one statement


def look(address: Address) -> list[OwnDatabase]:
    """Return pytest-arena's databases on a server, without changing it.

    Raises:
        ServerError: no server answers, or it refuses.
    """
    try:
        with closing(open_control(replace(address, database=""))) as control:
            sizes = dict(
                control.rows(
                    "SELECT table_schema, SUM(data_length + index_length) "
                    "FROM information_schema.tables WHERE table_schema LIKE 'arena\\_%' "
                    "GROUP BY table_schema"
                )
            )
            return [
                replace(database, bytes=int(sizes.get(database.name) or 0))
                for database in _listed(control)
            ]
    except MySQLFailure as error:
        raise messages.failed(
            "pytest-arena's databases cannot be listed", error, address
        ) from error


def _listed(control: MySQLControl | MySQLControlLine) -> list[OwnDatabase]:
    rows = control.rows("SHOW DATABASES LIKE 'arena\\_%'")
    owners = {name: owner for (name,) in rows if (owner := owner_of(name)) is not None}
    processes = {
        f"{owner.session}_{owner.process}"
        for owner in owners.values()
        if owner.process and owner.kind != "kept"
    }
    alive = _held(control, processes, slots=1)
    templates = {
        name for name, owner in owners.items() if owner.kind in {"template", "seeded"}
    }
    used = _held(control, templates, slots=_SLOTS)
    of_runs = {owner.session for owner in owners.values() if owner.kind == "seeded"}
    sessions = _held(control, of_runs, slots=_SLOTS)
    labels = _labels(control)
    return [
        OwnDatabase(
            name=name,
            label=labels.get(name),
            is_in_use=name in used
            or (owner.kind != "kept" and f"{owner.session}_{owner.process}" in alive)
            or (owner.kind == "seeded" and owner.session in sessions),
        )
        for name, owner in sorted(owners.items())
    ]


def _held(
    control: MySQLControl | MySQLControlLine, locks: Iterable[str], *, slots: int
) -> set[str]:
    """Return the locks of which a session holds a slot."""
    names = sorted(locks)
    held: set[str] = set()
    for start in range(0, len(names), _AT_ONCE):
        questions = []
        for name in names[start : start + _AT_ONCE]:
            users = [f"IS_USED_LOCK({literal(_slot(name, n))})" for n in range(slots)]
            questions.append(
                f"SELECT {literal(name)}, COALESCE({', '.join(users)}, NULL)"
            )
        rows = control.rows(" UNION ALL ".join(questions))
        held |= {name for name, session in rows if session is not None}
    return held


def _slot(name: str, number: int) -> str:
    """Return the name of a lock. The server has no shared locks, so each holder has a slot."""
    return f"{name}.{number}" if number else name


def _labels(control: MySQLControl | MySQLControlLine) -> dict[str, Label]:
    rows = control.rows(
        "SELECT table_schema FROM information_schema.tables "
        f"WHERE table_name = '{LABEL}' AND table_schema LIKE 'arena\\_%'"
    )
    labels = {}
    for (name,) in rows:
        label = _read_label(control, name)
        if label is not None:
            labels[name] = label
    return labels


def _read_label(control: MySQLControl | MySQLControlLine, name: str) -> Label | None:
    try:
        rows = control.rows(f"SELECT label FROM {identifier(name)}.{LABEL}")
    except MySQLFailure as error:
        if error.is_lost:
            raise
        return None  # it does not exist, or is not finished
    return read_label(rows[0][0]) if rows else None


def _writing(name: str, label: Label) -> str:
    """Write the statements that label a database."""
    place = f"{identifier(name)}.{LABEL}"
    return (
        f"CREATE TABLE IF NOT EXISTS {place} (id INT PRIMARY KEY, label LONGTEXT) "
        "ENGINE = InnoDB CHARACTER SET utf8mb4; "
        f"REPLACE INTO {place} VALUES (1, {literal(label.text())})"
    )


class MySQLRegistry:
    """The databases on a server that pytest-arena has created and may drop.

    Their names say to whom they belong (``_own_databases``). A process is alive while its control
    connection holds its named lock. A table of a template or a kept database has its label.

    A background thread with a separate connection drops databases.

    Raises:
        ServerError: no server answers, or the login may not create databases.
    """

    def __init__(
        self,
        address: Address,
        *,
        project: str = "",
        note: Callable[[str], None] = discard,
        source: str = "",
    ) -> None:
        self._source = source  # the place of the option that names the server
        self.note = note
        # The databases that the last sweep did not drop, and why.
        self.left: dict[str, str] = {}
        self._address = replace(address, database="")
        self._project = project
        self._process = os.getpid()
        self.names = Names()
        self.databases: set[str] = set()  # of this process
        self._used: set[str] = set()
        self._labels: dict[str, Label] = {}
        self._plans: dict[str, CopyPlan] = {}
        self._is_closed = False
        self.control = MySQLControlLine(self._connect_as_process)
        self._dropping_control = MySQLControlLine(self._connect)
        self._dropping_thread = Background(at_end=self._dropping_control.close)
        with self.reporting("pytest-arena's databases cannot be created"):
            if unused(_listed(self.control), now()):
                self._dropping_thread.do(partial(self._sweep, self._dropping_control))

    def address_of(self, name: str = "") -> Address:
        """Return the address of a database, without a name that of the server."""
        return replace(self._address, database=name)

    # Connect

    def _connect(self) -> MySQLControl:
        return open_control(self._address, patience=self._address.patience)

    def _connect_as_process(self) -> MySQLControl:
        """Connect, and take the locks of this process, also again after a lost connection."""
        control = self._connect()
        if self._process != os.getpid():
            return control  # a forked child only reads
        try:
            for name in (self.names.lock, self.names.session, *self._used):
                self._hold(control, name)
        except BaseException:
            control.close()
            raise
        return control

    def _hold(self, control: MySQLControl | MySQLControlLine, name: str) -> None:
        """Take the first free slot of a lock, until the connection ends."""
        for number in range(_SLOTS):
            lock = literal(_slot(name, number))
            if control.rows(f"SELECT GET_LOCK({lock}, 0)") == [(1,)]:
                return

    # Create

    def create(self, kind: str, *, template: str | None = None) -> str:
        """Create a copy of a template, or an empty database. Return its new, unique name.

        Raises:
            IsolationError: the disk is full, or the template was dropped.
            ServerError: the server does not answer, has no free connection, or refuses.
        """
        name = self.names.new(kind)
        what = f"no copy of {template}" if template else "no new database"
        self.databases.add(name)
        try:
            with self.reporting(what):
                self._copy(template, name)
        except BaseException:
            self.drop_later(name)
            raise
        return name

    def _copy(self, source: str | None, name: str) -> None:
        plan = self.plan_of(source)

        def copy(control: MySQLControl) -> None:
            try:
                plan.run(control, name)
            finally:
                # The drop of a database ends the sessions in it.
                with suppress(MySQLFailure):
                    control.run("USE information_schema")

        self.control.call(copy)

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
        """Copy a database to the name of its template. The label is written last.

        A database cannot be renamed.
        """
        final = self._template(fingerprint)
        label = self._label(title, manifest, base=_base_of(fingerprint))
        with self.reporting(f"{name} cannot be made a template"):
            self._plans.pop(final, None)
            self._copy(name, final)
            self.control.run(_writing(final, label))
        self._labels[final] = label
        self.drop_later(name)
        self.used(final)
        return final

    def keep(self, name: str, title: str) -> None:
        """Keep a database for inspection. The newest twenty kept databases stay."""
        with self.reporting(f"{name} cannot be kept"):
            self.control.run(_writing(name, self._label(title)))
        self.databases.discard(name)
        self._dropping_thread.do(partial(self._sweep, self._dropping_control))

    def _label(self, title: str, manifest: str = "", *, base: str = "") -> Label:
        moment = now()
        return Label(self._project, title, moment, moment, manifest, base)

    def _template(self, fingerprint: str) -> str:
        """Return the name of the template with a fingerprint. Each login has its own templates."""
        base = _base_of(fingerprint)
        of_base = self._labels[base].created if base in self._labels else ""
        is_of_run = fingerprint.startswith(OF_RUN) or base.startswith("arena_seeded_")
        recipe = f"{self._address.user} {fingerprint} {of_base}"
        return self.names.template(recipe, is_of_run=is_of_run)

    def templates(self, fingerprint: str) -> list[tuple[str, str]]:
        """Return the name and the manifest of the finished template, if it exists."""
        name = self._template(fingerprint)
        with self.reporting("the templates cannot be listed"):
            label = _read_label(self.control, name)
        if label is None:
            return []
        self._labels[name] = label
        return [(name, label.manifest)]

    def used(self, name: str) -> None:
        """Record that this process uses a template, so that no sweep drops it meanwhile."""
        label = self._labels.get(name)
        with self.reporting(f"{name} cannot be used"):
            if name not in self._used:
                self._hold(self.control, name)
                self._used.add(name)
            if label is not None and now() - label.used > _DAY:
                self._labels[name] = replace(label, used=now())
                self.control.run(_writing(name, self._labels[name]))

    @contextmanager
    def lock(self, fingerprint: str, *, seconds: int) -> Iterator[None]:
        """Hold the lock of a fingerprint, which excludes all threads, processes and machines.

        Raises:
            TimeoutError: another process has not released the lock in time.
        """
        name = literal(f"arena.{fingerprint}"[:64])
        # A separate connection, so that waiting blocks no other statement.
        with self.reporting("no connection for a lock"):
            control = self._connect()
        with closing(control):
            with self.reporting("a lock cannot be acquired"):
                [(is_locked,)] = control.rows(f"SELECT GET_LOCK({name}, {seconds})")
            if not is_locked:
                raise TimeoutError(f"{fingerprint}: locked for {seconds} s")
            yield

    def listed(self) -> list[OwnDatabase]:
        """Return pytest-arena's databases on the server."""
        with self.reporting("the databases cannot be listed"):
            return _listed(self.control)

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

    def _drop(self, name: str, control: MySQLControlLine) -> bool:
        """Drop a database with a name of pytest-arena. Return whether it is gone."""
        if owner_of(name) is None:
            return False
        try:
            self.end_sessions(name, control)
            control.run(f"DROP DATABASE IF EXISTS {identifier(name)}")
        except (MySQLFailure, ArenaError) as error:
            self.left[name] = str(error)
            return False
        self.databases.discard(name)
        return True

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
        """Drop databases of dead processes, and old templates that no living process uses.

        With ``everything``, also drop all templates and kept databases. Return the names. ``left``
        gets the other databases, with reasons.
        """
        with self.reporting("databases of dead runs cannot be dropped"):
            return self._sweep(self.control, everything=everything)

    def _sweep(
        self, control: MySQLControlLine, *, everything: bool = False
    ) -> list[str]:
        self.left = {}
        dropped: list[str] = []
        # After the drop of a template, the templates that were derived from it are old, too.
        while True:
            old = unused(_listed(control), now(), everything=everything)
            names = {database.name for database in old} - set(self.left)
            if not names:
                return dropped
            dropped += [name for name in sorted(names) if self._drop(name, control)]

    # End

    def rest(self) -> None:
        """Wait until the background thread has done its jobs."""
        self._dropping_thread.wait_for_jobs(_END_SECONDS)

    def close(self) -> int:
        """Drop this process's databases. The last process of a run also drops its templates.

        After Ctrl-C this takes at most three seconds. Return the number of databases that are
        left. The next run drops them.
        """
        if self._is_closed or self._process != os.getpid():
            return 0
        patience = _END_SECONDS
        if interrupted.is_set():
            patience = _HURRIED_SECONDS
            for name in [*self.databases]:
                self.drop_later(name)
        self._is_closed = True
        self._dropping_thread.wait_for_jobs(patience)
        self._dropping_thread.close(0)
        if not interrupted.is_set() and self.control.is_open:
            with suppress(MySQLFailure, ArenaError):
                self.drop(*[*self.databases])
                # This process has ended for others, and for the sweep.
                self.control.run("DO RELEASE_ALL_LOCKS()")
                self._sweep(self.control)
        self.control.close()
        return len(self.databases)

    @contextmanager
    def reporting(self, what: str) -> Iterator[None]:
        """Turn a refusal of the server into an ``ArenaError`` that begins with ``what``."""
        try:
            yield
        except MySQLFailure as error:
            raise messages.failed(what, error, self._address, self._source) from error


def _base_of(fingerprint: str) -> str:
    """Return the template from which a template is derived, "" for a template of a recipe."""
    base = re.search(r"arena_(?:template|seeded)_[0-9a-f_]+\Z", fingerprint)
    return base[0] if base else ""
