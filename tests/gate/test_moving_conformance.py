"""Whatever an app does with a connection, it may do in one loop after another.

One suite for every way to get there: asyncpg's connections move, asyncpg's connections stay and
are dropped, psycopg's belong to no loop. Each test runs under `filterwarnings = error`, and fails
as well for a line in the log or a backend that is left (see `moving_setting`).
"""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
import unittest
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from anyio.from_thread import start_blocking_portal
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from tests.gate.moving_setting import (
    LOOPS,
    POOLS,
    WAYS,
    Cell,
    Setting,
    backend,
    driver_of,
    in_thread,
    pid_of,
    setting_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

# Of the whole field, those in which something went wrong while this was made.
USUAL = {
    Cell("asyncpg moves", "asyncio", "one"),
    Cell("asyncpg moves", "uvloop", "ping"),
    Cell("asyncpg stays", "asyncio", "ping"),
    Cell("psycopg", "asyncio", "one"),
}
CELLS = list(itertools.starmap(Cell, itertools.product(WAYS, LOOPS, POOLS)))
FIELD = [
    pytest.param(cell, id=str(cell), marks=() if cell in USUAL else pytest.mark.slow)
    for cell in CELLS
]
# What these stories do to a connection is the driver's business more than the loop's.
FEW = {
    Cell("asyncpg moves", "uvloop", "ping"),
    Cell("psycopg", "asyncio", "one"),
}
in_few_cells = pytest.mark.parametrize(
    "setting",
    [
        pytest.param(cell, id=str(cell), marks=() if cell in FEW else pytest.mark.slow)
        for cell in CELLS
    ],
    indirect=True,
)


@pytest.fixture(params=FIELD)
def setting(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[Setting]:
    """Engines in each cell of the field."""
    with setting_of(request.param, caplog) as made:
        yield made


def only_asyncpg(setting: Setting) -> None:
    """Leave out what psycopg has no word for."""
    if setting.driver != "asyncpg":
        pytest.skip("asyncpg's own interface")


def is_older(name: str, *than: int) -> bool:
    """Whether what is installed is older than that version."""
    found = tuple(int(number) for number in re.findall(r"\d+", version(name))[:3])
    return found < than


class TestLoops:
    """Which loops there are, and when."""

    def test_a_loop_for_each_test_pitfall_004(self, setting: Setting) -> None:
        """A global engine; a connection that may is kept, and each loop finds one that works."""
        engine = setting.engine()
        pids = {setting.cell.run(pid_of(engine)) for _ in range(4)}
        assert len(pids) == (1 if setting.cell.keeps else 4)
        assert not setting.notes

    def test_many_at_once_in_each_loop_pitfall_001(self, setting: Setting) -> None:
        """Whoever waits for the pool gets a connection that works here."""
        engine = setting.engine()

        async def crowd() -> None:
            await asyncio.gather(*(pid_of(engine) for _ in range(8)))

        for _ in range(3):
            setting.cell.run(crowd())

    def test_a_loop_that_stands_still_meanwhile_pitfall_005(self, setting: Setting) -> None:
        """A loop of a session and loops of functions, by turns."""
        engine = setting.engine()
        with setting.cell.runner() as session:
            for _ in range(2):
                session.run(pid_of(engine))
                setting.cell.run(pid_of(engine))

    def test_threads_at_once_pitfall_010(self, setting: Setting) -> None:
        """Two loops in threads, and one here."""
        engine = (
            setting.engine(pool_timeout=30) if setting.cell.pool != "null" else setting.engine()
        )

        async def work() -> None:
            for _ in range(5):
                await asyncio.gather(pid_of(engine), pid_of(engine))

        async def all_at_once(*runs: Any) -> None:
            await asyncio.gather(work(), *(asyncio.to_thread(run, work()) for run in runs))

        with in_thread(setting.cell) as one, in_thread(setting.cell) as other:
            setting.cell.run(all_at_once(one, other))

    def test_a_portal_inside_of_a_test_pitfall_006(self, setting: Setting) -> None:
        """The loop of the test stands still while another one, in a thread, works for it."""
        engine = setting.engine()

        async def test() -> None:
            for _ in range(3):
                await pid_of(engine)
                with start_blocking_portal() as portal:
                    portal.call(pid_of, engine)
                    portal.call(pid_of, engine)

        setting.cell.run(test())

    def test_a_portal_while_a_connection_is_out_pitfall_006(self, setting: Setting) -> None:
        """The test keeps its connection through a request in the portal's loop."""
        two: dict[str, Any] = {} if setting.cell.pool == "null" else {"pool_size": 2}
        engine = setting.engine(**two)

        async def test() -> None:
            async with engine.connect() as connection:
                mine = await backend(connection)
                with start_blocking_portal() as portal:
                    assert portal.call(pid_of, engine) != mine
                assert await backend(connection) == mine

        for _ in range(2):
            setting.cell.run(test())

    def test_isolated_asyncio_test_case_pitfall_009(self, setting: Setting) -> None:
        """The loops of unittest."""
        engine = setting.engine()

        class Case(unittest.IsolatedAsyncioTestCase):
            async def test_one(self) -> None:
                await pid_of(engine)

            async def test_two(self) -> None:
                await pid_of(engine)

        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
        assert (result.testsRun, result.errors) == (2, [])

    def test_disposed_in_another_loop_and_used_again_pitfall_013(self, setting: Setting) -> None:
        """Several idle connections, which a loop closes that has never seen them."""
        engine = setting.engine()

        async def crowd() -> None:
            await asyncio.gather(*(pid_of(engine) for _ in range(4)))

        for _ in range(2):
            setting.cell.run(crowd())
            setting.cell.run(engine.dispose())

    def test_in_debug_mode_pitfall_018(self, setting: Setting) -> None:
        """A loop that looks at who calls it."""
        engine = setting.engine()
        for _ in range(3):
            setting.cell.run(pid_of(engine), debug=True)

    def test_one_connection_in_two_loops_pitfall_005(self, setting: Setting) -> None:
        """A fixture of a session holds it, in a transaction, and tests use it in their loops."""
        if setting.cell.way == "asyncpg stays":
            pytest.skip("only a connection that belongs to no loop can")
        engine = setting.engine()

        async def take() -> AsyncConnection:
            connection = await engine.connect().start()
            await connection.execute(text("CREATE TEMP TABLE mine (n int) ON COMMIT DROP"))
            return connection

        connection = setting.cell.run(take())
        for expected in range(3):
            found = setting.cell.run(connection.scalar(text("SELECT count(*) FROM mine")))
            assert found == expected
            setting.cell.run(connection.execute(text("INSERT INTO mine VALUES (1)")))
        setting.cell.run(connection.close())


class TestCancelled:
    """A statement that nobody waits for any more."""

    @staticmethod
    async def cancel(engine: AsyncEngine) -> None:
        """Begin to sleep, and be cancelled."""
        async with engine.connect() as connection:
            await backend(connection)  # it is connected
            sleeping = asyncio.ensure_future(connection.execute(text("SELECT pg_sleep(30)")))
            await asyncio.sleep(0.02)
            sleeping.cancel()
            with suppress(asyncio.CancelledError):
                await sleeping

    @staticmethod
    async def run_out_of_time(engine: AsyncEngine) -> None:
        """Begin to sleep, and be out of time."""
        async with engine.connect() as connection:
            await backend(connection)  # it is connected
            with suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    await connection.execute(text("SELECT pg_sleep(30)"))

    @pytest.mark.parametrize("end", ["cancel", "run_out_of_time"])
    @pytest.mark.slow
    @in_few_cells
    def test_and_the_next_one_pitfall_016(self, setting: Setting, end: str) -> None:
        """The next statement is answered, in this loop and in the next."""
        engine = setting.engine()

        async def test() -> None:
            await getattr(self, end)(engine)
            await pid_of(engine)

        for _ in range(2):
            setting.cell.run(test())
            setting.cell.run(pid_of(engine))

    @in_few_cells
    def test_as_the_loop_ends_pitfall_016(self, setting: Setting) -> None:
        """The last thing that a test does."""
        engine = setting.engine()
        for _ in range(3):
            setting.cell.run(self.cancel(engine))
            setting.cell.run(self.run_out_of_time(engine))
            setting.cell.run(pid_of(engine))

    @in_few_cells
    def test_at_any_moment_pitfall_016(self, setting: Setting) -> None:
        """Cancelled while it connects, begins, asks for a type, or runs."""
        # Older ones leave a connection open by themselves, without us, whatever the driver.
        if is_older("sqlalchemy", 2, 0, 57):
            pytest.skip("this SQLAlchemy loses a connection that is cancelled while it is made")
        if setting.driver == "asyncpg" and is_older("asyncpg", 0, 32):
            pytest.skip("this asyncpg loses a connection that is cancelled while it is made")
        engine = setting.engine()

        async def test(seconds: float) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds), engine.connect() as connection:
                    # Not longer: a request to cancel that comes before its statement is lost.
                    await connection.execute(text("SELECT pg_sleep(0.2)"))
            await engine.dispose()

        for milliseconds in range(1, 16, 2):
            setting.cell.run(test(milliseconds / 1000))
        setting.cell.run(pid_of(engine))

    @in_few_cells
    def test_by_the_drivers_own_time_pitfall_016(self, setting: Setting) -> None:
        """The connection survives, and is used again."""
        only_asyncpg(setting)
        engine = setting.engine()

        async def test() -> int:
            async with engine.connect() as connection:
                driver = await driver_of(connection)
                with pytest.raises(TimeoutError):
                    await driver.fetch("SELECT pg_sleep(30)", timeout=0.02)
                return await backend(connection)

        assert setting.cell.run(test())
        setting.cell.run(pid_of(engine))


class TestTraffic:
    """What goes over the wire, in a loop that the connection was not made in."""

    @pytest.mark.slow
    @in_few_cells
    def test_streamed_rows(self, setting: Setting) -> None:
        """A cursor on the server's side."""
        engine = setting.engine()

        async def test() -> None:
            async with engine.connect() as connection:
                result = await connection.stream(text("SELECT generate_series(1, 3000)"))
                assert sum([row[0] async for row in result]) == 4_501_500

        for _ in range(2):
            setting.cell.run(test())

    @pytest.mark.slow
    @in_few_cells
    def test_sixteen_megabytes_each_way(self, setting: Setting) -> None:
        """More than any socket takes at once."""
        engine = setting.engine()

        async def test() -> None:
            async with engine.connect() as connection:
                size = 16 * 1024 * 1024
                echo = text("SELECT CAST(:much AS text)")
                assert len(await connection.scalar(echo, {"much": "x" * size})) == size

        setting.cell.run(pid_of(engine))
        setting.cell.run(test())

    @pytest.mark.parametrize(
        "count", [500, pytest.param(50_000, marks=pytest.mark.slow, id="50000")]
    )
    @in_few_cells
    def test_many_rows_at_once(self, setting: Setting, count: int) -> None:
        """`executemany`, which asyncpg sends in pieces."""
        engine = setting.engine()

        async def test() -> None:
            async with engine.begin() as connection:
                await connection.execute(text("CREATE TEMP TABLE many (n int) ON COMMIT DROP"))
                rows = [{"n": n} for n in range(count)]
                await connection.execute(text("INSERT INTO many VALUES (:n)"), rows)
                assert await connection.scalar(text("SELECT count(*) FROM many")) == count

        setting.cell.run(pid_of(engine))
        setting.cell.run(test())

    @in_few_cells
    def test_copy_in_and_out(self, setting: Setting) -> None:
        """Functions of asyncpg, which pause reading."""
        only_asyncpg(setting)
        engine = setting.engine()
        out: list[bytes] = []

        async def write(data: bytes) -> None:
            out.append(data)
            await asyncio.sleep(0)

        async def test() -> None:
            async with engine.connect() as connection:
                driver = await driver_of(connection)
                await driver.execute("CREATE TEMP TABLE copied (n int, s text)")
                records = [(n, "x" * 100) for n in range(20_000)]
                await driver.copy_records_to_table("copied", records=records)
                await driver.copy_from_query("SELECT * FROM copied", output=write)
                await driver.execute("DROP TABLE copied")

        for _ in range(2):
            out.clear()
            setting.cell.run(test())
            assert b"".join(out).count(b"\n") == 20_000

    @in_few_cells
    def test_a_copy_that_its_source_breaks_off_pitfall_016(self, setting: Setting) -> None:
        """The loop of the copy ends before the server answers asyncpg's cancellation.

        The next loop can use the connection.
        """
        only_asyncpg(setting)
        engine = setting.engine()

        async def records() -> AsyncIterator[tuple[int]]:
            yield (1,)
            raise ZeroDivisionError

        async def test() -> None:
            async with engine.connect() as connection:
                driver = await driver_of(connection)
                await driver.execute("CREATE TEMP TABLE IF NOT EXISTS broken (n int)")
                with suppress(ZeroDivisionError):
                    await driver.copy_records_to_table("broken", records=records())

        for _ in range(2):
            setting.cell.run(test())
            setting.cell.run(pid_of(engine))

    @in_few_cells
    def test_cursors_of_the_driver(self, setting: Setting) -> None:
        """Several statements, by turns, on one connection."""
        only_asyncpg(setting)
        engine = setting.engine()

        async def test() -> None:
            async with engine.connect() as connection:
                driver = await driver_of(connection)
                async with driver.transaction():
                    prepared = await driver.prepare("SELECT generate_series(1, $1::int)")
                    one, other = await prepared.cursor(10), await prepared.cursor(20)
                    await one.fetch(5)
                    assert len(await other.fetch(50)) == 20
                    assert len(await one.fetch(50)) == 5

        for _ in range(2):
            setting.cell.run(test())

    @in_few_cells
    def test_a_codec_set_by_a_listener(self, setting: Setting) -> None:
        """`run_async` in a `connect` listener, the recipe of SQLAlchemy's documentation."""
        only_asyncpg(setting)
        engine = setting.engine()

        async def set_codec(driver: Any) -> None:
            await driver.set_type_codec(
                "numeric", schema="pg_catalog", encoder=str, decoder=float, format="text"
            )

        def connected(connection: Any, _entry: Any) -> None:
            connection.run_async(set_codec)

        event.listen(engine.sync_engine, "connect", connected)

        async def test() -> object:
            async with engine.connect() as connection:
                return await (await driver_of(connection)).fetchval("SELECT 1.5::numeric")

        assert [setting.cell.run(test()) for _ in range(2)] == [1.5, 1.5]

    @in_few_cells
    def test_notifications_while_it_is_out(self, setting: Setting) -> None:
        """The loop that it is in hears them."""
        only_asyncpg(setting)
        engine = setting.engine()

        async def test() -> None:
            heard: asyncio.Queue[str] = asyncio.Queue()
            async with engine.connect() as connection:
                driver = await driver_of(connection)

                def hear(*said: Any) -> None:
                    heard.put_nowait(said[-1])

                await driver.add_listener(setting.channel, hear)
                await driver.execute(f"NOTIFY {setting.channel}, 'here'")
                assert await heard.get() == "here"
                await driver.remove_listener(setting.channel, hear)

        for _ in range(2):
            setting.cell.run(test())

    @in_few_cells
    def test_notifications_while_it_is_idle(self, setting: Setting) -> None:
        """A connection in its pool goes on listening, and once its loop is gone, in the next."""
        if setting.cell.way != "asyncpg moves" or setting.cell.pool == "null":
            pytest.skip("one that is dropped hears nothing")
        engine, other = setting.engine(), setting.engine()
        heard: list[str] = []
        is_heard = threading.Event()

        def hear(*said: Any) -> None:
            heard.append(said[-1])
            is_heard.set()

        async def notify(word: str) -> None:
            async with other.connect() as connection:
                await (await driver_of(connection)).execute(f"NOTIFY {setting.channel}, '{word}'")

        async def listen() -> None:
            async with engine.connect() as connection:
                await (await driver_of(connection)).add_listener(setting.channel, hear)
            await notify("idle")
            await asyncio.to_thread(is_heard.wait, 10)

        async def forget() -> None:
            async with engine.connect() as connection:
                await backend(connection)
                assert heard == ["idle", "late"]
                await (await driver_of(connection)).remove_listener(setting.channel, hear)

        setting.cell.run(listen())
        setting.cell.run(notify("late"))
        setting.cell.run(forget())


class TestKilled:
    """A backend that the server has ended."""

    @in_few_cells
    def test_while_it_is_idle(self, setting: Setting) -> None:
        """A ping finds out; without one, the app hears of it, as it does without us."""
        engine = setting.engine()
        for _ in range(2):
            setting.kill(setting.cell.run(pid_of(engine)))
            if setting.cell.keeps and setting.cell.pool != "ping":
                with pytest.raises(DBAPIError) as caught:
                    setting.cell.run(pid_of(engine))
                assert caught.value.connection_invalidated
            setting.cell.run(pid_of(engine))

    @in_few_cells
    def test_while_it_is_idle_in_a_loop_that_goes_on(self, setting: Setting) -> None:
        """The same in one loop."""
        engine = setting.engine()

        async def test() -> None:
            for _ in range(2):
                pid = await pid_of(engine)
                await asyncio.to_thread(setting.kill, pid)
                with suppress(DBAPIError):
                    await pid_of(engine)
                assert await pid_of(engine) != pid

        setting.cell.run(test())

    @in_few_cells
    def test_while_it_is_out(self, setting: Setting) -> None:
        """The next statement fails, and says so; another connection works."""
        engine = setting.engine()

        async def test() -> None:
            async with engine.connect() as connection:
                setting.kill(await backend(connection))  # the loop stands still meanwhile
                with pytest.raises(DBAPIError) as caught:
                    await backend(connection)
                assert caught.value.connection_invalidated
            await pid_of(engine)

        for _ in range(2):
            setting.cell.run(test())

    @in_few_cells
    def test_while_a_statement_runs(self, setting: Setting) -> None:
        """It fails."""
        engine = setting.engine()

        async def test() -> None:
            async with engine.connect() as connection:
                pid = await backend(connection)
                sleeping = asyncio.ensure_future(connection.execute(text("SELECT pg_sleep(30)")))
                await asyncio.sleep(0.02)
                await asyncio.to_thread(setting.kill, pid)
                with pytest.raises(DBAPIError):
                    await sleeping
            await pid_of(engine)

        for _ in range(2):
            setting.cell.run(test())
