"""How do tests in another language say when a level begins and ends? By HTTP, with a token."""

from __future__ import annotations

import hmac
import json
import os
import queue
import socketserver
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from pytest_arena._app._app_errors import no_port

if TYPE_CHECKING:
    from collections.abc import Mapping

HOST = "127.0.0.1"
TOKEN = "ARENA_SERVE_TOKEN"  # noqa: S105 - the name of the variable
_LARGEST = 1 << 20  # bytes of a body
_STEP = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class Reply:
    """What is said to who has asked: a status of HTTP, and JSON."""

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """What is asked for: it waits until it is answered."""

    method: str
    path: str
    arguments: Mapping[str, Any]
    answered: Future[Reply] = field(default_factory=Future)

    def answer(self, status: int, content: object) -> None:
        """Answer it, unless that is done.

        What JSON does not know, a date or a Decimal, is its text.

        Raises:
            TypeError: it cannot be told even so.
        """
        if not self.answered.done():
            self.answered.set_result(Reply(status, json.dumps(content, default=str)))


class ControlServer(socketserver.ThreadingTCPServer):
    """Takes what is asked for on a port of this machine, one after the other, until it is stopped.

    Who does not know the token learns nothing. It stops by itself when the process that began this
    one is gone, however that has ended.

    Raises:
        ConfigError: the port is taken.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, token: str, *, port: int = 0) -> None:
        self.token = token
        self._asked: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._parent = os.getppid()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise no_port(port, error) from None
        threading.Thread(
            target=self.serve_forever, name="arena-serve", daemon=True
        ).start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{HOST}:{self.server_address[1]}"

    def take(self) -> Command | None:
        """Wait for what is asked for next; None when all is to end."""
        while (
            True
        ):  # a signal that comes just before a wait without an end is not handled in it
            with suppress(queue.Empty):
                return self._asked.get(timeout=_STEP)

    def ask(self, asked: Command) -> Reply:
        """Have it done in the thread that takes; wait until it is."""
        self._asked.put(asked)
        return asked.answered.result()

    def stop(self, *_: object) -> None:
        """Have all end; also as the handler of a signal."""
        self._asked.put(None)

    def service_actions(self) -> None:
        """Twice a second: is there still somebody who could ask?"""
        if os.getppid() != self._parent:
            self._parent = os.getppid()
            self.stop()


class _Handler(BaseHTTPRequestHandler):
    server: ControlServer  # type: ignore[mutable-override]  # one of that kind alone makes handlers
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self._say(self._answer())

    def do_GET(self) -> None:
        self.do_POST()

    def _answer(self) -> Reply:
        size = int(self.headers.get("Content-Length") or 0)
        if size > _LARGEST:
            self.close_connection = True
            return _refusal(413, f"a body has at most {_LARGEST:,} bytes")
        body = self.rfile.read(size)
        given = self.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {self.server.token}".encode()):
            return _refusal(401, f"Authorization: Bearer …, with the value of {TOKEN}")
        try:
            arguments = json.loads(body or "{}")
        except ValueError as error:
            return _refusal(400, f"the body is no JSON: {error}")
        if not isinstance(arguments, dict):
            return _refusal(400, "the body is no JSON object")
        return self.server.ask(Command(self.command, self.path, arguments))

    def _say(self, answer: Reply) -> None:
        body = f"{answer.text}\n".encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Whoever asks knows what."""


def _refusal(status: int, why: str) -> Reply:
    return Reply(status, json.dumps({"error": why}))
