"""The async app, with requests that go on after their answer."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from async_app import TASKS, app, maker
from fastapi import BackgroundTasks
from fastapi.responses import StreamingResponse
from models import Order, sync_url
from sqlalchemy import create_engine, insert

sync_engine = create_engine(sync_url(os.environ["DATABASE_URL"]))
POOL = ThreadPoolExecutor(1)
GATE = threading.Event()  # a test opens it for the work of an earlier one
ENDS = []
BEGUN = threading.Event()
STOP = threading.Event()


def add():
    with sync_engine.begin() as connection:
        connection.execute(insert(Order).values(item="late", status="new"))


def add_without_an_engine():
    dialect = sync_engine.dialect
    args, kwargs = dialect.create_connect_args(sync_engine.url)
    connection = dialect.import_dbapi().connect(*args, **kwargs)
    connection.cursor().execute("INSERT INTO orders (item, status) VALUES ('late', 'new')")
    connection.commit()
    connection.close()


def add_after_the_gate(add=add):
    GATE.wait(30)
    try:
        add()
    except Exception as error:
        ENDS.append(type(error).__name__)
    else:
        ENDS.append("written")


async def add_async():
    await asyncio.sleep(0.02)
    async with maker.begin() as session:
        session.add(Order(item="late"))


async def add_in_another_task():
    await asyncio.sleep(0.02)
    TASKS.add(asyncio.create_task(add_async()))


def in_a_task():
    TASKS.add(asyncio.create_task(add_in_another_task()))


def in_a_thread(target=add):
    thread = threading.Thread(target=target, daemon=True)
    TASKS.add(thread)
    thread.start()


def in_a_loop():
    threading.Thread(target=asyncio.run, args=[add_async()]).start()


def in_the_executor():
    asyncio.get_running_loop().run_in_executor(None, add)


def in_a_pool(target=add):
    POOL.submit(target)


def in_a_timer(target=add):
    threading.Timer(0.02, target).start()


WAYS = {
    "task": in_a_task,
    "thread": in_a_thread,
    "loop": in_a_loop,
    "executor": in_the_executor,
    "pool": in_a_pool,
    "timer": in_a_timer,
}


@app.post("/begin/{way}", status_code=202)
async def begin(way: str):
    WAYS[way]()


@app.post("/leave/{way}", status_code=202)
async def leave(way: str):
    WAYS[way](add_after_the_gate)


@app.post("/background", status_code=202)
async def background(tasks: BackgroundTasks):
    tasks.add_task(add_async)


async def parts():
    producer = asyncio.create_task(asyncio.Event().wait())  # never set
    try:
        yield "first"
        await producer
    finally:
        producer.cancel()


@app.get("/stream")
async def stream():
    return StreamingResponse(parts())


@app.get("/stubborn")
async def stubborn():
    BEGUN.set()
    while not STOP.is_set():
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)


@app.post("/endless", status_code=202)
async def endless():
    TASKS.add(asyncio.create_task(asyncio.Event().wait()))  # never set
