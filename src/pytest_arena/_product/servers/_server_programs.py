"""The programs of a private server, and the user that runs them."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_arena._product.servers import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

_KEPT = ("PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class Programs(ABC):
    """A folder with the programs of a server."""

    folder: Path
    version: str  # such as 15.20
    shown: str  # such as /usr/lib/postgresql/15/bin

    @property
    @abstractmethod
    def server(self) -> Path:
        """The server's program."""

    def key(self, form: str) -> str:
        """Return the name of these programs' server. ``form`` is the version of its settings.

        Two builds of one version may have different extensions, so each has a server.
        """
        digest = hashlib.sha256(f"{self.folder}\0{form}".encode()).hexdigest()
        return f"{self.version}-{digest[:8]}"


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the system other than root, because the servers refuse to run as root."""

    uid: int
    gid: int
    is_other: bool  # whether it is not this process' user

    def as_arguments(self) -> dict[str, Any]:
        """Return arguments for ``subprocess``, which also drop root's groups."""
        if not self.is_other:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def account(users: tuple[str, ...], shown: str) -> Account:
    """Return the user that runs a server: this process' user, for root the first of ``users``.

    Raises:
        Unavailable: the system has none of ``users``.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), is_other=False)
    import pwd  # noqa: PLC0415 - not on Windows

    for name in users:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, is_other=True)
    names = " or ".join(users)
    raise Unavailable(f"{shown} refuses root, and this system has no user {names}")


def environment() -> dict[str, str]:
    """Return the environment of the server's processes, a part of this process' environment.

    Another user could read the other variables, and some, such as PGPORT, would change the server.
    """
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "LC_ALL": "C"}
