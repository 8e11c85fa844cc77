"""Requests to the live server that are under way when their test ends."""

import threading
from contextlib import suppress
from urllib.request import urlopen

import httpx2
import pytest
from apps_of_frameworks import BEGUN, fast


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
