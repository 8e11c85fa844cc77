"""Private servers, which pytest-arena starts for all runs of a user and stops when unused.

A product subclasses ``PrivateServers`` with its programs and settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_arena._values import Address


@dataclass(frozen=True)
class Server:
    """A server that answers. Its login may create databases, unless ``is_named``."""

    address: Address  # of a maintenance database
    shown: str  # its version and origin, for the run's summary
    is_private: bool = False  # whether pytest-arena has started it
    # Whether tests use the database of the address, because the login may create none.
    is_named: bool = False

    def close(self) -> None:
        """End this process' use of the server. Idempotent. It never raises."""


class Unavailable(Exception):
    """No usable server was found. The text is the reason, ``fix`` the next step or ""."""

    def __init__(self, reason: str, *, fix: str = "") -> None:
        super().__init__(reason)
        self.fix = fix
