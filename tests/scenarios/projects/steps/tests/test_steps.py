"""Tests with blocks for their steps, and tests that share a scenario."""

import asyncio

import pytest
from app import Battle


@pytest.fixture
def battle(db_session):
    db_session.add(Battle(id=1, name="Sand"))


def check(status):
    assert status == "ACTIVE"


@pytest.mark.scenario("Each Then is checked")
async def test_each(battle, client, db_session, scenario):
    with scenario.when("I POST to /battles/{battle_id}/start"):
        response = await client.post("/battles/1/start")
    with scenario.then("the answer is ACTIVE"):
        check(response.json()["status"])
    with scenario.then("the battle is ACTIVE"):
        check((await db_session.get_one(Battle, 1)).status)


@pytest.mark.scenario("Two of three check nothing")
async def test_hollow(battle, client, scenario):
    response = await client.post("/battles/1/start")
    with scenario.then("the answer is ACTIVE"):
        assert response
    with scenario.then("the list has it"):
        [found] = (await client.get("/battles")).json()
        assert found["status"] == "ACTIVE"
    with scenario.then("no judge is called"):
        assert response is not None


@pytest.mark.scenario("A Then checks an earlier answer")
async def test_earlier(battle, client, scenario):
    before = await client.get("/battles")
    with scenario.when("I POST to /battles/{battle_id}/start"):
        await client.post("/battles/1/start")
    with scenario.then("it is in the list"):
        assert before.json()[0]["name"] == "Sand"


@pytest.mark.scenario("An error stops a Then")
async def test_stopped(battle, client, scenario):
    response = await client.get("/battles")
    with scenario.then("it is in the list"):
        assert response.json()[0] is not None
    with scenario.then("it has a name"):
        assert "Sand" in response.text


@pytest.mark.scenario("The blocks are nested")
@pytest.mark.scenario("A block is of another scenario")
def test_nested(battle, test_client, scenario):
    response = test_client.get("/battles")
    with scenario.then("it is in the list"), scenario.then("it has a name"):
        assert response.json()[0]["name"] == "Sand"


@pytest.mark.scenario("Its When checks the answer")
async def test_when(battle, client, db_session, scenario):
    with scenario.when("I POST to /battles/{battle_id}/start"):
        assert (await client.post("/battles/1/start")).status_code == 200
    with scenario.when("I GET /battles"):
        await client.get("/battles")
    with scenario.then("the battle is ACTIVE"):
        assert (await db_session.get_one(Battle, 1)).status == "ACTIVE"


@pytest.mark.scenario("One Then has two blocks")
async def test_two_blocks(battle, client, scenario):
    response = await client.get("/battles")
    with scenario.then("it is in the list"):
        assert response is not None
    with scenario.then("it is in the list"):
        assert response.json()[0]["id"] == 1


@pytest.mark.scenario("It fails by a call")
async def test_call(battle, client, scenario):
    response = await client.get("/battles")
    with scenario.then("it is in the list"):
        if "Sand" not in response.text:
            pytest.fail("it is not in the list")
        assert response


@pytest.mark.scenario("A row is a scenario")
@pytest.mark.parametrize("before, status", [("PENDING", 200), ("ACTIVE", 409)])
async def test_row(client, db_session, scenario, before, status):
    db_session.add(Battle(id=1, name="Sand", status=before))
    response = await client.post("/battles/1/start")
    with scenario.then("the answer is <status>"):
        assert response.status_code == status
    with scenario.then("the battle is ACTIVE"):
        assert (await db_session.get_one(Battle, 1)).status == "ACTIVE"


@pytest.mark.scenario("A status alone")
async def test_status(battle, client):
    assert (await client.get("/battles")).status_code == 200


@pytest.mark.scenario("One of two tests proves")
async def test_a_proof(battle, client):
    assert "Sand" in (await client.get("/battles")).text


@pytest.mark.scenario("One of two tests proves")
async def test_no_proof(battle, client):
    assert await client.get("/battles")


@pytest.mark.scenario("One of two tests fails")
async def test_passes(battle, client):
    assert "Sand" in (await client.get("/battles")).text


@pytest.mark.scenario("One of two tests fails")
async def test_fails(battle, client, scenario):
    with scenario.then("it is in the list"):
        assert "<b>Dune</b>" in (await client.get("/battles")).text


@pytest.mark.scenario("It is expected to fail and passes")
@pytest.mark.xfail(reason="issue 7")
async def test_passes_unexpectedly(client):
    assert (await client.get("/battles")).json() == []


@pytest.mark.scenario("It must fail and passes")
@pytest.mark.xfail(reason="issue 8", strict=True)
async def test_passes_strictly(client):
    assert (await client.get("/battles")).json() == []


@pytest.mark.scenario("The list is empty")
async def test_empty(client, scenario):
    response = await client.get("/battles")
    with scenario.then("no battle is in the list"):
        assert response.json() == []


@pytest.mark.scenario("A refused request changes nothing")
async def test_refused(client):
    await client.post("/judges/Bob")
    assert (await client.post("/judges/Ann")).status_code == 409
    await asyncio.gather(client.post("/judges/Cid"), client.post("/judges/Ann"))
