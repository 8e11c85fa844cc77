"""Changes of files: shown as a diff, and written all or none."""

from __future__ import annotations

import difflib
import io
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file before and after. ``before`` is None where there is none yet."""

    path: Path
    before: bytes | None
    after: bytes

    def diff(self, folder: Path) -> Iterator[str]:
        """Yield the lines of a unified diff, each with its end."""
        name = Path(os.path.relpath(self.path, folder)).as_posix()
        source = "/dev/null" if self.before is None else f"a/{name}"
        old, new = (
            [line.decode(errors="replace") for line in io.BytesIO(content or b"")]
            for content in (self.before, self.after)
        )
        for line in difflib.unified_diff(old, new, source, f"b/{name}"):
            yield (
                line
                if line.endswith("\n")
                else f"{line}\n\\ No newline at end of file\n"
            )


def write_all(changes: list[FileChange]) -> None:
    """Write all files, or none: each is written beside its place first, and moved there.

    Raises:
        ConfigError: a file cannot be written, or has changed since it was read.
    """
    new: list[Path] = []
    moved: list[FileChange] = []
    try:
        for change in changes:
            path = change.path.resolve()  # a link stays one
            if _content(path) != change.before:
                raise OSError("it has changed meanwhile")  # noqa: TRY301 - as any other reason
            path.parent.mkdir(parents=True, exist_ok=True)
            new.append(path.with_name(f".{path.name}.{os.getpid()}"))
            new[-1].write_bytes(change.after)
            if change.before is not None:
                shutil.copymode(path, new[-1])
        for change, file in zip(changes, new, strict=True):
            file.replace(change.path.resolve())
            moved.append(change)
    except OSError as error:
        for done in moved:
            done.path.unlink() if done.before is None else done.path.write_bytes(
                done.before
            )
        raise ConfigError(
            f"{change.path} cannot be written: {error.strerror or error}",
            why="nothing was written: all files are changed, or none",
            cause="the folder is read-only, belongs to somebody else, or was changed meanwhile",
            fix="call it again where files can be written; or paste the lines of the diff",
        ) from error
    finally:
        for file in new:
            file.unlink(missing_ok=True)


def _content(path: Path) -> bytes | None:
    if not path.exists():
        return None
    # To write: one that is read-only is refused, though it could be moved away.
    with path.open("r+b") as file:
        return file.read()
