"""A failed test leaves a lock, or a statement that it has not read to its end. The next one writes.

The engines are of the suite, in memory or on a file, with a write-ahead log or without one.
"""

import threading

import pytest
import pytest_asyncio
from models import Base, Order
from sqlalchemy import StaticPool, create_engine, event, func, insert, select
from sqlalchemy.ext.asyncio import create_async_engine

KEPT = []
HALF_DELETED = "DELETE FROM orders RETURNING id"
PLACES = {
    "file": {"connect_args": {"timeout": 0.2}},
    "memory": {"connect_args": {"check_same_thread": False}, "poolclass": StaticPool},
}


@pytest.fixture(scope="module", params=["delete", "wal"])
def journal(request):
    return request.param


@pytest.fixture(scope="module", params=PLACES)
def place(request):
    return request.param


def with_journal(engine, journal):
    @event.listens_for(engine, "connect")
    def set_journal(connection, _):
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA journal_mode = {journal}")
        cursor.close()


@pytest.fixture(scope="module")
def engine(place, journal):
    url = f"sqlite:///sync_{journal}.db" if place == "file" else "sqlite://"
    engine = create_engine(url, **PLACES[place])
    with_journal(engine, journal)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(Order), [{"item": "vase"}] * 100)
    yield engine
    engine.dispose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def async_engine(place, journal):
    url = f"sqlite+aiosqlite:///async_{journal}.db" if place == "file" else "sqlite+aiosqlite://"
    engine = create_async_engine(url, **PLACES[place])
    with_journal(engine.sync_engine, journal)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Order), [{"item": "vase"}] * 100)
    yield engine
    await engine.dispose()


def half_read(engine):
    with engine.connect() as connection:
        cursor = connection.connection.cursor()
        cursor.execute("SELECT * FROM orders")
        cursor.fetchone()
        KEPT.append(cursor)


def half_deleted(engine):
    connection = engine.connect()
    result = connection.exec_driver_sql(HALF_DELETED)
    result.fetchone()
    KEPT.append((connection, result))


def locked_by_a_thread(engine):
    def lock():
        connection = engine.connect()
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        KEPT.append(connection)

    thread = threading.Thread(target=lock)
    thread.start()
    thread.join()


async def half_read_by_a_task(engine):
    async with engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        cursor = await raw.execute("SELECT * FROM orders")
        await cursor.fetchone()
        KEPT.append(cursor)


async def half_deleted_by_a_task(engine):
    connection = await engine.connect()
    cursor = await (await connection.get_raw_connection()).driver_connection.execute(HALF_DELETED)
    await cursor.fetchone()
    KEPT.append((connection, cursor))


def each_before_a_test_that_writes(*ways):
    fails = pytest.mark.expect("LookupError", at="raise LookupError")
    steps = []
    for way in ways:
        steps += [pytest.param(way, marks=fails, id=way.__name__), pytest.param(None, id="writes")]
    return pytest.mark.parametrize("leave", steps)


@each_before_a_test_that_writes(half_read, half_deleted, locked_by_a_thread)
def test_the_next_test_writes(engine, leave):
    if leave:
        leave(engine)
        raise LookupError
    with engine.connect() as first, engine.connect() as second:
        for connection in (first, second, first):
            connection.execute(insert(Order).values(item="chair"))
            connection.commit()
        assert first.scalar(select(func.count(Order.id))) == 103


@each_before_a_test_that_writes(half_read_by_a_task, half_deleted_by_a_task)
async def test_the_next_async_test_writes(async_engine, leave):
    if leave:
        await leave(async_engine)
        raise LookupError
    async with async_engine.connect() as first, async_engine.connect() as second:
        for connection in (first, second, first):
            await connection.execute(insert(Order).values(item="chair"))
            await connection.commit()
        assert await first.scalar(select(func.count(Order.id))) == 103
