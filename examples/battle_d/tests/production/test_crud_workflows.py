"""Create, read, change, delete, over HTTP alone; the production session maker reads the rows."""

import re

from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.db.database import async_session_maker
from app.models import Base, Category, Dancer, Performer, Phase, Tournament
from tests.factories import a_category, a_tournament, save


def test_tournament_that_was_created_is_listed(staff_client: TestClient) -> None:
    """A tournament created by one request stands in the list that the next one reads."""
    staff_client.post("/tournaments/create", data={"name": "Spring Jam"})

    assert "Spring Jam" in staff_client.get("/tournaments").text


async def test_tournament_is_renamed_and_deleted(staff_client: TestClient) -> None:
    """Created, renamed and deleted over HTTP, a tournament is in the database as long as it is."""
    page = staff_client.post("/tournaments/create", data={"name": "Spring Jam"})
    assert await _names() == ["Spring Jam"]

    staff_client.post(f"{page.url}/rename", data={"name": "Summer Jam"})
    assert await _names() == ["Summer Jam"]

    staff_client.post(f"{page.url}/delete")
    assert await _names() == []


async def test_dancer_is_taken_in_found_and_changed(staff_client: TestClient) -> None:
    """A dancer is found under a part of the blaze, and under another one after a change."""
    ruby = {"email": "r@d.example", "first_name": "Amina", "last_name": "Diallo", "blaze": "Ruby"}
    staff_client.post("/dancers/create", data=ruby)
    found = staff_client.get("/dancers", params={"q": "rub"}).text
    [address] = re.findall(r"/dancers/\d+/edit", found)
    assert 'value="Ruby"' in staff_client.get(address).text

    staff_client.post(address, data=ruby | {"blaze": "Opal"})

    async with async_session_maker() as session:
        dancer = await session.scalar(select(Dancer))
    assert dancer
    assert (dancer.blaze, dancer.email) == ("Opal", "r@d.example")


async def test_performer_withdraws(staff_client: TestClient) -> None:
    """A performer who was there before the first request leaves the category, not the index."""
    category = a_category(blazes=["Ruby", "Flow"])
    async with async_session_maker() as session:
        await save(session, a_tournament(category, phase=Phase.REGISTRATION))
    performers = f"/tournaments/{category.tournament_id}/categories/{category.id}/performers"
    assert "Withdraw Ruby" in staff_client.get(performers).text

    staff_client.post(f"{performers}/{category.performers[0].id}/withdraw")

    assert "1 registered" in staff_client.get(performers).text
    assert await _count(Performer) == 1
    assert await _count(Dancer) == 2


async def test_refused_category_leaves_no_row(staff_client: TestClient) -> None:
    """A category of one place is refused in words, and nothing of it is stored."""
    page = staff_client.post("/tournaments/create", data={"name": "Spring Jam"})

    refused = staff_client.post(f"{page.url}/categories", data={"name": "House", "places": "1"})

    assert refused.status_code == 422
    assert "places:" in refused.text
    assert await _count(Category) == 0


async def _names() -> list[str]:
    async with async_session_maker() as session:
        return [*await session.scalars(select(Tournament.name))]


async def _count(table: type[Base]) -> int:
    async with async_session_maker() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0
