"""Requests to the live server that are under way when their test ends."""

import threading
from contextlib import suppress
from urllib.request import urlopen

import httpx2
import pytest
from apps_of_frameworks import BEGUN, WORKED, fast


@pytest.fixture
def arena_app():
    return fast


def post(url):
    def send():
        with suppress(OSError):
            urlopen(url, data=b"", timeout=60)

    BEGUN.clear()
    threading.Thread(target=send, daemon=True).start()
    assert BEGUN.wait(30)


def test_a_request_that_ends_in_time(live_server):
    post(f"{live_server.url}/ends-in/0.1")


@pytest.mark.expect("LateWorkWarning")
def test_a_request_that_does_not_end(live_server):
    post(f"{live_server.url}/ends-in/60")


def test_nothing_of_them_is_left(live_server):
    assert httpx2.get(f"{live_server.url}/orders").json() == []


def test_an_answer_waits_for_background_tasks(live_server):
    done = [httpx2.post(f"{live_server.url}/works") and len(WORKED) for _ in range(9)]
    # A loaded machine may need more than the 50 ms.
    assert any(number == turn for turn, number in enumerate(done, 1))


@pytest.fixture(scope="session")
def base_url(arena):
    return arena.live_server().url


class TestAnAppOfAnAsyncFixture:
    @pytest.fixture
    def thread(self):
        return threading.current_thread()

    @pytest.fixture
    async def arena_app(self, thread):
        assert thread is threading.main_thread()
        return fast

    def test_of_a_def_test(self, base_url):
        assert httpx2.get(f"{base_url}/orders").json() == []

    async def test_of_an_async_test(self, base_url):
        async with httpx2.AsyncClient() as client:
            assert (await client.get(f"{base_url}/orders")).json() == []

    def test_of_a_server_that_the_test_asks_for(self, arena):
        assert httpx2.get(f"{arena.live_server().url}/orders").json() == []
