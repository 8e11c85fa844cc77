"""A FastAPI app as its documentation writes it: a global engine, a session for each request."""

import asyncio
import os

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.responses import RedirectResponse
from models import Order, Stock, Visit
from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"], pool_pre_ping=os.getenv("PINGS") == "True")
maker = async_sessionmaker(engine, expire_on_commit=False)
router = APIRouter()
TOKEN = "s3" + "cret"  # no report may show it


async def get_db():
    async with maker() as session:
        yield session


async def items(session):
    return list(await session.scalars(select(Order.item).order_by(Order.id)))


@router.get("/orders")
async def orders(db=Depends(get_db)):
    return await items(db)


@router.post("/orders/{item}", status_code=201)
async def order(item: str, db=Depends(get_db)):
    stock = await db.get(Stock, item)
    if stock is None:
        raise HTTPException(404)
    stock.amount -= 1
    db.add(Order(item=item, api_token=TOKEN))
    await db.commit()


@router.delete("/orders/{number}", status_code=204)
async def cancel(number: int, db=Depends(get_db)):
    await db.delete(await db.get(Order, number))
    await db.commit()


@router.post("/settle/{number}")
async def settle(number: int, db=Depends(get_db)):
    (await db.get(Order, number)).status = "paid"
    await db.commit()


@router.post("/forgets/{item}")
async def forgets(item: str, db=Depends(get_db)):
    db.add(Order(item=item))
    await db.flush()


@router.post("/old/{item}")
async def old(item: str):
    return RedirectResponse(f"/orders/{item}", 307)


@router.post("/breaks")
async def breaks(db=Depends(get_db)):
    db.add(Visit(path="/breaks"))
    await db.commit()
    raise LookupError("no such thing") from ValueError("never raised")


async def add_later(item):
    await asyncio.sleep(0.02)
    async with maker.begin() as session:
        session.add(Order(item=item))


TASKS = set()


@router.post("/later/{item}", status_code=202)
async def later(item: str):
    TASKS.add(asyncio.create_task(add_later(item)))


@router.get("/each")
async def each(db=Depends(get_db)):
    numbers = list(await db.scalars(select(Order.id)))
    return [await db.scalar(select(Order.item).where(Order.id == one)) for one in numbers]


@router.post("/login/{name}")
async def login(name: str, response: Response):
    response.set_cookie("user", name)


@router.get("/me")
async def me(request: Request):
    return [request.cookies.get("user"), request.headers.get("authorization")]


@router.websocket("/orders")
async def socket(socket: WebSocket):
    await socket.accept()
    async with maker() as session:
        await socket.send_json(await items(session))
    await socket.close()


def create_app():
    app = FastAPI()
    app.include_router(router)
    return app


app = create_app()
