"""Apps with other sessions than an async one for each request."""

from collections import Counter

import pytest
from fastapi import HTTPException
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column, scoped_session
from sqlalchemy.orm.exc import StaleDataError

from .shop import Base, Db, Item, app, engine, green_and_red, rows, save, sync_maker


@app.get("/sync")
def read():
    with sync_maker() as session:
        return list(session.scalars(select(Item.name).order_by(Item.name)))


def test_sync_endpoint(test_client, db_session):
    """A `def` with a sync session."""
    db_session.add(Item(name="cup"))
    db_session.commit()
    assert test_client.get("/sync").json() == ["cup"]


Scoped = scoped_session(sync_maker)


@app.post("/scoped/{name}")
def add_scoped(name: str):
    Scoped.add(Item(name=name))
    Scoped.commit()
    Scoped.remove()


def test_scoped_session(test_client):
    """One session for each thread."""
    test_client.post("/scoped/tea")
    assert test_client.get("/sync").json() == ["tea"]


session = sync_maker()


@app.post("/global/{rolls_back}")
def add_globally(rolls_back: bool):
    session.add(Item(name="tea"))
    try:
        session.commit()
    except IntegrityError:
        if rolls_back:
            session.rollback()


@green_and_red("rolls_back", good=True, bad=False, error="PendingRollbackError")
def test_global_session(test_client, rolls_back):
    """Bug: no rollback after an error, so the next request fails."""
    session.rollback()
    for _ in range(3):
        test_client.post(f"/global/{rolls_back}")
    assert test_client.get("/sync").json() == ["tea"]


@app.post("/core/{name}")
async def add_by_core(name: str):
    async with engine.begin() as connection:
        await connection.execute(insert(Item).values(name=name, amount=1))


async def test_core_only(client, db_session):
    """The endpoint takes a connection of the engine."""
    await save(db_session, Item(name="cup"))
    await client.post("/core/tea")
    assert await rows(client) == {"cup": 0, "tea": 1}


class Document(Base):
    __tablename__ = "documents"
    text: Mapped[str]
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}


@app.put("/documents/{number}")
async def write(number: int, db: Db):
    (await db.get_one(Document, number)).text = "new"
    await db.commit()


async def test_optimistic_lock(client, db_session):
    """The slower of two editors gets an error."""
    document = Document(text="old")
    await save(db_session, document)
    await client.put(f"/documents/{document.id}")
    document.text = "mine"
    with pytest.raises(StaleDataError):
        await db_session.commit()


REQUESTS = Counter()


@app.get("/limited/{user}")
async def limited(user: str):
    REQUESTS[user] += 1
    if REQUESTS[user] > 1:
        raise HTTPException(429)


async def test_counter_in_a_module(client):
    """A rate limit in the process's memory."""
    assert (await client.get("/limited/ann")).status_code == 200
