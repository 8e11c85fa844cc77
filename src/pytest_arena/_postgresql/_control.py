"""A connection of arena's own to PostgreSQL: synchronous, whichever driver is installed."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, cast
from weakref import WeakSet

from pytest_arena._origin import as_own
from pytest_arena._process import rest, seconds
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping

    from pytest_arena._values import Address

_CONNECT_SECONDS = 10
_TURNS = 5
_NAME = "pytest-arena"  # as pg_stat_activity shows it
# Python has no value for what came: a date before Christ, for one.
_UNREADABLE = (ValueError, OverflowError)
# What libpq hands on of a login that was refused: the server's words, and not its code.
FULL = re.compile("too many (clients|connections)|connection slots are reserved")

# The server is shutting down, has crashed, is starting: a new connection may do.
_LOST = ("57P01", "57P02", "57P03")
_NO_LOCK = "53200"  # no memory for one more
_CROWDED = ("53300", _NO_LOCK)
_STEP = 0.1  # seconds
WAITED = (
    "the server had no connection to spare for a while, and this run waited for its turn: "
    "pytest -n 2, a smaller pool_size, or a larger max_connections there"
)
# Classes of SQLSTATE: the connection, no more room, the operator, the system.
_ELSEWHERE = ("", "08", "53", "57", "58")


class ControlFailure(Exception):
    """PostgreSQL, or the way to it, said no.

    ``sqlstate`` is PostgreSQL's code (https://www.postgresql.org/docs/current/errcodes-appendix.html),
    "" where no server answered.
    """

    def __init__(self, message: str, sqlstate: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate

    @property
    def first_line(self) -> str:
        """What it said, without details, hints and whereabouts."""
        return str(self).partition("\n")[0] or "no reason was given"

    @property
    def is_lost(self) -> bool:
        """Whether the connection is gone, rather than a statement refused."""
        return self.sqlstate in ("", *_LOST) or self.sqlstate.startswith("08")

    @property
    def is_crowded(self) -> bool:
        """Whether the server has no connection, or no room for a lock, as long as others have."""
        return self.sqlstate in _CROWDED

    @property
    def is_elsewhere(self) -> bool:
        """Whether what was in the way has nothing to do with what was asked for."""
        return self.sqlstate[:2] in _ELSEWHERE


class Control(Protocol):
    """One connection in autocommit mode. Any thread may use it, one at a time."""

    pid: int  # of its backend

    def run(self, sql: str) -> None:
        """Execute one statement, or several without parameters.

        Raises:
            Failed: the server refused it, or is gone.
        """

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Execute one statement and return its rows. Raises as ``run`` does."""

    def ask(self, sql: str) -> str | None:
        """Execute one statement that takes no time, and return its only value, a text.

        Raises as ``run`` does. Cost: with psycopg half of what ``rows`` costs; Ctrl-C has to wait.
        """
        [(text,)] = self.rows(sql)
        return cast("str | None", text)

    def close(self) -> None:
        """Close it. Idempotent; never raises."""


class _Closing(Protocol):
    def close(self) -> None: ...


_Answer = TypeVar("_Answer")
ConnectionT = TypeVar("ConnectionT", bound=_Closing)


