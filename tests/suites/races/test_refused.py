"""A race that would prove nothing is an error that names the line."""

import asyncio

import httpx2
import pytest
from pytest_arena.errors import RaceError
from shop_app import PRODUCT

PATH = "/lost_update_one_statement"


@pytest.mark.expect("A502", at="arena.races():  # never called")
async def test_no_call_of_race(arena):
    async for _ in arena.races():  # never called
        pass


@pytest.mark.expect("A502", at="await race(  # twice")
async def test_a_second_call(client, arena):
    async for race in arena.races():
        await race(client.post(PATH), client.post(PATH))
        await race(  # twice
            client.post(PATH), client.post(PATH)
        )


@pytest.mark.expect("A502", at="await race(client.post(PATH), *others)")
@pytest.mark.parametrize("others", [[], [PATH]])
async def test_other_arguments(client, arena, others):
    async for race in arena.races():
        await race(client.post(PATH), *others)


@pytest.mark.expect("A502", at="for race in arena.races():  # not async")
async def test_a_sync_loop_in_an_async_test(arena):
    for race in arena.races():  # not async
        race()


@pytest.mark.expect("A502", at="in arena.races():  # inner")
async def test_a_race_inside_of_a_race(arena):
    async for _ in arena.races():
        async for _ in arena.races():  # inner
            pass


@pytest.mark.expect("A502", at="await race(client.post(PATH), client.post(PATH))  # order")
@pytest.mark.parametrize("order", ["1", "21212", "112233", "1-2"])
async def test_an_order_that_does_not_fit(client, arena, order):
    async for race in arena.races(order=order):
        await race(client.post(PATH), client.post(PATH))  # order


async def test_requests_without_a_statement(client, arena):
    """Of a counter in memory, and of requests that the app refuses."""
    with pytest.raises(RaceError, match="POST /in_memory 200, POST /none 404"):
        async for race in arena.races():
            await race(client.post("/in_memory"), client.post("/none"))


@pytest.mark.expect("A502", at="await race(client.post(PATH), client.post(PATH))  # with other")
async def test_a_request_that_is_outside_of_the_race(client, arena):
    async for race in arena.races():
        other = asyncio.create_task(client.post("/me"))
        await race(client.post(PATH), client.post(PATH))  # with other
        await other


@pytest.mark.expect("A502", at="await race(own.post(PATH), own.post(PATH))")
async def test_requests_by_a_socket(arena, live_server):
    async with httpx2.AsyncClient(base_url=live_server.url) as own:
        async for race in arena.races():
            await race(own.post(PATH), own.post(PATH))


@pytest.mark.skipif(PRODUCT == "sqlite", reason="it has no other isolation")
@pytest.mark.arena(isolation="clone")
@pytest.mark.expect("A502", at="await race(client.post(PATH), client.post(PATH))  # clone")
async def test_another_isolation(client, arena):
    async for race in arena.races():
        await race(client.post(PATH), client.post(PATH))  # clone


@pytest.mark.expect("A502", at="arena.races():  # chance")
async def test_statements_by_chance(client, arena):
    number = 0

    async def by_chance():
        nonlocal number
        number += 1
        return await client.post("/unique" if number % 2 else "/lost_update_versioned")

    async for race in arena.races():  # chance
        await race(by_chance(), client.post("/lost_update"))


@pytest.mark.expect("A502", at="arena.races(limit=0)")
async def test_a_loop_without_a_pass(client, arena):
    async for race in arena.races(limit=0):
        await race(client.post(PATH), client.post(PATH))
