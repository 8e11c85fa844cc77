"""Any event loop and any thread may wait for one pool, and for one connection.

Each attack is a function that says what came out of it. It is made twice: on SQLAlchemy's own
queue and locks, where it must fail (the twin: it keeps the attack from going blind), and on ours.
"""

import asyncio
import gc
import logging
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
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool, QueuePool, StaticPool
from sqlalchemy.util import await_only, greenlet_spawn
from sqlalchemy.util.concurrency import AsyncAdaptedLock
from sqlalchemy.util.queue import AsyncAdaptedQueue, QueueCommon

from pytest_arena._gate.loops import _any_loop
from pytest_arena._gate.loops._any_loop import AnyLoopMutex
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
    def attack_a_pool(engine: AsyncEngine, loops: Loops) -> list[Counter[str]]:
        """Close a loop in which three wait; give the connection back; wait for it elsewhere."""
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
        """While somebody holds it."""
        lock = asyncio.Lock()
        connection = self.Adapted(lock)
        seen = []

        async def use() -> None:
            await lock.acquire()
            _any_loop.free_locks(connection)
            seen.append(connection._execute_mutex)
            lock.release()

        with loops.here() as loop:
            loop.call(use())
        assert seen == [lock]
        _any_loop.free_locks(connection)
        assert connection._execute_mutex is not lock


class TestPrivateNames:
    """Pitfall 20: what `_any_loop.py` rests on without a promise. Each test says what moved."""

    def test_a_pool_gets_and_puts_through_pool_pitfall_020(self, database: Database) -> None:
        """`install()` replaces methods of the queue."""
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
            "QueuePool uses its _pool in another way: see install()"
        )
        asyncio.run(engine.dispose())

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
            "see free_locks()"
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
            "a statement is not executed inside of _execute_mutex any more: see free_locks()"
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
                "psycopg's AsyncConnection.lock is not an asyncio.Lock any more: see free_locks()"
            )
            connection.lock = Tripwire()
            with pytest.raises(EnteredError):
                await connection.commit()

        asyncio.run(commit())
