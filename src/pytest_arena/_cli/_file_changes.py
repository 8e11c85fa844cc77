"""Shows changes of files as a diff, and writes all or none."""

import difflib
import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_arena.errors import ConfigError


@dataclass(frozen=True, slots=True)
class FileChange:
    """The content of a file before and after a change. ``before`` is None for a new file."""

    path: Path
    before: bytes | None
    after: bytes

    def diff(self, folder: Path) -> Iterator[str]:
        """Yield the lines of a unified diff, with their line ends."""
        relative = os.path.relpath(self.path, folder)
        name = Path(relative).as_posix()
        source = "/dev/null" if self.before is None else f"a/{name}"
        old = _lines(self.before or b"")
        new = _lines(self.after)
        target = f"b/{name}"
        for line in difflib.unified_diff(old, new, source, target):
            yield line
            if not line.endswith("\n"):
                yield "\n\\ No newline at end of file\n"


def _lines(content: bytes) -> list[str]:
    return [line.decode(errors="replace") for line in io.BytesIO(content)]


def write_all(changes: list[FileChange]) -> None:
    """Write all files or none. A temporary file with the new content replaces each file.

    Raises:
        ConfigError: a file cannot be written, or has changed since it was read.
    """
    written = []
    moved = []
    try:
        for change in changes:
            path = change.path.resolve()  # a symbolic link stays
            if _content(path) != change.before:
                raise OSError("it has changed since it was read")  # noqa: TRY301 - as an error of a write
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f".{path.name}.{os.getpid()}")
            written.append(new)
            new.write_bytes(change.after)
            if change.before is not None:
                shutil.copymode(path, new)
        for change, new in zip(changes, written, strict=True):
            new.replace(change.path.resolve())
            moved.append(change)
    except OSError as error:
        for done in moved:
            if done.before is None:
                done.path.unlink()
            else:
                done.path.write_bytes(done.before)
        raise ConfigError(
            f"{change.path} cannot be written: {error.strerror or error}",
            why="the command changes all files or none, so it wrote nothing",
            cause="the folder is read-only, belongs to another user, or was changed meanwhile",
            fix="make the file writable and repeat the command, or paste the lines of the diff",
        ) from error
    finally:
        for new in written:
            new.unlink(missing_ok=True)


def _content(path: Path) -> bytes | None:
    if not path.exists():
        return None
    # Opening for writing fails for a read-only file, which a move would replace.
    with path.open("r+b") as file:
        return file.read()
