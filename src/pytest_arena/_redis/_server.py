"""A private Redis server of this process."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from threading import Thread

from pytest_arena._origin import as_own
from pytest_arena._owner import cause_of_connection
from pytest_arena._process import until
from pytest_arena.errors import ServerError

PROGRAMS = ("redis-server", "valkey-server")
_HOST = "127.0.0.1"
_START_SECONDS = 10.0
_END = b"\n"

# The shell ends the server at a line from this process, or when it and its forks have ended.
_WITH_THIS_PROCESS = """
exec 3<&0
"$@" <&- 3<&- &
read -r _ <&3
kill -9 $!
rm -rf "$0"
"""


class RedisServer:
    """A server on a free port of the loopback. It keeps its content in memory only.

    Nobody else may enter its folder.
    """

    def __init__(self) -> None:
        self.port = 0
        self.is_fake = False  # of fakeredis, which has no INFO
        self._shell: subprocess.Popen[bytes] | None = None
        with as_own():
            self._start()

    def _start(self) -> None:
        """Start a program of ``PATH``, else the server of fakeredis.

        Raises:
            ServerError: there is none.
        """
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if program is not None:
            self._start_program(program)
            return
        try:
            from fakeredis import TcpFakeServer  # noqa: PLC0415 - an extra
        except ImportError:
            raise ServerError(
                f"there is no Redis server for the tests: {', '.join(PROGRAMS)}, fakeredis",
                why="each test process has its own Redis server, so that no test reaches yours",
                cause=cause_of_connection(),
                fix="install redis-server or valkey-server, or: pip install 'pytest-arena[redis]'\n"
                "or, if tests may change yours: arena_allow = redis://host:port/*",
            ) from None
        server = TcpFakeServer((_HOST, 0))
        server.daemon_threads = True
        self.is_fake = True
        Thread(target=server.serve_forever, daemon=True).start()
        self.port = server.server_address[1]

    def _start_program(self, program: str) -> None:
        with socket.create_server((_HOST, 0)) as free:
            _, self.port = free.getsockname()
        folder = tempfile.mkdtemp(prefix="arena-redis-")
        settings = {"port": self.port, "bind": _HOST, "save": "", "appendonly": "no", "dir": folder}
        words = [str(word) for name in settings for word in (f"--{name}", settings[name])]
        self._shell = subprocess.Popen(  # noqa: S603 - the server's program
            ["/bin/sh", "-c", _WITH_THIS_PROCESS, folder, program, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C does not reach it
        )
        until(lambda: self.answers, within=_START_SECONDS)

    @property
    def answers(self) -> bool:
        """Whether the server accepts connections."""
        try:
            socket.create_connection((_HOST, self.port)).close()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """End the server, and remove its folder."""
        if self._shell is not None:
            self._shell.communicate(_END)
