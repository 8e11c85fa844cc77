"""The orders of ``async_app``, served by each framework."""

import asyncio
import threading

from async_app import create_app, items, maker
from fastapi import BackgroundTasks, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from flask import Flask
from litestar import Litestar, get
from models import Order
from starlette.middleware.cors import CORSMiddleware

fast = create_app()
CLOSED = []
LOOPS = []
BEGUN = threading.Event()


@fast.get("/events/{name}")
async def events(name: str):
    async def endless():
        try:
            while True:
                async with maker.begin() as session:
                    session.add(Order(item=name))
                yield "data: one\n\n"
                await asyncio.sleep(0)
        finally:
            CLOSED.append(name)

    return StreamingResponse(endless(), media_type="text/event-stream")


@fast.get("/fast")
async def parts():
    async def endless():
        while True:
            yield "part"

    return StreamingResponse(endless())


@fast.websocket("/names")
async def names(socket: WebSocket):
    await socket.accept()
    async with maker() as session:
        while True:
            await socket.send_json(await items(session))


@fast.post("/ends-in/{seconds}")
async def slow(seconds: float):
    BEGUN.set()
    await asyncio.sleep(seconds)
    async with maker.begin() as session:
        session.add(Order(item="slow"))


WORKED = []


async def work():
    await asyncio.sleep(0.01)
    WORKED.append(True)


@fast.post("/works")
async def works(tasks: BackgroundTasks):
    tasks.add_task(work)


@fast.get("/waits")
async def waits():
    try:
        await asyncio.sleep(60)
    finally:
        CLOSED.append("waits")


@fast.get("/fails")
async def fails():
    async def two():
        yield "one;"
        await asyncio.sleep(0)
        raise LookupError("no third part")

    return StreamingResponse(two())


mounting = FastAPI()
mounting.mount("/v1", fast)
wrapped = CORSMiddleware(fast, allow_origins=["*"])


async def read():
    async with maker() as session:
        return await items(session)


@get("/orders")
async def orders() -> list[str]:
    LOOPS.append(asyncio.get_running_loop())
    return await read()


lite = Litestar([orders], logging_config=None)
flask = Flask("shop")


@flask.get("/orders")
def orders_of_flask():
    return asyncio.run(read())


@flask.get("/lines")
def lines_of_flask():
    return (f"{item}\n" for item in asyncio.run(read()))
