"""Is the sync client the framework's own, in one loop with one lifespan?"""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import litestar.testing
import pytest
import starlette.testclient

from pytest_arena._app._app_run import AppRun
from pytest_arena.errors import ConfigError, LifespanError, PendingWorkError
from tests.app.app_samples import AppError, Diary, Life, Open, fail, litestar_app, starlette_app


def test_making_one_begins_nothing(run: AppRun, life: Life) -> None:
    """It is Starlette's, and no thread has started."""
    client = run.new_test_client()
    assert isinstance(client, starlette.testclient.TestClient)
    assert client.app is run.app
    assert life.lines == []


def test_a_litestar_app_gets_litestars(open_run: Open) -> None:
    """Which is a client of the other library."""
    client: Any = open_run(litestar_app(Life())).new_test_client()
    assert isinstance(client, litestar.testing.TestClient)
    assert isinstance(client, httpx.Client)


@pytest.mark.parametrize("make", [starlette_app, litestar_app])
def test_the_app_starts_once_and_stops_once(make: Any, open_run: Open, life: Life) -> None:
    """Several clients: one lifespan, and one loop in which the app runs for all of them."""
    run = open_run(make(life))
    first, second = run.new_test_client(), run.new_test_client()
    loops = {client.get("/loop").json() for client in (first, second, first)}
    assert life.counts == (1, 0)
    assert loops == {id(life.loops[0])}
    run.close()
    run.close()
    assert life.counts == (1, 1)
    assert life.loops[0] is life.loops[1]
    assert life.tasks[0] is life.tasks[1]


def test_the_state_reaches_requests(run: AppRun) -> None:
    """A copy for each."""
    client = run.new_test_client()
    for _ in range(2):
        assert client.get("/state").json() == {"run": 1, "mark": 0}


def test_without_lifespan_the_app_is_not_started(open_run: Open, life: Life) -> None:
    """Requests only, yet in one loop."""
    client = open_run(lifespan=False).new_test_client()
    assert client.get("/state").json()["run"] is None
    assert client.get("/loop").json() == client.get("/loop").json()
    assert life.counts == (0, 0)


def test_with_shuts_down_what_it_started(run: AppRun, life: Life) -> None:
    """As with the framework's own client; it can be entered again."""
    client = run.new_test_client()
    for times in (1, 2):
        with client as same:
            assert same is client
            assert life.counts == (times, times - 1)
            assert client.get("/state").json()["run"] == times
        assert life.counts == (times, times)


def test_with_leaves_what_others_started(run: AppRun, life: Life) -> None:
    """A block inside another, or after a request, ends nothing."""
    client = run.new_test_client()
    client.get("/")
    with client, run.new_test_client() as other:
        other.get("/")
    assert life.counts == (1, 0)


def test_a_block_that_fails_shuts_down(run: AppRun, life: Life) -> None:
    """The lifespan's end does not hang on the test's success."""
    with pytest.raises(ZeroDivisionError), run.new_test_client():
        raise ZeroDivisionError
    assert life.counts == (1, 1)


def test_hooks_surround_each_request(run: AppRun, diary: Diary) -> None:
    """The sync one before, the record after, also for each hop and for an error."""
    client = run.new_test_client()
    client.get("/old")
    with pytest.raises(AppError):
        client.get("/fail")
    assert diary.lines == ["before_sync", "GET /old", "GET /", "before_sync", "GET /fail"]
    assert [record.status for record in diary.records] == [303, 200, None]
    assert diary.records[-1].error == "AppError: no such horse"


@pytest.mark.asyncio
async def test_pending_work_of_an_async_test_stops_the_request(run: AppRun, diary: Diary) -> None:
    """The hook's error reaches the test, and no request is told."""
    diary.refusal = PendingWorkError("pending", why="w", cause="c", fix="f")
    client = run.new_test_client()
    with pytest.raises(PendingWorkError):
        client.get("/")
    assert diary.lines == ["before_sync"]


@pytest.mark.parametrize("name", ["raise_server_exceptions", "raise_app_exceptions"])
def test_options_are_the_frameworks(run: AppRun, name: str) -> None:
    """One that the async client calls otherwise is understood; an unknown one is refused."""
    client = run.new_test_client(options={name: False, "follow_redirects": False})
    assert client.get("/fail").status_code == 500
    assert client.get("/old").status_code == 303
    with pytest.raises(ConfigError, match="raise_nothing"):
        run.new_test_client(options={"raise_nothing": False})


def test_websockets(run: AppRun, diary: Diary, life: Life) -> None:
    """They run in the same loop; their opening is told as such, not as an error."""
    with run.new_test_client().websocket_connect("/ws") as websocket:
        websocket.send_text("echo")
        assert websocket.receive_text() == "echo from nobody"
    (record,) = diary.records
    assert (record.method, record.path, record.status, record.error) == (
        *("WEBSOCKET", "/ws"),
        *(101, None),
    )
    assert life.counts == (1, 0)


