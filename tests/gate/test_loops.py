"""Any event loop and any thread may wait for one pool, and for one connection.

Each attack is a function that says what came out of it. It is made twice: on SQLAlchemy's own
queue and locks, where it must fail (the twin: it keeps the attack from going blind), and on ours.
"""

import asyncio
import gc
import logging
import random
import threading
import weakref
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import aiosqlite
import pytest
from sqlalchemy import event, text
from sqlalchemy.connectors.asyncio import AsyncAdapt_dbapi_connection
from sqlalchemy.dialects.mysql.aiomysql import AsyncAdapt_aiomysql_connection
from sqlalchemy.dialects.mysql.asyncmy import AsyncAdapt_asyncmy_connection
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, Pool, QueuePool, StaticPool
from sqlalchemy.util import await_only, greenlet_spawn
from sqlalchemy.util.concurrency import AsyncAdaptedLock
from sqlalchemy.util.queue import AsyncAdaptedQueue, Empty, Full, QueueCommon

from pytest_arena._gate.loops import _any_loop
from pytest_arena._gate.loops._any_loop import AnyLoopMutex, AnyLoopQueue
from tests.gate.moving_setting import loops_installed

T = TypeVar("T")
Outcomes = list[object]
Work = Coroutine[Any, Any, T]

# No test waits that long: it is how a lost wake-up ends, instead of never. (Not as a timeout of
# the queue itself, which has a last look then: it would make up for what was lost.)
FOR_EVER = 60


class Loop(Protocol):
    """A loop that does one thing after another for the test."""

    def call(self, work: Work[T]) -> T:
        """Run a coroutine to its end; what other tasks do meanwhile is up to the loop."""


@dataclass(frozen=True)
class Here:
    """A loop in this thread: it stands still whenever nothing is called."""

    runner: asyncio.Runner

    def call(self, work: Work[T]) -> T:
        """Run a coroutine."""

        async def work_in_time() -> T:
            async with asyncio.timeout(FOR_EVER):
                return await work

        return self.runner.run(work_in_time())


@dataclass(frozen=True)
class There:
    """A loop in another thread: it goes on between calls."""

    loop: asyncio.AbstractEventLoop

    def call(self, work: Work[T]) -> T:
        """Run a coroutine, and wait here."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(FOR_EVER)


@dataclass(frozen=True)
class Loops:
    """Makes loops of one kind."""

    factory: Callable[[], asyncio.AbstractEventLoop]
    debug: bool = False

    @contextmanager
    def here(self) -> Iterator[Loop]:
        """Make a loop in this thread."""
        with asyncio.Runner(loop_factory=self.factory, debug=self.debug) as runner:
            yield Here(runner)

    @contextmanager
    def there(self) -> Iterator[Loop]:
        """Make a loop in a thread of its own."""
        ready: deque[asyncio.AbstractEventLoop] = deque()
        started, over = threading.Event(), asyncio.Event()

        async def stay() -> None:
            ready.append(asyncio.get_running_loop())
            started.set()
            await over.wait()

        def work() -> None:
            with asyncio.Runner(loop_factory=self.factory, debug=self.debug) as runner:
                runner.run(stay())

        thread = threading.Thread(target=work)
        thread.start()
        started.wait(FOR_EVER)
        try:
            yield There(ready[0])
        finally:
            ready[0].call_soon_threadsafe(over.set)
            thread.join(FOR_EVER)


def uvloop_or_skip() -> asyncio.AbstractEventLoop:
    """Make a loop of uvloop's."""
    loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    return loop


def patient_loop() -> asyncio.AbstractEventLoop:
    """Make a loop that in debug mode says nothing of what takes long: machines differ."""
    loop = asyncio.new_event_loop()
    loop.slow_callback_duration = FOR_EVER
    return loop


# Pitfall 18: the same results with uvloop, and in debug mode.
KINDS = {
    "asyncio": Loops(asyncio.new_event_loop),
    "debug": Loops(patient_loop, debug=True),
    "uvloop": Loops(uvloop_or_skip),
}


@pytest.fixture(params=["asyncio", pytest.param("debug", marks=pytest.mark.slow), "uvloop"])
def loops(request: pytest.FixtureRequest) -> Loops:
    """Loops of each kind."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return KINDS[request.param]


@pytest.fixture
def plain_loops() -> Loops:
    """Loops for the twins: others only differ in how they say that a loop is the wrong one."""
    return KINDS["asyncio"]


@pytest.fixture(autouse=True)
def nothing_is_logged(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """Let no logger keep a failure to itself (pitfall 2); the twins may log theirs."""
    yield
    loud = [record for record in caplog.get_records("call") if record.levelno >= logging.WARNING]
    assert not loud or "_twin" in request.node.name


@pytest.fixture
def installed() -> Iterator[None]:
    """What the gate does: our classes, and free locks from the first connection on."""
    with loops_installed():
        event.listen(Pool, "connect", free_the_locks)
        yield
        event.remove(Pool, "connect", free_the_locks)


def free_the_locks(dbapi_connection: object, _record: object) -> None:
    """Listen as the gate does."""
    _any_loop.free_locks(dbapi_connection)


class Database:
    """A SQLite file, the engines on it, and every connection that they made."""

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self.made: list[aiosqlite.Connection] = []

    def engine(self, **options: Any) -> AsyncEngine:
        """Make an engine; with one connection, if nothing else is said."""
        if not options:
            options = {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1, "max_overflow": 0}
        if options["poolclass"] is AsyncAdaptedQueuePool:
            options["pool_timeout"] = None
        return create_async_engine("sqlite+aiosqlite://", async_creator=self.connect, **options)

    async def connect(self) -> aiosqlite.Connection:
        """Make a connection."""
        # SQLAlchemy sets both on the connections that it makes itself.
        connecting = aiosqlite.connect(self.path, check_same_thread=False)
        if isinstance(connecting, threading.Thread):
            connecting.daemon = True
        connection = await connecting
        self.made.append(connection)
        return connection

    async def close(self) -> None:
        """Close what the engines, or SQLAlchemy's failures, have left open."""
        for connection in self.made:
            with suppress(ValueError):  # aiosqlite < 0.22 says so of a closed connection
                await connection.close()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database file of the test's own."""
    database = Database(tmp_path / "arena.db")
    yield database
    asyncio.run(database.close())


async def take(engine: AsyncEngine) -> AsyncConnection:
    """Take a connection, and keep it."""
    return await engine.connect().start()


