"""Finds assertions about snapshots that the run itself writes."""

import re
from types import FrameType
from typing import Any

# The options of syrupy, pytest-snapshot and pytest-regressions that write snapshots.
_UPDATES = (
    "update_snapshots",
    "update_new_snapshots_only",
    "snapshot_update",
    "force_regen",
    "regen_all",
)
_INLINE_FLAGS = {"create", "fix", "review", "trim", "update"}  # of inline-snapshot
_LIBRARIES = {
    "inline_snapshot",
    "pytest_regressions",
    "pytest_snapshot",
    "snapshottest",
    "syrupy",
}
_NAME = re.compile(r"\b[A-Za-z_]\w*")


def updates_snapshots(config: Any) -> bool:
    """Return whether a run writes answers into snapshot files."""
    option = config.option
    flags = set(str(getattr(option, "inline_snapshot", None)).split(","))
    is_update = any(getattr(option, name, False) for name in _UPDATES)
    return is_update or bool(flags & _INLINE_FLAGS)


def has_snapshot(text: str, frame: FrameType) -> bool:
    """Return whether an assertion names a snapshot, or a function that makes snapshots.

    Args:
        text: the text of the assertion.
        frame: the frame of the function that asserts.
    """
    for name in _NAME.findall(text):
        value = frame.f_locals.get(name, frame.f_globals.get(name))
        for kind in (value, type(value)):
            module = str(getattr(kind, "__module__", ""))
            if module.partition(".")[0] in _LIBRARIES:
                return True
    return False
