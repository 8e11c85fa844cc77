"""Data that several tests begin with, written by async fixtures before the first request."""

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Battle, Tournament
from tests.factories import a_category, a_tournament, pending_battles, save


@pytest.fixture
async def summer_battle(db_session: AsyncSession) -> Tournament:
    """A tournament in its preselection, with 2 categories of 8 performers each."""
    categories = [a_category(name, performers=8) for name in ("Hip hop 1v1", "Breaking 1v1")]
    return await save(db_session, a_tournament(*categories, name="Summer Battle 2024"))


@pytest.fixture
async def queue(db_session: AsyncSession, summer_battle: Tournament) -> list[Battle]:
    """Four pending battles, between the eight performers of the first category."""
    battles = pending_battles(summer_battle.categories[0])
    db_session.add_all(battles)
    await db_session.commit()
    return battles
