"""How can any event loop and any thread wait for one pool, and for one connection?

SQLAlchemy's pool queue and its mutexes are asyncio's, which tie themselves to the first loop *in
which somebody has to wait*: a suite passes for months, until one test exhausts the pool. Here are
a queue and a mutex whose waiters may live in any loop of any thread. Where a driver ties
connections to the loop in which they were made, they are dropped in other loops without a word.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import weakref
from _thread import start_new_thread
from collections import deque
from contextlib import suppress
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, final

from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool, QueuePool
from sqlalchemy.util import (
    await_only,
)  # 2.1 calls it await_, and keeps this name for now
from sqlalchemy.util.concurrency import AsyncAdaptedLock, in_greenlet
from sqlalchemy.util.queue import AsyncAdaptedQueue, Empty, Full, QueueCommon

from pytest_arena._process import alive, running_loop
from pytest_arena._product import nothing

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable, Iterable


_T = TypeVar("_T")

# Two threads that adopt one pool at once would each give it a queue of its own. (Reentrant: garbage
# collection may check a connection in, and the gate listens.)
_adopting: Final = threading.RLock()


def install() -> None:
    """Let any loop and thread wait for every pool made from now on, and for first connections.

    For the whole process, `AsyncAdaptedQueuePool` gets another queue class, and `AsyncAdaptedLock`
    (one caller at a time makes an engine's first connection) another mutex. Harmless when done
    before. Pools that exist already keep their queue until `adopt()`. Call it while nobody makes a
    first connection: before the app is imported. Costs what `AnyLoopQueue` does.
    """
    owner: Any = AsyncAdaptedQueuePool
    owner._queue_class = AnyLoopQueue  # noqa: SLF001 - a pool has no public place for it
    owner = AsyncAdaptedLock
    owner.mutex = property(_first_connect_mutex)


def adopt(pool: Pool) -> None:
    """Let any loop and thread wait for a pool that was made before `install()`.

    May be called from any thread, any number of times, for any pool, as long as nobody waits for
    it: the new queue takes over the very container of the old one, so that idle connections stay,
    and what another thread is giving back at this moment arrives. A queue class that is not
    SQLAlchemy's own stays: somebody chose it. Costs a type check once done.

    The locks of its connections are another matter: `free_locks()`.
    """
    if isinstance(pool, QueuePool):
        with _adopting:
            queue = pool._pool  # noqa: SLF001 - as above
            # The very class: FallbackAsyncAdaptedQueue (2.0) waits outside of greenlets, too.
            if type(queue) is AsyncAdaptedQueue:
                pool._pool = AnyLoopQueue.heir_of(queue)  # noqa: SLF001 - as above


def free_locks(dbapi_connection: object) -> None:
    """Let any loop and thread wait for its turn on this connection, until it is closed.

    Replaces asyncio's lock around the statements of SQLAlchemy's adapted connections, and that of
    psycopg's `AsyncConnection`. Once, when the connection is new, is enough: nobody can hold the
    lock yet, and a lock for any loop need not be looked at again. For a connection that is older
    than the gate, any checkout will do: a lock that somebody holds or waits for stays as it is.

    Costs two attribute look-ups once done, and then what `AnyLoopMutex` does.
    """
    driver_connection = getattr(dbapi_connection, "driver_connection", None)
    for owner, name in (
        (dbapi_connection, "_execute_mutex"),
        (driver_connection, "lock"),
    ):
        lock = getattr(owner, name, None)
        if type(lock) is asyncio.Lock and _is_idle(lock):
            setattr(owner, name, AnyLoopMutex())


@final
class AnyLoopQueue(QueueCommon[_T]):
    """The queue of a pool, for waiters in any loop and thread.

    The contract is that of SQLAlchemy's `AsyncAdaptedQueue`: `Empty` or `Full` at once where one
    is not to block, else after *timeout* seconds; a *maxsize* of 0 or less is no limit; what is
    there is taken without awaiting. Nobody waits for room: a pool closes what has none. And beyond
    it:

    - *Nobody is stranded.* An item that comes back is handed to no one: its taker could be
      cancelled, late, or in a loop that is closed or stands still. It goes into the queue, and one
      waiter of each loop is told to look. Who was told and leaves tells the next.
    - *In turn within a loop*: a newcomer does not take what a waiter of its loop was told of.
      Between loops, whoever looks first takes it: one loop may stand still until the other is
      done (the sync test client in an async test), so that giving way would be a deadlock.
    - *Reentrant*, as SQLAlchemy's `Queue` explains for itself: garbage collection may give a
      connection back in the middle of a `get`.

    Without waiters a `get` and a `put` cost 1.3 µs together (SQLAlchemy's: 0.5); a waiter one
    future a turn and, with a timeout, one timer; an item that comes back one wake-up for each loop
    that waits.
    """

    def __init__(
        self,
        maxsize: int = 0,
        use_lifo: bool = False,  # noqa: FBT001, FBT002 - SQLAlchemy's signature
        *,
        holds: Iterable[_T] = (),
    ) -> None:
        self.maxsize = maxsize
        self.use_lifo = use_lifo
        self._items: deque[_T] | list[_T] = deque(holds)
        self._guard = threading.RLock()
        # Who waits, by loops. What holds between any two steps: in each row, as many are told to
        # look as there are things to take, or all of them.
        self._rows: dict[AbstractEventLoop, _Row] = {}

    @classmethod
    def heir_of(cls, queue: AsyncAdaptedQueue[_T]) -> AnyLoopQueue[_T]:
        """Make the queue that takes over the items of one of SQLAlchemy's."""
        inner: Any = queue._queue  # noqa: SLF001 - nothing public reaches the container itself
        heir = cls(queue.maxsize, queue.use_lifo)
        heir._items = inner._queue  # noqa: SLF001 - as above; a list in asyncio's LifoQueue
        return heir

    def empty(self) -> bool:
        """Tell whether there is nothing to get, at this moment."""
        return not self._items

    def full(self) -> bool:
        """Tell whether there is no room to put, at this moment."""
        return 0 < self.maxsize <= len(self._items)

    def qsize(self) -> int:
        """Tell how many items are there, at this moment."""
        return len(self._items)

    def get_nowait(self) -> _T:
        """Take an item, or raise `Empty`."""
        with self._guard:
            # Tried, not asked first: who is still in a queue taken over takes without our guard.
            try:
                return self._items.pop() if self.use_lifo else self._items.popleft()  # type: ignore[union-attr]  # a list is always LIFO
            except IndexError:
                raise Empty from None

    def put_nowait(self, item: _T) -> None:
        """Add an item, or raise `Full`. Needs no loop."""
        with self._guard:
            if self.full():
                raise Full
            self._items.append(item)
        self._tell()

    def put(self, item: _T, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002, FBT001, FBT002 - SQLAlchemy's signature
        """Add an item, or raise `Full` at once, whether to block or not."""
        self.put_nowait(item)

    def get(self, block: bool = True, timeout: float | None = None) -> _T:  # noqa: FBT001, FBT002 - SQLAlchemy's signature
        """Take an item, in SQLAlchemy's greenlet if it has to be waited for."""
        if not block:
            return self.get_nowait()
        if self._is_clear():
            with suppress(Empty):
                return self.get_nowait()
        return await_only(self.aget(timeout))

    async def aget(self, seconds: float | None = None) -> _T:
        """Take an item, however long that takes, or raise `Empty` when the time is up."""
        if self._is_clear():
            with suppress(Empty):
                return self.get_nowait()
        seat = _Seat(asyncio.get_running_loop(), seconds)
        try:
            if self._sit_down(seat):
                await seat.turn
            while (found := self._look(seat)) is None:
                await seat.turn
            return found[0]
        except BaseException:
            self._stand_up(seat)
            self._tell()  # we may have been told, and take nothing
            raise
        finally:
            seat.close()

    def _is_clear(self) -> bool:
        """Tell whether nobody of the running loop waits."""
        return not self._rows or running_loop() not in self._rows

    def _tell(self) -> None:
        """Let one waiter of each loop look."""
        if not self._rows:
            return
        with self._guard:
            gone = [
                self._rows.pop(loop, None)
                for loop in tuple(self._rows)
                if loop.is_closed()
            ]
            for row in tuple(self._rows.values()):
                row.tell()
        del gone  # not under the guard: an abandoned task ends here, and runs what code it likes

    def _sit_down(self, seat: _Seat) -> bool:
        """Take the last place; tell whether others have been told, who look first."""
        with self._guard:
            row = self._rows.setdefault(seat.loop, _Row())
            row.untold.append(seat.turn)
            if others_first := bool(row.told):
                row.tell()
            return others_first

    def _look(self, seat: _Seat) -> tuple[_T] | None:
        """Take an item; None where there is to be another look."""
        with self._guard:
            if (
                seat.turn.done()
            ):  # it was told, and sits in front until it has something
                row = self._rows[seat.loop]
                row.forget(seat.turn)
                seat.turn = seat.loop.create_future()
                row.untold.appendleft(seat.turn)
            try:
                # After sitting down: nothing that comes amid it is missed.
                found = self.get_nowait()
            except Empty:
                if seat.late:
                    raise
                return None
            self._stand_up(seat)
            return (found,)

    def _stand_up(self, seat: _Seat) -> None:
        with self._guard:
            row = self._rows.get(seat.loop)
            if row is not None and row.forget(seat.turn):
                del self._rows[seat.loop]


@final
class AnyLoopMutex:
    """`asyncio.Lock`, for waiters in any loop and thread.

    It is an `AnyLoopQueue` that holds one token, with the same guarantees. To acquire and release
    it costs 1.8 µs (asyncio's: 0.4).
    """

    def __init__(self) -> None:
        self._token: AnyLoopQueue[None] = AnyLoopQueue(maxsize=1, holds=[None])

    def locked(self) -> bool:
        """Tell whether somebody holds it."""
        return self._token.empty()

    async def acquire(self) -> Literal[True]:
        """Wait until nobody holds it, then hold it."""
        await self._token.aget()
        return True

    def release(self) -> None:
        """Let the next one have it. Needs no loop."""
        try:
            self._token.put_nowait(None)
        except Full:
            raise RuntimeError("Lock is not acquired.") from None

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()


class _Row:
    """The waiters of one loop: who is to be told, in turn, and who was told and is to look."""

    def __init__(self) -> None:
        self.untold: deque[Future[None]] = deque()
        self.told: set[Future[None]] = set()

    def tell(self) -> None:
        """Tell the first who does not know."""
        # In one step: a garbage collection between "is there one" and "take it" may take it.
        with suppress(IndexError):
            first = self.untold.popleft()
            self.told.add(first)
            _call(first)

    def forget(self, turn: Future[None]) -> bool:
        """Let one leave; tell whether the row is empty now."""
        self.told.discard(turn)
        with suppress(ValueError):
            self.untold.remove(turn)
        return not (self.told or self.untold)


class _Seat:
    """The place of one waiter: its next turn, and whether its time is up."""

    def __init__(self, loop: AbstractEventLoop, seconds: float | None) -> None:
        self.loop = loop
        self.late = False
        self.turn: Future[None] = loop.create_future()
        self._alarm = (
            None if seconds is None else loop.call_later(seconds, self._expire)
        )

    def _expire(self) -> None:
        # No cancellation as with asyncio.timeout(): who is late still has a last look.
        self.late = True
        _wake(self.turn)

    def close(self) -> None:
        """Forget the time."""
        if self._alarm is not None:
            self._alarm.cancel()


def _call(turn: Future[None]) -> None:
    with suppress(RuntimeError):  # its loop is closed
        turn.get_loop().call_soon_threadsafe(_wake, turn)


def _wake(turn: Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


def _first_connect_mutex(lock: AsyncAdaptedLock) -> AnyLoopMutex:
    # setdefault is one step, where a cached_property lets two threads make, and hold, one each.
    # A property, for it goes before the asyncio.Lock that SQLAlchemy may have cached before.
    mutex: AnyLoopMutex = vars(lock).setdefault("_any_loop_mutex", AnyLoopMutex())
    return mutex


def _is_idle(lock: asyncio.Lock) -> bool:
    # Who has just been woken finds the lock free and waits all the same; with its loop closed,
    # nobody does.
    waiters = lock._waiters or ()  # noqa: SLF001 - nothing public tells of them
    return not lock.locked() and all(
        waiter.get_loop().is_closed() for waiter in waiters
    )


# Connections that cannot leave their loop.

# Their connections wait with what the running loop offers, and belong to none.
_WITHOUT_LOOP = frozenset({"psycopg", "aiosqlite"})

# A loop that ends when its owner lets go of it.
_Loop = weakref.ref["AbstractEventLoop"]
_owners: weakref.WeakKeyDictionary[Any, _Loop] = weakref.WeakKeyDictionary()
_watched_loops: weakref.WeakSet[AbstractEventLoop] = weakref.WeakSet()


def note_owner(dbapi_connection: object) -> None:
    """Remember in which loop a new connection was made, where it cannot leave it.

    To be called for each new connection, however it was made. When its loop is closed, it is
    closed first: afterwards nothing could be said to it any more, its socket would be collected
    with a ResourceWarning, and uvloop waits for ever where that is an error.
    """
    connection = getattr(dbapi_connection, "driver_connection", None)
    loop = running_loop()
    if connection is None or loop is None or _is_without_loop(connection):
        return
    with suppress(TypeError):  # a driver's class that has no weak references
        _owners[connection] = weakref.ref(loop)
        _watch(loop)


def is_foreign(dbapi_connection: object) -> bool:
    """Whether a connection belongs to another loop than the running one. Costs about 1 µs."""
    connection = getattr(dbapi_connection, "driver_connection", None)
    if connection is None:
        return False
    with suppress(TypeError):  # as above
        owner = _owners.get(connection)
        return owner is not None and owner() is not running_loop()
    return False


def drop_quietly(dialect: Any) -> None:
    """Have the pools of a dialect drop what belongs to another loop, instead of talking to it.

    SQLAlchemy pings a connection *before* any listener may look at it, and terminates one by
    saying goodbye in the running loop: either fails in another loop, with tracebacks in the log.
    Wraps three methods of the dialect, none of its class; a call more for each ping and close.
    """
    if not dialect.is_async:
        return
    quiet = _without_awaiting if dialect.driver in _WITHOUT_LOOP else _quiet
    dialect.do_close, dialect.do_terminate = (
        quiet(dialect.do_close),
        quiet(dialect.do_terminate),
    )
    if quiet is _quiet:
        ping = dialect.do_ping
        dialect.do_ping = lambda connection: (
            not is_foreign(connection) and ping(connection)
        )


def transport_of(connection: Any) -> Any:
    """Return the transport of a driver's connection, None where its place is not known."""
    writer = getattr(
        connection, "_writer", None
    )  # of MySQL's drivers; asyncpg has none
    return getattr(connection, "_transport", None) or getattr(writer, "transport", None)


def _quiet(end: Callable[[Any], None]) -> Callable[[Any], None]:
    def close(dbapi_connection: Any) -> None:
        connection = dbapi_connection.driver_connection
        transport = transport_of(connection)
        if is_foreign(dbapi_connection):
            _hang_up(connection)
        else:
            try:
                end(dbapi_connection)
            except RuntimeError:
                # Somebody was still at it in a loop that is closed: a statement being cancelled.
                _hang_up(connection)
        if (
            getattr(transport, "moves_between_loops", False)
            and not transport.is_closing()
        ):
            transport.abort()  # asyncpg takes a connection that the server has ended for closed

    return close


def _without_awaiting(end: Callable[[Any], None]) -> Callable[[Any], None]:
    """Psycopg's connections are closed by awaiting alone; libpq's can be, anywhere.

    The worker of aiosqlite's answers the loop in which it is stopped, and that may be closed by
    then. A thread has none; threading's own waits for a lock, which the collector may come upon.
    """

    def close(dbapi_connection: Any) -> None:
        if in_greenlet():
            end(dbapi_connection)
        elif stop := getattr(dbapi_connection.driver_connection, "stop", None):
            start_new_thread(stop, ())
        else:
            dbapi_connection.driver_connection.pgconn.finish()

    return close


def _hang_up(connection: Any) -> None:
    """End a connection that belongs to another loop, whatever that one does."""
    owner = _owners.get(connection, nothing)()
    if owner is None or owner.is_closed():
        _force_close(connection)
        return
    if not owner.is_running():
        # It may never run again, but it is open, and so the socket's number is still its own.
        with suppress(Exception):  # a driver whose socket is elsewhere, or closed
            number = transport_of(connection).get_extra_info("socket").fileno()
            with socket.socket(fileno=os.dup(number)) as copy:
                copy.shutdown(socket.SHUT_RDWR)
    with suppress(RuntimeError):  # closed meanwhile
        owner.call_soon_threadsafe(_force_close, connection)


def _force_close(connection: Any) -> None:
    """Have a driver do what it can without awaiting: asyncpg's terminate(), MySQL's close()."""
    end = getattr(connection, "terminate", None) or getattr(connection, "close", None)
    if end is not None and not iscoroutinefunction(end):
        with suppress(Exception):  # it finds that its loop or its socket is closed
            end()


def _watch(loop: AbstractEventLoop) -> None:
    """Have a loop close its connections before it is closed itself. Nothing else tells of it."""
    if loop in _watched_loops:
        return
    _watched_loops.add(loop)
    close = loop.close

    def close_all() -> None:
        if not (loop.is_closed() or loop.is_running()):
            _close_those_of(loop)
        close()

    with suppress(AttributeError):  # a loop whose methods cannot be replaced
        loop.close = close_all  # type: ignore[method-assign]  # of this one instance


def _close_those_of(loop: AbstractEventLoop) -> None:
    mine = [each for each in alive(_owners) if _owners.get(each, nothing)() is loop]
    for connection in mine:
        _force_close(connection)
    with suppress(RuntimeError):  # another loop runs in this thread
        if mine:
            # Transports close their sockets in the next round.
            loop.call_soon(loop.stop)
            loop.run_forever()


def _is_without_loop(connection: Any) -> bool:
    is_moving = getattr(transport_of(connection), "moves_between_loops", False)
    return is_moving or type(connection).__module__.partition(".")[0] in _WITHOUT_LOOP
