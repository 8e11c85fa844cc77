"""What a fixture or a lifespan wrote and never committed."""

from contextlib import asynccontextmanager

import async_app
import pytest
from async_app import items, maker
from fastapi import FastAPI
from models import Order

lost = pytest.mark.expect("LostWriteWarning", at="# lost")


@pytest.fixture
async def forgetful():
    async with maker() as session:
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
    async with maker() as session:
        session.add(Order(item="vase"))
        await session.flush()  # lost
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
