"""The calls of tests that leave the machine, by Python's audit events of sockets."""

from __future__ import annotations

import socket
from contextlib import suppress
from fnmatch import fnmatch
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pytest_arena._interpreter import on_audit_events
from pytest_arena._origin import as_own, is_own
from pytest_arena._owner import cause_of_connection
from pytest_arena.errors import NetworkError

if TYPE_CHECKING:
    from pytest_arena._config._read import Config
    from pytest_arena._ledger import Ledger

__tracebackhide__ = True  # the traceback of a refusal ends at the user's line


def watch_network(config: Config, ledger: Ledger) -> None:
    """Report or refuse each call that leaves the machine, until the process ends.

    Python has no event for what a C library or uvloop sends.
    """
    mode, *words = config.network
    if mode == "any":
        return
    # Tests may reach the server of their databases, and further databases.
    urls = [urlsplit(text).hostname for text in (config.database, *config.allow) if "://" in text]
    network = _Network(ledger, [*words, *filter(None, urls)], refuses=mode == "refuse")
    on_audit_events(
        {
            "socket.getaddrinfo": network.look_up,
            "socket.gethostbyname": network.look_up,
            "socket.connect": network.send,
            "socket.sendto": network.send,
            "socket.sendmsg": network.send,
        }
    )


class _Network:
    """Decides which machines a test may reach: this one, and those that the options name."""

    def __init__(self, ledger: Ledger, words: list[str], *, refuses: bool) -> None:
        self._ledger = ledger
        self._refuses = refuses
        self._names = {socket.gethostname().lower()}
        self._networks: list[IPv4Network | IPv6Network] = []
        for word in words:
            self._names.add(word.lower())
            with suppress(ValueError):  # a name
                self._networks.append(ip_network(word, strict=False))
        # The addresses of names, each with the test that was reported, None for an allowed name.
        self._addresses: set[tuple[str | None, str]] = set()

    def look_up(self, host: str | bytes | None, *_arguments: object) -> None:
        """Judge a name. Its addresses are not judged again."""
        name = host.decode() if isinstance(host, bytes) else host or ""
        if is_own() or self._is_inside(name):
            return
        test = None
        if not self._is_named(name):
            self._leave(name)
            test = self._ledger.test
        with as_own(), suppress(OSError):
            for *_, address in socket.getaddrinfo(name, None):
                self._addresses.add((test, str(address[0])))

    def send(self, sock: socket.socket, address: object) -> None:
        """Judge an address."""
        is_of_network = sock.family in {socket.AF_INET, socket.AF_INET6}
        if is_own() or not is_of_network or not isinstance(address, tuple):
            return
        host = str(address[0])
        judged = {(None, host), (self._ledger.test, host)}
        if self._addresses.isdisjoint(judged) and not (
            self._is_inside(host) or self._is_named(host)
        ):
            self._leave(host)

    def _is_named(self, host: str) -> bool:
        return any(fnmatch(host.lower(), pattern) for pattern in self._names)

    def _is_inside(self, host: str) -> bool:
        """Return whether an address is of this machine, or allowed."""
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return host.lower() in {"", "localhost"}
        address = getattr(address, "ipv4_mapped", None) or address
        is_here = address.is_loopback or address.is_unspecified
        return is_here or any(address in network for network in self._networks)

    def _leave(self, host: str) -> None:
        """Note that code reaches another machine, or refuse it.

        Raises:
            NetworkError: ``arena_network = refuse``.
        """
        if not self._refuses:
            self._ledger.note(f"{{test}}: reached another machine: {host}   (arena_network)")
            return
        error = NetworkError(
            f"refused: a call to {host}, another machine",
            why="a test must not change data elsewhere, or depend on it",
            cause=cause_of_connection(),
            fix="replace the call in the test (respx, pytest-httpx, moto), or allow it:\n"
            f"arena_network = refuse {host}",
        )
        raise self._ledger.refused(error)
