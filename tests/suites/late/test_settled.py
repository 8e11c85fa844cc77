"""Work of a request is waited for: by `arena.settled()`, and for a while by the test's end."""

import asyncio

import pytest
from late_app import WAYS, add, app
from pytest_arena.errors import LateWorkError

ways = pytest.mark.parametrize("way", WAYS)
twice = pytest.mark.parametrize("turn", [1, 2])


@ways
@twice
async def test_settled_in_an_async_test(client, arena, way, turn):
    await client.post(f"/begin/{way}")
    await arena.settled()
    assert (await client.get("/orders")).json() == ["late"]


@ways
@twice
def test_settled_in_a_sync_test(test_client, arena, way, turn):
    test_client.post(f"/begin/{way}")
    arena.settled()
    assert test_client.get("/orders").json() == ["late"]


@app.post("/job")
async def job():
    failing = asyncio.get_running_loop().run_in_executor(None, int, "")  # its error keeps the job
    app.state.kept = await asyncio.gather(failing, asyncio.to_thread(add), return_exceptions=True)


async def test_jobs_end_and_their_statements_are_of_their_request(client, arena):
    await client.post("/job")
    await arena.settled(0.1)
    assert len(arena.requests[-1].statements) == 1


async def test_a_background_task_of_the_framework(client):
    await client.post("/background")
    assert (await client.get("/orders")).json() == ["late"]


@ways
async def test_the_end_of_an_async_test_waits(client, way):
    await client.post(f"/begin/{way}")


@ways
def test_the_end_of_a_sync_test_waits(test_client, way):
    test_client.post(f"/begin/{way}")


async def test_nothing_has_come_into_the_next_test(client, arena):
    await arena.settled()
    assert (await client.get("/orders")).json() == []


@pytest.mark.expect("A604", at="arena.settled(0.1)")
async def test_settled_in_vain(client, arena):
    await client.post("/endless")
    await arena.settled(0.1)


@pytest.mark.expect("LateWorkWarning")
async def test_settled_in_vain_after_a_block(client, arena):
    async with arena.fresh():
        await client.post("/endless")
    with pytest.raises(LateWorkError):
        await arena.settled(0.1)


async def test_an_open_stream_is_not_waited_for(client, arena):
    async with client.stream("GET", "/stream") as answer:
        texts = answer.aiter_text()  # its end closes the stream
        assert await anext(texts) == "first"
        await arena.settled(0.1)
