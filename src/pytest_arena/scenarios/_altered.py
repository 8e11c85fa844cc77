"""What becomes of an answer that somebody alters on its way from the app to the client?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["BODILESS", "Send", "emptied", "failed"]

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_ABOUT_THE_BODY = {b"content-length", b"content-encoding", b"transfer-encoding", b"trailer"}
BODILESS = {204, 304}


def _nobody() -> None:
    pass


def emptied(send: Send, done: Callable[[], object] = _nobody) -> Send:
    """Return a ``send`` that lets the status and the headers pass, and no body.

    The headers that tell how long a body is and how it is packed are mended. An answer that has
    no body passes as it is; ``done`` is called for one that had. What else an app sends, messages
    of a websocket for one, passes.
    """
    held: list[MutableMapping[str, Any]] = []
    is_over = False

    async def emptying(message: MutableMapping[str, Any]) -> None:
        nonlocal is_over
        if message["type"] == "http.response.start" and message["status"] not in BODILESS:
            held.append(message)
        elif not held:
            await send(message)
        elif is_over or not _has_bytes(message):
            if _is_last(message) and not is_over:
                is_over = True
                await send(held[0])
                await send(message)
        else:
            is_over = True
            done()
            await _send_whole(send, {**held[0], "headers": _about_no_body(held[0])}, b"")

    return emptying


def failed(send: Send, done: Callable[[], object] = _nobody) -> Send:
    """Return a ``send`` that lets a plain 500 pass in the place of the answer.

    The app has done its work by then. ``done`` is called when its answer begins; what else it
    sends, messages of a websocket for one, passes.
    """
    is_over = False

    async def failing(message: MutableMapping[str, Any]) -> None:
        nonlocal is_over
        if not message["type"].startswith("http.response."):
            await send(message)
        elif not is_over:
            is_over = True
            done()
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            start = {"type": "http.response.start", "status": 500, "headers": headers}
            await _send_whole(send, start, b"Internal Server Error")

    return failing


def _has_bytes(message: MutableMapping[str, Any]) -> bool:
    """Whether it brings some of the body; by an extension of ASGI's it brings a file."""
    if message["type"] == "http.response.body":
        return bool(message.get("body"))
    return message["type"] in {"http.response.pathsend", "http.response.zerocopysend"}


def _is_last(message: MutableMapping[str, Any]) -> bool:
    return message["type"] == "http.response.body" and not message.get("more_body", False)


def _about_no_body(start: MutableMapping[str, Any]) -> list[tuple[bytes, bytes]]:
    headers = [(bytes(name), bytes(value)) for name, value in start.get("headers", ())]
    kept = [one for one in headers if one[0].lower() not in _ABOUT_THE_BODY]
    return [*kept, (b"content-length", b"0")]


async def _send_whole(send: Send, start: MutableMapping[str, Any], body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    headers = [one for one in start["headers"] if one[0].lower() != length[0]]
    await send({**start, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
