"""The app starts before the rows of the test's own fixtures, as it does in production."""

import httpx2
import pytest
from async_app import maker
from fastapi.testclient import TestClient
from life import STARTS, app
from models import Order

BOTH = ["start-up", "fixture"]


@pytest.fixture
async def order(db_session):
    db_session.add(Order(item="fixture"))
    await db_session.commit()


@pytest.fixture
def sync_order(db_session):
    db_session.add(Order(item="fixture"))
    db_session.commit()


@pytest.fixture
async def of_the_suite():
    async with maker.begin() as session:
        session.add(Order(item="fixture"))


async def test_a_client_after_the_rows(order, client, turn):
    assert (await client.get("/orders")).json() == BOTH


async def test_a_client_before_the_rows(client, order):
    assert (await client.get("/orders")).json() == BOTH


@pytest.fixture
async def started(client):
    await client


async def test_a_session_of_the_suite_after_the_start(started, of_the_suite, client):
    assert (await client.get("/orders")).json() == BOTH


def test_a_sync_client_after_the_rows(sync_order, test_client, turn):
    assert test_client.get("/orders").json() == BOTH


def test_a_sync_client_before_the_rows(test_client, sync_order):
    assert test_client.get("/orders").json() == BOTH


@pytest.mark.usefixtures("arena_lifespan")
async def test_a_client_of_arena(order, arena):
    assert (await arena.client().get("/orders")).json() == BOTH


def test_the_live_server(live_server, sync_order):
    assert httpx2.get(f"{live_server.url}/orders").json() == BOTH


def test_both_clients_share_one_start(test_client, live_server):
    count = len(STARTS)
    assert test_client.get("/orders").json() == ["start-up"]
    assert httpx2.get(f"{live_server.url}/orders").json() == ["start-up"]
    assert len(STARTS) == count


def test_a_database_alone_starts_no_app(arena):
    count = len(STARTS)
    with arena.session() as session:
        session.add(Order(item="fixture"))
    assert len(STARTS) == count


def test_a_client_of_the_suite_starts_the_app_itself():
    with TestClient(app) as client:
        assert client.get("/orders").json() == ["start-up"]


@pytest.mark.usefixtures("arena_lifespan")
async def test_the_app_is_up_without_a_client():
    assert STARTS.count("up") > STARTS.count("down")


@pytest.mark.parametrize("fixture", ["arena_lifespan", "test_client", "test_client_as"])
def test_the_app_is_up_in_a_sync_test(fixture, request):
    request.getfixturevalue(fixture)
    assert STARTS.count("up") > STARTS.count("down")
