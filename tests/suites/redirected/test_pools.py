"""Pools that the app's start-up opens work on the test's database."""

import asyncio

import pytest
from models import Order
from sqlalchemy import text
from sqlalchemy.orm import Session

turns = pytest.mark.parametrize("turn", [1, 2, 3])


@turns
async def test_requests_at_once(client, turn):
    assert (await client.get("/orders")).json() == []
    await asyncio.gather(*(client.post(f"/orders/{number}") for number in range(6)))
    assert (await client.get("/orders")).json() == list("012345")


@turns
async def test_a_checkpointer_that_creates_its_table(client, turn):
    assert (await client.post("/checkpoints")).json() == 1


@turns
async def test_a_listener(client, turn):
    assert (await client.post(f"/news/{turn}")).json() == str(turn)


def test_a_sync_test(test_client):
    assert test_client.get("/orders").json() == []
    test_client.post("/orders/vase")
    assert test_client.get("/count").json() == 1


@turns
async def test_the_session_is_of_the_engines_kind(client, db_session, turn):
    assert isinstance(db_session, Session)
    assert db_session.scalar(text("SHOW search_path")) == "public,pg_catalog"
    db_session.add(Order(item="vase"))
    assert (await client.get("/count")).json() == 1
