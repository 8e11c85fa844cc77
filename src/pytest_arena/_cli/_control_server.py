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
_PAUSE = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class Command:
    """A request to the control interface. The thread of the HTTP server waits for the reply."""

    name: str  # the method and the path
    arguments: Mapping[str, object]
    reply: Future[tuple[int, str]] = field(default_factory=Future)

    def answer(self, status: int, content: object) -> None:
        """Send a status and JSON. Values that JSON lacks become texts.

        Raises:
            TypeError: JSON cannot represent the content.
        """
        text = json.dumps(content, default=str)
        self.reply.set_result((status, text))


class ControlServer(socketserver.ThreadingTCPServer):
    """Receives commands on a port of this machine. Clients without the token get no information.

    Raises:
        ConfigError: another program uses the port.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, token: str, *, port: int = 0) -> None:
        self.token = token
        self.commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
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
                return self.commands.get(timeout=_PAUSE)

    def stop(self, *_: object) -> None:
        """Stop the server. This is also a signal handler."""
        self.commands.put(None)

    def service_actions(self) -> None:
        """Stop if the parent process has ended. ``serve_forever`` calls this method regularly."""
        if os.getppid() != self._parent:
            self._parent = os.getppid()
            self.stop()


class _Handler(BaseHTTPRequestHandler):
    server: ControlServer  # type: ignore[mutable-override]  # only a ControlServer uses the handler

    def do_POST(self) -> None:
        status, text = self._reply()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(f"{text}\n".encode())

    def do_GET(self) -> None:
        self.do_POST()

    def _reply(self) -> tuple[int, str]:
        authorization = self.headers.get("Authorization", "").encode()
        expected = f"Bearer {self.server.token}".encode()
        if not hmac.compare_digest(authorization, expected):
            return 401, json.dumps({"error": f"Authorization: Bearer <{TOKEN}>"})
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            arguments = {**json.loads(body or "{}")}
        except (TypeError, ValueError) as error:
            return 400, json.dumps({"error": f"the body is no JSON object: {error}"})
        command = Command(f"{self.command} {self.path}", arguments)
        self.server.commands.put(command)
        return command.reply.result()

    def log_message(self, *_: object) -> None:
        """Log nothing."""
