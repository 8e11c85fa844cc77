"""Finds the PostgreSQL server for the test databases, or starts one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_arena._values import Address


@dataclass(frozen=True)
class Server:
    """A server that answers, and lets its role create databases, unless ``is_named``."""

    address: Address  # of a maintenance database
    shown: str  # its version and origin, for the run's summary
    is_private: bool = False  # pytest-arena has started it
    # The role may create none: tests use the database of the address itself.
    is_named: bool = False

    def close(self) -> None:
        """End this process' use of it. Idempotent, and never raises."""


class Unavailable(Exception):
    """A source has no usable server. The text is the reason, ``fix`` the next step or ""."""

    def __init__(self, reason: str, *, fix: str = "") -> None:
        super().__init__(reason)
        self.fix = fix
