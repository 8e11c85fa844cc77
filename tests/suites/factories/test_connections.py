"""The connections of an app's engine end with the app's test."""

import os

import pytest
from made_app import create_app, make_engine
from sqlalchemy import text

COUNTS = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()",
    "mysql": "SELECT count(*) FROM information_schema.processlist WHERE db = database()",
}
PRODUCT = os.environ["DATABASE_URL"].partition("+")[0]
KEPT = []
turns = pytest.mark.parametrize("turn", range(25))


async def orders_once(client, db_session):
    await client.post("/orders/vase")
    assert (await client.get("/orders")).json() == ["vase"]
    assert await db_session.scalar(text(COUNTS[PRODUCT])) < 12


@turns
async def test_an_engine_of_the_factory(client, db_session, turn):
    await orders_once(client, db_session)


@turns
async def test_an_app_that_a_list_keeps(client, db_session, arena_app, turn):
    KEPT.append(arena_app)
    await orders_once(client, db_session)


async def test_a_kept_app_connects_again(client):
    async with KEPT[0].state.engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM orders")) == 0


class TestLifespan:
    @pytest.fixture
    def arena_app(self):
        return create_app(make_engine)

    @turns
    async def test_an_engine_of_the_start_up(self, client, db_session, turn):
        await orders_once(client, db_session)
