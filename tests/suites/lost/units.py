"""An app whose units of work roll back at their end what was not committed."""

from contextlib import asynccontextmanager, suppress

from async_app import engine, maker, router
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse
from models import Order, Stock
from sqlalchemy import insert, update
from sqlalchemy.exc import IntegrityError

shared = maker()


class AbstractUnit:
    async def __aexit__(self, *error):
        await self.rollback()


class Unit(AbstractUnit):
    async def __aenter__(self):
        self.session = maker()
        return self

    async def __aexit__(self, *error):
        await super().__aexit__(*error)
        await self.session.close()

    async def rollback(self):
        await self.session.rollback()


@asynccontextmanager
async def unit_with_finally():
    session = maker()
    try:
        yield session
    finally:
        await session.rollback()
        await session.close()


async def end(session):
    await session.rollback()
    await session.close()


async def get_db():
    async with maker() as session:
        yield session
        await session.rollback()


async def by_a_unit(work):
    async with Unit() as unit:
        return await work(unit.session)


async def by_a_context_manager(work):
    async with unit_with_finally() as session:
        return await work(session)


async def by_finally(work):
    session = maker()
    try:
        return await work(session)
    finally:
        await end(session)


async def by_a_transaction(work):
    async with maker() as session:
        transaction = await session.begin()
        try:
            return await work(session)
        finally:
            if transaction.is_active:
                await transaction.rollback()


async def by_a_savepoint(work):
    async with maker() as session:
        savepoint = await session.begin_nested()
        try:
            return await work(session)
        finally:
            await savepoint.rollback()
            await session.commit()


async def by_an_open_savepoint(work):
    async with maker() as session:
        await session.begin_nested()
        return await work(session)


async def by_a_connection(work):
    async with engine.connect() as connection:
        try:
            return await work(connection)
        finally:
            await connection.rollback()


async def by_a_dropped_session(work):
    return await work(maker())


async def by_one_session(work):
    return await work(shared)


async def flushed(db):
    db.add(Order(item="vase"))
    await db.flush()  # lost


async def added(db):
    db.add(Order(item="vase"))  # lost


async def changed(db):
    (await db.get(Stock, "chair")).amount = 77


async def executed(db):
    await db.execute(insert(Order).values(item="vase", status="new"))  # lost


async def committed(db):
    await executed(db)
    await db.commit()


async def missed(db):
    no_row = update(Stock).where(Stock.item == "sofa").values(amount=1)
    await db.execute(no_row)
    if engine.dialect.name != "mysql":
        await db.execute(no_row.returning(Stock.item))


async def tried(db):
    """Write for a preview, and take it back."""
    await executed(db)
    await db.rollback()


async def raised(db):
    await executed(db)
    raise HTTPException(409)


async def caught(db):
    try:
        await executed(db)
        raise LookupError
    except LookupError:
        await db.rollback()


async def failed(db):
    await executed(db)
    with suppress(IntegrityError):
        await db.execute(insert(Stock).values(item="chair", amount=1))


async def recovered(db):
    await executed(db)
    with suppress(IntegrityError):
        async with db.begin_nested():
            await db.execute(insert(Stock).values(item="chair", amount=1))


app = FastAPI()
app.include_router(router)


@app.post("/work/{way}/{name}/{status}")
async def work(way: str, name: str, status: int):
    await globals()[way](globals()[name])
    return JSONResponse({}, status)


@app.post("/dependency/{name}/{status}")
async def by_a_dependency(name: str, status: int, db=Depends(get_db)):
    await globals()[name](db)
    return JSONResponse({}, status)
