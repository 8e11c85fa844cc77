"""Apps whose commit is not the last line of an endpoint."""

from typing import Annotated

from fastapi import BackgroundTasks, Depends, HTTPException, Request, Response
from sqlalchemy import UniqueConstraint, delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped

from .shop import Base, Db, Item, Note, app, green_and_red, maker, rows, save


class UnitOfWork:
    async def __aenter__(self):
        self.session = maker()
        return self.session

    async def __aexit__(self, *error):
        await self.session.rollback()
        await self.session.close()


@app.post("/units/{commits}")
async def work(commits: bool):
    async with UnitOfWork() as session:
        session.add(Item(name="tea"))
        await session.flush()
        if commits:
            await session.commit()


@green_and_red("commits", good=True, bad=False)
async def test_unit_of_work(client, commits):
    """Bug: the commit is forgotten."""
    await client.post(f"/units/{commits}")
    assert await rows(client) == {"tea": 0}


@app.post("/transfers")
async def transfer(db: Db):
    ann, bob = await db.scalars(select(Item).order_by(Item.id))
    ann.amount -= 4
    await db.commit()
    if bob.name == "blocked":
        raise HTTPException(409)
    bob.amount += 4
    await db.commit()


@green_and_red("name", "bob", "blocked")
async def test_commit_in_the_middle(client, db_session, name):
    """Bug: a transfer fails after the first of two commits."""
    await save(db_session, Item(name="ann", amount=9), Item(name=name))
    await client.post("/transfers")
    assert sum((await rows(client)).values()) == 9


async def get_transaction():
    async with maker.begin() as session:
        yield session


@app.post("/yields/{status}")
async def order(status: int, db: Annotated[AsyncSession, Depends(get_transaction)]):
    db.add(Item(name=f"{status}"))
    if status != 200:
        raise HTTPException(status)


async def test_dependency_that_commits(client):
    """A dependency with `yield` commits after the answer, not after an error."""
    await client.post("/yields/200")
    await client.post("/yields/422")
    assert await rows(client) == {"200": 0}


@app.middleware("http")
async def session_of_the_request(request: Request, call_next):
    async with maker() as request.state.db:
        response = await call_next(request)
        if response.status_code < 400:
            await request.state.db.commit()
    return response


@app.post("/middle/{status}")
async def middle(status: int, request: Request):
    request.state.db.add(Item(name=f"{status}"))
    await request.state.db.flush()
    return Response(status_code=status)


async def test_middleware_session(client):
    """A middleware commits if the answer is good."""
    await client.post("/middle/200")
    await client.post("/middle/422")
    assert await rows(client) == {"200": 0}


@app.post("/login")
async def login(db: Db):
    db.add(Item(name="session of ann"))
    await db.flush()
    async with maker.begin() as log:
        log.add(Note(text="failed: ann"))
    await db.rollback()


async def test_failed_login(client):
    """A second session notes it. The request's session is rolled back."""
    await client.post("/login")
    assert await rows(client) == {}
    assert await rows(client, "/notes") == ["failed: ann"]


class Place(Base):
    __tablename__ = "places"
    number: Mapped[int]
    __table_args__ = (UniqueConstraint("number", deferrable=True, initially="DEFERRED"),)


@app.put("/places")
async def put(numbers: list[int], db: Db):
    places = await db.scalars(select(Place).order_by(Place.id))
    for place, number in zip(places, numbers, strict=True):
        place.number = number
    await db.commit()


@green_and_red("numbers", [2, 1], [1, 1], "IntegrityError")
async def test_deferred_constraint(client, db_session, numbers):
    """Two places swap. Bug: a duplicate, which fails at the commit."""
    await save(db_session, Place(number=1), Place(number=2))
    assert (await client.put("/places", json=numbers)).status_code == 200


async def deliver():
    async with maker.begin() as session:
        (await session.scalars(select(Item))).one().amount = 1


@app.post("/mails")
async def send(db: Db, tasks: BackgroundTasks):
    db.add(Item(name="mail"))
    await db.commit()
    tasks.add_task(deliver)


async def test_background_task(client):
    """A task after the answer has a separate session."""
    await client.post("/mails")
    assert await rows(client) == {"mail": 1}


SENT = []


@app.post("/outbox")
async def relay():
    async with maker.begin() as session:
        SENT.extend(await session.scalars(delete(Note).returning(Note.text)))


async def test_outbox(client, db_session):
    """A relay sends each event once."""
    SENT.clear()
    await save(db_session, Note(text="ordered tea"))
    for _ in range(2):
        await client.post("/outbox")
    assert SENT == ["ordered tea"]
