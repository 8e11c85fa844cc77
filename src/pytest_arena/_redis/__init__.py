"""Redis beside the database: clients of redis-py use a private server of this process.

Each level restores its content.

Facts about redis-py 5 to 8:

- All clients connect by ``Connection._connect``, also those of clusters and Sentinel, which find
  no cluster on a private server. A pool connects again what is disconnected.
- A connection of redis.asyncio belongs to the event loop in which it was opened.
- ``INFO persistence`` has ``rdb_changes_since_last_save``, which counts the writes of a server that
  never saves.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from threading import Thread
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pytest_arena._config._supported import allows, redis_name
from pytest_arena._interpreter import patch, when_imported
from pytest_arena._origin import as_own, is_own
from pytest_arena._owner import cause_of_connection, owner_here
from pytest_arena._process import until
from pytest_arena.errors import ArenaError, ServerError, UnknownDatabaseError, redact

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterable

    from pytest_arena._ledger import Ledger
    from pytest_arena._owner import Owner

__tracebackhide__ = True  # the traceback of a refusal ends at the user's line

Key = tuple[int, bytes]  # the number of the database, and the name
Content = dict[Key, tuple[int, bytes]]  # the milliseconds to live, 0 for ever; the dumped value

_NUMBERS = 16  # of databases
_MOST_KEYS = 10  # in the report of a failed test

PROGRAMS = ("redis-server", "valkey-server")
_HOST = "127.0.0.1"
_START_SECONDS = 10.0
_END = b"\n"

# The shell ends the server at a line from this process, or when it and its forks have ended.
_WITH_THIS_PROCESS = """
exec 3<&0
"$@" <&- 3<&- &
read -r _ <&3
kill -9 $!
rm -rf "$0"
"""


class RedisServer:
    """A server on a free port of the loopback. It keeps its content in memory only.

    Nobody else may enter its folder.
    """

    def __init__(self) -> None:
        self.port = 0
        self.is_fake = False  # of fakeredis, which has no INFO
        self._shell: subprocess.Popen[bytes] | None = None
        with as_own():
            self._start()

    def _start(self) -> None:
        """Start a program of ``PATH``, else the server of fakeredis."""
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if program is not None:
            self._start_program(program)
            return
        try:
            from fakeredis import TcpFakeServer  # noqa: PLC0415 - an extra
        except ImportError:
            raise ServerError(
                f"there is no Redis server for the tests: {', '.join(PROGRAMS)}, fakeredis",
                why="each test process has its own Redis server, so that no test reaches yours",
                cause=cause_of_connection(),
                fix="install redis-server or valkey-server, or: pip install 'pytest-arena[redis]'\n"
                "or, if tests may change yours: arena_allow = redis://host:port/*",
            ) from None
        server = TcpFakeServer((_HOST, 0))
        server.daemon_threads = True
        self.is_fake = True
        Thread(target=server.serve_forever, daemon=True).start()
        self.port = server.server_address[1]

    def _start_program(self, program: str) -> None:
        with socket.create_server((_HOST, 0)) as free:
            _, self.port = free.getsockname()
        folder = tempfile.mkdtemp(prefix="arena-redis-")
        settings = {"port": self.port, "bind": _HOST, "save": "", "appendonly": "no", "dir": folder}
        words = [str(word) for name in settings for word in (f"--{name}", settings[name])]
        self._shell = subprocess.Popen(  # noqa: S603 - the server's program
            ["/bin/sh", "-c", _WITH_THIS_PROCESS, folder, program, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C does not reach it
        )
        until(lambda: self.answers, within=_START_SECONDS)

    @property
    def answers(self) -> bool:
        """Whether the server accepts connections."""
        try:
            socket.create_connection((_HOST, self.port)).close()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """End the server, and remove its folder."""
        if self._shell is not None:
            self._shell.communicate(_END)


@dataclass(eq=False)
class Redis:
    """The private server of a run, from the first connection of a client until the run's end.

    A level costs one question to the server. If keys have changed, it also costs one round trip for
    all keys, and one for each restored key.
    """

    ledger: Ledger
    allowed: Iterable[str]
    refuse_late: Callable[[], None]  # raises an error in work whose test or fixture is over
    # The state of which each level calls `begin` and `end`: of this one from its start on. `begin`
    # is called again after a late fixture.
    beside: list[Any]
    _server: RedisServer | None = None
    _controls: dict[int, Any] = field(default_factory=dict)
    # What each living test and wide fixture has found. Without an entry, it found no server.
    _found: dict[Owner, Content] = field(default_factory=dict)
    # The present content, and the number of writes to which it belongs.
    _content: Content = field(default_factory=dict)
    _writes: int = -1
    # The loops of async connections.
    _loops: WeakKeyDictionary[Any, AbstractEventLoop] = field(default_factory=WeakKeyDictionary)

    @property
    def port(self) -> int:
        """The port of the server, which starts now at the latest."""
        if self._server is None:
            self._server = RedisServer()
            self.ledger.has_redis = True
            if self not in self.beside:
                self.beside.append(self)
        return self._server.port

    def port_of_programs(self) -> int:
        """Return the port for other programs, 0 if the app has imported no client.

        Celery imports redis-py when it connects.
        """
        is_used = not sys.modules.keys().isdisjoint({"redis", "celery"}) and find_spec("redis")
        with suppress(ServerError):
            return self.port if is_used else 0
        return 0

    def close(self) -> None:
        """End the server."""
        for control in self._controls.values():
            control.close()
        if self._server is not None:
            self._server.close()

    def _control(self, number: int = 0) -> Any:
        """Return a client of pytest-arena for a database."""
        import redis  # noqa: PLC0415 - the user's code has imported it

        if number not in self._controls:
            self._controls[number] = redis.Redis(host="127.0.0.1", port=self.port, db=number)
        return self._controls[number]

    def begin(self, owner: Owner) -> None:
        """Note what a test or a wide fixture finds."""
        self._found.pop(owner, None)
        self._found[owner] = self.content()

    def end(self, owner: Owner) -> None:
        """Restore what it has found, and end its blocked reads and subscriptions.

        If a wide fixture has begun later and lives on, then its end restores that.
        """
        owners = [*self._found]
        is_known = owner in self._found
        found = self._found.pop(owner, {})
        later = owners[owners.index(owner) + 1 :] if is_known else owners
        if later:
            self._found[later[0]] = found
            return
        # End what waits for keys or messages, in this process, for an owner that is over.
        name = _client_name(owner)
        with as_own():
            for client in self._control().client_list():
                if client["name"] == name and not _WAITING.isdisjoint(client["flags"]):
                    self._control().client_kill_filter(_id=client["id"])
        if self.content() != found:
            with as_own():
                self._control().flushall()
                for (number, key), (life, value) in found.items():
                    self._control(number).restore(key, life, value)
            self._writes = -1

    def content(self) -> Content:
        """Return all keys with their values."""
        if self._server is None:
            return {}
        with as_own():
            if self._server.is_fake:
                return self._read(range(_NUMBERS))
            writes = self._control().info("persistence")["rdb_changes_since_last_save"]
            if writes != self._writes:
                names = self._control().info("keyspace")
                self._content = self._read(int(name.removeprefix("db")) for name in names)
                self._writes = writes
        return self._content

    def _read(self, numbers: Iterable[int]) -> Content:
        content: Content = {}
        for number in numbers:
            control = self._control(number)
            keys = control.keys("*")
            pipeline = control.pipeline()
            for key in keys:
                pipeline.pttl(key).dump(key)
            answers = iter(pipeline.execute())
            for key, life, value in zip(keys, answers, answers, strict=False):
                if value is not None:  # it has expired
                    content[number, key] = (max(life, 0), value)
        return content

    def lines(self, owner: Owner) -> list[str]:
        """Return the keys with other values than those that an owner has found. Never raises."""
        with suppress(Exception):
            found = {(key, value) for key, (_, value) in self._found.get(owner, {}).items()}
            now = {(key, value) for key, (_, value) in self.content().items()}
            return [*map(_shown, sorted({key for key, _ in found ^ now})[:_MOST_KEYS])]
        return []

    def watch_clients(self) -> None:
        """Redirect the clients of redis-py from their import on."""
        when_imported("redis.connection", self._watch)
        when_imported("redis.asyncio.connection", self._watch)
        when_imported("redis.asyncio.connection", self._watch_loops)

    def _watch(self, module: Any) -> None:
        connect = module.Connection._connect  # noqa: SLF001 - no other name

        def redirected(connection: Any) -> Any:
            self._redirect(connection, module)
            return connect(connection)  # an async client awaits it

        def refused(connection: Any) -> None:
            if not is_own():
                self._refuse(
                    connection.path, "it uses a Unix socket", "a redis:// URL in the tests"
                )

        patch(module.Connection, "_connect", redirected)
        patch(module.UnixDomainSocketConnection, "_connect", refused)

    def _watch_loops(self, module: Any) -> None:
        ensure = module.AbstractConnection.connect

        async def connected_here(connection: Any) -> None:
            loop = asyncio.get_running_loop()
            if self._loops.get(connection, loop) is not loop:
                with suppress(RuntimeError):  # that loop is closed
                    await connection.disconnect(nowait=True)
            self._loops[connection] = loop
            await ensure(connection)

        patch(module.AbstractConnection, "connect", connected_here)

    async def aclose(self) -> None:
        """Disconnect the connections of the running loop, before it is closed."""
        if self._server is None:
            return
        loop = asyncio.get_running_loop()
        for connection in [*self._loops]:
            if self._loops.get(connection) is loop:
                del self._loops[connection]
                await connection.disconnect()

    def _redirect(self, connection: Any, module: Any) -> None:
        """Make a connection lead to the private server."""
        name = redis_name(connection.host, connection.port, connection.db)
        if is_own() or allows(self.allowed, name):
            return
        if isinstance(connection, module.SSLConnection):
            self._refuse(name, "it uses TLS", "redis:// in place of rediss:// in the tests")
        self.refuse_late()
        try:
            connection.port = self.port
        except ArenaError as error:
            raise self.ledger.refused(error)  # noqa: B904 - it is the same error
        connection.host = "127.0.0.1"
        connection.credential_provider = connection.username = connection.password = None
        # The end of a level finds its clients by this name.
        connection.client_name = connection.client_name or _client_name(owner_here())

    def _refuse(self, what: str, reason: str, fix: str) -> None:
        raise self.ledger.refused(
            UnknownDatabaseError(
                f"refused: a connection to {what}: {reason}",
                why="pytest-arena cannot replace it by the tests' Redis, and it may be yours",
                cause=cause_of_connection(),
                fix=fix,
            )
        )


_WAITING = frozenset("bP")  # flags of `CLIENT LIST`: blocked, subscribed


def _client_name(owner: Owner | None) -> str:
    return f"arena-{os.getpid()}-{id(owner) if owner is not None and owner.is_wide else 0}"


def _shown(key: Key) -> str:
    number, name = key
    prefix = f"{number}: " if number else ""
    return redact(prefix + name.decode(errors="replace"))
