"""Fault 2: the engine belongs to an earlier test's event loop, and no client runs the lifespan.

pytest-asyncio gives each test a new loop. On PostgreSQL asyncpg's pooled connection raises
`got Future attached to a different loop`. On SQLite the pool's queue raises
`is bound to a different event loop`, as soon as a request waits for the connection.
"""

import asyncio

import pytest
from httpx2 import AsyncClient


@pytest.mark.parametrize("loop, requests", [(1, 1), (2, 1), (3, 3), (4, 3)])
async def test_requests_share_the_pool(client: AsyncClient, loop: int, requests: int) -> None:
    """The pool has one connection, so two of three requests wait."""
    responses = await asyncio.gather(*(client.get("/dancers") for _ in range(requests)))

    assert [response.status_code for response in responses] == [200] * requests


async def test_a_request_finds_the_session_factory_of_the_lifespan(client: AsyncClient) -> None:
    """The app has started before the first request."""
    assert (await client.get("/count")).status_code == 200
