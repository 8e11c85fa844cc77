"""Invoices as they come in."""

from fastapi import APIRouter

from api.routes import Db
from src.models.database import DatabaseService
from src.models.invoice import Invoice, InvoiceStatus

router = APIRouter(prefix="/api/invoices")


@router.post("", status_code=201)
async def add_invoice(invoice: Invoice, db: Db) -> Invoice:
    """Take an invoice in; it waits for a review, whatever it says of itself."""
    new = invoice.model_copy(update={"status": InvoiceStatus.PENDING})
    return await DatabaseService.save_invoice(new, db=db)


@router.get("")
async def list_invoices(db: Db, status: InvoiceStatus | None = None) -> list[Invoice]:
    """List the invoices, or those of one status."""
    return await DatabaseService.list_invoices(status, db=db)
