"""Buyers at once, in each way."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import httpx2
import pytest
from async_app import engine
from models import Stock
from race_app import STEPS

BUYERS = 4
TURNS = 10


async def gather(request, client, live_server):
    return await asyncio.gather(*[client.request(*request) for _ in range(BUYERS)])


async def to_server(request, client, live_server):
    async with httpx2.AsyncClient(base_url=live_server.url) as other_client:
        return await gather(request, other_client, live_server)


@pytest.fixture
async def sold(request, client, live_server, db_session):
    """Sell the last chair to several buyers at once. Return how many got it, for each turn."""

    async def sold(path, *, with_one_connection=False):
        counts = []
        for _ in range(TURNS):
            if with_one_connection:
                await engine.dispose()
                await client.get("/orders")
            else:
                await request.param(("GET", "/orders"), client, live_server)
            await db_session.merge(Stock(item="chair", amount=1))
            STEPS.append([])
            answers = await request.param(("POST", path), client, live_server)
            counts.append(sum(answer.status_code == 200 for answer in answers))
        return counts

    return sold


@pytest.fixture
def sold_in_threads(test_client, db_session):
    everybody = Barrier(BUYERS)

    def ask(method, path):
        everybody.wait()
        return test_client.request(method, path)

    def sold(path):
        counts = []
        for _ in range(TURNS):
            db_session.merge(Stock(item="chair", amount=1))
            with ThreadPoolExecutor(BUYERS) as pool:
                list(pool.map(ask, ["GET"] * BUYERS, ["/orders"] * BUYERS))
                answers = list(pool.map(ask, ["POST"] * BUYERS, [path] * BUYERS))
            counts.append(sum(answer.status_code == 200 for answer in answers))
        return counts

    return sold
