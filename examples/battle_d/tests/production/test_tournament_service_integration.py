"""The tournament service over real sessions: each step commits, and each refusal does not."""

import pytest
from sqlalchemy import func, select

from app.db.database import async_session_maker
from app.errors import NotFoundError, RuleBrokenError
from app.models import Category, Performer, Phase, Tournament
from app.services import TournamentService
from tests.factories import a_category, a_scored_battle, a_tournament, pending_battles


async def test_created_tournament_is_open() -> None:
    """A tournament that was created is loaded by another session, open for registration."""
    async with async_session_maker() as session:
        created = await TournamentService(session).create("Spring Jam")

    loaded = await _load(created.id)

    assert (loaded.name, loaded.phase) == ("Spring Jam", Phase.REGISTRATION)
    assert loaded.categories == []


async def test_unknown_tournament_is_named() -> None:
    """Loading a tournament that is not there says which one."""
    with pytest.raises(NotFoundError, match="There is no tournament 7"):
        await _load(7)


async def test_name_of_a_category_is_taken_once() -> None:
    """A second category of the same name is refused before the database has to."""
    made = await _save(a_tournament(a_category("House 1v1"), phase=Phase.REGISTRATION))

    async with async_session_maker() as session:
        with pytest.raises(RuleBrokenError, match="already has a category House 1v1"):
            await TournamentService(session).add_category(made.id, "House 1v1", places=4)

    assert len((await _load(made.id)).categories) == 1


async def test_closed_registration_takes_no_category() -> None:
    """In its preselection a tournament takes no more categories."""
    made = await _save(a_tournament(name="Spring Jam"))

    async with async_session_maker() as session:
        with pytest.raises(RuleBrokenError, match="The registration of Spring Jam is closed"):
            await TournamentService(session).add_category(made.id, "House 1v1", places=4)

    assert (await _load(made.id)).categories == []


async def test_advance_draws_the_preselection() -> None:
    """Leaving the registration commits the phase and a battle for every two performers."""
    made = await _save(a_tournament(a_category(performers=6), phase=Phase.REGISTRATION))

    async with async_session_maker() as session:
        await TournamentService(session).advance(made.id)

    drawn = await _load(made.id)
    assert drawn.phase is Phase.PRESELECTION
    assert [len(battle.entries) for battle in drawn.battles] == [2, 2, 2]


async def test_advance_names_every_obstacle() -> None:
    """Each battle that is still open is a reason of its own, and the phase stays."""
    category = a_category(performers=4)
    tournament = a_tournament(category)
    battles = pending_battles(category)
    made = await _save(tournament)

    async with async_session_maker() as session:
        with pytest.raises(RuleBrokenError) as refusal:
            await TournamentService(session).advance(made.id)

    assert refusal.value.reasons == tuple(
        f"The battle {battle.title} is still PENDING." for battle in battles
    )
    assert (await _load(made.id)).phase is Phase.PRESELECTION


async def test_positions_go_on_from_phase_to_phase() -> None:
    """The battles of the pools queue behind those of the preselection."""
    category = a_category(performers=2, places=2)
    tournament = a_tournament(category)
    a_scored_battle(category.performers, [70, 80])
    made = await _save(tournament)

    async with async_session_maker() as session:
        await TournamentService(session).advance(made.id)

    assert [(each.position, each.phase) for each in (await _load(made.id)).battles] == [
        (1, Phase.PRESELECTION),
        (2, Phase.POOLS),
    ]


async def test_delete_takes_the_registration_with_it() -> None:
    """A deleted tournament leaves no category and no performer; a closed one is not deleted."""
    opened = await _save(a_tournament(a_category(performers=2), phase=Phase.REGISTRATION))
    closed = await _save(a_tournament(a_category(performers=2), name="Closed Jam"))

    async with async_session_maker() as session:
        service = TournamentService(session)
        await service.delete(opened.id)
        with pytest.raises(RuleBrokenError, match="Closed Jam"):
            await service.delete(closed.id)

    async with async_session_maker() as session:
        tables = (Tournament, Category, Performer)
        counts = [await session.scalar(select(func.count()).select_from(each)) for each in tables]
    assert counts == [1, 1, 2]


async def _save(tournament: Tournament) -> Tournament:
    async with async_session_maker.begin() as session:
        session.add(tournament)
    return tournament


async def _load(tournament_id: int) -> Tournament:
    async with async_session_maker() as session:
        return await TournamentService(session).load(tournament_id)