async def query(engine: AsyncEngine) -> object:
    """Take a connection, use it, give it back."""
    async with engine.connect() as connection:
        return await connection.scalar(text("SELECT 1"))


async def start(count: int, ask: Callable[[], Work[Any]]) -> list[asyncio.Task[Any]]:
    """Start that many tasks, and return when each has come to where it has to wait.

    Nothing is awaited between the mark that a task sets and the wait inside of *ask*.
    """
    everybody = asyncio.Event()
    asked: list[None] = []

    async def mark_and_ask() -> object:
        asked.append(None)
        if len(asked) == count:
            everybody.set()
        return await ask()

    tasks = [asyncio.create_task(mark_and_ask()) for _ in range(count)]
    await everybody.wait()
    await passes(1)  # SQLAlchemy 2.0 on Python 3.11 waits in a task of its own, one pass later
    return tasks


async def passes(count: int) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def outcomes(tasks: Sequence[Awaitable[Any]]) -> Outcomes:
    """Wait for tasks: for each its result, or its exception."""
    found: Outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    return found


async def crowd(engine: AsyncEngine, count: int) -> Outcomes:
    """Somebody has the only connection; that many wait for it; it comes back."""
    holder = await take(engine)
    tasks = await start(count, lambda: query(engine))
    await holder.close()
    return await outcomes(tasks)


def nothing() -> Any:
    """Make no connection: for pools that are never connected."""


def queue_of(engine: AsyncEngine) -> QueueCommon[Any]:
    """Where the engine's pool keeps its idle connections."""
    pool = engine.pool
    assert isinstance(pool, QueuePool)
    return pool._pool


def is_loop_error(outcome: object) -> bool:
    """Whether it is asyncio's complaint that two loops use one thing."""
    return isinstance(outcome, RuntimeError) and "different event loop" in str(outcome)


def tally(found: Outcomes) -> Counter[str]:
    """How many went well, how many failed for the loop's sake, and how else."""
    return Counter(
        "loop"
        if is_loop_error(one)
        else "cancelled"
        if isinstance(one, asyncio.CancelledError)
        else repr(one)
        for one in found
    )


class TestOneLoopAfterAnother:
    """Five wait in loop A, then five in loop B: a loop for each test, or for each request."""

    @staticmethod
    def attack(engine: AsyncEngine, loops: Loops, rounds: int = 2) -> list[Counter[str]]:
        """Let five wait in one loop after another."""
        seen = []
        for _ in range(rounds):
            with loops.here() as loop:
                seen.append(tally(loop.call(crowd(engine, 5))))
        with loops.here() as loop:
            loop.call(engine.dispose())
        return seen

    @pytest.mark.usefixtures("installed")
    def test_a_global_engine_and_a_loop_for_each_test_pitfall_004(
        self, loops: Loops, database: Database
    ) -> None:
        """All are served in each loop."""
        assert self.attack(database.engine(), loops) == [{"1": 5}, {"1": 5}]

    def test_twin_pitfall_004(self, plain_loops: Loops, database: Database) -> None:
        """SQLAlchemy's queue belongs to the first loop in which somebody waited."""
        assert self.attack(database.engine(), plain_loops) == [{"1": 5}, {"loop": 5}]

    @pytest.mark.usefixtures("installed")
    def test_fifty_loops_and_one_connection_pitfall_007(
        self, loops: Loops, database: Database
    ) -> None:
        """The test client without `with` makes a loop for each request: nothing grows."""
        assert self.attack(database.engine(), loops, 50) == [{"1": 5}] * 50
        assert len(database.made) == 1

    @pytest.mark.usefixtures("installed")
    def test_no_loop_is_kept_alive_pitfall_012(self, loops: Loops, database: Database) -> None:
        """When nobody waits any more, the queue knows no loop."""
        engine = database.engine()

        async def wait() -> weakref.ref[asyncio.AbstractEventLoop]:
            assert tally(await crowd(engine, 2)) == {"1": 2}
            assert asyncio.all_tasks() == {asyncio.current_task()}
            await engine.dispose()
            return weakref.ref(asyncio.get_running_loop())

        with loops.here() as loop:
            found = loop.call(wait())
        for thread in threading.enumerate():  # aiosqlite's has told the loop that it ends
            if "_connection_worker_thread" in thread.name:
                thread.join(FOR_EVER)
        del loop
        gc.collect()
        assert found() is None

    @pytest.mark.usefixtures("installed")
    def test_a_disposed_engine_is_used_again_pitfall_013(
        self, loops: Loops, database: Database
    ) -> None:
        """A pool that is made again gets our queue again."""
        engine = database.engine()
        for _ in range(2):
            assert self.attack(engine, loops) == [{"1": 5}, {"1": 5}]

    @pytest.mark.usefixtures("installed")
    @pytest.mark.parametrize("use_lifo", [False, True])
    def test_a_pool_without_limit_never_waits(
        self, loops: Loops, database: Database, *, use_lifo: bool
    ) -> None:
        """With `pool_size=0` each finds a connection, old or new."""
        engine = database.engine(
            poolclass=AsyncAdaptedQueuePool, pool_size=0, pool_use_lifo=use_lifo
        )
        assert self.attack(engine, loops) == [{"1": 5}, {"1": 5}]


