"""Apps that use more of PostgreSQL than rows."""

import asyncio

from fastapi import HTTPException
from sqlalchemy import DDL, delete, event, select, text

from .shop import Db, Item, Note, app, engine, rows, save

FUNCTION = """CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO notes (text) VALUES (OLD.amount); RETURN NEW; END $$"""
TRIGGER = "CREATE TRIGGER note AFTER UPDATE ON items FOR EACH ROW EXECUTE FUNCTION note()"
event.listen(Item.__table__, "after_create", DDL(FUNCTION))
event.listen(Item.__table__, "after_create", DDL(TRIGGER))


async def test_trigger(client, db_session):
    """The database notes old prices."""
    await save(db_session, Item(name="tea", amount=3))
    await client.put("/items/4")
    assert await rows(client, "/notes") == ["3"]


@app.post("/notified/{name}")
async def notify(name: str, db: Db):
    await db.execute(text("SELECT pg_notify('items', :name)"), {"name": name})
    await db.commit()


async def test_listen_and_notify(client):
    """A listener hears of a commit."""
    heard = asyncio.get_running_loop().create_future()
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        await driver.add_listener("items", lambda *words: heard.set_result(words[-1]))
        await client.post("/notified/tea")
        assert await asyncio.wait_for(heard, 5) == "tea"


@app.post("/tenants/{name}")
async def sign_up(name: str, db: Db):
    await db.execute(text(f"CREATE SCHEMA {name}"))
    await db.execute(text(f"CREATE TABLE {name}.letters AS SELECT 'hello' AS body"))
    await db.commit()


async def test_tenants(client, db_session):
    """Each customer gets a schema."""
    await client.post("/tenants/acme")
    assert await db_session.scalar(text("SELECT body FROM acme.letters")) == "hello"


@app.post("/fields/{name}")
async def add_field(name: str, db: Db):
    await db.execute(text(f"ALTER TABLE items ADD COLUMN {name} text DEFAULT 'red'"))
    await db.commit()


async def test_ddl_at_runtime(client, db_session):
    """An admin adds a column."""
    await save(db_session, Item(name="tea"))
    await client.post("/fields/colour")
    assert await db_session.scalar(text("SELECT colour FROM items")) == "red"


@app.delete("/roles/{name}")
async def remove(name: str, user: str, db: Db):
    if await db.scalar(select(Note).where(Note.text == f"{user} is admin")) is None:
        raise HTTPException(403)
    await db.execute(delete(Item).where(Item.name == name))
    await db.commit()


async def test_roles(client, db_session):
    """Only an admin deletes."""
    await save(db_session, Item(name="tea"), Item(name="cup"), Note(text="ann is admin"))
    await client.delete("/roles/cup?user=bob")
    await client.delete("/roles/tea?user=ann")
    assert await rows(client) == {"cup": 0}
