"""What a fixture or a lifespan wrote and never committed."""

from contextlib import asynccontextmanager

import async_app
import jobs
import pytest
from async_app import items, maker
from fastapi import FastAPI
from models import Order

lost = pytest.mark.expect("LostWriteWarning", at="# lost")


@pytest.fixture
async def session_of_tests():
    async for session in jobs.get_session():
        yield session


async def test_a_session_of_the_tests(session_of_tests):
    await jobs.flush(session_of_tests)
    assert await items(session_of_tests) == ["vase"]


@pytest.fixture(params=["its own", "arena's"])
async def forgetful(arena, request):
    async with maker() if request.param == "its own" else arena.session() as session:
        session.add(Order(item="vase"))
        await session.flush()  # lost


@lost
async def test_a_fixture(forgetful, client):
    assert (await client.get("/orders")).json() == []


@pytest.fixture
async def undone_session():
    async with maker() as session:
        yield session
        await session.rollback()


async def test_a_fixture_that_undoes_its_test(undone_session):
    undone_session.add(Order(item="vase"))
    await undone_session.flush()
    assert await items(undone_session) == ["vase"]


@asynccontextmanager
async def lifespan(app):
    await jobs.flushes()
    yield


class TestLifespan:
    @pytest.fixture
    def arena_app(self):
        app = FastAPI(lifespan=lifespan)
        app.include_router(async_app.router)
        return app

    @lost
    async def test_a_start_up(self, client):
        assert (await client.get("/orders")).json() == []


@pytest.fixture(scope="module")
def forgetful_module(arena):
    with arena.session() as session:
        session.add(Order(item="vase"))
        session.flush()  # lost


@lost
def test_a_wide_fixture(forgetful_module):
    pass
