"""Rows that fixtures write before the first request."""

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Battle, Tournament
from tests.data import a_tournament, add_battles


@pytest.fixture
async def summer_battle(db_session: AsyncSession) -> Tournament:
    """A tournament in its preselection: 2 categories with 8 performers each."""
    tournament = a_tournament()
    db_session.add(tournament)
    await db_session.commit()
    return tournament


@pytest.fixture
async def queue(db_session: AsyncSession, summer_battle: Tournament) -> list[Battle]:
    """Four pending battles of that tournament."""
    battles = add_battles(summer_battle)
    await db_session.commit()
    return battles
