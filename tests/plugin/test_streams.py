"""Streams without end and websockets: read in process by either client, closed with the test."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import APP, env_of, shop, stories

if TYPE_CHECKING:
    from tests.example import Example

LIVE = (
    APP
    + """

import asyncio
from fastapi import WebSocket
from fastapi.responses import StreamingResponse

CLOSED = []


@app.get("/events/{item}")
async def events(item: str):
    async def every():
        number = 0
        try:
            while True:
                number += 1
                async with maker.begin() as session:
                    session.add(Order(item=item))
                yield f"data: {number}\\n\\n"
        finally:
            CLOSED.append(item)
    return StreamingResponse(every(), media_type="text/event-stream")


@app.get("/some/{number}")
async def some(number: int, db=Depends(get_db)):
    async def chunks():
        for one in range(number):
            db.add(Order(item=f"chunk {one}"))
            await db.commit()
            yield f"{one},"
    return StreamingResponse(chunks())


@app.websocket("/orders")
async def live(socket: WebSocket, db=Depends(get_db)):
    await socket.accept(subprotocol=(socket.scope["subprotocols"] or [None])[-1])
    async for item in socket.iter_text():
        db.add(Order(item=item))
        await (db.flush() if item == "lost" else db.commit())
        await socket.send_json({"item": item, "role": socket.cookies.get("role")})
"""
)

READ = """
import asyncio
import pytest
from app import CLOSED, Order, maker


async def read(response, number):
    found = []
    async for line in response.aiter_lines():
        if line:
            found.append(line)
        if len(found) == number:
            return found


async def test_events_are_read_as_they_come(client, arena):
    async with client.stream("GET", "/events/chair") as response:
        assert response.status_code == 200
        assert await read(response, 3) == ["data: 1", "data: 2", "data: 3"]
        assert arena.requests[-1].path == "/events/chair"
        assert len(arena.changes(response)["orders"].inserted) >= 3
        assert CLOSED.count("chair") == 0
    assert CLOSED.count("chair") == 1
    assert arena.requests[-1].seconds > 0
    seen = arena.changes(response)
    assert {one.after["item"] for one in seen["orders"]} == {"chair"}
    async with maker.begin() as session:
        session.add(Order(item="by the test"))
    assert arena.changes(response) == seen
    assert len(seen["orders"]) <= 6


async def test_what_is_pending_is_committed_before(client, db_session):
    db_session.add(Order(item="vase"))
    async with client.stream("GET", "/some/2") as response:
        assert await response.aread() == b"0,1,"
    assert (await client.get("/orders")).json() == ["vase", "chunk 0", "chunk 1"]


async def test_a_chunked_answer_is_the_same_as_the_plain_one(client):
    plain = await client.get("/some/3")
    async with client.stream("GET", "/some/3") as response:
        parts = [part async for part in response.aiter_text()]
    assert parts == ["0,", "1,", "2,"]
    assert "".join(parts) == plain.text
    assert response.headers == plain.headers


async def test_a_timeout_around_it_closes_it(client):
    CLOSED.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            async with client.stream("GET", "/events/lamp") as response:
                async for _ in response.aiter_lines():
                    await asyncio.sleep(0)
    assert CLOSED == ["lamp"]


async def test_settled_waits_for_other_work_while_it_is_open(client, arena):
    async with client.stream("GET", "/events/vase") as response:
        await read(response, 1)
        await arena.settled(1)


def test_a_websocket_of_the_sync_client(test_client, arena):
    test_client.cookies.set("role", "mc")
    with test_client.websocket_connect("/orders", subprotocols=["a", "b"]) as socket:
        assert socket.accepted_subprotocol == "b"
        socket.send_text("chair")
        assert socket.receive_json() == {"item": "chair", "role": "mc"}
        assert [one.after["item"] for one in arena.changes(-1)] == ["chair"]
    record = arena.requests[-1]
    test_client.post("/orders/chair")
    assert (record.method, record.status, len(arena.requests)) == ("WEBSOCKET", 101, 2)
    assert [one.after["item"] for one in arena.changes(record)] == ["chair"]


def test_nothing_is_left(db_session):
    assert db_session.query(Order).count() == 0
"""


@pytest.mark.parametrize("how", ["copy", pytest.param("undo", marks=pytest.mark.slow)])
def test_a_test_reads_streams_and_websockets(example: Example, how: str) -> None:
    """What is written by them belongs to their requests, and goes with the test."""
    run = shop(example, test_it=READ).with_files(app=LIVE).run(env=env_of(how))
    run.expect(passed=7).never_says("cut off", "left a task", "has ended")


@pytest.mark.slow
def test_with_the_older_http_library(example: Example) -> None:
    """httpx, where httpx2 is not there."""
    older = "import sys\nsys.modules['httpx2'] = None\n"
    run = shop(example, test_it=READ, conftest=older).with_files(app=LIVE).run()
    run.expect(passed=7)


LEFT = """
import asyncio
import pytest
import pytest_asyncio
from app import app, CLOSED


@pytest_asyncio.fixture
async def events(client):
    async with client.stream("GET", "/events/chair") as response:
        yield response


async def test_a_fixture_has_it_open(events):
    assert events.status_code == 200


@pytest.mark.parametrize("turn", range(2))
async def test_left_stream(client, turn):
    await client.send(client.build_request("GET", "/events/left"), stream=True)


