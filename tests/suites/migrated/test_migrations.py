"""`arena_schema = alembic.ini`: the first connection is made by a request, in a running loop."""

import logging
from pathlib import Path

logger = logging.getLogger("app.log")
folder = Path.cwd()


async def test_the_migrations_have_made_the_tables(client, caplog):
    assert (await client.get("/teams")).json() == ["Sand"]
    logger.warning("still heard")
    assert "still heard" in caplog.text
    assert Path.cwd() == folder
