"""Human in the loop: a person reads what the machine has read, and decides."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.routes import Db
from src.models.database import DatabaseService, UnknownInvoiceError
from src.models.invoice import Amounts, Invoice, InvoiceStatus

router = APIRouter(prefix="/api/hitl")

DECISIONS = {"approve": InvoiceStatus.APPROVED, "reject": InvoiceStatus.REJECTED}


class Review(BaseModel):
    """A decision, on the version that the reviewer had on the screen."""

    expected_version: int = Field(ge=1)
    decision: Literal["approve", "reject"]
    reviewer: str = Field(min_length=1, max_length=100)
    corrected: Amounts | None = None


@router.get("/queue")
async def list_queue(db: Db) -> list[Invoice]:
    """List what waits for a person."""
    return await DatabaseService.list_invoices(InvoiceStatus.PENDING, db=db)


@router.get("/invoice/{invoice_id}")
async def show_invoice(invoice_id: str, db: Db) -> Invoice:
    """Show an invoice with the version to send back."""
    invoice = await DatabaseService.get_invoice(invoice_id, db=db)
    if invoice is None:
        raise UnknownInvoiceError(f"there is no invoice {invoice_id}")
    return invoice


@router.post("/invoice/{invoice_id}/review")
async def review_invoice(invoice_id: str, review: Review, db: Db) -> Invoice:
    """Write a decision down; 409 if the invoice has changed meanwhile."""
    return await DatabaseService.review_invoice(
        invoice_id,
        expected_version=review.expected_version,
        decision=DECISIONS[review.decision],
        reviewer=review.reviewer,
        corrected=review.corrected,
        db=db,
    )