def test_left_stream_by_the_sync_client(test_client):
    test_client.send(test_client.build_request("GET", "/ignores"), stream=True)


@pytest.mark.parametrize("path", ["/ignores", "/stubborn"])
async def test_apps_that_go_on(client, path):
    async with client.stream("GET", path) as response:
        assert await anext(response.aiter_bytes()) == b"x"


async def test_that_fails(client):
    await client.send(client.build_request("GET", "/events/failed"), stream=True)
    assert CLOSED == [], "as wanted"


async def test_all_are_closed(client):
    assert CLOSED.count("left") == 2
    assert {"chair", "failed"} <= {*CLOSED}
    assert (await client.get("/orders")).json() == []
"""

STUBBORN = """

async def deaf(scope, receive, send):
    if scope["path"] not in {"/ignores", "/stubborn"}:
        return await app(scope, receive, send)
    await send({"type": "http.response.start", "status": 200})
    while True:
        try:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        except asyncio.CancelledError:
            if scope["path"] == "/ignores":
                raise
            await asyncio.sleep(60)
"""


@pytest.mark.slow
def test_what_is_open_at_the_end_is_closed_and_named(example: Example) -> None:
    """Once for each line that has left it, under -q as well; not where the test has failed."""
    left = shop(example, test_it=LEFT).with_files(app=LIVE + STUBBORN)
    left = left.change("pytest.ini", "app:app", "app:deaf")
    run = left.run("-q").expect(1, passed=7, failed=1)
    run.says("work that a request had begun was cut off cause: test_it.py:20  await client.send(")
    run.warns(
        "GET /events/left was open: with client.stream(…), or response.close()",
        "test_left_stream[0]",
        "test_left_stream[1]",
    )
    run.never_says("test_a_fixture")


TOLD = """
import pytest
from app import Order


async def test_a_stream(client, db_session):
    db_session.add(Order(item="vase"))
    async with client.stream("GET", "/some/2") as response:
        await response.aread()
    await client.post("/orders/chair")
    assert 0, "as wanted"


@pytest.mark.parametrize("words", [["chair"], ["lost"]])
def test_a_websocket(test_client, words):
    with test_client.websocket_connect("/orders") as socket:
        for word in words:
            socket.send_text(word)
            socket.receive_json()
    assert words == [], "as wanted"


def test_another_request_beside_it(test_client):
    with test_client.websocket_connect("/orders") as socket:
        socket.send_text("lamp")
        socket.receive_json()
        test_client.post("/orders/chair")
    assert 0, "as wanted"


def test_that_passes(test_client):
    with test_client.websocket_connect("/orders") as socket:
        socket.send_text("lost")
        socket.receive_json()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["copy", "undo"])
def test_the_story_tells_what_they_wrote_and_what_they_lost(example: Example, how: str) -> None:
    """Under their requests; nobody can tell it from what was asked meanwhile."""
    project = shop(example, test_it=TOLD).with_files(app=LIVE)
    run = project.run(env=env_of(how)).expect(1, failed=4, passed=1)
    stream, socket, lost, beside = ([*_titles(story)] for story in stories(run))
    assert stream == [
        "before the first request  orders +1",
        "GET /some/2 200  orders +2",
        "POST /orders/chair 201  orders +1, stock ~1",
    ]
    assert socket == ["WEBSOCKET /orders 101  orders +1"]
    assert lost[0] == "WEBSOCKET /orders 101  nothing"
    assert "wrote orders (1 row) and never committed it: lost" in run.output
    assert beside == ["at once: WEBSOCKET /orders 101, POST /orders/chair 201  orders +2, stock ~1"]
    told = "WEBSOCKET /orders 101 wrote orders (1 row) and never committed it: lost"
    run.says(told, "test_that_passes")


def _titles(story: str) -> list[str]:
    lines = [line for line in story.splitlines() if not line.startswith(" ")]
    return [re.sub(r"(?<=\S)  +", "  ", line) for line in lines]


# Whoever leaves it, leaves it in a statement, as likely as not.
ALWAYS_IN_A_STATEMENT = """
from fastapi.responses import StreamingResponse
from fastapi import WebSocket


@app.get("/names")
async def names(db=Depends(get_db)):
    async def endless():
        while True:
            for name in await db.scalars(select(Dancer.name)):
                yield name
    return StreamingResponse(endless())


@app.websocket("/names")
async def live(socket: WebSocket, db=Depends(get_db)):
    await socket.accept()
    while True:
        await socket.send_text((await db.scalars(select(Dancer.name))).first())
"""

LEAVES_IT = """
import pytest

@pytest.mark.parametrize("turn", range(15))
def test_a_stream(test_client, turn):
    with test_client.stream("GET", "/names") as response:
        assert next(response.iter_text()) == "Sand"

@pytest.mark.parametrize("turn", range(15))
def test_a_websocket(test_client, turn):
    with test_client.websocket_connect("/names") as socket:
        assert socket.receive_text() == "Sand"
"""


@pytest.mark.slow
def test_what_is_left_in_a_statement_ends(example: Example) -> None:
    """P5: a driver's thread that was cancelled again and again would be waited for, for ever."""
    example = example.with_files(test_it=LEAVES_IT)
    example = example.change("app.py", "@app.get", f"{ALWAYS_IN_A_STATEMENT}\n\n@app.get")
    process = example.start("-q")
    output, _ = process.communicate(timeout=60)
    assert "30 passed" in output, output[-8000:]
