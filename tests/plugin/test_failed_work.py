"""Work that a request began, and that fails after the answer, is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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
"""

RED = """

async def test_red(client, arena):
    await client.post("/task")
    await arena.settled()
    assert 0
"""
FAILED = "has ended, and work that a request had begun failed after the answer:"
ERROR = "LookupError: no such mail (app.py:"


def test_work_that_fails_after_the_answer_is_named(example: Example) -> None:
    """Under -q too, and in the report of a failed test. No error that somebody handled."""
    project = example.with_files(test_it=TESTS + RED, app=example.files["app.py"] + APP)
    run = project.run("-q", "-p", "no:randomly").expect(1, passed=6, failed=1)
    run.says(f"test_it.py::test_task {FAILED} {ERROR}", ", also in 1 more: test_it.py::test_sync")
    run.says(f"test_it.py::test_background {FAILED} {ERROR}", "in POST /background, also in 1 more")
    run.says(f"failed after the answer {ERROR}")
    run.never_says(f"test_expected {FAILED}", f"test_retrieved {FAILED}")


@pytest.mark.slow
def test_such_work_fails_its_test_under_arena_late_fail(example: Example) -> None:
    """With the code and the parts of each message."""
    project = example.with_files(test_it=TESTS, app=example.files["app.py"] + APP)
    run = project.run("-oarena_late=fail", "-p", "no:randomly").expect(1, passed=6, errors=4)
    run.says("the client has its answer, and never sees the error", "[A604]")


OWN_CLIENTS = """
import pytest
from fastapi.testclient import TestClient
from app import app


def test_expected():
    with pytest.raises(LookupError):
        TestClient(app).post("/background")


def test_entered():
    with TestClient(app) as client, pytest.raises(LookupError):
        client.post("/background")


def test_not_raised():
    client = TestClient(app, raise_server_exceptions=False)
    assert client.post("/background").status_code == 202
"""


def test_an_error_that_a_suites_own_client_raises_is_seen(example: Example) -> None:
    """Starlette's client raises it where the test reads the answer."""
    project = example.with_files(test_it=OWN_CLIENTS, app=example.files["app.py"] + APP)
    run = project.run("-oarena_late=fail").expect(1, passed=3, errors=1)
    run.says(f"test_it.py::test_not_raised {FAILED[:-1]}")
