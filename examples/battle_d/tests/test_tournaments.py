"""What the staff does over HTTP alone, from the first form to the drawn preselection."""

from collections.abc import Callable

from httpx2 import AsyncClient
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Battle, Category, Dancer, Performer, Phase, Tournament
from tests.factories import a_category, a_dancer, a_tournament, save

ClientAs = Callable[[str], AsyncClient]


async def test_created_tournament_has_a_page(client_as: ClientAs, client: AsyncClient) -> None:
    """Creating a tournament leads to its page, which the audience may read."""
    created = await client_as("staff").post("/tournaments/create", data={"name": "Spring Jam"})

    page = await client.get(created.headers["location"])

    assert created.status_code == 303
    assert "Spring Jam" in page.text
    assert "REGISTRATION" in page.text


async def test_test_reads_what_requests_committed(
    client_as: ClientAs, db_session: AsyncSession
) -> None:
    """The test's own session reads the category and the performer that requests committed."""
    dancer = await save(db_session, a_dancer("Ruby"))
    tournament = await save(db_session, a_tournament(phase=Phase.REGISTRATION))
    address = f"/tournaments/{tournament.id}"
    staff = client_as("staff")

    await staff.post(f"{address}/categories", data={"name": "House 1v1", "places": "2"})
    category_id = await db_session.scalar(select(Category.id))
    registered = await staff.post(
        f"{address}/categories/{category_id}/performers", data={"dancer_id": str(dancer.id)}
    )

    assert registered.status_code == 303
    blazes = select(Dancer.blaze).join(Performer).where(Performer.category_id == category_id)
    assert [*await db_session.scalars(blazes)] == ["Ruby"]


async def test_dancer_registers_once(client_as: ClientAs, db_session: AsyncSession) -> None:
    """A second registration of the same dancer is refused and adds nothing."""
    category = a_category(blazes=["Ruby"])
    tournament = await save(db_session, a_tournament(category, phase=Phase.REGISTRATION))
    [ruby] = category.performers

    response = await client_as("staff").post(
        f"/tournaments/{tournament.id}/categories/{category.id}/performers",
        data={"dancer_id": str(ruby.dancer_id)},
    )

    assert response.status_code == 409
    assert "Ruby is already registered in Hip hop 1v1." in response.text
    assert await db_session.scalar(select(func.count(Performer.id))) == 1


async def test_registration_ends_with_a_draw(client_as: ClientAs, db_session: AsyncSession) -> None:
    """Leaving the registration draws a battle for every two performers of each category."""
    categories = [a_category("Hip hop 1v1", performers=6), a_category("House 1v1", performers=5)]
    tournament = await save(db_session, a_tournament(*categories, phase=Phase.REGISTRATION))

    await client_as("staff").post(f"/tournaments/{tournament.id}/advance")

    drawn = select(Battle.category_id, func.count()).group_by(Battle.category_id)
    assert dict((await db_session.execute(drawn)).all()) == {
        categories[0].id: 3,
        categories[1].id: 2,
    }


async def test_empty_name_is_refused_in_words(
    client_as: ClientAs, db_session: AsyncSession
) -> None:
    """A tournament without a name is refused on a page that names the field."""
    response = await client_as("staff").post("/tournaments/create", data={"name": "  "})

    assert response.status_code == 422
    assert "name:" in response.text
    assert await db_session.scalar(select(func.count(Tournament.id))) == 0
