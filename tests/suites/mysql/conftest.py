"""-odriver=aiomysql replaces asyncmy in the app's URL."""

import os

import pytest
from sqlalchemy import text


def pytest_addoption(parser):
    parser.addini("driver", "the driver of the app", default="asyncmy")


def pytest_configure(config):
    url = os.environ["DATABASE_URL"]
    os.environ["DATABASE_URL"] = url.replace("asyncmy", config.getini("driver"))


@pytest.fixture
def run():
    from async_app import engine

    async def run(*statements):
        """Execute statements in one transaction. Return the rows of the last one."""
        async with engine.begin() as connection:
            for statement in statements:
                result = await connection.execute(text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []

    return run
