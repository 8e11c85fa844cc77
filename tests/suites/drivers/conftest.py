"""psycopg begins in sync code."""

import pytest
from sqlalchemy import text


@pytest.fixture(scope="session", autouse=True)
def rows_of_the_session(arena):
    """Let sync code open psycopg's first connection."""
    if "+psycopg:" in arena.url:
        with arena.session() as session:
            session.execute(text("SELECT 1"))
