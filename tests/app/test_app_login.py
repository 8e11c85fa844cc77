"""Is a client logged in once, before its first request, whatever comes at the same time?"""

import asyncio
from contextlib import closing
from typing import Any

import pytest

from pytest_arena._app._app_run import AppRun
from pytest_arena.errors import LifespanError, LoginError, PendingWorkError
from tests.app.app_samples import Diary, Life, Open, fail, starlette_app


class Desk:
    """A login function for async clients that counts its calls."""

    def __init__(self) -> None:
        self.roles: list[str] = []

    async def login(self, client: Any, role: str) -> None:
        """Log an async client in."""
        self.roles.append(role)
        (await client.post("/login", json={"user": role})).raise_for_status()

    def login_sync(self, client: Any, role: str) -> None:
        """Log a sync client in."""
        self.roles.append(role)
        client.post("/login", json={"user": role}).raise_for_status()


@pytest.fixture
def desk() -> Desk:
    """Where the clients of the test log in."""
    return Desk()


@pytest.fixture
def run(open_run: Open, desk: Desk) -> AppRun:
    """A run with the async login."""
    return open_run(login=desk.login, login_path="tests.login:login")


@pytest.fixture
def sync_run(open_run: Open, desk: Desk) -> AppRun:
    """A run with the sync login."""
    return open_run(login=desk.login_sync, login_path="tests.login:login")


@pytest.mark.asyncio
async def test_a_role_logs_in_before_its_first_request(
    run: AppRun, desk: Desk, diary: Diary
) -> None:
    """Its own requests do not log in, and pass the hooks like any other."""
    staff = run.new_client(role="staff")
    assert (await staff.get("/me")).text == "staff"
    assert (await staff.get("/me")).text == "staff"
    assert desk.roles == ["staff"]
    assert diary.lines[1:5] == ["before", "POST /login", "before", "GET /me"]
    assert {record.role for record in diary.records} == {"staff"}


@pytest.mark.asyncio
async def test_awaiting_a_client_logs_it_in(run: AppRun, desk: Desk) -> None:
    """`staff = await client_as("staff")`, also followed by `async with`."""
    staff = await run.new_client(role="staff")
    assert desk.roles == ["staff"]
    async with staff:
        assert (await staff.get("/me")).text == "staff"
    async with run.new_client(role="guest") as guest:
        assert (await guest.get("/me")).text == "guest"
    assert desk.roles == ["staff", "guest"]


@pytest.mark.asyncio
async def test_roles_do_not_mix(run: AppRun) -> None:
    """Several clients in one test are several people."""
    ada, bob, nobody = run.new_client(role="ada"), run.new_client(role="bob"), run.new_client()
    answers = await asyncio.gather(*(client.get("/me") for client in (ada, bob, nobody)))
    assert [answer.text for answer in answers] == ["ada", "bob", "nobody"]


@pytest.mark.asyncio
async def test_first_requests_at_once_log_in_once(run: AppRun, desk: Desk, life: Life) -> None:
    """All of them wait for the one login."""
    staff = run.new_client(role="staff")
    answers = await asyncio.gather(*(staff.get("/me") for _ in range(5)))
    assert [answer.text for answer in answers] == ["staff"] * 5
    assert desk.roles == ["staff"]
    assert life.counts == (1, 0)


@pytest.mark.asyncio
async def test_a_login_may_ask_for_several_things_at_once(open_run: Open) -> None:
    """Requests in tasks of the login do not wait for it either."""

    async def login(client: Any, role: str) -> None:
        await asyncio.gather(client.get("/"), client.post("/login", json={"user": role}))

    staff = open_run(login=login).new_client(role="staff")
    assert (await staff.get("/me")).text == "staff"


@pytest.mark.asyncio
async def test_a_login_may_use_another_client(open_run: Open, desk: Desk) -> None:
    """An admin who lets others in is logged in as well."""

    async def login(client: Any, role: str) -> None:
        if role == "guest":
            assert (await admin.get("/me")).text == "admin"
        await desk.login(client, role)

    run = open_run(login=login)
    admin = run.new_client(role="admin")
    assert (await run.new_client(role="guest").get("/me")).text == "guest"
    assert desk.roles == ["admin", "guest"]


@pytest.mark.asyncio
async def test_a_login_may_be_sync_or_return_what_is_awaited(open_run: Open) -> None:
    """A header, a coroutine of the client, even the client itself."""

    def by_header(client: Any, role: str) -> None:
        client.cookies.set("user", role)

    def by_coroutine(client: Any, role: str) -> Any:
        return client.post("/login", json={"user": role})

    def by_client(client: Any, role: str) -> Any:
        by_header(client, role)
        return client

    for login in (by_header, by_coroutine, by_client):
        staff = open_run(login=login).new_client(role="staff")
        assert (await staff.get("/me")).text == "staff"


