"""Finds files of the project that a test writes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._origin import is_own, user_line
from pytest_arena._process import on_audit_events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._run._test import Current

_WRITES = os.O_WRONLY | os.O_RDWR
_MOST_FILES = 8


class WrittenFiles:
    """The files below the project's root that Python opened for writing in the running test.

    Hidden files and folders belong to tools and do not count. Temporary folders and folders of
    pytest-arena do not count either. Opening a file for reading takes 0.2 µs longer.
    """

    def __init__(
        self,
        current: Current,
        root: Path,
        own_folders: tuple[Path | None, ...],
        temporary: Callable[[], Path | None],
    ) -> None:
        self._current = current
        self._root = str(root)
        self._own_folders = own_folders
        self._start = os.path.join(self._root, "")  # noqa: PTH118 - a prefix of names
        self._temporary = temporary
        self.lines: dict[str, str] = {}  # the test's line for each file, of one test
        self.close = on_audit_events({"open": self._opened, "os.rename": self._renamed})

    # Audit events, called in the thread that writes: https://docs.python.org/3/library/audit_events.html

    def _opened(self, name: object, mode: str | None, flags: int | None) -> None:
        if mode is None:  # os.open passes only flags
            is_write = bool((flags or 0) & _WRITES)
        else:
            is_write = mode[:1] in {"w", "a", "x"} or "+" in mode
        if is_write and self._current.test is not None:
            self._note(name)

    def _renamed(self, _old: object, new: object, *_: object) -> None:
        if self._current.test is not None:
            self._note(new)

    def _note(self, name: object) -> None:
        if not isinstance(name, str | bytes | os.PathLike):
            return
        file = os.path.abspath(os.fsdecode(name))  # noqa: PTH100 - the folder may change later
        if not file.startswith(self._start) or file in self.lines or is_own():
            return
        path_in_root = Path(file.removeprefix(self._start))
        for part in path_in_root.parts:
            if part.startswith(".") or part in _FOLDERS_OF_TOOLS:
                return
        line = user_line()
        self.lines[file] = f"{line.file}:{line.number}" if line is not None else ""

    def existing(self) -> Iterator[str]:
        """Yield a line for each file that still exists."""
        left_out = [*self._folders_left_out()]
        existing = []
        for name, line in [*self.lines.items()]:
            file = Path(name)
            if file.is_file() and not any(map(file.is_relative_to, left_out)):
                shown = file.relative_to(self._root).as_posix()
                where = line.removeprefix(self._start)
                if where:
                    shown += f" ({where})"
                existing.append(shown)
        yield from existing[:_MOST_FILES]
        if len(existing) > _MOST_FILES:
            yield f"and {len(existing) - _MOST_FILES:,} more"

    def _folders_left_out(self) -> Iterator[Path]:
        """Yield the temporary folders, and pytest-arena's folders, that are inside the project."""
        for folder in (
            Path(tempfile.gettempdir()).resolve(),
            *self._own_folders,
            self._temporary(),
        ):
            if folder is not None and str(folder).startswith(self._start):
                yield folder


_FOLDERS_OF_TOOLS = {"__pycache__", "node_modules"}