class ServerLine(Generic[ConnectionT]):
    """A connection that is made when it is needed, and once more where it was lost.

    What was said is said again then, so it has to bear being said twice. ``lost`` is called before
    that. Any thread may use it, one at a time. A forked child opens one of its own: to close its
    parent's would end the parent's session. Where the server has no room for a lock it is said
    again, as long as ``patience`` lasts.
    """

    def __init__(
        self,
        connect: Callable[[], ConnectionT],
        lost: Callable[[], object],
        *,
        patience: float = 0.0,
    ) -> None:
        self._connect, self._lost, self._patience = connect, lost, patience
        self._connection: ConnectionT | None = None
        self._turn, self._process = threading.RLock(), os.getpid()
        self._parents: list[ConnectionT | None] = []
        self.times = 0  # how often it was made

    def do(self, say: Callable[..., _Answer], *args: Any, **options: Any) -> _Answer:
        """Say something by it.

        Raises:
            Failed: the server refused it, or is gone.
        """
        with self._turn:
            try:
                return say(self.opened(), *args, **options)
            except ControlFailure as error:
                # Whoever opens it has waited for a connection already.
                if not (error.is_lost or error.sqlstate == _NO_LOCK):
                    raise
                was_lost = error.is_lost
            if was_lost:
                self.close()
                self._lost()
            return in_turn(lambda: say(self.opened(), *args, **options), self._patience)

    def opened(self) -> ConnectionT:
        """Return the connection, which is there from now on. Raises as ``do`` does."""
        with self._turn:
            if self._connection is None or self._process != os.getpid():
                self.give(self._connect())
                self.times += 1
            return cast("ConnectionT", self._connection)

    def give(self, connection: ConnectionT) -> None:
        """Have a connection used from here on."""
        with self._turn:
            self.close()
            if self._process != os.getpid():
                self._parents.append(self._connection)
            self._connection, self._process = connection, os.getpid()

    @property
    def is_open(self) -> bool:
        """Whether it is in use by this process."""
        return self._connection is not None and self._process == os.getpid()

    def close(self) -> None:
        """Close it, until it is needed again. Idempotent; a forked child leaves its parent's."""
        with self._turn:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
                self._connection = None


controls: WeakSet[Control] = (
    WeakSet()
)  # those of this process, for whoever asks what they do


def in_turn(do: Callable[[], _Answer], patience: float) -> _Answer:
    """Do something, again and again as long as the server is crowded and the patience lasts.

    Raises:
        Failed: it is crowded still, or something else is the matter.
    """
    end = seconds() + patience
    while True:
        try:
            return do()
        except ControlFailure as error:
            if not error.is_crowded or seconds() > end:
                raise
        rest(_STEP)


def open_control(
    address: Address, settings: Mapping[str, str] | None = None
) -> Control:
    """Connect, by the first driver that is installed: psycopg, psycopg2, asyncpg.

    Where the server has no connection free it waits for one, as long as the address says.

    ``settings`` are the server's (``lock_timeout``, …) and hold from the connection's first moment
    on. The libpq settings of the environment (PGOPTIONS, PGSERVICE, …) do not reach it.

    Raises:
        Failed: no server answers there, or it refuses the login, or a setting.
        ConfigError: there is no driver.
    """
    for module, kind in _KINDS:
        if find_spec(module) is not None:
            # One may be there and broken: without libpq, for one.
            with as_own(), _without_service(), suppress(ImportError):
                connect = partial(
                    cast("Callable[..., Control]", kind), address, settings or {}
                )
                control = in_turn(connect, address.patience)
                controls.add(control)
                return control
    raise ConfigError(
        "no driver for PostgreSQL is installed",
        why="arena makes the test databases by a connection of its own",
        cause=f"none of {', '.join(module for module, _ in _KINDS)} can be imported",
        fix="pip install 'pytest-arena[postgresql]'",
    )


def literal(text: str) -> str:
    """Write a text as a literal of SQL's."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Write a name so that it stands for itself."""
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def _without_service() -> Iterator[None]:
    # The one setting that no argument answers: libpq fails where its file does not know the name.
    name = os.environ.pop("PGSERVICE", None)
    try:
        yield
    finally:
        if name is not None:
            os.environ["PGSERVICE"] = name


def _libpq(address: Address, settings: Mapping[str, str]) -> dict[str, Any]:
    given = {
        "standard_conforming_strings": "on",
        "client_min_messages": "error",
        **settings,
    }
    return {
        "host": address.host,
        "port": address.port,
        "user": address.user,
        "password": address.password or None,
        "dbname": address.database,
        "sslmode": "disable" if address.is_socket else "prefer",
        "connect_timeout": _CONNECT_SECONDS,
        "application_name": _NAME,
        "options": " ".join(
            f"-c {name}={_escaped(value)}" for name, value in given.items()
        ),
    }


def _escaped(value: str) -> str:
    # The server splits the options at blanks that no backslash stands before.
    return re.sub(r"([\\\s])", r"\\\1", value)


