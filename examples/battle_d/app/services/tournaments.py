"""Tournaments: creating one, filling it, and moving it from phase to phase."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import NotFoundError, RuleBrokenError
from app.models import Category, Dancer, Performer, Phase, Tournament
from app.repositories import DancerRepository, TournamentRepository
from app.services.draw import draw_battles
from app.services.phases import find_obstacles


class TournamentService:
    """Everything that the staff does with a tournament."""

    def __init__(self, session: AsyncSession) -> None:
        """Work in the given session."""
        self._session = session
        self._tournaments = TournamentRepository(session)
        self._dancers = DancerRepository(session)

    async def all(self) -> Sequence[Tournament]:
        """Give every tournament, the latest first."""
        return await self._tournaments.all()

    async def load(self, tournament_id: int) -> Tournament:
        """Give the whole tournament, or say that there is none."""
        tournament = await self._tournaments.find(tournament_id)
        if tournament is None:
            reason = f"There is no tournament {tournament_id}."
            raise NotFoundError(reason)
        return tournament

    async def create(self, name: str) -> Tournament:
        """Open a tournament for registration."""
        tournament = Tournament(name=name)
        self._session.add(tournament)
        await self._session.commit()
        return tournament

    async def add_category(self, tournament_id: int, name: str, *, places: int) -> Category:
        """Add a category while the registration is open."""
        tournament = await self._load_open(tournament_id)
        if name in {category.name for category in tournament.categories}:
            reason = f"{tournament.name} already has a category {name}."
            raise RuleBrokenError(reason)
        category = Category(name=name, places=places)
        tournament.categories.append(category)
        await self._session.commit()
        return category

    async def register(self, tournament_id: int, category_id: int, dancer_id: int) -> Performer:
        """Register a dancer in a category, once, while the registration is open."""
        tournament = await self._load_open(tournament_id)
        category = _pick_category(tournament, category_id)
        dancer = await self._load_dancer(dancer_id)
        if dancer.id in {performer.dancer_id for performer in category.performers}:
            reason = f"{dancer.blaze} is already registered in {category.name}."
            raise RuleBrokenError(reason)
        performer = Performer(dancer=dancer)
        category.performers.append(performer)
        await self._session.commit()
        return performer

    async def advance(self, tournament_id: int) -> Tournament:
        """Move to the next phase, if the rules allow it, and draw its battles."""
        tournament = await self.load(tournament_id)
        obstacles = find_obstacles(tournament)
        following = tournament.phase.next()
        if obstacles or following is None:
            raise RuleBrokenError(*obstacles)
        tournament.battles.extend(draw_battles(tournament, following))
        tournament.phase = following
        await self._session.commit()
        return tournament

    async def _load_open(self, tournament_id: int) -> Tournament:
        tournament = await self.load(tournament_id)
        if tournament.phase is not Phase.REGISTRATION:
            reason = f"The registration of {tournament.name} is closed."
            raise RuleBrokenError(reason)
        return tournament

    async def _load_dancer(self, dancer_id: int) -> Dancer:
        dancer = await self._dancers.find(dancer_id)
        if dancer is None:
            reason = f"There is no dancer {dancer_id}."
            raise NotFoundError(reason)
        return dancer


def _pick_category(tournament: Tournament, category_id: int) -> Category:
    for category in tournament.categories:
        if category.id == category_id:
            return category
    reason = f"{tournament.name} has no category {category_id}."
    raise NotFoundError(reason)
