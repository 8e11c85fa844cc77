"""May a new connection move between loops: is it wanted, and can it with the installed asyncpg?"""

from __future__ import annotations

import asyncio
import socket
import struct
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

# What came out of the trial for each kind of loop.
_reasons: Final[dict[type[AbstractEventLoop], str]] = {}


def prepare(
    dialect: Dialect, cparams: dict[str, Any], *, tell: Callable[[str], None]
) -> None:
    """Let the connection that is about to be made move between loops, where that is possible.

    To be called when an engine connects, with the arguments that the driver is going to get.
    ``tell`` gets a line for the summary where a connection has to stay in its loop. Tries asyncpg
    out at its first connection in each kind of loop, which takes about 2 ms.
    """
    if isinstance(cparams.get("async_creator_fn"), MovingConnect):
        del cparams[
            "async_creator_fn"
        ]  # another loop's, in a dictionary that is used again
    # An app's own function may not know the argument, and its own loop is what it wants.
    has_own_way = any(map(cparams.get, ("async_creator_fn", "loop")))
    loop = running_loop()
    if (
        loop is None
        or has_own_way
        or (dialect.is_async, dialect.driver) != (True, "asyncpg")
    ):
        return
    driver: Any = dialect.dbapi
    kind = type(loop)
    if kind not in _reasons:
        _reasons[kind] = why_not(driver.asyncpg.connect, kind)
    if _reasons[kind]:
        tell(_stays(f"this asyncpg, in a {kind.__name__}: {_reasons[kind]}"))
        return
    on_tls = partial(tell, _stays("TLS"))
    cparams["async_creator_fn"] = MovingConnect(driver.asyncpg.connect, on_tls)


def _stays(reason: str) -> str:
    return (
        "connections of asyncpg are made anew in each event loop, which takes some milliseconds "
        f"a test: they cannot move between loops ({reason})"
    )


def why_not(connect: Callable[..., Any], kind: type[AbstractEventLoop]) -> str:
    """Return "" where a connection can move between loops of this kind, else what went wrong.

    A connection is made, in a thread of its own, to a server that is the other end of a pair of
    sockets; used in one loop, then in a second; and closed where no loop runs. That is all of
    asyncpg's unwritten contract. Takes about 2 ms; reaches nothing outside of the process.
    """
    # A second loop cannot run in a thread where one does, as it does where engines connect.
    with ThreadPoolExecutor(1) as thread:
        error = thread.submit(_try_out, connect, kind).exception()
    return f"{type(error).__name__}: {error}" if error else ""


def _try_out(connect: Callable[..., Any], kind: type[AbstractEventLoop]) -> None:
    ours, theirs = socket.socketpair()
    with as_own(), ours, theirs:  # asyncpg's own function is guarded
        ours.settimeout(0)
        theirs.settimeout(0)
        connection = _run(kind, _greeted(connect, ours, theirs))
        try:
            for _ in range(2):
                _run(kind, _answered(connection, theirs))
        finally:
            connection.terminate()
        if not (
            connection.is_closed() and theirs.recv(100) and theirs.recv(100) == b""
        ):
            raise RuntimeError("a connection is not closed by terminate()")


def _run(kind: type[AbstractEventLoop], work: Coroutine[Any, Any, Any]) -> Any:
    with closing(kind()) as loop:
        return loop.run_until_complete(asyncio.wait_for(work, _SECONDS))


async def _greeted(
    connect: Callable[..., Any], ours: socket.socket, theirs: socket.socket
) -> Any:
    opened = connect(
        loop=_Paired(ours),
        host="127.0.0.1",
        port=1,
        user="arena",
        password="arena",  # noqa: S106 - else asyncpg looks for one in the user's files
        database="arena",
        ssl=False,
    )
    connection, _ = await asyncio.gather(opened, _reply(theirs, _GREETING))
    if not isinstance(connection._transport, MovingTransport):  # noqa: SLF001 - one of the names that are on trial
        raise TypeError(
            "a connection's transport is not the one that its loop has made"
        )
    if connection._listeners != {}:  # noqa: SLF001 - as above
        raise TypeError("a connection keeps its listeners elsewhere")
    return connection


async def _answered(connection: Any, theirs: socket.socket) -> None:
    await asyncio.gather(connection.execute("trial"), _reply(theirs, _ANSWER))
    if connection._transport.loop is not asyncio.get_running_loop():  # noqa: SLF001 - as above
        raise RuntimeError("a connection makes no future when an operation begins")


async def _reply(theirs: socket.socket, message: bytes) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_recv(theirs, 1000)
    await loop.sock_sendall(theirs, message)


class _Paired(RunningLoop):
    """Connects to nothing but the other end."""

    def __init__(self, ours: socket.socket) -> None:
        super().__init__()
        self._ours = ours

    async def create_connection(
        self, factory: Any, *_: Any, **__: Any
    ) -> tuple[Any, Any]:
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
