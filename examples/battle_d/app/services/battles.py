"""Battles: the queue, the one that is danced now, and the results."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import NotFoundError, RuleBrokenError
from app.models import Battle, BattleStatus, Tournament
from app.repositories import BattleRepository
from app.services.results import read_result, write_result


@dataclass(frozen=True, slots=True)
class Board:
    """What the command center shows of a tournament's present phase."""

    active: Battle | None
    pending: list[Battle]
    completed: list[Battle]

    @property
    def queue(self) -> list[Battle]:
        """Give the battles still to be decided, the one on the floor first."""
        return ([self.active] if self.active else []) + self.pending


def board_of(tournament: Tournament) -> Board:
    """Sort the battles of the present phase by how far they are."""
    battles = [battle for battle in tournament.battles if battle.phase is tournament.phase]
    by_status: dict[BattleStatus, list[Battle]] = {status: [] for status in BattleStatus}
    for battle in battles:
        by_status[battle.status].append(battle)
    return Board(
        active=next(iter(by_status[BattleStatus.ACTIVE]), None),
        pending=by_status[BattleStatus.PENDING],
        completed=by_status[BattleStatus.COMPLETED],
    )


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
