"""Tests that prove their scenarios."""

import unittest

import pytest
from app import Battle, Judge, app, end_all
from pytest_arena import updated
from starlette.testclient import TestClient


@pytest.mark.scenario("A pending battle is started")
async def test_start(scenario, client, db_session):
    with scenario.given("a battle is PENDING"):
        db_session.add(Battle(id=1, name="Sand"))
    with scenario.when("I POST to /battles/{battle_id}/start"):
        response = await client.post("/battles/1/start")
    with scenario.then("the battle is ACTIVE"):
        assert (await db_session.get_one(Battle, 1)).status == "ACTIVE"
    with scenario.then("the answer says so"):
        assert response.json() == {
            "status": "ACTIVE",
        }


@pytest.mark.scenario("A battle is not started twice")
async def test_twice(client, db_session):
    db_session.add(Battle(id=1, name="Sand", status="ACTIVE"))
    assert (await client.post("/battles/1/start")).status_code == 409


@pytest.mark.scenario("A job ends all battles")
async def test_job_with_request(client, db_session):
    db_session.add(Battle(id=1, name="Sand", status="ACTIVE"))
    await db_session.commit()
    await end_all()
    [battle] = (await client.get("/battles")).json()
    assert battle["status"] == "ENDED"


@pytest.mark.scenario("A job without a request is accepted")
async def test_job(db_session):
    db_session.add(Battle(id=1, name="Sand", status="ACTIVE"))
    await db_session.commit()
    await end_all()
    assert (await db_session.get_one(Battle, 1)).status == "ENDED"


class TestBattles(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def battle(self, arena):
        with arena.session() as session:
            session.add(Battle(id=1, name="Sand"))
            session.commit()

    @pytest.mark.scenario("A unittest proves")
    def test_by_methods(self):
        with TestClient(app) as client:
            [battle] = client.get("/battles").json()
        self.assertEqual(battle["name"], "Sand")
        self.assertEqual(battle["status"], "PENDING")


@pytest.mark.scenario("Changed rows prove")
async def test_changes(arena, client, db_session):
    db_session.add(Battle(id=1, name="Sand"))
    async with arena.expect_changes(battles=updated(1)):
        await client.post("/battles/1/start")


@pytest.mark.scenario("A request prepares another")
async def test_two_requests(client, db_session):
    db_session.add(Battle(id=1, name="Sand"))
    assert (await client.post("/battles/1/start")).status_code == 200
    assert (await client.post("/battles/1/start")).status_code == 409


@pytest.mark.scenario("Two judges are invited at once")
async def test_race(arena, client, db_session):
    db_session.add(Judge(name="Ann"))
    async for race in arena.races():
        await race(client.post("/judges/Bea"), client.post("/judges/Cid"))
        async with arena.fresh():
            judges = (await client.get("/judges")).json()
            assert {"Ann", "Bea", "Cid"} <= {*judges}


@pytest.mark.scenario("An unknown battle is not found")
async def test_unknown(client):
    assert (await client.post("/battles/7/start")).status_code == 404