class _LibpqControl(Control):
    """By psycopg2, or by a driver as synchronous as that."""

    _module, _code = (
        "psycopg2",
        "pgcode",
    )  # which attribute of its errors has PostgreSQL's code
    _options: ClassVar[dict[str, Any]] = {}

    def __init__(self, address: Address, settings: Mapping[str, str]) -> None:
        driver = import_module(self._module)  # an extra, and slow to import
        self._error, self._turn = driver.Error, threading.RLock()
        try:
            self._connection = driver.connect(
                **_libpq(address, settings), **self._options
            )
        except driver.Error as error:
            known = "53300" if FULL.search(str(error)) else ""
            raise ControlFailure(
                str(error).strip(), getattr(error, self._code) or known
            ) from error
        self._connection.autocommit = True
        self.pid: int = self._connection.info.backend_pid

    def run(self, sql: str) -> None:
        self._execute(sql, fetch=False)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._execute(sql, fetch=True)

    def _execute(self, sql: str, *, fetch: bool) -> list[tuple[Any, ...]]:
        with self._turn:
            try:
                cursor = self._connection.cursor()
                cursor.execute(sql)
                return cast("list[tuple[Any, ...]]", cursor.fetchall()) if fetch else []
            except (self._error, *_UNREADABLE) as error:
                raise ControlFailure(
                    str(error).strip(), getattr(error, self._code, "") or ""
                ) from error

    def close(self) -> None:
        self._connection.close()


class _PsycopgControl(_LibpqControl):
    """By psycopg."""

    _module, _code = "psycopg", "sqlstate"
    _options: ClassVar[dict[str, Any]] = {"prepare_threshold": None}

    def ask(self, sql: str) -> str | None:
        # By libpq's own call: psycopg waits in turns, so that Ctrl-C may come in between.
        with self._turn:
            try:
                result = self._connection.pgconn.exec_(sql.encode())
            except self._error as error:
                raise ControlFailure(str(error).strip()) from error
        if not result.ntuples:
            raise _refused(result)
        text = result.get_value(0, 0)
        return None if text is None else text.decode()


def _refused(result: Any) -> ControlFailure:
    from psycopg import pq  # noqa: PLC0415 - an extra, and slow to import

    code = result.error_field(pq.DiagnosticField.SQLSTATE) or b""
    return ControlFailure(pq.error_message(result).strip(), code.decode())


class _AsyncpgControl(Control):
    """By asyncpg, on an event loop in a thread of its own."""

    def __init__(self, address: Address, settings: Mapping[str, str]) -> None:
        self._driver: Any = import_module("asyncpg")  # an extra, and slow to import
        self._loop = asyncio.new_event_loop()
        self._turn = threading.RLock()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="pytest-arena-control", daemon=True
        )
        self._thread.start()
        try:
            self._connection = self._wait(
                self._driver.connect(
                    host=address.host,
                    port=address.port,
                    user=address.user,
                    password=address.password or None,
                    database=address.database,
                    ssl=False if address.is_socket else None,
                    timeout=_CONNECT_SECONDS,
                    statement_cache_size=0,
                    server_settings={
                        "application_name": _NAME,
                        "client_min_messages": "error",
                        **settings,
                    },
                )
            )
        except BaseException:
            self._stop()
            raise
        self.pid = cast("int", self._connection.get_server_pid())

    def run(self, sql: str) -> None:
        with self._turn:
            self._wait(self._connection.execute(sql))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with self._turn:
            return [tuple(row) for row in self._wait(self._connection.fetch(sql))]

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            with as_own():
                return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
        except self._driver.PostgresError as error:
            raise ControlFailure(str(error), error.sqlstate or "") from error
        except (
            TimeoutError,
            OSError,
            self._driver.InterfaceError,
            self._driver.InternalClientError,  # a goodbye of the server crossed with our statement
            *_UNREADABLE,
        ) as error:
            raise ControlFailure(str(error) or type(error).__name__) from error

    def close(self) -> None:
        if self._loop.is_running():
            self._loop.call_soon_threadsafe(self._connection.terminate)
            self._stop()

    def _stop(self) -> None:
        asyncio.run_coroutine_threadsafe(_drain(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _drain() -> None:
    # A transport that was closed or refused gives its socket back some turns of the loop later.
    for _ in range(_TURNS):
        await asyncio.sleep(0)


_KINDS = (
    ("psycopg", _PsycopgControl),
    ("psycopg2", _LibpqControl),
    ("asyncpg", _AsyncpgControl),
)
