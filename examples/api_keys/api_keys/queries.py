"""Queries: answered in pages, and written down."""

from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select

from api_keys.access import CurrentKey, wants
from api_keys.database import Db
from api_keys.models import AskedQuery, Document, Scope
from api_keys.query_language import Query

router = APIRouter()


class FoundDocument(BaseModel):
    """A document that a query has found."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    title: str
    attributes: dict[str, Any]


class DocumentPage(BaseModel):
    """Some of the documents, and the id that the next page begins after, if there is one."""

    items: list[FoundDocument]
    next: int | None


@router.post("/query", dependencies=[Depends(wants(Scope.QUERY))])
async def answer(query: Query, key: CurrentKey, db: Db) -> DocumentPage:
    """Find the documents, and remember who asked what."""
    wanted = select(Document).where(Document.id > query.after, query.where.sql())
    rows = await db.scalars(wanted.order_by(Document.id).limit(query.limit + 1))
    found = [FoundDocument.model_validate(document) for document in rows]
    items = found[: query.limit]
    asked = query.model_dump(mode="json", by_alias=True)
    db.add(AskedQuery(key_id=key.id, query=asked, found=len(items)))
    await db.commit()
    return DocumentPage(items=items, next=items[-1].id if len(found) > query.limit else None)
