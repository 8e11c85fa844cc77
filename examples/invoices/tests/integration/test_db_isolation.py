"""Each test has a database of its own: nothing comes in from another test, nothing gets out.

There is no conftest: `db_session` and `test_client` are the plugin's, and the app runs with its
own engine, its own `get_db` and its own commits.
"""

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.testclient import TestClient

from pytest_arena.errors import PendingWorkError
from src.models.database import DatabaseService, InvoiceRow
from tests.invoices import an_invoice

LEAK_CHECK = "LEAK_CHECK_INVOICE_ID"


class TestNoStateLeakage:
    """A committed invoice ends with its test, in whatever order the tests run."""

    async def test_invoice_does_not_leak_to_next_test_part1(self, db_session: AsyncSession) -> None:
        """Part 1 commits an invoice that was not there before."""
        assert await DatabaseService.get_invoice(LEAK_CHECK, db=db_session) is None

        await DatabaseService.save_invoice(an_invoice(LEAK_CHECK), db=db_session)

        assert await DatabaseService.get_invoice(LEAK_CHECK, db=db_session) is not None

    async def test_invoice_does_not_leak_to_next_test_part2(self, db_session: AsyncSession) -> None:
        """Part 2 does not see the invoice of part 1."""
        fetched = await DatabaseService.get_invoice(LEAK_CHECK, db=db_session)

        assert fetched is None

    def test_what_the_app_commits_does_not_leak_either(self, test_client: TestClient) -> None:
        """The list is empty before the app's own commit, and one long after it."""
        assert test_client.get("/api/invoices").json() == []

        invoice = an_invoice(LEAK_CHECK).model_dump(mode="json")
        assert test_client.post("/api/invoices", json=invoice).status_code == 201

        assert len(test_client.get("/api/invoices").json()) == 1


class TestOneDatabase:
    """Session, routes and service of one test work on the same database, without an override."""

    async def test_api_route_uses_isolated_db(
        self, test_client: TestClient, db_session: AsyncSession
    ) -> None:
        """A route sees the invoice that the test has saved."""
        invoice = an_invoice()
        await DatabaseService.save_invoice(invoice, db=db_session)

        response = test_client.get(f"/api/hitl/invoice/{invoice.id}")

        assert response.status_code == 200
        assert response.json()["vendor"] == invoice.vendor

    async def test_service_with_a_session_of_its_own_uses_isolated_db(
        self, test_client: TestClient, db_session: AsyncSession
    ) -> None:
        """What the production session maker commits, the test's session and the route see."""
        await DatabaseService.save_invoice(an_invoice())

        assert await DatabaseService.get_invoice("INV-1", db=db_session) == an_invoice()
        assert test_client.get("/api/hitl/invoice/INV-1").status_code == 200

    async def test_sync_request_says_what_to_await_before_it(
        self, test_client: TestClient, db_session: AsyncSession
    ) -> None:
        """A sync request cannot await the commit of pending work, and never misses it silently."""
        db_session.add(InvoiceRow(**an_invoice().model_dump()))

        with pytest.raises(PendingWorkError, match=r"await db_session\.commit\(\)"):
            test_client.get("/api/hitl/invoice/INV-1")

        await db_session.commit()
        assert test_client.get("/api/hitl/invoice/INV-1").status_code == 200
