"""The prototypes of a team that looked for a way out of its session isolation.

Two approaches, as they were tried: the routes get the session of the test, or the test makes its
data over HTTP. Both run under pytest-arena as they are, over the production session maker.
"""

import re
from collections.abc import AsyncIterator, Iterator

import pytest
from httpx2 import ASGITransport, AsyncClient, Response
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.testclient import TestClient

from app.main import app
from app.models import Phase
from app.repositories import TournamentRepository
from tests.factories import a_category, a_tournament, pending_battles, save
from tests.login import log_in
from tests.pages import battle_cards


@pytest.fixture
async def async_client(override_get_db: None) -> AsyncIterator[AsyncClient]:
    """The HTTP library's own client, on the app whose `get_db` is overridden."""
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        yield client


@pytest.fixture
def staff_client() -> Iterator[TestClient]:
    """Starlette's own test client on the unmodified app, logged in."""
    with TestClient(app) as client:
        log_in(client, "staff")
        yield client


class TestAsyncClientApproach:
    """The routes use the session of the test."""

    async def test_fixture_data_visible_via_session_override(
        self, test_session: AsyncSession, async_client: AsyncClient
    ) -> None:
        """A tournament that the shared session only flushed has its page."""
        repository = TournamentRepository(test_session)
        tournament = await repository.create_tournament("E2E Test Tournament")
        await test_session.flush()

        response = await async_client.get(f"/tournaments/{tournament.id}")

        assert response.status_code == 200
        assert b"E2E Test Tournament" in response.content

    async def test_can_query_fixture_created_performers(
        self, test_session: AsyncSession, async_client: AsyncClient
    ) -> None:
        """The performers that the shared session flushed are listed for their category."""
        category = a_category(blazes=["Ruby", "Flow"])
        test_session.add(a_tournament(category))
        await test_session.flush()

        response = await async_client.get(
            f"/tournaments/{category.tournament_id}/categories/{category.id}/performers"
        )

        assert response.status_code == 200
        assert "2 registered" in response.text
        assert all(blaze in response.text for blaze in ("Ruby", "Flow"))


class TestHTTPOnlyApproach:
    """The test makes its data with the app's own forms."""

    def test_create_and_view_tournament_via_http(self, staff_client: TestClient) -> None:
        """A tournament created by a form has its page, at the address of the redirect."""
        response = staff_client.post(
            "/tournaments/create", data={"name": "HTTP Jam"}, follow_redirects=False
        )

        tournament_id = extract_id_from_redirect(response)
        page = staff_client.get(f"/tournaments/{tournament_id}")
        assert page.status_code == 200
        assert "HTTP Jam" in page.text

    def test_create_tournament_with_category_via_http(self, staff_client: TestClient) -> None:
        """A category added by a form stands on the page of its tournament."""
        response = staff_client.post(
            "/tournaments/create", data={"name": "HTTP Jam"}, follow_redirects=False
        )
        tournament_id = extract_id_from_redirect(response)

        page = staff_client.post(
            f"/tournaments/{tournament_id}/categories", data={"name": "House 1v1", "places": "8"}
        )

        assert page.status_code == 200
        assert "House 1v1" in page.text
        assert "0 registered, 8 places in the pools" in page.text


class TestCompareApproaches:
    """What the first can do and the second cannot."""

    async def test_async_approach_can_create_complex_scenario(
        self, test_session: AsyncSession, async_client: AsyncClient
    ) -> None:
        """A tournament that begins in its preselection shows its battles in the command center."""
        category = a_category(performers=4)
        tournament = await save(test_session, a_tournament(category, phase=Phase.PRESELECTION))
        test_session.add_all(pending_battles(category))
        await test_session.flush()
        await log_in(async_client, "mc")

        response = await async_client.get(f"/event/{tournament.id}")

        assert response.status_code == 200
        assert len(battle_cards(response.text)) == 2


def extract_id_from_redirect(response: Response) -> int:
    """Read the id of a created tournament from the address that the app leads to."""
    found = re.fullmatch(r"/tournaments/(\d+)", response.headers["location"])
    assert found, response.headers
    return int(found[1])
