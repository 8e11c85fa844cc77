"""The event service over real sessions: the board of a tournament that others change."""

import pytest

from app.db.database import async_session_maker
from app.errors import NotFoundError
from app.models import Battle, BattleStatus, Phase, Tournament
from app.services import BattleService, EventService
from app.services.event import Board
from tests.factories import a_category, a_scored_battle, a_tournament, pending_battles


async def test_board_of_no_tournament_is_refused() -> None:
    """A board needs a tournament, and the refusal names the one that is missing."""
    with pytest.raises(NotFoundError, match="There is no tournament 7"):
        await _load_board(7)


async def test_tournament_without_battles_has_an_empty_board() -> None:
    """Before the draw nobody dances, waits or is done."""
    board = await _load_board((await _save_tournament(performers=0)).id)

    assert board.active is None
    assert (board.queue, board.completed, board.total) == ([], [], 0)


async def test_queue_is_in_the_order_of_the_draw() -> None:
    """Battles wait in the order of their positions."""
    tournament = await _save_tournament(performers=6)

    board = await _load_board(tournament.id)

    assert [battle.position for battle in board.queue] == [1, 2, 3]
    assert [battle.title for battle in board.pending] == [each.title for each in tournament.battles]


async def test_started_battle_leads_the_queue() -> None:
    """A battle that another session started is active on the board, and first in its queue."""
    tournament = await _save_tournament(performers=6)
    last = tournament.battles[-1]
    async with async_session_maker() as session:
        await BattleService(session).start(last.id)

    board = await _load_board(tournament.id)

    assert board.active
    assert board.active.id == last.id
    assert [battle.id for battle in board.queue] == [
        last.id,
        *(battle.id for battle in tournament.battles[:2]),
    ]


async def test_completed_battle_leaves_the_queue() -> None:
    """A completed battle counts for the phase and waits no longer."""
    category = a_category(performers=4)
    tournament = a_tournament(category)
    done = a_scored_battle(category.performers[:2], [70, 80])
    async with async_session_maker.begin() as session:
        session.add(tournament)

    board = await _load_board(tournament.id)

    assert [battle.id for battle in board.completed] == [done.id]
    assert (board.queue, board.total) == ([], 1)


async def test_board_forgets_the_phases_before() -> None:
    """Battles of an earlier phase are on no board, however they ended."""
    tournament = await _save_tournament(performers=4)
    async with async_session_maker.begin() as session:
        (await session.get_one(Tournament, tournament.id)).phase = Phase.POOLS

    async with async_session_maker() as session:
        assert await session.get(Battle, tournament.battles[0].id)
    board = await _load_board(tournament.id)

    assert board.tournament.battles[0].status is BattleStatus.PENDING
    assert board.total == 0


async def _save_tournament(*, performers: int) -> Tournament:
    """Commit a tournament in its preselection, with a battle for every two performers."""
    category = a_category(performers=performers)
    tournament = a_tournament(category)
    pending_battles(category)
    async with async_session_maker.begin() as session:
        session.add(tournament)
    return tournament


async def _load_board(tournament_id: int) -> Board:
    async with async_session_maker() as session:
        return await EventService(session).load_board(tournament_id)
