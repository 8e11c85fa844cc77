"""The databases on a server that are arena's own: made, frozen, kept, dropped, swept."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

import os
import secrets
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql import _clone_sql as clone_sql
from pytest_arena._postgresql._control import (
    ControlFailure,
    identifier,
    literal,
    open_control,
)
from pytest_arena._postgresql.registry import _registry_errors as messages
from pytest_arena._postgresql.registry._connection import (
    Background,
    ControlLine,
    at_once,
)
from pytest_arena._postgresql.registry._registry_run import (
    LIVING,
    REGISTRY,
    RUNS,
    TURNS,
    RegistryRun,
    state_of_registry,
)
from pytest_arena._process import seconds, until
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from datetime import datetime

    from pytest_arena._values import Address

__all__ = [
    "REGISTRY",
    "RegistryRow",
    "RegistryRows",
    "ServerRegistry",
    "look",
    "new_name",
]

KEPT_STAY = 20
TEMPLATE_DAYS, TEMPLATES_STAY = 14, 2
_END_SECONDS = 10.0
# Databases that are dropped at once, each by a connection of its own: a drop waits for a checkpoint
# of the server's, which syncs what is left of all the others. Together they wait for the same one.
_AT_ONCE = 8
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
_STRIKE_RUNS = f"""
WITH dead AS (DELETE FROM arena.run r WHERE owner = current_user AND id NOT IN ({LIVING})
    AND NOT EXISTS (SELECT FROM arena.database d WHERE d.run = r.id) RETURNING id)
DELETE FROM arena.use USING dead WHERE run = dead.id
"""


@dataclass(frozen=True, slots=True)
class RegistryRow:
    """A row of the registry. ``bytes`` is None where the database is gone or hidden from us."""

    name: str
    kind: str  # live, building, template, kept, condemned
    project: str
    host: str
    pid: int
    alive: bool  # whether the run that made it still goes on
    created: datetime
    used: datetime
    bytes: int | None
    owner: str
    title: str


@dataclass(frozen=True, slots=True)
class RegistryRows:
    """What a server's registry holds, and its own size: None where there is none."""

    databases: tuple[RegistryRow, ...] = ()
    bytes: int | None = None
    others: tuple[str, ...] = ()  # registries of other versions of arena


def look(address: Address, *, registry: str = REGISTRY) -> RegistryRows:
    """Read the registry of a server. Nothing is made or changed.

    Raises:
        ServerError: no server.
    """
    registries = (
        "SELECT datname::text FROM pg_database WHERE datname ^@ 'arena_registry'"
    )
    try:
        # Asked first: a login to a missing database fails in words that differ.
        with closing(open_control(address)) as control:
            own = f"{registries} OR datname = {literal(registry)}"
            there = {name for (name,) in control.rows(own)}
        others = tuple(sorted(there - {registry}))
        if registry not in there:
            return RegistryRows(others=others)
        with closing(open_control(replace(address, database=registry))) as control:
            if state_of_registry(control) != "made":
                # Somebody else's database of that name, or one that is being made.
                return RegistryRows(others=others)
            [(size,)] = control.rows("SELECT pg_database_size(current_database())")
            rows = tuple(RegistryRow(*row) for row in control.rows(_LISTED))
            return RegistryRows(rows, size, others)
    except ControlFailure as error:
        raise messages.failed(
            "arena's databases cannot be listed", error, address
        ) from error