class TestThreads:
    """Loops that run at the same time, each in its thread, wait for one connection."""

    @staticmethod
    def attack(engine: AsyncEngine, loops: Loops) -> list[Counter[str]]:
        """Let twenty wait in each of two threads; the connection comes back in the first."""
        with loops.there() as a, loops.there() as b:
            holder = a.call(take(engine))
            waiting = [(loop, loop.call(start(20, lambda: query(engine)))) for loop in (a, b)]
            a.call(holder.close())
            seen = [tally(loop.call(outcomes(tasks))) for loop, tasks in waiting]
            a.call(engine.dispose())
        return seen

    @pytest.mark.usefixtures("installed")
    def test_two_threads_of_twenty_pitfall_010(self, loops: Loops, database: Database) -> None:
        """All forty are served."""
        assert self.attack(database.engine(), loops) == [{"1": 20}, {"1": 20}]

    def test_twin_pitfall_010(self, plain_loops: Loops, database: Database) -> None:
        """With SQLAlchemy's queue the second loop may not even wait."""
        assert self.attack(database.engine(), plain_loops) == [{"1": 20}, {"loop": 20}]

    @staticmethod
    def wake_across(queue: QueueCommon[str], loops: Loops) -> Outcomes:
        """Give something back, in this thread, for which a loop in another one waits."""

        async def get() -> str:
            return await greenlet_spawn(queue.get)

        with loops.there() as there:
            tasks = there.call(start(1, get))
            queue.put_nowait("item")
            return there.call(outcomes(tasks))

    def test_a_waiter_is_woken_from_another_thread_pitfall_010(self) -> None:
        """Its loop hears of it, though it may be asleep in `select`."""
        calls: list[str] = []
        watched = Loops(lambda: Watched(calls))
        assert self.wake_across(AnyLoopQueue(), watched) == ["item"]
        assert "call_soon" not in calls

    def test_a_waiter_is_woken_from_another_thread_twin_pitfall_010(self) -> None:
        """`asyncio.Queue` lets the loop sleep on: it would wait until something else happens."""
        calls: list[str] = []
        watched = Loops(lambda: Watched(calls))
        assert self.wake_across(AsyncAdaptedQueue(), watched) == ["item"]
        assert "call_soon" in calls

    @staticmethod
    def attack_while_one_stands_still(engine: AsyncEngine, loops: Loops) -> list[Counter[str]]:
        """Let one wait in a loop that stands still, and then one in a loop that runs."""
        with loops.here() as still, loops.there() as running:
            holder = running.call(take(engine))
            first = still.call(start(1, lambda: query(engine)))
            second = running.call(start(1, lambda: query(engine)))
            running.call(holder.close())
            seen = [tally(running.call(outcomes(second)))]
            seen.append(tally(still.call(outcomes(first))))
            running.call(engine.dispose())
        return seen

    @pytest.mark.usefixtures("installed")
    def test_a_loop_that_stands_still_takes_nothing_pitfall_006(
        self, loops: Loops, database: Database
    ) -> None:
        """The sync test client in an async test: its thread is served, and the test after it."""
        assert self.attack_while_one_stands_still(database.engine(), loops) == [{"1": 1}] * 2

    def test_twin_pitfall_006(self, plain_loops: Loops, database: Database) -> None:
        """SQLAlchemy's queue already belongs to the loop that stands still."""
        seen = self.attack_while_one_stands_still(database.engine(), plain_loops)
        assert seen == [{"loop": 1}, {"1": 1}]


class Watched(asyncio.SelectorEventLoop):
    """A loop that notes when another thread talks to it without waking it."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__()
        self.calls = calls
        self.thread = threading.get_ident()

    def call_soon(self, *args: Any, **options: Any) -> asyncio.Handle:  # type: ignore[override]  # hands on whatever it gets
        """Do as asked."""
        if threading.get_ident() != self.thread:
            self.calls.append("call_soon")
        return super().call_soon(*args, **options)


class TestCancelled:
    """Waits are cancelled, also as the connection comes back; then another loop waits."""

    @staticmethod
    def attack(engine: AsyncEngine, loops: Loops, delay: int) -> list[Counter[str]]:
        """Cancel two who wait, and the first that many passes after the connection came back."""

        async def give_back_and_cancel(
            holder: AsyncConnection, tasks: list[asyncio.Task[Any]]
        ) -> Outcomes:
            for later in (tasks[1], tasks[3]):
                later.cancel()
            await holder.close()
            await passes(delay)
            tasks[0].cancel()
            return await outcomes(tasks)

        with loops.here() as a:
            holder = a.call(take(engine))
            tasks = a.call(start(5, lambda: query(engine)))
            seen = [tally(a.call(give_back_and_cancel(holder, tasks)))]
        with loops.here() as b:
            seen.append(tally(b.call(crowd(engine, 5))))
            assert queue_of(engine).qsize() == 1
            b.call(engine.dispose())
        return seen

    @pytest.mark.usefixtures("installed")
    @pytest.mark.parametrize("delay", range(5))
    def test_cancelled_waits_pitfall_016(
        self, loops: Loops, database: Database, delay: int
    ) -> None:
        """Nothing is lost, at whichever step of being woken the first is cancelled."""
        first, second = self.attack(database.engine(), loops, delay)
        assert first == {"1": 2, "cancelled": 3}
        assert second == {"1": 5}

    def test_cancelled_waits_twin_pitfall_016(self, plain_loops: Loops, database: Database) -> None:
        """With SQLAlchemy's queue the other loop may not wait."""
        assert self.attack(database.engine(), plain_loops, 0)[1] == {"loop": 5}

    @pytest.mark.parametrize("ours", [False, True])
    def test_a_cancelled_query_pitfall_016(
        self, request: pytest.FixtureRequest, loops: Loops, database: Database, *, ours: bool
    ) -> None:
        """A query is cancelled, the engine used, then used in another loop.

        No twin: SQLAlchemy drops the connection, which frees its lock too. As well as without us
        is what there is to show.
        """
        if ours:
            request.getfixturevalue("installed")
        engine = database.engine()
        running, go_on = threading.Event(), threading.Event()

        def pause() -> int:
            running.set()
            return int(go_on.wait(FOR_EVER))

        async def cancel_a_query() -> Outcomes:
            holder = await take(engine)
            await database.made[0].create_function("pause", 0, pause)
            task = asyncio.create_task(holder.scalar(text("SELECT pause()")))
            await asyncio.to_thread(running.wait, FOR_EVER)
            task.cancel()
            go_on.set()
            seen = await outcomes([task])
            await holder.close()
            return [*seen, await query(engine)]

        with loops.here() as a:
            assert tally(a.call(cancel_a_query())) == {"cancelled": 1, "1": 1}
        with loops.here() as b:
            assert tally(b.call(crowd(engine, 5))) == {"1": 5}
            b.call(engine.dispose())


