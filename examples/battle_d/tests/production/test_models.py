"""What the tables themselves allow and forbid, as `init_db` makes them."""

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from app.db.database import async_session_maker
from app.models import Base, Battle, BattleStatus, Dancer, Performer, Phase
from tests.factories import (
    a_battle,
    a_category,
    a_scored_battle,
    a_tournament,
    pending_battles,
    save,
)


async def test_phases_follow_one_another_to_the_end() -> None:
    """From the registration each phase names the next, and the last names none."""
    phases: list[Phase | None] = [Phase.REGISTRATION]
    while phases[-1]:
        phases.append(phases[-1].next())

    assert phases == [*Phase, None]


async def test_two_tournaments_may_have_a_category_of_one_name() -> None:
    """The name of a category is taken in its own tournament alone."""
    async with async_session_maker() as session:
        for name in ("Spring Jam", "Summer Jam"):
            await save(session, a_tournament(a_category("House 1v1"), name=name))

    await _assert_refused(a_tournament(a_category("House 1v1"), a_category("House 1v1")))


async def test_category_needs_two_places() -> None:
    """A category from which one goes on is refused: pools of one are none."""
    await _assert_refused(a_tournament(a_category(places=1)))


async def test_dancer_performs_once_in_a_category() -> None:
    """The same dancer cannot stand in a category twice."""
    category = a_category(performers=1)
    category.performers.append(Performer(dancer=category.performers[0].dancer))

    await _assert_refused(a_tournament(category))


async def test_one_battle_of_a_tournament_is_active() -> None:
    """Two active battles in one tournament are refused, even where no service looks."""
    category = a_category(performers=4)
    tournament = a_tournament(category)
    for battle in pending_battles(category):
        battle.status = BattleStatus.ACTIVE

    await _assert_refused(tournament)


async def test_completed_battle_has_an_outcome() -> None:
    """A battle cannot be over without having ended somehow."""
    category = a_category(performers=2)
    tournament = a_tournament(category)
    a_battle(category.performers, status=BattleStatus.COMPLETED)

    await _assert_refused(tournament)


async def test_score_is_at_most_a_hundred() -> None:
    """A score of 101 is refused."""
    category = a_category(performers=2)
    tournament = a_tournament(category)
    a_scored_battle(category.performers, [100, 101])

    await _assert_refused(tournament)


async def test_deleted_tournament_takes_all_but_the_dancers() -> None:
    """With a tournament go its performers and battles; the dancers stay in the card index."""
    category = a_category(performers=2)
    async with async_session_maker() as session:
        tournament = await save(session, a_tournament(category))
        await save(session, a_battle(category.performers))

        await session.delete(tournament)
        await session.commit()

    async with async_session_maker() as session:
        tables = (Performer, Battle, Dancer)
        counts = [await session.scalar(select(func.count()).select_from(each)) for each in tables]
    assert counts == [0, 0, 2]


async def _assert_refused(thing: Base) -> None:
    """The database refuses to take this in."""
    async with async_session_maker() as session:
        session.add(thing)
        with pytest.raises(IntegrityError):
            await session.flush()
