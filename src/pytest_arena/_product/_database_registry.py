"""Creates, lists and drops pytest-arena's databases on a server.

A product writes the statements. Which database belongs to whom is decided here, by names and locks.
"""

from __future__ import annotations

import os
import re
import threading
from abc import abstractmethod
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from queue import Queue
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from sqlalchemy.engine import URL

from pytest_arena._process import interrupted
from pytest_arena._product import (
    CROWDED,
    FEWER_CONNECTIONS,
    OF_RUN,
    ConnectTarget,
    Key,
    Template,
    TemplateStore,
    nothing,
    read_manifest,
)
from pytest_arena._product._own_databases import (
    Names,
    OwnDatabase,
    SweepResult,
    locks_of,
    now,
    parts_of,
    unused,
)
from pytest_arena._product._server_control import Control, ServerFailure
from pytest_arena.errors import ArenaError, ServerError, TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy.engine import Dialect

    from pytest_arena._process import Answer
    from pytest_arena._product import BuildTarget, Manifest
    from pytest_arena._values import Address

# Longer than a build takes. The lock of a dead process ends at once.
LOCK_SECONDS = 600.0
_END_SECONDS = 60.0  # a server with fsync takes seconds for each drop
_HURRIED_SECONDS = 3.0


class Background:
    """A thread that runs jobs one after the other, until ``close``."""

    def __init__(self) -> None:
        self._jobs: Queue[tuple[Future[Any], Callable[[], Any]] | None] = Queue()
        # A daemon thread does not keep the process alive if the server hangs.
        self._thread = threading.Thread(
            target=self._work, name="pytest-arena-background", daemon=True
        )
        self._thread.start()

    def do(self, job: Callable[[], Answer]) -> Future[Answer]:
        """Add a job. After ``close`` no job is run."""
        future: Future[Answer] = Future()
        self._jobs.put((future, job))
        return future

    def close(self, seconds: float) -> bool:
        """Let the thread end after its jobs, and wait for that. Return whether it has ended."""
        self._jobs.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # noqa: BLE001 - the future raises it
                    future.set_exception(error)


@dataclass(frozen=True, slots=True)
class ServerBuild:
    """The database that a build fills, by the app's drivers."""

    registry: DatabaseRegistry
    address: Address
    sync_url: URL | None  # None with asyncpg
    async_url: URL

    @property
    def connect_target(self) -> ConnectTarget:
        """The target of connections during the build, with a unique key."""
        name = f"{self.address.server}/{self.address.database}"
        return ConnectTarget(Key("building", name), "", (0, 0), self.address)

    def remove(self) -> None:
        """Drop the database, even if a client is connected."""
        self.registry.drop(self.address.database)


