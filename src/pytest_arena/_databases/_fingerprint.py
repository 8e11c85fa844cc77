"""Have the files that a build depended on changed since?"""

from __future__ import annotations

import ast
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._databases._sources import is_hidden, parsed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_arena._databases._sources import Watch

__all__ = ["Digests", "digest_files", "digest_folders", "first_change"]

Digests = dict[str, list[str]]


def digest_files(files: Iterable[Path], root: Path) -> Digests:
    """Return each file's digests by its path from the root: of its bytes, and of its code.

    The second one is blind to comments and white space.
    """
    return {_relative(file, root): _digests(file) for file in sorted(files)}


def _relative(path: Path, root: Path) -> str:
    # Both ends without links: a checkout behind a link is the same one.
    return Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()


def _digests(file: Path) -> list[str]:
    content = file.read_bytes()
    code = ast.dump(parsed(file)).encode() if file.suffix == ".py" else content
    return [hashlib.sha256(part).hexdigest() for part in (content, code)]


def digest_folders(watch: Watch, root: Path) -> Digests:
    """Return the names in each folder that the build went through: a new file may be another row.

    Only names like those of the files that were read there count, and subfolders where it went
    into one: other files come and go.
    """
    folders = watch.folders(root)
    kinds = {folder: _kinds(folder, watch.files(root), folders) for folder in sorted(folders)}
    return {
        _relative(folder, root): [" ".join(kind), *_names(folder, kind)]
        for folder, kind in kinds.items()
        if kind
    }


def _kinds(folder: Path, files: set[Path], folders: set[Path]) -> list[str]:
    went_below = any(other.parent == folder for other in folders)
    endings = {file.suffix for file in files if file.suffix and _near(file.parent, folder)}
    return sorted(endings | ({"/"} if went_below else set()))


def _near(one: Path, other: Path) -> bool:
    """Whether one of them lies in the other, as those that ``rglob`` goes through do."""
    return one.is_relative_to(other) or other.is_relative_to(one)


def _names(folder: Path, kinds: list[str]) -> list[str]:
    entries = [entry for entry in folder.iterdir() if not is_hidden(entry.name)]
    return sorted(
        entry.name
        for entry in entries
        if entry.suffix in kinds or ("/" in kinds and entry.is_dir())
    )


def first_change(files: Digests, folders: Digests, root: Path) -> str:
    """Return what has changed first since a build, as a path from the root; "" if nothing has.

    A file has not if it has the same bytes, or at least the same code.
    """
    changed = (name for name, known in files.items() if not _same(root / name, *known))
    added = (name for name, known in folders.items() if not _same_names(root / name, *known))
    return next(changed, "") or next(added, "")


def _same(file: Path, content: str, code: str) -> bool:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest() == content or _digests(file)[1] == code
    except OSError:
        return False


def _same_names(folder: Path, kinds: str, *names: str) -> bool:
    try:
        return _names(folder, kinds.split(" ")) == list(names)
    except OSError:
        return False
