"""The row that a fixture has committed is not there for the request of the same test."""

import pytest
from httpx2 import AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession

from app import Tournament


@pytest.fixture
async def tournament(db_session: AsyncSession) -> Tournament:
    """A tournament that exists before the test begins."""
    tournament = Tournament(id=2024, name="Summer Battle 2024")
    db_session.add(tournament)
    await db_session.commit()
    return tournament


async def test_request_sees_the_row_of_the_fixture(
    client: AsyncClient, tournament: Tournament
) -> None:
    """The page of the tournament is there."""
    response = await client.get(f"/tournaments/{tournament.id}")

    assert response.status_code == 200
    assert response.json() == "Summer Battle 2024"
