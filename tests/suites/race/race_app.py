"""The async app, with a sale that reads, decides and writes, without a lock and with one."""

from async_app import app, get_db
from fastapi import Depends, HTTPException
from models import Stock

READS = []  # the begin and the end of each read


async def sell(db, **lock):
    READS.append("begin")
    chair = await db.get(Stock, "chair", **lock)
    READS.append("end")
    if chair.amount < 1:
        raise HTTPException(409)
    chair.amount -= 1
    await db.commit()


@app.post("/unlocked")
async def unlocked(db=Depends(get_db)):
    await sell(db)


@app.post("/locked")
async def locked(db=Depends(get_db)):
    await sell(db, with_for_update=True)
