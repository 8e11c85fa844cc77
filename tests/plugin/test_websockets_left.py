"""A handler of a websocket that still works when a sync test client leaves its block."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

APP = """
import asyncio
import os

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_async_engine(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///prod.db"))
maker = async_sessionmaker(engine)
app = FastAPI()


class Base(DeclarativeBase):
    pass


class Vote(Base):
    __tablename__ = "votes"
    id: Mapped[int] = mapped_column(primary_key=True)


async def vote():
    async with maker.begin() as session:
        session.add(Vote())
        await session.flush()
        await asyncio.sleep(0)


@app.websocket("/votes")
async def votes(websocket: WebSocket):
    await websocket.accept()
    await websocket.receive_text()
    await vote()


@app.websocket("/last")
async def last(websocket: WebSocket):
    await websocket.accept()
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        await vote()


@app.websocket("/ticks")
async def ticks(websocket: WebSocket):
    await websocket.accept()
    try:
        while True:
            await websocket.send_text("tick")
            await asyncio.sleep(0)
    except WebSocketDisconnect:
        await vote()


@app.websocket("/broken")
async def broken(websocket: WebSocket):
    await websocket.accept()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    raise ValueError("broken")


@app.websocket("/relay")
async def relay(websocket: WebSocket):
    await websocket.accept()
    await asyncio.Event().wait()
"""
TESTS = """
import pytest
from app import Vote, app
from fastapi.testclient import TestClient
from sqlalchemy import select


@pytest.fixture(params=["ours", "own"])
def any_client(request):
    if request.param == "own":
        return TestClient(app)
    return request.getfixturevalue("test_client")


@pytest.mark.parametrize("path", ["votes", "last", "ticks"])
def test_ends(any_client, path, db_session):
    with any_client.websocket_connect(f"/{path}") as websocket:
        websocket.send_text("Sand")
    assert len(db_session.scalars(select(Vote)).all()) == 1


def test_raises(any_client):
    with pytest.raises(ValueError, match="broken"):
        with any_client.websocket_connect("/broken"):
            pass


def test_relay(any_client):
    with any_client.websocket_connect("/relay"):
        pass


def test_relay_again(test_client):
    with test_client.websocket_connect("/relay"):
        pass
"""


@pytest.mark.slow
def test_the_handler_of_a_websocket_ends_before_its_block_or_is_named(example: Example) -> None:
    """As on a server. Starlette's test client cancels it in the middle of its work."""
    project = example.change("pytest.ini", "arena_seed = seed:seed\n", "")
    run = project.with_files(app=APP, test_it=TESTS).run("-q").expect(passed=11)
    run.warns("await asyncio.Event().wait()   WEBSOCKET /relay: its client had left")
    assert len(re.findall("^test_it.py::test_relay", run.output, re.MULTILINE)) == 3
