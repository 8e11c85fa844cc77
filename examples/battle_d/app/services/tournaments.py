"""Tournaments: creating one, giving it categories, and moving it from phase to phase."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import NotFoundError, RuleBrokenError
from app.models import Category, Phase, Tournament
from app.repositories import TournamentRepository
from app.services.draw import draw_battles
from app.services.phases import find_obstacles


class TournamentService:
    """Everything that the staff does with a tournament."""

    def __init__(self, session: AsyncSession) -> None:
        """Work in the given session."""
        self._session = session
        self._tournaments = TournamentRepository(session)

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

    async def load_open(self, tournament_id: int) -> Tournament:
        """Give the whole tournament, or say that its registration is closed."""
        tournament = await self.load(tournament_id)
        if tournament.phase is not Phase.REGISTRATION:
            reason = f"The registration of {tournament.name} is closed."
            raise RuleBrokenError(reason)
        return tournament

    async def create(self, name: str) -> Tournament:
        """Open a tournament for registration."""
        tournament = await self._tournaments.create_tournament(name)
        await self._session.commit()
        return tournament

    async def rename(self, tournament_id: int, name: str) -> Tournament:
        """Give a tournament another name, in whatever phase it is."""
        tournament = await self.load(tournament_id)
        tournament.name = name
        await self._session.commit()
        return tournament

    async def delete(self, tournament_id: int) -> None:
        """Delete a tournament that nobody has danced in, with its categories and performers."""
        tournament = await self.load_open(tournament_id)
        await self._session.delete(tournament)
        await self._session.commit()

    async def add_category(self, tournament_id: int, name: str, *, places: int) -> Category:
        """Add a category while the registration is open."""
        tournament = await self.load_open(tournament_id)
        if name in {category.name for category in tournament.categories}:
            reason = f"{tournament.name} already has a category {name}."
            raise RuleBrokenError(reason)
        category = Category(name=name, places=places)
        tournament.categories.append(category)
        await self._session.commit()
        return category

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


def pick_category(tournament: Tournament, category_id: int) -> Category:
    """Give a category of the tournament, or say that it has no such category."""
    for category in tournament.categories:
        if category.id == category_id:
            return category
    reason = f"{tournament.name} has no category {category_id}."
    raise NotFoundError(reason)
