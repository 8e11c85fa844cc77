"""Can the server's user run the programs? A folder of root's own may be closed to it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._postgresql.servers._base import Unavailable
from pytest_arena._postgresql.servers._places import ClusterFolder

if TYPE_CHECKING:
    from pytest_arena._postgresql.servers._programs import Account, Programs

__all__ = ["homes_of_programs", "reachable"]

_SECONDS = 60


def reachable(programs: Programs, folder: ClusterFolder) -> Programs:
    """Return the programs, or a copy of them that the server's user can run.

    Raises:
        Unavailable: it can run neither.
    """
    if folder.account is None or _runs(programs, folder.account):
        return programs
    for home in homes_of_programs(folder):
        copied = replace(programs, folder=_copied(programs.folder, home, folder.account))
        if _runs(copied, folder.account):
            return copied
        shutil.rmtree(home, ignore_errors=True)
    raise Unavailable(f"{programs.folder} is closed to the user that PostgreSQL runs as")


def homes_of_programs(folder: ClusterFolder) -> list[Path]:
    """Return where a copy may be. Memory may be closed to programs: Docker mounts it so."""
    elsewhere = replace(folder, path=Path("/var/tmp", *folder.path.parts[-2:]))  # noqa: S108 - with a folder that nobody else enters
    return [folder.path / "programs", elsewhere.path / "programs"]


def _runs(programs: Programs, account: Account) -> bool:
    try:
        subprocess.run(  # noqa: S603 - PostgreSQL's own program
            [programs.folder / "postgres", "--version"],
            cwd="/",
            check=True,
            capture_output=True,
            timeout=_SECONDS,
            **account.as_arguments(),
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _copied(programs: Path, home: Path, account: Account) -> Path:
    """Copy a wheel's ``package/pginstall`` and the libraries beside it, ``package.libs``."""
    installed, package = programs.parent, programs.parent.parent
    target = home / package.name / installed.name
    libraries = package.with_name(f"{package.name}.libs")
    ClusterFolder(home.parent, account).ensure()
    shutil.copytree(installed, target, dirs_exist_ok=True, symlinks=True)
    if libraries.is_dir():
        shutil.copytree(libraries, home / libraries.name, dirs_exist_ok=True)
    _give_away(home, account)
    return target / programs.name


def _give_away(top: Path, account: Account) -> None:
    for path in (top, *top.rglob("*")):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
