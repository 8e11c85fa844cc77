"""The app's engine outlives the event loop of a test: its pool belongs to the first one.

SQLAlchemy's pool is an asyncio queue, which belongs to a loop as soon as somebody has waited for a
connection. pytest-asyncio gives every test a loop of its own.
"""

import asyncio

import pytest
from httpx2 import AsyncClient


@pytest.mark.parametrize("loop", ["first loop", "second loop"])
async def test_requests_at_the_same_moment_share_one_connection(
    client: AsyncClient, loop: str
) -> None:
    """Three requests, one connection: two of them wait, in whatever loop."""
    responses = await asyncio.gather(*(client.get("/dancers") for _ in range(3)))

    assert [response.status_code for response in responses] == [200] * 3
