"""A worker that knows nothing of pytest-arena: it ships paid orders."""

import asyncio

from jobs import maker
from models import Order
from sqlalchemy import update


async def work():
    print("ready", flush=True)
    while True:
        async with maker.begin() as session:
            paid = update(Order).where(Order.status == "paid").values(status="shipped")
            count = (await session.execute(paid)).rowcount
        if count:
            print("shipped", flush=True)
        await asyncio.sleep(0.01)


asyncio.run(work())
