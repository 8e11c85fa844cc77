"""How does an open socket follow its connection from one event loop to the next?

asyncpg is given a loop that is whichever runs, and sockets that are read in whichever it boards.
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

    Factory = Callable[[], Any]
    Made = tuple[Any, Any]


_AT_ONCE: Final = 256 * 1024  # bytes: what asyncio's own transports read at once
_SECONDS_BETWEEN_LOOKS: Final = 1.0
# What tells that the server has hung up, though its last words are still to be read. POLLHUP and
# POLLERR are told unasked.
_HUNG_UP: Final = getattr(select, "POLLRDHUP", 0)


@final
class MovingTransport(asyncio.Transport):
    """A socket that is read in whichever loop it was told to board last, and in none when idle.

    - *It may move at any time*: what the server sends meanwhile waits in the socket, what could
      not be sent is sent in the next loop.
    - *It may be closed from anywhere*: from any thread, in a loop or in none, in one that the
      socket never saw. The server sees the end at once.
    - *Nothing of it stays in a loop* that it has left; with `leave()` before a loop is closed,
      that loop knows nothing of the socket.
    - *Two loops at once* are the protocol's affair: it is called under a lock, by one thread at a
      time, but its operations still belong to one of them.

    To board and leave costs about 10 µs together, most of it the selector's; a write less than
    with asyncio's transport.

    There is no flow control for writes, for the protocol's answer to it would be an
    `asyncio.Event`, which ties itself to the first loop in which somebody waits for it. What the
    socket does not take is kept in memory, however much that is.
    """

    moves_between_loops = (
        True  # by this the gate knows that its connection belongs to none
    )

    def __init__(
        self,
        sock: socket.socket,
        protocol: Any,
        ended: Callable[[MovingTransport], None],
    ) -> None:
        super().__init__()
        self.loop: AbstractEventLoop | None = None
        self._socket = sock
        self._number = sock.fileno()
        self._protocol = protocol
        self._ended = ended
        self._unsent = bytearray()
        self._watch: TimerHandle | None = None
        self._poll = select.poll()
        self._poll.register(self._number, _HUNG_UP)
        # Held while the protocol is fed: who has taken the socket into another loop must find
        # that nobody is still reading in the old one. Reentrant, for the protocol calls us.
        self._guard = threading.RLock()
        self._is_paused = False
        self._is_over = False

    # -- which loop

    def board(self, loop: AbstractEventLoop) -> None:
        """Read and write in this loop from now on, which runs in this thread."""
        with self._guard:
            if self.loop is loop or self._is_over:
                return
            self._let_go()
            self.loop = loop
            if not self._is_paused:
                loop.add_reader(self._number, self._read, loop)
            if self._unsent:
                loop.add_writer(self._number, self._write, loop)
            if not isinstance(loop, asyncio.SelectorEventLoop):
                # libuv stops polling a socket that is reset, and tells nobody.
                self._watch = loop.call_later(_SECONDS_BETWEEN_LOOKS, self._look, loop)

    def leave(self) -> None:
        """Belong to no loop, from any thread; whatever the server says waits."""
        with self._guard:
            self._let_go()

    def _let_go(self, *, close: bool = False) -> None:
        left, self.loop = self.loop, None
        watch, self._watch = self._watch, None

        def forget() -> None:
            if left is not None and not left.is_closed():
                if watch is not None:
                    watch.cancel()
                if (
                    self.loop is not left
                ):  # it may have come back before this was called
                    left.remove_reader(self._number)
                    left.remove_writer(self._number)
            if close:
                # Not before the loop has forgotten its number, which the next socket may get.
                self._socket.close()

        if left is None or left is running_loop() or not left.is_running():
            forget()
            return
        if close:
            with suppress(OSError):
                self._socket.shutdown(
                    socket.SHUT_RDWR
                )  # the server waits for no other thread
        try:
            left.call_soon_threadsafe(
                forget
            )  # loops are not to be touched from other threads
        except RuntimeError:  # closed meanwhile
            forget()

    # -- reading

    def _read(self, loop: AbstractEventLoop) -> bool:
        """Hand over what has arrived; tell whether there was something."""
        with self._guard:
            if loop is not self.loop or self._is_paused:
                return False  # it has left, and its loop is about to hear of it
            try:
                data = self._socket.recv(_AT_ONCE)
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
        """Let what arrives wait in the socket."""
        with self._guard:
            self._is_paused = True
            if self.loop is not None:
                self.loop.remove_reader(self._number)

    def resume_reading(self) -> None:
        """Hand over what arrives again."""
        with self._guard:
            self._is_paused = False
            if self.loop is not None:
                self.loop.add_reader(self._number, self._read, self.loop)

    # -- writing

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send it, or as much as goes at once, and the rest when the socket takes it."""
        if self._is_over:
            return
        if self.loop is not None and self._poll.poll(0):
            # To a server that has hung up nothing is written: it would answer with a reset, which
            # says less than its last words do, and of which libuv tells nobody.
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
        """Close the socket now; the protocol hears of it soon, or now where no loop runs."""
        self._lose_soon(None)

    close = abort  # whoever closes an asyncpg connection has said goodbye before

    def is_closing(self) -> bool:
        """Tell whether it is over."""
        return self._is_over

    def hand_over(self) -> socket.socket:
        """Be over without closing the socket, which goes to another transport."""
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
        self._let_go(close=close)
        self._ended(self)

    # -- what else a transport tells

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Tell the socket, while there is one: asyncpg asks for nothing else."""
        return self._socket if name == "socket" and not self._is_over else default

    def set_protocol(self, protocol: Any) -> None:
        """Feed another one from now on: a connection that asked for TLS first, in vain."""
        self._protocol = protocol


def at_checkin(driver_connection: Any) -> None:
    """An idle connection belongs to no loop. To be called when one is back in its pool.

    One that listens to notifications stays where it is, and hears them while it is idle.
    """
    transport = getattr(driver_connection, "_transport", None)  # asyncpg's
    if isinstance(transport, MovingTransport) and not driver_connection._listeners:  # noqa: SLF001 - nothing public tells of them; the trial has looked
        transport.leave()


class RunningLoop:
    """The ``loop`` of one asyncpg connection: it forwards to the loop that runs.

    asyncpg makes a future at the start of each operation. That is when the connection's sockets
    board the running loop; a get_running_loop() and a comparison, where they are there already.
    """

    def __init__(self, on_tls: Callable[[], None] = nothing) -> None:
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
            self._on_tls()
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
    ) -> Any:
        """Give the socket to a transport of the running loop, where it stays.

        TLS over a transport of ours would take asyncio's private ``sslproto``.
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
