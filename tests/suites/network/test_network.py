"""No call of a test leaves the machine, and a refused call fails the test."""

import socket
import urllib.request
from contextlib import asynccontextmanager, suppress

import pytest
from fastapi import FastAPI
from network_app import WAYS, by_streams, machine

from pytest_arena.errors import LifespanError

NAME = "api.example.invalid"
needs_network = pytest.mark.skipif(not machine.address, reason="this machine has only a loopback")


@pytest.fixture(autouse=True)
def nothing_arrives():
    before = machine.calls
    yield
    assert machine.calls == before


@pytest.mark.expect("A204", at=None)  # a library's task calls: the error names the request
@pytest.mark.parametrize("way", WAYS)
@needs_network
async def test_an_address(client, way):
    await client.post(f"/payments/{way}", params={"host": machine.address})


@pytest.mark.expect("A204", at=None)  # a library's task calls: the error names the request
@pytest.mark.parametrize("way", [way for way in WAYS if "datagram" not in way])
async def test_a_name(client, way):
    await client.post(f"/payments/{way}", params={"host": NAME})


@pytest.mark.expect("A204", at="await asyncio.to_thread(smtplib.SMTP")
async def test_a_name_that_a_thread_looks_up(client):
    await client.post("/payments/in_thread", params={"host": NAME})


@pytest.mark.expect("A204", at="await asyncio.open_connection(host")
async def test_late_work(client):
    await client.post("/mails", params={"host": NAME})


@pytest.fixture
async def calls_in_set_up():
    with suppress(OSError):
        await by_streams(NAME)


@pytest.mark.expect("A204", at="open_connection")
async def test_a_fixture(calls_in_set_up):
    pass


@pytest.mark.expect("A204", at="urlopen")
def test_a_call_of_the_test():
    urllib.request.urlopen(f"http://{NAME}")


def test_this_machine_may_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        for host in ("localhost", "127.0.0.1", "::ffff:127.0.0.1"):
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as caller:
                caller.settimeout(0)
                caller.connect_ex((host, server.getsockname()[1]))
    ours, theirs = socket.socketpair()
    ours.close()
    theirs.close()


def test_allowed_names_and_patterns_may_be_reached():
    with socket.socket() as caller:
        caller.settimeout(0)
        caller.connect_ex(("198.51.100.7", 9))
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("allowed.invalid", 80)


async def test_an_expected_refusal(client, arena):
    with arena.expect_refusal():
        for _ in range(2):
            await client.post("/payments/by_streams", params={"host": NAME})
    with arena.expect_refusal(), socket.socket(socket.AF_INET6) as caller:
        caller.connect(("2001:db8::1", 80))
    with pytest.raises(AssertionError, match="nothing was refused"), arena.expect_refusal():
        await client.get("/")
    with pytest.raises(LookupError), arena.expect_refusal():
        raise LookupError


@pytest.mark.parametrize("error", [LookupError, AssertionError])
def test_another_error_in_the_block_of_a_refusal(arena, error):
    with pytest.raises(error), arena.expect_refusal():
        with suppress(OSError):
            urllib.request.urlopen(f"http://{NAME}")
        raise error


def test_a_failed_assertion_about_a_refusal(arena):
    with pytest.raises(AssertionError), arena.expect_refusal():
        try:
            urllib.request.urlopen(f"http://{NAME}")
        except OSError as refusal:
            assert "another.invalid" in str(refusal)


def test_a_group_of_errors_with_a_refusal(arena):
    with arena.expect_refusal():
        with pytest.raises(OSError) as caught:
            urllib.request.urlopen(f"http://{NAME}")
        raise ExceptionGroup("unhandled errors in a TaskGroup", [caught.value.reason])


@asynccontextmanager
async def calling(app):
    await by_streams(NAME)
    yield


@pytest.mark.parametrize("arena_app", [FastAPI(lifespan=calling)])
async def test_a_start_up(arena_app, arena):
    with arena.expect_refusal():
        await arena.client().get("/")


@asynccontextmanager
async def explaining(app):
    try:
        await by_streams(NAME)
    except OSError as refusal:
        raise LookupError("no broker") from refusal
    yield


@pytest.mark.parametrize("arena_app", [FastAPI(lifespan=explaining)])
async def test_a_start_up_that_raises_its_own_error(arena_app, arena):
    with arena.expect_refusal() as refused, pytest.raises(LifespanError) as caught:
        await arena.client().get("/")
    assert caught.value.fix == refused.error.fix
