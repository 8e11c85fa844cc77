"""The day of the event: what is danced now, what waits, and how far the phase is."""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Battle, BattleStatus, Tournament
from app.services.tournaments import TournamentService


@dataclass(frozen=True, slots=True)
class Board:
    """What the command center shows of a tournament's present phase."""

    tournament: Tournament
    active: Battle | None
    pending: list[Battle]
    completed: list[Battle]

    @property
    def queue(self) -> list[Battle]:
        """Give the battles still to be decided, the one on the floor first."""
        return ([self.active] if self.active else []) + self.pending

    @property
    def total(self) -> int:
        """Count the battles of the phase."""
        return len(self.queue) + len(self.completed)


class EventService:
    """Everything that is looked at while people dance."""

    def __init__(self, session: AsyncSession) -> None:
        """Work in the given session."""
        self._tournaments = TournamentService(session)

    async def load_board(self, tournament_id: int) -> Board:
        """Give the board of a tournament, or say that there is no such tournament."""
        return board_of(await self._tournaments.load(tournament_id))


def board_of(tournament: Tournament) -> Board:
    """Sort the battles of the present phase by how far they are."""
    by_status: dict[BattleStatus, list[Battle]] = {status: [] for status in BattleStatus}
    for battle in tournament.battles:
        if battle.phase is tournament.phase:
            by_status[battle.status].append(battle)
    return Board(
        tournament,
        active=next(iter(by_status[BattleStatus.ACTIVE]), None),
        pending=by_status[BattleStatus.PENDING],
        completed=by_status[BattleStatus.COMPLETED],
    )
