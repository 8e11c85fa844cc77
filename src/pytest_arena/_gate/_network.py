"""The calls of tests to other machines and servers, by Python's audit events of sockets."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from fnmatch import fnmatch
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pytest_arena._interpreter import on_audit_events
from pytest_arena._origin import as_own, is_own
from pytest_arena._owner import cause_of_connection
from pytest_arena._product._server_connections import is_here
from pytest_arena.errors import NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._config._read import Config
    from pytest_arena._ledger import Ledger

__tracebackhide__ = True  # the traceback of a refusal ends at the user's line


def watch_network(config: Config, ledger: Ledger, own_ports: Callable[[], set[int]]) -> None:
    """Report or refuse each call that leaves the machine, until the process ends.

    A call to a server of this machine that ran before the tests counts, too: it may be the
    developer's app. ``own_ports`` are those of the tests' database servers. Python has no event for
    what a C library or uvloop sends.
    """
    mode, *words = config.network
    if mode == "any":
        return
    # Tests may reach the server of their databases, and further databases.
    for url in (config.database, *config.allow):
        host = urlsplit(url).hostname or ""
        server = urlsplit(url).netloc.rpartition("@")[2]
        if not is_here(host):
            words.append(host)
        elif ":" in server:  # its other ports are no servers of databases
            words.append(server)
    network = _Network(ledger, words, own_ports, refuses=mode == "refuse")
    on_audit_events(
        {
            "socket.getaddrinfo": network.look_up,
            "socket.gethostbyname": network.look_up,
            "socket.connect": network.send,
            "socket.sendto": network.send,
            "socket.sendmsg": network.send,
        }
    )


# The ports of this machine that were open before the run. Workers and child runs inherit them.
_PORTS = "ARENA_PORTS_BEFORE"


def _open_ports() -> str:
    """Return the ports on which programs of this machine listen. Only Linux shows them."""
    ports = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state == "0A":  # it listens
                    ports.add(int(local.rpartition(":")[2], 16))
    return " ".join(map(str, ports))


class _Network:
    """Decides what tests may reach: this machine's new servers, and what the options name."""

    def __init__(
        self, ledger: Ledger, words: list[str], own_ports: Callable[[], set[int]], *, refuses: bool
    ) -> None:
        self._ledger = ledger
        self._refuses = refuses
        self._own_ports = own_ports
        self._ports_before = {*map(int, os.environ.setdefault(_PORTS, _open_ports()).split())}
        self._names = {socket.gethostname().lower()} - {"localhost"}
        self._names.update(map(str.lower, filter(None, words)))
        # The addresses of names, each with the test that was reported, None for an allowed name.
        self._addresses: set[tuple[str | None, str]] = set()

    def look_up(self, host: str | bytes | None, port: object = None, *_arguments: object) -> None:
        """Judge a name. Its addresses are not judged again."""
        name = host.decode() if isinstance(host, bytes) else host or ""
        if is_own() or self._is_inside(name):
            return
        test = None
        if not self._is_named(name):
            self._leave(name, port)
            test = self._ledger.test
        with as_own(), suppress(OSError):
            for *_, address in socket.getaddrinfo(name, None):
                self._addresses.add((test, str(address[0])))

    def send(self, sock: socket.socket, address: object) -> None:
        """Judge an address."""
        is_of_network = sock.family in {socket.AF_INET, socket.AF_INET6}
        if is_own() or not is_of_network or not isinstance(address, tuple):
            return
        host, port = str(address[0]), int(address[1])
        if (self._ledger.test, host) in self._addresses:
            self._note(host, port)
        elif (None, host) in self._addresses or self._is_named(host):
            return
        elif not self._is_inside(host):
            self._leave(host, port)
        elif sock.type == socket.SOCK_STREAM and port in self._ports_before - self._own_ports():
            names = ("localhost", f"{host}:{port}", f"localhost:{port}")
            if not any(map(self._is_named, names)):
                self._leave(f"{host}:{port}", None, "a server that ran before the tests")

    def _is_named(self, host: str) -> bool:
        return any(fnmatch(host.lower(), pattern) for pattern in self._names)

    def _is_inside(self, host: str) -> bool:
        """Return whether an address is of this machine."""
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return host.lower() in {"", "localhost"}
        address = getattr(address, "ipv4_mapped", None) or address
        return bool(address.is_loopback or address.is_unspecified)

    def _note(self, host: str, port: object) -> None:
        """Note the first name or address that code reaches, and the code."""
        place = f"{host}:{port}".removesuffix(":None")
        self._ledger.left = self._ledger.left or f"it reaches {place}, by {cause_of_connection()}"

    def _leave(self, host: str, port: object, kind: str = "another machine") -> None:
        """Note that code reaches another machine or server, or refuse it."""
        self._note(host, port)
        if not self._refuses:
            self._ledger.note(f"{{test}}: reached {kind}: {host}   (arena_network)")
            return
        error = NetworkError(
            f"refused: a call to {host}, {kind}",
            why="a test must not change data elsewhere, or depend on it",
            cause=cause_of_connection(),
            fix="replace the call in the test (respx, pytest-httpx, moto), or allow it:\n"
            f"arena_network = refuse {host}",
        )
        raise self._ledger.refused(error)
