"""An app whose oldest engines cannot write, or have no transactions."""

import os
from contextlib import asynccontextmanager

from fastapi import FastAPI
from models import Order, sync_url
from sqlalchemy import create_engine, event, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

URL = os.environ["DATABASE_URL"]
READ_ONLY = {
    "sqlite": "PRAGMA query_only = ON",
    "postgresql": "SET default_transaction_read_only = on",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
}
command = create_engine(sync_url(URL))  # of a command of the app
replica = create_async_engine(URL)
maintenance = create_async_engine(URL, isolation_level="AUTOCOMMIT")
engine = create_async_engine(URL)


@event.listens_for(replica.sync_engine, "connect")
@event.listens_for(command, "connect")
def only_read(connection, _):
    cursor = connection.cursor()
    cursor.execute(READ_ONLY[replica.dialect.name])
    cursor.close()
    connection.commit()


def note(connection, entry):
    entry.info["is_of_lifespan"] = True


@asynccontextmanager
async def lifespan(app):
    event.listen(engine.sync_engine, "connect", note)
    yield
    event.remove(engine.sync_engine, "connect", note)


app = FastAPI(lifespan=lifespan)


@app.get("/orders")
async def orders() -> list[str]:
    async with AsyncSession(replica) as session:
        return list(await session.scalars(select(Order.item)))
