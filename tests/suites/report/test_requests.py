"""What was there, what the test wrote, which requests it made, and what each changed."""

import asyncio
from contextlib import suppress

import httpx2
import pytest
from async_app import TOKEN, app, maker
from fastapi import BackgroundTasks
from fastapi.responses import StreamingResponse
from models import Order, Stock, Visit

fails = pytest.mark.expect("AssertionError", at="assert")


@pytest.fixture(scope="module")
def lamps(arena):
    with arena.session() as session:
        session.add_all([Stock(item="torch", amount=9), Order(item="torch")])
        session.commit()


@app.post("/late")
async def late(tasks: BackgroundTasks):
    session = maker()
    session.add(Visit(path="/late"))
    await session.flush()
    tasks.add_task(session.commit)


@fails
async def test_each_kind_of_line(lamps, client, db_session):
    db_session.add_all(Order(item="vase", note="by hand") for _ in range(9))
    await client.post("/orders/chair")
    await client.post(f"/orders/nothing?note=1&token={TOKEN}")
    await asyncio.gather(client.post("/orders/chair"), client.get("/me"))
    async with maker.begin() as session:
        session.add(Order(item="between"))
    await client.delete("/orders/2")
    for _ in range(6):
        await client.get("/orders")
    await client.post("/old/lamp", follow_redirects=True)
    await client.post("/forgets/vase")
    await client.get("/each")
    await client.post("/late")
    with pytest.raises(LookupError):
        await client.post("/breaks")
    db_session.add(Order(item="never committed"))
    await db_session.flush()
    assert False


@fails
async def test_a_race_without_a_commit(arena, client):
    async for race in arena.races():
        await race(client.post("/forgets/vase"), client.get("/orders"))
        assert False


@fails
def test_the_test_alone(db_session):
    db_session.add_all(Order(item="vase") for _ in range(10))
    db_session.commit()
    assert False


@fails
def test_without_a_database():
    assert False


@pytest.fixture
def broken(db_session):
    db_session.add(Order(item="vase"))
    db_session.commit()
    assert False


@fails
def test_whose_fixture_fails(broken):
    pass


class TestSetUp:
    @classmethod
    def setup_class(cls):
        asyncio.run(cls.write())

    @classmethod
    async def write(cls):
        async with maker.begin() as session:
            session.add(Visit(path="setup_class"))

    @fails
    def test_of_a_class(self):
        assert False


@fails
def test_the_live_server(live_server):
    assert httpx2.post(f"{live_server.url}/breaks").status_code == 201


@app.get("/endless")
async def endless():
    async def ticks():
        while True:
            yield b"tick"
            await asyncio.sleep(0.001)

    return StreamingResponse(ticks())


@fails
async def test_a_body_without_end(client):
    with suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.get("/endless")
    assert False
