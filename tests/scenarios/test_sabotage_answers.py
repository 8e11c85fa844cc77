"""An answer that was altered on its way is one that a server could have sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena.scenarios._sabotaged_run import emptied, failed

if TYPE_CHECKING:
    from collections.abc import Callable

Messages = list[dict[str, Any]]

PACKED = [(b"Content-Type", b"text/plain"), (b"Content-Encoding", b"gzip")]


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    """The beginning of an answer."""
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(text: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    """A part of its body."""
    return {"type": "http.response.body", "body": text, "more_body": more}


def sent(alter: Callable[..., Any], *messages: dict[str, Any]) -> tuple[Messages, int]:
    """Return what has come through, and how often it was said that something was altered."""
    arrived: Messages = []
    altered: list[None] = []

    async def send(message: dict[str, Any]) -> None:
        arrived.append(message)

    async def answer() -> None:
        altering = alter(send, lambda: altered.append(None))
        for message in messages:
            await altering(message)

    asyncio.run(answer())
    return arrived, len(altered)


def test_the_body_goes_and_the_headers_that_tell_of_it_are_mended() -> None:
    """A client would wait for what is not there, or unpack it."""
    arrived, altered = sent(
        emptied, start(201, *PACKED, (b"content-length", b"7")), body(b"a", more=True), body(b"bc")
    )
    headers = [(b"Content-Type", b"text/plain"), (b"content-length", b"0")]
    assert arrived == [start(201, *headers), {"type": "http.response.body", "body": b""}]
    assert altered == 1


@pytest.mark.parametrize("more", [(), (body(more=True),)])
def test_an_answer_without_a_body_passes_as_it_is(more: tuple[dict[str, Any], ...]) -> None:
    """Nothing was altered then: whoever asks is told so."""
    begin = start(200, (b"content-length", b"0"))
    assert sent(emptied, begin, *more, body()) == ([begin, body()], 0)


@pytest.mark.parametrize("parts", [[b"null"], [b"null\n"], [b"null", b""]])
def test_the_body_null_passes_as_it_is(parts: list[bytes]) -> None:
    """It says nothing, so its absence proves nothing. A middleware sends an empty last part."""
    messages = [body(part, more=True) for part in parts[:-1]] + [body(parts[-1])]
    assert sent(emptied, start(), *messages) == ([start(), body(b"".join(parts))], 0)


def test_a_body_that_begins_with_null_goes() -> None:
    """Only the whole body is ``null``."""
    arrived, altered = sent(emptied, start(), body(b"null", more=True), body(b", 5"))
    assert (arrived[1]["body"], altered) == (b"", 1)


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_that_has_no_body_passes(status: int) -> None:
    """Whatever the app sends with it."""
    assert sent(emptied, start(status), body()) == ([start(status), body()], 0)


def test_a_file_that_the_server_would_send_is_a_body() -> None:
    """By an extension of ASGI's."""
    path = {"type": "http.response.pathsend", "path": "/etc/hosts"}
    arrived, altered = sent(emptied, start(), path)
    assert [one["type"] for one in arrived] == ["http.response.start", "http.response.body"]
    assert altered == 1


def test_a_500_comes_in_the_place_of_all_that_the_app_sends() -> None:
    """Once, with a length of its own."""
    arrived, altered = sent(failed, start(201, *PACKED), body(b"a", more=True), body(b"b"))
    text = b"Internal Server Error"
    assert [one.get("status") for one in arrived] == [500, None]
    assert dict(arrived[0]["headers"])[b"content-length"] == str(len(text)).encode()
    assert arrived[1]["body"] == text
    assert altered == 1


@pytest.mark.parametrize("alter", [emptied, failed])
def test_messages_of_a_websocket_pass(alter: Callable[..., Any]) -> None:
    """They are no answer."""
    messages = [{"type": "websocket.accept"}, {"type": "websocket.send", "text": "hello"}]
    assert sent(alter, *messages) == (messages, 0)
