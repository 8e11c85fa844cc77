"""Connections of an event loop that stands still while a test runs in another loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.mysql.shop import shop
from tests.parameters import slow_except

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conformance.story_mysql_server import StoryMySQLServer

WIDE = """
import pytest
import pytest_asyncio
from app import Item, maker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def apple():
    async with maker() as session:
        session.add(Item(name="apple"))
        await session.commit()


async def test_a_request(apple, client):
    assert (await client.get("/items")).json() == ["seeded", "apple"]
"""


@pytest.mark.parametrize(
    "driver", slow_except(["mysql+asyncmy", "mysql+aiomysql"], "mysql+asyncmy")
)
def test_the_end_of_a_fixtures_connection_is_no_work_of_the_request(
    server: StoryMySQLServer, tmp_path: Path, driver: str
) -> None:
    """The request gets another connection. The fixture's loop cannot close its connection yet."""
    project = shop(server, tmp_path, driver).with_files(test_wide=WIDE)
    run = project.run("-q", "-Werror::pytest_arena.LateWorkWarning").expect(passed=1)
    run.never_says("cut off")
