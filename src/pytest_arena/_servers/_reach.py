"""Can the server's user run the programs? A folder of root's own may be closed to it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_arena._servers._base import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_arena._servers._places import ClusterFolder
    from pytest_arena._servers._programs import Account, Programs

__all__ = ["reachable"]

_SECONDS = 60


def reachable(programs: Programs, folder: ClusterFolder) -> Programs:
    """Return the programs, or a copy of them that the server's user can run.

    Raises:
        Unavailable: it can run neither.
    """
    if folder.account is None or _runs(programs, folder.account):
        return programs
    copied = replace(programs, folder=_copied(programs.folder, folder))
    if not _runs(copied, folder.account):
        raise Unavailable(f"{programs.folder} is closed to the user that PostgreSQL runs as")
    return copied


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


def _copied(programs: Path, folder: ClusterFolder) -> Path:
    """Copy a wheel's ``package/pginstall`` and the libraries beside it, ``package.libs``."""
    installed, package = programs.parent, programs.parent.parent
    target = folder.path / "programs" / package.name / installed.name
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(installed, target, dirs_exist_ok=True, symlinks=True)
    if libraries.is_dir():
        shutil.copytree(libraries, folder.path / "programs" / libraries.name, dirs_exist_ok=True)
    _give_away(folder.path / "programs", folder.account)
    return target / programs.name


def _give_away(top: Path, account: Account | None) -> None:
    if account:
        for path in (top, *top.rglob("*")):
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
