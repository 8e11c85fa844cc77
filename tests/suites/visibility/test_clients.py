"""Every client sees what fixtures and the test wrote. The test sees what requests committed."""

import asyncio
import urllib.request

import httpx
import httpx2
import pytest
import websockets
from async_app import app, create_app, get_db, items, maker
from models import Order, sync_url
from sqlalchemy import create_engine, select
from starlette.testclient import TestClient

of_the_module = TestClient(app)


@pytest.fixture
async def own_session():
    async with maker() as session:
        yield session


@pytest.fixture(params=[httpx, httpx2])
async def own_client(request):
    transport = request.param.ASGITransport(app)
    async with request.param.AsyncClient(transport=transport, base_url="http://own") as client:
        yield client


# Twice, so that one of them begins after the other has written.
async def test_the_async_client(client, vase, db_session, turn):
    assert (await client.get("/orders")).json() == ["vase"]
    assert (await client.post("/orders/chair")).status_code == 201
    assert await items(db_session) == ["vase", "chair"]


def test_the_sync_client(test_client, db_session, turn):
    db_session.add(Order(item="vase"))
    assert test_client.get("/orders").json() == ["vase"]
    assert test_client.post("/orders/chair").status_code == 201
    assert [order.item for order in db_session.scalars(select(Order))] == ["vase", "chair"]


def test_the_live_server(live_server, db_session):
    db_session.add(Order(item="vase"))
    asked = urllib.request.Request(live_server.url + "/orders/chair", method="POST")
    assert urllib.request.urlopen(asked).status == 201
    assert httpx2.get(f"{live_server.url}/orders").json() == ["vase", "chair"]
    assert [order.item for order in db_session.scalars(select(Order))] == ["vase", "chair"]


@pytest.mark.parametrize("use", ["commit", "flush", "read"])
async def test_a_request_that_begins_while_the_test_uses_its_session(client, db_session, use):
    asking = asyncio.create_task(client.get("/orders"))
    db_session.add(Order(item="vase"))
    if use == "read":
        assert await items(db_session) == ["vase"]
    else:
        await getattr(db_session, use)()
    assert (await asking).json() == ["vase"]
    await db_session.commit()
    assert await items(db_session) == ["vase"]


async def test_the_live_server_in_an_async_test(live_server, client, vase, db_session):
    async with httpx2.AsyncClient(base_url=live_server.url) as browser:
        assert (await browser.post("/orders/chair")).status_code == 201
    assert (await client.get("/orders")).json() == ["vase", "chair"]
    async with websockets.connect(f"{live_server.url}/orders".replace("http", "ws")) as socket:
        assert await socket.recv() == '["vase","chair"]'
    assert await items(db_session) == ["vase", "chair"]


async def test_a_client_of_the_suite(own_client, vase, db_session):
    assert (await own_client.get("/orders")).json() == ["vase"]
    await own_client.post("/orders/chair")
    assert await items(db_session) == ["vase", "chair"]


def test_a_test_client_of_the_module(db_session):
    db_session.add(Order(item="vase"))
    assert of_the_module.get("/orders").json() == ["vase"]
    of_the_module.post("/orders/chair")
    with of_the_module.websocket_connect("/orders") as socket:
        assert socket.receive_json() == ["vase", "chair"]


def test_another_app_of_the_factory(db_session):
    db_session.add(Order(item="vase"))
    assert TestClient(create_app()).get("/orders").json() == ["vase"]


async def test_a_session_of_the_suite(own_session, client):
    own_session.add(Order(item="vase"))
    await own_session.commit()
    await client.post("/orders/chair")
    assert await items(own_session) == ["vase", "chair"]


async def test_an_override_that_gives_the_tests_session(client, db_session):
    app.dependency_overrides[get_db] = lambda: db_session
    db_session.add(Order(item="vase"))
    assert (await client.get("/orders")).json() == ["vase"]


async def test_the_override_has_ended_with_its_test(client):
    assert not app.dependency_overrides
    assert (await client.get("/orders")).json() == []


def test_another_engine_on_the_tests_database(arena, test_client):
    if arena.isolation == "rollback":
        pytest.skip("one driver uses the database")
    other = create_engine(sync_url(arena.url))
    with other.begin() as connection:
        connection.execute(Order.__table__.insert().values(item="vase", status="new"))
    assert test_client.get("/orders").json() == ["vase"]
    other.dispose()


@pytest.mark.expect("LostWriteWarning", at="await db.flush()")
async def test_a_commit_that_the_app_forgot_is_not_seen(client):
    await client.post("/forgets/vase")
    assert (await client.get("/orders")).json() == []


async def test_each_request_is_known(arena, client, own_client, vase):
    await own_client.post("/orders/chair")
    await client.get("/orders")
    with pytest.raises(LookupError):
        await client.post("/breaks")
    assert [request.path for request in arena.requests] == ["/orders/chair", "/orders", "/breaks"]
    assert arena.changes().tables == ("orders", "stock", "visits")
    if arena.isolation not in {"clone", "rollback"}:  # they know the whole only
        assert arena.changes(0).tables == ("orders", "stock")
