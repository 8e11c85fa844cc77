"""An app whose tables come from migrations."""

from sqlalchemy import text

from .shop import Db, app


@app.get("/currencies")
async def currencies(db: Db):
    return list(await db.scalars(text("SELECT code FROM currencies ORDER BY code")))


async def test_alembic(client):
    """A migration adds rows of reference."""
    assert (await client.get("/currencies")).json() == ["EUR", "USD"]
