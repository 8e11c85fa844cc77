"""Two people cannot decide on the same version of an invoice."""

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncSession
from starlette.testclient import TestClient

from src.models.database import DatabaseService
from src.models.invoice import InvoiceStatus
from tests.invoices import a_review, an_invoice

if TYPE_CHECKING:
    from httpx2 import AsyncClient

REVIEW = "/api/hitl/invoice/INV-1/review"


class TestOptimisticLocking:
    """The version that a reviewer had on the screen has to be the one that is there."""

    async def test_review_of_the_current_version_counts_it_up(
        self, test_client: TestClient, db_session: AsyncSession
    ) -> None:
        """Version 1 is approved and becomes version 2, with the reviewer's name."""
        await DatabaseService.save_invoice(an_invoice(), db=db_session)

        response = test_client.post(REVIEW, json=a_review(1))

        assert response.status_code == 200
        assert (response.json()["status"], response.json()["version"]) == ("approved", 2)
        assert await DatabaseService.list_reviewers("INV-1", db=db_session) == ["Ada"]

    async def test_stale_version_is_refused(
        self, test_client: TestClient, db_session: AsyncSession
    ) -> None:
        """The second decision on version 1 gets 409 and the current version; the first stays."""
        await DatabaseService.save_invoice(an_invoice(), db=db_session)
        test_client.post(REVIEW, json=a_review(1)).raise_for_status()

        response = test_client.post(REVIEW, json=a_review(1, decision="reject", reviewer="Max"))

        assert response.status_code == 409
        assert response.json()["current_version"] == 2
        invoice = await DatabaseService.get_invoice("INV-1", db=db_session)
        assert invoice == an_invoice(status=InvoiceStatus.APPROVED, version=2)

    async def test_of_two_reviews_at_the_same_moment_one_wins(
        self, client: "AsyncClient", db_session: AsyncSession
    ) -> None:
        """Two requests on two connections: one is written down, the other gets 409."""
        await DatabaseService.save_invoice(an_invoice(), db=db_session)

        reviews = (a_review(1, reviewer=name) for name in ("Ada", "Max"))
        responses = await asyncio.gather(*(client.post(REVIEW, json=each) for each in reviews))

        assert sorted(response.status_code for response in responses) == [200, 409]
        assert len(await DatabaseService.list_reviewers("INV-1", db=db_session)) == 1
