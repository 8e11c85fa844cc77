"""A queue and a mutex for waiters in any event loop.

SQLAlchemy's pool queue and its mutexes are asyncio's. They bind to the first loop in which a task
waits for them. So a suite may pass for months, until one test exhausts the pool.
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

# Without it, two threads that adopt one pool could give it two queues. It is reentrant because the
# garbage collector may check a connection in, and the gate listens to that.
_adopting: Final = threading.RLock()


def install() -> None:
    """Let tasks of any loop and thread wait for new pools, and for an engine's first connection.

    In the whole process, `AsyncAdaptedQueuePool` gets another queue class, and `AsyncAdaptedLock`
    (the lock of an engine's first connection) another mutex. Existing pools keep their queue until
    `adopt`. Call this before the app is imported, while no engine connects. Idempotent.
    """
    owner: Any = AsyncAdaptedQueuePool
    owner._queue_class = AnyLoopQueue  # noqa: SLF001 - a pool has no public place for it
    owner = AsyncAdaptedLock
    owner.mutex = property(_first_connect_mutex)


def adopt(pool: Pool) -> None:
    """Let tasks of any loop and thread wait for a pool that is older than `install`.

    Call it only while no task waits for the pool. Any thread may call it, also twice. The new queue
    shares the container of the old one, so idle connections stay, also one that another thread
    returns at this moment. A queue class that the app has chosen stays.
    """
    if isinstance(pool, QueuePool):
        with _adopting:
            queue = pool._pool  # noqa: SLF001 - a pool has no public place for it
            # The class itself: FallbackAsyncAdaptedQueue (2.0) also waits outside of greenlets.
            if type(queue) is AsyncAdaptedQueue:
                pool._pool = AnyLoopQueue.heir_of(queue)  # noqa: SLF001 - as above


def hand_out_newest(pool: Pool) -> None:
    """Let a pool hand out the connection that was returned last.

    Otherwise a request might meet the session state of the previous request or not, depending on
    the number of idle connections that earlier tests have opened.
    """
    if isinstance(pool, QueuePool):
        pool._pool.use_lifo = True  # noqa: SLF001 - as above; `recreate` keeps it


def free_locks(dbapi_connection: object) -> None:
    """Replace a connection's locks by locks for which tasks of any loop and thread may wait.

    They are asyncio's lock around the statements of SQLAlchemy's adapted connections, and the lock
    of psycopg's `AsyncConnection`. A lock in use is kept: a later checkout replaces it.
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

    It has the contract of SQLAlchemy's `AsyncAdaptedQueue`: without blocking it raises `Empty` or
    `Full` at once, else `Empty` after *timeout* seconds. A *maxsize* of 0 or less is no limit. A
    `get` does not await if an item exists. `put` never waits: a full pool closes the connection.
    In addition:

    - *No waiter is stranded.* The queue does not hand a returned item to a waiter, because the
      waiter could be cancelled, late, or in a loop that does not run. It keeps the item and wakes
      one waiter of each loop. A woken waiter that leaves wakes the next one.
    - *Waiters of one loop take turns*: a new waiter does not take an item for which a waiter of its
      loop was woken. Between loops the first that looks takes it. One loop may not run until the
      other is done (the sync test client in an async test), so giving way could be a deadlock.
    - *It is reentrant*, like SQLAlchemy's `Queue`: the garbage collector may return a connection
      during a `get`.

    Without waiters a `get` and a `put` cost 1.3 µs together (SQLAlchemy's: 0.5). A waiter costs one
    future a turn and, with a timeout, one timer. A returned item costs one wake-up for each waiting
    loop.
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
        # Invariant: each loop has as many woken waiters as the queue has items, or all are woken.
        self._waiters: dict[AbstractEventLoop, _LoopWaiters] = {}

    @classmethod
    def heir_of(cls, queue: AsyncAdaptedQueue[_T]) -> AnyLoopQueue[_T]:
        """Create a queue that shares the items of a queue of SQLAlchemy."""
        inner: Any = queue._queue  # noqa: SLF001 - nothing public reaches the container itself
        heir = cls(queue.maxsize, queue.use_lifo)
        heir._items = inner._queue  # noqa: SLF001 - as above; a list in asyncio's LifoQueue
        return heir

    def empty(self) -> bool:
        """Return whether the queue has no item now."""
        return not self._items

    def full(self) -> bool:
        """Return whether the queue has no room now."""
        return 0 < self.maxsize <= len(self._items)

    def qsize(self) -> int:
        """Return the present number of items."""
        return len(self._items)

    def get_nowait(self) -> _T:
        """Take an item, or raise `Empty`."""
        with self._guard:
            # A user of the old queue may take an item without the guard, so do not check first.
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
        """Add an item, or raise `Full` at once, also with ``block``."""
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
        # Waiters of this loop have precedence.
        if not self._waiters or running_loop() not in self._waiters:
            with suppress(Empty):
                return self.get_nowait()
        waiter = _Waiter(get_running_loop(), seconds)
        try:
            if self._register(waiter):
                await waiter.turn
            taken = self._take_for(waiter)
            while taken is None:
                await waiter.turn
                taken = self._take_for(waiter)
            return taken[0]
        except BaseException:
            self._unregister(waiter)
            self._wake_waiters()  # it may have been woken for an item that it does not take
            raise
        finally:
            waiter.close()

    def _wake_waiters(self) -> None:
        with self._guard:
            closed = [loop for loop in tuple(self._waiters) if loop.is_closed()]
            abandoned = [self._waiters.pop(loop, None) for loop in closed]
            for waiters in tuple(self._waiters.values()):
                waiters.wake_first()
        # Outside of the guard: freeing an abandoned task runs its code.
        del abandoned

    def _register(self, waiter: _Waiter) -> bool:
        """Add a waiter at the end. Return whether woken waiters of its loop have precedence."""
        with self._guard:
            waiters = self._waiters.setdefault(waiter.loop, _LoopWaiters())
            waiters.sleeping.append(waiter.turn)
            has_woken = bool(waiters.woken)
            if has_woken:
                waiters.wake_first()
            return has_woken

    def _take_for(self, waiter: _Waiter) -> tuple[_T] | None:
        """Take an item in a tuple. Return None if the waiter has to wait again."""
        with self._guard:
            if waiter.turn.done():
                # A woken waiter keeps the first place until it has an item.
                waiters = self._waiters[waiter.loop]
                waiters.remove(waiter.turn)
                waiter.renew()
                waiters.sleeping.appendleft(waiter.turn)
            try:
                # The waiter stays registered, so the next item wakes it.
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
        """Return whether a task holds the lock."""
        return self._token.empty()

    async def acquire(self) -> Literal[True]:
        """Wait until no task holds the lock, then hold it."""
        await self._token.aget()
        return True

    def release(self) -> None:
        """Release the lock. Needs no loop."""
        try:
            self._token.put_nowait(None)
        except Full:
            raise RuntimeError("Lock is not acquired.") from None

    async def __aenter__(self) -> None:
        await self._token.aget()

    async def __aexit__(self, *_: object) -> None:
        self.release()


class _LoopWaiters:
    """The waiters of one loop: a queue of sleeping ones, and the woken ones."""

    def __init__(self) -> None:
        self.sleeping: deque[Future[None]] = deque()
        self.woken: set[Future[None]] = set()

    def wake_first(self) -> None:
        """Wake the first sleeping waiter."""
        # No check before `popleft`: the garbage collector may take the last one in between.
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
    """A waiting task: the future of its next turn, and whether its time is up."""

    def __init__(self, loop: AbstractEventLoop, seconds: float | None) -> None:
        self.loop = loop
        self.is_late = False
        self.turn: Future[None] = loop.create_future()
        self._timer = (
            None if seconds is None else loop.call_later(seconds, self._expire)
        )

    def renew(self) -> None:
        """Create the future of another turn."""
        self.turn = self.loop.create_future()

    def _expire(self) -> None:
        # `asyncio.timeout` would cancel the task. A late waiter looks for an item a last time.
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
    # `setdefault` is atomic. With `cached_property` two threads could create one mutex each. A
    # property has precedence over the Lock that SQLAlchemy may have cached before.
    mutex: AnyLoopMutex = vars(lock).setdefault("_any_loop_mutex", AnyLoopMutex())
    return mutex


def _is_idle(lock: Lock) -> bool:
    # A free lock may have a waiter that was just woken. It does not count if its loop is closed.
    waiters = lock._waiters or ()  # noqa: SLF001 - asyncio has nothing public for it
    return not lock.locked() and all(
        waiter.get_loop().is_closed() for waiter in waiters
    )
