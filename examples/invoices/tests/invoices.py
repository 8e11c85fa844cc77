"""Invoices and reviews as the tests need them."""

from decimal import Decimal
from typing import Any

from src.models.invoice import Invoice


def an_invoice(invoice_id: str = "INV-1", **given: Any) -> Invoice:
    """Make an invoice over 119.00, of which a test names what matters to it."""
    amounts = {"subtotal": Decimal("100.00"), "tax": Decimal("19.00"), "total": Decimal("119.00")}
    return Invoice(**{"id": invoice_id, "vendor": "Acme", **amounts, **given})


def a_review(version: int, **given: Any) -> dict[str, Any]:
    """Write an approval down as it goes over the wire."""
    return {"expected_version": version, "decision": "approve", "reviewer": "Ada", **given}
