"""Connections of pytest-arena to a server, which reconnect after a loss."""

import os
import threading
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from pytest_arena._process import rest, seconds, until

_RETRY_SECONDS = 0.1
_RESTART_SECONDS = 10.0  # the longest wait for a restarted server

_ResultT = TypeVar("_ResultT")


class ServerFailure(Exception):
    """The server refused a statement or a login, or no server answers."""

    @property
    def first_line(self) -> str:
        """The server's message, without its details and hints."""
        return str(self).partition("\n")[0] or "no reason was given"

    @property
    @abstractmethod
    def code(self) -> object:
        """The server's code, empty if no server answered."""

    @property
    def is_down(self) -> bool:
        """Whether no server answers, or it shuts down or starts."""
        return self.is_lost

    @property
    @abstractmethod
    def is_lost(self) -> bool:
        """Whether the connection is lost. False if the server refused a statement."""

    @property
    @abstractmethod
    def is_crowded(self) -> bool:
        """Whether the server has no free connection."""


def retry_while_crowded(call: Callable[[], _ResultT], patience: float) -> _ResultT:
    """Call a function again while the server is crowded, for ``patience`` seconds."""
    end = seconds() + patience
    while True:
        try:
            return call()
        except ServerFailure as error:
            if not error.is_crowded or seconds() > end:
                raise
        rest(_RETRY_SECONDS)


class _Connection(Protocol):
    def close(self) -> None: ...


class _Control(_Connection, Protocol):
    def run(self, sql: str) -> None: ...
    def rows(self, sql: str) -> list[tuple[Any, ...]]: ...


ConnectionT = TypeVar("ConnectionT", bound=_Connection)
ControlT = TypeVar("ControlT", bound=_Control)


class Reconnecting(Generic[ConnectionT]):
    """A connection that connects at its first use, and again after it was lost.

    After a loss, ``call`` calls ``on_lost`` and then repeats the function.

    Any thread may use the connection. A second thread waits. A forked child opens another
    connection. It never closes its parent's connection, which would end the parent's session.
    """

    def __init__(
        self, connect: Callable[[], ConnectionT], on_lost: Callable[[], object]
    ) -> None:
        self._connect = connect
        self._on_lost = on_lost
        self._connection: ConnectionT | None = None
        self._lock = threading.RLock()
        self._process = os.getpid()
        # References in a forked child, so that the garbage collector does not close them.
        self._parents_connections: list[ConnectionT | None] = []

    def call(
        self, function: Callable[..., _ResultT], *args: object, **options: object
    ) -> _ResultT:
        """Call a function with the connection as its first argument."""
        with self._lock:
            try:
                return function(self.opened(), *args, **options)
            except ServerFailure as error:
                if not error.is_lost:
                    raise
            self.close()
            self._on_lost()
            return function(self.opened(), *args, **options)

    def opened(self) -> ConnectionT:
        """Return the open connection. Connect if it is not open."""
        with self._lock:
            if self._connection is not None and self.is_open:
                return self._connection
            connection = self._connect()
            self.use(connection)
            return connection

    def use(self, connection: ConnectionT) -> None:
        """Close the connection, and use another open one."""
        with self._lock:
            self.close()
            if self._process != os.getpid():
                self._parents_connections.append(self._connection)
            self._connection = connection
            self._process = os.getpid()

    @property
    def is_open(self) -> bool:
        """Whether this process has an open connection."""
        return self._connection is not None and self._process == os.getpid()

    def close(self) -> None:
        """Close the connection, if it is open. The next use connects again."""
        with self._lock:
            if self._connection is not None and self.is_open:
                self._connection.close()
                self._connection = None


class ServerControlLine(Reconnecting[ControlT]):
    """A control connection that waits for a restarted server."""

    def __init__(self, connect: Callable[[], ControlT]) -> None:
        super().__init__(connect, self._wait)
        self._has_waited_in_vain = False

    def run(self, sql: str) -> None:
        """Execute one statement, or several in one transaction."""
        self.call(lambda control: control.run(sql))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Execute one statement and return its rows."""
        return self.call(lambda control: control.rows(sql))

    def _wait(self) -> None:
        """Wait for a restarted server. After a wait in vain, do not wait again."""
        patience = 0.0 if self._has_waited_in_vain else _RESTART_SECONDS
        self._has_waited_in_vain = not until(self._is_back, within=patience)

    def _is_back(self) -> bool:
        try:
            self.opened()
        except ServerFailure as error:
            if not error.is_lost:
                raise
            return False
        return True
