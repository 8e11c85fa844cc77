"""Does an answer come as the app sends it, and does what goes wrong with it reach its reader?"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket
from starlette.websockets import WebSocketDisconnect

from pytest_arena._app._app_run import AppRun
from pytest_arena.errors import ConfigError
from tests.app.app_samples import AppError, Diary, Open

LINES: list[str] = []


@pytest.fixture(autouse=True)
def no_lines() -> None:
    """What the apps have noted is of this test."""
    LINES.clear()


async def _ticks(fails_after: int = 0) -> AsyncIterator[str]:
    number = 0
    try:
        while True:
            number += 1
            yield f"{number};"
            if number == fails_after:
                raise AppError("the ticker is broken")
            await asyncio.sleep(0)
    finally:
        LINES.append("closed")


async def _endless(_: Request) -> Response:
    return StreamingResponse(_ticks())


async def _failing(_: Request) -> Response:
    return StreamingResponse(_ticks(2))


async def _broken(_: Request) -> Response:
    raise AppError("no ticker")


async def _old(_: Request) -> Response:
    return RedirectResponse("/", 303)


async def _short(_: Request) -> Response:
    async def later() -> None:
        await asyncio.sleep(0)
        LINES.append("background")

    return Response("", background=BackgroundTask(later))


async def _echo(socket: StarletteWebSocket) -> None:
    await socket.accept(headers=[(b"set-cookie", b"room=blue")])
    try:
        while True:
            text = await socket.receive_text()
            if text == "fail":
                raise AppError("as asked")
            if text == "close":
                await socket.close(4001, "as asked")
                return
            if text == "return":
                return
            await socket.send_text(text)
    except WebSocketDisconnect as left:
        LINES.append(f"left {left.code}")
        raise


async def _refusing(socket: StarletteWebSocket) -> None:
    await socket.close(4003, "not you")


async def _denying(_: StarletteWebSocket) -> None:
    raise HTTPException(401, "who are you?")


@pytest.fixture
def app() -> object:
    """Streams and websockets of Starlette."""
    plain = {"/": _endless, "/failing": _failing, "/broken": _broken, "/old": _old}
    plain |= {"/short": _short}
    sockets = {"/echo": _echo, "/refusing": _refusing, "/denying": _denying}
    return Starlette(
        routes=[
            *(Route(path, function) for path, function in plain.items()),
            *(WebSocketRoute(path, function) for path, function in sockets.items()),
        ]
    )


async def _some(response: Any, number: int) -> str:
    text = ""
    async for part in response.aiter_text():
        text += part
        if text.count(";") >= number:
            break
    return text


@pytest.mark.asyncio
async def test_an_endless_answer_is_read_and_closed(run: AppRun, diary: Diary) -> None:
    """The request is told when its answer begins, and over when it is closed."""
    async with run.new_client().stream("GET", "/") as response:
        assert await _some(response, 3) == "1;2;3;"
        assert (diary.lines, LINES) == (["before", "GET /"], [])
        assert response.extensions["arena"] is diary.records[0]
        assert diary.ended == []
    assert LINES == ["closed"]
    assert len(diary.ended) == 1
    assert [(one.status, one.error, one.is_open) for one in diary.records] == [(200, None, False)]


@pytest.mark.asyncio
async def test_a_redirect_on_the_way_is_read_to_its_end(run: AppRun, diary: Diary) -> None:
    """The last answer is the one that is open."""
    async with run.new_client().stream("GET", "/old", follow_redirects=True) as response:
        assert await _some(response, 1) == "1;"
    assert diary.lines == ["before", "GET /old", "before", "GET /"]
    assert len(diary.ended) == 2


@pytest.mark.asyncio
async def test_an_error_after_the_first_chunk_is_raised_at_the_reader(
    run: AppRun, diary: Diary
) -> None:
    """Once: closing it afterwards raises nothing more."""
    async with run.new_client().stream("GET", "/failing") as response:
        with pytest.raises(AppError, match="ticker is broken"):
            await _some(response, 9)
    (record,) = diary.records
    assert (record.status, record.error) == (None, "AppError: the ticker is broken")


@pytest.mark.asyncio
async def test_an_error_that_nobody_has_read_is_raised_when_it_is_closed(run: AppRun) -> None:
    """It must not pass as an answer that was fine."""
    with pytest.raises(AppError, match="ticker is broken"):
        await _read_until_it_has_failed(run)


@pytest.mark.asyncio
async def test_the_tests_own_error_comes_first(run: AppRun) -> None:
    """That of the app does not hide it."""
    with pytest.raises(ValueError, match="of the test"):
        await _read_until_it_has_failed(run, ValueError("of the test"))


async def _read_until_it_has_failed(run: AppRun, error: Exception | None = None) -> None:
    async with run.new_client().stream("GET", "/failing") as response:
        assert await _some(response, 1) == "1;"
        while not LINES:  # noqa: ASYNC110 - what the app is to do is to raise
            await asyncio.sleep(0)
        if error is not None:
            raise error


@pytest.mark.asyncio
async def test_an_error_before_the_first_chunk_is_raised_by_the_request(
    run: AppRun, diary: Diary
) -> None:
    """As it is for a plain one; or answered, where that is asked for."""
    with pytest.raises(AppError, match="no ticker"):
        async with run.new_client().stream("GET", "/broken"):
            pass
    assert diary.records[0].error == "AppError: no ticker"
    client = run.new_client(options={"raise_app_exceptions": False})
    async with client.stream("GET", "/broken") as response:
        assert response.status_code == 500
    async with client.stream("GET", "/failing") as response:
        assert await _some(response, 9) == "1;2;"
    assert len(diary.ended) == 3


@pytest.mark.asyncio
async def test_what_follows_the_answer_is_waited_for(run: AppRun) -> None:
    """Background tasks belong to the request, as they do to a plain one."""
    async with run.new_client().stream("GET", "/short") as response:
        assert await response.aread() == b""
        assert LINES == ["background"]


@pytest.mark.asyncio
async def test_a_traceback_ends_at_the_apps_line(run: AppRun) -> None:
    """None of our frames is shown on the way."""
    with pytest.raises(AppError) as failed:
        async with run.new_client().stream("GET", "/failing") as response:
            await _some(response, 9)
    shown = [entry for entry in failed.traceback if not entry.ishidden(failed)]
    assert str(shown[-1].statement).strip() == 'raise AppError("the ticker is broken")'
    assert [entry for entry in shown if "pytest_arena" in str(entry.path)] == []


@pytest.mark.asyncio
async def test_a_cancelled_reader_ends_the_app(run: AppRun, diary: Diary) -> None:
    """Also one that waits for the answer to begin."""

    async def silent(_scope: Any, _receive: Any, _send: Any) -> None:
        try:
            reached.set()
            await asyncio.Event().wait()
        finally:
            LINES.append("ended")

    async def read() -> None:
        async with (
            AppRun(silent, find_hooks=lambda: diary, lifespan=False).new_client().stream("GET", "/")
        ):
            pass

    reached = asyncio.Event()
    reading = asyncio.create_task(read())
    await reached.wait()
    reading.cancel()
    await asyncio.wait({reading})
    assert LINES == ["ended"]
    assert [one.error for one in diary.records] == ["CancelledError"]
    assert len(diary.ended) == 1


@pytest.mark.asyncio
async def test_an_answer_that_breaks_off_is_no_whole_one(open_run: Open) -> None:
    """The app returns, or is cancelled, before it has sent all."""

    async def half(scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        if scope["path"] == "/cancelled":
            raise asyncio.CancelledError

    client = open_run(half, lifespan=False).new_client()
    for path, kind in (("/", AssertionError), ("/cancelled", ConnectionError)):
        async with client.stream("GET", path) as response:
            with pytest.raises(kind):
                await response.aread()


@pytest.mark.asyncio
async def test_a_websocket_is_refused(run: AppRun) -> None:
    """The HTTP library has none. The error names the clients that do."""
    for url in ("ws://testserver/echo", "/echo"):
        with pytest.raises(ConfigError, match="websocket_connect"):
            await run.new_client().get(url, headers={"upgrade": "websocket"})


@pytest.mark.asyncio
async def test_what_is_left_open_is_known(run: AppRun, diary: Diary) -> None:
    """A stream that nobody closes."""
    client = run.new_client()
    response = await client.send(client.build_request("GET", "/"), stream=True)
    assert await _some(response, 1) == "1;"
    [opened] = diary.opened
    assert "GET / was open" in opened.shown
    await opened.close()  # type: ignore[misc] # of an async client
    assert LINES == ["closed"]
    assert len(diary.ended) == 1


def test_a_sync_request_is_under_way_until_it_is_closed(run: AppRun, diary: Diary) -> None:
    """A stream's, and a websocket's."""
    client = run.new_test_client()
    with client.stream("GET", "/") as response:
        parts = response.iter_text()
        assert next(parts) == "1;"
        assert diary.ended == []
    with client.websocket_connect("/echo") as socket:
        socket.send_text("hello")
        assert socket.receive_text() == "hello"
        assert len(diary.ended) == 1
        socket.send_text("close")
    assert len(diary.ended) == 2
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/refusing"):
        pass
    assert len(diary.ended) == 3
    assert [one.status for one in diary.records] == [200, 101, 403]
