"""A test that asks for another isolation, or for no seed, beside the rows of a wide fixture."""

import pytest
from async_app import engine
from models import Order, Stock
from sqlalchemy import select, text

other = "copy" if engine.dialect.name == "sqlite" else "clone"


@pytest.fixture(scope="module")
def vase(arena):
    with arena.session() as session:
        session.add(Order(item="vase"))
        session.commit()
    yield
    with arena.session() as session:
        assert session.scalars(select(Order.item)).all() == ["vase"]


@pytest.mark.arena(isolation=other)
async def test_another_isolation(vase, arena, client, turn):
    assert arena.isolation == other
    assert (await client.post("/orders/chair")).status_code == 201
    assert (await client.get("/orders")).json() == ["vase", "chair"]
    assert [row.after["item"] for row in arena.changes()["orders"].inserted] == ["chair"]
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE visits"))


@pytest.mark.arena(isolation="auto")
async def test_the_isolation_of_the_run(vase, client, turn):
    assert (await client.post("/orders/chair")).status_code == 201
    assert (await client.get("/orders")).json() == ["vase", "chair"]


@pytest.mark.skipif(other == "copy", reason="on SQLite it is copy")
@pytest.mark.arena(isolation="rollback")
@pytest.mark.expect("A101")
def test_rollback_is_for_all_tests(vase):
    pass


@pytest.mark.arena(seed=False)
async def test_no_seed(vase, client, db_session):
    assert (await db_session.scalars(select(Stock.item))).all() == []
    assert (await client.get("/orders")).json() == []


@pytest.mark.arena(seed=False)
class TestMarkers:
    @pytest.mark.arena(seed=True)
    async def test_the_inner_one_wins(self, client, db_session):
        assert (await db_session.scalars(select(Stock.item))).all() != []
