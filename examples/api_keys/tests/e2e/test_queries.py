"""Queries find documents, page by page; and what a test sees of a bug."""

import pytest
from httpx2 import AsyncClient
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from api_keys.models import Document
from tests.holders import Holder

OPEN_OR_DEAR = {
    "any": [
        {"all": [{"field": "kind", "is": "invoice"}, {"not": {"field": "paid", "is": True}}]},
        {"field": "total", "above": 100},
    ]
}


async def test_query_finds_documents_page_by_page(client: AsyncClient, analyst: Holder) -> None:
    """Scenario: Query finds documents page by page

    Given the documents that every test starts with,
    When open invoices or dear things are asked for, two at a time,
    Then two pages have the three of them.
    """
    query = {"where": OPEN_OR_DEAR, "limit": 2}
    first = (await client.post("/query", json=query, headers=analyst.headers)).json()
    query["after"] = first["next"]
    second = (await client.post("/query", json=query, headers=analyst.headers)).json()

    assert [found["title"] for found in first["items"]] == ["Paper", "Desk"]
    assert [found["title"] for found in second["items"]] == ["Chair"]
    assert second["next"] is None


async def test_bug_of_the_app_reaches_the_test(
    client: AsyncClient, analyst: Holder, db_session: AsyncSession
) -> None:
    """Scenario: Bug of the app reaches the test

    Given a document whose total is no number, which the app does not expect,
    When a query compares totals,
    Then the test has the app's exception, where a visitor would have a 500.
    """
    db_session.add(Document(title="Sculpture", attributes={"total": "on request"}))
    await db_session.commit()
    query = {"where": {"field": "total", "above": 100}}

    with pytest.raises(DBAPIError, match="invalid input syntax for type numeric"):
        await client.post("/query", json=query, headers=analyst.headers)