class TestAbandoned:
    """A loop is closed while one of its tasks waits: nobody cancels the task."""

    @staticmethod
    def attack(queue: QueueCommon[str], loops: Loops) -> Outcomes:
        """Close a loop in which somebody waits; give the item back; wait for it elsewhere."""

        async def get() -> str:
            return await greenlet_spawn(queue.get)

        lost = loops.factory()
        tasks = lost.run_until_complete(start(1, get))
        lost.close()
        try:
            queue.put_nowait("item")
            with loops.here() as loop:
                return loop.call(outcomes([get()]))
        except RuntimeError as error:
            return [error]
        finally:
            forget(tasks)

    def test_an_abandoned_waiter_takes_nothing(self, loops: Loops) -> None:
        """The item is there for the next loop, and the waiter is gone."""
        queue: AnyLoopQueue[str] = AnyLoopQueue()
        assert self.attack(queue, loops) == ["item"]
        assert not queue._waiters

    def test_an_abandoned_waiter_takes_nothing_twin(self, plain_loops: Loops) -> None:
        """`asyncio.Queue` wants to wake it in its closed loop."""
        [error] = self.attack(AsyncAdaptedQueue(), plain_loops)
        assert "Event loop is closed" in str(error)

    @staticmethod
    def attack_a_pool(engine: AsyncEngine, loops: Loops) -> list[Counter[str]]:
        """Do the same with a pool, in a loop that another thread goes on to use."""
        lost = loops.factory()
        with loops.there() as there:
            holder = there.call(take(engine))
            tasks = lost.run_until_complete(start(3, lambda: query(engine)))
            lost.close()
            seen = [tally(there.call(outcomes([holder.close()])))]
            seen += [tally(there.call(outcomes(there.call(start(5, lambda: query(engine))))))]
            there.call(engine.dispose())
        forget(tasks)
        return seen

    @pytest.mark.usefixtures("installed")
    def test_an_abandoned_waiter_of_a_pool(self, loops: Loops, database: Database) -> None:
        """The connection is there for everybody else."""
        assert self.attack_a_pool(database.engine(), loops) == [{"None": 1}, {"1": 5}]

    def test_an_abandoned_waiter_of_a_pool_twin(
        self, plain_loops: Loops, database: Database
    ) -> None:
        """The connection does not even come back."""
        first, second = self.attack_a_pool(database.engine(), plain_loops)
        assert "Event loop is closed" in str(first)
        assert second["1"] == 0


def forget(tasks: list[asyncio.Task[Any]]) -> None:
    """Let go of tasks that can neither end nor be cancelled, without asyncio's word about it."""
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # not in typeshed's Task
    tasks.clear()
    gc.collect()


class TestOneConnection:
    """Four tasks share one connection in loop A, then in loop B.

    All but the first come to its lock while that is held: SQLite's thread does things in the order
    in which they came, so that each has its cursor before the first statement is done.
    """

    @staticmethod
    def attack(adapted: AsyncAdapt_dbapi_connection, loops: Loops) -> list[Counter[str]]:
        """Let four execute at once, in one loop after the other."""

        async def execute_four() -> Outcomes:
            return await outcomes([greenlet_spawn(execute, adapted) for _ in range(4)])

        seen = []
        for _ in range(2):
            with loops.here() as loop:
                seen.append(tally(loop.call(execute_four())))
        return seen

    @pytest.fixture
    def adapted(self, database: Database) -> AsyncAdapt_dbapi_connection:
        """Make a connection."""
        return asyncio.run(adapt(database))

    def test_a_connection_in_two_loops(
        self, adapted: AsyncAdapt_dbapi_connection, loops: Loops
    ) -> None:
        """All get through in each loop."""
        _any_loop.free_locks(adapted)
        assert self.attack(adapted, loops) == [{"1": 4}] * 2

    def test_a_connection_in_two_loops_twin(
        self, adapted: AsyncAdapt_dbapi_connection, plain_loops: Loops
    ) -> None:
        """SQLAlchemy's lock belongs to the first loop in which somebody waited."""
        assert self.attack(adapted, plain_loops) == [{"1": 4}, {"1": 1, "loop": 3}]

    @staticmethod
    def attack_an_engine(engine: AsyncEngine, loops: Loops) -> list[Counter[str]]:
        """Let four requests of one connection come at once, in one loop after the other."""
        seen = []
        for _ in range(2):
            with loops.here() as loop:
                loop.call(query(engine))
                seen.append(tally(loop.call(outcomes([query(engine) for _ in range(4)]))))
        with loops.here() as loop:
            loop.call(engine.dispose())
        return seen

    @pytest.mark.usefixtures("installed")
    def test_a_static_pool_in_two_loops_pitfall_011(self, loops: Loops) -> None:
        """A database in memory, requests gathered in the second loop too."""
        database = Database(":memory:")
        engine = database.engine(poolclass=StaticPool)
        assert self.attack_an_engine(engine, loops) == [{"1": 4}] * 2
        assert len(database.made) == 1

    @pytest.mark.skipif(
        not issubclass(AsyncAdapt_aiosqlite_connection, AsyncAdapt_dbapi_connection),
        reason="SQLAlchemy 2.0 has no lock around statements of aiosqlite: nothing to go wrong",
    )
    def test_a_static_pool_in_two_loops_twin_pitfall_011(self, plain_loops: Loops) -> None:
        """SQLAlchemy's lock belongs to the first loop in which somebody waited."""
        engine = Database(":memory:").engine(poolclass=StaticPool)
        assert self.attack_an_engine(engine, plain_loops) == [{"1": 4}, {"1": 1, "loop": 3}]


async def adapt(database: Database) -> AsyncAdapt_dbapi_connection:
    """Make a connection, and adapt it as SQLAlchemy does for its async drivers."""
    connection: Any = await database.connect()
    return AsyncAdapt_dbapi_connection(aiosqlite, connection)


def execute(adapted: AsyncAdapt_dbapi_connection) -> object:
    """Execute a statement, in SQLAlchemy's greenlet."""
    cursor = adapted.cursor()
    cursor.execute("SELECT 1")
    [value] = cursor.fetchone() or [None]
    return value


