"""Do FastAPI, Starlette and Litestar all keep the same promises?"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pytest_arena.errors import LifespanError
from tests.app.app_samples import (
    AppError,
    Diary,
    Life,
    Open,
    fail,
    fastapi_app,
    litestar_app,
    starlette_app,
)
from tests.parameters import slow_except

Make = Callable[[Life], Any]

FRAMEWORKS = slow_except([starlette_app, fastapi_app, litestar_app], starlette_app, litestar_app)
frameworks = pytest.mark.parametrize("make", FRAMEWORKS)


async def login(client: Any, role: str) -> None:
    """Log an async client in."""
    await client.post("/login", json={"user": role})


def login_sync(client: Any, role: str) -> None:
    """Log a sync client in."""
    client.post("/login", json={"user": role})


@frameworks
@pytest.mark.asyncio
async def test_async_clients(make: Make, open_run: Open, life: Life, diary: Diary) -> None:
    """Lifespan, state, login and an app's error."""
    run = open_run(make(life), login=login)
    staff = run.new_client(role="staff")
    assert (await staff.get("/state")).json()["run"] == 1
    assert "staff" in (await staff.get("/me")).text
    assert (await run.new_client().get("/me")).text.strip('"') == "nobody"
    await run.aclose()
    assert life.counts == (1, 1)
    assert [record.path for record in diary.records] == ["/login", "/state", "/me", "/me"]


@frameworks
def test_sync_clients(make: Make, open_run: Open, life: Life, diary: Diary) -> None:
    """The same with the framework's own test client."""
    run = open_run(make(life), login=login_sync)
    staff = run.new_test_client(role="staff")
    assert staff.get("/state").json()["run"] == 1
    assert "staff" in staff.get("/me").text
    assert run.new_test_client().get("/me").text.strip('"') == "nobody"
    with run.new_test_client() as client:
        client.get("/me")
    run.close()
    assert life.counts == (1, 1)
    assert [record.path for record in diary.records] == ["/login", "/state", *["/me"] * 3]


@pytest.mark.parametrize("make", [starlette_app, litestar_app])
def test_websockets(make: Make, open_run: Open, life: Life, diary: Diary) -> None:
    """Opened by a client that is logged in, told as what they are."""
    staff = open_run(make(life), login=login_sync).new_test_client(role="staff")
    with staff.websocket_connect("/ws") as socket:
        socket.send_text("hello")
        assert socket.receive_text() == "hello from staff"
    assert diary.records[-1].method == "WEBSOCKET"
    assert life.counts == (1, 0)


@frameworks
@pytest.mark.asyncio
async def test_both_kinds_in_one_test(make: Make, open_run: Open, life: Life) -> None:
    """One lifespan for both, by turns."""
    run = open_run(make(life))
    client, test_client = run.new_client(), run.new_test_client()
    for _ in range(2):
        assert (await client.get("/state")).json()["run"] == 1
        assert test_client.get("/state").json()["run"] == 1
    await run.aclose()
    assert life.counts == (1, 1)


@frameworks
def test_the_owner_of_the_loop_shuts_the_app_down(make: Make, open_run: Open, life: Life) -> None:
    """The cancelling of all tasks is the request to shut down, and close has nothing to add."""
    run = open_run(make(life))
    asyncio.run(_one_request(run.new_client()))
    run.close()
    assert life.counts == (1, 1)
    assert life.tasks[0] is life.tasks[1]


async def _one_request(client: Any) -> None:
    assert (await client.get("/me")).status_code == 200


@pytest.mark.parametrize("make", [starlette_app, fastapi_app])
def test_a_loop_closed_without_a_word(make: Make, open_run: Open, life: Life) -> None:
    """Leaves no noise, and a new loop gets an app of its own.

    Litestar's event emitter holds a stream, and Python warns that nobody has closed it: with its
    loop closed nobody can.
    """
    run = open_run(make(life))
    loop = asyncio.new_event_loop()
    loop.run_until_complete(_one_request(run.new_client()))
    loop.close()
    asyncio.run(_one_request(run.new_client()))
    run.close()
    assert life.lines.count("start") == 2


@frameworks
@pytest.mark.parametrize("faulty", [Life(at_start=fail), Life(at_stop=fail)])
@pytest.mark.asyncio
async def test_a_faulty_lifespan_is_told(make: Make, faulty: Life, open_run: Open) -> None:
    """From the app's own exception, at start-up or at shutdown."""
    run = open_run(make(faulty))
    with pytest.raises(LifespanError) as failed:  # noqa: PT012 - either of the two raises
        await run.new_client().get("/me")
        await run.aclose()
    assert isinstance(failed.value.__cause__, AppError)


@pytest.mark.parametrize("make", [starlette_app, fastapi_app])
@pytest.mark.asyncio
async def test_an_apps_error_is_raised(make: Make, open_run: Open) -> None:
    """By both kinds of client; Litestar answers with a 500 itself."""
    run = open_run(make(Life()))
    with pytest.raises(AppError):
        await run.new_client().get("/fail")
    with pytest.raises(AppError):
        run.new_test_client().get("/fail")
    await run.aclose()


@pytest.mark.asyncio
async def test_litestar_answers_errors_itself(open_run: Open) -> None:
    """Both kinds of client see its 500."""
    run = open_run(litestar_app(Life()))
    assert (await run.new_client().get("/fail")).status_code == 500
    assert run.new_test_client().get("/fail").status_code == 500
    await run.aclose()
