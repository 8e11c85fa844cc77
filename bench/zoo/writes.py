"""Apps that write rows, as most requests do."""

from datetime import datetime

from sqlalchemy import Sequence, event, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from .shop import Base, Db, Item, Note, app, rows, save


@app.post("/upsert/{amount}")
async def upsert(amount: int, db: Db):
    row = insert(Item).values(name="tea", amount=amount)
    await db.execute(row.on_conflict_do_update(index_elements=["name"], set_={"amount": amount}))
    await db.commit()


async def test_upsert(client):
    """The second price of a name replaces the first."""
    await client.post("/upsert/1")
    await client.post("/upsert/2")
    assert await rows(client) == {"tea": 2}


@app.delete("/notes/{number}")
async def soft_delete(number: int, db: Db):
    (await db.get_one(Note, number)).deleted_at = func.now()
    await db.commit()


async def test_soft_delete(client, db_session):
    """A deleted row stays, with a time."""
    note = Note(text="a")
    await save(db_session, note)
    await client.delete(f"/notes/{note.id}")
    assert await db_session.scalar(select(func.count(Note.deleted_at))) == 1


async def test_integrity_error(client, db_session):
    """A rollback after an IntegrityError leaves the rows of before."""
    await save(db_session, Item(name="ann"))
    assert (await client.post("/items/ann")).status_code == 409
    assert await rows(client) == {"ann": 0}


async def test_ids(client):
    """The first row has number 1, as many tests expect."""
    assert (await client.post("/items/tea")).json() == 1


@app.post("/imports")
async def load(names: list[str], db: Db):
    for name in names:
        try:
            async with db.begin_nested():
                db.add(Item(name=name))
        except IntegrityError:
            db.add(Note(text=f"bad: {name}"))
    await db.commit()


async def test_savepoints(client):
    """An import skips and notes a bad row."""
    await client.post("/imports", json=["a", "b", "a"])
    assert await rows(client) == {"a": 0, "b": 0}
    assert await rows(client, "/notes") == ["bad: a"]


@app.post("/raise/{more}")
async def raise_prices(more: int, db: Db):
    await db.execute(text("UPDATE items SET amount = amount + :more"), {"more": more})
    await db.commit()


async def test_raw_sql(client, db_session):
    """An UPDATE by `text()`."""
    await save(db_session, Item(name="tea", amount=5))
    await client.post("/raise/2")
    assert await rows(client) == {"tea": 7}


@event.listens_for(Session, "before_flush")
def note_changes(session, *_):
    changed = [item for item in session.dirty if isinstance(item, Item)]
    session.add_all([Note(text=f"changed {item.name}") for item in changed])


async def test_audit_log(client, db_session):
    """A listener of the session writes a line for each change."""
    await save(db_session, Item(name="tea"))
    await client.put("/items/4")
    assert await rows(client, "/notes") == ["changed tea"]


numbers = Sequence("invoice_numbers", metadata=Base.metadata)


@app.post("/invoices")
async def invoice(db: Db):
    db.add(Note(text=f"2026-{await db.scalar(numbers)}"))
    await db.commit()


async def test_invoice_numbers(client):
    """A sequence that no table owns."""
    await client.post("/invoices")
    assert await rows(client, "/notes") == ["2026-1"]


@app.get("/news")
async def news(db: Db, before: datetime = datetime.max):
    older = select(Item).where(Item.created_at < before).order_by(Item.created_at.desc())
    return [(item.name, item.created_at) for item in await db.scalars(older.limit(2))]


async def test_pagination(client):
    """Pages by the time of the last row."""
    for name in ("a", "b", "c"):
        await client.post(f"/items/{name}")
    first = await rows(client, "/news")
    second = await rows(client, f"/news?before={first[-1][1]}")
    assert [name for name, _ in first + second] == ["c", "b", "a"]
