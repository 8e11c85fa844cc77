"""What works although all connections share one transaction."""

import asyncio
import threading

import pytest
from async_app import engine, maker
from models import Order, Stock
from sqlalchemy import DDL, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

TIMES = []


async def items():
    async with maker() as session:
        return list(await session.scalars(select(Order.item).order_by(Order.id)))


async def test_requests_at_once(client, turn):
    orders = [client.post("/orders/chair") for _ in range(5)]
    answers = await asyncio.gather(*orders, *[client.get("/orders") for _ in range(5)])
    assert {answer.status_code for answer in answers} == {200, 201}
    assert await items() == ["chair"] * 5


async def test_numbers_begin_again(turn):
    async with maker() as session:
        session.add(Order(item="lost"))
        await session.flush()
        await session.rollback()
        order = Order(item="kept")
        session.add(order)
        await session.commit()
        assert order.id == 2


async def test_a_failed_commit_harms_no_open_reader(client, turn):
    async with maker() as reader:
        assert list(await reader.scalars(select(Stock.item))) == ["chair", "lamp"]
        await client.post("/orders/chair")
        async with maker() as session:
            session.add(Stock(item="lamp", amount=1))
            with pytest.raises(IntegrityError):
                await session.commit()
            await session.rollback()
            assert len(list(await session.scalars(select(Order)))) == 1
        await reader.rollback()
    assert await items() == ["chair"]


async def test_a_failed_statement_fails_its_transaction(turn):
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError, match="division by zero"):
            await connection.execute(text("SELECT 1 / 0"))
        with pytest.raises(DBAPIError, match="current transaction is aborted"):
            await connection.execute(text("SELECT 1"))
        await connection.rollback()
        assert await connection.scalar(text("SELECT 1")) == 1


async def test_a_commit_after_a_failed_statement_keeps_nothing(turn):
    async with engine.connect() as connection:
        await connection.execute(insert(Order).values(item="lost", status="new"))
        with pytest.raises(DBAPIError, match="division by zero"):
            await connection.execute(text("SELECT 1 / 0"))
        await connection.commit()
    assert await items() == []


async def test_an_invalidated_connection_keeps_nothing(turn):
    async with engine.connect() as connection:
        await connection.execute(insert(Order).values(item="lost", status="new"))
        await connection.invalidate()
    assert await items() == []


async def test_each_test_has_its_time(turn):
    async with engine.connect() as connection:
        TIMES.append(await connection.scalar(text("SELECT now()")))
    assert len(set(TIMES)) == len(TIMES)


async def test_savepoints(turn):
    async with maker() as session:
        session.add(Order(item="first"))
        await session.flush()
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                session.add(Stock(item="lamp", amount=1))
                await session.flush()
        async with session.begin_nested():
            session.add(Order(item="second"))
        await session.commit()
    assert await items() == ["first", "second"]


async def test_a_deferred_constraint_is_checked_at_the_commit(turn):
    async with engine.begin() as connection:
        await connection.execute(
            text("CREATE TABLE pairs (a int, UNIQUE (a) DEFERRABLE INITIALLY DEFERRED)")
        )
    with pytest.raises(IntegrityError):
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO pairs VALUES (1)"))
            await connection.execute(text("INSERT INTO pairs VALUES (1)"))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM pairs")) == 0


async def test_the_schema_is_undone(turn):
    columns = text("SELECT count(*) FROM information_schema.columns WHERE table_name = 'visits'")
    async with engine.begin() as connection:
        assert await connection.scalar(columns) == 2
        await connection.execute(DDL("ALTER TABLE visits ADD COLUMN mood text"))
        assert await connection.scalar(columns) == 3


async def test_a_row_is_locked_for_update(turn):
    async def sell():
        async with maker.begin() as session:
            stock = await session.get(Stock, "chair", with_for_update=True)
            await asyncio.sleep(0.01)
            stock.amount -= 1

    await asyncio.gather(*[sell() for _ in range(3)])
    async with maker() as session:
        assert (await session.get(Stock, "chair")).amount == 2


async def test_a_function_that_a_select_calls(turn):
    async with engine.begin() as connection:
        insert = "INSERT INTO orders (item, status) VALUES ($1, ''new'')"
        book = f"CREATE FUNCTION book(text) RETURNS void LANGUAGE sql AS '{insert}'"
        await connection.execute(text(book))
    async with engine.connect() as connection:
        await connection.execute(text("SELECT book('vase')"))
        await connection.rollback()
    assert await items() == []


async def test_a_read_only_transaction(turn):
    async with engine.connect() as connection:
        await connection.execution_options(postgresql_readonly=True)
        with pytest.raises(DBAPIError, match="read-only transaction"):
            await connection.execute(text("DELETE FROM stock"))
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM stock"))


async def test_autocommit(turn):
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("INSERT INTO orders (item, status) VALUES ('auto', 'new')"))
        assert await items() == ["auto"]


async def test_a_cancelled_statement(client, turn):
    await client.post("/orders/chair")
    async with engine.connect() as connection:
        with pytest.raises(TimeoutError):
            sleep = text("INSERT INTO orders (item, status) SELECT 'late', 'new' FROM pg_sleep(5)")
            await asyncio.wait_for(connection.execute(sleep), 0.2)
    assert await items() == ["chair"]


def test_threads_and_loops(turn, arena):
    async def add(number):
        async with maker.begin() as session:
            session.add(Order(item=f"{number}"))

    threads = [threading.Thread(target=lambda n=n: asyncio.run(add(n))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with arena.session() as session:
        assert len(session.scalars(select(Order.item)).all()) == 4
        session.add(Order(item="sync"))
        session.commit()
    assert asyncio.run(items())[-1] == "sync"


LEFT = []


@pytest.mark.expect("A602", at="await session.flush()")
async def test_that_leaves_a_transaction_open():
    session = maker()
    session.add(Order(item="left"))
    await session.flush()
    LEFT.append(session)


async def test_after_it(client):
    assert (await client.get("/orders")).json() == []
    await client.post("/orders/chair")
    assert await items() == ["chair"]
