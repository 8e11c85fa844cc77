"""What the test and each of its requests have changed."""

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from async_app import TOKEN, app, engine, get_db, maker, order
from fastapi import Depends
from fastapi.responses import RedirectResponse
from models import Order, Stock, sync_url
from sqlalchemy import make_url, text

from pytest_arena import Changes


@pytest.fixture(autouse=True)
def needs_the_changes_of_a_request(request):
    arena = request.getfixturevalue("arena")
    if request.node.get_closest_marker("of_requests") and arena.isolation == "clone":
        pytest.skip("with clone, the changes of all requests together are known")


of_requests = pytest.mark.of_requests


# The first test: `arena.url` would let any program write at any time, unnoticed by the pool.
@of_requests
async def test_of_one_request_after_a_write_on_a_connection_in_use(arena, client):
    async with engine.connect() as connection:
        await client.post("/orders/chair")
        await connection.execute(text("INSERT INTO visits (path) VALUES ('/between')"))
        await connection.commit()
        await client.post("/orders/lamp")
        assert arena.changes(-1).tables == ("orders", "stock")


async def test_a_block_without_a_statement_after_a_request(arena, client):
    await client.post("/orders/chair")
    async with arena.expect_changes():
        pass


@pytest.fixture(scope="module")
def lamp(arena):
    with arena.session() as session:
        session.add(Order(item="lamp"))
        session.commit()
    assert arena.changes().tables == ("orders",)


@pytest.fixture
async def vase(db_session, lamp):
    db_session.add(Order(item="vase"))
    await db_session.commit()


async def test_of_fixtures_and_requests_since_the_test_began(arena, client, vase):
    await client.post("/orders/chair")
    changes = arena.changes()
    assert isinstance(changes, Changes)
    assert changes.tables == ("orders", "stock")
    assert [one.after["item"] for one in changes["orders"].inserted] == ["vase", "chair"]
    [stock] = changes["stock"].updated
    assert (stock.columns, stock.before["amount"], stock.after["amount"]) == (("amount",), 5, 4)
    await client.delete("/orders/3")
    await client.delete("/orders/1")
    assert [one.before["item"] for one in arena.changes().deleted] == ["lamp"]
    assert len(arena.changes()["orders"].inserted) == 1


def test_nothing_is_left_of_that(arena, lamp):
    assert not arena.changes()["orders"]


@pytest.mark.expect("A101", at='arena.changes().deleted["order"]')
def test_a_table_that_does_not_exist(arena, test_client):
    test_client.delete("/orders/1")
    assert not arena.changes().deleted["order"]


def test_pending_work_is_committed_first(arena, db_session):
    order = Order(item="desk")
    db_session.add(order)
    assert arena.changes()["orders"].inserted[0].after["item"] == "desk"
    order.status = "paid"
    assert arena.changes()["orders"].inserted[0].after["status"] == "paid"
    db_session.delete(order)
    assert not arena.changes()


@pytest.mark.expect("PendingWorkError", at="arena.changes()")
async def test_pending_work_that_cannot_be_awaited(arena, db_session):
    db_session.add(Order(item="desk"))
    arena.changes()


async def test_uncommitted_and_rolled_back_rows_are_no_changes(arena):
    async with maker() as session:
        session.add(Order(item="desk"))
        await session.flush()
        assert not arena.changes()
        await session.rollback()
    assert not arena.changes()


async def test_a_key_that_was_changed(arena):
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE stock SET item = 'sofa' WHERE item = 'chair'"))
        await connection.execute(text("DELETE FROM stock WHERE item = 'lamp'"))
    assert str(arena.changes()).splitlines() == [
        "stock +1 -2",
        "  + stock item='sofa'  amount=5",
        "  - stock item='chair'  amount=5",
        "  - stock item='lamp'  amount=2",
    ]


async def test_rows_of_a_table_that_has_other_columns_now(arena, client):
    await client.post("/orders/chair")
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE orders DROP COLUMN status"))
    assert TOKEN not in str(arena.changes())


