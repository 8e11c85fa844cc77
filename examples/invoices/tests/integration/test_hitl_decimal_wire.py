"""Money goes over the wire as text, and comes back to the cent."""

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.testclient import TestClient

from src.models.database import DatabaseService
from src.models.invoice import decimal_to_wire
from tests.invoices import a_review, an_invoice

LARGEST = Decimal("9999999999999999.99")


@pytest.mark.parametrize(
    "amount, wire",
    [("0.1", "0.10"), ("1E+3", "1000.00"), ("0", "0.00"), (str(LARGEST), str(LARGEST))],
)
def test_decimal_to_wire_writes_two_places_in_plain_notation(amount: str, wire: str) -> None:
    """No exponent, no missing zero, no digit lost."""
    assert decimal_to_wire(Decimal(amount)) == wire


@pytest.mark.parametrize("tax", [Decimal("0.10"), LARGEST - 100], ids=["small", "largest"])
async def test_amount_is_the_same_on_paper_in_the_table_and_on_the_wire(
    test_client: TestClient, db_session: AsyncSession, tax: Decimal
) -> None:
    """Text on the wire; exactly the saved Decimal when it is read as one."""
    await DatabaseService.save_invoice(an_invoice(tax=tax, total=100 + tax), db=db_session)

    shown = test_client.get("/api/hitl/invoice/INV-1").json()

    assert shown["tax"] == str(tax)
    assert Decimal(shown["subtotal"]) + Decimal(shown["tax"]) == Decimal(shown["total"])


async def test_corrected_amounts_are_kept_to_the_cent(
    test_client: TestClient, db_session: AsyncSession
) -> None:
    """A reviewer's 0.10 + 0.20 is 0.30, as it never is with floats."""
    await DatabaseService.save_invoice(an_invoice(), db=db_session)
    corrected = {"subtotal": "0.10", "tax": "0.20", "total": "0.30"}

    response = test_client.post(
        "/api/hitl/invoice/INV-1/review", json=a_review(1, corrected=corrected)
    )

    assert response.status_code == 200
    invoice = await DatabaseService.get_invoice("INV-1", db=db_session)
    assert invoice
    assert invoice.total == Decimal("0.30")


@pytest.mark.parametrize(
    "amounts, reason",
    [
        ({"tax": 19.0}, "written as text"),
        ({"tax": "19.001"}, "2 decimal places"),
        ({"tax": "-1.00"}, "greater than or equal to 0"),
        ({"tax": "NaN"}, "finite number"),
        ({"tax": "18.99"}, "100.00 + 18.99 is not 119.00"),
    ],
    ids=["float", "third place", "negative", "no number", "wrong sum"],
)
def test_wrong_money_is_refused_with_a_reason(
    test_client: TestClient, amounts: dict[str, Any], reason: str
) -> None:
    """422 tells what is wrong, and nothing is saved."""
    invoice = an_invoice().model_dump(mode="json") | amounts

    response = test_client.post("/api/invoices", json=invoice)

    assert response.status_code == 422
    assert reason in response.text
    assert test_client.get("/api/invoices").json() == []
