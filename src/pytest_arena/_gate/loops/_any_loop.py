"""A queue and a mutex that wait in any event loop.

SQLAlchemy's pool queue and its mutexes are asyncio's. They tie themselves to the first loop in
which a task has to wait: a suite passes for months, until one test exhausts the pool.
"""

from __future__ import annotations

import threading
from asyncio import Lock, get_running_loop
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, final

from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool, QueuePool
from sqlalchemy.util import (
    await_only,
)  # 2.1 calls it await_, and keeps this name for now
from sqlalchemy.util.concurrency import AsyncAdaptedLock
from sqlalchemy.util.queue import AsyncAdaptedQueue, Empty, Full, QueueCommon

from pytest_arena._process import running_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Iterable


_T = TypeVar("_T")

# Two threads that adopt one pool at once would each give it a queue of its own. The lock is
# reentrant: garbage collection may check a connection in, and the gate listens.
_adopting: Final = threading.RLock()


def install() -> None:
    """Let any loop and thread wait for every pool made from now on, and for first connections.

    For the whole process, `AsyncAdaptedQueuePool` gets another queue class, and `AsyncAdaptedLock`
    (one caller at a time makes an engine's first connection) gets another mutex. A second call
    changes nothing. Existing pools keep their queue until `adopt`. Call it while no thread makes a
    first connection: before the app is imported.
    """
    owner: Any = AsyncAdaptedQueuePool
    owner._queue_class = AnyLoopQueue  # noqa: SLF001 - a pool has no public place for it
    owner = AsyncAdaptedLock
    owner.mutex = property(_first_connect_mutex)


def adopt(pool: Pool) -> None:
    """Let any loop and thread wait for a pool that was made before `install`.

    Any thread may call it for any pool, also twice, as long as no task waits for the pool. The new
    queue takes over the container of the old one. So idle connections stay, and a connection that
    another thread returns at this moment arrives. A queue class that the app has chosen stays.
    """
    if isinstance(pool, QueuePool):
        with _adopting:
            queue = pool._pool  # noqa: SLF001 - a pool has no public place for it
            # The class itself: FallbackAsyncAdaptedQueue (2.0) also waits outside of greenlets.
            if type(queue) is AsyncAdaptedQueue:
                pool._pool = AnyLoopQueue.heir_of(queue)  # noqa: SLF001 - as above


def hand_out_newest(pool: Pool) -> None:
    """Let a pool hand out the connection that was returned last.

    Otherwise the number of idle connections, which earlier tests have opened, decides whether a
    request meets the session state that the request before it left.
    """
    if isinstance(pool, QueuePool):
        pool._pool.use_lifo = True  # noqa: SLF001 - as above; `recreate` keeps it


def free_locks(dbapi_connection: object) -> None:
    """Replace a connection's locks by locks for which tasks of any loop and thread may wait.

    They are asyncio's lock around the statements of SQLAlchemy's adapted connections, and the lock
    of psycopg's `AsyncConnection`. One call for a new connection is enough. If the connection was
    opened before pytest-arena listened, its lock is replaced at a later checkout, when it is free.
    """
    if not hasattr(dbapi_connection, "driver_connection"):
        return  # the connection of a sync driver has no such locks
    driver_connection = dbapi_connection.driver_connection
    for owner, name in (
        (dbapi_connection, "_execute_mutex"),
        (driver_connection, "lock"),
    ):
        lock = getattr(owner, name, None)
        if type(lock) is Lock and _is_idle(lock):
            setattr(owner, name, AnyLoopMutex())


