"""The databases on a server that arena has made: made, frozen, kept, dropped, swept."""

from __future__ import annotations

import os
import secrets
import threading
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_arena import _clock
from pytest_arena._postgresql import _clone_sql as clone_sql
from pytest_arena._postgresql import _registry_sql as sql
from pytest_arena._postgresql._control import Failed, open_control
from pytest_arena._postgresql.registry import _messages as messages
from pytest_arena._postgresql.registry._background import Background
from pytest_arena._postgresql.registry._connection import Line
from pytest_arena._postgresql.registry._copying import Copying
from pytest_arena._postgresql.registry._run import Registry
from pytest_arena._postgresql.registry._taking import Taking
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from pytest_arena._postgresql._control import Control
    from pytest_arena._values import Address

__all__ = ["RegistryRow", "ServerRegistry", "new_name"]

KEPT_STAY = 20
TEMPLATE_DAYS = 14
_END_SECONDS = 10.0
_AT_ONCE = 6  # connections that drop what is left at the end
_LEAVE_SECONDS, _LEAVE_STEP = 5.0, 0.001
# Of what dead runs have left: what a living run may take over, and what one that comes may.
_WANTED, _OFFERED = "wanted", "offered"


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


class ServerRegistry:
    """The databases on a server that arena has made, and may drop.

    A small database, ``arena_registry``, has a row for each. It is committed before the database
    is created and deleted after it was dropped, so that nothing is ever judged by its name alone;
    what has no row, a row of another role's, or another owner is left alone. A run is alive while
    its control connection holds its advisory lock there.

    Beside the caller works one thread with a connection of its own: it drops, sweeps and makes
    clones ahead. A forked child may ask, and leaves the rest to its parent.

    Raises:
        ServerError: no server, no right to create databases, or one that is too old.
    """

    def __init__(
        self, address: Address, *, project: str = "", registry: str = sql.REGISTRY
    ) -> None:
        self._address, self._process = address, os.getpid()
        self._registry = Registry(address, project, name=registry)
        self.writes = self._registry.writes
        self.notes: list[str] = []  # what failed in the background, for whoever wants to know
        self.left: list[str] = []  # what the last sweep left alone, and why
        self._is_closed = False
        self._chores = Background(self._note_failure)
        self._behind = Line(self._registry.connect)
        with self.saying("arena's databases cannot be made"):
            found = self._registry.line.rows(sql.dead_ones(TEMPLATE_DAYS, self._registry.run))
        self._copying = Copying(self._registry, address)
        self._taking = Taking(self._registry, self._copying, freeze=self.freeze)
        self._taking.left = sum(bool(claim) for *_, claim in found)
        if len(found) > self._taking.left:
            self._sweep_later(spare=(_WANTED, _OFFERED))

    def _sweep_later(self, *, spare: tuple[str, ...]) -> None:
        self._chores.do(partial(self._sweep, self._behind, spare=spare))

    @property
    def control(self) -> Control:
        """For questions of one round trip; any thread may ask."""
        return self._registry.line

    @property
    def times(self) -> int:
        """How often the control connection was made: the server may have crashed in between."""
        return self._registry.line.times

    @property
    def version(self) -> int:
        """``server_version_num``."""
        return self._registry.version

    @property
    def inside(self) -> Address:
        """How one logs in to the registry, which is there as long as the run."""
        return self.address_of(self._registry.name)

    def address_of(self, name: str) -> Address:
        """Return how one logs in to a database."""
        return replace(self._address, database=name)

    def create(self, kind: str, *, template: str | None = None) -> str:
        """Make a database of a new, unique name: a copy of a template, or an empty one.

        Raises:
            IsolationError: no room, or somebody is connected to the template.
            ServerError: the server is gone, full of connections, or refuses.
        """
        return self._create(kind, template, self._registry.line)

    def create_later(self, kind: str, *, template: str | None = None) -> Future[str]:
        """Make one in the background; it is cancelled where that has not begun in time."""
        future: Future[str] = Future()

        def make() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(self._create(kind, template, self._behind))
                except BaseException as error:  # noqa: BLE001 - whoever waits for it is told
                    future.set_exception(error)

        if self._is_closed or not self._chores.do(make, urgent=True):
            future.cancel()
        return future

    def _create(self, kind: str, template: str | None, line: Line) -> str:
        name = new_name(kind)
        with self.saying(f"no copy of {template}" if template else "no new database"):
            self._registry.note(name, kind, line)
            try:
                self._copying.make(name, template, line)
            except Failed as error:
                self.drop_later(name)
                if template and error.sqlstate == "3D000":
                    raise messages.is_gone(template) from error
                raise
        return name

    def take_over(self, template: str) -> str | None:
        """Go on with a live database that a dead run has made from a template, if there is one.

        It has a new name, and nobody is connected; what the dead run has written is still in it.
        One run alone gets it. Nothing is asked where no dead run has left any.
        """
        name, called, is_fit = "", new_name("live"), False
        try:
            name = self._taking.claim(template)
            is_fit = bool(name) and self._taking.moved(name, template, called)
        except (Failed, ArenaError) as error:  # a new one does as well
            self._note_failure(error)
        if name and not is_fit:
            self.drop_later(name)
        if self._taking.has_more(besides=bool(name)):
            # What is left of the same template may be another worker's next.
            self._sweep_later(spare=(_WANTED,))
        return called if is_fit else None

    def offer(self, name: str, template: str) -> None:
        """Let a later run take over a live database, should this one be killed.

        Whoever offers it can bring it back to the template, whatever was written to it.
        """
        with self.saying(f"{name} cannot be offered"):
            self._taking.offer(name, template)

    def withdraw(self, name: str) -> None:
        """Let nobody take over a live database any more: it has become another one."""
        with self.saying(f"{name} cannot be withdrawn"):
            self._taking.withdraw(name)

    def freeze(self, name: str) -> None:
        """Let nobody in any more and end who is there: ready to be copied."""
        with self.saying(f"{name} cannot be frozen"):
            self._allow(name, allowed=False)
            self._empty(name)

    def thaw(self, name: str) -> None:
        """Let everybody in again."""
        with self.saying(f"{name} cannot be opened"):
            self._allow(name, allowed=True)

    def _allow(self, name: str, *, allowed: bool) -> None:
        with self.writes.one():
            self.control.run(clone_sql.allow_connections(name, allowed=allowed))

    def _empty(self, name: str) -> None:
        end, step = _clock.seconds() + _LEAVE_SECONDS, _LEAVE_STEP
        while self.control.rows(clone_sql.end_backends(name)):
            if _clock.seconds() > end:
                raise Failed(f"{self._who_is_in(name)} did not end", "55006")
            _clock.rest(step)
            step = min(step * 2, 0.05)

    def _who_is_in(self, name: str) -> str:
        found = self.control.rows(clone_sql.backends(name))
        return ", ".join(f"{pid} ({role} {program})" for pid, role, program in found)

    def finish_template(self, name: str, *, shelf: str, manifest: str) -> str:
        """Make a frozen database a template, all at once. Returns its name from now on."""
        final = new_name("template")
        with self.saying(f"{name} cannot be made a template"), self.writes.one():
            self.control.run(sql.finish(name, final, shelf, manifest))
        self._registry.let_go(name)
        self.used(final)
        return final

    def templates(self, shelf: str) -> list[tuple[str, str]]:
        """Return names and manifests of the finished templates, the newest first."""
        with self.saying("the templates cannot be listed"):
            return [(name, text) for name, text in self.control.rows(sql.templates(shelf))]

    def used(self, name: str) -> None:
        """Say that this run uses a template: nobody collects it while the run lives."""
        self._registry.uses.add(name)
        with self.saying(f"{name} cannot be used"):
            self.control.run(sql.begin_use(name, self._registry.run))

    def keep(self, name: str, title: str, *, called: str = "") -> str:
        """Keep a database for a look, whoever is connected to it. Returns its name from now on.

        The newest twenty stay. ``called`` is a name that ``new_name`` gave.
        """
        final = called or new_name("kept")
        with self.saying(f"{name} cannot be kept"):
            self._allow(name, allowed=False)
            self._empty(name)
            with self.writes.one():
                self.control.run(sql.keep(name, final, title))
            self._registry.let_go(name)
            old = self.control.rows(sql.kept_too_many(KEPT_STAY))
        for (one,) in old:
            self.drop_later(one)
        return final

    def drop(self, *names: str) -> None:
        """Drop databases at once, whoever is connected. What fails is left to a later sweep."""
        self._drop(list(names), self._registry.line)

    def drop_later(self, name: str) -> None:
        """Drop a database in the background; what ``close`` comes before, it does itself."""
        self._chores.do(partial(self._drop, [name], self._behind))

    def rest(self, seconds: float = _END_SECONDS) -> bool:
        """Wait until the background has nothing left to do."""
        return self._chores.rest(seconds)

    def _drop(self, names: list[str], line: Line) -> list[str]:
        if not names:
            return []
        try:
            found = line.rows(sql.owned(names))
        except (Failed, ArenaError) as error:
            self._note_failure(error)
            return []
        return [row[0] for row in found if self._is_dropped(row, line)]

    def _is_dropped(self, row: tuple[Any, ...], line: Line) -> bool:
        name, kind, is_there, is_ours = row
        if kind == "template":
            self.left.append(f"{name}: a template, which is collected by its age alone")
        elif is_there and not is_ours:
            self.left.append(f"{name}: another role has become its owner")
        else:
            try:
                self._copying.remove(
                    name, line, is_there=is_there, is_condemned=kind == "condemned"
                )
            except (Failed, ArenaError) as error:
                self.left.append(f"{name}: {error}")
            else:
                return True
        return False

    @contextmanager
    def lock(self, shelf: str, *, seconds: float) -> Iterator[None]:
        """Hold a shelf for oneself, over threads, processes and machines.

        Raises:
            TimeoutError: somebody else has it all the time.
        """
        with self.saying("no connection for a lock"):
            control = self._registry.connect()
        # By a connection of its own: whoever waits keeps nobody from asking, and what dies lets go.
        with closing(control):
            with self.saying("a lock cannot be had"):
                _wait_for(control, shelf, seconds)
            yield

    def listed(self) -> list[RegistryRow]:
        """Return all databases that have a row, the oldest first."""
        with self.saying("the databases cannot be listed"):
            return [RegistryRow(*row) for row in self.control.rows(sql.listed())]

    def sweep(self, *, everything: bool = False) -> list[str]:
        """Drop what dead runs have left, and old templates that no living run uses.

        With ``everything``, all templates and kept databases too, and the registry where nothing
        is left in it. Returns the names; ``left`` says what was left alone, and why.
        """
        with self.saying("what dead runs have left cannot be swept"):
            return self._sweep(self._registry.line, everything=everything)

    def _sweep(
        self, line: Line, *, everything: bool = False, spare: tuple[str, ...] = ()
    ) -> list[str]:
        self.left = []
        mine = self._registry.run
        rows = line.rows(sql.dead_ones(TEMPLATE_DAYS, mine))
        found = [row[:4] for row in rows if row[4] not in spare]
        if not found and not everything:
            return []
        self.left += [
            f"{name}: belongs to the role {owner}"
            for _, name, owner, our in found
            if name and not our
        ]
        dropped = []
        if everything or any(run is None for run, *_ in found):
            line.run(sql.condemn(None if everything else TEMPLATE_DAYS, mine))
            condemned = line.rows(sql.condemned(mine))
            dropped += self._drop([name for (name,) in condemned], line)
        for dead in sorted({run for run, _, _, our in found if run not in (None, mine) and our}):
            names = [name for run, name, _, our in found if run == dead and name and our]
            dropped += self._cleaned_up(dead, names, line)
        line.run(sql.strike_runs())
        if everything:
            self._drop_registry()
        return dropped

    def _cleaned_up(self, dead: int, names: list[str], line: Line) -> list[str]:
        """One alone cleans up after a run, which cannot come back meanwhile."""
        if line.rows(sql.take_run(dead)) != [(True,)]:
            return []
        try:
            still = {name for (name,) in line.rows(sql.names_of(dead))}  # or taken over meanwhile
            return self._drop([name for name in names if name in still], line)
        finally:
            with suppress(Failed):
                line.rows(sql.free_run(dead))

    def _drop_registry(self) -> None:
        """The next one who needs it makes it anew. Whoever else is connected keeps it."""
        self.rest()
        line = self._registry.line
        if line.rows(sql.is_alone(self._registry.run)) != [(True,)]:
            return
        line.run(sql.end_run(self._registry.run))
        self._behind.close()
        line.close()
        with closing(open_control(self._address)) as control, suppress(Failed):
            control.run(sql.drop_registry(self._registry.name))

    def close(self) -> None:
        """Drop what this run has made, templates and kept databases apart, and end the run."""
        if self._is_closed or self._process != os.getpid():
            return
        self._is_closed = True
        has_ended = self._chores.close(_END_SECONDS)
        with suppress(Failed, ArenaError):
            self._end_run()
        if has_ended:
            self._behind.close()
        self._registry.line.close()

    def _end_run(self) -> None:
        mine = self._registry.names()
        if mine or self._registry.line.is_open:  # else the registry was swept, this run included
            self._drop_together(mine)
            self._drop(self._registry.names(), self._registry.line)
            if self._taking.left:
                self._sweep(self._registry.line)  # what nobody has taken over
            self._registry.line.run(sql.end_run(self._registry.run))

    def _drop_together(self, names: list[str]) -> None:
        """Each drop waits for a checkpoint of the server's: several wait for the same one."""
        shares = [names[at::_AT_ONCE] for at in range(_AT_ONCE)]
        threads = [
            threading.Thread(target=self._drop_share, args=(share,), daemon=True)
            for share in shares
            if share
        ]
        with suppress(RuntimeError):  # the interpreter ends, and starts no threads any more
            for thread in threads if len(names) > 1 else []:
                thread.start()
        for thread in threads:
            if thread.ident is not None:
                thread.join(_END_SECONDS)

    def _drop_share(self, names: list[str]) -> None:
        line = Line(self._registry.connect)
        self._drop(names, line)
        line.close()

    def _note_failure(self, error: BaseException) -> None:
        self.notes.append(f"{type(error).__name__}: {error}")

    @contextmanager
    def saying(self, what: str) -> Iterator[None]:
        """Turn what the server refuses into an error of arena's that says what could not be."""
        try:
            yield
        except Failed as error:
            raise messages.failed(what, error, self._address) from error


def new_name(kind: str) -> str:
    """Return a name that nothing has, had or will have."""
    return f"arena_{kind}_{secrets.token_hex(8)}"


def _wait_for(control: Control, shelf: str, seconds: float) -> None:
    control.run(sql.shelf_lock_patience(seconds))
    try:
        control.rows(sql.shelf_lock(shelf))
    except Failed as error:
        if error.sqlstate != "55P03":
            raise
        raise TimeoutError(f"{shelf}: locked for {seconds:g} s") from error
