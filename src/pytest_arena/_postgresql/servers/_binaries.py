"""A private server from PostgreSQL's programs, where they are installed on this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._postgresql.servers._base import Server, Unavailable, Wanted
from pytest_arena._postgresql.servers._programs import read_programs

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BinariesSource", "folders"]

# Where the packagers of the systems put them.
_USUAL = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
_NONE = "no initdb: not in PGBIN, not by pg_config, not on PATH, not where systems put it"


class BinariesSource:
    """A private cluster, run by the first installed PostgreSQL that can."""

    name = "local binaries"

    def find(self, wanted: Wanted) -> Server:
        """Find the cluster of these programs running, or start it."""
        if sys.platform == "win32":
            raise Unavailable("a private server listens on a socket alone: not for Windows")
        from pytest_arena._postgresql.servers._cluster import find_cluster  # noqa: PLC0415 - not on Windows

        reasons: list[str] = []
        for folder in folders():
            try:
                return find_cluster(read_programs(folder, str(folder)), cache=wanted.cache)
            except Unavailable as reason:
                reasons.append(str(reason))
        raise Unavailable("; ".join(reasons) or _NONE)


def folders() -> list[Path]:
    """Return the folders with both programs that a cluster needs, the best first."""
    found = (folder.resolve() for folder in _candidates())
    return list(dict.fromkeys(folder for folder in found if _is_complete(folder)))


def _candidates() -> Iterator[Path]:
    if chosen := os.environ.get("PGBIN"):
        yield Path(chosen)
    yield from _by_pg_config()
    if program := shutil.which("postgres"):
        yield Path(program).resolve().parent
    for pattern in _USUAL:
        yield from sorted(Path("/").glob(pattern[1:]), key=_version_in, reverse=True)


def _by_pg_config() -> Iterator[Path]:
    if program := shutil.which("pg_config"):
        told = subprocess.run([program, "--bindir"], capture_output=True, text=True, check=False)  # noqa: S603 - PostgreSQL's own program, from PATH
        if told.returncode == 0:
            yield Path(told.stdout.strip())


def _version_in(folder: Path) -> float:
    numbers = re.findall(r"\d+(?:\.\d+)?", folder.parent.name)
    return float(numbers[0]) if numbers else 0.0


def _is_complete(folder: Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres"))
