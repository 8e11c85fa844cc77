"""The async app, with a sale that reads, decides and writes, without a lock and with one."""

from async_app import app, engine, get_db
from fastapi import Depends, HTTPException
from models import Stock
from sqlalchemy import event, text

STEPS = [[]]  # for each turn: the verbs of the sales' statements, at their begin and at their end


async def sell(db, **lock):
    chair = await db.get(Stock, "chair", **lock)
    if chair.amount < 1:
        raise HTTPException(409)
    chair.amount -= 1
    await db.commit()


@event.listens_for(engine.sync_engine, "before_cursor_execute")
@event.listens_for(engine.sync_engine, "after_cursor_execute")
def note(_connection, _cursor, statement, *_):
    if "stock" in statement:
        STEPS[-1].append(statement[:6])


@app.post("/unlocked")
async def unlocked(reads: int = 0, db=Depends(get_db)):
    for _ in range(reads):  # a login reads first
        await db.execute(text("SELECT 1"))
    await sell(db)


@app.post("/locked")
async def locked(db=Depends(get_db)):
    await sell(db, with_for_update=True)
