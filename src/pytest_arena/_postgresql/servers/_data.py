"""How are the data of a new cluster made? By initdb once, then from a copy in the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql.servers._base import Unavailable
from pytest_arena._postgresql.servers._programs import environment

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_arena._postgresql.servers._places import ClusterFolder
    from pytest_arena._postgresql.servers._programs import Programs

__all__ = ["FORM", "make_data"]

# Counted up when what initdb is told below changes: then old copies and clusters stay aside.
FORM = "1"
_SECONDS = 120
_BUILTIN_LOCALES = 17  # the first version with locales of its own


def make_data(folder: ClusterFolder, programs: Programs, *, cache: Path) -> None:
    """Fill the folder with the data of a fresh cluster.

    Unpacking a copy takes a tenth of initdb's time.

    Raises:
        Unavailable: initdb failed; it says what it said.
    """
    copy = cache / "postgresql" / f"{programs.key(FORM)}.tar"
    if not _unpacked(copy, folder):
        _initdb(folder, programs)
        _keep(copy, folder)


def _unpacked(copy: Path, folder: ClusterFolder) -> bool:
    _make_empty(folder)
    try:
        # Opened by us: the server's user need not be able to enter the cache.
        with copy.open("rb") as packed:
            _run(["tar", "-x", "-f", "-"], folder, stdin=packed)
    except (OSError, subprocess.SubprocessError):
        return False
    return (folder.data / "global" / "pg_control").exists()


def _initdb(folder: ClusterFolder, programs: Programs) -> None:
    failed = ""
    for locale in _locales(programs.major):
        _make_empty(folder)
        try:
            _run([str(programs.folder / "initdb"), *_arguments(folder), *locale], folder)
        except subprocess.CalledProcessError as error:
            failed = _last_line(error.stderr)
        except (OSError, subprocess.SubprocessError) as error:
            failed = str(error)
        else:
            return
    raise Unavailable(f"initdb of {programs.shown} failed: {failed}")


def _arguments(folder: ClusterFolder) -> list[str]:
    # Whoever can enter the folder of the socket is the user itself: no password is needed. Small
    # segments of the log make an empty cluster 30 MB instead of 45.
    return [
        *("-D", str(folder.data), "--username=postgres", "--auth=trust", "--encoding=UTF8"),
        *("--no-sync", "--wal-segsize=1"),
    ]


def _locales(major: int) -> list[list[str]]:
    """Bytes decide the order, and all of Unicode has its capitals; macOS may not know the name."""
    if major >= _BUILTIN_LOCALES:
        return [["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]]
    return [["--locale=C.UTF-8"], ["--locale=C"]]


def _make_empty(folder: ClusterFolder) -> None:
    shutil.rmtree(folder.data, ignore_errors=True)
    folder.data.mkdir(mode=0o700)
    if folder.account:
        os.chown(folder.data, folder.account.uid, folder.account.gid)


def _keep(copy: Path, folder: ClusterFolder) -> None:
    # A run does without: the next one then calls initdb again.
    with suppress(OSError, subprocess.SubprocessError):
        copy.parent.mkdir(parents=True, exist_ok=True)
        unfinished = copy.with_suffix(f".{uuid.uuid4().hex[:8]}")
        try:
            with unfinished.open("wb") as packed:
                _run(["tar", "-c", "-f", "-", "."], folder, stdout=packed)
            unfinished.replace(copy)
        finally:
            unfinished.unlink(missing_ok=True)


def _run(command: list[str], folder: ClusterFolder, **streams: Any) -> None:
    subprocess.run(  # noqa: S603 - PostgreSQL's own programs, and tar
        command,
        cwd=folder.data,
        env=environment(),
        check=True,
        timeout=_SECONDS,
        stderr=subprocess.PIPE,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **streams},
        **(folder.account.as_arguments() if folder.account else {}),
    )


def _last_line(told: bytes) -> str:
    lines = told.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
