"""Is the async client the library's own, bound to the app, with the hooks around each request?"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI

from pytest_arena._app._app_run import AppRun
from pytest_arena.errors import ConfigError
from tests.app.app_samples import AppError, Diary, Life, Open


def test_making_one_needs_no_loop(run: AppRun, life: Life) -> None:
    """It is the library's client, and nothing has begun."""
    client = run.new_client()
    assert isinstance(client, httpx2.AsyncClient)
    assert client.base_url == "http://testserver"
    assert life.lines == []


@pytest.mark.asyncio
async def test_the_defaults_are_the_librarys(run: AppRun) -> None:
    """Exceptions of the app are raised, redirects not followed, cookies kept."""
    client = run.new_client()
    with pytest.raises(AppError, match="no such horse"):
        await client.get("/fail")
    assert (await client.get("/old")).status_code == 303
    await client.post("/login", json={"user": "ada"})
    assert (await client.get("/me")).text == "ada"
    assert (await run.new_client().get("/me")).text == "nobody"


@pytest.mark.asyncio
async def test_options_reach_the_client_and_the_transport(run: AppRun) -> None:
    """Each goes where the library has it."""
    options = {"raise_app_exceptions": False, "follow_redirects": True, "base_url": "http://arena"}
    client = run.new_client(options=options)
    assert (await client.get("/fail")).status_code == 500
    assert (await client.get("/old")).text == "hello"
    assert str((await client.get("/")).url) == "http://arena/"
    assert len(options) == 3


def test_an_unknown_option_is_refused(run: AppRun) -> None:
    """The library's word is in the message."""
    with pytest.raises(ConfigError, match="folow_redirects"):
        run.new_client(options={"folow_redirects": True})


@pytest.mark.asyncio
async def test_hooks_surround_each_request(run: AppRun, diary: Diary) -> None:
    """Pending work is committed in this loop before, and the request is told after."""
    client = run.new_client()
    await client.get("/?password=secret")
    with pytest.raises(AppError):
        await client.get("/fail")
    assert diary.lines == ["before", "GET /", "before", "GET /fail"]
    assert diary.loops == [asyncio.get_running_loop()] * 2
    hello, failed = diary.records
    assert (hello.status, hello.error, hello.role) == (200, None, None)
    assert (failed.status, failed.error) == (None, "AppError: no such horse")
    assert hello.seconds > 0


@pytest.mark.asyncio
async def test_each_hop_of_a_redirect_is_told(run: AppRun, diary: Diary) -> None:
    """In the order in which the app saw them."""
    await run.new_client(options={"follow_redirects": True}).get("/old")
    assert diary.lines == ["before", "GET /old", "GET /"]
    assert [record.status for record in diary.records] == [303, 200]


@pytest.mark.asyncio
async def test_work_that_cannot_be_committed_stops_the_request(run: AppRun, diary: Diary) -> None:
    """The app is not asked, and no request is told."""
    diary.refusal = ValueError("a flush failed")
    with pytest.raises(ValueError, match="a flush failed"):
        await run.new_client().get("/")
    assert diary.lines == ["before"]


def test_a_record_tells_no_password() -> None:
    """An error's text may hold a URL."""
    diary = Diary()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("postgresql://me:s3cret@db/shop")

    run = AppRun(app, hooks=diary, lifespan=False)
    with pytest.raises(ValueError, match="postgresql"):
        asyncio.run(_get(run))
    (record,) = diary.records
    assert record.error == "ValueError: postgresql://me:***@db/shop"
    run.close()


async def _get(run: AppRun) -> None:
    await run.new_client().get("/")


@pytest.mark.asyncio
async def test_a_cancelled_request_is_told(open_run: Open, diary: Diary) -> None:
    """As the error that it ended with."""
    reached = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.set()
        await asyncio.Event().wait()

    request = asyncio.create_task(_get(open_run(app, lifespan=False)))
    await reached.wait()
    request.cancel()
    await asyncio.wait({request})
    assert [record.error for record in diary.records] == ["CancelledError"]


@pytest.mark.asyncio
async def test_it_can_be_awaited_and_opened(run: AppRun, life: Life) -> None:
    """Both start the app at once; the end of a block closes the client, not the app."""
    client = run.new_client()
    assert await client is client
    assert life.counts == (1, 0)
    async with client as same:
        assert same is client
        assert (await client.get("/")).text == "hello"
    assert client.is_closed
    assert life.counts == (1, 0)
    assert (await run.new_client().get("/")).text == "hello"


@pytest.mark.asyncio
async def test_it_streams(run: AppRun) -> None:
    """The library's way to read a response works."""
    async with run.new_client().stream("GET", "/") as response:
        assert [part async for part in response.aiter_text()] == ["hello"]


@pytest.mark.asyncio
async def test_the_app_has_finished_when_the_request_returns(open_run: Open) -> None:
    """FastAPI: background tasks, and what stands after the yield of a dependency, are done."""
    lines: list[str] = []
    app = FastAPI()

    async def session() -> AsyncIterator[str]:
        yield "session"
        for _ in range(3):
            await asyncio.sleep(0)
        lines.append("commit")

    async def write_later() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        lines.append("background")

    def write_in_a_thread() -> None:
        lines.append("thread")

    @app.get("/")
    async def index(tasks: BackgroundTasks, _: Annotated[str, Depends(session)]) -> None:
        tasks.add_task(write_later)
        tasks.add_task(write_in_a_thread)
        lines.append("answer")

    await open_run(app).new_client().get("/")
    assert lines[0] == "answer"
    assert sorted(lines[1:]) == ["background", "commit", "thread"]


@pytest.mark.asyncio
async def test_a_traceback_of_the_app_ends_at_its_line(run: AppRun) -> None:
    """None of our frames is shown on the way."""
    with pytest.raises(AppError) as failed:
        await run.new_client().get("/fail")
    shown = [entry for entry in failed.traceback if not entry.ishidden(failed)]
    assert str(shown[-1].statement).strip() == 'raise AppError("no such horse")'
    assert [entry for entry in shown if _is_ours(entry.path)] == []


def _is_ours(path: Path | str) -> bool:
    return "pytest_arena" in Path(path).parts
