"""What passes for asyncpg's event loop, and is whichever loop runs?"""

from __future__ import annotations

import socket
from asyncio import get_running_loop
from typing import TYPE_CHECKING, Any, final

from pytest_arena._postgresql.moving._transport import MovingTransport

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable

    Factory = Callable[[], Any]
    Made = tuple[Any, Any]

__all__ = ["MovingConnect", "RunningLoop"]


class RunningLoop:
    """The ``loop`` of one asyncpg connection: it forwards to the loop that runs.

    asyncpg makes a future at the start of each operation. That is when the connection's sockets
    board the running loop; a get_running_loop() and a comparison, where they are there already.
    """

    def __init__(self, on_tls: Callable[[], None] | None = None) -> None:
        # More than one while hosts are tried, or a statement is cancelled, which takes a
        # connection of its own.
        self._transports: list[MovingTransport] = []
        self._on_tls = on_tls

    def create_future(self) -> Future[Any]:
        """Make a future of the running loop, and bring the sockets there."""
        loop = get_running_loop()
        for transport in tuple(self._transports):
            if transport.loop is not loop:
                transport.board(loop)
        return loop.create_future()

    async def create_connection(
        self, factory: Factory, host: Any = None, port: Any = None, **options: Any
    ) -> Made:
        """Connect to the first of the host's addresses that answers, as asyncio does."""
        loop = get_running_loop()
        if options:  # TLS from the first byte
            self._tell_of_tls()
            made: Made = await loop.create_connection(factory, host, port, **options)
            return made
        errors: list[OSError] = []
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for family, _, _, _, address in found:
            try:
                return await self._open(factory, family, address)
            except OSError as error:
                errors.append(error)
        if len(errors) == 1:
            raise errors[0]
        raise OSError(f"Multiple exceptions: {', '.join(map(str, errors))}")

    async def create_unix_connection(self, factory: Factory, path: Any, **options: Any) -> Made:
        """Connect to a socket in the file system."""
        if options:
            made: Made = await get_running_loop().create_unix_connection(factory, path, **options)
            return made
        return await self._open(factory, socket.AF_UNIX, path)

    async def start_tls(
        self, transport: MovingTransport, protocol: Any, context: Any, **options: Any
    ) -> Any:
        """Give the socket to a transport of the running loop, where it stays.

        TLS over a transport of ours would take asyncio's private ``sslproto``.
        """
        self._tell_of_tls()
        sock = transport.hand_over()
        try:
            made, _ = await get_running_loop().create_connection(
                lambda: protocol, sock=sock, ssl=context, **options
            )
        except BaseException:
            sock.close()
            raise
        return made

    def is_closed(self) -> bool:
        """Never: a connection can be closed from anywhere, which is what asyncpg wants to know."""
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(get_running_loop(), name)

    async def _open(self, factory: Factory, family: int, address: Any) -> Made:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(0)
            await get_running_loop().sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return self._feed(factory(), sock)

    def _feed(self, protocol: Any, sock: socket.socket) -> Made:
        transport = MovingTransport(sock, protocol, self._transports.remove)
        self._transports.append(transport)
        transport.board(get_running_loop())
        protocol.connection_made(transport)
        return transport, protocol

    def _tell_of_tls(self) -> None:
        if self._on_tls is not None:
            self._on_tls()


@final
class MovingConnect:
    """``asyncpg.connect`` for connections that move: each has a `RunningLoop` of its own.

    SQLAlchemy before 2.0.57 has one dictionary of arguments for all connections of an engine:
    what is put there must serve several at once, made in several threads.
    """

    def __init__(self, connect: Callable[..., Any], on_tls: Callable[[], None]) -> None:
        self._connect = connect
        self._on_tls = on_tls

    def __call__(self, *given: Any, **options: Any) -> Any:
        # With a lifetime, each statement in the cache has a timer in the loop where it was
        # prepared: it would be cancelled from other threads later, which uvloop does not allow.
        options["max_cached_statement_lifetime"] = 0
        return self._connect(*given, **options, loop=RunningLoop(self._on_tls))
