"""Apps with several requests at once."""

import asyncio

from fastapi import HTTPException
from fastapi.responses import StreamingResponse
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from .shop import Db, Item, Note, app, green_and_red, maker, posts, rows, save


@app.post("/chairs/{locks}")
async def buy(locks: bool, db: Db):
    chair = (await db.scalars(select(Item).with_for_update() if locks else select(Item))).one()
    if chair.amount < 1:
        raise HTTPException(409)
    chair.amount -= 1
    await db.commit()


@green_and_red("locks", good=True, bad=False)
async def test_select_for_update(client, db_session, locks):
    """One of two buyers gets the last chair. Bug: no lock."""
    for number in range(20):
        await db_session.execute(text("DELETE FROM items"))
        await save(db_session, Item(name=f"{number}", amount=1))
        assert await posts(client, *[f"/chairs/{locks}"] * 2) == [200, 409]


@app.post("/seats/{seat}")
async def book(seat: str, db: Db):
    if await db.scalar(select(Note).where(Note.text == seat)):
        raise HTTPException(409)
    db.add(Note(text=seat))
    await db.commit()


@green_and_red("is_at_once", good=False, bad=True)
async def test_double_booking(client, is_at_once):
    """One booking after the other. Bug: two at once."""
    for seat in range(20):
        if not is_at_once:
            await client.post(f"/seats/{seat}")
        codes = await posts(client, *[f"/seats/{seat}"] * (1 + is_at_once))
        assert codes.count(409) == 1


@app.post("/views/{adds}")
async def view(adds: bool, db: Db):
    page = (await db.scalars(select(Item))).one()
    page.amount = Item.amount + 1 if adds else page.amount + 1
    await db.commit()


@green_and_red("adds", good=True, bad=False)
async def test_counter(client, db_session, adds):
    """Two views at once are two. Bug: the sum is made in Python."""
    await save(db_session, Item(name="home"))
    for _ in range(20):
        await posts(client, *[f"/views/{adds}"] * 2)
    assert await rows(client) == {"home": 40}


async def take(session):
    job = select(Item).order_by(Item.id).limit(1).with_for_update(skip_locked=True)
    return (await session.scalars(job)).one()


async def test_skip_locked(client, db_session):
    """Two workers take two jobs."""
    await save(db_session, Item(name="a"), Item(name="b"))
    async with maker.begin() as first, maker.begin() as second:
        assert [(await take(each)).name for each in (first, second)] == ["a", "b"]


@app.post("/serializable")
async def serializable():
    for _ in range(9):
        try:
            async with maker.begin() as session:
                await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
                (await session.scalars(select(Item))).one().amount += 1
        except DBAPIError as error:
            if "serialize" not in str(error):
                raise
        else:
            return


async def test_retry(client, db_session):
    """A serializable transaction runs again after a conflict."""
    await save(db_session, Item(name="home"))
    await posts(client, *["/serializable"] * 4)
    assert await rows(client) == {"home": 4}


@app.post("/reports")
async def report(db: Db):
    if not await db.scalar(text("SELECT pg_try_advisory_xact_lock(1)")):
        raise HTTPException(423)
    await asyncio.sleep(0.5)


async def test_advisory_lock(client):
    """A second report at once is refused."""
    assert await posts(client, "/reports", "/reports") == [200, 423]


async def test_idempotency_key(client):
    """A payment that is sent twice at once is made once."""
    assert await posts(client, "/items/key", "/items/key") == [201, 409]
    assert await rows(client) == {"key": 0}


@app.get("/events")
async def stream():
    async def events():
        seen = 0
        while seen < 2:
            async with maker() as session:
                for name in await session.scalars(select(Item.name).offset(seen)):
                    seen += 1
                    yield f"{name} "
            await asyncio.sleep(0.01)

    return StreamingResponse(events())


async def test_stream(client, db_session):
    """Rows arrive while the stream is open."""
    reading = asyncio.create_task(client.get("/events"))
    for name in ("a", "b"):
        await save(db_session, Item(name=name))
        await asyncio.sleep(0.05)
    assert (await asyncio.wait_for(reading, 10)).text == "a b "
