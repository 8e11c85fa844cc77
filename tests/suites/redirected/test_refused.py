"""A pool on another database ends the start-up at its first refused connection."""

import time
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from psycopg_pool import AsyncConnectionPool
from pooled_app import URL


@asynccontextmanager
async def with_pool_of_another(app):
    async with AsyncConnectionPool(URL.replace("/shop", "/legacy"), open=False) as pool:
        await pool.wait(timeout=30)
        yield


@pytest.fixture
def arena_app(pytestconfig):
    if pytestconfig.getini("arena_lifespan") == "session":
        pytest.skip("the session has one app")
    return FastAPI(lifespan=with_pool_of_another)


@pytest.fixture
def soon():
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 15


@pytest.mark.expect("A702", at=None)
@pytest.mark.parametrize("turn", [1, 2])
async def test_an_async_client(soon, arena, turn):
    await arena.client().get("/")


@pytest.mark.expect("A702", at=None)
def test_a_sync_client(soon, arena):
    arena.test_client().get("/")
