"""Connections of pytest-arena to a server, which reconnect after a loss."""

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from pytest_arena._product import nothing
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


_ResultT = TypeVar("_ResultT")


def import_driver(package: str, shown: str, servers: str, extra: str) -> ModuleType:
    """Import the driver of pytest-arena's connections, which an extra installs."""
    try:
        return import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"{shown} cannot be imported",
            why=f"pytest-arena makes the test databases on {servers} by {shown}, whichever driver "
            "your app uses",
            cause=str(error),
            fix=f"pip install 'pytest-arena[{extra}]'",
        ) from error


class ServerFailure(Exception):
    """The server refused a statement or a login, or no server answers.

    ``code`` is the server's code, empty if no server answered.
    """

    def __init__(self, message: str, code: Any = "") -> None:
        super().__init__(message)
        self.code = code

    @property
    def first_line(self) -> str:
        """The server's message, without its details and hints."""
        return str(self).partition("\n")[0] or "no reason was given"

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


class _Control(Protocol):
    def close(self) -> None: ...
    def run(self, sql: str) -> None: ...
    def rows(self, sql: str) -> list[tuple[Any, ...]]: ...


ControlT = TypeVar("ControlT", bound=_Control)


class ControlLine(Generic[ControlT]):
    """A connection that connects at its first use, and again after it was lost.

    After a loss, ``call`` calls ``on_lost`` and then repeats the function.

    Any thread may use the connection. A second thread waits. A forked child opens another
    connection. It never closes its parent's connection, which would end the parent's session.
    """

    def __init__(
        self, connect: Callable[[], ControlT], on_lost: Callable[[], object] = nothing
    ) -> None:
        self._connect = connect
        self._on_lost = on_lost
        self._connection: ControlT | None = None
        self._lock = threading.RLock()
        self._process = os.getpid()
        # References in a forked child, so that the garbage collector does not close them.
        self._parents_connections: list[ControlT | None] = []

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

    def run(self, sql: str) -> None:
        """Execute one statement, or several in one transaction."""
        self.call(lambda control: control.run(sql))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Execute one statement and return its rows."""
        return self.call(lambda control: control.rows(sql))

    def opened(self) -> ControlT:
        """Return the open connection. Connect if it is not open."""
        with self._lock:
            if self._connection is not None and self.is_open:
                return self._connection
            if self._process != os.getpid():
                self._parents_connections.append(self._connection)
            self._connection = self._connect()
            self._process = os.getpid()
            return self._connection

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
