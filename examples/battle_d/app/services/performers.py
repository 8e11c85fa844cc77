"""Performers: a dancer registers in a category, and may withdraw."""

from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import NotFoundError, RuleBrokenError
from app.models import Category, Performer
from app.services.dancers import DancerService
from app.services.tournaments import TournamentService, pick_category


class PerformerService:
    """Fills the categories of a tournament while its registration is open."""

    def __init__(self, session: AsyncSession) -> None:
        """Work in the given session."""
        self._session = session
        self._tournaments = TournamentService(session)
        self._dancers = DancerService(session)

    async def register(self, tournament_id: int, category_id: int, dancer_id: int) -> Performer:
        """Register a dancer in a category, once."""
        category = await self._load_open_category(tournament_id, category_id)
        dancer = await self._dancers.load(dancer_id)
        if dancer.id in {performer.dancer_id for performer in category.performers}:
            reason = f"{dancer.blaze} is already registered in {category.name}."
            raise RuleBrokenError(reason)
        performer = Performer(dancer=dancer)
        category.performers.append(performer)
        await self._session.commit()
        return performer

    async def withdraw(self, tournament_id: int, category_id: int, performer_id: int) -> None:
        """Take a performer out of a category; the dancer stays in the card index."""
        category = await self._load_open_category(tournament_id, category_id)
        category.performers.remove(_pick_performer(category, performer_id))
        await self._session.commit()

    async def _load_open_category(self, tournament_id: int, category_id: int) -> Category:
        return pick_category(await self._tournaments.load_open(tournament_id), category_id)


def _pick_performer(category: Category, performer_id: int) -> Performer:
    for performer in category.performers:
        if performer.id == performer_id:
            return performer
    reason = f"{category.name} has no performer {performer_id}."
    raise NotFoundError(reason)
