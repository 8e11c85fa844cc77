"""Breaks one answer of the app, to see whether a test notices it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_arena._app._login import is_logging_in

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = ("wrong", "empty", "500", "more")
"""The faults of an answer, in the order in which they are tried.

- ``wrong``: each value of a JSON answer is another one of its type. Another answer has no body.
- ``empty``: a JSON answer is an empty object, list or text.
- ``500``: the app is not called, and the answer is an error.
- ``more``: each list of a JSON answer has its items twice.
"""
_ERROR = 500
_BODILESS = {204, 304}
_BODY_HEADERS = {
    b"content-length",
    b"content-encoding",
    b"transfer-encoding",
    b"trailer",
}


def wrong(value: Any) -> Any:
    """Return a JSON value of the same shape with other values."""
    if isinstance(value, dict):
        return {name: wrong(each) for name, each in value.items()}
    if isinstance(value, list):
        return [wrong(each) for each in value]
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return "" if value else "wrong"
    if value is None:
        return "wrong"
    return 0 if value else 1


def empty(value: Any) -> Any:
    """Return an empty JSON value of the same type."""
    if isinstance(value, dict | list | str):
        return type(value)()
    return 0


def more(value: Any) -> Any:
    """Return a JSON value with the items of each list twice."""
    if isinstance(value, dict):
        return {name: more(each) for name, each in value.items()}
    if isinstance(value, list):
        return [more(each) for each in value] * 2
    return value


_CHANGES = {"wrong": wrong, "empty": empty, "more": more}


def broken_body(kind: str, body: bytes) -> bytes:
    """Return the body of a broken answer. It equals the true body if nothing can be broken."""
    try:
        value = json.loads(body)
    except ValueError:
        return b"" if kind == "wrong" else body
    changed = _CHANGES[kind](value)
    return body if changed == value else json.dumps(changed).encode()


class FaultyRequests:
    """Breaks the answer of one request of the running test."""

    def __init__(self) -> None:
        self.is_active = False
        self.is_applied = False
        self._kind = ""
        self._at = -1
        self._number = 0

    @contextmanager
    def breaking(self, kind: str, at: int) -> Iterator[None]:
        """Run a test in the block with a fault at the request of a number, or with none."""
        self._kind = kind
        self._at = at
        self._number = 0
        self.is_active = True
        self.is_applied = False
        try:
            yield
        finally:
            self.is_active = False

    async def enter(
        self, _entry: object, call: Any, scope: Any, receive: Any, send: Any
    ) -> None:
        """Call an app for a request, with the fault if this is its request."""
        if not self.is_active or is_logging_in():
            await call(scope, receive, send)
            return
        number = self._number
        self._number += 1
        if number != self._at or scope["type"] == "websocket":
            await call(scope, receive, send)
        elif self._kind == "500":
            await self._fail(send)
        else:
            await call(scope, receive, self._breaking(send))

    async def _fail(self, send: Any) -> None:
        self.is_applied = True
        body = b"Internal Server Error"
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        start = {"type": "http.response.start", "status": _ERROR, "headers": headers}
        await _send_whole(send, start, body)

    def _breaking(self, send: Any) -> Any:
        """Return a ``send`` that sends another body with the headers of the answer."""
        start: Any = None
        body = b""
        is_over = False

        async def send_broken(message: Any) -> None:
            nonlocal start, body, is_over
            if message["type"] == "http.response.start":
                start = message
                return
            if start is None or message["type"] != "http.response.body":
                await send(message)
                return
            body += message.get("body", b"")
            is_stream = b"event-stream" in dict(start["headers"]).get(
                b"content-type", b""
            )
            if is_over or (message.get("more_body") and not is_stream):
                return
            is_over = True
            changed = b"" if is_stream else broken_body(self._kind, body)
            self.is_applied |= changed != body
            await _send_whole(send, start, changed)

        return send_broken


async def _send_whole(send: Any, start: Any, body: bytes) -> None:
    headers = []
    for name, value in start.get("headers", ()):
        if name.lower() not in _BODY_HEADERS:
            headers.append((name, value))
    if start["status"] not in _BODILESS:
        headers.append((b"content-length", str(len(body)).encode()))
    await send({**start, "headers": headers})
    await send({"type": "http.response.body", "body": body})
