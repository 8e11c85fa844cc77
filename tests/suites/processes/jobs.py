"""What other processes do with the shop."""

import asyncio
import os
import sys

from models import Order, sync_url
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"])
maker = async_sessionmaker(engine)
INSERT = text("INSERT INTO orders (item, status) VALUES ('vase', 'new')")
os.environ.setdefault("SYNC_URL", sync_url(os.environ["DATABASE_URL"]))


def add():
    async def main():
        async with maker.begin() as session:
            session.add(Order(item="vase"))
        await engine.dispose()

    asyncio.run(main())


def add_by_url(url):
    made = create_engine(sync_url(url))
    with made.begin() as connection:
        connection.execute(INSERT)
    made.dispose()


def items_by_url(url):
    made = create_engine(sync_url(url))
    with made.connect() as connection:
        found = connection.scalars(text("SELECT item FROM orders")).all()
    made.dispose()
    return found


if __name__ == "__main__":
    for line in sys.stdin:
        name, url = line.split()
        print(globals()[name](url), flush=True)
