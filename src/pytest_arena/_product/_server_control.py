"""Connections of pytest-arena to a server, which reconnect after a loss."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_arena._config._supported import kind_of_error
from pytest_arena._origin import as_own
from pytest_arena._product import nothing
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Self

    from pytest_arena._process import Answer


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

    ``code`` is the server's code, empty if no server answered. The cause is the driver's error.
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
    def is_crowded(self) -> bool:
        """Whether the server has no free connection, by the facts about the driver's error."""
        return kind_of_error(self.__cause__ or self) == "no connection"


class Control(ABC):
    """A connection in autocommit mode that connects at its first use, and again after a loss.

    After a loss it calls ``on_lost`` and repeats the statement, or the whole function of ``call``.
    Without ``reconnects`` a loss is an error.

    Any thread may use it. A second thread waits. A forked child opens another connection. It never
    closes its parent's connection, which would end the parent's session.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        set_up: Callable[[Control], object] = nothing,
        on_lost: Callable[[], object] = nothing,
        *,
        reconnects: bool = True,
    ) -> None:
        self._connect = connect
        self._set_up = set_up
        self._on_lost = on_lost
        self._reconnects = reconnects
        self._connection: Any = None
        self._process = 0  # that has the connection open
        self._lock = threading.RLock()
        # References in a forked child, so that the garbage collector does not close them.
        self._parents_connections: list[Any] = []

    @abstractmethod
    def _execute(self, sql: str, *, fetch: bool) -> list[tuple[Any, ...]]:
        """Execute a statement, and return its rows with ``fetch``.

        Raises:
            ServerFailure: the server refused it, or the connection is lost.
        """

    def rows(self, sql: str, *, fetch: bool = True) -> list[tuple[Any, ...]]:
        """Execute one statement and return its rows.

        Raises:
            ServerFailure: the server refused it, or the connection is lost.
        """

        def execute() -> list[tuple[Any, ...]]:
            self.open()
            return self._execute(sql, fetch=fetch)

        with self._lock:
            return self._repeated(execute)

    def run(self, sql: str) -> None:
        """Execute one statement, or several. Raises as ``rows`` does."""
        self.rows(sql, fetch=False)

    def call(self, function: Callable[..., Answer], *args: object, **options: object) -> Answer:
        """Call a function with this control. All its statements are sent to one connection."""
        with self._lock:
            return self._repeated(lambda: self._whole(function, *args, **options))

    def _whole(self, function: Callable[..., Answer], *args: Any, **kw: Any) -> Answer:
        """Call a function. No single statement of it is repeated after a loss."""
        reconnects = self._reconnects
        self._reconnects = False
        try:
            return function(self, *args, **kw)
        finally:
            self._reconnects = reconnects

    def _repeated(self, work: Callable[[], Answer]) -> Answer:
        """Do some work. After a loss connect again, and repeat it."""
        try:
            return work()
        except ServerFailure as error:
            if not (error.is_lost and self._reconnects):
                raise
        self.close()
        self._on_lost()
        self.open()
        return work()

    def open(self) -> Self:
        """Connect, unless this process is connected. Return this control."""
        with self._lock:
            if self.is_open:
                return self
            if self._process:
                self._parents_connections.append(self._connection)
            with as_own():
                self._connection = self._connect()
            self._process = os.getpid()
            try:
                self._whole(self._set_up)
            except BaseException:
                self.close()
                raise
            return self

    @property
    def is_open(self) -> bool:
        """Whether this process has an open connection."""
        return self._process == os.getpid()

    def close(self) -> None:
        """Close the connection, if it is open. The next use connects again. Never raises."""
        with self._lock:
            if self.is_open:
                self._process = 0
                with suppress(Exception):  # it is lost
                    self._connection.close()
