"""The routes one by one, from plain functions: no test needs to be async to use the database."""

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from src.models.database import InvoiceRow
from src.models.invoice import InvoiceStatus
from tests.invoices import a_review, an_invoice


@pytest.fixture
def two_invoices(db_session: Session) -> None:
    """One invoice that waits, one that is done; no commit: the first request brings it."""
    done = an_invoice("INV-2", status=InvoiceStatus.APPROVED)
    db_session.add_all(InvoiceRow(**each.model_dump()) for each in (an_invoice(), done))


class TestInvoices:
    """Taking invoices in, and listing them."""

    def test_health(self, test_client: TestClient) -> None:
        """The app is up."""
        assert test_client.get("/health").json() == {"status": "ok"}

    def test_new_invoice_waits_for_a_review(
        self, test_client: TestClient, db_session: Session
    ) -> None:
        """An invoice cannot approve itself, and begins with version 1."""
        invoice = an_invoice(status=InvoiceStatus.APPROVED, version=9).model_dump(mode="json")

        response = test_client.post("/api/invoices", json=invoice)

        assert response.status_code == 201
        assert response.json()["version"] == 1
        assert db_session.scalars(select(InvoiceRow.status)).all() == [InvoiceStatus.PENDING]

    @pytest.mark.usefixtures("two_invoices")
    def test_taken_id_is_refused(self, test_client: TestClient) -> None:
        """The database's own constraint answers, and what was there stays."""
        invoice = an_invoice(vendor="Somebody else").model_dump(mode="json")

        assert test_client.post("/api/invoices", json=invoice).status_code == 409
        assert test_client.get("/api/hitl/invoice/INV-1").json()["vendor"] == "Acme"

    @pytest.mark.usefixtures("two_invoices")
    @pytest.mark.parametrize(
        "query, listed", [("", ["INV-1", "INV-2"]), ("?status=approved", ["INV-2"])]
    )
    def test_list_of_invoices(self, test_client: TestClient, query: str, listed: list[str]) -> None:
        """All, or those of one status."""
        found = test_client.get(f"/api/invoices{query}").json()

        assert [invoice["id"] for invoice in found] == listed

    @pytest.mark.parametrize(
        "wrong", [{"id": ""}, {"vendor": ""}, {"currency": "euro"}, {"status": "paid"}], ids=str
    )
    def test_wrong_field_is_refused(self, test_client: TestClient, wrong: dict[str, Any]) -> None:
        """422 names the field."""
        invoice = an_invoice().model_dump(mode="json") | wrong

        response = test_client.post("/api/invoices", json=invoice)

        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"] == ["body", *wrong]


class TestReviews:
    """The queue, and the decisions."""

    @pytest.mark.usefixtures("two_invoices")
    def test_decided_invoice_leaves_the_queue(self, test_client: TestClient) -> None:
        """What waits is listed until it is decided on."""
        assert [each["id"] for each in test_client.get("/api/hitl/queue").json()] == ["INV-1"]

        response = test_client.post(
            "/api/hitl/invoice/INV-1/review", json=a_review(1, decision="reject")
        )

        assert response.json()["status"] == "rejected"
        assert test_client.get("/api/hitl/queue").json() == []

    def test_unknown_invoice(self, test_client: TestClient) -> None:
        """404 for reading and for deciding."""
        assert test_client.get("/api/hitl/invoice/NONE").status_code == 404
        response = test_client.post("/api/hitl/invoice/NONE/review", json=a_review(1))
        assert response.status_code == 404

    @pytest.mark.parametrize(
        "wrong", [{"expected_version": 0}, {"decision": "pay"}, {"reviewer": ""}], ids=str
    )
    def test_wrong_review_is_refused(self, test_client: TestClient, wrong: dict[str, Any]) -> None:
        """422 names the field."""
        response = test_client.post("/api/hitl/invoice/INV-1/review", json=a_review(1) | wrong)

        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"] == ["body", *wrong]
