"""The HTTP interface for tests in another language."""

import hmac
import json
import os
import queue
import socketserver
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from pytest_arena._app._app_errors import no_port

HOST = "127.0.0.1"
TOKEN = "ARENA_SERVE_TOKEN"  # noqa: S105 - the name of the variable
_MAX_BODY = 1 << 20  # bytes
_PAUSE = 0.5  # seconds


# An answer: an HTTP status and JSON.
Reply = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Command:
    """A request to the control interface. The thread of the HTTP server waits for the reply."""

    method: str
    path: str
    arguments: Mapping[str, object]
    reply: Future[Reply] = field(default_factory=Future)

    def answer(self, status: int, content: object) -> None:
        """Send the reply, unless a reply was sent. Values that JSON lacks become texts.

        Raises:
            TypeError: JSON cannot represent the content.
        """
        if not self.reply.done():
            text = json.dumps(content, default=str)
            self.reply.set_result((status, text))


class ControlServer(socketserver.ThreadingTCPServer):
    """Receives commands on a port of this machine.

    Clients without the token get no information. The server stops when the parent process ends.

    Raises:
        ConfigError: another program uses the port.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, token: str, *, port: int = 0) -> None:
        self.token = token
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
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
        """The URL of the control interface."""
        return f"http://{HOST}:{self.server_address[1]}"

    def take(self) -> Command | None:
        """Wait for the next command. Return None if the server stops."""
        # A wait without a timeout would block the handling of a signal that arrived just before.
        while True:
            with suppress(queue.Empty):
                return self._commands.get(timeout=_PAUSE)

    def run(self, command: Command) -> Reply:
        """Run a command in the thread that calls ``take``, and wait for the reply."""
        self._commands.put(command)
        return command.reply.result()

    def stop(self, *_: object) -> None:
        """Stop the server. This is also a signal handler."""
        self._commands.put(None)

    def service_actions(self) -> None:
        """Stop if the parent process has ended. ``serve_forever`` calls this method regularly."""
        if os.getppid() != self._parent:
            self._parent = os.getppid()
            self.stop()


class _Handler(BaseHTTPRequestHandler):
    server: ControlServer  # type: ignore[mutable-override]  # only a ControlServer uses the handler
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        status, text = self._reply()
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.do_POST()

    def _reply(self) -> Reply:
        size = int(self.headers.get("Content-Length") or 0)
        if size > _MAX_BODY:
            self.close_connection = True
            return _refusal(413, f"a body has at most {_MAX_BODY:,} bytes")
        body = self.rfile.read(size)
        authorization = self.headers.get("Authorization", "").encode()
        expected = f"Bearer {self.server.token}".encode()
        if not hmac.compare_digest(authorization, expected):
            return _refusal(401, f"Authorization: Bearer …, with the value of {TOKEN}")
        try:
            arguments = json.loads(body or "{}")
        except ValueError as error:
            return _refusal(400, f"the body is not JSON: {error}")
        if not isinstance(arguments, dict):
            return _refusal(400, "the body is not a JSON object")
        command = Command(self.command, self.path, arguments)
        return self.server.run(command)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def _refusal(status: int, reason: str) -> Reply:
    return status, json.dumps({"error": reason})
