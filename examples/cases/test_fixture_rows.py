"""Fault 1: a request does not see the row that a fixture has committed."""

import pytest
from httpx2 import AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession

from app import Dancer


@pytest.fixture
async def ruby(db_session: AsyncSession) -> Dancer:
    """A dancer who exists before the test begins."""
    ruby = Dancer(id=2024, name="Ruby")
    db_session.add(ruby)
    await db_session.commit()
    return ruby


async def test_a_request_sees_the_row_of_the_fixture(client: AsyncClient, ruby: Dancer) -> None:
    """The app answers with the row."""
    response = await client.get(f"/dancers/{ruby.id}")

    assert response.status_code == 200
    assert response.json() == "Ruby"
