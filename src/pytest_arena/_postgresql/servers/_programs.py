"""The programs of a PostgreSQL: where they are, which version, and as whom they run."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql.servers._base import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["OLDEST", "Account", "Programs", "account", "environment", "read_programs"]

OLDEST = 13
_SECONDS = 60
_KEPT = ("PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class Programs:
    """A folder with ``initdb`` and ``postgres``."""

    folder: Path
    version: str  # 15.20
    shown: str  # /usr/lib/postgresql/15/bin

    @property
    def major(self) -> int:
        """15 of 15.20."""
        return int(re.split(r"\D", self.version)[0])

    def key(self, form: str) -> str:
        """Name what these programs make, in the form that arena gives it.

        Two builds of one version may have other extensions, so each has its own cluster.
        """
        told = hashlib.sha256(f"{self.folder}\0{form}".encode()).hexdigest()[:8]
        return f"{self.version}-{told}"


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the system, not privileged: PostgreSQL refuses to run as root."""

    uid: int
    gid: int

    def as_arguments(self) -> dict[str, Any]:
        """As ``subprocess`` wants it. No group of root's is left to it."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def account() -> Account | None:
    """Return the user to run as, where we are root: ``postgres``, else ``nobody``.

    None where we are somebody else: then it is ourselves.
    """
    if os.geteuid() != 0:
        return None
    import pwd  # noqa: PLC0415 - not on Windows

    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise Unavailable("PostgreSQL refuses root, and there is no user postgres or nobody")


def environment() -> dict[str, str]:
    """Return what the server's processes are told of this process' environment.

    Not the rest: another user may read it there, and PG's variables would change the server.
    """
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "LC_ALL": "C"}


def read_programs(folder: Path, shown: str) -> Programs:
    """Ask the programs in a folder what they are.

    Raises:
        Unavailable: they do not run here, or are too old.
    """
    program = folder / "postgres"
    try:
        told = subprocess.run(  # noqa: S603 - PostgreSQL's own program, from the user's machine
            [program, "--version"], capture_output=True, text=True, check=True, timeout=_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{program} does not run: {error}") from error
    found = re.search(r"\d+[\w.]*", told.stdout)
    programs = Programs(folder, found[0] if found else "0", shown)
    if programs.major < OLDEST:
        raise Unavailable(f"{shown} has PostgreSQL {programs.version}, needed is {OLDEST} or newer")
    return programs
