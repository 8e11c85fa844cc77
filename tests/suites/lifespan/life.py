"""The async app with a lifespan: it makes the first order where there is none, and has workers."""

import asyncio
from contextlib import asynccontextmanager
from contextvars import ContextVar

import async_app
from async_app import items, maker
from fastapi import FastAPI
from models import Order

STARTS = []
user = ContextVar("user", default="nobody")


async def write(item):
    await asyncio.sleep(0.02)
    async with maker.begin() as session:
        session.add(Order(item=item))


async def work(queue):
    while True:
        item, answer = await queue.get()
        await write(item)
        answer.set_result(item)


@asynccontextmanager
async def lifespan(app):
    STARTS.append("up")
    async with maker.begin() as session:
        if not await items(session):
            session.add(Order(item="start-up"))
    app.state.queue = asyncio.Queue()
    app.state.lock = asyncio.Lock()
    async with asyncio.TaskGroup() as group:
        app.state.group = group
        worker = group.create_task(work(app.state.queue))
        yield
        worker.cancel()
    STARTS.append("down")


app = FastAPI(lifespan=lifespan)
app.include_router(async_app.router)


@app.post("/worker/{item}")
async def by_worker(item: str):
    answer = asyncio.get_running_loop().create_future()
    app.state.queue.put_nowait((item, answer))
    return await asyncio.wait_for(answer, 20)


@app.post("/locked/{item}")
async def by_lock(item: str):
    async with app.state.lock:
        await write(item)


@app.post("/group/{item}")
async def by_group(item: str):
    app.state.group.create_task(write(item))


@app.post("/user/{name}")
async def set_user(name: str):
    before = user.get()
    user.set(name)
    return before


@app.get("/state")
async def state():
    return getattr(app.state, "fake", None)
