"""Breaks the answer or the commit of one request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from pytest_arena._origin import REQUEST
from pytest_arena._values import counted

if TYPE_CHECKING:
    from collections.abc import Callable

_KINDS = ("wrong", "empty", "more", "500", "commit")
_FAILURE = {
    "type": "http.response.start",
    "status": 500,
    "headers": [(b"content-type", b"text/plain; charset=utf-8")],
}
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


_CHANGES = {"wrong": wrong, "empty": empty, "more": more}


def broken_body(kind: str, body: bytes) -> bytes:
    """Return the body of a broken answer. It equals the true body if nothing can be broken."""
    try:
        value = json.loads(body)
    except ValueError:
        return b"" if kind == "wrong" else body
    changed = _CHANGES[kind](value)
    return body if changed == value else json.dumps(changed).encode()


class Fault:
    """A ``with`` block in which one request is broken: see ``Arena.fault``."""

    def __init__(self, faults: list[Callable[..., Any]], kind: str, at: int) -> None:
        if kind not in _KINDS:
            raise ValueError(f"{kind!r} is none of the faults: {', '.join(_KINDS)}")
        self._is_applied = False  # whether an answer was broken or a commit has failed
        self._faults = faults  # of the requests that the test sends
        self._kind = kind
        self._at = at
        self._number = 0
        self._request: object = False  # whose commits fail: None is no request

    def __enter__(self) -> Self:
        if self._kind == "commit":
            event.listen(Engine, "commit", self._fail_commit)
        self._faults.append(self.enter)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._faults.remove(self.enter)
        if self._kind == "commit":
            event.remove(Engine, "commit", self._fail_commit)
        if kind is None and not self._is_applied:
            raise AssertionError(
                f"arena.fault({self._kind!r}, at={self._at}) broke nothing in this block, which "
                f"sent {counted(self._number, 'request')}"
            )

    async def enter(self, call: Any, scope: Any, receive: Any, send: Any) -> None:
        """Call an app for a request, with the fault if this is its request."""
        request = REQUEST.get()
        is_counted = request is not None and not request.is_login
        is_mine = is_counted and self._number == self._at
        self._number += is_counted
        if is_mine and self._kind == "commit":
            self._request = request
        elif is_mine and scope["type"] != "websocket":
            if self._kind == "500":
                self._is_applied = True
                await _send_whole(send, _FAILURE, b"Internal Server Error")
                return
            send = self._breaking(send)
        await call(scope, receive, send)

    def _fail_commit(self, connection: Any) -> None:
        if self._request is REQUEST.get():
            self._is_applied = True
            # SQLAlchemy expects that a failed commit has ended the transaction.
            connection.dialect.do_rollback(connection.connection)
            raise OperationalError("COMMIT", None, RuntimeError("arena.fault"))

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
            self._is_applied |= changed != body
            await _send_whole(send, start, changed)

        return send_broken


async def _send_whole(send: Any, start: Any, body: bytes) -> None:
    sent = start.get("headers", ())
    headers = [each for each in sent if each[0].lower() not in _BODY_HEADERS]
    if start["status"] not in _BODILESS:
        headers.append((b"content-length", str(len(body)).encode()))
    await send({**start, "headers": headers})
    await send({"type": "http.response.body", "body": body})