@pytest.mark.asyncio
async def test_a_login_that_fails_is_told(open_run: Open, diary: Diary) -> None:
    """With its cause, its line and its name, to all who waited for it; the next tries again."""
    calls: list[str] = []

    async def login(client: Any, role: str) -> None:
        calls.append(role)
        await asyncio.sleep(0)
        raise ValueError("wrong password")

    run = open_run(login=login, login_path="tests.login:login")
    staff = run.new_client(role="staff")
    answers = await asyncio.gather(*(staff.get("/me") for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [LoginError] * 3
    assert calls == ["staff"]
    with pytest.raises(LoginError) as failed:
        await staff.get("/me")
    assert calls == ["staff", "staff"]
    assert failed.value.what == "the login as 'staff' failed: ValueError: wrong password"
    assert isinstance(failed.value.__cause__, ValueError)
    assert 'raise ValueError("wrong password")' in failed.value.cause
    assert "tests.login:login" in failed.value.fix
    assert diary.records == []


@pytest.mark.asyncio
async def test_an_error_of_ours_in_a_login_stays_itself(open_run: Open, desk: Desk) -> None:
    """A start-up that fails is not a login that fails, nor is work that is pending."""
    run = open_run(starlette_app(Life(at_start=fail)), login=desk.login)
    with pytest.raises(LifespanError):
        await run.new_client(role="staff").get("/")
    assert desk.roles == []


@pytest.mark.asyncio
async def test_pending_work_is_told_from_inside_a_login(sync_run: AppRun, diary: Diary) -> None:
    """It is the word that helps: the login has nothing wrong."""
    diary.refusal = PendingWorkError("pending", why="w", cause="c", fix="f")
    staff = sync_run.new_test_client(role="staff")
    with pytest.raises(PendingWorkError):
        staff.get("/me")
    diary.refusal = None
    assert staff.get("/me").text == "staff"


@pytest.mark.asyncio
async def test_a_cancelled_login_leaves_the_turn_to_the_next(open_run: Open) -> None:
    """Who waited logs in instead."""
    calls: list[str] = []
    go_on = asyncio.Event()

    async def login(client: Any, role: str) -> None:
        calls.append(role)
        if len(calls) == 1:
            go_on.set()
            await asyncio.Event().wait()

    staff = open_run(login=login).new_client(role="staff")
    first, second = (asyncio.create_task(_get(staff, "/")) for _ in range(2))
    await go_on.wait()
    first.cancel()
    assert (await second).status_code == 200
    assert calls == ["staff", "staff"]
    await asyncio.wait({first})


async def _get(client: Any, path: str) -> Any:
    return await client.get(path)


def test_a_login_holds_across_loops(run: AppRun, desk: Desk) -> None:
    """Two at once in one loop, then two in another: one login."""
    staff = run.new_client(role="staff")

    async def twice() -> None:
        await asyncio.gather(staff.get("/me"), staff.get("/me"))

    for _ in range(2):
        asyncio.run(twice())
    assert desk.roles == ["staff"]


def test_requests_of_each_loop_wait_for_its_login(open_run: Open) -> None:
    """Two at once in a loop where it fails, then two at once in another."""
    calls: list[str] = []

    async def login(client: Any, role: str) -> None:
        calls.append(role)
        await asyncio.sleep(0)
        if len(calls) == 1:
            raise ValueError("wrong password")
        client.cookies.set("user", role)

    staff = open_run(login=login).new_client(role="staff")

    async def twice() -> list[Any]:
        requests = (staff.get("/me") for _ in range(2))
        return await asyncio.gather(*requests, return_exceptions=True)

    assert [type(answer) for answer in asyncio.run(twice())] == [LoginError] * 2
    assert [answer.text for answer in asyncio.run(twice())] == ["staff"] * 2


def test_a_sync_client_logs_in(sync_run: AppRun, desk: Desk, diary: Diary) -> None:
    """Once, before its first request, by the sync function."""
    staff = sync_run.new_test_client(role="staff")
    assert [staff.get("/me").text for _ in range(2)] == ["staff", "staff"]
    assert desk.roles == ["staff"]
    assert diary.lines[1:5] == ["before_sync", "POST /login", "before_sync", "GET /me"]
    assert {record.role for record in diary.records} == {"staff"}


@pytest.mark.asyncio
async def test_streams_and_websockets_log_in_first(run: AppRun, sync_run: AppRun) -> None:
    """Every way to make a request holds what the login has set, also as the first of its client."""
    async with run.new_client(role="ada").stream("GET", "/me") as answer:
        assert await answer.aread() == b"ada"
    with sync_run.new_test_client(role="bob").stream("GET", "/me") as response:
        assert response.read() == b"bob"
    with sync_run.new_test_client(role="cyd").websocket_connect("/ws") as websocket:
        websocket.send_text("greetings")
        assert websocket.receive_text() == "greetings from cyd"


def test_with_logs_a_sync_client_in(sync_run: AppRun, desk: Desk, life: Life) -> None:
    """At once, and shuts the app down at its end."""
    with sync_run.new_test_client(role="staff"):
        assert desk.roles == ["staff"]
    assert life.counts == (1, 1)


def test_an_async_login_is_refused_to_a_sync_client(run: AppRun, desk: Desk) -> None:
    """With a clear word, and no warning of a coroutine that nobody awaited."""
    with pytest.raises(LoginError, match=r"tests\.login:login is async"):
        run.new_test_client(role="staff").get("/me")
    assert desk.roles == []


@pytest.mark.asyncio
async def test_a_login_that_forgets_to_await_is_told_to_be_async(open_run: Open) -> None:
    """And not that there may be no such user."""

    def login(client: Any, role: str) -> None:
        with closing(client.post("/login")) as answer:  # else Python warns of it
            client.headers["token"] = answer.json()["token"]

    with pytest.raises(LoginError) as caught:
        await open_run(login=login).new_client(role="staff").get("/me")
    assert caught.value.fix.startswith("make the login function async:")


def test_a_sync_login_that_fails_is_told(open_run: Open, life: Life) -> None:
    """From its cause; a block that could not be entered leaves no app running."""

    def login(client: Any, role: str) -> None:
        raise ValueError("wrong password")

    run = open_run(login=login)
    staff = run.new_test_client(role="staff")
    with pytest.raises(LoginError) as failed, staff:
        raise AssertionError("entered")
    assert isinstance(failed.value.__cause__, ValueError)
    run.close()
    assert life.counts == (1, 1)
