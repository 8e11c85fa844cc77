"""The rows that every test starts with: some documents to ask for."""

from sqlalchemy.ext.asyncio import AsyncSession

from api_keys.models import Document

DOCUMENTS = {
    "Ink": {"kind": "invoice", "total": 12, "paid": True},
    "Paper": {"kind": "invoice", "total": 90, "paid": False},
    "Desk": {"kind": "invoice", "total": 400, "paid": False},
    "Chair": {"kind": "offer", "total": 150},
    "Lease": {"kind": "contract"},
}


async def seed(session: AsyncSession) -> None:
    """Add the documents, in this order."""
    for title, attributes in DOCUMENTS.items():
        session.add(Document(title=title, attributes=attributes))
        await session.flush()
