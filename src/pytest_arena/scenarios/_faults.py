"""Breaks the answer of one request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_arena._origin import REQUEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._ledger import Request

_FAILURE = {"type": "http.response.start", "status": 500}
BODILESS = {204, 304}
_BODY_HEADERS = {b"content-length", b"transfer-encoding", b"trailer"}


def wrong(value: Any) -> Any:
    """Return a JSON value of the same shape with other values. An empty list gets an item."""
    if isinstance(value, dict):
        return {name: wrong(each) for name, each in value.items()}
    if isinstance(value, list):
        return [wrong(each) for each in value] or ["wrong"]
    if value is None or isinstance(value, str):
        return "" if value else "wrong"
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


# What a broken app did, and the function for a JSON value. The kinds are tried in this order: most
# tests notice one of the first two. A test that notices only an error 500 proves the least.
KINDS: dict[str, tuple[str, Any]] = {
    "wrong": ("answered other values", wrong),
    "idle": ("wrote nothing", None),
    "200": ("answered a success 200", None),  # in place of a refusal
    "500": ("answered an error 500", None),
    "empty": ("answered an empty value", empty),
    "more": ("answered each item of a list twice", more),
}


def broken_body(kind: str, body: bytes) -> bytes:
    """Return the body of a broken answer. It equals the true body if nothing can be broken."""
    try:
        value = json.loads(body)
    except ValueError:
        return b"" if kind == "wrong" else body
    _, change = KINDS[kind]
    changed = change(value)
    return body if changed == value else json.dumps(changed).encode()


@dataclass(slots=True, eq=False)
class Fault:
    """Breaks the answer of one request of a test. ``at`` is its number among ``requests()``.

    ``messages`` are its true answer. An idle app sends them, and does not run.
    """

    kind: str
    at: int
    requests: Callable[[], list[Request]]
    messages: list[Any]
    is_applied: bool = False  # whether an answer was broken

    async def enter(self, call: Any, scope: Any, receive: Any, send: Any) -> None:
        """Call an app for a request, with the fault if this is its request."""
        is_mine = self.requests()[self.at : self.at + 1] == [REQUEST.get()]
        if is_mine and scope["type"] != "websocket":
            if self.kind == "500":
                self.is_applied = True
                await _send_whole(send, _FAILURE, b"Internal Server Error")
                return
            if self.kind in {"idle", "200"}:
                self.is_applied = True
                for message in self.messages:
                    is_start = self.kind == "200" and "status" in message
                    await send({**message, "status": 200} if is_start else message)
                return
            # A compressed body cannot be broken.
            scope["headers"] = [each for each in scope["headers"] if each[0] != b"accept-encoding"]
            send = self._breaking(send)
        await call(scope, receive, send)

    def _breaking(self, send: Any) -> Any:
        """Return a ``send`` that sends another body with the headers of the answer."""
        start: Any = None
        body = b""

        async def send_broken(message: Any) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            if message["type"] != "http.response.body":
                await send(message)
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            changed = broken_body(self.kind, body)
            self.is_applied |= changed != body
            await _send_whole(send, start, changed)

        return send_broken


async def _send_whole(send: Any, start: Any, body: bytes) -> None:
    headers = [each for each in start.get("headers", ()) if each[0].lower() not in _BODY_HEADERS]
    if start["status"] not in BODILESS:
        headers.append((b"content-length", str(len(body)).encode()))
    await send({**start, "headers": headers})
    await send({"type": "http.response.body", "body": body})
