"""The client in this process does not run the lifespan, which makes the session factory."""

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient

import late_app


@pytest.fixture
def arena_app() -> FastAPI:
    """The app whose lifespan makes its global session factory."""
    return late_app.app


async def test_request_finds_the_session_factory(client: AsyncClient) -> None:
    """The first request of the test is answered from the database."""
    assert (await client.get("/tournaments")).status_code == 200
