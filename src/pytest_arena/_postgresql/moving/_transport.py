"""How does an open socket follow its connection from one event loop to the next?"""

from __future__ import annotations

import asyncio
import select
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, final

from pytest_arena._process import running_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable, Iterable

__all__ = ["MovingTransport"]

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

    moves_between_loops = True  # by this the gate knows that its connection belongs to none

    def __init__(
        self, sock: socket.socket, protocol: Any, ended: Callable[[MovingTransport], None]
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
                if self.loop is not left:  # it may have come back before this was called
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
                self._socket.shutdown(socket.SHUT_RDWR)  # the server waits for no other thread
        try:
            left.call_soon_threadsafe(forget)  # loops are not to be touched from other threads
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

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Send them in one piece: one call of the system, where they fit."""
        self.write(b"".join(list_of_data))

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

    def get_write_buffer_size(self) -> int:
        """Tell how many bytes the socket has not taken yet."""
        return len(self._unsent)

    # -- the end

    def abort(self) -> None:
        """Close the socket now; the protocol hears of it soon, or now where no loop runs."""
        self._lose_soon(None)

    def close(self) -> None:
        """Do as `abort()` does: whoever closes an asyncpg connection has said goodbye before."""
        self._lose_soon(None)

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
        """Tell about the socket, while there is one."""
        if self._is_over:
            return default
        if name == "peername":
            return self._socket.getpeername()
        if name == "sockname":
            return self._socket.getsockname()
        return self._socket if name == "socket" else default

    def get_protocol(self) -> Any:
        """Return whom it feeds."""
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        """Feed another one from now on: a connection that asked for TLS first, in vain."""
        self._protocol = protocol
