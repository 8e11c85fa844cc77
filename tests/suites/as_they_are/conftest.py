"""Suites that were written without pytest-arena, by recipes of documentation and of blogs."""

import pytest
from async_app import app, engine, get_db
from models import Base


@pytest.fixture
async def tables():
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)


@pytest.fixture
def override():
    def override(dependency):
        app.dependency_overrides[get_db] = dependency

    yield override
    app.dependency_overrides.clear()
