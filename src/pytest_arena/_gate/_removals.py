"""Refuses to remove or rename a database file of the app."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena._config._supported import FILE_FORMAT
from pytest_arena._gate import _gate_notes
from pytest_arena._interpreter import on_audit_events
from pytest_arena._origin import is_own

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._product import Core

__tracebackhide__ = True  # a traceback ends at a line of the app or of the test


def watch_removals(core: Callable[[], Core]) -> None:
    """Watch removed and renamed files until the process ends.

    An audit hook is called before the system call, and can refuse it. The watch begins before the
    import of SQLite's driver, because a conftest may remove a file earlier.
    """

    def removed(name: Any, folder: int = -1) -> None:
        _admit(core(), name, folder, "removing")

    def renamed(old: Any, new: Any, folder: int = -1, new_folder: int = -1) -> None:
        _admit(core(), old, folder, "renaming")
        _admit(core(), new, new_folder, "replacing")

    on_audit_events({"os.remove": removed, "os.rename": renamed})


def _admit(core: Core, name: Any, folder: int, action: str) -> None:
    """Refuse a change of a file that is older than the run. Record the state of another file."""
    if is_own():
        return
    path = Path(os.fsdecode(name))
    if folder >= 0:  # `shutil.rmtree` names a file relative to an open folder
        with suppress(OSError):
            path = Path(f"/proc/self/fd/{folder}").readlink() / path
    file = str(path)
    for suffix in FILE_FORMAT.logs:
        file = file.removesuffix(suffix)
    if not core.files.is_of_earlier_run(file):
        return
    if core.files.belongs_to_app(file):
        raise core.ledger.refused(_gate_notes.changed_file(file, action))
    core.files.register_opened(file)
