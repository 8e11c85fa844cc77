"""Whatever a test does to rows, numbers and the schema ends with it."""

import pytest
from async_app import engine, maker
from models import Order, Stock, Visit
from sqlalchemy import delete, insert, select, text
from sqlalchemy.exc import IntegrityError


async def run(*statements):
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


WRITES = [
    "INSERT INTO visits (path) VALUES ('/')",
    "UPDATE stock SET amount = 7",
    "UPDATE stock SET item = 'sofa' WHERE item = 'lamp'",
    "DELETE FROM stock",
    "INSERT INTO stock SELECT 'sofa', amount FROM stock WHERE item = 'lamp'",
]
CHANGES = [
    "CREATE TABLE more (a INTEGER)",
    "DROP TABLE visits",
    "DROP TABLE stock",  # it has no sequence
    "ALTER TABLE stock ADD COLUMN colour INTEGER",
    "ALTER TABLE stock RENAME TO goods",
    "CREATE VIEW items AS SELECT item FROM stock",
    "CREATE INDEX by_amount ON stock (amount)",
]


@pytest.mark.parametrize("write", WRITES)
async def test_rows(write):
    await run(write)


@pytest.mark.parametrize("change", CHANGES)
async def test_the_schema(change):
    await run(change)


async def test_rows_and_the_schema(client):
    await client.post("/orders/chair")
    await run("ALTER TABLE orders ADD COLUMN colour INTEGER", "UPDATE orders SET colour = 1")
    await run("DELETE FROM stock")


async def test_an_emptied_table(dialect):
    await run("DELETE FROM stock" if dialect == "sqlite" else "TRUNCATE TABLE stock")


async def test_numbers_begin_where_the_seed_ended(turn):
    async with maker() as session:
        session.add(Order(item="rolled back"))
        await session.flush()
        await session.rollback()
    async with maker.begin() as session:
        order = Order(item="vase")
        session.add(order)
        await session.flush()
        assert order.id in {1, 2}  # SQLite gives the number of a rolled back row again


async def test_a_copy_ends_no_transaction(arena):
    async with maker() as session:
        stock = await session.get(Stock, "chair")
        assert "kept" in str(arena.keep())
        stock.amount -= 1
        await session.commit()


async def test_many_rows():
    async with engine.begin() as connection:
        await connection.execute(insert(Visit), [{"path": f"/{n}"} for n in range(3000)])
        await connection.execute(delete(Visit).where(Visit.id % 2 == 0))


async def test_a_conflict_and_what_comes_after_it(client):
    with pytest.raises(IntegrityError):
        async with maker.begin() as session:
            session.add(Stock(item="chair", amount=1))
    assert (await client.post("/orders/chair")).status_code == 201


async def test_a_temporary_table():
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TEMPORARY TABLE mine (a INTEGER)"))


def test_a_sync_test(test_client, db_session):
    db_session.add(Stock(item="sofa", amount=1))
    test_client.post("/orders/sofa")
    assert db_session.scalar(select(Stock.amount).where(Stock.item == "sofa")) == 0
