"""Questions about tournaments, and new ones."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from app.models import Battle, BattleEntry, Category, Performer, Tournament

WHOLE = (
    selectinload(Tournament.categories)
    .selectinload(Category.performers)
    .selectinload(Performer.dancer),
    selectinload(Tournament.battles)
    .selectinload(Battle.entries)
    .selectinload(BattleEntry.performer)
    .selectinload(Performer.dancer),
    selectinload(Tournament.battles).selectinload(Battle.category),
    selectinload(Tournament.battles).selectinload(Battle.winner).selectinload(Performer.dancer),
)
"""All that the pages and the rules look at; an async session loads nothing by itself."""


class TournamentRepository:
    """Finds tournaments and adds them; whoever uses it commits."""

    def __init__(self, session: AsyncSession) -> None:
        """Ask through the given session."""
        self._session = session

    async def create_tournament(self, name: str) -> Tournament:
        """Add a tournament, in its registration, and give it an id."""
        tournament = Tournament(name=name)
        self._session.add(tournament)
        await self._session.flush()
        return tournament

    async def find(self, tournament_id: int) -> Tournament | None:
        """Give the whole tournament with this id."""
        this = select(Tournament).where(Tournament.id == tournament_id)
        return await self._session.scalar(this.options(*WHOLE))

    async def all(self) -> Sequence[Tournament]:
        """Give every tournament with its categories, the latest first."""
        latest_first = select(Tournament).order_by(Tournament.id.desc())
        with_categories = latest_first.options(selectinload(Tournament.categories))
        return (await self._session.scalars(with_categories)).all()
