"""Private servers: pytest-arena starts them, all runs of a user share them, and they stop unused.

A product gives its programs and settings (``PrivateServers``). The rest is here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_arena._values import Address


@dataclass(frozen=True)
class Server:
    """A server that answers, and lets its login create databases, unless ``is_named``."""

    address: Address  # of a maintenance database
    shown: str  # its version and origin, for the run's summary
    is_private: bool = False  # pytest-arena has started it
    # The login may create none: tests use the database of the address itself.
    is_named: bool = False

    def close(self) -> None:
        """End this process' use of it. Idempotent; never raises."""


class Unavailable(Exception):
    """A source has no usable server. The text is the reason, ``fix`` the next step or ""."""

    def __init__(self, reason: str, *, fix: str = "") -> None:
        super().__init__(reason)
        self.fix = fix
