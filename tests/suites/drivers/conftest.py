"""-odriver=psycopg replaces asyncpg in the app's URL."""

import os

import pytest
from sqlalchemy import text


def pytest_addoption(parser):
    parser.addini("driver", "the driver of the app", default="")


def pytest_configure(config):
    driver = config.getini("driver")
    if driver:
        url = os.environ["DATABASE_URL"]
        os.environ["DATABASE_URL"] = url.replace("asyncpg", driver)


@pytest.fixture(scope="session", autouse=True)
def rows_of_the_session(arena, pytestconfig):
    """Let sync code open psycopg's first connection."""
    if pytestconfig.getini("driver"):
        with arena.session() as session:
            session.execute(text("SELECT 1"))
