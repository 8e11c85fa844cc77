"""Prepares new connections of asyncpg for moving, and tests once whether they can move."""

from __future__ import annotations

import socket
import struct
from asyncio import gather, get_running_loop, wait_for
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pytest_arena._origin import as_own
from pytest_arena._postgresql.moving._transport import (
    MovingConnect,
    MovingTransport,
    RunningLoop,
)
from pytest_arena._process import running_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Coroutine

    from sqlalchemy.engine import Dialect


_SECONDS: Final = 10

# The trial's result for each class of loops: "" or why a connection cannot move.
_reasons: Final[dict[type[AbstractEventLoop], str]] = {}


def prepare(
    dialect: Dialect, cparams: dict[str, Any], *, note: Callable[[str], None]
) -> None:
    """Change the arguments of a connect call so that the connection can move between loops.

    An engine's connect calls this. If a connection has to stay in its loop, ``note`` gets a
    line for the summary. The first call for each class of loops runs a trial of about 2 ms.
    """
    if isinstance(cparams.get("async_creator_fn"), MovingConnect):
        # SQLAlchemy reuses the dictionary of an earlier connection.
        del cparams["async_creator_fn"]
    loop = running_loop()
    if loop is None or not dialect.is_async or dialect.driver != "asyncpg":
        return
    if cparams.get("async_creator_fn") or cparams.get("loop"):
        return  # the app has chosen a function or a loop
    driver: Any = dialect.dbapi
    kind = type(loop)
    if kind not in _reasons:
        _reasons[kind] = why_not(driver.asyncpg.connect, kind)
    reason = _reasons[kind]
    if reason:
        note(_stays(f"this asyncpg, in a {kind.__name__}: {reason}"))
        return
    on_tls = partial(note, _stays("TLS"))
    cparams["async_creator_fn"] = MovingConnect(driver.asyncpg.connect, on_tls)


def _stays(reason: str) -> str:
    return (
        "each event loop opens new connections of asyncpg, which takes some milliseconds "
        f"a test. The connections cannot move between loops ({reason})"
    )


def why_not(connect: Callable[..., Any], kind: type[AbstractEventLoop]) -> str:
    """Return why a connection cannot move between loops of a class, "" if it can.

    A thread connects to the other end of a socket pair, uses the connection in two loops, and
    closes it outside of any loop. This takes about 2 ms, and opens nothing outside of the process.
    """
    # The trial needs a thread, because a loop runs in this thread.
    with ThreadPoolExecutor(1) as thread:
        error = thread.submit(_try_out, connect, kind).exception()
    if error is None:
        return ""
    return f"{type(error).__name__}: {error}"


def _try_out(connect: Callable[..., object], kind: type[AbstractEventLoop]) -> None:
    ours, theirs = socket.socketpair()
    with as_own(), ours, theirs:  # pytest-arena guards asyncpg.connect
        ours.settimeout(0)
        theirs.settimeout(0)
        connection = _run(kind, _greeted(connect, ours, theirs))
        try:
            for _ in range(2):
                _run(kind, _answered(connection, theirs))
        finally:
            connection.terminate()
        has_said_goodbye = theirs.recv(100) != b""
        is_closed = connection.is_closed() and theirs.recv(100) == b""
        if not has_said_goodbye or not is_closed:
            raise RuntimeError("a connection is not closed by terminate()")


def _run(kind: type[AbstractEventLoop], work: Coroutine[object, object, object]) -> Any:
    with closing(kind()) as loop:
        return loop.run_until_complete(wait_for(work, _SECONDS))


async def _greeted(
    connect: Callable[..., Any], ours: socket.socket, theirs: socket.socket
) -> Any:
    opened = connect(
        loop=_Paired(ours),
        host="127.0.0.1",
        port=1,
        user="arena",
        password="arena",  # noqa: S106 - without one asyncpg reads the user's password file
        database="arena",
        ssl=False,
    )
    connection, _ = await gather(opened, _reply(theirs, _GREETING))
    if not isinstance(connection._transport, MovingTransport):  # noqa: SLF001 - the trial checks this name
        raise TypeError("a connection does not use the transport of its loop")
    if connection._listeners != {}:  # noqa: SLF001 - as above
        raise TypeError("a connection has no `_listeners`")
    if connection._protocol._is_cancelling():  # noqa: SLF001 - as above
        raise TypeError("a new connection cancels a statement")
    return connection


async def _answered(connection: Any, theirs: socket.socket) -> None:
    await gather(connection.execute("trial"), _reply(theirs, _ANSWER))
    if connection._transport.loop is not get_running_loop():  # noqa: SLF001 - as above
        raise RuntimeError("an operation of a connection creates no future")


async def _reply(theirs: socket.socket, message: bytes) -> None:
    loop = get_running_loop()
    await loop.sock_recv(theirs, 1000)
    await loop.sock_sendall(theirs, message)


class _Paired(RunningLoop):
    """A loop that connects to the other end of the socket pair."""

    def __init__(self, ours: socket.socket) -> None:
        super().__init__()
        self._ours = ours

    async def create_connection(
        self, factory: Any, *_: object, **__: object
    ) -> tuple[object, object]:
        return self._feed(factory(), self._ours)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


_READY: Final = _message(b"Z", b"I")
_GREETING: Final = (
    _message(b"R", struct.pack("!i", 0))
    + _message(b"S", b"server_version\x0015.0\x00")
    + _message(b"S", b"client_encoding\x00UTF8\x00")
    + _message(b"K", struct.pack("!ii", 1, 1))
    + _READY
)
_ANSWER: Final = _message(b"C", b"OK\x00") + _READY
