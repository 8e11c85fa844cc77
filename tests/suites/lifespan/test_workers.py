"""Requests give work to tasks of the lifespan."""

import asyncio

import pytest
import pytest_asyncio
from life import app


async def test_a_worker_answers(client, turn):
    assert (await client.post("/worker/vase")).json() == "vase"
    assert (await client.get("/orders")).json() == ["start-up", "vase"]


def test_a_worker_answers_a_sync_client(test_client, turn):
    assert test_client.post("/worker/vase").json() == "vase"
    assert test_client.get("/orders").json() == ["start-up", "vase"]


@pytest_asyncio.fixture(loop_scope="session")
async def of_another_loop(client):
    await client.post("/worker/lamp")


async def test_a_worker_after_a_fixture_in_another_loop(of_another_loop, client, turn):
    async with asyncio.timeout(5):
        assert (await client.post("/worker/vase")).json() == "vase"


async def test_requests_at_once_share_a_lock(client, turn):
    await asyncio.gather(*(client.post("/locked/vase") for _ in range(4)))
    assert (await client.get("/orders")).json() == ["start-up", *["vase"] * 4]


async def test_settled_waits_for_a_task_group(client, arena, turn):
    await client.post("/group/vase")
    await arena.settled()
    assert (await client.get("/orders")).json() == ["start-up", "vase"]


@pytest.fixture(scope="module")
def wide_client(arena):
    with arena.test_client() as client:
        yield client


def test_a_client_of_a_module(wide_client, turn):
    assert wide_client.post("/worker/vase").json() == "vase"
    assert app.state.queue.empty()
