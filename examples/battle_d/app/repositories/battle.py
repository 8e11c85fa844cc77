"""Questions about battles."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from app.models import Battle, BattleEntry, BattleStatus, Performer

WHOLE = (
    selectinload(Battle.tournament),
    selectinload(Battle.category),
    selectinload(Battle.winner).selectinload(Performer.dancer),
    selectinload(Battle.entries).selectinload(BattleEntry.performer).selectinload(Performer.dancer),
)
"""All that a battle card shows; an async session loads nothing by itself."""


class BattleRepository:
    """Finds battles."""

    def __init__(self, session: AsyncSession) -> None:
        """Ask through the given session."""
        self._session = session

    async def find(self, battle_id: int) -> Battle | None:
        """Give the whole battle with this id."""
        this = select(Battle).where(Battle.id == battle_id)
        return await self._session.scalar(this.options(*WHOLE))

    async def find_active(self, tournament_id: int) -> Battle | None:
        """Give the battle that is being danced now."""
        of_tournament = select(Battle).where(Battle.tournament_id == tournament_id)
        active = of_tournament.where(Battle.status == BattleStatus.ACTIVE)
        return await self._session.scalar(active.options(*WHOLE))
