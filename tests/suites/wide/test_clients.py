"""Clients of wide fixtures: a request belongs to the test that sends it."""

import pytest
from async_app import app
from conftest import write
from fastapi.testclient import TestClient

from pytest_arena import inserted, updated


@pytest.fixture(scope="module")
def ours(arena):
    with arena.test_client() as client:
        client.post("/login/fixture")
        yield client


@pytest.fixture(scope="module")
def suites():
    with TestClient(app) as client:
        client.post("/login/fixture")
        yield client


@pytest.fixture(params=["ours", "suites"])
def client(request):
    return request.getfixturevalue(request.param)


def test_cookies_and_headers_are_restored(client, turn):
    assert client.get("/me").json() == ["fixture", None]
    client.post("/login/test")
    client.headers["authorization"] = "test"
    assert client.get("/me").json() == ["test", "test"]


@pytest.mark.expect("LostWriteWarning", at="await db.flush()")
def test_a_lost_write_fails_the_test_that_sent_the_request(client, turn):
    client.post("/forgets/vase")


def test_requests_and_changes_are_of_the_test(client, arena, db_session):
    write(arena, "vase")
    with arena.expect_changes(orders=inserted(1), stock=updated(1)), arena.max_statements(9):
        client.post("/orders/chair")
    assert client.get("/orders").json() == ["vase", "chair"]
    assert [request.path for request in arena.requests] == ["/orders/chair", "/orders"]


@pytest.fixture(scope="session")
def base_url(arena):
    return arena.live_server().url


def test_a_live_server_for_the_whole_session(base_url, turn):
    import httpx

    assert httpx.post(f"{base_url}/orders/chair").status_code == 201
    assert httpx.get(f"{base_url}/orders").json() == ["chair"]
