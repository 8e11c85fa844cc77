"""A row of a wide fixture."""

import pytest
from app import Battle


@pytest.fixture(scope="module")
def season(arena):
    with arena.session() as session:
        session.add(Battle(id=50, name="Season"))
        session.commit()


@pytest.mark.scenario("A wide fixture has the battle")
async def test_wide(season, client):
    assert "Season" in (await client.get("/battles")).text
