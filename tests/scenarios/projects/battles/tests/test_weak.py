"""Tests that pass and prove nothing."""

import pytest
from app import Battle, app
from starlette.testclient import TestClient

RUNS = []


@pytest.fixture
async def battle(db_session):
    db_session.add(Battle(id=1, name="Sand"))
    await db_session.commit()


@pytest.mark.scenario("A battle is not started twice")
async def test_beside_a_test_that_proves(battle, client):
    await client.post("/battles/1/start")


@pytest.fixture
async def asserted(battle, client):
    assert (await client.get("/battles")).status_code == 200


@pytest.mark.scenario("It asserts nothing")
async def test_no_assertion(asserted, client):
    (await client.get("/motto")).raise_for_status()


@pytest.mark.scenario("It asserts what is always true")
async def test_always_true(battle, client):
    response = await client.get("/battles")
    assert response.status_code < 600


@pytest.mark.scenario("It checks one of two")
async def test_one_of_two(battle, client):
    [found] = (await client.get("/battles")).json()
    assert found["name"] == "Sand"


@pytest.mark.scenario("It has an empty block")
async def test_empty_block(battle, client, scenario):
    with scenario.when("I GET /battles"):
        [found] = (await client.get("/battles")).json()
    with scenario.then("it is in the list"):
        assert found["name"] == "Sand"
        assert found["status"] == "PENDING"
    with scenario.then("it is PENDING"):
        pass


@pytest.mark.scenario("It seeds nothing")
async def test_no_seed(client):
    assert (await client.get("/battles")).json() == []


@pytest.mark.scenario("It asserts before the answer")
async def test_early(battle, client):
    assert 1 + 1 == 2
    await client.get("/battles")


@pytest.mark.scenario("Its request loses a write")
async def test_lost(battle, client):
    assert (await client.post("/judges/Dan")).json() == "Dan"


@pytest.mark.scenario("It sends no request")
async def test_no_request(battle, db_session):
    assert (await db_session.get_one(Battle, 1)).name == "Sand"


@pytest.mark.scenario("It fails by an error alone")
async def test_error(battle, client):
    response = await client.get("/battles")
    assert len(response.json()) >= 0
    response.json()[0]["name"]


@pytest.mark.scenario("It cannot run twice")
async def test_once(battle, client):
    RUNS.append(1)
    assert (await client.get("/battles")).json() and len(RUNS) == 1


@pytest.mark.scenario("It opens a websocket")
def test_socket():
    with TestClient(app) as client, client.websocket_connect("/live") as socket:
        assert socket.receive_text() == "PENDING"