class TestFirstConnect:
    """Four threads make the first connection of an engine at once."""

    @staticmethod
    def attack(engine: AsyncEngine, loops: Loops, patch: pytest.MonkeyPatch) -> Counter[str]:
        """Keep the first inside of the lock until the three others have come to it."""
        inside, arrived = threading.Event(), threading.Semaphore(0)
        enter = AsyncAdaptedLock.__enter__

        def report(lock: AsyncAdaptedLock) -> bool:
            if lock.mutex.locked():  # the loop says so when this task waits
                asyncio.get_running_loop().call_soon(arrived.release)
            return enter(lock)

        @event.listens_for(engine.sync_engine, "connect")
        def wait_for_the_others(*_: object) -> None:
            if not inside.is_set():
                inside.set()
                for _other in range(3):
                    arrived.acquire(timeout=FOR_EVER)

        patch.setattr(AsyncAdaptedLock, "__enter__", report)
        with loops.there() as a, loops.there() as b, loops.there() as c, loops.there() as d:
            first = a.call(start(1, lambda: query(engine)))
            inside.wait(FOR_EVER)
            later = [(loop, loop.call(start(1, lambda: query(engine)))) for loop in (b, c, d)]
            seen = a.call(outcomes(first))
            for loop, tasks in later:
                seen += loop.call(outcomes(tasks))
            a.call(engine.dispose())
        return tally(seen)

    @pytest.mark.usefixtures("installed")
    def test_four_threads_connect_at_once_pitfall_010(
        self, loops: Loops, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One after the other, all get in."""
        engine = database.engine(poolclass=AsyncAdaptedQueuePool, pool_size=4)
        assert self.attack(engine, loops, monkeypatch) == {"1": 4}

    def test_four_threads_connect_at_once_twin_pitfall_010(
        self, plain_loops: Loops, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """SQLAlchemy's mutex belongs to the second who comes."""
        engine = database.engine(poolclass=AsyncAdaptedQueuePool, pool_size=4)
        assert self.attack(engine, plain_loops, monkeypatch) == {"1": 2, "loop": 2}

    @staticmethod
    def attack_a_lock(lock: AsyncAdaptedLock, loops: Loops) -> None:
        """Let two tasks meet in the lock."""

        def enter_and_stay() -> None:
            with lock:
                await_only(passes(2))

        async def meet() -> None:
            await asyncio.gather(*(greenlet_spawn(enter_and_stay) for _ in range(2)))

        with loops.here() as loop:
            loop.call(meet())

    def test_a_lock_from_before_is_freed(self, loops: Loops) -> None:
        """An engine that connected before the gate was there is none the worse for it."""
        lock = AsyncAdaptedLock()
        self.attack_a_lock(lock, loops)
        with pytest.raises(RuntimeError, match="different event loop"):  # the twin
            self.attack_a_lock(lock, loops)
        lock = AsyncAdaptedLock()
        self.attack_a_lock(lock, loops)
        with loops_installed():
            self.attack_a_lock(lock, loops)


class TestAdopt:
    """Engines that were made before the gate was there."""

    @pytest.mark.parametrize("use_lifo", [False, True])
    def test_its_idle_connections_stay(
        self, loops: Loops, database: Database, *, use_lifo: bool
    ) -> None:
        """They come out in the same order as before."""
        engine = database.engine(
            poolclass=AsyncAdaptedQueuePool, pool_size=3, max_overflow=0, pool_use_lifo=use_lifo
        )

        async def take_all_give_back() -> list[object]:
            taken = [await take(engine) for _ in range(3)]
            drivers = [(await one.get_raw_connection()).driver_connection for one in taken]
            for one in taken:
                await one.close()
            return drivers

        with loops.here() as a:
            before = a.call(take_all_give_back())
        _any_loop.adopt(engine.pool)
        with loops.here() as b:
            after = b.call(take_all_give_back())
            assert after == (before[::-1] if use_lifo else before)
            assert (queue_of(engine).maxsize, queue_of(engine).use_lifo) == (3, use_lifo)
            b.call(engine.dispose())

    def test_what_is_given_back_meanwhile_arrives(self) -> None:
        """Another thread may already be in a method of the old queue."""
        pool = AsyncAdaptedQueuePool(nothing, pool_size=1)
        old: Any = pool._pool
        _any_loop.adopt(pool)
        old.put("item", block=False)
        item: Any = pool._pool.get(block=False)
        assert item == "item"

    def test_other_pools_stay_as_they_are(self) -> None:
        """Adopted ones, those of threads, those without a queue, those with one of their own."""

        class TheirQueue(AsyncAdaptedQueue[Any]):
            pass

        class TheirPool(AsyncAdaptedQueuePool):
            _queue_class: type[QueueCommon[Any]] = TheirQueue

        pools: list[Pool] = [
            AsyncAdaptedQueuePool(nothing),
            QueuePool(nothing),
            NullPool(nothing),
            StaticPool(nothing),
            TheirPool(nothing),
        ]
        _any_loop.adopt(pools[0])
        queues = [getattr(pool, "_pool", None) for pool in pools]
        for pool in pools:
            _any_loop.adopt(pool)
        assert [getattr(pool, "_pool", None) for pool in pools] == queues


async def cancel(task: asyncio.Task[Any]) -> None:
    """Cancel a task of the running loop."""
    task.cancel()


class TestInstall:
    """What is replaced."""

    def test_pools_keep_what_they_have(self, loops: Loops, database: Database) -> None:
        """A pool with our queue works on without the rest."""
        with loops_installed():
            engine = database.engine()
        attack = TestOneLoopAfterAnother.attack
        assert attack(engine, loops) == [{"1": 5}, {"1": 5}]


class TestFreeLocks:
    """The locks inside of one connection."""

    @dataclass
    class Adapted:
        """Looks like SQLAlchemy's adapter of a driver that has a lock of its own."""

        _execute_mutex: object
        driver_connection: object = None

    @dataclass
    class Driver:
        """Looks like psycopg's `AsyncConnection`."""

        lock: object

    def test_both_locks_are_replaced_once(self) -> None:
        """A lock of ours stays."""
        driver = self.Driver(asyncio.Lock())
        connection = self.Adapted(asyncio.Lock(), driver)
        _any_loop.free_locks(connection)
        found = connection._execute_mutex, driver.lock
        assert [type(lock) for lock in found] == [AnyLoopMutex, AnyLoopMutex]
        _any_loop.free_locks(connection)
        assert (connection._execute_mutex, driver.lock) == found

    @pytest.mark.parametrize("other", [None, threading.Lock(), "held by a driver"])
    def test_another_lock_stays(self, other: object) -> None:
        """Only asyncio's is tied to a loop, and a sync connection has none."""
        connection = self.Adapted(other)
        _any_loop.free_locks(connection)
        _any_loop.free_locks(object())
        assert connection._execute_mutex is other

    def test_a_lock_in_use_stays(self, loops: Loops) -> None:
        """While somebody holds it, and while somebody has been woken but has not gone on."""
        lock = asyncio.Lock()
        connection = self.Adapted(lock)
        seen = []

        async def use() -> None:
            await lock.acquire()
            _any_loop.free_locks(connection)
            seen.append(connection._execute_mutex)
            [waiter] = await start(1, lock.acquire)
            lock.release()
            assert not lock.locked()
            _any_loop.free_locks(connection)
            seen.append(connection._execute_mutex)
            await waiter
            lock.release()

        with loops.here() as loop:
            loop.call(use())
        assert seen == [lock, lock]
        _any_loop.free_locks(connection)
        assert connection._execute_mutex is not lock

    @pytest.mark.slow
    def test_an_abandoned_waiter_does_not_count(self, loops: Loops) -> None:
        """Nobody waits in a closed loop."""
        lock = asyncio.Lock()
        lost = loops.factory()
        lost.run_until_complete(lock.acquire())
        tasks = lost.run_until_complete(start(1, lock.acquire))
        lock.release()
        lost.close()
        connection = self.Adapted(lock)
        _any_loop.free_locks(connection)
        assert connection._execute_mutex is not lock
        forget(tasks)


@pytest.mark.parametrize("make", [AsyncAdaptedQueue, AnyLoopQueue])
class TestQueueContract:
    """SQLAlchemy's contract, held by its queue and by ours."""

    Make = Callable[..., QueueCommon[int]]

    @pytest.mark.parametrize("use_lifo, order", [(False, [1, 2, 3]), (True, [3, 2, 1])])
    def test_order(self, make: Make, order: list[int], *, use_lifo: bool) -> None:
        """First in first out, or last in first out."""
        queue = make(0, use_lifo)
        for item in (1, 2, 3):
            queue.put_nowait(item)
        assert [queue.get_nowait() for _ in range(3)] == order
        assert queue.use_lifo is use_lifo

    @pytest.mark.parametrize("maxsize", [0, -1])
    def test_no_limit(self, make: Make, maxsize: int) -> None:
        """Zero and less are no limit."""
        queue = make(maxsize)
        for item in range(100):
            queue.put(item, block=False)
        assert not queue.full()
        assert (queue.qsize(), queue.maxsize) == (100, maxsize)

    def test_empty_and_full(self, make: Make) -> None:
        """It can be told, and trying says the same at once."""
        queue = make(1)
        assert (queue.empty(), queue.full(), queue.qsize()) == (True, False, 0)
        for get in (queue.get_nowait, lambda: queue.get(False)):
            with pytest.raises(Empty):
                get()
        queue.put_nowait(1)
        assert (queue.empty(), queue.full(), queue.qsize()) == (False, True, 1)
        for put in (queue.put_nowait, lambda item: queue.put(item, block=False)):
            with pytest.raises(Full):
                put(2)
        assert queue.get(False) == 1

    @pytest.mark.parametrize("seconds", [-1, 0, 0.001])
    def test_time_is_up(self, make: Make, loops: Loops, seconds: float) -> None:
        """Waiting ends with the same words, and leaves nothing behind."""
        queue = make(1)

        async def wait() -> None:
            with pytest.raises(Empty):
                await greenlet_spawn(queue.get, timeout=seconds)
            queue.put_nowait(1)
            with pytest.raises(Full):
                await greenlet_spawn(queue.put, 2, timeout=seconds)
            assert queue.get_nowait() == 1
            queue.put_nowait(3)
            assert queue.qsize() == 1

        with loops.here() as loop:
            loop.call(wait())

    def test_what_is_there_is_not_waited_for(self, make: Make, loops: Loops) -> None:
        """Nor is room."""
        queue = make(1)

        async def meet() -> int:
            await greenlet_spawn(queue.put, 1, timeout=0.001)
            return await greenlet_spawn(queue.get, timeout=0.001)

        with loops.here() as loop:
            assert loop.call(meet()) == 1

    @pytest.mark.parametrize("seconds", [None, FOR_EVER])
    def test_waiting(self, make: Make, loops: Loops, seconds: float | None) -> None:
        """A getter waits for an item; for room no `QueuePool` does."""
        queue = make(1)

        async def meet() -> int:
            [getter] = await start(1, lambda: greenlet_spawn(queue.get, timeout=seconds))
            queue.put_nowait(1)
            got: int = await getter
            return got

        with loops.here() as loop:
            assert loop.call(meet()) == 1


class TestQueue:
    """What ours does beyond the contract."""

    def test_who_is_late_has_a_last_look(self, loops: Loops) -> None:
        """Time is up and the item comes in one pass: it is taken, not lost."""
        queue: AnyLoopQueue[int] = AnyLoopQueue()

        async def meet() -> int:
            [getter] = await start(1, lambda: greenlet_spawn(queue.get, timeout=0))
            got: int = await getter
            return got

        async def meet_with_an_item() -> int:
            getter = asyncio.create_task(greenlet_spawn(queue.get, timeout=0))
            asyncio.get_running_loop().call_soon(queue.put_nowait, 1)
            return await getter

        with loops.here() as loop:
            assert loop.call(meet_with_an_item()) == 1
            with pytest.raises(Empty):
                loop.call(meet())
        assert not queue._waiters

    def test_no_timer_is_left(self) -> None:
        """Whichever way a wait ends."""
        timers: list[asyncio.TimerHandle] = []
        queue: AnyLoopQueue[int] = AnyLoopQueue()

        class Timed(asyncio.SelectorEventLoop):
            def call_later(self, *args: Any, **options: Any) -> asyncio.TimerHandle:  # type: ignore[override]  # hands on whatever it gets
                timers.append(super().call_later(*args, **options))
                return timers[-1]

        async def meet() -> None:
            tasks = await start(2, lambda: greenlet_spawn(queue.get, timeout=FOR_EVER))
            tasks[0].cancel()
            queue.put_nowait(1)
            assert tally(await outcomes(tasks)) == {"cancelled": 1, "1": 1}

        with Loops(Timed).here() as loop:
            loop.call(meet())
        assert [timer.cancelled() for timer in timers] == [True, True]

    def test_a_newcomer_does_not_overtake(self, loops: Loops) -> None:
        """Who gives back and takes again without a pause comes after who waits."""
        queue: AnyLoopQueue[int] = AnyLoopQueue()
        order: list[str] = []

        async def take_and_give_back(name: str, rounds: int) -> None:
            for _ in range(rounds):
                item = await queue.aget()
                order.append(name)
                queue.put_nowait(item)

        async def meet() -> None:
            modest = await start(3, lambda: take_and_give_back("modest", 1))
            queue.put_nowait(1)
            await asyncio.gather(take_and_give_back("greedy", 3), *modest)

        with loops.here() as loop:
            loop.call(meet())
        assert order == ["modest"] * 3 + ["greedy"] * 3

    def test_a_newcomer_does_not_miss_what_is_left(self, loops: Loops) -> None:
        """There is enough for who was told and for the newcomer, who sits behind."""
        queue: AnyLoopQueue[int] = AnyLoopQueue()

        async def meet() -> Outcomes:
            [first] = await start(1, queue.aget)
            queue.put_nowait(1)
            queue.put_nowait(2)
            return await outcomes([first, greenlet_spawn(queue.get)])

        with loops.here() as loop:
            assert loop.call(meet()) == [1, 2]

    def test_the_first_keeps_its_place(self, loops: Loops) -> None:
        """Who was told and finds nothing, as another loop was faster, is told first again."""
        queue: AnyLoopQueue[int] = AnyLoopQueue()
        order: list[int] = []

        async def get(name: int) -> None:
            await queue.aget()
            order.append(name)

        async def meet() -> None:
            names = iter(range(2))
            tasks = await start(2, lambda: get(next(names)))
            queue.put_nowait(1)
            queue.get_nowait()  # another thread
            await passes(3)
            queue.put_nowait(1)
            queue.put_nowait(1)
            await asyncio.gather(*tasks)

        with loops.here() as loop:
            loop.call(meet())
        assert order == [0, 1]

    def test_garbage_collection_gives_back_amid_a_get_pitfall_017(self) -> None:
        """A collected connection comes back in whichever line of ours it happens.

        Tried in a thread that may be left behind: without a reentrant guard it would never end.
        """
        queue: AnyLoopQueue[int] = AnyLoopQueue()

        def give_back_amid() -> None:
            with queue._guard:
                queue.put_nowait(1)

        thread = threading.Thread(target=give_back_amid, daemon=True)
        thread.start()
        thread.join(FOR_EVER)
        assert queue.qsize() == 1

    @pytest.mark.parametrize("amid", [1, 2, 3])
    def test_amid_a_look_nothing_is_missed_pitfall_017(
        self, loops: Loops, amid: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What comes back between "nothing there" and "so I wait", at the first look or later."""
        queue: AnyLoopQueue[int] = AnyLoopQueue()
        get_nowait, looks = queue.get_nowait, list[None]()

        def look() -> int:
            looks.append(None)
            try:
                return get_nowait()
            finally:
                if len(looks) == amid:
                    queue.put_nowait(1)

        async def wait() -> int:
            asyncio.get_running_loop().call_soon(queue._wake_waiters)
            return await queue.aget()

        monkeypatch.setattr(queue, "get_nowait", look)
        with loops.here() as loop:
            assert loop.call(wait()) == 1
        assert len(looks) == amid + 1

    def test_outside_of_a_greenlet(self) -> None:
        """What is there is taken; what is not cannot be waited for, as SQLAlchemy says it."""
        queue: AnyLoopQueue[int] = AnyLoopQueue(1)
        queue.put(1)
        assert queue.get() == 1
        with pytest.raises(Exception, match="greenlet_spawn has not been called"):
            queue.get()

    @pytest.mark.slow
    def test_nothing_is_lost_in_a_storm(self, loops: Loops) -> None:
        """Four threads, sixty tasks, two items; a third of the waits are cancelled at random."""
        queue: AnyLoopQueue[int] = AnyLoopQueue(2)
        for item in range(2):
            queue.put_nowait(item)

        async def go_round(chance: random.Random) -> None:
            for _ in range(20):
                waiter = asyncio.ensure_future(queue.aget())
                await passes(chance.randrange(3))
                if chance.random() < 1 / 3:
                    waiter.cancel()
                with suppress(asyncio.CancelledError):
                    item = await waiter
                    await passes(chance.randrange(3))
                    queue.put_nowait(item)

        async def storm(seed: int) -> None:
            chance = random.Random(seed)  # noqa: S311 - nobody is to be kept from guessing
            await asyncio.wait_for(outcomes_of(chance), FOR_EVER)

        async def outcomes_of(chance: random.Random) -> None:
            await asyncio.gather(*(go_round(chance) for _ in range(15)))

        with loops.there() as a, loops.there() as b, loops.there() as c, loops.there() as d:
            threads = [
                threading.Thread(target=loop.call, args=(storm(seed),))
                for seed, loop in enumerate((a, b, c, d))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(FOR_EVER)
        assert sorted([queue.get_nowait(), queue.get_nowait()]) == [0, 1]
        assert not queue._waiters


@pytest.mark.parametrize("make", [asyncio.Lock, AnyLoopMutex])
class TestMutexContract:
    """The contract of `asyncio.Lock`, held by it and by ours."""

    Make = Callable[[], Any]

    def test_one_at_a_time_in_turn(self, make: Make, loops: Loops) -> None:
        """First come, first served; who has just had it comes last."""
        mutex = make()
        order: list[str] = []

        async def use(name: str, rounds: int) -> None:
            for _ in range(rounds):
                async with mutex:
                    order.append(f"{name} in")
                    await passes(2)
                    order.append(f"{name} out")

        async def meet() -> None:
            await asyncio.gather(use("a", 2), use("b", 1), use("c", 1))

        with loops.here() as loop:
            loop.call(meet())
        assert order == [f"{name} {way}" for name in "abca" for way in ("in", "out")]

    def test_held_or_not(self, make: Make, loops: Loops) -> None:
        """It tells, and does not let go of what nobody holds."""
        mutex = make()

        async def use() -> None:
            assert not mutex.locked()
            assert await mutex.acquire() is True
            assert mutex.locked()
            mutex.release()
            assert not mutex.locked()
            with pytest.raises(RuntimeError, match="Lock is not acquired"):
                mutex.release()

        with loops.here() as loop:
            loop.call(use())

    @pytest.mark.parametrize("delay", range(4))
    def test_cancelled_as_it_comes_free(self, make: Make, loops: Loops, delay: int) -> None:
        """The next one gets it, at whichever step of being woken the first is cancelled."""
        mutex = make()

        async def meet() -> None:
            async def pass_on() -> None:
                async with mutex:
                    await passes(1)

            await mutex.acquire()
            tasks = await start(3, pass_on)
            mutex.release()
            await passes(delay)
            tasks[0].cancel()
            assert (await outcomes(tasks))[1:] == [None, None]
            assert not mutex.locked()

        with loops.here() as loop:
            loop.call(meet())


class TestPrivateNames:
    """Pitfall 20: what `_any_loop.py` rests on without a promise. Each test says what moved."""

    def test_a_pool_makes_its_queue_from_queue_class_pitfall_020(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`install()` replaces `AsyncAdaptedQueuePool._queue_class`."""

        class Marked(AsyncAdaptedQueue[Any]):
            pass

        assert AsyncAdaptedQueuePool.__dict__.get("_queue_class") is AsyncAdaptedQueue, (
            "AsyncAdaptedQueuePool._queue_class is not AsyncAdaptedQueue any more: install() must "
            "find out where a pool takes its queue from, and adopt() what kind it is"
        )
        monkeypatch.setattr(AsyncAdaptedQueuePool, "_queue_class", Marked)
        pool: Any = AsyncAdaptedQueuePool(nothing, pool_size=2, use_lifo=True)
        assert isinstance(getattr(pool, "_pool", None), Marked), (
            "a pool's _pool is not made from its _queue_class any more: install() has no effect"
        )
        assert (pool._pool.maxsize, pool._pool.use_lifo) == (2, True), (
            "a queue class is called with other arguments: see AnyLoopQueue.__init__"
        )

    def test_a_pool_gets_and_puts_through_pool_pitfall_020(self, database: Database) -> None:
        """`adopt()` replaces `QueuePool._pool`."""
        calls: list[tuple[object, ...]] = []

        class Recorder(AsyncAdaptedQueue[Any]):
            def get(self, *args: Any) -> Any:
                calls.append(("get", *args))
                return super().get(*args)

            def put(self, *args: Any) -> None:
                calls.append(("put", *args[1:]))
                super().put(*args)

        engine = database.engine()
        pool: Any = engine.pool
        pool._pool = Recorder(1)
        asyncio.run(query(engine))
        assert calls == [("get", False, None), ("put", False)], (
            "QueuePool uses its _pool in another way: see AnyLoopQueue.get and put, and adopt()"
        )
        asyncio.run(engine.dispose())

    def test_the_inside_of_sqlalchemys_queue_pitfall_020(self) -> None:
        """`AnyLoopQueue.heir_of()` takes `AsyncAdaptedQueue._queue` apart."""
        for use_lifo, items in ((False, deque), (True, list)):
            inner = getattr(AsyncAdaptedQueue(1, use_lifo), "_queue", None)
            assert isinstance(inner, asyncio.Queue), (
                "AsyncAdaptedQueue._queue is not an asyncio.Queue any more: see heir_of()"
            )
            assert type(getattr(inner, "_queue", None)) is items, (
                "asyncio.Queue keeps its items elsewhere: see heir_of()"
            )

    def test_an_asyncio_lock_waits_in_waiters_pitfall_020(self) -> None:
        """`free_locks()` looks whether anybody does."""

        async def meet() -> None:
            lock = asyncio.Lock()
            assert not lock._waiters, "asyncio.Lock._waiters is new: see _is_idle()"
            await lock.acquire()
            [waiter] = await start(1, lock.acquire)
            found = list(lock._waiters or ())
            assert [type(future) for future in found] == [
                type(waiter.get_loop().create_future())
            ], "asyncio.Lock keeps those who wait elsewhere than in _waiters: see _is_idle()"
            lock.release()
            await waiter

        asyncio.run(meet())

    def test_the_first_connection_is_made_in_the_mutex_pitfall_020(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`install()` replaces `AsyncAdaptedLock.mutex`."""
        used: list[str] = []

        class Recorder(asyncio.Lock):
            async def acquire(self) -> Any:
                used.append("acquire")
                return await super().acquire()

            def release(self) -> None:
                used.append("release")
                super().release()

        assert "mutex" in vars(AsyncAdaptedLock), (
            "AsyncAdaptedLock has no attribute mutex any more: install() must replace another"
        )
        recorder = Recorder()
        monkeypatch.setattr(AsyncAdaptedLock, "mutex", property(lambda _: recorder))
        engine = database.engine()
        asyncio.run(query(engine))
        assert used == ["acquire", "release"], (
            "an engine's first connection is not made inside of AsyncAdaptedLock.mutex any more: "
            "install() must replace what guards it now"
        )
        asyncio.run(engine.dispose())

    @pytest.mark.parametrize(
        "adapter",
        [
            AsyncAdapt_dbapi_connection,
            AsyncAdapt_aiomysql_connection,
            AsyncAdapt_asyncmy_connection,
            AsyncAdapt_asyncpg_connection,
        ],
    )
    def test_adapted_connections_have_an_execute_mutex_pitfall_020(
        self, adapter: Callable[[object, object], object]
    ) -> None:
        """`free_locks()` replaces `_execute_mutex`."""
        adapted = adapter(None, None)
        assert type(getattr(adapted, "_execute_mutex", None)) is asyncio.Lock, (
            "SQLAlchemy's adapted connections have no asyncio.Lock named _execute_mutex any more: "
            "see _locks_of()"
        )
        _any_loop.free_locks(adapted)
        assert type(getattr(adapted, "_execute_mutex", None)) is AnyLoopMutex

    def test_statements_are_executed_in_the_execute_mutex_pitfall_020(
        self, database: Database
    ) -> None:
        """`free_locks()` has an effect."""
        used: list[str] = []

        class Recorder(asyncio.Lock):
            async def acquire(self) -> Any:
                used.append("acquire")
                return await super().acquire()

        async def meet() -> None:
            adapted = await adapt(database)
            adapted._execute_mutex = Recorder()
            await greenlet_spawn(execute, adapted)

        asyncio.run(meet())
        assert used == ["acquire"], (
            "a statement is not executed inside of _execute_mutex any more: see _locks_of()"
        )

    def test_psycopg_executes_in_its_lock_pitfall_020(self) -> None:
        """`free_locks()` replaces `AsyncConnection.lock`."""
        psycopg: Any = pytest.importorskip("psycopg")

        class EnteredError(Exception):
            pass

        class Tripwire:
            async def __aenter__(self) -> None:
                raise EnteredError

            async def __aexit__(self, *_: object) -> None:
                raise AssertionError("never entered")

        class Unconnected:
            """As much of a libpq connection as `AsyncConnection` looks at when it is made."""

            notice_handler = notify_handler = None
            status = 1  # BAD: nothing to close

        async def commit() -> None:
            connection = psycopg.AsyncConnection(Unconnected())
            assert type(getattr(connection, "lock", None)) is asyncio.Lock, (
                "psycopg's AsyncConnection.lock is not an asyncio.Lock any more: see _locks_of()"
            )
            connection.lock = Tripwire()
            with pytest.raises(EnteredError):
                await connection.commit()

        asyncio.run(commit())