async def test_a_value_that_was_changed_back(arena):
    for change in ("+", "-"):
        async with engine.begin() as connection:
            await connection.execute(text(f"UPDATE stock SET amount = amount {change} 1"))
    assert not arena.changes()


@pytest.mark.arena(seed=False)
async def test_without_the_seed(arena, db_session):
    db_session.add(Stock(item="lamp", amount=1))
    await db_session.commit()
    assert len(arena.changes()["stock"].inserted) == 1


OTHER = """
import sys, sqlalchemy
with sqlalchemy.create_engine(sys.argv[1]).begin() as connection:
    connection.execute(sqlalchemy.text("INSERT INTO visits (path) VALUES ('/other')"))
"""


def test_of_another_process(arena):
    subprocess.run([sys.executable, "-c", OTHER, sync_url(arena.url)], check=True)
    assert arena.changes()["visits"].inserted[0].after["path"] == "/other"


@of_requests
async def test_of_one_request(arena, client, db_session):
    db_session.add(Order(item="vase"))
    response = await client.post("/orders/chair")
    await client.get("/orders")
    async with maker.begin() as session:
        session.add(Order(item="between"))
    await client.post("/orders/lamp")
    assert arena.changes(response)["orders"][0].after["item"] == "chair"
    assert arena.changes(0) == arena.changes(response)
    assert not arena.changes(arena.requests[1])
    assert arena.changes(-1)["stock"].updated[0].after == {"item": "lamp", "amount": 1}
    assert len(arena.changes(-1)["orders"].inserted) == 1


@of_requests
async def test_of_one_request_after_a_write_without_an_engine(arena, client):
    if engine.dialect.name != "sqlite":
        pytest.skip("pytest-arena watches the drivers of servers")
    await client.post("/orders/chair")
    with closing(sqlite3.connect(make_url(arena.url).database)) as connection, connection:
        connection.execute("INSERT INTO visits (path) VALUES ('/between')")
    await client.post("/orders/lamp")
    assert arena.changes(-1).tables == ("orders", "stock")


@of_requests
async def test_of_requests_at_once(arena, client):
    await asyncio.gather(*(client.post(f"/orders/{item}") for item in ("chair", "lamp")))
    await client.post("/orders/chair")
    assert arena.changes(0) == arena.changes(1)
    assert len(arena.changes(0)["orders"].inserted) == 2
    assert len(arena.changes(2)["orders"].inserted) == 1


@app.post("/then/{item}")
async def then(item: str, db=Depends(get_db)):
    await order(item, db)
    return RedirectResponse("/orders", 303)


@of_requests
def test_of_redirects(arena, test_client):
    responses = [test_client.post("/old/chair") for _ in range(2)]
    assert [request.status for request in arena.requests] == [307, 201] * 2
    assert arena.changes(responses[1]) == arena.changes(3) != arena.changes(2)
    assert arena.changes(test_client.post("/then/chair")).tables == ("orders", "stock")


@of_requests
def test_of_a_request_that_raised(arena, test_client):
    with pytest.raises(LookupError):
        test_client.post("/breaks")
    test_client.post("/orders/chair")
    assert arena.changes(0).tables == ("visits",)
    assert arena.changes(1).tables == ("orders", "stock")


@pytest.mark.expect("IndexError", at="arena.changes(7)")
def test_of_no_request(arena):
    with pytest.raises(ValueError, match="pass its index"):
        arena.changes(object())
    arena.changes(7)


@pytest.mark.expect("A501", at="arena.changes(await")
async def test_of_one_request_with_clone(arena, client):
    if arena.isolation != "clone":
        pytest.skip("the changes are known")
    arena.changes(await client.post("/orders/chair"))


async def test_a_table_with_the_name_of_a_type(arena, client):
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE box (id INT PRIMARY KEY, note VARCHAR(9))"))
        await connection.execute(text("INSERT INTO box VALUES (1, 'full')"))
    assert [one.after["note"] for one in arena.changes()["box"].inserted] == ["full"]


@pytest.mark.expect("A501", at="arena.changes(0)")
async def test_the_first_of_many_requests(arena, client):
    for _ in range(41):
        await client.get("/orders")
    arena.changes(0)
