"""Battles: sending one to the floor, and writing its results down."""

from collections.abc import Mapping

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import NotFoundError, RuleBrokenError
from app.models import Battle, BattleStatus
from app.repositories import BattleRepository
from app.services.results import read_result, write_result


class BattleService:
    """Everything that the MC and the judges do with a battle."""

    def __init__(self, session: AsyncSession) -> None:
        """Work in the given session."""
        self._session = session
        self._battles = BattleRepository(session)

    async def load(self, battle_id: int) -> Battle:
        """Give the whole battle, or say that there is none."""
        battle = await self._battles.find(battle_id)
        if battle is None:
            reason = f"There is no battle {battle_id}."
            raise NotFoundError(reason)
        return battle

    async def start(self, battle_id: int) -> Battle:
        """Send a pending battle to the floor, if the floor is free."""
        battle = await self.load(battle_id)
        await self._check_start(battle)
        battle.status = BattleStatus.ACTIVE
        await self._commit_start(battle.title)
        return battle

    async def encode(self, battle_id: int, form: Mapping[str, str]) -> Battle:
        """Complete the battle on the floor with what the judge wrote."""
        battle = await self.load(battle_id)
        if battle.status is not BattleStatus.ACTIVE:
            reason = f"{battle.title} is {battle.status}; only an active battle takes results."
            raise RuleBrokenError(reason)
        write_result(battle, read_result(battle, form))
        await self._session.commit()
        return battle

    async def _check_start(self, battle: Battle) -> None:
        if battle.status is not BattleStatus.PENDING:
            reason = f"{battle.title} is {battle.status}; only a pending battle can start."
            raise RuleBrokenError(reason)
        if battle.phase is not battle.tournament.phase:
            reason = f"{battle.title} belongs to {battle.phase}, not to the present phase."
            raise RuleBrokenError(reason)
        if active := await self._battles.find_active(battle.tournament_id):
            reason = f"{active.title} is still on the floor."
            raise RuleBrokenError(reason)

    async def _commit_start(self, title: str) -> None:
        """Commit, and let the database decide where two MCs start at the same moment."""
        try:
            await self._session.commit()
        except IntegrityError as taken:
            reason = f"{title} has to wait: another battle started at the same moment."
            raise RuleBrokenError(reason) from taken
