"""A request has a copy of the context: the next request does not see its context variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.example import Example

APP = """
import asyncio
from contextvars import ContextVar

import anyio
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]


engine = create_async_engine("sqlite+aiosqlite:///shop.db")
tenant = ContextVar("tenant", default=None)
of_test = ContextVar("of_test", default=None)
app = FastAPI()


@app.middleware("http")
async def with_tenant(request: Request, call_next):
    if "x-tenant" in request.headers:
        tenant.set(request.headers["x-tenant"])
    return await call_next(request)


class WithToken:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        tenant.set("pure" if (b"x-pure", b"1") in scope.get("headers", ()) else tenant.get())
        token = of_test.set(of_test.get())
        await self.app(scope, receive, send)
        of_test.reset(token)


app.add_middleware(WithToken)


@app.get("/tenant")
async def get_tenant():
    return [tenant.get(), of_test.get()]


@app.post("/items")
async def create():
    async with AsyncSession(engine) as session:
        session.add(Item(name=tenant.get()))
        await session.commit()
        return (await session.scalars(select(Item.name))).all()


@app.get("/stream")
async def stream():
    async def parts():
        for _ in range(3):
            await anyio.sleep(0)
            yield str(tenant.get())

    return StreamingResponse(parts())


@app.get("/fails")
async def fails():
    await asyncio.sleep(0)
    raise LookupError(tenant.get())


@app.get("/waits")
async def waits():
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(asyncio.sleep, 0)
            app.state.waiting.set()
            await asyncio.sleep(3600)
    finally:
        of_test.set("cancelled")


@app.get("/late")
async def late():
    async def work():
        await create()

    app.state.task = asyncio.create_task(work())
"""

TEST = """
import asyncio
import httpx
import pytest
from app import app, of_test, tenant

HEADERS = [{"x-tenant": "blue"}, {"x-pure": "1"}]
NAMES = ["blue", "pure"]


@pytest.fixture(params=["ours", "own"])
async def asked(request, client):
    if request.param == "ours":
        yield client
    else:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://own") as own:
            yield own


@pytest.mark.parametrize("headers, name", list(zip(HEADERS, NAMES)))
async def test_a_value_ends_with_its_request(asked, headers, name):
    of_test.set("test")
    assert (await asked.get("/tenant", headers=headers)).json() == [name, "test"]
    assert (await asked.get("/tenant")).json() == [None, "test"]
    assert tenant.get() is None


async def test_requests_are_attributed(asked, arena):
    first = await asked.post("/items", headers=HEADERS[0])
    assert first.json() == ["blue"]
    assert arena.changes(first).tables == ("items",)
    assert (await asked.post("/items")).json() == ["blue", None]


async def test_a_stream(client):
    async with client.stream("GET", "/stream", headers=HEADERS[0]) as response:
        assert await response.aread() == b"blueblueblue"
    assert (await client.get("/stream")).text == "NoneNoneNone"


async def test_an_error_has_the_line_of_the_app(asked):
    with pytest.raises(LookupError, match="blue") as raised:
        await asked.get("/fails", headers=HEADERS[0])
    assert raised.traceback[-1].name == "fails"


async def test_a_cancelled_request(asked):
    app.state.waiting = asyncio.Event()
    task = asyncio.create_task(asked.get("/waits"))
    await app.state.waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asked.get("/waits")
    assert of_test.get() is None


async def test_late_work(asked, arena):
    await asked.get("/late", headers=HEADERS[0])
    await arena.settled()
    assert (await asked.post("/items")).json() == ["blue", None]
"""


def test_a_request_has_a_copy_of_the_context(example: Example) -> None:
    """With exceptions, cancellation, streams, late work and the attribution of writes."""
    project = example.with_files(app=APP, test_it=TEST)
    project = project.change("pytest.ini", "arena_seed = seed:seed\n", "")
    project.run("--tb=short").expect(passed=13)
