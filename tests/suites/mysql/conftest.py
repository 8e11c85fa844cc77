"""Statements on the app's engine."""

import pytest
from sqlalchemy import text


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
