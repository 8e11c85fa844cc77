"""Streams of events as libraries send them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

REASON = "sse-starlette is not installed: `make test-full` has it, in an environment of its own"
pytestmark = pytest.mark.skipif(find_spec("sse_starlette") is None, reason=REASON)

STREAM = """
from sse_starlette.sse import EventSourceResponse
from app import app

@app.get("/events")
async def events():
    async def send():
        yield {"data": "done"}
    return EventSourceResponse(send())
"""

TESTS = """
import streams

async def test_stream(client):
    assert "data: done" in (await client.get("/events")).text

async def test_settled(client, arena):
    await client.get("/events")
    await arena.settled()
"""


def test_the_task_that_waits_for_the_servers_shutdown_is_no_work(example: Example) -> None:
    """A request begins it for the whole loop, and it never ends by itself."""
    project = example.with_files(streams=STREAM, test_it=TESTS)
    run = project.run("-Werror::pytest_arena.LateWorkWarning").expect(passed=2)
    run.never_says("was cut off")
