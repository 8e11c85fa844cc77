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


@pytest.fixture(autouse=True)
def soon():
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 15


@pytest.mark.expect("A702", at=None)
@pytest.mark.parametrize("arena_app", [FastAPI(lifespan=with_pool_of_another)])
@pytest.mark.parametrize("turn", [1, 2])
def test_the_start_up_fails_soon(arena_app, arena, turn):
    arena.test_client().get("/")