class ServerRegistry:
    """The databases on a server that arena has made, and may drop.

    A small database, ``arena_registry_…``, has a row for each. It is committed before the database
    is created and deleted after it was dropped, so that nothing is ever judged by its name alone;
    what has no row, a row of another role's, or another owner is left alone. A run is alive while
    its control connection holds its advisory lock there.

    Beside the caller work two threads with a connection each: one makes clones ahead, one drops
    and sweeps. A forked child may ask, and leaves the rest to its parent.

    Raises:
        ServerError: no server, no right to create databases, or one that is too old.
    """

    def __init__(
        self,
        address: Address,
        *,
        project: str = "",
        registry: str = REGISTRY,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._address, self._process = address, os.getpid()
        self._run = RegistryRun(address, project, registry, tell)
        self.control = (
            self._run.line
        )  # for questions of one round trip; any thread may ask
        self.writes = self._run.writes
        self.left: list[str] = []  # what the last sweep left alone, and why
        self._is_closed = False
        self._ahead = ControlLine(self._run.connect)
        self._behind = ControlLine(self._run.connect)
        self._makes = Background(at_end=self._ahead.close)
        self._drops = Background(at_end=self._behind.close)
        self._waiting: list[str] = []  # to be dropped together
        with self.saying("arena's databases cannot be made"):
            if self.control.rows(_dead_ones(self._run.number)):
                self._drops.do(partial(self._sweep, self._behind))

    def address_of(self, name: str = "") -> Address:
        """Return how one logs in to a database; or to the registry, which is there all the time."""
        return replace(self._address, database=name or self._run.name)

    # Made

    def create(self, kind: str, *, template: str | None = None) -> str:
        """Make a database of a new, unique name: a copy of a template, or an empty one.

        Raises:
            IsolationError: no room, or somebody is connected to the template.
            ServerError: the server is gone, full of connections, or refuses.
        """
        return self._create(kind, template, self.control)

    def create_later(self, kind: str, *, template: str | None = None) -> Future[str]:
        """Make one in the background; it is cancelled where that has not begun in time."""
        return self._makes.do(partial(self._create, kind, template, self._ahead))

    def _create(self, kind: str, template: str | None, line: ControlLine) -> str:
        name = new_name(kind)
        with self.saying(f"no copy of {template}" if template else "no new database"):
            try:
                self._run.make(name, kind, template, line)
            except ControlFailure as error:
                self.drop_later(name)
                if template and error.sqlstate == "3D000":
                    raise messages.is_gone(template) from error
                raise
        return name

    # Frozen, and of another kind

    def freeze(self, name: str) -> None:
        """Let nobody in any more and end who is there: ready to be copied."""
        with self.saying(f"{name} cannot be frozen"):
            with self.writes.one():
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
        """Let everybody in again."""
        with self.saying(f"{name} cannot be opened"), self.writes.one():
            self.control.run(clone_sql.allow_connections(name, allowed=True))

    def finish_template(
        self, name: str, *, shelf: str, manifest: str, title: str = ""
    ) -> str:
        """Make a frozen database a template, all at once. Returns its name from now on.

        Of those of one project and title, the last two that were used stay.
        """
        final = new_name("template")
        columns = f"shelf = {literal(shelf)}, manifest = {literal(manifest)}"
        columns += f", title = {literal(title)}"
        with self.saying(f"{name} cannot be made a template"):
            self._rename(
                name, final, "WITH IS_TEMPLATE true", f"kind = 'template', {columns}"
            )
        self.used(final)
        return final

    def keep(self, name: str, title: str, *, called: str = "") -> str:
        """Keep a database for a look, whoever is connected to it. Returns its name from now on.

        The newest twenty stay. ``called`` is a name that ``new_name`` gave.
        """
        final = called or new_name("kept")
        self.freeze(name)
        with self.saying(f"{name} cannot be kept"):
            columns = f"kind = 'kept', title = {literal(title)}"
            self._rename(name, final, "WITH ALLOW_CONNECTIONS true", columns)
            # Should this run die before they are dropped, the next one drops them.
            old = self.control.rows(
                f"UPDATE arena.database SET kind = 'condemned', run = {self._run.number} "
                "WHERE name IN (SELECT name FROM arena.database WHERE kind = 'kept' "
                f"AND owner = current_user ORDER BY created DESC, name OFFSET {KEPT_STAY}) "
                "RETURNING name::text"
            )
        for (name_of_old,) in old:
            self.drop_later(name_of_old)
        return final

    def _rename(self, name: str, final: str, option: str, columns: str) -> None:
        """Make a frozen database of this run one of nobody's: all of it or nothing."""
        with self.writes.one():
            self.control.run(
                f"ALTER DATABASE {identifier(name)} RENAME TO {identifier(final)}; "
                f"ALTER DATABASE {identifier(final)} {option}; "
                f"UPDATE arena.database SET name = {literal(final)}, run = NULL, {columns}, "
                "created = clock_timestamp(), used = clock_timestamp() "
                f"WHERE name = {literal(name)} AND owner = current_user"
            )
        self._run.mine.pop(name, None)

    def templates(self, shelf: str) -> list[tuple[str, str]]:
        """Return names and manifests of the finished templates, the newest first."""
        question = (
            "SELECT d.name::text, d.manifest FROM arena.database d "
            "JOIN pg_database b ON b.datname = d.name "
            "WHERE d.kind = 'template' AND d.owner = current_user "
            f"AND d.shelf = {literal(shelf)} AND b.datistemplate AND NOT b.datallowconn "
            "ORDER BY d.created DESC, d.name"
        )
        with self.saying("the templates cannot be listed"):
            return [(name, manifest) for name, manifest in self.control.rows(question)]

    def used(self, name: str) -> None:
        """Say that this run uses a template: nobody collects it while the run lives."""
        which = f"WHERE name = {literal(name)} AND kind = 'template'"
        with self.saying(f"{name} cannot be used"):
            # In turns with whoever condemns it, so that one sees the other.
            self.control.run(
                f"SELECT pg_catalog.pg_advisory_xact_lock({TURNS}, 0); "
                f"UPDATE arena.database SET used = clock_timestamp() {which} "
                "AND owner = current_user; INSERT INTO arena.use (template, run) "
                f"SELECT name, {self._run.number} FROM arena.database {which} "
                "ON CONFLICT DO NOTHING"
            )

    @contextmanager
    def lock(self, shelf: str, *, seconds: float) -> Iterator[None]:
        """Hold a shelf for oneself, over threads, processes and machines.

        Raises:
            TimeoutError: somebody else has it all the time.
        """
        patience = max(1, round(seconds * 1000))
        shelf_lock = (
            f"SELECT pg_advisory_lock(hashtextextended({literal(shelf)}, {TURNS}))"
        )
        # By a connection of its own: whoever waits keeps nobody from asking, and what dies lets go.
        with self.saying("no connection for a lock"):
            control = self._run.connect(patience=self._address.patience)
        with closing(control):
            try:
                control.run(f"SET lock_timeout = {patience}; SET statement_timeout = 0")
                control.rows(shelf_lock)
            except ControlFailure as error:
                if error.sqlstate != "55P03":
                    raise self.failed("a lock cannot be had", error) from error
                raise TimeoutError(f"{shelf}: locked for {seconds:g} s") from error
            yield

    def listed(self) -> list[RegistryRow]:
        """Return all databases that have a row, the oldest first."""
        with self.saying("the databases cannot be listed"):
            return [RegistryRow(*row) for row in self.control.rows(_LISTED)]

    # Dropped

    def drop(self, *names: str) -> None:
        """Drop databases at once, whoever is connected. What fails is left to a later sweep."""
        self._drop(_called(names), self.control)

    def drop_later(self, name: str) -> None:
        """End who is connected to a database, in the background, and drop it there with others.

        What ``close`` comes before, it does itself.
        """
        self._drops.do(partial(self._drop_with_others, name))

    def rest(self, seconds: float = _END_SECONDS) -> bool:
        """Wait until the background has nothing left to do."""
        has_made = self._makes.rest(
            seconds
        )  # which may drop one that nobody wants any more
        self._drops.do(self._drop_with_others)
        return self._drops.rest(seconds) and has_made

    def _drop_with_others(self, *names: str) -> None:
        self._waiting += names
        if len(self._waiting) < _AT_ONCE and names:
            with suppress(ControlFailure, ArenaError):
                self._behind.rows(clone_sql.end_backends(names[0]))
        else:
            names, self._waiting = tuple(self._waiting), []
            self._drop(_called(names), self._behind)

    def _drop(self, which: str, line: ControlLine) -> list[str]:
        """Drop those of our rows ``d`` for which a condition holds, and return their names.

        ``left`` says of the rest why it was left.
        """
        rows: list[tuple[Any, ...]] = []
        with suppress(ControlFailure, ArenaError):  # they are swept by a later run
            rows = line.rows(
                "SELECT d.name::text, d.kind, b.oid IS NOT NULL, CASE WHEN d.kind = 'template' "
                "THEN 'a template, which is collected by its age alone' "
                "WHEN pg_get_userbyid(b.datdba) <> current_user "
                "THEN 'another role has become its owner' ELSE '' END "
                "FROM arena.database d LEFT JOIN pg_database b ON b.datname = d.name "
                f"WHERE d.owner = current_user AND {which}"
            )

        def drop(share: list[tuple[Any, ...]]) -> list[str]:
            with closing(ControlLine(self._run.connect)) as own:
                with suppress(
                    ControlFailure, ArenaError
                ):  # the server has no connection free
                    own.opened()
                free = own if own.is_open else line
                return [
                    row[0]
                    for row in share
                    if self._run.has_removed(row, free, self.left)
                ]

        shares = [rows[at::_AT_ONCE] for at in range(min(_AT_ONCE, len(rows)))]
        if len(shares) > 1:
            # RuntimeError: the interpreter ends, and starts no threads any more.
            with suppress(RuntimeError):
                return list(chain(*at_once([partial(drop, share) for share in shares])))
        return [row[0] for row in rows if self._run.has_removed(row, line, self.left)]

    # Swept

    def sweep(self, *, everything: bool = False) -> list[str]:
        """Drop what dead runs have left, and old templates that no living run uses.

        With ``everything``, all templates and kept databases too, and the registry where nothing
        is left in it. Returns the names; ``left`` says what was left alone, and why.
        """
        with self.saying("what dead runs have left cannot be swept"):
            return self._sweep(self.control, everything=everything)

    def _sweep(self, line: ControlLine, *, everything: bool = False) -> list[str]:
        mine = self._run.number
        rows = line.rows(_dead_ones(mine))
        self.left = [
            f"{name}: belongs to the role {role}"
            for _, name, role, our in rows
            if name and not our
        ]
        dropped: list[str] = []
        has_old = everything or any(run is None for run, *_ in rows)
        while has_old:  # what was derived from them is old by then
            line.run(_condemn(mine, everything=everything))
            gone = self._drop(f"d.run = {mine} AND d.kind = 'condemned'", line)
            dropped, has_old = dropped + gone, bool(gone)
        for dead in sorted(
            {run for run, _, _, our in rows if run not in (None, mine) and our}
        ):
            # One alone cleans up after a run, which cannot come back meanwhile.
            if line.rows(f"SELECT pg_try_advisory_lock({RUNS}, {dead})") != [(True,)]:
                continue
            try:
                dropped += self._drop(f"d.run = {dead}", line)
            finally:
                with suppress(ControlFailure):
                    line.rows(f"SELECT pg_advisory_unlock({RUNS}, {dead})")
        if rows or everything:
            line.run(_STRIKE_RUNS)
        if everything:
            self._drop_registry()
        return dropped

    def _drop_registry(self) -> None:
        """The next one who needs it makes it anew. Whoever else is connected keeps it."""
        self.rest()
        is_alone = (
            "SELECT NOT EXISTS (SELECT FROM arena.database) "
            f"AND NOT EXISTS (SELECT FROM arena.run WHERE id <> {self._run.number})"
        )
        if self.control.rows(is_alone) == [(True,)]:
            self._run.end()
            self._behind.close()
            self.control.close()
            with (
                closing(open_control(self._address)) as control,
                suppress(ControlFailure),
            ):
                control.run(f"DROP DATABASE {identifier(self._run.name)}")

    # The end

    def close(self, *, is_hurried: bool = False) -> int:
        """Drop what this run has made, templates and kept databases apart, and end the run.

        With ``is_hurried`` it takes three seconds at most: the user has pressed Ctrl-C, and a
        server that syncs takes seconds for each database. Return the number of databases that are
        left. The next run drops them.
        """
        if self._is_closed or self._process != os.getpid():
            return 0
        self._is_closed = True
        is_in_time = self._drop_within(_HURRIED_SECONDS) if is_hurried else True
        patience = _END_SECONDS if is_in_time else 0.0
        behind = {self._makes: self._ahead, self._drops: self._behind}
        ended = [line for thread, line in behind.items() if thread.close(patience)]
        with suppress(ControlFailure, ArenaError):
            # If neither holds, another run has swept the registry, and this run from it.
            if is_in_time and (self._run.mine or self.control.is_open):
                self.drop(*self._run.mine)
                self._run.end()
        for line in (*ended, self.control):
            line.close()
        return len(self._run.mine)

    def _drop_within(self, patience: float) -> bool:
        """Drop this run's databases in the background. Return whether it dropped all in time."""
        end = seconds() + patience
        # A copy that is being made has a row, and no database yet.
        if not self._makes.close(patience):
            return False
        self._drops.do(lambda: self._drop(_called([*self._run.mine]), self._behind))
        return self._drops.rest(max(end - seconds(), 0)) and not self._run.mine

    @contextmanager
    def saying(self, what: str) -> Iterator[None]:
        """Turn what the server refuses into an error of arena's that says what could not be."""
        try:
            yield
        except ControlFailure as error:
            raise self.failed(what, error) from error

    def failed(self, what: str, error: ControlFailure) -> ArenaError:
        """Return the error of arena's that says what could not be, for one of the server's."""
        return messages.failed(what, error, self._address)


# Templates that nobody has used for long; those with newer ones of their kind; and what was derived
# from one that is gone.
_OLD = f"""(d.used < clock_timestamp() - interval '{TEMPLATE_DAYS} days' OR d.name IN (
    SELECT o.name FROM (
        SELECT t.name, row_number() OVER (PARTITION BY project, title ORDER BY used DESC) AS place
        FROM arena.database t WHERE kind = 'template' AND title <> '' AND owner = current_user) o
    WHERE o.place > {TEMPLATES_STAY}) OR d.title ~ ' arena_template_' AND NOT EXISTS (
    SELECT FROM arena.database b WHERE b.name = substring(d.title, 'arena_template_[0-9a-f]+$')))"""


def _dead_ones(run: int) -> str:
    """Ask what is to be swept: runs (None for old templates), names, owners, whether ours.

    What this run has condemned and could not drop is among it, and so are runs without databases.
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
    """Hand templates that no living run uses to this run, to be dropped."""
    which = (
        "d.kind IN ('template', 'kept')"
        if everything
        else f"d.kind = 'template' AND {_OLD}"
    )
    return (
        f"SELECT pg_catalog.pg_advisory_xact_lock({TURNS}, 0); "
        f"UPDATE arena.database d SET kind = 'condemned', run = {run} "
        f"WHERE {which} AND owner = current_user AND NOT EXISTS "
        f"(SELECT FROM arena.use u WHERE u.template = d.name AND u.run IN ({LIVING}))"
    )


def _called(names: Iterable[str]) -> str:
    return f"d.name = ANY (ARRAY[{', '.join(map(literal, names))}]::name[])"


def new_name(kind: str) -> str:
    """Return a name that nothing has, had or will have."""
    return f"arena_{kind}_{secrets.token_hex(8)}"
