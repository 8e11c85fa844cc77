"""Work that a request began, and that fails after the answer, is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.example import Example

APP = """

import asyncio
from fastapi import BackgroundTasks

tasks = set()


def fails():
    raise LookupError("no such mail")


async def fails_later():
    await asyncio.sleep(0.01)
    fails()


@app.post("/task", status_code=202)
async def task():
    task = asyncio.create_task(fails_later())
    tasks.add(task)
    task.add_done_callback(tasks.discard)


@app.post("/background", status_code=202)
async def background(tasks: BackgroundTasks):
    tasks.add_task(fails)


@app.post("/retrieved", status_code=202)
async def retrieved():
    await asyncio.gather(asyncio.create_task(fails_later()), return_exceptions=True)
"""

TESTS = """
import pytest
from fastapi.testclient import TestClient
from httpx2 import ASGITransport, AsyncClient
from app import app


async def test_task(client):
    assert (await client.post("/task")).status_code == 202


def test_sync(test_client):
    assert test_client.post("/task").status_code == 202


async def test_background():
    transport = ASGITransport(app, raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.post("/background")).status_code == 202


def test_server(live_server):
    assert live_server.client().post("/background").status_code == 202


async def test_expected(client):
    with pytest.raises(LookupError):
        await client.post("/background")


async def test_retrieved(client):
    assert (await client.post("/retrieved")).status_code == 202


def test_raised_by_an_own_client():
    with pytest.raises(LookupError):
        TestClient(app).post("/background")


def test_raised_in_a_block():
    with TestClient(app) as client, pytest.raises(LookupError):
        client.post("/background")


def test_own_client():
    client = TestClient(app, raise_server_exceptions=False)
    assert client.post("/background").status_code == 202
"""

RED = """

async def test_red(client, arena):
    await client.post("/task")
    await arena.settled()
    assert 0
"""
FAILED = "work that a request had begun failed after the answer:"
ERROR = "LookupError: no such mail (app.py:"


def test_work_that_fails_after_the_answer_is_named(example: Example) -> None:
    """Under -q too, and in the report of a failed test. No error that somebody handled."""
    project = example.with_files(test_it=TESTS + RED, app=example.files["app.py"] + APP)
    run = project.run("-q", "-p", "no:randomly").expect(1, passed=9, failed=1)
    run.warns(f"{FAILED} {ERROR}", "test_task", "test_sync")
    run.says("in POST /background", f"failed after the answer {ERROR}")
    run.says("::test_background", "::test_server", "::test_own_client")
    run.never_says("::test_expected", "::test_retrieved", "::test_raised_by", "::test_raised_in")
