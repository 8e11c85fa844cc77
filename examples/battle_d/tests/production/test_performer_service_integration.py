"""The performer service over real sessions: who is registered in which category."""

import pytest

from app.db.database import async_session_maker
from app.errors import NotFoundError, RuleBrokenError
from app.models import Category, Dancer, Phase
from app.services import DancerService, PerformerService, TournamentService
from tests.factories import a_category, a_dancer, a_tournament


async def test_registered_dancer_performs() -> None:
    """A dancer whom one session registered is a performer for the next one."""
    category, dancer = await _save_category(), await _save_dancer("Ruby")

    async with async_session_maker() as session:
        service = PerformerService(session)
        performer = await service.register(category.tournament_id, category.id, dancer.id)

    assert performer.id
    assert await _blazes(category) == ["Ruby"]


async def test_dancer_registers_once_in_a_category() -> None:
    """A second registration is refused by name."""
    category = await _save_category("Ruby")
    [ruby] = category.performers

    async with async_session_maker() as session:
        with pytest.raises(RuleBrokenError, match="Ruby is already registered in House 1v1"):
            await PerformerService(session).register(
                category.tournament_id, category.id, ruby.dancer_id
            )

    assert await _blazes(category) == ["Ruby"]


async def test_dancer_registers_in_two_tournaments() -> None:
    """Whoever performs in one tournament may perform in another."""
    first, second = await _save_category("Ruby"), await _save_category()
    [ruby] = first.performers

    async with async_session_maker() as session:
        await PerformerService(session).register(second.tournament_id, second.id, ruby.dancer_id)

    assert await _blazes(first) == await _blazes(second) == ["Ruby"]


@pytest.mark.parametrize("unknown", ["category", "dancer"])
async def test_registration_names_what_is_missing(unknown: str) -> None:
    """A category or dancer that is not there is named, and nobody is registered."""
    category, dancer = await _save_category(), await _save_dancer("Ruby")
    ids = {"category": category.id, "dancer": dancer.id, unknown: 7777}

    async with async_session_maker() as session:
        with pytest.raises(NotFoundError, match=f"no {unknown} 7777"):
            await PerformerService(session).register(category.tournament_id, *ids.values())

    assert await _blazes(category) == []


async def test_withdrawn_performer_may_come_back() -> None:
    """After a withdrawal the same dancer can register again, as the last one."""
    category = await _save_category("Ruby", "Flow")
    ruby = category.performers[0]

    async with async_session_maker() as session:
        service = PerformerService(session)
        await service.withdraw(category.tournament_id, category.id, ruby.id)
        assert await _blazes(category) == ["Flow"]
        await service.register(category.tournament_id, category.id, ruby.dancer_id)

    assert await _blazes(category) == ["Flow", "Ruby"]


async def test_nobody_withdraws_from_a_drawn_preselection() -> None:
    """When the registration is closed, the field stays as it was drawn."""
    category = await _save_category("Ruby", "Flow", phase=Phase.PRESELECTION)
    ruby = category.performers[0]

    async with async_session_maker() as session:
        with pytest.raises(RuleBrokenError, match="is closed"):
            await PerformerService(session).withdraw(category.tournament_id, category.id, ruby.id)

    assert await _blazes(category) == ["Ruby", "Flow"]


async def _save_category(*blazes: str, phase: Phase = Phase.REGISTRATION) -> Category:
    """Commit a tournament with one category, in which these dancers perform."""
    category = a_category("House 1v1", blazes=blazes)
    async with async_session_maker.begin() as session:
        session.add(a_tournament(category, phase=phase))
    return category


async def _save_dancer(blaze: str) -> Dancer:
    async with async_session_maker() as session:
        return await DancerService(session).create(a_dancer(blaze))


async def _blazes(category: Category) -> list[str]:
    """Read who performs in a category, over a session of its own."""
    async with async_session_maker() as session:
        tournament = await TournamentService(session).load(category.tournament_id)
    [found] = tournament.categories
    return [performer.dancer.blaze for performer in found.performers]
