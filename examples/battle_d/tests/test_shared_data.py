"""One tournament for a whole module: written once, changed by every test, whole again for each.

The fixture writes through the app's own session maker, on the event loop of the module; the tests
run each on a loop of its own.
"""

from collections.abc import Callable

import pytest
import pytest_asyncio
from httpx2 import AsyncClient
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.database import async_session_maker
from app.models import Battle, BattleStatus, Category, Performer, Tournament
from tests.factories import a_category, a_tournament, pending_battles

ClientAs = Callable[[str], AsyncClient]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def big_jam() -> Tournament:
    """A tournament of 3 categories with 16 performers each, and a queue of 24 battles."""
    names = ("Hip hop 1v1", "Breaking 1v1", "House 1v1")
    categories = [a_category(name, performers=16) for name in names]
    tournament = a_tournament(*categories, name="Big Jam")
    async with async_session_maker.begin() as session:
        session.add(tournament)
        for category in categories:
            session.add_all(pending_battles(category))
    return tournament


@pytest.fixture(autouse=True)
async def assert_whole(big_jam: Tournament, db_session: AsyncSession) -> None:
    """Before every test the shared tournament is as the fixture wrote it."""
    assert await _count(db_session) == {"tournaments": 1, "performers": 48, "pending": 24}


async def test_one_starts_a_battle(
    client_as: ClientAs, db_session: AsyncSession, big_jam: Tournament
) -> None:
    """A test may start a shared battle: none is active before, one afterwards."""
    await client_as("mc").post(f"/battles/{big_jam.battles[0].id}/start")

    assert (await _count(db_session))["pending"] == 23


async def test_one_renames_the_tournament(
    client: AsyncClient, db_session: AsyncSession, big_jam: Tournament
) -> None:
    """A test may rename the shared tournament: the page shows the new name in this test."""
    tournament = await db_session.get_one(Tournament, big_jam.id)
    assert tournament.name == "Big Jam"
    tournament.name = "Small Jam"

    page = await client.get(f"/tournaments/{big_jam.id}")

    assert "Small Jam" in page.text


async def test_one_deletes_everything(
    client: AsyncClient, db_session: AsyncSession, big_jam: Tournament
) -> None:
    """A test may delete the shared tournament and, by the foreign keys, all that belongs to it."""
    async with async_session_maker.begin() as session:
        await session.execute(delete(Tournament))

    page = await client.get(f"/tournaments/{big_jam.id}")

    assert page.status_code == 404
    assert await _count(db_session) == {"tournaments": 0, "performers": 0, "pending": 0}


async def test_one_adds_to_it(client_as: ClientAs, big_jam: Tournament) -> None:
    """Ids go on from those of the shared data, whichever tests ran before."""
    created = await client_as("staff").post("/tournaments/create", data={"name": "Next Jam"})

    assert created.headers["location"] == f"/tournaments/{big_jam.id + 1}"


async def _count(session: AsyncSession) -> dict[str, int]:
    pending = select(func.count(Battle.id)).where(Battle.status == BattleStatus.PENDING)
    performers = select(func.count(Performer.id)).join(Category)
    return {
        "tournaments": await session.scalar(select(func.count(Tournament.id))) or 0,
        "performers": await session.scalar(performers) or 0,
        "pending": await session.scalar(pending) or 0,
    }
