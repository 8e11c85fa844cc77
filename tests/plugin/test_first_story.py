"""The main job: an unmodified app, every test in its own database."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.example import Example

STORY = """
import asyncio
import pytest
from sqlalchemy import func, select
from app import Dancer, maker

async def count(session):
    return await session.scalar(select(func.count()).select_from(Dancer))

@pytest.mark.parametrize("turn", [1, 2, 3])
async def test_async(db_session, client, turn):
    db_session.add(Dancer(name="Grain"))
    assert (await client.get("/dancers")).json() == ["Sand", "Grain"]
    assert (await client.post("/dancers/Dune")).status_code == 201
    assert await count(db_session) == 3
    async with maker() as session:
        assert await count(session) == 3

@pytest.mark.parametrize("turn", [1, 2])
def test_sync(db_session, test_client, turn):
    db_session.add(Dancer(name="Grain"))
    assert test_client.get("/dancers").json() == ["Sand", "Grain"]
    assert test_client.post("/dancers/Dune").status_code == 201
    assert db_session.scalar(select(func.count()).select_from(Dancer)) == 3

async def test_gathered(client):
    answers = await asyncio.gather(*(client.post(f"/dancers/{n}") for n in range(5)))
    assert [answer.status_code for answer in answers] == [201] * 5
    assert len((await client.get("/dancers")).json()) == 6
"""


def test_fixture_rows_requests_and_sessions_see_each_other_and_nothing_leaks(
    example: Example,
) -> None:
    """P1, P2, P3: real commits, seen by all in the test, by nothing after it."""
    run = example.with_files(test_story=STORY).run()
    run.expect(passed=6).says("6 of 6 tests had a separate database, and 6 changed it")
    assert not (run.folder / "dev.db").exists()
