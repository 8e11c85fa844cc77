"""The orders of ``async_app``, served by each framework."""

import asyncio

from async_app import create_app, items, maker
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from flask import Flask
from litestar import Litestar, get
from models import Order
from quart import Quart
from starlette.middleware.cors import CORSMiddleware

fast = create_app()
CLOSED = []


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


mounting = FastAPI()
mounting.mount("/v1", fast)
wrapped = CORSMiddleware(fast, allow_origins=["*"])


async def read():
    async with maker() as session:
        return await items(session)


@get("/orders")
async def orders() -> list[str]:
    return await read()


lite = Litestar([orders], logging_config=None)
quart = Quart("shop")
flask = Flask("shop")


@quart.get("/orders")
async def orders_of_quart():
    return await read()


@flask.get("/orders")
def orders_of_flask():
    return asyncio.run(read())


@flask.get("/lines")
def lines_of_flask():
    found = asyncio.run(read())
    return (f"{item}\n" for item in found)
