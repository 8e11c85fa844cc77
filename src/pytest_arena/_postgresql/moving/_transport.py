"""A loop and a transport that let an open connection change its event loop.

The loop forwards to the running loop. The transport reads its socket in the loop to which it is
attached.
"""

from __future__ import annotations

import asyncio
import select
import socket
import threading
from asyncio import AbstractEventLoop, Future, TimerHandle, get_running_loop
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, final

from pytest_arena._process import running_loop
from pytest_arena._product import nothing

if TYPE_CHECKING:
    from collections.abc import Callable

    Factory = Callable[[], object]
    Made = tuple[object, Any]


_READ_BYTES: Final = 256 * 1024  # as asyncio's transports read at once
_SECONDS_BETWEEN_LOOKS: Final = 1.0
# The server has closed the connection. Unread bytes may be left. poll() always reports POLLHUP and
# POLLERR.
_HUNG_UP: Final = getattr(select, "POLLRDHUP", 0)


@final
class MovingTransport(asyncio.Transport):
    """A socket that is read in one event loop, and in no loop while the connection is idle.

    - It may change its loop at any time. Bytes of the server wait in the socket. The next loop
      sends unsent bytes.
    - Any thread may close it, in any loop or in none. The server sees the end at once.
    - After ``detach`` the loop has no reader, writer or timer for the socket.
    - Only one thread at a time calls the protocol, under a lock.

    An ``attach`` and a ``detach`` cost about 10 µs, most of it for the selector. A write costs less
    than with asyncio's transport.

    There is no flow control for writes: the protocol would wait for an `asyncio.Event`, which
    belongs to the first loop that waits for it. Bytes that the socket does not take stay in memory.
    """

    def __init__(
        self,
        sock: socket.socket,
        protocol: Any,
        ended: Callable[[MovingTransport], None],
    ) -> None:
        super().__init__()
        # If this is true, the gate assigns the connection to no loop.
        self.moves_between_loops = True
        self.loop: AbstractEventLoop | None = None
        self._socket = sock
        self._number = sock.fileno()
        self._protocol = protocol
        self._ended = ended
        self._unsent = bytearray()
        self._watch: TimerHandle | None = None
        self._poll = select.poll()
        self._poll.register(self._number, _HUNG_UP)
        # Held while the protocol gets bytes, so that no thread reads the socket in the old loop
        # after a move. Reentrant, because the protocol calls the transport.
        self._guard = threading.RLock()
        self._is_paused = False
        self._is_over = False

    # -- loops

    def attach(self, loop: AbstractEventLoop) -> None:
        """Read and write in this loop, which runs in this thread. Leave the last loop."""
        with self._guard:
            if self.loop is loop or self._is_over:
                return
            self._detach()
            self.loop = loop
            if not self._is_paused:
                loop.add_reader(self._number, self._read, loop)
            if self._unsent:
                loop.add_writer(self._number, self._write, loop)
            if not isinstance(loop, asyncio.SelectorEventLoop):
                # libuv stops polling a reset socket without a callback.
                self._watch = loop.call_later(_SECONDS_BETWEEN_LOOKS, self._look, loop)

    def detach(self) -> None:
        """Leave the loop, from any thread. Bytes of the server wait in the socket."""
        with self._guard:
            self._detach()

    def stay(self) -> None:
        """Keep the connection in its present loop until it ends."""
        self.moves_between_loops = False

    def _detach(self, *, close: bool = False) -> None:
        left = self.loop
        watch = self._watch
        has_writer = bool(self._unsent)
        self.loop = None
        self._watch = None

        def forget() -> None:
            if left is not None and not left.is_closed():
                if watch is not None:
                    watch.cancel()
                if (
                    self.loop is not left
                ):  # the transport may be attached to the loop again
                    left.remove_reader(self._number)
                    if has_writer:
                        left.remove_writer(self._number)
            if close:
                # After the close another socket may get the same number.
                self._socket.close()

        if left is None or left is running_loop() or not left.is_running():
            forget()
            return
        if close:
            # The server sees the end now, before the loop calls `forget`.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        # No other thread may change a running loop's readers.
        try:
            left.call_soon_threadsafe(forget)
        except RuntimeError:  # another thread has closed the loop
            forget()

    # -- reading

    def _read(self, loop: AbstractEventLoop) -> bool:
        """Give received bytes to the protocol. Return whether the socket had any."""
        with self._guard:
            if loop is not self.loop or self._is_paused:
                return False  # the socket has left this loop
            try:
                data = self._socket.recv(_READ_BYTES)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                self._lose(error)
                return True
            if data:
                self._protocol.data_received(data)
            else:
                self._lose(None)
            return True

    def _drain(self, loop: AbstractEventLoop) -> None:
        while self._read(loop):
            pass

    def _look(self, loop: AbstractEventLoop) -> None:
        with self._guard:
            if loop is self.loop:
                self._watch = loop.call_later(_SECONDS_BETWEEN_LOOKS, self._look, loop)
                self._read(loop)

    def pause_reading(self) -> None:
        """Leave received bytes in the socket."""
        with self._guard:
            self._is_paused = True
            if self.loop is not None:
                self.loop.remove_reader(self._number)

    def resume_reading(self) -> None:
        """Give received bytes to the protocol again."""
        with self._guard:
            self._is_paused = False
            if self.loop is not None:
                self.loop.add_reader(self._number, self._read, self.loop)

    # -- writing

    def write(self, data: bytes | bytearray | memoryview[object]) -> None:
        """Send what the socket takes now, and the rest when it takes more."""
        if self._is_over:
            return
        if self.loop is not None and self._poll.poll(0):
            # The server has closed the connection. It would answer with a reset, and its last
            # message would be lost.
            self.loop.call_soon(self._drain, self.loop)
            return
        sent = 0
        if not self._unsent:
            try:
                sent = self._socket.send(data)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                self._lose_soon(error)
                return
        if sent < len(data):
            if not self._unsent and self.loop is not None:
                self.loop.add_writer(self._number, self._write, self.loop)
            self._unsent += memoryview(data)[sent:]

    def _write(self, loop: AbstractEventLoop) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        del self._unsent[:sent]
        if not self._unsent:
            loop.remove_writer(self._number)

    # -- the end

    def abort(self) -> None:
        """Close the socket now. Call the protocol in the running loop, or now if no loop runs."""
        self._lose_soon(None)

    close = abort  # asyncpg sends its last message before `close`

    def is_closing(self) -> bool:
        """Return whether the transport has ended."""
        return self._is_over

    def hand_over(self) -> socket.socket:
        """End without closing the socket. Return the socket for another transport."""
        with self._guard:
            self._end(close=False)
            return self._socket

    def _lose(self, error: Exception | None) -> None:
        if not self._is_over:
            self._end(close=True)
            self._protocol.connection_lost(error)

    def _lose_soon(self, error: Exception | None) -> None:
        with self._guard:
            if self._is_over:
                return
            self._end(close=True)
        loop = running_loop()
        if loop is None:
            self._protocol.connection_lost(error)
        else:
            loop.call_soon(self._protocol.connection_lost, error)

    def _end(self, *, close: bool) -> None:
        self._is_over = True
        self._detach(close=close)
        self._ended(self)

    # -- other methods that asyncpg calls

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Return the open socket, the only item that asyncpg requests."""
        if name == "socket" and not self._is_over:
            return self._socket
        return default

    def set_protocol(self, protocol: object) -> None:
        """Replace the protocol. asyncpg does so if the server has refused TLS."""
        self._protocol = protocol


def at_checkin(driver_connection: Any) -> None:
    """Detach an idle connection from its loop when it returns to its pool.

    A connection with listeners stays in its loop, so that it receives notifications while idle. A
    connection that cancels a statement stays, because asyncpg waits for the answer in this loop.
    """
    transport = getattr(driver_connection, "_transport", None)  # asyncpg's
    if not isinstance(transport, MovingTransport):
        return
    protocol = driver_connection._protocol  # noqa: SLF001 - the trial has checked this name
    if protocol is None:  # the connection was terminated
        transport.detach()
    elif protocol._is_cancelling():  # noqa: SLF001 - as above
        transport.stay()
    elif not driver_connection._listeners:  # noqa: SLF001 - as above
        transport.detach()


class RunningLoop:
    """The ``loop`` argument of an asyncpg connection. It forwards to the running loop.

    asyncpg creates a future at the start of each operation. At that time the connection's sockets
    are attached to the running loop.
    """

    def __init__(self, on_tls: Callable[[], None] = nothing) -> None:
        # Several transports exist while asyncpg tries hosts or cancels a statement.
        self._transports: list[MovingTransport] = []
        self._on_tls = on_tls

    def create_future(self) -> Future[object]:
        """Move the sockets to the running loop, and return a future of it."""
        loop = get_running_loop()
        for transport in tuple(self._transports):
            if transport.loop is not loop:
                transport.attach(loop)
        return loop.create_future()

    async def create_connection(
        self, factory: Factory, host: Any = None, port: Any = None, **options: Any
    ) -> Made:
        """Connect to the first of the host's addresses that answers, as asyncio does."""
        loop = get_running_loop()
        if options:  # TLS from the first byte
            self._on_tls()
            made: Made = await loop.create_connection(factory, host, port, **options)
            return made
        errors = []
        targets = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for family, _, _, _, address in targets:
            try:
                return await self._open(factory, family, address)
            except OSError as error:
                errors.append(error)
        if len(errors) == 1:
            raise errors[0]
        raise OSError(f"Multiple exceptions: {', '.join(map(str, errors))}")

    async def create_unix_connection(
        self, factory: Factory, path: Any, **options: Any
    ) -> Made:
        """Connect to a socket in the file system."""
        if options:
            made: Made = await get_running_loop().create_unix_connection(
                factory, path, **options
            )
            return made
        return await self._open(factory, socket.AF_UNIX, path)

    async def start_tls(
        self, transport: MovingTransport, protocol: Any, context: Any, **options: Any
    ) -> object:
        """Give the socket to a transport of the running loop. The connection stays in that loop.

        TLS over a `MovingTransport` would need asyncio's private ``sslproto``.
        """
        self._on_tls()
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
        """Return False, so that asyncpg always closes the connection."""
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
        transport.attach(get_running_loop())
        protocol.connection_made(transport)
        return transport, protocol


@final
class MovingConnect:
    """``asyncpg.connect`` with a new `RunningLoop` for each connection.

    SQLAlchemy before 2.0.57 has one dictionary of arguments for all connections of an engine.
    Several threads may call this at the same time.
    """

    def __init__(
        self, connect: Callable[..., object], on_tls: Callable[[], None]
    ) -> None:
        self._connect = connect
        self._on_tls = on_tls

    def __call__(self, *arguments: object, **options: object) -> object:
        # With a lifetime each cached statement has a timer in its loop. Another thread would cancel
        # the timer later, which uvloop does not allow.
        options["max_cached_statement_lifetime"] = 0
        return self._connect(*arguments, **options, loop=RunningLoop(self._on_tls))