def test_what_a_test_left_open_does_not_hold_the_thread(run: AppRun, life: Life) -> None:
    """A websocket that nobody closed, a stream that nobody read."""
    client = run.new_test_client()
    client.websocket_connect("/ws").__enter__()
    client.send(client.build_request("GET", "/"), stream=True)
    run.close()
    assert life.counts == (1, 1)


def test_it_streams(run: AppRun) -> None:
    """The library's way to read a response works."""
    with run.new_test_client().stream("GET", "/") as response:
        assert list(response.iter_text()) == ["hello"]


@pytest.mark.parametrize("make", [starlette_app, litestar_app])
def test_a_failed_startup_is_raised(make: Any, open_run: Open) -> None:
    """From the app's error; the next request tries again."""
    life = Life(at_start=fail)
    client = open_run(make(life)).new_test_client()
    with pytest.raises(LifespanError) as failed:
        client.get("/me")
    assert isinstance(failed.value.__cause__, AppError)
    life.at_start = None
    assert client.get("/me").status_code == 200


@pytest.mark.parametrize("make", [starlette_app, litestar_app])
def test_a_failed_shutdown_is_raised_once(make: Any, open_run: Open) -> None:
    """By `close`, which has ended the thread all the same."""
    run = open_run(make(Life(at_stop=fail)))
    run.new_test_client().get("/me")
    with pytest.raises(LifespanError, match="shutdown failed: AppError: the cellar is flooded"):
        run.close()
    run.close()


@pytest.mark.asyncio
async def test_the_sync_client_joins_a_running_lifespan(run: AppRun, life: Life) -> None:
    """Async first: its loop runs the app's lifespan, the test client uses the state."""
    client, test_client = run.new_client(), run.new_test_client()
    assert (await client.get("/state")).json()["run"] == 1
    assert test_client.get("/state").json()["run"] == 1
    assert (await client.get("/state")).json()["run"] == 1
    assert test_client.get("/loop").json() == test_client.get("/loop").json()
    await run.aclose()
    run.close()
    assert life.counts == (1, 1)
    assert life.loops == [asyncio.get_running_loop()] * 2


@pytest.mark.asyncio
async def test_the_async_client_joins_a_running_lifespan(run: AppRun, life: Life) -> None:
    """Sync first: the portal's loop runs the lifespan, `close` ends it there."""
    client, test_client = run.new_client(), run.new_test_client()
    assert test_client.get("/state").json()["run"] == 1
    assert (await client.get("/state")).json()["run"] == 1
    await run.aclose()
    assert life.counts == (1, 0)
    run.close()
    assert life.counts == (1, 1)
    assert asyncio.get_running_loop() not in life.loops


@pytest.mark.asyncio
async def test_both_at_once_share_one_lifespan(run: AppRun, life: Life) -> None:
    """The test client in a thread, the async client here, both first."""
    await asyncio.gather(
        run.new_client().get("/"), asyncio.to_thread(run.new_test_client().get, "/")
    )
    assert life.counts == (1, 0)
    await run.aclose()


@pytest.mark.asyncio
async def test_a_loop_cannot_wait_for_itself(open_run: Open) -> None:
    """The start-up is under way in the loop that a sync request blocks: a word, no deadlock."""
    may_start = asyncio.Event()

    async def wait() -> None:
        await may_start.wait()

    life = Life(at_start=wait)
    run = open_run(starlette_app(life))
    request = asyncio.ensure_future(run.new_client().get("/"))
    await life.begun.wait()
    with pytest.raises(LifespanError, match="does not run now"):
        run.new_test_client().get("/")
    may_start.set()
    assert (await request).status_code == 200
    await run.aclose()


def test_a_traceback_of_the_app_ends_at_its_line(run: AppRun) -> None:
    """None of our frames is shown on the way."""
    with pytest.raises(AppError) as failed:
        run.new_test_client().get("/fail")
    shown = [entry for entry in failed.traceback if not entry.ishidden(failed)]
    assert str(shown[-1].statement).strip() == 'raise AppError("no such horse")'
    assert [entry for entry in shown if "pytest_arena" in Path(entry.path).parts] == []


def test_a_plain_function_can_be_an_app(open_run: Open) -> None:
    """One that returns an awaitable, which Starlette's client takes for ASGI 2."""
    app = starlette_app(Life())

    def plain(scope: Any, receive: Any, send: Any) -> Any:
        return app(scope, receive, send)

    assert open_run(plain).new_test_client().get("/").text == "hello"