@final
class AnyLoopQueue(QueueCommon[_T]):
    """The queue of a pool, for waiters in any loop and thread.

    The contract is that of SQLAlchemy's `AsyncAdaptedQueue`: `Empty` or `Full` at once without
    blocking, else `Empty` after *timeout* seconds. A *maxsize* of 0 or less is no limit. An item
    that is there is taken without awaiting. `put` never waits: a pool closes what has no room.
    Beyond the contract:

    - *No waiter is stranded.* A returned item is handed to no waiter, because that could be
      cancelled, late, or in a loop that is closed or does not run. The item goes into the queue,
      and one waiter of each loop is woken. A woken waiter that leaves wakes the next one.
    - *In turn within a loop*: a newcomer does not take an item for which a waiter of its loop was
      woken. Between loops, the first to look takes it. One loop may not run until the other is done
      (the sync test client in an async test), so that giving way would be a deadlock.
    - *Reentrant*, as SQLAlchemy's `Queue` explains for itself: garbage collection may return a
      connection in the middle of a `get`.

    Without waiters a `get` and a `put` cost 1.3 µs together (SQLAlchemy's: 0.5). A waiter costs one
    future a turn and, with a timeout, one timer. A returned item costs one wake-up for each loop
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
        # Between any two steps, as many waiters of each loop are woken as there are items, or all.
        self._waiters: dict[AbstractEventLoop, _LoopWaiters] = {}

    @classmethod
    def heir_of(cls, queue: AsyncAdaptedQueue[_T]) -> AnyLoopQueue[_T]:
        """Make the queue that takes over the items of one of SQLAlchemy's."""
        inner: Any = queue._queue  # noqa: SLF001 - nothing public reaches the container itself
        heir = cls(queue.maxsize, queue.use_lifo)
        heir._items = inner._queue  # noqa: SLF001 - as above; a list in asyncio's LifoQueue
        return heir

    def empty(self) -> bool:
        """Return whether there is no item at this moment."""
        return not self._items

    def full(self) -> bool:
        """Return whether there is no room at this moment."""
        return 0 < self.maxsize <= len(self._items)

    def qsize(self) -> int:
        """Return how many items there are at this moment."""
        return len(self._items)

    def get_nowait(self) -> _T:
        """Take an item, or raise `Empty`."""
        with self._guard:
            # A user of the queue that was taken over takes items without our guard.
            try:
                return self._items.pop() if self.use_lifo else self._items.popleft()  # type: ignore[union-attr]  # a list is always LIFO
            except IndexError:
                raise Empty from None

    def put_nowait(self, item: _T) -> None:
        """Add an item, or raise `Full`. Needs no loop."""
        with self._guard:
            if 0 < self.maxsize <= len(self._items):
                raise Full
            self._items.append(item)
        if self._waiters:
            self._wake_waiters()

    def put(self, item: _T, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002, FBT001, FBT002 - SQLAlchemy's signature
        """Add an item, or raise `Full` at once, whether to block or not."""
        self.put_nowait(item)

    def get(self, block: bool = True, timeout: float | None = None) -> _T:  # noqa: FBT001, FBT002 - SQLAlchemy's signature
        """Take an item. Wait for it in SQLAlchemy's greenlet."""
        if not block:
            return self.get_nowait()
        if not self._waiters or running_loop() not in self._waiters:
            with suppress(Empty):
                return self.get_nowait()
        return await_only(self.aget(timeout))

    async def aget(self, seconds: float | None = None) -> _T:
        """Wait for an item and take it, or raise `Empty` when the time is up."""
        # A newcomer lets the waiters of its loop go first.
        if not self._waiters or running_loop() not in self._waiters:
            with suppress(Empty):
                return self.get_nowait()
        waiter = _Waiter(get_running_loop(), seconds)
        try:
            if self._register(waiter):
                await waiter.turn
            while (taken := self._take_for(waiter)) is None:
                await waiter.turn
            return taken[0]
        except BaseException:
            self._unregister(waiter)
            self._wake_waiters()  # this waiter may have been woken, and takes nothing
            raise
        finally:
            waiter.close()

    def _wake_waiters(self) -> None:
        """Wake one waiter of each loop."""
        with self._guard:
            closed = [loop for loop in tuple(self._waiters) if loop.is_closed()]
            abandoned = [self._waiters.pop(loop, None) for loop in closed]
            for waiters in tuple(self._waiters.values()):
                waiters.wake_first()
        # Not under the guard: an abandoned task ends here, and its code runs.
        del abandoned

    def _register(self, waiter: _Waiter) -> bool:
        """Take the last place. Return whether woken waiters of this loop look first."""
        with self._guard:
            waiters = self._waiters.setdefault(waiter.loop, _LoopWaiters())
            waiters.sleeping.append(waiter.turn)
            has_woken = bool(waiters.woken)
            if has_woken:
                waiters.wake_first()
            return has_woken

    def _take_for(self, waiter: _Waiter) -> tuple[_T] | None:
        """Take an item. Return None if the waiter has to wait again."""
        with self._guard:
            if waiter.turn.done():
                # A woken waiter stays in front until it has an item.
                waiters = self._waiters[waiter.loop]
                waiters.remove(waiter.turn)
                waiter.renew()
                waiters.sleeping.appendleft(waiter.turn)
            try:
                # The waiter is registered, so it misses no item.
                item = self.get_nowait()
            except Empty:
                if waiter.is_late:
                    raise
                return None
            self._unregister(waiter)
            return (item,)

    def _unregister(self, waiter: _Waiter) -> None:
        with self._guard:
            waiters = self._waiters.get(waiter.loop)
            if waiters is not None and waiters.remove(waiter.turn):
                del self._waiters[waiter.loop]


@final
class AnyLoopMutex:
    """`asyncio.Lock`, for waiters in any loop and thread.

    It is an `AnyLoopQueue` with one token, with the same guarantees. To acquire and release costs
    1.8 µs (asyncio's: 0.4).
    """

    def __init__(self) -> None:
        self._token: AnyLoopQueue[None] = AnyLoopQueue(maxsize=1, holds=[None])

    def locked(self) -> bool:
        """Return whether a task holds it."""
        return self._token.empty()

    async def acquire(self) -> Literal[True]:
        """Wait until no task holds it, then hold it."""
        await self._token.aget()
        return True

    def release(self) -> None:
        """Release it. Needs no loop."""
        try:
            self._token.put_nowait(None)
        except Full:
            raise RuntimeError("Lock is not acquired.") from None

    async def __aenter__(self) -> None:
        await self._token.aget()

    async def __aexit__(self, *_: object) -> None:
        self.release()


class _LoopWaiters:
    """The waiters of one loop: those that sleep, in turn, and those that are woken."""

    def __init__(self) -> None:
        self.sleeping: deque[Future[None]] = deque()
        self.woken: set[Future[None]] = set()

    def wake_first(self) -> None:
        """Wake the first waiter that sleeps."""
        # `popleft` in one step: a garbage collection after a check may take the last one.
        with suppress(IndexError):
            first = self.sleeping.popleft()
            self.woken.add(first)
            _wake_in_its_loop(first)

    def remove(self, turn: Future[None]) -> bool:
        """Remove a waiter. Return whether none is left."""
        self.woken.discard(turn)
        with suppress(ValueError):
            self.sleeping.remove(turn)
        return not (self.woken or self.sleeping)


class _Waiter:
    """One task that waits: its next turn, and whether its time is up."""

    def __init__(self, loop: AbstractEventLoop, seconds: float | None) -> None:
        self.loop = loop
        self.is_late = False
        self.turn: Future[None] = loop.create_future()
        self._timer = (
            None if seconds is None else loop.call_later(seconds, self._expire)
        )

    def renew(self) -> None:
        """Make another turn."""
        self.turn = self.loop.create_future()

    def _expire(self) -> None:
        # `asyncio.timeout` would cancel. A late waiter still looks a last time.
        self.is_late = True
        _wake(self.turn)

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()


def _wake_in_its_loop(turn: Future[None]) -> None:
    with suppress(RuntimeError):  # its loop is closed
        turn.get_loop().call_soon_threadsafe(_wake, turn)


def _wake(turn: Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


def _first_connect_mutex(lock: AsyncAdaptedLock) -> AnyLoopMutex:
    # `setdefault` is one step. With `cached_property` two threads could make, and hold, one each.
    # A property takes precedence over the Lock that SQLAlchemy may have cached before.
    mutex: AnyLoopMutex = vars(lock).setdefault("_any_loop_mutex", AnyLoopMutex())
    return mutex


def _is_idle(lock: Lock) -> bool:
    # A task that was just woken finds the lock free and still waits, unless its loop is closed.
    waiters = lock._waiters or ()  # noqa: SLF001 - asyncio has nothing public for it
    return not lock.locked() and all(
        waiter.get_loop().is_closed() for waiter in waiters
    )
