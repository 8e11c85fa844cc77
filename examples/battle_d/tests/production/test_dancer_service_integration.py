"""The dancer service over real sessions: what one committed, the next one reads."""

import pytest

from app.db.database import async_session_maker
from app.errors import NotFoundError, RuleBrokenError
from app.models import Dancer
from app.services import DancerService
from tests.factories import a_dancer

OPAL = {"first_name": "Amina", "last_name": "Diallo", "blaze": "Opal"}


async def test_created_dancer_is_there_for_the_next_session() -> None:
    """A dancer whom the service took in is loaded by a service on another session."""
    created = await _create(a_dancer("Ruby"))

    async with async_session_maker() as session:
        loaded = await DancerService(session).load(created.id)

    assert loaded is not created
    assert (loaded.blaze, loaded.email) == ("Ruby", created.email)


async def test_unknown_dancer_is_named() -> None:
    """Loading a dancer who is not there says which one."""
    async with async_session_maker() as session:
        with pytest.raises(NotFoundError, match="There is no dancer 7"):
            await DancerService(session).load(7)


async def test_address_is_taken_once() -> None:
    """A second dancer with the same address is refused, and the first one stays alone."""
    ruby = await _create(a_dancer("Ruby"))
    double = a_dancer("Double")
    double.email = ruby.email

    with pytest.raises(RuleBrokenError, match="already belongs to a dancer"):
        await _create(double)

    assert await _blazes() == ["Ruby"]


async def test_dancers_come_by_blaze() -> None:
    """The card index is in the order of the blazes, not of the arrivals."""
    for blaze in ("Storm", "Flow", "Ruby"):
        await _create(a_dancer(blaze))

    assert await _blazes() == ["Flow", "Ruby", "Storm"]


async def test_search_ignores_space_around_the_words() -> None:
    """What was typed with a space too many finds the same dancer."""
    await _create(a_dancer("Ruby"))
    await _create(a_dancer("Flow"))

    async with async_session_maker() as session:
        found = await DancerService(session).search("  ruby ")

    assert [dancer.blaze for dancer in found] == ["Ruby"]


async def test_changed_dancer_may_keep_the_address() -> None:
    """A dancer's own address is no reason to refuse a new blaze."""
    ruby = await _create(a_dancer("Ruby"))

    async with async_session_maker() as session:
        await DancerService(session).change(ruby.id, email=ruby.email, **OPAL)

    assert await _blazes() == ["Opal"]


async def test_change_to_a_taken_address_changes_nothing() -> None:
    """A new address that another dancer has is refused, and the new blaze with it."""
    ruby, flow = await _create(a_dancer("Ruby")), await _create(a_dancer("Flow"))

    async with async_session_maker() as session:
        with pytest.raises(RuleBrokenError, match=flow.email):
            await DancerService(session).change(ruby.id, email=flow.email, **OPAL)

    assert await _blazes() == ["Flow", "Ruby"]


async def _create(dancer: Dancer) -> Dancer:
    async with async_session_maker() as session:
        return await DancerService(session).create(dancer)


async def _blazes() -> list[str]:
    async with async_session_maker() as session:
        return [dancer.blaze for dancer in await DancerService(session).all()]