class DatabaseRegistry(TemplateStore):
    """The databases on a server that pytest-arena has created and may drop, and its templates.

    Their names say to whom they belong (``_own_databases``). A process is alive while its control
    connection holds its lock. Only databases with such a name that the login owns are dropped.

    A thread with another connection makes copies ahead and drops. A forked child may only
    read.
    """

    product: ClassVar[str]
    question: ClassVar[str]
    """The query for properties of the server that each new database has."""
    give_rights: ClassVar[str]
    """The statement that gives a login the right to create databases."""
    another: ClassVar[str]
    """How a run names another server."""
    socket: ClassVar[str]
    """The name of the socket in the query of a URL."""
    host_of_socket = ""

    def __init__(self, address: Address, *, sweeps: bool = True) -> None:
        self._address = address
        self._process = os.getpid()
        self.names = Names()
        self.databases: set[str] = set()  # of this process
        self._manifests: dict[str, Manifest] = {}
        self._used: set[str] = set()
        self._is_closed = False
        self._sweeps = sweeps
        self.control = self._control(self._take_locks)
        self._other_control = self._control()
        self._thread = Background()

    # The statements of a product

    @abstractmethod
    def _control(self, set_up: Callable[[Control], object] = nothing) -> Control:
        """Return a connection to the server, with the settings of a session."""

    @abstractmethod
    def _hold(self, control: Control, name: str) -> None:
        """Take a lock until the connection ends. Other processes may hold it at the same time."""

    @abstractmethod
    def _release(self, control: Control) -> None:
        """Release all locks of the connection."""

    @abstractmethod
    def _acquire(self, control: Control, name: str, seconds: float) -> bool:
        """Take a lock that excludes others. Return whether it was free in time."""

    @abstractmethod
    def _held(self, control: Control, names: Iterable[str]) -> set[str]:
        """Return which locks are held."""

    @abstractmethod
    def _describe(self, control: Control) -> list[OwnDatabase]:
        """Return the databases whose names begin with ``arena_``."""

    @classmethod
    def url_of(cls, address: Address, dialect: str, driver: str) -> URL:
        """Return the URL of a database for a driver."""
        url = URL.create(
            f"{dialect}+{driver}",
            username=address.user,
            password=address.password or None,
            host=(cls.host_of_socket or None) if address.is_socket else address.host,
            port=address.port,
            database=address.database,
        )
        return url.update_query_dict({cls.socket: address.host}) if address.is_socket else url

    @abstractmethod
    def _text_of(self, control: Control, name: str) -> str | None:
        """Return the manifest of a finished template, None if there is none."""

    @abstractmethod
    def _copy(self, control: Control, source: str | None, name: str) -> None:
        """Create a copy of a database, or an empty database."""

    @abstractmethod
    def _finish(self, name: str, final: str, text: str) -> None:
        """Make a database the template of this name. Write the manifest last."""

    @abstractmethod
    def _drop_now(self, control: Control, name: str) -> None:
        """Drop a database, and end its connections."""

    # Connect

    def address_of(self, name: str = "") -> Address:
        """Return the address of a database, without a name the one that the option names."""
        return replace(self._address, database=name or self._address.database)

    def _take_locks(self, control: Control) -> None:
        """Take the locks of this process, also again after a lost connection."""
        if self._process == os.getpid():  # a forked child only reads
            for name in (*self.names.locks, *self._used):
                self._hold(control, name)

    @contextmanager
    def reporting(self, what: str) -> Iterator[None]:
        """Turn a refusal of the server into an ``ArenaError`` that begins with ``what``."""
        try:
            yield
        except ServerFailure as error:
            address = self._address
            said = error.first_line
            cause = f"the server answered with error {error.code}"
            fix = self.another
            if error.is_down:
                cause = f"the connection failed: {said}"
                said = "the server has stopped or is restarting"
                fix = f"start it again (its log says why it stopped), or use another one:\n{fix}"
            elif error.is_crowded:
                cause, fix = CROWDED, FEWER_CONNECTIONS
            elif right := re.search(r"need .*the (.+?) privilege", said):  # of MySQL and MariaDB
                fix = f"GRANT {right[1]} ON *.* TO {address.user};   -- as an administrator"
            raise ServerError(
                f"{address.server}: {what}: {said}",
                why="each test works on a database that pytest-arena creates on this server",
                cause=cause,
                fix=fix,
            ) from error

    # List

    def listed(self) -> list[OwnDatabase]:
        """Return pytest-arena's databases on the server."""
        with self.reporting("the databases cannot be listed"):
            rows = [row for row in self._describe(self.control) if parts_of(row.name) is not None]
            locks = {row.name: locks_of(row.name) for row in rows}
            held = self._held(self.control, set().union(*locks.values()))
        return [replace(row, is_in_use=not held.isdisjoint(locks[row.name])) for row in rows]

    # Create

    def create(
        self, kind: str, *, template: str | None = None, control: Control | None = None
    ) -> str:
        """Create a copy of a template, or an empty database. Return its new, unique name."""
        name = self.names.new(kind)
        what = f"no copy of {template}" if template else "no new database"
        self.databases.add(name)
        try:
            with self.reporting(what):
                self.control.open()  # the process holds its lock
                self._copy(control or self.control, template, name)
        except BaseException:
            self.drop_later(name)
            raise
        return name

    def create_later(self, *, template: str | None = None) -> Future[str]:
        """Create a live database in the background."""
        create = partial(self.create, "live", template=template, control=self._other_control)
        return self._thread.do(create)

    # Templates

    def find_or_build(self, *args: Any, **options: Any) -> Template:
        """Return a template. The server may refuse each step."""
        with self.reporting("the template cannot be found or built"):
            return super().find_or_build(*args, **options)

    def finish(self, target: Any, fingerprint: str, manifest: Manifest) -> str:
        """Make a built database a template, which no later run changes. Return its new name."""
        name = target.address.database
        final = self._template(fingerprint)
        self._hold_template(final)  # before it exists, so that no sweep drops it
        self._finish(name, final, manifest.text())
        self._manifests[final] = manifest
        return final

    def _hold_template(self, name: str) -> None:
        if name not in self._used:
            self._hold(self.control, name)
            self._used.add(name)

    def _template(self, fingerprint: str) -> str:
        """Return the name of the template with a fingerprint. Each login has its own templates."""
        is_of_run = fingerprint.startswith(OF_RUN)
        return self.names.template(f"{self._address.user} {fingerprint}", is_of_run=is_of_run)

    def fingerprint_on(self, base: str, recipe: str) -> str:
        """Return the fingerprint of what a recipe makes of a template. It ends with this one."""
        parts = parts_of(base)
        is_of_run = parts is not None and parts.kind == "seeded"
        built = self._manifests[base].built if base in self._manifests else ""
        return f"{OF_RUN if is_of_run else ''}{recipe} {base} {built}"

    def identity(self) -> str:
        """Return the product and the properties of the server, for the fingerprint."""
        with self.reporting("the server's settings cannot be read"):
            [values] = self.control.rows(self.question)
        return " ".join(map(str, (self.product, *values)))

    def begin(self, below: Template | None, dialect: type[Dialect]) -> BuildTarget:
        """Create the database that a build fills: a copy of ``below``, or an empty one."""
        name = self.create("building", template=below.content if below else None)
        return self._build(self.address_of(name), dialect)

    @abstractmethod
    def _build(self, address: Address, dialect: type[Dialect]) -> BuildTarget:
        """Return a build that fills a database, by the app's driver."""

    def find(self, fingerprint: str, newer_than: float = 0.0) -> Template | None:
        """Return the finished template of a fingerprint, and hold it.

        No sweep drops a template that a process holds.
        """
        name = self._template(fingerprint)
        self._hold_template(name)
        manifest = read_manifest(self._text_of(self.control, name))
        if manifest is None or manifest.built < newer_than:
            return None
        self._manifests[name] = manifest
        return Template(name, fingerprint, manifest)

    @contextmanager
    def locked(self, fingerprint: str) -> Iterator[float]:
        """Exclude all threads, processes and machines from a fingerprint. Yield the time."""
        # A separate connection, so that waiting blocks no other statement.
        with closing(self._control()) as control:
            if not control.call(self._acquire, fingerprint, LOCK_SECONDS):
                raise TemplateError(
                    f"another process has been building a template for {LOCK_SECONDS:g} s",
                    why="a template is built once for all processes, so this process waits",
                    cause="the process that holds the lock on the server",
                    fix="arena databases list   # shows who builds. Its end frees the lock",
                )
            yield now()

    # Drop

    def drop(self, name: str, control: Control | None = None) -> str:
        """Drop a database of this login, and end its connections. Return why it stays, or "".

        A later sweep drops what stays.
        """
        try:
            if parts_of(name) is not None:
                self._drop_now(control or self.control, name)
        except (ServerFailure, ArenaError) as error:
            return str(error)
        self.databases.discard(name)
        return ""

    def drop_later(self, name: str) -> None:
        """Drop a database in the background, and end its connections."""
        if self._is_closed or self._process != os.getpid():
            return
        self._thread.do(partial(self.drop, name, self._other_control))

    # Sweep

    def sweep(self, *, everything: bool = False) -> list[SweepResult]:
        """Drop databases of dead processes, and old templates that no living process uses.

        With ``everything`` drop all that no living process uses, and return the others, too.
        """
        with self.reporting("databases of dead runs cannot be dropped"):
            found = self.listed()
            old = unused(found, everything=everything)
            reasons = {database.name: self.drop(database.name) for database in old}
        return [
            SweepResult(database.thing(), reasons.get(database.name, database.reason))
            for database in found
            if everything or database.name in reasons
        ]

    # End

    def close(self) -> None:
        """Drop this process's databases. The last process of a run also drops its templates.

        After Ctrl-C this takes at most three seconds. A server with fsync takes seconds for each
        database. The next run drops databases that are left.
        """
        if self._is_closed or self._process != os.getpid():
            return
        self._is_closed = True
        patience = _HURRIED_SECONDS if interrupted.is_set() else _END_SECONDS
        self._thread.do(self._drop_all)
        if self._thread.close(patience) and self._sweeps and self.control.is_open:
            # This process has ended for others, and for the sweep.
            with suppress(ServerFailure, ArenaError):
                self._release(self.control)
                self.sweep()
        self.control.close()

    def _drop_all(self) -> None:
        for name in [*self.databases]:
            self.drop(name, self._other_control)
        self._other_control.close()


RegistryT = TypeVar("RegistryT", bound=DatabaseRegistry)
