"""Private servers, which pytest-arena starts for all runs of a user and stops when unused.

A product subclasses ``PrivateServers`` with its programs and settings.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena._product._server_targets import is_here
from pytest_arena.errors import ServerError, redact_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_arena._config._read import Config
    from pytest_arena._values import Address

_WHY = "pytest-arena makes a database for each test, on a server where it may create databases"


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


def first_usable(
    product: str,
    sources: Mapping[str, Callable[[Config], Server]],
    config: Config,
    *,
    fix: str,
) -> Server:
    """Return the server of the first source that has one. Keys are the sources' names.

    Raises:
        ServerError: with each source that was tried, and why it failed.
    """
    reasons = []
    for name, find in sources.items():
        try:
            return find(config)
        except Unavailable as reason:
            reasons.append(f"{name}: {' '.join(str(reason).split())}")
    raise ServerError(
        f"there is no {product} for the tests",
        why=_WHY,
        cause="\n".join(reasons),
        fix=fix,
    )


def foreign_host(config: Config, variable: str) -> list[str]:
    """Return why a local service cannot be at the host of a variable: it is another machine.

    The list is empty if it may be there.

    Raises:
        Unavailable: ``arena_database = own`` wants a private server and no local service.
    """
    if config.database == "own":
        raise Unavailable("not asked for, a private server is")
    host = os.environ.get(variable, "")
    if not host or is_here(host):
        return []
    return [
        f"{variable}={host} is another machine, which is used only if arena_database names it"
    ]


def check_system() -> None:
    """Raise ``Unavailable`` on Windows, where no private server can be started."""
    if sys.platform == "win32":
        raise Unavailable("a private server listens on a socket alone: not for Windows")


def named_unusable(config: Config, reason: Unavailable, form: str) -> ServerError:
    """Return the error for the server that ``arena_database`` names. ``form`` shows a URL."""
    return ServerError(
        f"the server for the tests cannot be used: {reason}",
        why=_WHY,
        cause=f"{redact_url(config.server_url)} from {config.place('database')}",
        fix=reason.fix or form,
    )
