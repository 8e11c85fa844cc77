"""Each runner and each event loop in one run: requests at once, and the app's own engine."""

import asyncio

import pytest
import pytest_asyncio
from async_app import items, maker
from models import Order


async def add(item):
    async with maker.begin() as session:
        session.add(Order(item=item))


async def story():
    async with maker() as session:
        assert await items(session) == []
    await asyncio.gather(*(add(str(number)) for number in range(4)))
    async with maker() as session:
        assert len(await items(session)) == 4


async def ask(client):
    await story()
    await asyncio.gather(*(client.post("/orders/chair") for _ in range(2)))
    assert len((await client.get("/orders")).json()) == 6


@pytest.mark.asyncio
async def test_a_loop_of_the_test(client, turn):
    await ask(client)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_loop_of_the_module(client, turn):
    await ask(client)


@pytest.mark.asyncio(loop_scope="session")
async def test_a_loop_of_the_session(client, turn):
    await ask(client)


@pytest_asyncio.fixture(loop_scope="session")
async def of_another_loop(client):
    await client.post("/orders/chair")


@pytest.mark.asyncio
async def test_a_fixture_of_another_loop(of_another_loop, client, db_session, turn):
    db_session.add(Order(item="vase"))
    assert (await client.get("/orders")).json() == ["chair", "vase"]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.mark.anyio
async def test_the_runner_of_anyio(client, anyio_backend, turn):
    await ask(client)


def test_a_loop_inside_of_a_sync_test(test_client, turn):
    asyncio.run(story())
    assert len(test_client.get("/orders").json()) == 4


@pytest.mark.asyncio
async def test_a_sync_client_in_an_async_test(client, test_client, turn):
    test_client.post("/orders/chair")
    await client.post("/orders/lamp")
    assert test_client.get("/orders").json() == (await client.get("/orders")).json()
