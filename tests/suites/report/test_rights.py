"""A statement for which the app's user or role lacks a right."""

import pytest
from async_app import engine
from sqlalchemy import text

STATEMENTS = {
    "postgresql": "DO 'BEGIN SET LOCAL ROLE pg_monitor; PERFORM * FROM orders; END'",
    "mysql": "SELECT * FROM mysql.user",
    "sqlite": "SELECT * FROM missing",
}
KIND = "ProgrammingError" if engine.dialect.name == "postgresql" else "OperationalError"


@pytest.mark.expect(KIND, at="connection.execute")
async def test_that_the_server_refuses():
    async with engine.connect() as connection:
        await connection.execute(text(STATEMENTS[engine.dialect.name]))
